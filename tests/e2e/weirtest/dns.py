"""
Name servers: a real one, dnsmasq, and one that says what a test tells it to, right or wrong.

Both have `address`, what stands in the option `nameservers`.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading

from .net import free_port, wait_until

A, AAAA = 1, 28
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


class Dnsmasq:
    """Knows farm.test alone: what `hosts` says, a dict of name → addresses."""

    def __init__(self, ttl=1, **hosts):
        self.directory = tempfile.mkdtemp(prefix="weir-dns-")
        os.chmod(self.directory, 0o755)
        self.hosts = os.path.join(self.directory, "hosts")
        self.port, self.ttl, self.process = free_port(), ttl, None
        self.write(hosts)
        self.start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def write(self, hosts):
        with open(self.hosts, "w") as file:
            for name, addresses in hosts.items():
                for address in addresses:
                    file.write("%s %s.farm.test\n" % (address, name))

    def start(self):
        self.process = subprocess.Popen(
            ["/usr/sbin/dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--addn-hosts=" + self.hosts,
             "--local=/farm.test/", "--local-ttl=%d" % self.ttl, "--port=%d" % self.port, "--listen-address=127.0.0.1",
             "--bind-interfaces", "--user=root", "--pid-file=", "--log-facility=" + os.path.join(self.directory, "log")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.answers("farm.test", None), 10, "dnsmasq answers")

    def say(self, **hosts):
        """Other addresses from now on; returns when they are what it answers."""
        self.write(hosts)
        self.process.send_signal(signal.SIGHUP)
        for name, addresses in hosts.items():
            wait_until(lambda: self.answers(name + ".farm.test", addresses), 10, "dnsmasq has read its file")

    def answers(self, name, addresses):
        """Whether it says exactly these; None: anything."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            try:
                sock.connect(("127.0.0.1", self.port))
                sock.send(question(name))
                reply = sock.recv(65535)
            except OSError:
                return False
        return addresses is None or struct.unpack(">H", reply[6:8])[0] == len(addresses) and all(
            socket.inet_aton(one) in reply for one in addresses)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def discard(self):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def question(name, kind=A, number=1):
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split(".") if one)
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


class Answer:
    """Of one name: addresses of either family, and how it is given."""

    def __init__(self, *addresses, ttl=1, code=NOERROR, silent=False, raw=None, code_of_aaaa=None):
        self.addresses, self.ttl, self.code, self.silent, self.raw = addresses, ttl, code, silent, raw
        self.code_of_aaaa = code if code_of_aaaa is None else code_of_aaaa

    def records(self, kind):
        family, size = (socket.AF_INET, 4) if kind == A else (socket.AF_INET6, 16)
        return [b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, self.ttl, size) + socket.inet_pton(family, one)
                for one in self.addresses if (":" in one) == (kind == AAAA)]


class NameServer:
    """Over UDP and TCP, on one port. An answer that is too long for UDP is cut, as the standard has it."""

    def __init__(self, **answers):
        self.names, self.asked = answers, []  # asked: (name, kind, "udp" or "tcp")
        self.lock = threading.Lock()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        while True:
            self.port = free_port()
            try:
                self.udp.bind(("127.0.0.1", self.port))
                self.tcp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self.udp.close()
                self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp.listen(16)
        self.open = True
        for serve in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def say(self, **answers):
        with self.lock:
            self.names.update(answers)

    def count(self, name, kind=A):
        with self.lock:
            return sum(1 for asked, of, _ in self.asked if asked == name and of == kind)

    def wait_asked(self, name, times, timeout=15.0, kind=A):
        wait_until(lambda: self.count(name, kind) >= times, timeout, lambda: "%s asked for %d times" % (name, times))

    def reply_to(self, query, way):
        """The octets, or None."""
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += query[at] + 1
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        head, asked = query[:2], query[12:at + 5]
        with self.lock:
            self.asked.append((labels[0], kind, way))
            answer = self.names.get(labels[0]) if labels[1:] == ["farm", "test"] else None
        if answer is None:
            return head + struct.pack(">HHHHH", 0x8580 | NXDOMAIN, 1, 0, 0, 0) + asked
        if answer.silent:
            return None
        if answer.raw is not None:
            return head + answer.raw(asked) if callable(answer.raw) else answer.raw
        records = answer.records(kind)
        whole = b"".join(records)
        code = answer.code if kind == A else answer.code_of_aaaa
        if way == "udp" and len(asked) + len(whole) > 1200:
            return head + struct.pack(">HHHHH", 0x8780 | code, 1, 0, 0, 0) + asked
        return head + struct.pack(">HHHHH", 0x8580 | code, 1, len(records), 0, 0) + asked + whole

    def serve_udp(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(65535)
                if not self.open:
                    return
                reply = self.reply_to(query, "udp")
                if reply is not None:
                    self.udp.sendto(reply, peer)
            except OSError:
                return

    def serve_tcp(self):
        while True:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(5)
                try:
                    while True:
                        size = struct.unpack(">H", sock.recv(2, socket.MSG_WAITALL))[0]
                        reply = self.reply_to(sock.recv(size, socket.MSG_WAITALL), "tcp")
                        if reply is None:
                            break
                        sock.sendall(struct.pack(">H", len(reply)) + reply)
                except (OSError, struct.error):
                    pass

    def discard(self):
        self.open = False
        for sock in (self.udp, self.tcp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
