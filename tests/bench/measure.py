"""How a proxy is measured: load with smtp-source, its processor time, its memory while sessions idle, its system calls."""

import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import time

from parts import BenchError

PARALLEL = 20  # sessions of smtp-source at a time

# key, title, options of smtp-source
WORKS = [
    ("connect", "connect per message, 4 KB", ["-l", "4096"]),
    ("kept", "kept sessions, 4 KB", ["-d", "-l", "4096"]),
    ("large", "1 MB messages", ["-d", "-l", str(1 << 20)]),
]


def cpu_seconds(pids):
    """User and system time of all threads, ended ones too. The process clock counts nanoseconds where /proc/PID/stat
    counts ticks of 10 ms; both are the sum of the same run times."""
    cpuclock_sched = 2
    return sum(time.clock_gettime((~pid << 3) | cpuclock_sched) for pid in pids)


class Neighbours:
    """How much of the machine goes to processes that have no part in the benchmark. They make the figures worse than
    they are, and the ratios nearer to 1."""

    def __init__(self, pids):
        self.pids = pids
        self.begin = self.reading()

    def reading(self):
        with open("/proc/stat") as f:
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, f.readline().split()[1:])
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = cpu_seconds(self.pids) + children.ru_utime + children.ru_stime + time.process_time()
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return busy - own, time.monotonic()

    def share(self):
        """Of all processors, since the start: 0 to 1."""
        others, now = self.reading()
        return max(0.0, (others - self.begin[0]) / (now - self.begin[1]) / os.cpu_count())


def send(port, work, messages, cpus=None):
    """Send `messages`; returns the seconds it took. smtp-source gives up at the first reply it did not expect."""
    options = next(options for key, _, options in WORKS if key == work)
    argv = ["smtp-source", "-s", str(min(PARALLEL, messages)), "-m", str(messages), *options]
    argv += ["-f", "from@bench.test", "-t", "to@bench.test", "-M", "source.bench.test", f"127.0.0.1:{port}"]
    begin = time.monotonic()
    done = subprocess.run(
        argv,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
        check=False,
    )
    seconds = time.monotonic() - begin
    if done.returncode or done.stderr.strip():
        raise BenchError(f"smtp-source failed: {done.stderr.strip() or done.returncode}")
    return seconds


def load(port, process, work, messages, cpus=None):
    """Returns (messages per second, microseconds of the proxy's processor time per message or None)."""
    pids = process.pids() if process else []
    before = cpu_seconds(pids)
    seconds = send(port, work, messages, cpus)
    cpu = cpu_seconds(pids) - before
    return messages / seconds, cpu / messages * 1e6 if process else None


def private_kib(pids):
    """Memory that only this process holds and has written: what idle sessions cost in user space."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += int(re.search(r"^Private_Dirty:\s+(\d+)", f.read(), re.M).group(1))
    return total


def settled_kib(pids):
    """The same, once two readings 200 ms apart agree (at most 5 s)."""
    last = private_kib(pids)
    for _ in range(25):
        time.sleep(0.2)
        now = private_kib(pids)
        if now == last:
            break
        last = now
    return last


class IdleClient:
    """Opens sessions, goes through banner and EHLO, and then says nothing more."""

    def __init__(self, port):
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.waiting = 0
        self.sockets = []

    def open(self, count, at_once=50, seconds=30):
        deadline = time.monotonic() + seconds
        left = count
        while left or self.waiting:
            while left and self.waiting < at_once:
                self.connect()
                left -= 1
            if time.monotonic() > deadline:
                raise BenchError(f"only {len(self.sockets) - self.waiting} idle sessions after {seconds} s")
            for key, _ in self.selector.select(1):
                self.readable(key)

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        s.setblocking(False)
        self.sockets.append(s)
        self.waiting += 1
        self.selector.register(s, selectors.EVENT_READ, {"step": "banner", "text": b""})

    def readable(self, key):
        state = key.data
        got = key.fileobj.recv(4096)
        if not got:
            raise BenchError(f"an idle session was closed at {state['step']}: {state['text'][-80:]!r}")
        state["text"] += got
        # The last line of a reply has a space behind its code.
        if not re.search(rb"(^|\n)\d{3} [^\n]*\n\Z", state["text"]):
            return
        if not state["text"].startswith(b"2"):
            raise BenchError(f"an idle session was refused: {state['text'][-80:]!r}")
        if state["step"] == "banner":
            key.fileobj.sendall(b"EHLO idle.bench.test\r\n")
            state["step"], state["text"] = "ehlo", b""
        else:
            self.selector.unregister(key.fileobj)
            self.waiting -= 1

    def close(self):
        for s in self.sockets:
            s.close()
        self.sockets = []
        self.selector.close()


def idle_memory(port, process, sessions, client_kind=IdleClient):
    """KiB of user memory per session that stands idle after EHLO. `process` must be fresh: one that has carried load
    has freed memory at hand, and its sessions would look cheaper than they are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pids = process.pids()
    warm = client_kind(port)
    warm.open(20)
    warm.close()
    before = settled_kib(pids)
    client = client_kind(port)
    try:
        client.open(sessions)
        return (settled_kib(pids) - before) / sessions
    finally:
        client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def system_calls(port, process, work, messages, directory):
    """Calls per message, as traced_calls()."""

    def run():
        send(port, work, messages)
        return messages

    return traced_calls(process, run, directory)


def traced_calls(process, run, directory):
    """System calls while run() works, for each of the things that it says it did, as [(name, calls)] with the most
    frequent first. The strain of strace shifts how much work a wake-up finds, so these are for finding waste, not for
    times."""
    report = os.path.join(directory, "strace.out")
    pids = [argument for pid in process.pids() for argument in ("-p", str(pid))]
    strace = subprocess.Popen(
        ["strace", "-c", "-f", "-o", report, *pids], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in process.pids():
            line = strace.stderr.readline()
            if "attached" not in line:
                raise BenchError(f"strace: {line.strip() or 'ended'}")
        count = run()
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate()
    calls = []
    with open(report) as f:
        for line in f:
            row = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z_0-9]+)\s*$", line)
            if row and row.group(2) != "total":
                calls.append((row.group(2), int(row.group(1)) / count))
    return sorted(calls, key=lambda call: -call[1])
