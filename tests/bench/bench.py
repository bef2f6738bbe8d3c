#!/usr/bin/env python3
"""Weir beside HAProxy, nginx and hitch, in one run: smtp-source, a proxy with one thread, three smtp-sinks.

Every round gives every proxy the same work, the order turning by one each round, so that what the machine does
besides falls on all alike. Figures are medians over the rounds; ratios are medians of the ratios within a round.
"""

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import measure
import parts
import report
import tls
from parts import BenchError, note

BASE = "haproxy"  # what the others are compared with
BENCH_SCAN = os.path.join(os.path.dirname(parts.WEIR), "bench/bench_scan")
DOCUMENT = os.path.join(parts.ROOT, "docs/benchmarks.md")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = list(dict.fromkeys(proxy.key for proxy in parts.PROXIES + tls.PROXIES))
    works = [key for key, _, _ in measure.WORKS] + [key for key, _ in tls.WORKS]
    parser.add_argument("--quick", action="store_true", help="a short run: two rounds of half a second")
    parser.add_argument("--only", metavar="LIST", help="these proxies, separated by commas: " + ",".join(keys))
    parser.add_argument("--works", metavar="LIST", help="these works: " + ",".join(works))
    parser.add_argument("--rounds", type=int, help="rounds (default 8)")
    parser.add_argument("--seconds", type=float, help="about how long a proxy gets for a work in a round (default 1)")
    parser.add_argument("--sessions", type=int, default=2000, help="idle sessions for the memory figures (default 2000)")
    parser.add_argument("--pin", action="store_true", help="the proxy on processor 0, all else on the others")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 8)
    options.seconds = options.seconds or (0.5 if options.quick else 1)
    options.only = chosen(parser, options.only, keys)
    options.works = chosen(parser, options.works, works)
    return options


def chosen(parser, text, known):
    names = text.split(",") if text else known
    for name in names:
        if name not in known:
            parser.error(f"{name}: not one of {', '.join(known)}")
    return names


class Bench:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.proxy_cpus = self.other_cpus = None
        if options.pin:
            cpus = sorted(os.sched_getaffinity(0))
            if len(cpus) < 2:
                raise BenchError("--pin needs two processors")
            self.proxy_cpus, self.other_cpus = {cpus[0]}, set(cpus[1:])
        self.sinks = []
        self.proxies = []  # (Proxy, Process)
        self.rounds = []  # {(proxy, work): (rate, cpu)}
        self.neighbours = []  # of each round: share of the machine that others used
        self.idle = {}
        self.calls = {}
        self.scan = []
        self.plain_works = [key for key, _, _ in measure.WORKS if key in options.works]
        self.tls = None

    def select(self):
        wanted = []
        for kind in parts.PROXIES:
            proxy = kind()
            if proxy.key not in self.options.only:
                continue
            why = proxy.missing()
            if why:
                note(f"bench: {proxy.title} is left out: {why}")
            else:
                wanted.append(proxy)
        return wanted

    def start(self, proxy):
        ports = [port for _, port in self.sinks]
        return proxy.start(self.directory, ports, self.proxy_cpus, self.other_cpus)

    def run(self):
        self.sinks = parts.start_sinks(self.directory, 3, self.other_cpus)
        self.tls = tls.TlsBench(self.options, self.directory, self.sinks, self.proxy_cpus, self.other_cpus)
        if self.plain_works:
            self.run_plain()
        self.tls.run()

    def run_plain(self):
        wanted = self.select()
        self.measure_idle(wanted)
        self.proxies = []
        for proxy in wanted:
            self.proxies.append((proxy, self.start(proxy)))
        self.measure_load()
        self.measure_calls()
        self.run_scan()

    def measure_idle(self, wanted):
        for proxy in wanted:
            process = self.start(proxy)
            if not process:
                continue
            try:
                self.idle[proxy.key] = measure.idle_memory(proxy.port, process, self.options.sessions)
                note(f"bench: {proxy.key}: {self.idle[proxy.key]:.2f} KiB per idle session")
            finally:
                proxy.stop(process)

    def measure_load(self):
        if not self.proxies:
            return
        counts = self.calibrate()
        processes = [process for process, _ in self.sinks]
        for proxy, process in self.proxies:
            processes += [process, *proxy.helpers] if process else []
        pids = [pid for process in processes for pid in process.pids()]
        for number in range(self.options.rounds):
            figures = {}
            neighbours = measure.Neighbours(pids)
            turn = number % len(self.proxies)
            for work in self.plain_works:
                for proxy, process in self.proxies[turn:] + self.proxies[:turn]:
                    count = counts[proxy.key, work]
                    figures[proxy.key, work] = measure.load(proxy.port, process, work, count, self.other_cpus)
            self.rounds.append(figures)
            self.neighbours.append(neighbours.share())
            note(f"bench: round {number + 1} of {self.options.rounds}: " + self.round_line(figures))

    def calibrate(self):
        """How many messages fill the time, from a short first go, which also warms every proxy up."""
        counts = {}
        for proxy, process in self.proxies:
            for work in self.plain_works:
                rate, _ = measure.load(proxy.port, process, work, 100 if work == "large" else 400, self.other_cpus)
                counts[proxy.key, work] = max(100, int(rate * self.options.seconds))
        return counts

    def round_line(self, figures):
        cells = []
        for work in self.plain_works:
            cpu = [f"{proxy.key} {figures[proxy.key, work][1]:.0f}" for proxy, process in self.proxies if process]
            cells.append(f"{work} " + " ".join(cpu))
        return "; ".join(cells) + f" (CPU us per message); others used {self.neighbours[-1]:.0%} of the machine"

    def measure_calls(self):
        if not shutil.which("strace"):
            note("bench: system calls are left out: strace is not installed")
            return
        for proxy, process in self.proxies:
            if proxy.key not in ("haproxy", "weir"):
                continue
            for work in self.plain_works:
                count = 40 if work == "large" else 1000
                self.calls[proxy.key, work] = measure.system_calls(proxy.port, process, work, count, self.directory)

    def run_scan(self):
        if os.access(BENCH_SCAN, os.X_OK):
            done = subprocess.run([BENCH_SCAN], stdout=subprocess.PIPE, text=True, check=True)
            self.scan = done.stdout.splitlines()

    def stop(self):
        for proxy, process in self.proxies:
            proxy.stop(process)
        if self.tls:
            self.tls.stop()
        for process, _ in self.sinks:
            process.stop()

    def results(self):
        """What the report needs, per proxy and work: medians, and the ratio to HAProxy with its range."""
        cells = {}
        for proxy, process in self.proxies:
            for work in self.plain_works:
                rates = [figures[proxy.key, work][0] for figures in self.rounds]
                cell = {"rate": statistics.median(rates), "cpu": None, "ratios": []}
                if process:
                    cell["cpu"] = statistics.median(figures[proxy.key, work][1] for figures in self.rounds)
                    cell["ratios"] = [
                        figures[proxy.key, work][1] / figures[BASE, work][1]
                        for figures in self.rounds
                        if (BASE, work) in figures
                    ]
                cells[proxy.key, work] = cell
        return cells


def main():
    options = arguments()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as directory:
        os.chmod(directory, 0o755)
        bench = Bench(options, directory)
        try:
            bench.run()
        except BenchError as error:
            note(f"bench: {error}")
            return 1
        finally:
            bench.stop()
    lines = report.tables(bench, bench.results())
    print("\n".join(lines))
    note(f"bench: {time.monotonic() - begin:.0f} s")
    if options.write:
        command = "tests/bench/bench.py " + shlex.join(sys.argv[1:])
        report.write_document(DOCUMENT, bench, lines, command)
        note(f"bench: wrote {os.path.relpath(DOCUMENT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
