"""Small things about sockets, time and processes that every part of the test house needs."""

import random
import socket
import struct
import time

# Below the kernel's ephemeral range, so that an outgoing connection cannot take a port between our choice and its use.
PORT_FIRST, PORT_LAST = 18000, 31000
TCP_ESTABLISHED = 1


def free_port(host="127.0.0.1"):
    """A TCP port that nobody listens on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.SystemRandom().randint(PORT_FIRST, PORT_LAST)
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
