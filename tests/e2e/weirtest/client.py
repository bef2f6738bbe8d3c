"""A raw SMTP client: it sends exactly the octets it is told to, and reads replies without forgiving anything."""

import random
import re
import socket
import time

from .net import abort
from .tls import TlsSocket, any_server


class ProtocolError(AssertionError):
    """The server said something that is not SMTP."""


class Closed(AssertionError):
    """The connection ended where a reply was due."""


class Reply:
    def __init__(self, raw):
        self.raw = bytes(raw)
        self.code = int(raw[:3])
        self.lines = [line[4:].decode("utf-8", "replace") for line in self.raw.split(b"\r\n")[:-1]]

    @property
    def text(self):
        return "\n".join(self.lines)

    @property
    def enhanced(self):
        """The enhanced status code, or None."""
        found = re.match(r"[245]\.\d{1,3}\.\d{1,3}(?= |$)", self.lines[0])
        return found.group(0) if found else None

    def __repr__(self):
        return "<%s>" % self.raw.decode("utf-8", "backslashreplace").strip()


REPLY_LINE = re.compile(rb"[2-5][0-9]{2}([ -][^\r\n\x00]*)?\Z")


class Client:
    """
    `address` is (host, port) or a path of a Unix socket. With `banner`, a 220 is read and required. `header`: octets that go
    first. `tls`: a context, TLS from the first octet on, with `sni` and a `session` to resume.
    """

    def __init__(self, address, timeout=10.0, source=None, banner=True, header=b"", tls=None, sni=None, session=None):
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self.sock = socket.socket(family, socket.SOCK_STREAM)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(timeout)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(address)
        self.sock.sendall(header)
        self.buffer = bytearray()
        self.ended = False
        self.extensions = {}
        if tls:
            self.secure(tls, sni, session)
        self.banner = self.expect(220) if banner else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # TLS

    @property
    def raw(self):
        """The socket below TLS."""
        return getattr(self.sock, "raw", self.sock)

    def secure(self, context=None, sni=None, session=None):
        """A handshake here and now. If it fails, the socket is closed."""
        assert not self.buffer, "behind the reply to STARTTLS: %r" % bytes(self.buffer)
        try:
            self.sock = TlsSocket(self.sock, context or any_server(), sni, session=session)
        except BaseException:
            self.sock.close()
            raise
        return self

    def starttls(self, context=None, sni=None, session=None):
        """EHLO is due after it."""
        self.ok("STARTTLS", 220)
        self.extensions = {}
        return self.secure(context, sni, session)

    # Octets

    def send(self, octets):
        self.sock.sendall(octets)

    def trickle(self, octets, pause=0.0):
        """One octet per segment. A refusal may close the connection before the last: that ends it quietly."""
        for octet in octets:
            try:
                self.sock.send(bytes([octet]))
            except (BrokenPipeError, ConnectionResetError):
                return
            if pause:
                time.sleep(pause)

    def split(self, octets, seed):
        """In segments of random sizes."""
        chance = random.Random(seed)
        start = 0
        while start < len(octets):
            size = chance.choice((1, 1, 2, 3, 7, 64, 1460, 4096))
            try:
                self.sock.sendall(octets[start:start + size])
            except (BrokenPipeError, ConnectionResetError):
                return
            start += size

    def receive(self):
        """Read once into the buffer; False at the end of the stream."""
        try:
            octets = self.sock.recv(65536)
        except ConnectionResetError:
            octets = b""
        if not octets:
            self.ended = True
            return False
        self.buffer += octets
        return True

    def line(self):
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                if self.buffer[end - 1:end] != b"\r":
                    raise ProtocolError("bare LF in a reply: %r" % bytes(self.buffer[:end + 1]))
                line = bytes(self.buffer[:end - 1])
                del self.buffer[:end + 1]
                return line
            if not self.receive():
                raise Closed("closed; left over: %r" % bytes(self.buffer))

    def reply(self):
        raw = bytearray()
        while True:
            line = self.line()
            if not REPLY_LINE.match(line):
                raise ProtocolError("not a reply line: %r" % line)
            if raw and raw[:3] != line[:3]:
                raise ProtocolError("two codes in one reply: %r %r" % (bytes(raw), line))
            raw += line + b"\r\n"
            if line[3:4] != b"-":
                return Reply(raw)

    def replies(self):
        """Every reply until the server closes."""
        found = []
        while True:
            try:
                found.append(self.reply())
            except Closed:
                return found

    def silent(self, seconds=0.3):
        """True if nothing comes, not even an end, for so long."""
        if self.buffer:
            return False
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            self.receive()
            return False
        except socket.timeout:
            return True
        finally:
            self.sock.settimeout(before)

    def wait_closed(self):
        """Read until the server closes (a timeout of the socket is an error). What it still said."""
        while self.receive():
            pass
        return bytes(self.buffer)

    def close(self):
        self.sock.close()

    def abort(self):
        abort(self.raw)

    # Commands

    def expect(self, *codes):
        reply = self.reply()
        assert reply.code in codes, "expected %s, got %r" % ("/".join(map(str, codes)), reply)
        return reply

    def command(self, line):
        self.send(line.encode() + b"\r\n" if isinstance(line, str) else line + b"\r\n")
        return self.reply()

    def ok(self, line, *codes):
        """A command whose reply must have one of `codes` (250 when none is given)."""
        reply = self.command(line)
        assert reply.code in (codes or (250,)), "%r: %r" % (line, reply)
        return reply

    def ehlo(self, name="client.test"):
        reply = self.ok("EHLO " + name)
        self.extensions = {}
        for line in reply.lines[1:]:
            keyword, _, argument = line.partition(" ")
            self.extensions[keyword] = argument
        return self

    def envelope(self, sender="from@client.test", recipients=("to@relay.test",), parameters=""):
        self.ok("MAIL FROM:<%s>%s" % (sender, " " + parameters if parameters else ""))
        for recipient in recipients:
            self.ok("RCPT TO:<%s>" % recipient)
        return self

    def data(self, wire):
        """DATA, then `wire` as it is (dot-stuffed already), the end of data, and the final reply."""
        self.ok("DATA", 354)
        self.send(wire + b".\r\n")
        return self.reply()

    def message(self, wire=b"Subject: hello\r\n\r\nhello\r\n", **envelope):
        """A whole transaction that must be accepted."""
        self.envelope(**envelope)
        reply = self.data(wire)
        assert reply.code == 250, reply
        return reply

    def bdat(self, octets, last=True, parameters=None):
        self.send(b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets)
        return self.reply()

    def quit(self):
        reply = self.ok("QUIT", 221)
        assert self.wait_closed() == b""
        self.close()
        return reply


def stuff(octets):
    """Dot-stuff a body whose lines end in CRLF (RFC 5321 section 4.5.2)."""
    stuffed = octets.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


def unstuff(wire):
    plain = wire.replace(b"\r\n.", b"\r\n")
    return plain[1:] if plain.startswith(b".") else plain
