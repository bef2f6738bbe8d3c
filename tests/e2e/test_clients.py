"""Scorecard C: clients that talk too early, too much, too slowly, or something else than SMTP."""

import base64
import hashlib
import os
import time

import pytest
from weirtest.net import wait_until
from weirtest.weir import BINARY

QUICK = {"command-timeout": "2s", "data-timeout": "2s"}


@pytest.mark.scorecard(24, "talking before the banner: 554 and close")
@pytest.mark.parametrize("early", [b"EHLO early.test\r\n", b"E"])
def test_early_talker(start, relay, early):
    weir = start([relay], listener={"greet-delay": "2s"})
    with weir.client(banner=False, header=early) as client:
        reply = client.reply()
        assert (reply.code, reply.enhanced) == (554, "5.7.0")
        assert client.replies() == []
    assert not relay.traffic()


def test_greet_delay_keeps_the_patient_waiting(start, relay):
    weir = start([relay], listener={"greet-delay": "300ms"})
    began = time.monotonic()
    with weir.client() as client:
        assert time.monotonic() - began >= 0.29
        client.ehlo().message()


@pytest.mark.scorecard(25, "HTTP on the mail port: closed on the first line")
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST /mail HTTP/1.1", b"CONNECT relay.test:25 HTTP/1.0", b"Host: weir.test",
                                  b"HEAD / HTTP/1.0", b"PUT / HTTP/1.1"])
def test_http(weir, relay, line):
    with weir.client() as client:
        client.send(line + b"\r\nEHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
        said = client.replies()
        assert all(reply.code >= 400 for reply in said) and len(said) <= 1, said
    assert not relay.traffic()


def resident(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def lean(start, *arguments, **options):
    """A Weir whose memory can be measured: without sanitizers if that was built too, else with the smallest quarantine."""
    release = BINARY.replace("/asan/", "/release/")
    if os.access(release, os.X_OK) and os.path.getmtime(release) >= os.path.getmtime(BINARY) - 600:
        return start(*arguments, binary=release, **options)
    return start(*arguments, environment={"ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0"}, **options)


@pytest.mark.scorecard(26, "1 MB command without LF: refused, in bounded memory")
def test_endless_command(start, relay):
    weir = lean(start, [relay])
    for _ in range(3):
        weir.deliver()
    before = resident(weir.pid)
    with weir.client() as client:
        try:
            for _ in range(64):
                client.send(b"A" * 16384)
        except OSError:
            pass
        assert client.reply().code in (500, 421)
        assert resident(weir.pid) - before < 1 << 20
    assert not [connection for connection in relay.traffic() if b"AAAA" in connection.received]


def test_an_overlong_line_is_skipped_to_its_crlf(weir):
    with weir.client() as client:
        assert client.command(b"NOOP " + b"x" * 5000).code == 500
        client.ehlo().message()
        client.quit()


@pytest.mark.scorecard(27, "line limits: AUTH 12,288 octets; MAIL over its limit 500")
def test_line_limits(weir, relay):
    with weir.client() as client:
        client.ehlo()
        # Not offered in plain SMTP, but its line is not too long: it is refused for what it is.
        fits = b"AUTH PLAIN " + b"A" * (12288 - 13)
        assert client.command(fits).code in (502, 503, 504, 530, 538)
        assert client.command(fits + b"A").code == 500
        long = b"MAIL FROM:<%s@x> SIZE=1" % (b"l" * 3000)
        reply = client.command(long)
        assert (reply.code, reply.enhanced) == (500, "5.5.2")
        client.message(sender="l" * 64 + "@" + "d" * 250 + ".test", parameters="SIZE=100 BODY=8BITMIME RET=HDRS ENVID=" + "e" * 100)
    assert len(relay.committed()) == 1


@pytest.mark.scorecard(28, "a body line of 100 KB arrives intact")
def test_long_body_line(weir, relay):
    body = b"x" * 102400 + b"\r\n." + b"y" * 102400 + b"\r\n"
    with weir.client() as client:
        client.ehlo().message(wire=body.replace(b"\r\n.", b"\r\n.."))
    assert hashlib.sha256(relay.committed()[0].content).digest() == hashlib.sha256(body).digest()


@pytest.mark.scorecard(29, "recipient N+1: 452 4.5.3, the first N delivered")
@pytest.mark.parametrize("pipelined", [False, True])
def test_too_many_recipients(start, relay, pipelined):
    weir = start([relay], listener={"max-recipients": 5})
    commands = ["RCPT TO:<r%d@relay.test>" % number for number in range(7)]
    with weir.client() as client:
        client.ehlo().ok("MAIL FROM:<a@x>")
        if pipelined:
            client.send("".join(command + "\r\n" for command in commands).encode())
            replies = [client.reply() for _ in commands]
        else:
            replies = [client.command(command) for command in commands]
        assert [reply.code for reply in replies] == [250] * 5 + [452] * 2
        assert replies[-1].enhanced == "4.5.3"
        assert client.data(b"x\r\n").code == 250
    assert relay.committed()[0].rcpts == [b"r%d@relay.test" % number for number in range(5)]


@pytest.mark.scorecard(30, "junk commands and endless NOOPs: 421")
def test_junk(weir):
    with weir.client() as client:
        codes = []
        while not codes or codes[-1] != 421:
            codes.append(client.command("JUNK %d" % len(codes)).code)
        assert codes == [500] * 19 + [421]
        assert client.replies() == []


@pytest.mark.scorecard(30, "junk commands and endless NOOPs: 421")
def test_noops(weir):
    with weir.client() as client:
        try:
            client.send(b"NOOP\r\n" * 10000)
        except OSError:
            pass
        replies = client.replies()
        assert replies[-1].code == 421 and replies[-1].enhanced == "4.7.0"
        assert 20 <= len(replies) < 1000


def test_a_working_session_is_not_out_of_errors(weir):
    """A long session with a RSET before each message, as many mailers send, must not be taken for chatter."""
    with weir.client() as client:
        client.ehlo()
        for _ in range(150):
            client.ok("RSET")
            client.message()
        client.quit()


@pytest.mark.scorecard(31, "an octet now and then, in a command and in a body: cut")
def test_slow_command(start, relay):
    weir = start([relay], listener=QUICK)
    began = time.monotonic()  # before it can have begun: the test may be held up
    with weir.client() as client:
        client.sock.settimeout(0.1)
        while not client.ended and time.monotonic() - began < 20:
            try:
                client.send(b"N")
                client.receive()
            except TimeoutError:
                pass
            except OSError:
                break
        assert client.ended, "a command that never ends was not cut"
        assert 1.8 < time.monotonic() - began
        assert client.buffer.startswith(b"421 4.4.2")


@pytest.mark.scorecard(31, "an octet now and then, in a command and in a body: cut")
def test_slow_body(start, relay):
    weir = start([relay], listener=dict(QUICK, **{"min-data-rate": 500}))
    with weir.client() as client:
        client.ehlo().envelope()
        began = time.monotonic()
        client.ok("DATA", 354)
        client.sock.settimeout(0.1)
        # Each block comes well within data-timeout: only the rate gives this away.
        while not client.ended and time.monotonic() - began < 20:
            try:
                client.send(b"x")
                client.receive()
            except TimeoutError:
                pass
            except OSError:
                break
        assert client.ended, "a body of ten octets a second was not cut"
        assert 1.9 < time.monotonic() - began
        assert client.buffer.startswith(b"421 4.4.2")
    wait_until(lambda: not relay.traffic()[0].open, 5, "the backend's connection is closed")
    assert not relay.transactions()[0].ended


def test_a_slow_but_sufficient_body_is_taken(start, relay):
    weir = start([relay], listener=dict(QUICK, **{"min-data-rate": 500}))
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        for _ in range(15):
            client.send(b"x" * 298 + b"\r\n")
            time.sleep(0.2)
        client.send(b".\r\n")
        client.expect(250)


@pytest.mark.scorecard(32, "idle: 421 4.4.2 at the configured time")
@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "data"])
def test_idle(start, relay, stage):
    weir = start([relay], listener=QUICK)
    began = time.monotonic()
    with weir.client() as client:
        if stage != "banner":
            began = time.monotonic()
            client.ehlo()
        if stage in ("mail", "data"):
            client.ok("MAIL FROM:<from@client.test>")
            began = time.monotonic()
            client.ok("RCPT TO:<to@relay.test>")
        if stage == "data":
            began = time.monotonic()
            client.ok("DATA", 354)
        reply = client.reply()
        assert (reply.code, reply.enhanced) == (421, "4.4.2")
        assert 1.8 < time.monotonic() - began
        assert client.replies() == []
    assert not relay.committed()


@pytest.mark.scorecard(33, "connections per client over the limit: 421 4.7.0, others served")
def test_connections_per_client(start, relay):
    weir = start([relay], listener={"max-connections-per-client": 3})
    held = [weir.client() for _ in range(3)]
    with weir.client(banner=False) as refused:
        reply = refused.reply()
        assert (reply.code, reply.enhanced) == (421, "4.7.0")
        assert refused.replies() == []
    with weir.client(source="127.0.0.2") as other:
        other.ehlo().message()
    held.pop().quit()

    def another():
        with weir.client(banner=False) as client:
            return client.reply().code == 220
    wait_until(another, 5, "a place given back is taken again")
    for client in held:
        client.ehlo().message()
        client.quit()


def test_max_connections(start, relay):
    weir = start([relay], listener={"max-connections": 2})
    held = [weir.client() for _ in range(2)]
    with weir.client(banner=False) as refused:
        assert refused.reply().code == 421
    for client in held:
        client.ehlo().message()
        client.quit()


@pytest.mark.scorecard(34, "AUTH on cleartext: not offered, refused, the password never logged")
def test_auth_on_cleartext(start, relay):
    relay.extensions.append("AUTH PLAIN LOGIN")
    weir = start([relay], top={"log": {"level": "debug"}})
    secret = "s3cret-passw0rd"
    token = base64.b64encode(b"\0user\0" + secret.encode()).decode()
    with weir.client() as client:
        client.ehlo()
        assert not [keyword for keyword in client.extensions if keyword.startswith("AUTH")]
        assert client.command("AUTH PLAIN " + token).code in (502, 503, 530, 538)
        assert client.command("AUTH LOGIN").code in (502, 503, 530, 538)
        client.ok("NOOP")
        client.quit()
    weir.wait_log(event="session")
    assert token not in weir.output() and secret not in weir.output()
    assert not any(b"AUTH" in line for connection in relay.connections for line in connection.lines)


@pytest.mark.scorecard(37, "VRFY, EXPN, ETRN, XCLIENT, XFORWARD: answered here, never relayed")
@pytest.mark.parametrize("inside", [False, True])
def test_answered_here(weir, relay, inside):
    asked = {"VRFY someone": (252,), "EXPN list": (502,), "ETRN relay.test": (502,), "XCLIENT ADDR=192.0.2.1": (502, 550),
             "XFORWARD ADDR=192.0.2.1": (502, 550), "HELP": (214,), "NOOP something": (250,), "TURN": (500, 502)}
    with weir.client() as client:
        client.ehlo()
        assert not {"XCLIENT", "XFORWARD", "ETRN", "VRFY"} & set(client.extensions)
        if inside:
            client.envelope()
        for command, codes in asked.items():
            client.ok(command, *codes)
        assert client.command("VRFY someone").enhanced == "2.0.0"
        if inside:
            assert client.data(b"x\r\n").code == 250
        else:
            client.message()
        client.quit()
    words = {line.split(b" ")[0] for connection in relay.traffic() for line in connection.lines}
    assert words <= {b"EHLO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"QUIT"}, words
    assert len(relay.committed()) == 1


def test_sequence_errors(weir, relay):
    with weir.client() as client:
        assert client.command("MAIL FROM:<a@x>").code == 503
        client.ehlo()
        for command in ("RCPT TO:<b@x>", "DATA"):
            reply = client.command(command)
            assert (reply.code, reply.enhanced) == (503, "5.5.1")
        client.ok("MAIL FROM:<a@x>")
        assert client.command("MAIL FROM:<b@x>").code == 503
        assert client.command("DATA").code in (503, 554)
        client.ok("RCPT TO:<b@x>")
        assert client.data(b"x\r\n").code == 250
        # The transaction is over, whatever the reply to it was.
        assert client.command("RCPT TO:<b@x>").code == 503
        assert client.command("EHLO").code == 501
        assert client.command("MAIL TO:<a@x>").code == 501
        assert client.command("MAIL FROM:<a@x> NONSENSE=1").code == 555
        client.quit()
    assert len(relay.committed()) == 1


def test_helo_and_rset(weir, relay):
    with weir.client() as client:
        client.ok("HELO old.test")
        client.envelope()
        client.ok("RSET")
        client.message(sender="second@x")
        client.envelope()
        client.ok("EHLO again.test")
        assert client.command("RCPT TO:<b@x>").code == 503
        client.quit()
    assert [one.mail for one in relay.committed()] == [b"second@x"]


def test_allow_from(start, relay):
    weir = start([relay], listener={"allow-from": ["10.0.0.0/8", "127.0.0.2"]})
    with weir.client() as client:
        client.ehlo()
        reply = client.command("MAIL FROM:<a@x>")
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        client.quit()
    assert not relay.traffic()
    with weir.client(source="127.0.0.2") as client:
        client.ehlo().message()
    weir.relays.remove(relay)  # the epilogue's own session would be refused


@pytest.mark.parametrize("declared", [True, False])
def test_too_large(start, relay, declared):
    weir = start([relay], listener={"max-message-size": "10KB"})
    with weir.client() as client:
        client.ehlo()
        assert client.extensions["SIZE"] == "10240"
        if declared:
            reply = client.command("MAIL FROM:<a@x> SIZE=10241")
        else:
            client.envelope()
            reply = client.data((b"x" * 78 + b"\r\n") * 200)
        assert (reply.code, reply.enhanced) == (552, "5.3.4")
        if declared:
            client.message(parameters="SIZE=10240")
    assert len(relay.committed()) == (1 if declared else 0)


def test_a_client_that_vanishes(weir, relay):
    """In each stage, politely and by reset: the backend commits nothing and gets its connection back."""
    for stage in ("ehlo", "mail", "data", "body"):
        for abort in (False, True):
            client = weir.client()
            client.ehlo()
            if stage != "ehlo":
                client.envelope()
            if stage in ("data", "body"):
                client.ok("DATA", 354)
            if stage == "body":
                client.send(b"half a mess")
            client.abort() if abort else client.close()
    wait_until(lambda: not [one for one in relay.traffic() if one.open], 5, "the backend's connections are closed")
    assert not [one for one in relay.transactions() if one.ended]
    weir.wait_log(event="transaction", outcome="aborted")


def test_a_vanished_client_whose_message_was_complete(weir, relay):
    """The end of data was sent on: the backend's word decides, though nobody hears it."""
    relay.on("end", lambda connection, line: time.sleep(0.3))
    client = weir.client()
    client.ehlo().envelope().ok("DATA", 354)
    client.send(b"x\r\n.\r\n")
    relay.wait("end")
    client.close()
    relay.wait("committed")
    weir.wait_log(event="transaction", outcome="delivered")


def test_replies_are_in_order_under_pipelining(weir, relay):
    relay.on("rcpt", lambda connection, line: b"550 5.1.1 %s\r\n" % line[9:11] if b"<b" in line else None)
    with weir.client() as client:
        client.send(b"EHLO x\r\nNOOP\r\nMAIL FROM:<a@x>\r\nRCPT TO:<g1@x>\r\nRCPT TO:<b1@x>\r\nVRFY x\r\nRCPT TO:<g2@x>\r\n"
                    b"RCPT nonsense\r\nRCPT TO:<b2@x>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(10)] == [250, 250, 250, 250, 550, 252, 250, 501, 550, 354]
        client.send(b"x\r\n.\r\nMAIL FROM:<second@x>\r\nRCPT TO:<g3@x>\r\nRSET\r\nNOOP\r\nQUIT\r\n")
        assert [reply.code for reply in client.replies()] == [250, 250, 250, 250, 250, 221]
    assert [one.rcpts for one in relay.committed()] == [[b"g1@x", b"g2@x"]]


def test_close_without_quit_is_quiet(weir):
    with weir.client() as client:
        client.ehlo()
    line = weir.wait_log(event="session")
    assert line["client"].startswith("127.0.0.1:")
