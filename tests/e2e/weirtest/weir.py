"""
Weir under test: one process, its configuration, its log, its metrics; and the questions every test ends with.

    with Weir([relay]) as weir:
        weir.client().ehlo().message()
        weir.wait_log(event="transaction", outcome="delivered")
"""

import copy
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import yaml

from . import logfmt
from .client import Client
from .net import free_port, wait_until
from .relay import Relay
from .tls import any_server

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BINARY = os.environ.get("WEIR", os.path.join(ROOT, "build", "asan", "weir"))
CONTROL = os.path.join(os.path.dirname(os.path.abspath(BINARY)), "weirctl")
SANITIZER = re.compile(r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error:|SUMMARY: ")
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1:detect_stack_use_after_return=1:strict_string_checks=1:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=99",
}
# Short enough that a test sees a relay go and come back, long enough that a loaded machine is not called dead.
HEALTH = {"interval": "500ms", "fast-interval": "100ms", "timeout": "3s", "fall": 2, "rise": 1}


def merged(base, over):
    """`over` laid onto a copy of `base`; a None takes the key out."""
    result = copy.deepcopy(base)
    for key, value in (over or {}).items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def tls_listener(mode, *certificates, **more):
    """Options of a listener that does TLS; `more` with _ for -."""
    return {"tls": mode, "certificate": list(certificates), **{name.replace("_", "-"): value for name, value in more.items()}}


class Weir:
    """
    `backends`: a list of relays (named r1, r2, ...) or a dict of name → relay, "host:port", or a dict of options whose
    "address" is one of those. Any object with an `address` will do for a relay. `listener`, `pool`, `top` are laid onto the
    defaults of the one listener, the one pool and the file. `text` replaces the whole file. `wait`: "ready" (a backend is usable),
    "alive" (HTTP answers) or None. `context`: with what its clients do TLS.
    """

    def __init__(self, backends=(), listener=None, pool=None, top=None, text=None, binary=None, environment=None,
                 wrapper=(), wait="ready", start=True, context=None):
        self.directory = tempfile.mkdtemp(prefix="weir-e2e-")
        os.chmod(self.directory, 0o755)
        self.path = os.path.join(self.directory, "weir.yaml")
        self.log_path = os.path.join(self.directory, "stderr")
        self.control_path = os.path.join(self.directory, "control")
        self.binary, self.wrapper = binary or BINARY, list(wrapper)
        self.environment = dict(os.environ, **SANITIZER_OPTIONS)
        self.environment.update(environment or {})
        self.context = context or any_server()
        self.port, self.http_port = free_port(), free_port()
        while self.http_port == self.port:
            self.http_port = free_port()
        self.relays, self.process, self.exit_code = [], None, None
        self.checks_log, self.finished = text is None, False
        self.baseline = None
        self.config = None if text is not None else self.build(backends, listener, pool, top)
        self.write(text)
        if start:
            try:
                self.start(wait)
            except BaseException:
                self.discard()
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.finish()
        else:
            self.discard()

    # Configuration

    def build(self, backends, listener, pool, top):
        named = backends if isinstance(backends, dict) else {"r%d" % (n + 1): one for n, one in enumerate(backends)}
        config = {
            "hostname": "weir.test",
            "workers": 2,
            "listeners": {"smtp": merged({"address": ["127.0.0.1:%d" % self.port], "pool": "relays"}, listener)},
            "pools": {"relays": merged({"health": dict(HEALTH), "slow-start": "0s", "connect-timeout": "2s",
                                        "queue-timeout": "3s"}, pool)},
            "http": {"address": "127.0.0.1:%d" % self.http_port},
            "control": self.control_path,
        }
        config["pools"]["relays"]["backends"] = {name: self.backend(one) for name, one in named.items()}
        return merged(config, top)

    def backend(self, given):
        options = dict(given) if isinstance(given, dict) else {"address": given}
        peer = options["address"]
        if isinstance(peer, Relay):
            self.relays.append(peer)
        if not isinstance(peer, str):
            options["address"] = "%s:%d" % peer.address
        return options

    def write(self, text=None):
        with open(self.path, "w") as file:
            file.write(yaml.safe_dump(self.config, sort_keys=False) if text is None else text)

    # Life

    def start(self, wait="ready"):
        # HTTP answers while other things, the control socket for one, are yet to be opened: they belong to the baseline.
        tells = wait == "alive" and self.config is not None and "log" not in self.config
        with open(self.log_path, "ab") as log:
            starts = len(self.find_log(event="start")) if tells else 0
            self.process = subprocess.Popen(self.wrapper + [self.binary, "-c", self.path], env=self.environment,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.exit_code = None
        if wait:
            wanted = "/readyz" if wait == "ready" else "/healthz"
            wait_until(lambda: self.answers(wanted), 10, lambda: "%s answers 200; log:\n%s" % (wanted, self.output()))
            if tells:
                self.wait_log(10, starts + 1, event="start")
            self.mark_baseline()

    def answers(self, path):
        assert self.alive(), "weir ended with %s\n%s" % (self.process.returncode, self.output())
        try:
            return self.http(path)[0] == 200
        except OSError:
            return False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def term(self):
        self.signal(signal.SIGTERM)

    def kill(self):
        self.process.kill()
        self.wait()

    def wait(self, timeout=15):
        """Until the process has ended; its exit code."""
        try:
            self.exit_code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("weir did not end within %s s\n%s" % (timeout, self.output())) from None
        return self.exit_code

    def reload(self, change=None):
        """Change the configuration in place, write it, say HUP. The caller awaits what should come of it."""
        if change:
            change(self.config)
        self.write()
        self.signal(signal.SIGHUP)

    # Clients

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def tls(self):
        """What the listener demands or offers."""
        return self.config["listeners"]["smtp"].get("tls", "off") if self.config else "off"

    def client(self, **options):
        """On an implicit listener it begins with TLS, unless `tls` is False."""
        if self.tls == "implicit":
            options.setdefault("tls", self.context)
        return Client(self.address, **options)

    def introduce(self, client, sni=None, session=None):
        """EHLO, over TLS where the listener has it."""
        client.ehlo()
        if self.tls in ("starttls", "required") and client.sock is client.raw:
            client.starttls(self.context, sni, session).ehlo()
        return client

    def introduced(self, sni=None, session=None, **options):
        """A client for which MAIL comes next."""
        if self.tls == "implicit":
            return self.introduce(self.client(sni=sni, session=session, **options))
        return self.introduce(self.client(**options), sni, session)

    def deliver(self, **envelope):
        """One message in a session of its own."""
        with self.introduced() as client:
            client.message(**envelope)
            client.quit()

    # Log

    def output(self):
        with open(self.log_path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read()

    def log(self):
        """Every complete line as a dict."""
        return [logfmt.parse_line(line) for line in self.output().split("\n")[:-1] if line]

    def find_log(self, **fields):
        """The lines whose fields are these. A value may be a compiled pattern, searched for."""
        def fits(line):
            return all(key in line and (want.search(line[key]) if hasattr(want, "search") else line[key] == str(want))
                       for key, want in fields.items())
        return [line for line in self.log() if fits(line)]

    def wait_log(self, timeout=5.0, times=1, **fields):
        """Until so many lines fit; the last of them."""
        def enough():
            found = self.find_log(**fields)
            return found if len(found) >= times else None
        return wait_until(enough, timeout, lambda: "%d × %s in\n%s" % (times, fields, self.output()), 0.02)[-1]

    # HTTP

    def http(self, path, method="GET"):
        """(status, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=5)
        try:
            connection.request(method, path, headers={"Connection": "close"})
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def status(self):
        return json.loads(self.http("/api/status")[1])

    def metrics(self):
        """A list of (name, labels, value)."""
        status, text = self.http("/metrics")
        assert status == 200, text
        found = []
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            sample = re.fullmatch(r'([a-z_][a-z0-9_]*)(?:\{(.*)\})? (\S+)', line)
            assert sample, "not a metric: %r" % line
            labels = dict(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', sample.group(2) or ""))
            found.append((sample.group(1), labels, float(sample.group(3))))
        return found

    def metric(self, name, **labels):
        """The sum of the samples that carry these labels; None if there are none."""
        values = [value for metric, has, value in self.metrics()
                  if metric == name and all(has.get(key) == want for key, want in labels.items())]
        return sum(values) if values else None

    def wait_metric(self, value, name, timeout=5.0, **labels):
        wait_until(lambda: self.metric(name, **labels) == value, timeout,
                   lambda: "%s%s == %s, is %s" % (name, labels, value, self.metric(name, **labels)))

    # The control socket

    def ctl(self, *arguments, environment=None):
        """Run weirctl: (exit code, stdout, stderr)."""
        done = subprocess.run([CONTROL, "--socket", self.control_path, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=20, env=dict(self.environment, **(environment or {})))
        out, err = done.stdout.decode(), done.stderr.decode()
        assert not SANITIZER.search(err), err
        return done.returncode, out, err

    def order(self, *arguments):
        """A weirctl command that must be obeyed; what it printed."""
        code, out, err = self.ctl(*arguments)
        assert code == 0, "weirctl %s: %s %s%s" % (" ".join(arguments), code, out, err)
        return out

    def ask(self, *arguments):
        """The JSON that a weirctl command prints."""
        return json.loads(self.order("--json", *arguments))

    # The epilogue of every row

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def mark_baseline(self):
        """Call it anew after the listeners or the log changed. A health check may be under way: take the lowest of a few."""
        samples = []
        for _ in range(4):
            samples.append(self.descriptors())
            time.sleep(0.005)
        self.baseline = min(samples)

    def assert_baseline(self, deliver=True, timeout=8.0):
        """It lives, delivers, and has given everything back."""
        assert self.alive(), "weir ended with %s\n%s" % (self.process.poll(), self.output())
        if deliver and self.relays:
            for relay in self.relays:
                relay.behave()
                if relay.listener is None:
                    relay.start()
            wait_until(self.delivers, timeout, lambda: "a fresh session delivers; log:\n%s" % self.output(), 0.05)
        for name in ("weir_sessions_active", "weir_queue_waiting", "weir_backend_connections"):
            self.wait_metric(0, name, timeout)
        if self.baseline is not None:
            wait_until(lambda: self.descriptors() <= self.baseline, timeout,
                       lambda: "descriptors: %d, were %d:\n%s" % (self.descriptors(), self.baseline, self.open_files()))

    def delivers(self):
        with self.client(banner=False) as client:
            if client.reply().code != 220:
                return False
            self.introduce(client)
            if client.command("MAIL FROM:<epilogue@client.test>").code != 250:
                return False
            client.ok("RCPT TO:<to@relay.test>")
            return client.data(b"Subject: epilogue\r\n\r\n").code == 250

    def open_files(self):
        folder = "/proc/%d/fd" % self.pid
        names = []
        for entry in os.listdir(folder):
            try:
                names.append(os.readlink(os.path.join(folder, entry)))
            except OSError:
                pass
        return "\n".join(sorted(names))

    def assert_no_sanitizer(self):
        text = self.output()
        assert not SANITIZER.search(text), "a sanitizer spoke:\n%s" % text

    def finish(self, baseline=True):
        """The epilogue, then a clean stop. For a process that the test has already ended: the checks that remain."""
        if self.finished:
            return
        self.finished = True
        try:
            assert self.alive() or self.exit_code is not None, "weir ended by itself with %s\n%s" % (
                self.process.returncode, self.output())
            if self.alive():
                if baseline:
                    self.assert_baseline()
                self.term()
                assert self.wait() == 0, "exit code %s after TERM\n%s" % (self.exit_code, self.output())
            self.assert_no_sanitizer()
            for relay in self.relays:
                assert not relay.faults, "%s: %s" % (relay.name, relay.faults)
            if self.checks_log:
                self.log()
        finally:
            self.discard()

    def discard(self):
        if self.alive():
            self.process.kill()
            self.process.wait()
        for relay in self.relays:
            relay.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def run(*arguments, text=None, binary=None, timeout=20, environment=None):
    """Run weir to its end. With `text`, the last argument is a file that holds it. (exit code, stdout, stderr, path)"""
    directory = tempfile.mkdtemp(prefix="weir-e2e-")
    try:
        path = os.path.join(directory, "weir.yaml")
        if text is not None:
            with open(path, "wb") as file:
                file.write(text if isinstance(text, bytes) else text.encode())
            arguments += (path,)
        done = subprocess.run([binary or BINARY] + list(arguments), stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=timeout, env=dict(os.environ, **SANITIZER_OPTIONS, **(environment or {})))
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        assert not SANITIZER.search(err), err
        return done.returncode, out, err, path
    finally:
        shutil.rmtree(directory, ignore_errors=True)
