"""Scorecard A: what ends a line and what ends a message (VU#302671; CVE-2023-51764, -51765, -51766)."""

import hashlib
import random

import pytest
from weirtest.client import Closed, stuff
from weirtest.relay import Relay, assert_one_message, bare_ends
from weirtest.weir import Weir

SMUGGLED = b"MAIL FROM:<smuggled@x>\r\nRCPT TO:<victim@relay.test>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n"
ENVELOPE = b"EHLO client.test\r\nMAIL FROM:<honest@x>\r\nRCPT TO:<to@relay.test>\r\nDATA\r\n"


@pytest.fixture(scope="module", params=["reject", "normalize"])
def shared(request):
    relay = Relay()
    weir = Weir([relay], listener={"bare-newline": request.param, "command-timeout": "5s", "data-timeout": "5s"})
    weir.policy = request.param
    yield weir
    weir.finish()


def smuggle(weir, sequence, bytewise):
    """Send a message that holds `sequence` and then commands. The replies after 354, and the relay's connections of it."""
    relay = weir.relays[0]
    before = len(relay.connections)
    with weir.client() as client:
        client.send(ENVELOPE)
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
        body = b"Subject: x\r\n\r\nx" + sequence + SMUGGLED
        client.trickle(body, 0.0002) if bytewise else client.send(body)
        replies = [client.reply()]
        if replies[0].code == 250:
            client.send(b"QUIT\r\n")
            try:
                replies.append(client.reply())
            except Closed:
                pass
        else:
            replies += client.replies()
    weir.wait_metric(0, "weir_sessions_active")
    return replies, [connection for connection in relay.connections[before:] if connection.traffic]


def assert_not_smuggled(weir, sequence, bytewise):
    replies, captured = smuggle(weir, sequence, bytewise)
    assert len(captured) == 1
    seen = captured[0]
    assert not any(b"smuggled" in one.mail_line for one in seen.transactions)
    if replies[0].code == 250:
        assert_one_message(seen)
        assert [reply.code for reply in replies] == [250, 221]
    else:
        assert 500 <= replies[0].code < 600, replies
        assert len(replies) == 1, "commands behind a refused message were answered: %r" % replies
        assert not [one for one in seen.transactions if one.ended or one.committed]
        assert b"\r\n.\r\n" not in seen.received
        assert not bare_ends(bytes(seen.received))
    return replies[0]


def row(number, name, sequences):
    """The same test as two rows: in one write, and (row 6) one octet a segment."""
    cases = [pytest.param(sequence, False, marks=pytest.mark.scorecard(number, name)) for sequence in sequences]
    cases += [pytest.param(sequence, True, marks=pytest.mark.scorecard(6, "rows 1-5 one octet a segment")) for sequence in sequences]
    return pytest.mark.parametrize("sequence,bytewise", cases)


@row(1, "LF.LF is no end of data", [b"\n.\n"])
def test_lf_dot_lf(shared, sequence, bytewise):
    reply = assert_not_smuggled(shared, sequence, bytewise)
    assert reply.code == (550 if shared.policy == "reject" else 250)


@row(2, "LF.CRLF is no end of data", [b"\n.\r\n"])
def test_lf_dot_crlf(shared, sequence, bytewise):
    reply = assert_not_smuggled(shared, sequence, bytewise)
    assert reply.code == (550 if shared.policy == "reject" else 250)


@row(3, "CRLF.LF is no end of data", [b"\r\n.\n"])
def test_crlf_dot_lf(shared, sequence, bytewise):
    reply = assert_not_smuggled(shared, sequence, bytewise)
    assert reply.code == (550 if shared.policy == "reject" else 250)


@row(4, "a bare CR beside a dot is no end of data", [b"\r.\r\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\r\n.\r\r\n"])
def test_bare_cr(shared, sequence, bytewise):
    reply = assert_not_smuggled(shared, sequence, bytewise)
    assert (reply.code, reply.enhanced) == (550, "5.5.2"), "a bare CR is refused under both policies"


@row(5, "a NUL beside the dot is no end of data", [b"\r\n\0.\r\n", b"\r\n.\0\r\n"])
def test_nul(shared, sequence, bytewise):
    assert_not_smuggled(shared, sequence, bytewise)


def test_normalized_newlines_arrive_as_crlf(start, relay):
    weir = start([relay], listener={"bare-newline": "normalize"})
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send(b"one\ntwo\r\n.\nthree\n.\r\nfour\n..\r\nfive\r\n.\r\n")
        client.expect(250)
    assert relay.committed()[0].content == b"one\r\ntwo\r\n.\r\nthree\r\n.\r\nfour\r\n.\r\nfive\r\n"


def random_body(chance, number):
    """Eight-bit octets, leading dots, empty lines; every LF behind a CR and every CR before an LF."""
    if number == 0:
        return b""
    lines = []
    for _ in range(chance.randint(0, 40)):
        line = bytes(chance.choice(range(256)) for _ in range(chance.choice((0, 1, 2, 40, 200))))
        lines.append(chance.choice((b"", b"", b".", b"..")) + line.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n")
    return b"".join(lines)


@pytest.mark.scorecard(7, "500 random bodies arrive with the same SHA-256")
def test_random_bodies(weir, relay):
    chance = random.Random(7)
    bodies = [random_body(chance, number) for number in range(500)]
    for session in range(10):
        with weir.client() as client:
            client.ehlo()
            for number in range(session * 50, session * 50 + 50):
                client.envelope(sender="%d@x" % number, parameters="BODY=8BITMIME").ok("DATA", 354)
                wire = stuff(bodies[number]) + b".\r\n"
                client.split(wire, number) if number % 3 == 0 else client.send(wire)
                client.expect(250)
            client.quit()
    arrived = {int(one.mail.split(b"@")[0]): hashlib.sha256(one.content).hexdigest() for one in relay.committed()}
    assert arrived == {number: hashlib.sha256(body).hexdigest() for number, body in enumerate(bodies)}


@pytest.mark.scorecard(8, "end of data and QUIT in one write: 250, then 221")
def test_end_and_quit(weir, relay):
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send(b"x\r\n.\r\nQUIT\r\n")
        assert [reply.code for reply in client.replies()] == [250, 221]
    assert len(relay.committed()) == 1


LOOKS_LIKE_COMMANDS = b"MAIL FROM:<smuggled@x>\r\nRSET\r\n\r\n\r\n"


@pytest.mark.scorecard(9, "an unadvertised BDAT: its chunk is never executed")
@pytest.mark.parametrize("last", [b" LAST", b""])
@pytest.mark.parametrize("envelope", [True, False])
def test_unadvertised_bdat(start, relay, last, envelope):
    relay.extensions = ["PIPELINING", "SIZE 1000000", "8BITMIME"]
    weir = start([relay])
    with weir.client() as client:
        client.ehlo()
        assert "CHUNKING" not in client.extensions and "BINARYMIME" not in client.extensions
        if envelope:
            client.envelope()
        client.send(b"BDAT %d%s\r\n" % (len(LOOKS_LIKE_COMMANDS), last) + LOOKS_LIKE_COMMANDS + b"NOOP\r\n")
        client.expect(500, 502, 503)
        # Then either the chunk was consumed and NOOP is answered, or the session is over.
        try:
            client.expect(250)
            client.ok("RSET")
            client.message()
        except Closed:
            pass
    assert not any(b"smuggled" in connection.received for connection in relay.connections)


@pytest.mark.scorecard(10, "malformed and misplaced BDAT and DATA")
@pytest.mark.parametrize("command,chunk,codes", [
    (b"BDAT -1", b"", (501,)),
    (b"BDAT", b"", (501,)),
    (b"BDAT x LAST", b"", (501,)),
    (b"BDAT 18446744073709551616 LAST", b"", (501,)),
    (b"BDAT 9223372036854775808 LAST", b"", (501,)),
    (b"BDAT 5 FOO", b"NOOP\r", (501,)),
    (b"BDAT 6 LAST", b"NOOP\r\n", (503, 554)),
])
def test_malformed_bdat(weir, relay, command, chunk, codes):
    with weir.client() as client:
        client.ehlo()
        assert "CHUNKING" in client.extensions
        if codes == (501,):
            client.envelope()
        else:
            client.ok("MAIL FROM:<a@x>")
        client.send(command + b"\r\n" + chunk)
        reply = client.expect(*codes)
        if chunk:
            # The number made sense, so the octets are gone and the session is in step.
            assert client.silent(0.05), "the chunk was taken for commands after %r" % reply
            client.ok("RSET")
            client.message()
        else:
            assert client.replies() == [], "closed, since nobody knows where the commands go on"
    assert not any(connection.lines.count(b"NOOP") for connection in relay.traffic())


@pytest.mark.scorecard(10, "malformed and misplaced BDAT and DATA")
def test_data_after_bdat(weir, relay):
    with weir.client() as client:
        client.ehlo().envelope()
        assert client.bdat(b"first\r\n", last=False).code == 250
        assert client.command("DATA").code == 503
        assert client.bdat(b"second\r\n").code == 250
        client.ok("MAIL FROM:<a@x>")
        client.ok("RCPT TO:<b@relay.test>")
        client.quit()
    assert relay.committed()[0].content == b"first\r\nsecond\r\n"


@pytest.mark.scorecard(11, "a body pipelined behind a refused DATA is no command")
def test_body_behind_refused_data(weir, relay):
    relay.on("rcpt", b"550 5.1.1 no such user\r\n")
    with weir.client() as client:
        client.ehlo()
        client.send(b"MAIL FROM:<ok@x>\r\nRCPT TO:<bad@relay.test>\r\nDATA\r\n"
                    b"MAIL FROM:<e@x>\r\nRCPT TO:<v@relay.test>\r\nDATA\r\nevil\r\n.\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(2)] == [250, 550]
        client.expect(554, 503)
        assert not [reply for reply in client.replies() if reply.code // 100 in (2, 3) and reply.code != 221]
    assert not any(b"e@x" in connection.received for connection in relay.connections)


@pytest.mark.scorecard(11, "a body pipelined behind a refused DATA is no command")
def test_refused_data_alone_keeps_the_session(weir, relay):
    """A client that keeps to RFC 2920, where DATA ends a pipelined group, may go on."""
    relay.on("rcpt", b"550 5.1.1 no such user\r\n", times=1)
    with weir.client() as client:
        client.ehlo()
        client.send(b"MAIL FROM:<ok@x>\r\nRCPT TO:<bad@relay.test>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(2)] == [250, 550]
        client.expect(554, 503)
        client.ok("RSET")
        client.message()
        client.quit()


@pytest.mark.parametrize("policy", ["reject", "normalize"])
def test_bdat_content_obeys_the_same_rule(start, relay, policy):
    """Bare newlines in a chunk are refused, unless the client said BODY=BINARYMIME."""
    weir = start([relay], listener={"bare-newline": policy})
    binary = b"a\nb\rc\r.\n\0\r\n.\r\nMAIL FROM:<x@x>\r\n"
    with weir.client() as client:
        client.ehlo().envelope(parameters="BODY=BINARYMIME")
        assert client.bdat(binary).code == 250
        client.quit()
    assert relay.committed()[0].content == binary
    for chunk in (b"a\nb\r\n", b"a\rb\r\n", b"a\r"):
        with weir.client() as client:
            client.ehlo().envelope()
            reply = client.bdat(chunk)
            assert (reply.code, reply.enhanced) == (550, "5.5.2"), (chunk, reply)
    assert len(relay.committed()) == 1


def test_a_refused_message_is_heard_though_octets_follow(weir):
    """Weir closes after 550 while the client still sends: the reply must not be lost to a reset."""
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send(b"bare\n" + b"x" * 70 + b"\r\n")
        for _ in range(200):
            try:
                client.send(b"y" * 998 + b"\r\n")
            except OSError:
                break
        client.expect(550)


def test_bare_lf_in_a_command(weir):
    with weir.client() as client:
        reply = client.command(b"EHLO one\nEHLO two")
        assert (reply.code, reply.enhanced) == (500, "5.5.2")
        assert client.silent(0.1) or client.replies() == []
