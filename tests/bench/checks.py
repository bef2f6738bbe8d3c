#!/usr/bin/python3
"""
What health checks cost: a thousand plain relays checked to depth `ehlo` at the default interval, and no mail.

    tests/bench/checks.py [--relays 1000] [--seconds 30] [--calls] [--outage]

One smtp-sink is all the relays: 127.x.y.z is one address each. It prints the share of a core that Weir's process takes, what
a check costs, and with --calls its system calls (strace makes that run slower, so it is another one). With --outage all
relays then go away at once and come back at once.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
import urllib.request

from measure import Neighbours, cpu_seconds, traced_calls
from parts import WEIR, BenchError, Process, free_ports, wait_for_mail, write

INTERVAL = 5  # seconds, the default


def address(number):
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


def configuration(relays, relay_port, smtp_port, http_port):
    lines = [
        "hostname: bench.test",
        "workers: 1",
        f'http: {{ address: "127.0.0.1:{http_port}" }}',
        f'listeners: {{ smtp: {{ address: "127.0.0.1:{smtp_port}", pool: relays }} }}',
        "pools:",
        "  relays:",
        "    backends:",
    ]
    lines += [f'      relay{n}: {{ address: "{address(n)}:{relay_port}" }}' for n in range(relays)]
    return "\n".join(lines) + "\n"


def wake_ups(pid):
    """How often its threads have slept and been woken."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M).group(1))
    return total


def usable(http_port):
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10) as reply:
        return len(re.findall(r"^weir_backend_up\{[^}]*\} 1$", reply.read().decode(), re.M))


def wait_until_up(weir, relays, http_port):
    """Until so many are."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if weir.popen.poll() is not None:
            weir.fail("ended")
        try:
            if usable(http_port) == relays:
                return
        except OSError:
            pass
        time.sleep(0.5)  # a scrape of a thousand relays is work too
    weir.fail(f"{usable(http_port)} relays are up, not {relays}")


def outage(weir, sink, restart, relays, http_port):
    """Returns the sink that is there at the end."""
    for what, wanted in (("down", 0), ("up", relays)):
        lines = log_lines(weir)
        before, begin = cpu_seconds(weir.pids()), time.monotonic()
        if wanted:
            sink = restart()
        else:
            sink.stop()
        wait_until_up(weir, wanted, http_port)
        seconds = time.monotonic() - begin
        cpu = cpu_seconds(weir.pids()) - before
        print(
            f"all {what} within {seconds:.1f} s: {cpu:.3f} s of a core ({cpu / seconds:.1%}), {log_lines(weir) - lines} log lines"
        )
    return sink


def log_lines(process):
    with open(process.error_path, "rb") as f:
        return sum(1 for _ in f)


def measure(arguments, directory):
    relay_port, smtp_port, http_port = free_ports(3)
    identity = ["-u", "nobody"] if os.geteuid() == 0 else []

    def start_sink():
        return Process("sink", ["smtp-sink", *identity, "-m", "4000", f"0.0.0.0:{relay_port}", "1024"], directory)

    sink, weir = start_sink(), None
    try:
        wait_for_mail(sink, relay_port)
        path = write(os.path.join(directory, "weir.yaml"), configuration(arguments.relays, relay_port, smtp_port, http_port))
        weir = Process("weir", [WEIR, "-c", path], directory)
        wait_until_up(weir, arguments.relays, http_port)
        time.sleep(INTERVAL + 1)  # to the phase of its own that each has
        neighbours = Neighbours(weir.pids() + sink.pids())
        before, begin, slept = cpu_seconds(weir.pids()), time.monotonic(), wake_ups(weir.popen.pid)
        time.sleep(arguments.seconds)
        seconds = time.monotonic() - begin
        share = (cpu_seconds(weir.pids()) - before) / seconds
        rate = arguments.relays / INTERVAL
        wakes = (wake_ups(weir.popen.pid) - slept) / seconds / rate
        print(
            f"{arguments.relays} relays, {rate:.0f} checks a second: {share:.2%} of a core, {share / rate * 1e6:.0f} µs and {wakes:.1f} wake-ups a check"
            f" (others took {neighbours.share():.0%} of the machine)"
        )
        if usable(http_port) != arguments.relays:
            weir.fail("some relay is not up at the end")
        if arguments.calls:
            calls = traced_calls(weir, lambda: time.sleep(INTERVAL) or rate * INTERVAL, directory)
            print(f"{sum(n for _, n in calls):.1f} system calls a check: " + ", ".join(f"{name} {n:.2f}" for name, n in calls))
        if arguments.outage:
            sink = outage(weir, sink, start_sink, arguments.relays, http_port)
    finally:
        for process in (weir, sink):
            if process:
                process.stop()


def main():
    parser = argparse.ArgumentParser(description="The cost of health checks.")
    parser.add_argument("--relays", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--calls", action="store_true", help="count system calls too")
    parser.add_argument("--outage", action="store_true", help="all relays go away and come back")
    arguments = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="weir-bench-")
    os.chmod(directory, 0o755)
    try:
        measure(arguments, directory)
    except BenchError as error:
        sys.exit(f"checks.py: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
