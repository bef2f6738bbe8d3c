"""
Real Exim as a peer. It is not installed but unpacked (docker/exim.sh), and needs no root: it runs as whoever runs the tests, or as
nobody if that is root. Debian's looks its own user up by name as the first thing it does; nss_wrapper lets it find one.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

from .net import free_port, wait_until
from .weir import ROOT

UNPACKED = os.path.join(ROOT, "build", "exim")

# Who may relay is said as in Debian's configuration. Names are looked up nowhere: a test's traffic stays on loopback.
CONFIG = """\
keep_environment = LD_PRELOAD : LD_LIBRARY_PATH : ^NSS_WRAPPER_
primary_hostname = exim.test
spool_directory = {d}/spool
log_file_path = {d}/%slog
log_selector = +incoming_port +proxy +smtp_connection
pid_file_path = {d}/pid
notifier_socket =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
deliver_drop_privilege = true
host_lookup_order =
rfc1413_hosts =
tls_advertise_hosts =
hostlist relay_from_hosts = 127.0.0.0/8
acl_smtp_rcpt = acl_check_rcpt
"""
REST = """\
begin acl
acl_check_rcpt:
  accept hosts = +relay_from_hosts
  deny message = relay not permitted
begin routers
{router}
begin transports
next_hop:
  driver = smtp
  port = {next_hop}
  hosts_avoid_tls = *
"""
DISCARD = "all:\n  driver = redirect\n  data = :blackhole:\n"
RELAY = "all:\n  driver = manualroute\n  route_list = * 127.0.0.1\n  self = send\n  transport = next_hop\n"


class Exim:
    """An Exim with a spool of its own. Mail is discarded, or relayed to `next_hop` (a port). `settings` go into the main part of
    its configuration, over what stands there. `implicit`: TLS from the first octet on."""

    def __init__(self, next_hop=None, settings=None, implicit=False):
        if not os.access(os.path.join(UNPACKED, "exim4"), os.X_OK):
            pytest.skip("no build/exim/exim4: docker/exim.sh unpacks Debian's where a mirror can be reached")
        self.directory = tempfile.mkdtemp(prefix="weir-exim-")
        os.chmod(self.directory, 0o755)
        # A copy: nobody may have no way into the checkout.
        shutil.copytree(UNPACKED, self.file("program"), symlinks=True)
        os.mkdir(self.file("spool"))
        self.port, self.process = free_port(), None
        main = dict(line.split(" =", 1) for line in CONFIG.format(d=self.directory, port=self.port).splitlines())
        main.update(settings or {})
        if implicit:
            main["tls_on_connect_ports"] = str(self.port)
        self.write("exim.conf", "".join("%s = %s\n" % (name, value.strip()) for name, value in main.items())
                   + REST.format(router=RELAY if next_hop else DISCARD, next_hop=next_hop or 25))
        self.run_as = self.give_to_nobody() if os.geteuid() == 0 else {}
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def file(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.file(name), "w") as file:
            file.write(text)

    def give_to_nobody(self):
        nobody = pwd.getpwnam("nobody")
        for name in ("", "spool"):
            os.chown(self.file(name), nobody.pw_uid, nobody.pw_gid)
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def start(self):
        user, group = self.run_as.get("user", os.geteuid()), self.run_as.get("group", os.getegid())
        self.write("passwd", "root:x:0:0::/:/bin/sh\nDebian-exim:x:%d:%d::/:/bin/sh\nmail:x:8:8::/:/bin/sh\n" % (user, group))
        self.write("group", "root:x:0:\nDebian-exim:x:%d:\nmail:x:8:\n" % group)
        libraries = self.file("program/lib")
        environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": libraries, "LD_PRELOAD": libraries + "/libnss_wrapper.so",
                       "NSS_WRAPPER_PASSWD": self.file("passwd"), "NSS_WRAPPER_GROUP": self.file("group")}
        with open(self.file("debug"), "w") as debug:
            # The debug output tells what it reads of PROXY headers. With -d it stays in the foreground.
            self.process = subprocess.Popen([self.file("program/exim4"), "-C", self.file("exim.conf"), "-bdf", "-d-all+receive"],
                                            env=environment, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=debug,
                                            stderr=debug, start_new_session=True, **self.run_as)
        wait_until(self.listens, 10, lambda: "Exim listens:\n" + self.debug())

    def listens(self):
        assert self.process.poll() is None, "Exim ended with %s\n%s" % (self.process.returncode, self.debug())
        return "listening for SMTP" in self.log()

    def read(self, name):
        try:
            with open(self.file(name), errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def log(self):
        """Its main log."""
        return self.read("mainlog")

    def debug(self):
        return self.read("debug")

    def received(self):
        """What the log says of each message that came in: a dict with sender, helo, address and port of the client, the address of
        the proxy (PRX), the protocol (P), and of TLS the version with the cipher (X)."""
        found = []
        for line in re.findall(r"^\S+ \S+ \S+ <= (.*)$", self.log(), re.M):
            host = re.search(r" H=(?:[^( ]\S* )?(?:\((\S+)\) )?\[([0-9a-f.:]+)\](?::(\d+))? ", line)
            assert host, line
            found.append({"sender": line.split(" ")[0], "helo": host.group(1), "address": host.group(2),
                          "port": int(host.group(3) or 0), **dict(re.findall(r" (P|PRX|X)=(\S+)", line))})
        return found

    def headers(self):
        """The PROXY headers that it has read and taken: (version, size); of version 1 the size isn't known."""
        found = []
        for line in self.debug().splitlines():
            size = re.search(r"Detected PROXYv2 header, size (\d+)", line)
            if size:
                found.append((2, int(size.group(1))))
            elif "Detected PROXYv1 header" in line:
                found.append((1, None))
        return found

    def wait_received(self, count, timeout=10):
        return wait_until(lambda: len(self.received()) >= count and self.received(), timeout,
                          lambda: "%d messages in\n%s" % (count, self.log()))

    def stop(self):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)  # its own session: the processes of connections too
            except ProcessLookupError:
                pass
            self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)
