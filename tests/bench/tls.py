"""TLS: new handshakes and idle sessions of proxies that end TLS, and what STARTTLS adds to Weir's cost of a message."""

import functools
import os
import re
import shutil
import smtplib
import socket
import ssl
import statistics
import subprocess
import time

import measure
import parts
from parts import BenchError, note

BARE_TLS = os.path.join(parts.ROOT, "build/release/bench/bare_tls")
TLS_PIPE = os.path.join(parts.ROOT, "build/release/bench/tls_pipe")
MAIL_TIME = 2  # the mail work gets this much more time than others: the handshakes of its 20 sessions weigh less then

# key, title
WORKS = [
    ("tls-handshake", "new TLS 1.3 handshakes, P-256 certificate"),
    ("tls-idle", "idle TLS 1.3 sessions after EHLO"),
    ("tls-mail", "STARTTLS mail, kept sessions, 4 KB"),
]


def client_context():
    """A client that takes any certificate, and speaks nothing older than TLS 1.3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def certificate(directory):
    """A PEM file with a P-256 key and its certificate, as every proxy here reads it."""
    key, chain = os.path.join(directory, "key"), os.path.join(directory, "chain")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test"]
    argv += ["-keyout", key, "-out", chain]
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    text = ""
    for path in (chain, key):
        with open(path) as f:
            text += f.read()
    return parts.write(pem(directory), text)


def pem(directory):
    return os.path.join(directory, "bench.pem")


class ImplicitTls:
    """What these proxies have in common: mail comes over TLS from the first octet."""

    mail_client = staticmethod(functools.partial(smtplib.SMTP_SSL, context=client_context()))


class Haproxy(ImplicitTls, parts.Haproxy):
    note = "TLS ended in front, `mode tcp` to a sink"

    def launch(self, directory, sinks, cpus):
        self.bind = f" ssl crt {pem(directory)}"
        return super().launch(directory, sinks, cpus)


class Hitch(ImplicitTls, parts.Proxy):
    key, title, note = "hitch", "hitch", "`workers = 1`, one backend, OCSP off"

    def missing(self):
        return None if shutil.which("hitch") else "hitch is not installed"

    def version(self):
        return "hitch " + parts.version(["hitch", "--version"], r"hitch (\S+)")

    def launch(self, directory, sinks, cpus):
        user = 'user = "nobody"\ngroup = "nogroup"\n' if os.geteuid() == 0 else ""
        path = parts.write(
            os.path.join(directory, "hitch.conf"),
            f"""frontend = "[127.0.0.1]:{self.port}"
backend = "[127.0.0.1]:{sinks[0]}"
pem-file = "{pem(directory)}"
workers = 1
backlog = 1024
daemon = off
ocsp-dir = ""
{user}""",
        )
        return parts.Process(self.key, ["hitch", "--config=" + path], directory, cpus)


class Weir(ImplicitTls, parts.Weir):
    """One process with three listeners: implicit TLS (self.port), plain, and STARTTLS."""

    def listeners(self, directory):
        self.plain_port, self.starttls_port = parts.free_ports(2)
        rest = f'pool: relays, certificate: ["{pem(directory)}"]'
        return f"""  smtps: {{ address: ["127.0.0.1:{self.port}"], tls: implicit, {rest} }}
  smtp: {{ address: ["127.0.0.1:{self.plain_port}"], pool: relays }}
  submission: {{ address: ["127.0.0.1:{self.starttls_port}"], tls: starttls, {rest} }}
"""


class BareTls(parts.Proxy):
    key, title = "bare-tls", "bare libssl"
    note = "tests/bench/bare_tls.c: shakes hands, releases its buffers, forwards nothing"

    def missing(self):
        return None if os.access(BARE_TLS, os.X_OK) else "build/release/bench/bare_tls is not built"

    def launch(self, directory, sinks, cpus):
        return parts.Process(self.key, [BARE_TLS, str(self.port), pem(directory)], directory, cpus)

    def await_ready(self, process):
        deadline = time.monotonic() + parts.START_SECONDS
        while True:
            try:
                TlsSessions(self.port, greeted=False).open(1)
                return
            except OSError as error:
                if process.popen.poll() is not None or time.monotonic() > deadline:
                    process.fail(f"no handshake succeeded: {error}")
                time.sleep(0.02)


PROXIES = [BareTls, Haproxy, Hitch, Weir]
# Ways of mail to Weir. The first is what the others are compared with, and the second has the goal.
PATHS = [
    ("plain", "plain, through tls_pipe"),
    ("starttls", "STARTTLS, through tls_pipe"),
    ("stunnel", "STARTTLS, through stunnel"),
]
REFERENCES = ("haproxy", "hitch")  # the better of these is what Weir's handshake is compared with


def start_pipe(directory, name, proxy_port, cpus, *mode):
    """tls_pipe takes what smtp-source sends to the port that is returned, and hands it to the proxy."""
    port = parts.free_ports(1)[0]
    process = parts.Process(name, [TLS_PIPE, str(port), str(proxy_port), *mode], directory, cpus)
    parts.wait_for_mail(process, port)
    return process, port


def start_stunnel(directory, proxy_port, cpus):
    """The same with stunnel, which has a thread for each session."""
    port = parts.free_ports(1)[0]
    path = parts.write(
        os.path.join(directory, "stunnel.conf"),
        f"""foreground = yes
pid =
syslog = no
debug = warning
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[smtp]
client = yes
protocol = smtp
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{proxy_port}
sslVersionMin = TLSv1.3
""",
    )
    process = parts.Process("stunnel", ["stunnel4", path], directory, cpus)
    parts.wait_for_mail(process, port)
    return process, port


class TlsSessions:
    """Sessions inside TLS that go through banner and EHLO, one after another, and then say nothing more."""

    def __init__(self, port, greeted=True):
        self.port = port
        self.greeted = greeted
        self.context = client_context()
        self.sockets = []

    def open(self, count):
        for _ in range(count):
            plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            s = self.context.wrap_socket(plain, server_hostname="bench.test")
            self.sockets.append(s)
            if self.greeted:
                self.reply(s)
                s.sendall(b"EHLO idle.bench.test\r\n")
                self.reply(s)

    def reply(self, s):
        text = b""
        while not re.search(rb"(^|\n)\d{3} [^\n]*\n\Z", text):
            got = s.recv(4096)
            if not got:
                raise BenchError(f"an idle TLS session was closed: {text[-80:]!r}")
            text += got
        if not text.startswith(b"2"):
            raise BenchError(f"an idle TLS session was refused: {text[-80:]!r}")

    def close(self):
        for s in self.sockets:
            s.close()
        self.sockets = []


def shake_hands(port, seconds, cpus=None):
    """New TLS 1.3 connections, each closed at once, one at a time, for about `seconds`; returns how many."""
    argv = ["openssl", "s_time", "-new", "-tls1_3", "-time", str(max(1, round(seconds)))]
    done = subprocess.run(
        [*argv, "-connect", f"127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
        check=False,
    )
    found = re.search(r"^(\d+) connections in .* real seconds", done.stdout, re.M)
    if done.returncode or not found or found.group(1) == "0":
        raise BenchError(f"openssl s_time failed: {done.stdout[-400:]}")
    return int(found.group(1))


def handshakes(port, process, seconds, cpus=None):
    """Returns (handshakes per second, microseconds of the proxy's processor time for each)."""
    pids = process.pids()
    before, begin = measure.cpu_seconds(pids), time.monotonic()
    count = shake_hands(port, seconds, cpus)
    return count / (time.monotonic() - begin), (measure.cpu_seconds(pids) - before) / count * 1e6


def negotiated(port):
    """Cipher and group that s_time gets: figures compare only if they are the same everywhere."""
    argv = ["openssl", "s_client", "-brief", "-tls1_3", "-connect", f"127.0.0.1:{port}"]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    found = [
        re.search(pattern, done.stdout, re.M)
        for pattern in (r"^Ciphersuite: (\S+)", r"(?:Temp Key|TLS1\.3 group): (?:ECDH, )?([\w-]+)")
    ]
    return ", ".join(match.group(1) for match in found if match) or "?"


class TlsBench:
    def __init__(self, options, directory, sinks, proxy_cpus, other_cpus):
        self.options = options
        self.works = [key for key, _ in WORKS if key in options.works]
        self.directory = os.path.join(directory, "tls")
        self.sinks = sinks
        self.proxy_cpus, self.other_cpus = proxy_cpus, other_cpus
        self.proxies = []  # (Proxy, Process)
        self.paths = {}  # of mail to Weir: ports
        self.rounds = []  # of handshakes: {proxy: (rate, cpu)}
        self.mail = []  # of each round: {path: (rate, cpu)} of Weir
        self.mail_count = 0
        self.neighbours = []
        self.idle = {}
        self.negotiated = {}
        self.calls = []  # (title, calls)

    def start(self, proxy):
        return proxy.start(self.directory, [port for _, port in self.sinks], self.proxy_cpus, self.other_cpus)

    def select(self):
        wanted = []
        for kind in PROXIES:
            proxy = kind()
            if proxy.key not in self.options.only:
                continue
            why = proxy.missing()
            if why:
                note(f"bench: TLS: {proxy.title} is left out: {why}")
            else:
                wanted.append(proxy)
        return wanted

    def run(self):
        if not self.works:
            return
        if not shutil.which("openssl"):
            note("bench: TLS is left out: openssl is not installed")
            return
        os.mkdir(self.directory, 0o755)
        certificate(self.directory)
        wanted = self.select()
        if "tls-idle" in self.works:
            self.measure_idle(wanted)
        for proxy in wanted:
            self.proxies.append((proxy, self.start(proxy)))
        self.measure_load()
        self.measure_calls()

    def measure_idle(self, wanted):
        for proxy in wanted:
            process = self.start(proxy)
            sessions = functools.partial(TlsSessions, greeted=proxy.key != BareTls.key)
            try:
                self.idle[proxy.key] = measure.idle_memory(proxy.port, process, self.options.sessions, sessions)
                note(f"bench: {proxy.key}: {self.idle[proxy.key]:.2f} KiB per idle TLS session")
            finally:
                proxy.stop(process)

    def weir(self):
        return next(((proxy, process) for proxy, process in self.proxies if proxy.key == "weir"), None)

    def start_paths(self):
        """Whether STARTTLS mail can be measured."""
        if "tls-mail" not in self.works or not self.weir():
            return False
        if not os.access(TLS_PIPE, os.X_OK):
            note("bench: STARTTLS mail is left out: build/release/bench/tls_pipe is not built")
            return False
        proxy, _ = self.weir()
        helper, self.paths["plain"] = start_pipe(self.directory, "pipe-plain", proxy.plain_port, self.other_cpus)
        proxy.helpers.append(helper)
        helper, self.paths["starttls"] = start_pipe(
            self.directory, "pipe-starttls", proxy.starttls_port, self.other_cpus, "starttls"
        )
        proxy.helpers.append(helper)
        if shutil.which("stunnel4"):
            helper, self.paths["stunnel"] = start_stunnel(self.directory, proxy.starttls_port, self.other_cpus)
            proxy.helpers.append(helper)
        else:
            note("bench: STARTTLS mail through stunnel is left out: stunnel4 is not installed")
        return True

    def measure_load(self):
        shaking = "tls-handshake" in self.works and self.proxies
        mailing = self.start_paths()
        if not shaking and not mailing:
            return
        if mailing:
            self.calibrate_mail()
        if shaking:
            for proxy, process in self.proxies:
                self.negotiated[proxy.key] = negotiated(proxy.port)
                handshakes(proxy.port, process, 1, self.other_cpus)
        processes = [process for process, _ in self.sinks]
        for proxy, process in self.proxies:
            processes += [process, *proxy.helpers]
        pids = [pid for process in processes for pid in process.pids()]
        for number in range(self.options.rounds):
            neighbours = measure.Neighbours(pids)
            line = []
            if shaking:
                line.append(self.handshake_round(number))
            if mailing:
                line.append(self.mail_round(number))
            self.neighbours.append(neighbours.share())
            note(
                f"bench: TLS round {number + 1} of {self.options.rounds}: {'; '.join(line)} (CPU us each); "
                f"others used {self.neighbours[-1]:.0%} of the machine"
            )

    def handshake_round(self, number):
        turn = number % len(self.proxies)
        figures = {}
        for proxy, process in self.proxies[turn:] + self.proxies[:turn]:
            figures[proxy.key] = handshakes(proxy.port, process, self.options.seconds, self.other_cpus)
        self.rounds.append(figures)
        return "handshake " + " ".join(f"{proxy.key} {figures[proxy.key][1]:.0f}" for proxy, _ in self.proxies)

    def calibrate_mail(self):
        _, process = self.weir()
        # The same number for all, so that all have as many messages to a session.
        rates = [measure.load(port, process, "kept", 400, self.other_cpus)[0] for port in self.paths.values()]
        self.mail_count = max(400, int(min(rates) * self.options.seconds * MAIL_TIME))

    def mail_round(self, number):
        _, process = self.weir()
        paths = list(self.paths.items())
        turn = number % len(paths)
        figures = {}
        for path, port in paths[turn:] + paths[:turn]:
            figures[path] = measure.load(port, process, "kept", self.mail_count, self.other_cpus)
        self.mail.append(figures)
        return "mail " + " ".join(f"{path} {figures[path][1]:.0f}" for path, _ in paths)

    def measure_calls(self):
        if not shutil.which("strace"):
            return  # bench.py has said so
        if self.rounds:
            for proxy, process in self.proxies:
                run = functools.partial(shake_hands, proxy.port, 1)
                self.calls.append((f"handshake: {proxy.title}", measure.traced_calls(process, run, self.directory)))
        if self.mail:
            _, process = self.weir()
            for path, port in self.paths.items():
                calls = measure.system_calls(port, process, "kept", 1000, self.directory)
                self.calls.append((f"kept sessions, 4 KB: Weir, {dict(PATHS)[path]}", calls))

    @staticmethod
    def title(work):
        return dict(WORKS)[work]

    def ratios(self, key, reference):
        """A proxy's processor time of a handshake against that of another in the same round."""
        return [
            figures[key][1] / figures[reference][1]
            for figures in self.rounds
            if key in figures and reference in figures
        ]

    def handshake_ratio(self):
        """The median against the better of the references, which is the one that makes it larger; or None."""
        medians = [statistics.median(ratios) for ratios in (self.ratios("weir", r) for r in REFERENCES) if ratios]
        return max(medians, default=None)

    def mail_ratios(self, path):
        return [figures[path][1] / figures["plain"][1] for figures in self.mail]

    def versions(self):
        found = [proxy.version() for proxy, _ in self.proxies]
        if self.proxies:
            found.append(parts.version(["openssl", "version"], r"^(OpenSSL \S+)"))
        if "stunnel" in self.paths:
            found.append("stunnel " + parts.version(["stunnel4", "-version"], r"stunnel (\S+)"))
        return found

    def stop(self):
        for proxy, process in self.proxies:
            proxy.stop(process)
