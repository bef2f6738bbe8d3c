"""The parts of a benchmark: sinks, and the proxies that are compared. Each proxy runs with one thread of work."""

import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WEIR = os.environ.get("WEIR", os.path.join(ROOT, "build/release/weir"))
BARE_PIPE = os.path.join(ROOT, "build/release/bench/bare_pipe")
START_SECONDS = 15
SINK_SESSIONS = 4000  # smtp-sink stops accepting above this; its own default is 256

os.environ["PATH"] += ":/usr/sbin:/sbin"


class BenchError(Exception):
    """Something that makes the figures worthless; the text says what."""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Process:
    """A child in a session of its own, with its standard error kept for the report of a failure."""

    def __init__(self, name, argv, directory, cpus=None):
        self.name = name
        self.error_path = os.path.join(directory, name + ".stderr")
        with open(self.error_path, "wb") as err:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
                start_new_session=True,
                preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
            )

    def pids(self):
        """The process and its children (nginx: master and worker)."""
        pid = self.popen.pid
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as f:
                return [pid] + [int(child) for child in f.read().split()]
        except OSError:
            return [pid]

    def fail(self, what):
        with open(self.error_path, errors="replace") as f:
            tail = "".join(f.readlines()[-12:])
        raise BenchError(f"{self.name}: {what}\n{tail}".rstrip())

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(self.popen.pid, signal.SIGKILL)
                self.popen.wait()


def wait_for_mail(process, port, mail_client=smtplib.SMTP):
    """Until one whole message gets through. A refused connect or a 4xx only means: not yet."""
    deadline = time.monotonic() + START_SECONDS
    why = "nothing"
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            process.fail(f"ended with {process.popen.returncode}")
        try:
            with mail_client("127.0.0.1", port, "bench.test", timeout=5) as client:
                client.sendmail("ready@bench.test", ["ready@bench.test"], "Subject: ready\r\n\r\nready\r\n")
            return
        except (OSError, smtplib.SMTPException) as error:
            why = error
            time.sleep(0.02)
    process.fail(f"no message got through in {START_SECONDS} s: {why}")


def start_sinks(directory, count, cpus=None):
    """Returns [(process, port)]. As root smtp-sink wants to be told whom to become."""
    identity = ["-u", "nobody"] if os.geteuid() == 0 else []
    sinks = []
    for i, port in enumerate(free_ports(count)):
        argv = ["smtp-sink", *identity, "-m", str(SINK_SESSIONS), f"127.0.0.1:{port}", "1024"]
        sinks.append((Process(f"sink{i + 1}", argv, directory, cpus), port))
    for process, port in sinks:
        wait_for_mail(process, port)
    return sinks


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def version(argv, pattern):
    out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    found = re.search(pattern, out)
    return found.group(1) if found else "?"


class Proxy:
    """One row of the table. start() returns a Process that listens on self.port."""

    key = title = ""
    note = ""
    mail_client = staticmethod(smtplib.SMTP)

    def __init__(self):
        self.port = None
        self.helpers = []

    def missing(self):
        return None

    def version(self):
        return ""

    def launch(self, directory, sinks, cpus):
        raise NotImplementedError

    def start(self, directory, sinks, cpus=None, helper_cpus=None):
        self.port = free_ports(1)[0]
        self.helper_cpus = helper_cpus
        process = self.launch(directory, sinks, cpus)
        try:
            self.await_ready(process)
        except BenchError:
            self.stop(process)
            raise
        return process

    def await_ready(self, process):
        wait_for_mail(process, self.port, self.mail_client)

    def stop(self, process):
        if process:
            process.stop()
        for helper in self.helpers:
            helper.stop()
        self.helpers = []


class Direct(Proxy):
    key, title, note = "direct", "direct", "no proxy, one sink"

    def start(self, directory, sinks, cpus=None, helper_cpus=None):
        self.port = sinks[0]
        return None


class Haproxy(Proxy):
    key, title, note = "haproxy", "HAProxy", "`mode tcp`, leastconn, as installed"
    tuning = ""
    bind = ""
    options = ""

    def missing(self):
        return None if shutil.which("haproxy") else "haproxy is not installed"

    def version(self):
        return "HAProxy " + version(["haproxy", "-v"], r"version (\S+?)[,\s]")

    def launch(self, directory, sinks, cpus):
        servers = "".join(f"    server s{i} 127.0.0.1:{port} check inter 5s\n" for i, port in enumerate(sinks))
        text = f"""global
    nbthread 1
    maxconn 6000
{self.tuning}defaults
    mode tcp
    timeout connect 5s
    timeout client 5m
    timeout server 5m
listen smtp
    bind 127.0.0.1:{self.port}{self.bind}
    balance leastconn
    option smtpchk EHLO bench.test
{self.options}{servers}"""
        path = write(os.path.join(directory, self.key + ".cfg"), text)
        return Process(self.key, ["haproxy", "-db", "-f", path], directory, cpus)


class HaproxySplice(Haproxy):
    key, title, note = "haproxy-splice", "HAProxy, splice", "64 KB buffers, `option splice-auto`"
    tuning = "    tune.bufsize 65536\n    tune.pipesize 262144\n"
    options = "    option splice-auto\n"


class Nginx(Proxy):
    """The peer that parses SMTP too. It asks an HTTP server where each session goes: a second nginx, not counted."""

    key, title, note = "nginx", "nginx mail", "one backend, `xclient off`; its HTTP helper is not counted"
    module = "/usr/lib/nginx/modules/ngx_mail_module.so"

    def missing(self):
        if not shutil.which("nginx"):
            return "nginx is not installed"
        return None if os.path.exists(self.module) else "nginx's mail module is not installed"

    def version(self):
        return "nginx " + version(["nginx", "-v"], r"nginx/(\S+)")

    def common(self, directory, name):
        user = "user root;\n" if os.geteuid() == 0 else ""
        temp = "".join(
            f"    {kind}_temp_path {directory}/{name}-{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        head = f"""{user}daemon off;
worker_processes 1;
pid {directory}/{name}.pid;
error_log {directory}/{name}.log warn;
events {{ worker_connections 8000; }}
"""
        return head, temp

    def launch(self, directory, sinks, cpus):
        auth_port = free_ports(1)[0]
        head, temp = self.common(directory, "nginx-auth")
        path = write(
            os.path.join(directory, "nginx-auth.conf"),
            f"""{head}http {{
    access_log off;
{temp}    server {{
        listen 127.0.0.1:{auth_port};
        location / {{
            add_header Auth-Status OK;
            add_header Auth-Server 127.0.0.1;
            add_header Auth-Port {sinks[0]};
            return 200;
        }}
    }}
}}
""",
        )
        self.helpers = [Process("nginx-auth", ["nginx", "-p", directory, "-c", path], directory, self.helper_cpus)]
        head, _ = self.common(directory, "nginx")
        path = write(
            os.path.join(directory, "nginx.conf"),
            f"""load_module {self.module};
{head}mail {{
    server_name bench.test;
    auth_http 127.0.0.1:{auth_port}/;
    smtp_auth none;
    smtp_capabilities "SIZE 100000000" 8BITMIME PIPELINING;
    xclient off;
    timeout 300s;
    server {{ listen 127.0.0.1:{self.port}; protocol smtp; proxy on; }}
}}
""",
        )
        return Process(self.key, ["nginx", "-p", directory, "-c", path], directory, cpus)


class Weir(Proxy):
    key, title, note = "weir", "Weir", "`workers: 1`, log on"

    def missing(self):
        return None if os.access(WEIR, os.X_OK) else "build/release/weir is not built"

    def version(self):
        return "Weir " + version([WEIR, "--version"], r"(\d+\.\d+\S*)")

    def listeners(self, directory):
        return f'  smtp: {{ address: ["127.0.0.1:{self.port}"], pool: relays }}\n'

    def config(self, directory, sinks, name="weir"):
        backends = ", ".join(f'r{i + 1}: {{ address: "127.0.0.1:{port}" }}' for i, port in enumerate(sinks))
        return write(
            os.path.join(directory, name + ".yaml"),
            f"""workers: 1
hostname: bench.test
log: {{ destination: {directory}/{name}.log, format: logfmt, level: info }}
http: {{ address: "" }}
control: ""
listeners:
{self.listeners(directory)}pools:
  relays:
    backends: {{ {backends} }}
""",
        )

    def launch(self, directory, sinks, cpus):
        return Process(self.key, [WEIR, "-c", self.config(directory, sinks)], directory, cpus)


class BarePipe(Proxy):
    key, title, note = "pipe", "bare pipe", "tests/bench/bare_pipe.c: moves octets on the same event loop and does nothing else"

    def missing(self):
        return None if os.access(BARE_PIPE, os.X_OK) else "build/release/bench/bare_pipe is not built"

    def launch(self, directory, sinks, cpus):
        return Process(self.key, [BARE_PIPE, str(self.port), *map(str, sinks)], directory, cpus)


PROXIES = [Direct, BarePipe, Haproxy, HaproxySplice, Nginx, Weir]


def note(text):
    print(text, file=sys.stderr, flush=True)
