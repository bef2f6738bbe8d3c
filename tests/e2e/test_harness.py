"""The test house itself: a client against a relay, and every checker shown something it must refuse."""

import collections
import os
import re
import socket
import subprocess
import sys
import time

import pytest
from weirtest import identity, logfmt, net, programs, weir
from weirtest.client import Client, Closed, ProtocolError, stuff, unstuff
from weirtest.relay import (DROP, RESET, STALL, XCLIENT_RELAY, XFORWARD_RELAY, At, Bytewise, Delay, Relay, assert_one_message,
                            bare_ends)

pytestmark = pytest.mark.harness


def connected(relay, **options):
    return Client(relay.address, **options)


def test_a_message_by_data_and_by_bdat(relay):
    body = b".\r\n..dots\r\nplain\r\n"
    with connected(relay) as client:
        client.ehlo()
        assert client.extensions["SIZE"] == "52428800" and "PIPELINING" in client.extensions
        client.message(wire=stuff(body), sender="a@x", recipients=("b@x", "c@x"))
        client.envelope()
        client.bdat(b"first ", last=False)
        assert client.bdat(b"and last").code == 250
        client.message(wire=b"")
        client.quit()
    first, second, third = relay.committed()
    assert (first.mail, first.rcpts, first.content) == (b"a@x", [b"b@x", b"c@x"], body)
    assert (second.by, second.content) == ("BDAT", b"first and last")
    assert third.content == b""


@pytest.mark.parametrize("seed", range(5))
def test_framing_does_not_depend_on_segments(relay, seed):
    with connected(relay) as client:
        client.split(b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n" + b"x" * 3000 + b"\r\n..\r\n\r\n.\r\nQUIT\r\n", seed)
        assert [reply.code for reply in client.replies()] == [250, 250, 250, 354, 250, 221]
    assert relay.committed()[0].content == b"x" * 3000 + b"\r\n.\r\n\r\n"
    assert_one_message(relay.connections[0])


def test_script(relay):
    relay.on("banner", Bytewise(), times=1).on("rcpt", b"451 4.3.0 later\r\n", times=1).on("mail", Delay(0.1))
    with connected(relay) as client:
        client.ehlo()
        client.ok("MAIL FROM:<a@x>")
        assert client.command("RCPT TO:<b@x>").code == 451
        client.ok("RCPT TO:<b@x>")
        relay.on("data", lambda connection, line: b"354 by a function\r\n")
        relay.on("end", b"554 5.7.1 no\r\n")
        assert client.data(b"x\r\n").code == 554
    assert not relay.committed() and relay.transactions()[0].ended


@pytest.mark.parametrize("action", [DROP, RESET])
@pytest.mark.parametrize("step", ["connect", "banner", "ehlo", "mail", "rcpt", "data", "body", "end"])
def test_loss_at_each_step(relay, step, action):
    relay.on(step, At(1, action) if step == "body" else action)
    with pytest.raises((Closed, ConnectionResetError, BrokenPipeError)):
        with connected(relay) as client:
            client.ehlo().message()
            client.quit()
    assert not relay.committed()


def test_early_reply_then_silence(relay):
    relay.on("body", At(10, [b"550 5.7.1 no\r\n", STALL]))
    with connected(relay) as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send(b"0123456789")
        client.expect(550)
        assert client.silent(0.1)


def test_closed_port_and_restart(relay):
    with connected(relay) as client:
        relay.stop()
        assert client.wait_closed() == b""
    with pytest.raises(ConnectionRefusedError):
        connected(relay)
    relay.start()
    connected(relay).ehlo().message()
    assert len(relay.committed()) == 1


def test_concurrency_is_counted(relay):
    clients = [connected(relay).ehlo() for _ in range(3)]
    for client in clients:
        client.message()
    probe = connected(relay)
    assert relay.max_concurrent() == 3
    for client in clients:
        client.close()
    connected(relay).ehlo().message()
    assert relay.max_concurrent() == 3 and len(relay.traffic()) == 4
    probe.close()


def test_one_message_checker_refuses():
    def capture(octets):
        relay = Relay()
        with connected(relay) as client:
            client.send(b"EHLO x\r\n" + octets + b"QUIT\r\n")
            client.replies()
        relay.stop()
        return relay.connections[0]
    good = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nx\r\n.\r\n"
    assert_one_message(capture(good))
    for bad in (good.replace(b"x\r\n.\r\n", b"x\ny\r\n.\r\n"), good.replace(b"x\r\n", b"x\r \r\n"), good + good, b""):
        with pytest.raises(AssertionError):
            assert_one_message(capture(bad))
    assert bare_ends(b"a\r\nb\nc\rd\r\r\n\n") == [4, 6, 8, 11]


def test_client_refuses_what_is_not_smtp():
    for said in (b"250 a\n", b"250-a\r\n550 b\r\n", b"abc\r\n", b"999 x\r\n", b"25\r\n", b"250 \0\r\n", b"250 a\rb\r\n"):
        relay = Relay().on("banner", said)
        with pytest.raises(ProtocolError):
            connected(relay)
        relay.stop()


def test_stuffing():
    for plain in (b"", b".", b".\r\n", b"..\r\n", b"a\r\n.\r\n.b\r\n"):
        assert unstuff(stuff(plain)) == plain
    assert stuff(b".\r\n.b\r\n") == b"..\r\n..b\r\n"


def test_logfmt_reader():
    line = r'time=1 level=info event=x reply="2.0.0 \"Ok\" \\ \x1b[0m" from=<a@b>'
    assert logfmt.parse_line(line)["reply"] == '2.0.0 "Ok" \\ \x1b[0m'
    for bad in ("time=1 level=info", 'time=1 level=info event=x a="b', "time=1 level=info event=x stray",
                "time=1 level=info event=x a=\x1b", "time=1 level=info event=x event=y", 'time=1 level=info event=x a=b"c'):
        with pytest.raises(ValueError):
            logfmt.parse_line(bad)


def test_sanitizer_text_is_seen():
    for text in ("==1==ERROR: AddressSanitizer: heap-use-after-free", "x.c:3:1: runtime error: shift", "ERROR: LeakSanitizer: leaks"):
        assert weir.SANITIZER.search(text)
    assert not weir.SANITIZER.search("level=info event=session reason=quit")


def test_programs(relay):
    """smtp-source, smtp-sink, swaks, aiosmtpd and Postfix, straight to one another."""
    code, error = programs.smtp_source(relay.port, sessions=2, messages=10)
    assert code == 0, error
    assert len(relay.committed()) == 10
    sink = programs.Sink()
    try:
        connected(sink).ehlo().message(wire=b"Subject: to the sink\r\n\r\n")
        net.wait_until(lambda: any(b"to the sink" in message for message in sink.messages()), 5, "it is in a file")
    finally:
        sink.stop()
    code, dialogue = programs.swaks(relay.port)
    assert code == 0 and "<-  250 2.0.0 Ok" in dialogue, dialogue
    aio = programs.Aiosmtpd()
    try:
        Client(("127.0.0.1", aio.port)).ehlo().message(wire=b"..\r\n")
        assert aio.messages[0][2] == b".\r\n"
    finally:
        aio.stop()


def test_postfix_runs():
    postfix = programs.Postfix()
    try:
        with Client(("127.0.0.1", postfix.port)) as client:
            client.ehlo().message(sender="someone@client.test")
            client.quit()
        weir.wait_until(lambda: postfix.queued(), 5, postfix.log)
        assert postfix.queued()[0][0] == "someone@client.test"
    finally:
        postfix.stop()


def test_proxy_headers_there_and_back():
    here, there = ("192.0.2.1", 1), ("203.0.113.9", 65535)
    six = ("2001:db8::1", 40000)
    more = identity.tlv(4, b"") + identity.tlv(1, b"h2")
    for octets in (identity.v1(here, there), identity.v2(here, there), identity.v2(here, there, more), identity.v1(six, ("::1", 25)),
                   identity.v2(six)):
        header = identity.parse_header(octets + b"behind it")
        assert header.size == len(octets) and header.source in (here, six)
    for bad in (b"", b"PROXY UNKNOWN\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
                b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n", b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
                b"EHLO x\r\n", identity.v2(here)[:20], identity.v2(command=0), identity.v2(), identity.v2(here, tlvs=b"\4\0"),
                identity.v2(here, command=0), identity.v2_raw(b"\0" * 8), identity.v2_raw(b"\0" * 12, version=1)):
        with pytest.raises(identity.Malformed):
            identity.parse_header(bad)
    with pytest.raises(identity.Malformed):
        identity.parse_header(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2" + b" " * 100 + b"\r\n")


def test_xtext():
    every = bytes(range(256))
    assert identity.unxtext(identity.xtext(every)) == every and identity.xtext(b"a+b=c d") == b"a+2Bb+3Dc+20d"
    listed = identity.XCLIENT_ATTRIBUTES
    found = identity.parse_attributes(b"XCLIENT ADDR=IPV6:::1 PORT=25 helo=a+2Bb NAME=[UNAVAILABLE]", listed)
    assert found == {"ADDR": b"IPV6:::1", "PORT": b"25", "HELO": b"a+b", "NAME": b"[UNAVAILABLE]"}
    for bad in (b"XCLIENT", b"XCLIENT ADDR", b"XCLIENT ADDR=", b"XCLIENT  ADDR=1.2.3.4", b"XCLIENT ADDR=::1", b"XCLIENT IDENT=x", b"XCLIENT HELO=a+b",
                b"XCLIENT HELO=a=b", b"XCLIENT HELO=a+2b", b"XCLIENT HELO=\xc3\xa9", b"XCLIENT PORT=65536", b"XCLIENT PROTO=HTTP",
                b"XCLIENT HELO=a HELO=b", b"XCLIENT HELO=" + b"a" * 500):
        with pytest.raises(identity.Malformed):
            identity.parse_attributes(bad, listed)


@pytest.mark.parametrize("make", [identity.v1, identity.v2])
def test_a_relay_that_wants_a_header(relays, make):
    relay = relays(1, proxy_header=True)[0]
    with connected(relay, banner=False) as client:
        assert client.silent(0.1)
        client.send(make(("192.0.2.7", 4321)))
        client.expect(220)
        client.ehlo().message()
    assert relay.connections[0].header.source == ("192.0.2.7", 4321) and len(relay.committed()) == 1 and not relay.faults
    for bad in (b"EHLO x\r\n", make(("192.0.2.7", 4321))[:-1], b"P"):
        with connected(relay, banner=False, header=bad) as client:
            assert client.wait_closed() == b""
    assert len(relay.faults) == 3
    with connected(relay, header=make(("192.0.2.7", 4321)) + b"EHLO x\r\n"):
        assert len(relay.faults) == 4


def test_a_relay_that_takes_xclient(relays):
    relay, = relays(1, extensions=XCLIENT_RELAY, extensions_for_client=["DSN", "XCLIENT ADDR"])
    with connected(relay) as client:
        client.ehlo()
        assert client.extensions["XCLIENT"] == identity.XCLIENT_ATTRIBUTES and "SIZE" in client.extensions
        client.ok("XCLIENT ADDR=192.0.2.1 HELO=a+2Bb", 220)
        assert not relay.faults
        client.ok("MAIL FROM:<a@x>", 503)
        assert len(relay.faults) == 1
        assert set(client.ehlo().extensions) == {"DSN", "XCLIENT"}
        client.ok("XCLIENT HELO=x", 501)
        client.ok("XFORWARD ADDR=192.0.2.1", 502)
        client.envelope().ok("XCLIENT ADDR=192.0.2.2", 503)
        assert len(relay.faults) == 4
        assert client.data(b"x\r\n").code == 250
    assert relay.committed()[0].xclient == {"ADDR": b"192.0.2.1", "HELO": b"a+b"}


def test_a_relay_that_takes_xforward(relays):
    relay, = relays(1, extensions=XFORWARD_RELAY)
    with connected(relay) as client:
        client.ehlo().ok("XFORWARD ADDR=192.0.2.1")
        client.ok("XFORWARD NAME=[UNAVAILABLE]")
        client.message()
        client.message()
    assert [one.xforward for one in relay.committed()] == [{"ADDR": b"192.0.2.1", "NAME": b"[UNAVAILABLE]"}, {}]
    assert not relay.faults


def test_postfix_takes_a_proxy_header():
    postfix = programs.Postfix(settings={"smtpd_upstream_proxy_protocol": "haproxy", "mynetworks": "127.0.0.0/8, 192.0.2.0/24"})
    try:
        for number, make in enumerate((identity.v1, identity.v2)):
            with Client(postfix.address, header=make(("192.0.2.%d" % number, 4321))) as client:
                client.ehlo().message()
            weir.wait_until(lambda: "client=unknown[192.0.2.%d]" % number in postfix.log(), 5, postfix.log)
    finally:
        postfix.stop()


def test_postfix_takes_xclient_and_xforward():
    sink = Relay()
    postfix = programs.Postfix(next_hop=sink.port, settings={
        "smtpd_authorized_xclient_hosts": "127.0.0.1", "smtpd_authorized_xforward_hosts": "127.0.0.1", "mynetworks": "127.0.0.0/8, 192.0.2.0/24"})
    try:
        with Client(postfix.address) as client:
            client.ehlo().ok("XFORWARD ADDR=192.0.2.9 HELO=forwarded.test")
            client.message()
            client.ok("XCLIENT ADDR=192.0.2.8 NAME=[UNAVAILABLE] HELO=labelled.test", 220)
            client.ehlo("again.test").message()
        weir.wait_until(lambda: re.search(r"client=\S+\[127.0.0.1\], orig_client=\S+\[192.0.2.9\]", postfix.log()), 5, postfix.log)
        weir.wait_until(lambda: "client=unknown[192.0.2.8]" in postfix.log(), 5, postfix.log)
        weir.wait_until(lambda: any(b"[192.0.2.8]" in one.content for one in sink.committed()), 5, "it went on, with a Received line")
    finally:
        postfix.stop()
        sink.stop()


def test_mime_samples_are_there():
    assert len(programs.mime_samples()) > 30


def test_slow_octets(relay):
    began = time.monotonic()
    with connected(relay) as client:
        client.trickle(b"EHLO x\r\n", 0.01)
        client.expect(250)
    assert 0.08 <= time.monotonic() - began


def test_ports_are_free():
    for _ in range(20):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", weir.free_port()))


def test_the_demo_gives_no_port_to_two():
    there = subprocess.run([sys.executable, "-c", "import demo; ports = [demo.free_port() for _ in range(200)]; print(len(set(ports)))"],
                           cwd=os.path.join(weir.ROOT, "tests", "demo"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=30)
    assert there.stdout == "200\n", there.stdout + there.stderr


def test_no_port_is_given_to_two():
    own = [net.free_port() for _ in range(20)]
    ask = "from weirtest import net; print(*[net.free_port() for _ in range(net.PORT_RANGE)])"
    other = subprocess.run([sys.executable, "-c", ask], cwd=os.path.dirname(__file__), capture_output=True, text=True, check=True)
    assert len(set(own)) == len(own) and not set(own) & set(map(int, other.stdout.split()))


def test_ranges_of_ports():
    first = 100000 + 20 * os.getpid()  # nobody's, and no ports
    last = first + 19
    one, two = net.Ports(first, last, 10), net.Ports(first, last, 10)
    assert sorted(port for range_of_one in (one, two) for port in range_of_one.ports) == list(range(first, last + 1))
    assert {one.next() for _ in range(10)} == set(one.ports), "each once before one is given again"
    with pytest.raises(AssertionError):
        net.Ports(first, last, 10)
    for claim in two.claims:
        claim.close()
    three = net.Ports(first, last, 10)
    assert set(three.ports) == set(two.ports)
    for claim in one.claims + three.claims:
        claim.close()


def test_one_who_needs_more_ports_gets_them():
    first = net.free_port() // net.PORT_RANGE * net.PORT_RANGE + 1  # in a range of this process
    own = net.Ports(first, first + 19, 10)
    used = [socket.socket() for _ in range(10)]
    for probe in used:
        probe.bind(("127.0.0.1", 0))
    own.ports = collections.deque(probe.getsockname()[1] for probe in used)
    assert first <= own.free("127.0.0.1") < first + 20
    for one in used + own.claims:
        one.close()


def test_run_reports(tmp_path):
    script = tmp_path / "weir"
    script.write_text("#!/bin/sh\necho out; echo err >&2; exit 2\n")
    script.chmod(0o755)
    assert weir.run("--check", "-c", text="x", binary=str(script))[:3] == (2, "out\n", "err\n")
    script.write_text("#!/bin/sh\necho 'ERROR: AddressSanitizer: x' >&2\n")
    with pytest.raises(AssertionError):
        weir.run(binary=str(script))
    script.write_text("#!/bin/sh\nsleep 30\n")
    with pytest.raises(subprocess.TimeoutExpired):
        weir.run(binary=str(script), timeout=0.2)
