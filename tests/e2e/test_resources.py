"""Descriptors, memory and time when there is too much of something."""

import hashlib
import os
import re
import resource
import socket
import subprocess
import threading
import time

import pytest
from test_clients import lean, resident
from weirtest.client import Client
from weirtest.net import free_port, wait_until
from weirtest.relay import STALL, At
from weirtest.tls import client_context
from weirtest.weir import tls_listener

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASE = os.path.join(TOP, "build/release/weir")
BARE_TLS = os.path.join(TOP, "build/release/bench/bare_tls")
IDLE = 1000


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


def test_no_descriptor_for_a_backend(start, relay):
    """There was one for the client and there is none for its relay: the client comes again, and the relay is not blamed."""
    weir = start([relay], pool={"health": {"interval": "100ms", "fast-interval": "100ms", "fall": 2}})
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "it is up")
    clients = [weir.introduced() for _ in range(5)]
    limits = resource.prlimit(weir.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    for client in clients:
        reply = client.command("MAIL FROM:<a@client.test>")
        assert (reply.code, reply.enhanced) in ((421, "4.3.2"), (451, "4.3.2")), reply
    time.sleep(0.5)  # some checks are due meanwhile
    asked = len(relay.connections)
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, limits)
    assert not relay.traffic()
    wait_until(lambda: len(relay.connections) > asked, 5, "checks go on")
    weir.deliver()
    assert [line["to"] for line in weir.find_log(event="backend-state")] == ["up"]


def test_a_stalled_backend_does_not_fill_memory(start, relay):
    """A 50 MB message to a backend that stops reading: the client is held back."""
    weir = lean(start, [relay], listener={"data-timeout": "30s"})
    for _ in range(3):
        weir.deliver()
    relay.on("body", At(100000, STALL))
    before = resident(weir.pid)
    client = weir.client()
    client.ehlo().envelope().ok("DATA", 354)
    client.sock.settimeout(1)
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
    client = weir.client()
    client.ehlo()
    client.sock.settimeout(1)
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


def private_kib(pid):
    with open("/proc/%d/smaps_rollup" % pid) as file:
        return int(re.search(r"Private_Dirty:\s+(\d+)", file.read()).group(1))


def connects(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def settled_kib(pid):
    """The same, once it has stopped moving."""
    last = private_kib(pid)
    for _ in range(25):
        time.sleep(0.2)
        now = private_kib(pid)
        if now == last:
            break
        last = now
    return last


def idle_kib(pid, port, context, greeted):
    """KiB of the process for each of 1,000 sessions that say no more after EHLO."""
    def opened():
        client = Client(("127.0.0.1", port), tls=context, sni="mx.example.test", banner=greeted)
        if greeted:
            client.ehlo()
        return client
    for client in [opened() for _ in range(20)]:
        client.abort()
    before = settled_kib(pid)
    clients = [opened() for _ in range(IDLE)]
    grown = (settled_kib(pid) - before) / IDLE
    for client in clients:
        client.abort()
    return grown


@pytest.mark.scorecard(57, "1,000 idle TLS sessions within the memory goal")
def test_idle_tls_sessions(start, relay, pki, tmp_path):
    """Against what libssl itself needs, in a program that does nothing else. Both without sanitizers, which would be measured."""
    if not (os.access(RELEASE, os.X_OK) and os.access(BARE_TLS, os.X_OK)):
        pytest.skip("needs build/release/weir and build/release/bench/bare_tls")
    context = client_context()
    port = free_port()
    floor = subprocess.Popen([BARE_TLS, str(port), pki.mx])
    try:
        wait_until(lambda: connects(port), 5, "it listens")
        least = idle_kib(floor.pid, port, context, False)
    finally:
        floor.kill()
        floor.wait()
    weir = start([relay], binary=RELEASE, listener=tls_listener("implicit", pki.mx), top={"workers": 1, "log": {"level": "error"}})
    own = idle_kib(weir.pid, weir.port, context, True)
    assert own <= least + 1.5, "%.2f KiB a session; libssl alone takes %.2f" % (own, least)
