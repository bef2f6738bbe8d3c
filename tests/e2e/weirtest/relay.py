"""
A scripted relay: an SMTP server that behaves well until a test tells it not to.

It frames strictly: only CRLF ends a line, only CRLF.CRLF ends a message. Everything it receives is kept, so that a test
can ask what any other relay would have made of the same octets.

    relay = Relay()
    relay.on("rcpt", b"451 4.3.0 later\r\n")           instead of the usual reply
    relay.on("data", DROP, times=1)                    once
    relay.on("body", At(1000, [b"550 5.7.1 no\r\n", STALL]))

Steps: connect banner ehlo helo starttls handshake xclient xforward auth auth2 auth3 cancel mail rcpt data body end bdat bdat_last
rset quit noop. An action is: octets, DROP, RESET, CLOSE, STALL, Delay, Bytewise, a list of actions, or a function(connection,
line) that returns one (None: the usual reply).

    relay = Relay(proxy_header=True)                   nothing is said before a PROXY header, whole, in one read
    relay = Relay(extensions=XCLIENT_RELAY)            takes XCLIENT, and then is at its greeting again
    relay = Relay(certificate=PEM)                     STARTTLS; `implicit`: TLS from the first octet (relay_tls.py)
    relay = Relay(auth="PLAIN LOGIN")                  AUTH (relay_auth.py)

Where the peer breaks these, it is cut or refused, and the reason is kept in relay.faults.
"""

import re
import socket
import threading
import time

from .client import unstuff
from .identity import XCLIENT_ATTRIBUTES, XFORWARD_ATTRIBUTES, Malformed, parse_attributes, parse_header
from .net import TCP_ESTABLISHED, abort, free_port, tcp_state, wait_until
from .relay_auth import AuthSide
from .relay_tls import TlsSide
from .script import CLOSE, DROP, RESET, STALL, At, Bytewise, Delay, Drop, Gone, Stall  # noqa: F401 (for the tests)

EXTENSIONS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME")
XCLIENT_RELAY = EXTENSIONS + ("XCLIENT " + XCLIENT_ATTRIBUTES,)
XFORWARD_RELAY = EXTENSIONS + ("XFORWARD " + XFORWARD_ATTRIBUTES,)


class Transaction:
    def __init__(self, connection, line):
        self.connection = connection
        self.mail_line = line
        self.mail = re.sub(rb"(?i)^MAIL FROM:\s*<(.*?)>.*$", rb"\1", line)
        self.rcpts = []
        self.body = bytearray()  # as it came: dot-stuffed after DATA, plain after BDAT; without the final dot
        self.xclient = dict(connection.xclient)    # whom it was said to come from, attribute → octets
        self.xforward = dict(connection.xforward)
        self.secured = connection.secured          # it came over TLS
        self.user = connection.user                # who has authenticated, octets
        self.by = None           # "DATA" or "BDAT"
        self.ended = False       # the end of data has come
        self.committed = False   # and 2xx was the answer

    @property
    def content(self):
        return unstuff(bytes(self.body)) if self.by == "DATA" else bytes(self.body)


class Connection(TlsSide, AuthSide, threading.Thread):
    def __init__(self, relay, sock, number):
        super().__init__(name="relay %s/%d" % (relay.name, number), daemon=True)
        self.relay, self.sock, self.number = relay, sock, number
        self.received = bytearray()
        self.buffer = bytearray()
        self.lines = []
        self.transactions = []
        self.open_beside = []  # connections that were open when this one was accepted
        self.open = True
        self.by_peer = False   # the peer ended it
        self.helo = None
        self.said = None       # the code of what was first said at the last step
        self.header = None     # the PROXY header, an identity.Header
        self.xclient, self.xforward = {}, {}
        self.greeting = False  # XCLIENT or STARTTLS has put it back there: EHLO is due
        self.transaction = None
        self.finishing = None  # the transaction whose end-of-data reply is due

    @property
    def traffic(self):
        """Whether it carried a MAIL; what does not is a health check."""
        return bool(self.transactions)

    def established(self):
        return tcp_state(self.sock) == TCP_ESTABLISHED

    def run(self):
        end = Gone()
        try:
            self.serve()
        except Gone as gone:
            end = gone
        except OSError:
            self.by_peer = True
        finally:
            if end.notify and self.secured:
                self.sock.notify()
            abort(self.below()) if end.reset else self.below().close()
            self.open = False
            self.relay.note(self, "closed")

    # Input

    def receive(self):
        octets = self.sock.recv(262144)
        if not octets:
            self.by_peer = True
            raise Gone()
        self.received += octets
        self.buffer += octets

    def read_line(self):
        scanned = 0
        while True:
            end = self.buffer.find(b"\r\n", max(0, scanned - 1))
            if end >= 0:
                line = bytes(self.buffer[:end])
                del self.buffer[:end + 2]
                return line
            scanned = len(self.buffer)
            self.receive()

    # Output

    def send(self, octets):
        if self.finishing and octets.startswith(b"2"):
            # Before the octets go out: a client that has heard 250 may ask at once.
            self.finishing.committed = True
            self.finishing = None
            self.relay.note(self, "committed")
        self.said = self.said or octets[:3]
        if self.conversing and self.said.isdigit() and self.said != b"334":
            self.conversing.code = int(self.said)  # before they go out, too
        self.sock.sendall(octets)
        last = octets.rstrip(b"\r\n").rpartition(b"\n")[2]
        return int(last[:3]) if last[:3].isdigit() else 0

    def perform(self, action, line, usual):
        """Do it; the code that was said, 0 for none."""
        if callable(action):
            action = action(self, line)
        if action is None:
            action = usual
        if isinstance(action, bytes):
            return self.send(action) if action else 0
        if isinstance(action, Drop):
            raise Gone(action.reset, action.notify)
        if isinstance(action, Delay):
            self.relay.stopping.wait(action.seconds)
            return self.perform(action.then, line, usual)
        if isinstance(action, Bytewise):
            for octet in action.octets or usual:
                self.send(bytes([octet]))
                time.sleep(action.pause)
            return int((action.octets or usual)[:3])
        if isinstance(action, list):
            code = 0
            for part in action:
                code = self.perform(part, line, usual)
            return code
        assert isinstance(action, Stall), action
        while not self.relay.stopping.wait(0.02) and tcp_state(self.sock) == TCP_ESTABLISHED:
            pass
        self.by_peer = not self.relay.stopping.is_set()
        raise Gone()

    def answer(self, step, usual, line=b""):
        self.relay.note(self, step)
        self.said = None
        return self.perform(self.relay.take(step), line, usual)

    # The dialogue

    def serve(self):
        if self.relay.proxy_header:
            self.read_header()
        self.answer("connect", b"")
        if self.relay.implicit:
            self.secure()
        self.answer("banner", b"220 %s ESMTP scripted\r\n" % self.relay.name.encode())
        while True:
            line = self.read_line()
            self.lines.append(line)
            verb = line.split(b" ")[0].split(b":")[0].upper()
            handler = getattr(self, "do_" + verb.decode("ascii", "replace").lower(), None)
            if handler is None:
                self.send(b"500 5.5.1 what?\r\n")
            else:
                handler(line)

    def fault(self, what):
        self.relay.faults.append("connection %d: %s" % (self.number, what))

    def read_header(self):
        """As Postfix does: it looks once, and what it then sees has to be all of it."""
        self.receive()
        try:
            self.header = parse_header(bytes(self.buffer))
        except Malformed as malformed:
            self.fault(malformed)
            raise Gone() from None
        del self.buffer[:self.header.size]
        if self.buffer and not self.relay.implicit:
            self.fault("behind the header, before the banner: %r" % bytes(self.buffer))
        self.relay.note(self, "header")

    def do_ehlo(self, line):
        self.helo, self.greeting = line[5:], False
        words = [self.relay.name] + list(self.offered())
        usual = "".join("250%s%s\r\n" % ("-" if n + 1 < len(words) else " ", word) for n, word in enumerate(words))
        self.transaction = None
        self.answer("ehlo", usual.encode(), line)

    def offered(self):
        """The extensions; inside TLS and after XCLIENT they may be others."""
        listed = list(self.relay.extensions)
        if self.xclient and self.relay.extensions_for_client:
            listed = list(self.relay.extensions_for_client)
        elif self.secured and self.relay.extensions_for_tls:
            listed = list(self.relay.extensions_for_tls)
        return listed + self.offered_tls() + self.offered_auth()

    def attributes(self, verb, line):
        """A dict, or None: refused."""
        listed = [word[len(verb) + 1:] for word in self.offered() if word.split(" ")[0].upper() == verb]
        if not listed:
            self.fault("not offered: %r" % line)
            self.send(b"502 5.5.1 not offered\r\n")
            return None
        if self.transaction:
            self.fault("in a transaction: %r" % line)
            self.send(b"503 5.5.1 in a transaction\r\n")
            return None
        try:
            return parse_attributes(line, listed[0])
        except Malformed as malformed:
            self.fault(malformed)
            self.send(b"501 5.5.4 bad attributes\r\n")
            return None

    def do_xclient(self, line):
        if self.user is not None:
            self.fault("XCLIENT behind AUTH: %r" % line)
        found = self.attributes("XCLIENT", line)
        if found and self.answer("xclient", b"220 %s ESMTP anew\r\n" % self.relay.name.encode(), line) == 220:
            self.xclient.update(found)
            self.xforward, self.greeting, self.helo = {}, True, None

    def do_xforward(self, line):
        found = self.attributes("XFORWARD", line)
        if found and self.answer("xforward", b"250 2.0.0 Ok\r\n", line) == 250:
            self.xforward.update(found)

    def do_helo(self, line):
        self.helo, self.greeting = line[5:], False
        self.transaction = None
        self.answer("helo", b"250 %s\r\n" % self.relay.name.encode(), line)

    def do_mail(self, line):
        if self.greeting:
            self.fault("no EHLO since XCLIENT or STARTTLS: %r" % line)
            self.send(b"503 5.5.1 EHLO first\r\n")
            return
        if self.relay.auth_required and self.user is None:
            self.send(b"530 5.7.0 Authentication required\r\n")
            return
        opened = Transaction(self, line)
        self.transactions.append(opened)
        if self.answer("mail", b"250 2.1.0 Ok\r\n", line) // 100 == 2:
            self.transaction = opened

    def do_rcpt(self, line):
        usual = b"250 2.1.5 Ok\r\n" if self.transaction else b"503 5.5.1 MAIL first\r\n"
        if self.answer("rcpt", usual, line) // 100 == 2 and self.transaction:
            self.transaction.rcpts.append(re.sub(rb"(?i)^RCPT TO:\s*<(.*?)>.*$", rb"\1", line))

    def do_data(self, line):
        ready = self.transaction and self.transaction.rcpts
        usual = b"354 go on\r\n" if ready else b"503 5.5.1 no valid recipients\r\n"
        if self.answer("data", usual, line) != 354 or not self.transaction:
            return
        self.transaction.by = "DATA"
        if self.read_body():
            self.finish("end", line)
        else:
            self.transaction = None

    def read_body(self):
        """To the end of data. False if an answer was given before it."""
        body, trap, scanned, waiting = self.transaction.body, self.relay.take("body"), 0, True
        self.relay.note(self, "body")
        while True:
            body += self.buffer
            self.buffer.clear()
            # The CRLF of the DATA line counts as the one before the dot.
            end = 0 if body.startswith(b".\r\n") else body.find(b"\r\n.\r\n", max(0, scanned - 4)) + 2
            if trap and waiting and len(body) >= trap.octets:
                waiting = False
                self.perform(trap.action, b"", b"")
            if end >= 2 or body.startswith(b".\r\n"):
                self.buffer += body[end + 3:]
                del body[end:]
                self.transaction.ended = True
                return waiting
            scanned = len(body)
            self.receive()

    def do_bdat(self, line):
        words = line.upper().split()
        size, last = int(words[1]), len(words) > 2
        while len(self.buffer) < size:
            self.receive()
        chunk = bytes(self.buffer[:size])
        del self.buffer[:size]
        if not self.transaction or not self.transaction.rcpts:
            self.send(b"503 5.5.1 no valid recipients\r\n")
            return
        self.transaction.by = "BDAT"
        self.transaction.body += chunk
        if last:
            self.transaction.ended = True
            self.finish("bdat_last", line)
        else:
            self.answer("bdat", b"250 2.0.0 %d octets\r\n" % size, line)

    def finish(self, step, line):
        self.finishing = self.transaction
        self.answer(step, b"250 2.0.0 Ok: queued as %06X\r\n" % self.relay.count(), line)
        self.transaction = self.finishing = None
        self.xforward = {}

    def do_rset(self, line):
        if self.transaction:
            self.xforward = {}
        self.transaction = None
        self.answer("rset", b"250 2.0.0 Ok\r\n", line)

    def do_noop(self, line):
        self.answer("noop", b"250 2.0.0 Ok\r\n", line)

    def do_quit(self, line):
        self.answer("quit", b"221 2.0.0 Bye\r\n", line)
        raise Gone(notify=True)


class Relay:
    def __init__(self, name="relay.test", extensions=EXTENSIONS, port=0, start=True, proxy_header=False,
                 extensions_for_client=None, extensions_for_tls=None, certificate=None, implicit=False, auth="",
                 auth_tls_only=False, auth_required=False, users=None, host="127.0.0.1"):
        self.name, self.extensions = name, list(extensions)
        self.proxy_header, self.extensions_for_client = proxy_header, extensions_for_client
        self.extensions_for_tls, self.certificate, self.implicit = extensions_for_tls, certificate, implicit
        self.offers_starttls = True   # with a certificate
        self.tls_maximum = None       # an ssl.TLSVersion
        self.contexts = {}            # one for each certificate, so that sessions can be resumed
        self.auth, self.auth_tls_only, self.auth_required = auth, auth_tls_only, auth_required
        self.users = users or {b"user": b"pass word"}
        self.faults = []  # where the peer broke PROXY, XCLIENT, XFORWARD, STARTTLS or AUTH
        self.refusals = []  # handshakes that failed, as text
        self.host, self.port = host, port or free_port(host)
        self.connections, self.events = [], []
        self.changed = threading.Condition()
        self.script, self.queued = {}, 0
        self.stopping = threading.Event()
        self.listener = None
        if start:
            self.start()

    @property
    def address(self):
        return (self.host, self.port)

    # Life

    def start(self):
        """Listen; after stop(), again on the same port."""
        self.stopping = threading.Event()
        self.listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(self.address)
        self.listener.listen(512)
        threading.Thread(target=self.accept, args=(self.listener, self.stopping), daemon=True).start()

    def accept(self, listener, stopping):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                if stopping.is_set():  # taken just before the listener was closed: stop() does not know of it
                    sock.close()
                    return
                connection = Connection(self, sock, len(self.connections))
                connection.open_beside = [other for other in self.connections if other.established()]
                self.connections.append(connection)
                connection.start()

    def stop(self):
        """Refuse connections from now on and cut those that are open."""
        self.stopping.set()
        if self.listener:
            try:
                self.listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.listener.close()
            self.listener = None
        with self.changed:
            connections = list(self.connections)
        for connection in connections:
            if connection.open:
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                connection.join(2)

    # Script

    def on(self, step, action, times=None):
        with self.changed:
            self.script[step] = [action, times]
        return self

    def behave(self):
        """Forget the script."""
        with self.changed:
            self.script.clear()

    def take(self, step):
        with self.changed:
            entry = self.script.get(step)
            if entry is None:
                return None
            if entry[1] is not None:
                entry[1] -= 1
                if entry[1] <= 0:
                    del self.script[step]
            return entry[0]

    # What happened

    def note(self, connection, what):
        with self.changed:
            self.events.append((time.monotonic(), connection.number, what))
            self.changed.notify_all()

    def count(self):
        with self.changed:
            self.queued += 1
            return self.queued

    def traffic(self):
        """The connections that carried a MAIL."""
        return [connection for connection in list(self.connections) if connection.traffic]

    def transactions(self):
        return [one for connection in list(self.connections) for one in connection.transactions]

    def committed(self):
        return [one for one in self.transactions() if one.committed]

    def open_now(self):
        return [connection for connection in list(self.connections) if connection.established()]

    def secured(self):
        """The connections that came to speak TLS."""
        return [connection for connection in list(self.connections) if connection.secured]

    def auths(self):
        """Every exchange of AUTH that was begun, a relay_auth.Attempt."""
        return [one for connection in list(self.connections) for one in connection.attempts]

    def seen(self, what):
        """How often an event was noted."""
        with self.changed:
            return sum(1 for _, _, event in self.events if event == what)

    def wait(self, what, times=1, timeout=5.0):
        """Until the event has been noted so often."""
        wait_until(lambda: self.seen(what) >= times, timeout, "%s: %d times %s" % (self.name, times, what), 0.002)

    def max_concurrent(self):
        """The most traffic connections that were open at once. A connection counts as closed from the moment the
        peer's FIN is here: then, and not when this thread gets to it, the peer has given its place back."""
        return max([1 + sum(other.traffic for other in connection.open_beside) for connection in self.traffic()],
                   default=0)


def bare_ends(octets):
    """Offsets of every CR or LF that is not part of CRLF."""
    return [found.start() for found in re.finditer(rb"\r(?!\n)|(?<!\r)\n", octets)]


def assert_one_message(connection):
    """The captured octets hold one MAIL and one end of data whoever reads them (scorecard O1)."""
    captured = bytes(connection.received)
    assert not bare_ends(captured), "bare CR or LF reached the backend: %r" % captured
    assert len(connection.transactions) == 1, "more than one MAIL: %r" % captured
    ends = [found.start() for found in re.finditer(rb"(?=\r\n\.\r\n)", captured)]
    assert len(ends) == 1, "%d ends of data: %r" % (len(ends), captured)
    assert connection.transactions[0].committed, "not committed: %r" % captured
