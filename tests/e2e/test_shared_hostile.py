"""A Redis that answers when it likes: one whose two connections end at different times, or lead to different servers."""

import selectors
import socket
import threading

import pytest
from test_shared import agree, farm_connections, heard, hold, instance, release, state, wait_state  # noqa: F401 (a fixture)
from weirtest.net import accept_all, wait_until


def text(of):
    return b"$%d\r\n%s\r\n" % (len(of), of)


def array(*elements):
    return b"*%d\r\n" % len(elements) + b"".join(elements)


class Connection:
    def __init__(self, sock):
        self.sock, self.octets, self.channel = sock, b"", None
        self.multi, self.owed = None, []  # commands that are queued; (what it is, reply)

    def command(self):
        """The next that is whole, or None."""
        lines = self.octets.split(b"\r\n")
        if not self.octets.startswith(b"*") or len(lines) < 2 + 2 * int(lines[0][1:]):
            return None
        words, size = int(lines[0][1:]), len(lines[0]) + 2
        found = []
        for _ in range(words):
            end = self.octets.index(b"\r\n", size)
            length = int(self.octets[size + 1:end])
            found.append(self.octets[end + 2:end + 2 + length])
            size = end + 4 + length
        if size > len(self.octets):
            return None
        self.octets = self.octets[size:]
        return found


class Moody:
    """
    A farm of two others. At the second resync it owes the answers, ends the subscriber's connection, and then
    gives of what it owes just so much that the next question comes, as long as there is a next one.
    """

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.events = self.waits_for = None
        self.owes, self.seq, self.resyncs, self.steps = False, 10, 0, []
        self.closing, self.kept = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def close(self):
        self.closing.set()
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()

    def run(self):
        while not self.closing.is_set():
            for key, _ in self.selector.select(0.05):
                if key.fileobj is self.listener:
                    sock, _ = self.listener.accept()
                    self.selector.register(sock, selectors.EVENT_READ, Connection(sock))
                elif key.fileobj.fileno() >= 0:
                    self.read(key.data)

    def drop(self, connection):
        self.selector.unregister(connection.sock)
        connection.sock.close()
        if connection is not self.events:
            self.owes = False

    def read(self, connection):
        try:
            octets = connection.sock.recv(1 << 16)
        except OSError:
            octets = b""
        if not octets:
            self.drop(connection)
            return
        connection.octets += octets
        while words := connection.command():
            self.take(connection, words)

    def take(self, connection, words):
        verb = words[0].upper()
        if verb == b"SUBSCRIBE":
            self.events, connection.channel = connection, words[1]
            self.owe(connection, "", array(text(b"subscribe"), text(words[1]), b":1\r\n"))
        elif verb == b"MULTI":
            connection.multi = []
            self.owe(connection, "", b"+OK\r\n")
        elif verb == b"EXEC":
            queued, connection.multi = connection.multi, None
            what = "keys" if b":instance:" in queued[0][1] and queued[0][0] == b"HGETALL" else ""
            self.owe(connection, what, array(*[self.reply(words) for words in queued]))
            for words in queued:
                if words[0] == b"PUBLISH" and self.events and self.events.sock.fileno() >= 0:
                    self.say(array(text(b"message"), text(words[1]), text(words[2])))
        elif connection.multi is not None:
            connection.multi.append(words)
            self.owe(connection, "", b"+QUEUED\r\n")
        elif verb == b"PING" and connection.channel:
            self.owe(connection, "", array(text(b"pong"), text(b"")))
        else:
            self.owe(connection, "ids" if verb == b"ZRANGE" else "", self.reply(words))

    def reply(self, words):
        verb = words[0].upper()
        if verb == b"HGETALL" and b":instance:" in words[1]:
            return array(*map(text, b"schema 1 started 1 sessions 0 queued 0 seq".split()), text(b"%d" % self.seq))
        if verb == b"HGETALL":
            return array()
        if verb == b"ZRANGE":
            return array(text(b"x1"), text(b"x2")) if words[1].endswith(b":instances") else array()
        return b"+OK\r\n" if verb in (b"PING", b"CLIENT") else b":1\r\n"

    # --- what is owed

    def owe(self, connection, what, reply):
        connection.owed.append((what, reply))
        if what == "keys":
            self.resyncs += 1
            if self.resyncs == 2:  # both were read: once more, and what was said meanwhile was missed
                self.seq = 20
                self.pay(connection)
                self.say(array(text(b"message"), text(self.events.channel), text(b'{"admin":1}')))
                return
            if self.resyncs == 3:
                self.owes = True
            if self.resyncs == 4 and self.owes:
                self.drop(self.events)
                self.steps = [("ids", 1), ("ids", 2), ("keys", 1), ("keys", 0), ("keys", 3)]
                self.kept.set()
                return
        if not self.owes or connection.channel:
            self.pay(connection)
        elif self.steps and what == self.steps[0][0]:
            for _ in range(self.steps.pop(0)[1]):
                self.pay_one(connection)

    def send(self, connection, octets):
        try:
            connection.sock.sendall(octets)
        except OSError:
            pass  # whom it took too long has gone: that is read next

    def say(self, octets):
        self.send(self.events, octets)

    def pay(self, connection):
        owed, connection.owed = connection.owed, []
        self.send(connection, b"".join(reply for _, reply in owed))

    def pay_one(self, connection):
        """As far as what is an answer to a resync, that too."""
        while connection.owed:
            what, reply = connection.owed.pop(0)
            self.send(connection, reply)
            if what:
                return


@pytest.fixture
def moody():
    server = Moody()
    yield server
    server.close()


def test_answers_after_the_subscription_has_ended(moody, instance, relay):  # noqa: F811
    """What was asked is not asked again before it is answered, though the other connection has gone."""
    weir = instance("redis://127.0.0.1:%d" % moody.port, [relay], joins=False)
    wait_until(moody.kept.is_set, 15, weir.output)
    wait_state(weir, "held", "rejoin")
    wait_state(weir, "shared", timeout=30)


class Splitter:
    """A balancer before several servers that know nothing of each other: each connection leads to that of `ports` that has the fewest."""

    def __init__(self, *ports):
        self.ports, self.pairs, self.open = list(ports), [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        accept_all(self.listener, self.join)

    def join(self, sock):
        port = min(self.ports, key=self.open.count)
        other = socket.create_connection(("127.0.0.1", port))
        self.pairs.append((sock, other))
        self.open.append(port)
        threading.Thread(target=self.serve, args=(sock, other, port), daemon=True).start()

    def serve(self, sock, other, port):
        back = threading.Thread(target=self.copy, args=(other, sock), daemon=True)
        back.start()
        self.copy(sock, other)
        back.join()
        self.open.remove(port)

    def copy(self, one, two):
        try:
            while octets := one.recv(1 << 16):
                two.sendall(octets)
        except OSError:
            pass
        for sock in (one, two):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for pair in self.pairs:
            for sock in pair:
                sock.close()


def test_two_connections_to_two_servers(redis, instance, relays):  # noqa: F811
    """Who publishes at one and hears at the other hears nobody, and does not share its counts; it looks for a way out."""
    servers, one = [redis(), redis()], relays(1)
    # One for each, or they could come to it in turns, and have both of theirs at one server.
    splitters = [Splitter(*[server.port for server in servers]) for _ in range(2)]
    weirs = [instance("redis://127.0.0.1:%d" % splitter.port, one, joins=False) for splitter in splitters]
    for weir in weirs:
        weir.wait_log(event="redis", message="server: what is published is not heard: its two connections lead to different servers",
                      timeout=20)
        assert state(weir) == "local"
    for splitter in splitters:
        splitter.ports = splitter.ports[:1]
    for weir in weirs:
        wait_state(weir, "shared", timeout=30)
    heard(weirs)
    clients = hold(weirs[0], 3)
    agree(weirs, one)
    assert farm_connections(weirs[1]) == {"r1": 3}
    release(clients)
    for weir in weirs:
        weir.finish()
    for splitter in splitters:
        splitter.close()
