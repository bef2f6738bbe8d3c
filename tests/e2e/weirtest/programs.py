"""
Real programs as peers: Postfix, its smtp-source and smtp-sink, aiosmtpd, swaks, openssl s_client, testssl.sh, sslscan; and the
MIME samples of Python's own tests.
"""

import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

import pytest

from .net import free_port, wait_until


def find_program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


MAIN_CF = """\
compatibility_level = 3.6
config_directory = {d}/conf
queue_directory = {d}/queue
data_directory = {d}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {d}/mail.log
maillog_file_prefixes = /tmp, /var
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.test
mynetworks = 127.0.0.0/8
mydestination =
local_transport = discard:
default_transport = {transport}
relay_domains =
alias_maps =
alias_database =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
smtpd_client_connection_count_limit = 0
"""
# cleanup, qmgr and flush have their sockets in public/, the rest in private/.
MASTER_CF = "127.0.0.1:{port} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n" + "".join(
    "%s unix %s - n %s %s %s\n" % row for row in (
        ("cleanup", "n", "-", "0", "cleanup"), ("qmgr", "n", "300", "1", "qmgr"), ("flush", "n", "1000?", "0", "flush"),
        ("tlsmgr", "-", "1000?", "1", "tlsmgr"), ("rewrite", "-", "-", "-", "trivial-rewrite"),
        ("bounce", "-", "-", "0", "bounce"), ("defer", "-", "-", "0", "bounce"), ("trace", "-", "-", "0", "bounce"),
        ("verify", "-", "-", "1", "verify"), ("proxymap", "-", "-", "-", "proxymap"), ("smtp", "-", "-", "-", "smtp"),
        ("relay", "-", "-", "-", "smtp"), ("error", "-", "-", "-", "error"), ("retry", "-", "-", "-", "error"),
        ("discard", "-", "-", "-", "discard"), ("anvil", "-", "-", "1", "anvil"), ("scache", "-", "-", "1", "scache"),
    ))


class Postfix:
    """A Postfix of its own in a directory of its own. Mail is discarded, or relayed to `next_hop` (a port). `settings` go
    into main.cf over what stands there."""

    def __init__(self, next_hop=None, settings=None):
        if os.geteuid() != 0:
            pytest.skip("Postfix starts as root only")
        self.directory = tempfile.mkdtemp(prefix="weir-postfix-", dir="/tmp")
        os.chmod(self.directory, 0o755)
        self.port = free_port()
        self.log_path = os.path.join(self.directory, "mail.log")
        for name in ("conf", "queue", "data"):
            os.mkdir(os.path.join(self.directory, name))
        shutil.chown(os.path.join(self.directory, "data"), "postfix")
        transport = "smtp:[127.0.0.1]:%d" % next_hop if next_hop else "discard:"
        main_cf = dict(line.split(" =", 1) for line in MAIN_CF.format(d=self.directory, transport=transport).splitlines())
        main_cf.update(settings or {})
        self.write("main.cf", "".join("%s = %s\n" % (name, str(value).strip()) for name, value in main_cf.items()))
        self.write("master.cf", MASTER_CF.format(port=self.port))
        self.control("start")
        wait_until(lambda: listening(self.port), 15, lambda: "Postfix listens; its log:\n" + self.log())

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def write(self, name, text):
        with open(os.path.join(self.directory, "conf", name), "w") as file:
            file.write(text)

    def control(self, verb):
        done = subprocess.run([find_program("postfix"), "-c", os.path.join(self.directory, "conf"), verb],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stderr

    def log(self):
        try:
            with open(self.log_path, errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def queued(self):
        """The from and size of each message that reached the queue."""
        return re.findall(r"qmgr.*: from=<(.*?)>, size=(\d+)", self.log())

    def stop(self):
        self.control("stop")
        wait_until(lambda: not listening(self.port), 10, "Postfix is gone")
        shutil.rmtree(self.directory, ignore_errors=True)


class Sink:
    """smtp-sink. It counts nothing that can be asked for, so each message is dumped into a file of its own."""

    def __init__(self, *options):
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="weir-sink-", dir="/tmp")
        user = ("-u", "root") if os.geteuid() == 0 else ()
        self.process = subprocess.Popen([find_program("smtp-sink"), *user, *options, "-d", "%Y-",
                                         "127.0.0.1:%d" % self.port, "1000"],
                                        cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_until(lambda: listening(self.port), 5, "smtp-sink listens")

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def messages(self):
        """The sink's files: X-headers with the dialogue, then the message."""
        found = []
        for name in glob.glob(os.path.join(self.directory, "*")):
            with open(name, "rb") as file:
                found.append(file.read())
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait(5)
        shutil.rmtree(self.directory, ignore_errors=True)


def smtp_source(port, sessions=5, messages=100, size=1024, *options, timeout=60):
    """Run smtp-source to its end."""
    done = subprocess.run([find_program("smtp-source"), "-s", str(sessions), "-m", str(messages), "-l", str(size),
                           "-f", "source@client.test", "-t", "sink@relay.test", *options, "127.0.0.1:%d" % port],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stderr


def swaks(port, *options):
    """Run swaks once. (exit code, the dialogue)"""
    done = subprocess.run([find_program("swaks"), "--server", "127.0.0.1", "--port", str(port), "--helo", "swaks.test",
                           "--from", "swaks@client.test", "--to", "to@relay.test", *options],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


class SClient:
    """An `openssl s_client` that can be talked to; what it prints gathers in `text`."""

    def __init__(self, port, *options):
        self.process = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text, self.changed = "", threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while True:
            octets = os.read(self.process.stdout.fileno(), 65536)
            if not octets:
                return
            with self.changed:
                self.text += octets.decode("utf-8", "replace")
                self.changed.notify_all()

    def send(self, text):
        try:
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def wait(self, pattern, timeout=10):
        """Until `pattern` is in the text."""
        with self.changed:
            assert self.changed.wait_for(lambda: re.search(pattern, self.text), timeout), "no %r in:\n%s" % (pattern, self.text)

    def end(self, timeout=10):
        """Until it has ended by itself; all it said."""
        self.process.wait(timeout)
        self.reader.join(timeout)
        return self.text

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # what was sent to one that had ended
            pass
        self.process.stdout.close()


def s_client(port, *options):
    """Run s_client for a handshake and no more; what it said."""
    done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, *options], input=b"Q\n", timeout=30,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.decode("utf-8", "replace")


def testssl(port, name, *options, timeout=120):
    """Run testssl.sh for some of its checks; its findings, each a dict with id, severity and finding."""
    program = find_program("testssl.sh") or find_program("testssl")
    with tempfile.TemporaryDirectory(prefix="weir-testssl-") as directory:
        path = os.path.join(directory, "findings.json")
        done = subprocess.run([program, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--jsonfile", path,
                               *options, "--ip", "127.0.0.1", "%s:%d" % (name, port)], cwd=directory, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        try:
            with open(path) as file:
                return json.load(file)
        except (OSError, ValueError):
            raise AssertionError("no findings:\n" + done.stdout.decode("utf-8", "replace")) from None


def sslscan(port, *options):
    """What sslscan says, without colour."""
    done = subprocess.run([find_program("sslscan"), "--no-colour", *options, "127.0.0.1:%d" % port], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    return done.stdout.decode("utf-8", "replace")


class Aiosmtpd:
    """An aiosmtpd that keeps what it takes."""

    def __init__(self):
        from aiosmtpd.controller import Controller
        self.messages, self.lock = [], threading.Lock()
        self.port = free_port()
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, enable_SMTPUTF8=True)
        self.controller.start()

    async def handle_DATA(self, server, session, envelope):
        with self.lock:
            self.messages.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.original_content))
        return "250 2.0.0 kept"

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def stop(self):
        self.controller.stop()


def mime_samples():
    """Paths of the messages in Debian's Python test suite, or of whichever Python has them."""
    version = "python%d.%d" % sys.version_info[:2]
    for folder in ("/usr/lib/%s/test/test_email/data" % version, "/usr/lib/python3*/test/test_email/data"):
        found = sorted(glob.glob(os.path.join(folder, "msg_*.txt")))
        if found:
            return found
    return []
