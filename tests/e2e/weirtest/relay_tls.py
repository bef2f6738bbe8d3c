"""
TLS of a scripted relay. It offers STARTTLS where it has a certificate and `offers_starttls`, or speaks TLS from the first
octet (`implicit`).

    relay.certificate = PEM                    another from now on, with sessions of its own
    relay.on("starttls", b"454 4.7.0 no\r\n")   what begins with 220 is followed by a handshake, whatever comes behind it
    relay.on("handshake", DROP)                once the ClientHello is here; also octets (and then DROP), STALL, half_flight
    relay.on("end", fatal_alert)               a genuine alert inside TLS, then a cut

A connection tells: `secured`, `resumed`, `sni`, `version`, and `clear`, what came before TLS.
"""

import ssl

from .script import DROP
from .tls import TlsSocket, server_context

HANDSHAKE_FAILURE = b"\x15\x03\x01\x00\x02\x02\x28"  # an alert, as a server says it that knows no common cipher


class Secured(TlsSocket):
    def shutdown(self, how):
        """By a test, from its own thread: upon the peer's answer to close_notify the connection's thread may be faster."""
        try:
            super().shutdown(how)
        except OSError:
            pass


class TlsSide:
    """The part of a connection that has to do with TLS."""

    secured = resumed = False
    sni = version = None
    clear = hello = b""

    def below(self):
        """The TCP socket."""
        return self.sock.raw if self.secured else self.sock

    def offered_tls(self):
        relay = self.relay
        return ["STARTTLS"] if relay.certificate and relay.offers_starttls and not relay.implicit and not self.secured else []

    def context(self):
        key = (self.relay.certificate, self.relay.tls_maximum)
        with self.relay.changed:
            if key not in self.relay.contexts:
                context = server_context(key[0], maximum=key[1])
                context.sni_callback = note_name
                self.relay.contexts[key] = context
            return self.relay.contexts[key]

    def do_starttls(self, line):
        if not self.offered_tls():
            self.fault("STARTTLS, which was not offered")
            self.send(b"502 5.5.1 not offered\r\n")
            return
        if self.buffer:
            self.fault("behind STARTTLS: %r" % bytes(self.buffer))
        self.answer("starttls", b"220 2.0.0 go on\r\n", line)
        if self.said == b"220":
            self.secure()

    def secure(self):
        """A handshake; what is read and said from then on goes through it."""
        self.clear, self.hello = bytes(self.received), bytes(self.buffer)
        self.buffer.clear()
        if not self.hello:
            self.hello = self.sock.recv(65536)
            if not self.hello:
                raise ConnectionError("gone before its ClientHello")
        self.answer("handshake", b"")
        tls = Secured(self.sock, self.context(), server_side=True, handshake=False)
        tls.feed(self.hello)
        try:
            tls.handshake()
        except (ssl.SSLError, OSError) as error:
            self.relay.refusals.append(str(error))
            self.relay.note(self, "refused")
            raise
        self.sock, self.secured = tls, True
        self.resumed, self.version, self.sni = bool(tls.resumed), tls.version(), getattr(tls.tls, "name_sent", None)
        self.greeting, self.helo, self.transaction = not self.relay.implicit, None, None
        self.relay.note(self, "secured")


def note_name(tls, name, _):
    tls.name_sent = name


def half_flight(connection, line):
    """Half of what the handshake would say, and then nothing any more."""
    octets = TlsSocket(connection.sock, connection.context(), server_side=True, handshake=False).flight(connection.hello)
    connection.sock.sendall(octets[:len(octets) // 2])
    return DROP


def fatal_alert(connection, line):
    """The TLS side is fed with nonsense, and complains to the peer."""
    connection.sock.feed(bytes(40000))
    try:
        while connection.sock.locked(connection.sock.tls.read, 65536):
            pass
    except ssl.SSLError:
        connection.sock.flush()
    return DROP
