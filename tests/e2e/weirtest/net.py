"""Small things about sockets, time and processes that every part of the test house needs."""

import random
import socket
import struct
import threading
import time

# Below the kernel's ephemeral range, so that an outgoing connection cannot take a port between our choice and its use.
PORT_FIRST, PORT_LAST = 18000, 31000
PORTS_OF_ONE = 250  # more than a process needs before the first of them can be had again
TCP_ESTABLISHED = 1


class Ports:
    """Ports that no other process of the test house is given: a port is chosen long before somebody listens on it, and is to
    stay free where something has stopped, or never listens. A process has a range for as long as it lives; what shows that it
    is taken is an abstract Unix socket, which is of the same network namespace as the ports and goes with the process."""

    def __init__(self, first=PORT_FIRST, last=PORT_LAST, size=PORTS_OF_ONE):
        ranges = list(range(first, last - size + 2, size))
        random.SystemRandom().shuffle(ranges)
        self.first = next((one for one in ranges if self.claim(one)), None)
        assert self.first, "every range of ports is taken"
        self.size, self.given = size, 0

    def claim(self, first):
        self.claimed = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.claimed.bind("\0weir-test-ports-%d" % first)
        except OSError:
            self.claimed.close()
            return False
        return True

    def next(self):
        """The one that was given the longest ago."""
        self.given += 1
        return self.first + self.given % self.size


ports = None
ports_lock = threading.Lock()


def free_port(host="127.0.0.1"):
    """A TCP port that nobody listens on now, and that nobody else is given."""
    global ports
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ports_lock:
        ports = ports or Ports()
        while True:
            port = ports.next()
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                try:
                    probe.bind((host, port))
                except OSError:
                    continue
                return port


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
