"""Small things about sockets, time and processes that every part of the test house needs."""

import collections
import random
import socket
import struct
import threading
import time

# Below the kernel's ephemeral range, so that an outgoing connection cannot take a port between our choice and its use.
PORT_FIRST, PORT_LAST = 12000, 32000
PORT_RANGE = 250
TCP_ESTABLISHED = 1


class Ports:
    """Ports that no other process of the test house is given: a port is chosen long before somebody listens on it, and is to
    stay free where something has stopped, or never listens. A process has ranges of them for as long as it lives; what shows
    that one is taken is an abstract Unix socket, which is of the same network namespace as the ports and goes with the process."""

    def __init__(self, first=PORT_FIRST, last=PORT_LAST, size=PORT_RANGE):
        self.ranges, self.size = list(range(first, last - size + 2, size)), size
        random.SystemRandom().shuffle(self.ranges)
        self.claims, self.ports, self.refused = [], collections.deque(), 0
        self.grow()
        assert self.ports, "every range of ports is taken"

    def grow(self):
        """One range more, if there is one; it comes first."""
        while self.ranges:
            first, claim = self.ranges.pop(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind("\0weir-test-ports-%d" % first)
            except OSError:
                claim.close()
                continue
            self.claims.append(claim)
            self.ports.extendleft(range(first, first + self.size))
            self.refused = 0
            return

    def next(self):
        """The one that was given the longest ago."""
        self.ports.rotate(-1)
        return self.ports[-1]

    def free(self, host):
        """The next that nobody listens on. One stays in use for a minute after its last connection: where many do, there is
        need of more."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        while True:
            port = self.next()
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                try:
                    probe.bind((host, port))
                    return port
                except OSError:
                    self.refused += 1
            if self.refused > len(self.ports) // 4:
                self.grow()


ports = None
ports_lock = threading.Lock()


def free_port(host="127.0.0.1"):
    """A TCP port that nobody listens on now, and that nobody else is given."""
    global ports
    with ports_lock:
        ports = ports or Ports()
        return ports.free(host)


def accept_all(listener, handle):
    """Call handle(socket) for each connection until the listener is shut down, in one thread, which is returned."""
    def accept():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            handle(sock)
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    return thread


def wait_until(condition, timeout=5.0, what="condition", interval=0.01):
    """Poll until `condition()` is true and return its value; an AssertionError names `what` otherwise."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("not within %.1f s: %s" % (timeout, what() if callable(what) else what))
        time.sleep(interval)


def tcp_state(sock):
    """The kernel's state of a TCP socket; TCP_ESTABLISHED until the peer's FIN or RST has arrived."""
    try:
        return struct.unpack_from("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8))[0]
    except OSError:
        return 0


def abort(sock):
    """Close with a reset."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False
