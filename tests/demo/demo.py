#!/usr/bin/python3
"""
The demo: Weir balances real mail over three relays that keep what they take, while one of them is killed.

    demo.py [--messages N] [--clients N] [--no-kill] [--stand-in] PROGRAM

Exit 0 if every acknowledged message is in a relay, and none twice but those of which Weir itself said that it cannot know;
else 1. --stand-in runs HAProxy (mode tcp) in Weir's place, to show what the same crowd meets without a proxy that speaks SMTP.
"""

import argparse
import asyncio
import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]

from clients import Crowd  # noqa: E402
from relay import read_store  # noqa: E402
from weirtest.net import Ports  # noqa: E402

WEIGHTS = {"relay-a": 4, "relay-b": 2, "relay-c": 1}
VICTIM = "relay-a"
RELAY_MILLISECONDS = 50
SLOW_START = "2s"

WEIR_YAML = """\
hostname: weir.demo.example
log: {{ destination: {log} }}
listeners:
  smtp:
    address: ["127.0.0.1:{port}"]
    pool: relays
pools:
  relays:
    slow-start: {slow_start}
    health: {{ interval: 1s, fast-interval: 200ms, timeout: 3s, fall: 2, rise: 2 }}
    backends:
{backends}
http: {{ address: "127.0.0.1:{http}" }}
control: ""
"""
HAPROXY_CFG = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen smtp
    bind 127.0.0.1:{port}
    balance leastconn
{backends}
"""


# Below the kernel's ephemeral range: else some connection could take the port of a relay that is away. And below what the tests
# use, as they run this one among others. Nobody is given one twice, nor is another demo on this machine.
PORTS = Ports(10000, 11999, 250)


def free_port():
    return PORTS.free("127.0.0.1")


class Screen:
    """Plain text; bold, green and red only on a terminal."""

    def __init__(self):
        self.colour = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and "NO_COLOR" not in os.environ
        self.began = time.monotonic()

    def paint(self, code, text):
        return "\x1b[%sm%s\x1b[0m" % (code, text) if self.colour else text

    def heading(self, text):
        print("\n" + self.paint("1", text), flush=True)

    def line(self, text=""):
        print("   " + text if text else "", flush=True)

    def at(self, text):
        print("   %5.1f s  %s" % (time.monotonic() - self.began, text), flush=True)

    def verdict(self, good, text):
        print("   %s  %s" % (self.paint("32", "ok  ") if good else self.paint("1;31", "FAIL"), text), flush=True)
        return good


class Relay:
    def __init__(self, name, directory):
        self.name, self.weight = name, WEIGHTS[name]
        self.port, self.store, self.process = free_port(), os.path.join(directory, name + ".store"), None

    def start(self):
        script = os.path.join(HERE, "relay.py")
        self.process = subprocess.Popen([sys.executable, script, str(self.port), self.store, self.name, str(RELAY_MILLISECONDS)],
                                        stdin=subprocess.DEVNULL)
        wait_for(lambda: listens(self.port), 10, "%s to listen" % self.name)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def kept(self):
        """What is in the store: (number, sha256) of each message."""
        return read_store(self.store)[0]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("demo: waited %d s in vain for %s" % (seconds, what))
        time.sleep(0.02)


class Demo:
    def __init__(self, options):
        self.options, self.screen = options, Screen()
        self.directory = tempfile.mkdtemp(prefix="weir-demo-")
        self.relays = [Relay(name, self.directory) for name in WEIGHTS]
        self.port, self.http = free_port(), free_port()
        self.log = os.path.join(self.directory, "weir.log")
        self.proxy = None
        self.marks = []  # (heading, what each relay had by then)
        self.shown = self.back = 0  # lines of Weir's log: shown so far, there at the victim's return

    # The parts

    def start_proxy(self):
        path = os.path.join(self.directory, "proxy.conf")
        if self.options.stand_in:
            servers = "".join("    server %s 127.0.0.1:%d weight %d check inter 1s fall 2 rise 2\n" % (r.name, r.port, r.weight)
                              for r in self.relays)
            text, command = HAPROXY_CFG.format(port=self.port, backends=servers), [self.options.program, "-q", "-db", "-f", path]
        else:
            backends = "\n".join('      %s: { address: "127.0.0.1:%d", weight: %d }' % (r.name, r.port, r.weight)
                                 for r in self.relays)
            text = WEIR_YAML.format(log=self.log, slow_start=SLOW_START, port=self.port, http=self.http, backends=backends)
            command = [self.options.program, "-c", path]
        with open(path, "w") as file:
            file.write(text)
        self.proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_for(self.proxy_ready, 15, "the proxy to be ready (its configuration and log are in %s)" % self.directory)

    def proxy_ready(self):
        if self.proxy.poll() is not None:
            raise SystemExit("demo: %s ended with exit code %d" % (self.options.program, self.proxy.returncode))
        if self.options.stand_in:
            return listens(self.port)
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d/readyz" % self.http, timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def log_lines(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                return file.read().splitlines()
        except OSError:
            return []

    def show_backend_changes(self):
        """What Weir wrote about its backends since the last time."""
        lines = self.log_lines()
        for line in lines[self.shown:]:
            change = re.search(r'event=backend-state backend=(\S+) from=(\S+) to=(\S+)(?: reason="?([^"]*))?', line)
            if change:
                self.screen.line("         Weir's log: %s %s → %s (%s)" % change.groups(""))
        self.shown = len(lines)

    def held_against(self):
        """What Weir did to the victim since its return: nothing that the log calls a fault of it, as it has had none."""
        return [line for line in self.log_lines()[self.back:] if "backend=%s " % VICTIM in line and
                re.search("event=(backend-state .* to=(ejected|degraded)|backend-limit .*reason=not-now)", line)]

    def mark(self, heading):
        self.marks.append((heading, {relay.name: len(relay.kept()) for relay in self.relays}))

    # The story

    def run(self):
        screen, options = self.screen, self.options
        screen.heading("Three relays that keep what they take, and %s in front of them" %
                       ("HAProxy (mode tcp)" if options.stand_in else "Weir"))
        for relay in self.relays:
            relay.start()
            screen.line("%s   weight %d   127.0.0.1:%d   pid %d" % (relay.name, relay.weight, relay.port, relay.process.pid))
        self.start_proxy()
        screen.line("%-7s              127.0.0.1:%d   pid %d" % ("proxy" if options.stand_in else "weir", self.port, self.proxy.pid))
        self.shown = len(self.log_lines())
        self.one_by_swaks()
        crowd = Crowd(self.port, options.clients, options.messages)
        screen.heading("%d clients send %d numbered messages, and try again what is not accepted" % (options.clients, options.messages))
        screen.began = time.monotonic()
        asyncio.run(self.send(crowd))
        screen.at("all %d are dealt with: %.0f messages/s" % (options.messages, options.messages / crowd.seconds))
        self.stop_proxy()
        return self.report(crowd)

    def one_by_swaks(self):
        program = shutil.which("swaks")
        if not program:
            self.screen.heading("One message to read along: swaks is not installed, so this is left out")
            return
        self.screen.heading("One message to read along (swaks)")
        done = subprocess.run([program, "--server", "127.0.0.1", "--port", str(self.port), "--helo", "swaks.example",
                               "--from", "you@example.org", "--to", "me@example.net", "--header", "Subject: through the weir",
                               "--body", "Hello, relay."], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        for line in done.stdout.splitlines():
            if re.match(r"(<[-~ *]|[- ~]?[-~ ]>|===|\*\*\*)", line.strip()):
                self.screen.line(line)
        if done.returncode:
            raise SystemExit("demo: swaks ended with exit code %d" % done.returncode)

    async def send(self, crowd):
        if not self.options.no_kill:
            # The last part is for the relay that comes back, however long that takes.
            crowd.hold_from = crowd.messages * 3 // 5
        sending = asyncio.ensure_future(crowd.run())
        victim = next(relay for relay in self.relays if relay.name == VICTIM)
        if not self.options.no_kill:
            await self.until(sending, crowd, crowd.messages * 3 // 10)
            self.mark("before the kill")
            self.shown = len(self.log_lines())
            victim.kill()
            self.screen.at("%d delivered. kill -9 of %s" % (len(crowd.acknowledged), VICTIM))
            await self.until(sending, crowd, crowd.messages * 9 // 20)
            await self.until_state("down", 5)
            self.show_backend_changes()
            self.screen.at("%d delivered. %s starts again on its port, with its store" % (len(crowd.acknowledged), VICTIM))
            await asyncio.get_running_loop().run_in_executor(None, victim.start)
            await self.until_state("up", 5)
            self.show_backend_changes()
            self.back = self.shown
            self.mark("while it is away")
            crowd.released.set()
        await sending
        self.mark("since its return" if self.marks else "taken")

    async def until(self, sending, crowd, count):
        while len(crowd.acknowledged) < count and not sending.done():
            if self.proxy.poll() is not None:
                raise SystemExit("demo: the proxy ended with exit code %d" % self.proxy.returncode)
            await asyncio.sleep(0.01)

    async def until_state(self, state, seconds):
        """Until Weir's checks have found the victim in this state. A relay that is back before a check has missed it sits
        out an ejection; that is not what this shows. The stand-in has no such log: it gets the time that its checks need."""
        if self.options.stand_in:
            await asyncio.sleep(2.5)
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any("backend=%s " % VICTIM in line and " to=%s" % state in line for line in self.log_lines()[self.shown:]):
                return
            await asyncio.sleep(0.02)

    def stop_proxy(self):
        self.proxy.terminate()
        try:
            self.proxy.wait(20)
        except subprocess.TimeoutExpired:
            self.proxy.kill()
            self.proxy.wait()

    # The check

    def unknown(self):
        """How often Weir said, for each number, that it cannot know what became of it."""
        found = collections.Counter()
        for line in self.log_lines():
            number = re.search(r'\bfrom="?<n(\d+)@', line)
            if number and "outcome=unknown" in line:
                found[int(number.group(1))] += 1
        return found

    def report(self, crowd):
        screen = self.screen
        kept = [record for relay in self.relays for record in relay.kept() if record[0]]
        copies = collections.Counter(number for number, _ in kept)
        unknown = self.unknown()
        missing = sorted(number for number in crowd.acknowledged if not copies[number])
        twice = sorted(number for number, count in copies.items() if count > 1)
        unexplained = [number for number in twice if copies[number] > 1 + unknown[number]]
        broken = sorted(number for number, digest in kept if digest != crowd.digests.get(number))
        taken = self.table()
        screen.heading("What the clients met")
        screen.line("sent %d, delivered %d, bounced %d, tried again %d" %
                    (crowd.messages, len(crowd.acknowledged), len(crowd.bounced), crowd.retried))
        for text, count in sorted(crowd.refusals.items(), key=lambda item: -item[1]):
            screen.line("%6d ×  %s" % (count, text[:100]))
        screen.heading("The check")
        good = [
            screen.verdict(len(crowd.acknowledged) == crowd.messages and not crowd.bounced,
                           "every message was acknowledged in the end" + listed(crowd.bounced)),
            screen.verdict(not missing, "every acknowledged message is in a relay" + listed(missing)),
            screen.verdict(not broken, "each is kept octet for octet" + listed(broken)),
            screen.verdict(not unexplained, "none is there twice, but those logged outcome=unknown (%d such, %d of them twice)%s" %
                           (sum(unknown.values()), len(twice), listed(unexplained))),
            screen.verdict(taken[VICTIM] > 0, "%s takes its part%s (%d messages)" %
                           (VICTIM, "" if self.options.no_kill else " again since it is back", taken[VICTIM])),
            screen.verdict(crowd.lost == 0, "no client lost its connection (%d did)" % crowd.lost),
            screen.verdict(self.proxy.returncode in ((0, -15, 143) if self.options.stand_in else (0,)), "the proxy stopped cleanly"),
        ]
        if not self.options.no_kill and not self.options.stand_in:
            held = self.held_against()
            good.append(screen.verdict(not held, "what %s did before is not held against it%s" % (VICTIM, listed(held))))
        return all(good)

    def table(self):
        """Print what each relay took in each phase against its weight; what they took in the last one."""
        self.screen.heading("The spread")
        self.screen.line("%-8s %6s %7s" % ("", "weight", "due") + "".join("%20s" % heading for heading, _ in self.marks))
        phases, before = [], dict.fromkeys(WEIGHTS, 0)
        for _, counts in self.marks:
            phases.append({name: counts[name] - before[name] for name in WEIGHTS})
            before = counts
        for name, weight in WEIGHTS.items():
            self.screen.line("%-8s %6d %5.1f %%" % (name, weight, 100 * weight / sum(WEIGHTS.values())) + "".join(
                "%12d %5.1f %%" % (taken[name], 100 * taken[name] / max(1, sum(taken.values()))) for taken in phases))
        if len(self.marks) > 1 and not self.options.stand_in:
            self.screen.line("(A relay that is back begins slowly: its share grows for %s, the slow-start.)" % SLOW_START)
        return phases[-1]

    def clean_up(self, keep):
        for process in [self.proxy] + [relay.process for relay in self.relays]:
            if process and process.poll() is None:
                process.kill()
                process.wait()
        if keep:
            self.screen.line("configuration, log and stores are kept in " + self.directory)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


def listed(items):
    return ": " + ", ".join(map(str, items[:5])) + (" and %d more" % (len(items) - 5) if len(items) > 5 else "") if items else ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--messages", type=int, default=6000)
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--stand-in", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    demo, good = Demo(options), False
    try:
        good = demo.run()
    except KeyboardInterrupt:
        print()
    finally:
        demo.clean_up(keep=not good)
    if good:
        print("\nGo on with relays of your own: put their addresses into config/quickstart.yaml, then `make run`.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
