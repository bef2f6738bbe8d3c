"""Descriptors, memory and time when there is too much of something."""

import hashlib
import os
import threading
import time

import pytest
from test_clients import lean, resident
from weirtest.client import Client
from weirtest.net import wait_until
from weirtest.relay import STALL, At


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.scorecard(56, "64 descriptors, 200 connections: no spin, recovers")
def test_descriptors_used_up(start, relay):
    weir = start([relay], wrapper=["prlimit", "--nofile=64:64"], listener={"max-connections": 10000})
    clients = []
    for _ in range(200):
        clients.append(Client(weir.address, banner=False))
    time.sleep(0.5)
    before, began = cpu_seconds(weir.pid), time.monotonic()
    time.sleep(2)
    share = (cpu_seconds(weir.pid) - before) / (time.monotonic() - began)
    assert share < 0.2, "%.0f %% CPU while nothing can be done" % (100 * share)
    served = 0
    for client in clients:
        client.sock.settimeout(0.02)
        try:
            served += client.reply().code == 220
        except (TimeoutError, AssertionError):
            pass
    assert 10 <= served < 64, served
    for client in clients:
        client.close()
    wait_until(weir.delivers, 10, "it recovers")


def test_a_stalled_backend_does_not_fill_memory(start, relay):
    """A 50 MB message to a backend that stops reading: the client is held back."""
    weir = lean(start, [relay], listener={"data-timeout": "30s"})
    for _ in range(3):
        weir.deliver()
    relay.on("body", At(100000, STALL))
    before = resident(weir.pid)
    client = weir.client(timeout=1)
    client.ehlo().envelope().ok("DATA", 354)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 50 << 20:
            sent += client.sock.send(b"x" * 998 + b"\r\n")
    assert sent < 40 << 20, "the client was not held back"
    grown = resident(weir.pid) - before
    assert grown < 4 << 20, "%d KB for one stalled message" % (grown >> 10)
    client.abort()


def test_a_client_that_reads_no_replies(start, relay):
    weir = lean(start, [relay], listener={"command-timeout": "2s", "max-errors": 10000}, top={"log": {"level": "error"}})
    for _ in range(3):
        weir.deliver()
    before = resident(weir.pid)
    client = weir.client(timeout=1)
    client.ehlo()
    try:
        for _ in range(2000):
            client.send(b"MAIL FROM:<a@x>\r\nRSET\r\n" * 500)
    except OSError:
        pass
    assert resident(weir.pid) - before < 4 << 20
    client.abort()


def test_twenty_megabytes(weir, relay):
    body = os.urandom(1 << 20).replace(b"\r", b"").replace(b"\n", b"")
    wire = b"".join(b"%d " % number + body + b"\r\n" for number in range(20))
    with weir.client(timeout=30) as client:
        client.ehlo().message(wire=wire)
        client.envelope()
        for number in range(20):
            reply = client.bdat(b"%d " % number + body + b"\r\n", last=number == 19)
            assert reply.code == 250
        client.quit()
    want = hashlib.sha256(wire).digest()
    assert [hashlib.sha256(bytes(one.content)).digest() for one in relay.committed()] == [want, want]


def test_two_hundred_clients_at_once(start, relays):
    weir = start(relays(3))
    failures = []

    def send():
        try:
            with weir.client(timeout=30) as client:
                client.ehlo().message()
                client.quit()
        except Exception as error:  # a thread's failure must reach the test
            failures.append(error)
    threads = [threading.Thread(target=send, daemon=True) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures, failures[0]
    assert sum(len(relay.committed()) for relay in weir.relays) == 200
    weir.wait_log(event="session", times=200)
