"""Real programs on both sides, and real messages octet for octet."""

import os
import re

import pytest
from weirtest import programs
from weirtest.client import stuff
from weirtest.net import wait_until

root_only = pytest.mark.skipif(os.geteuid() != 0 or not programs.find_program("postfix"), reason="Postfix starts as root only")


@pytest.fixture
def sinks():
    made = [programs.Sink() for _ in range(3)]
    yield made
    for one in made:
        one.stop()


@pytest.mark.parametrize("options", [(), ("-d",), ("-N",), ("-r", "5"), ("-4",)])
def test_smtp_source_to_smtp_sinks(start, sinks, options):
    """With connections for each message (as it is) and kept (-d)."""
    weir = start({"s%d" % number: sink for number, sink in enumerate(sinks)})
    wait_until(lambda: weir.metric("weir_backend_up") == 3, 5, "all sinks are up")
    code, error = programs.smtp_source(weir.port, 10, 150, 4096, *options)
    assert code == 0, error
    wait_until(lambda: sum(len(sink.messages()) for sink in sinks) == 150, 5, lambda: [len(sink.messages()) for sink in sinks])
    assert all(sink.messages() for sink in sinks)
    weir.wait_log(event="transaction", outcome="delivered", times=150)


def test_smtp_source_with_big_messages(start, sinks):
    weir = start({"s%d" % number: sink for number, sink in enumerate(sinks)})
    code, error = programs.smtp_source(weir.port, 4, 12, 2500000)
    assert code == 0, error
    # The sink keeps lines without their CR, so a little less than what was sent.
    def sizes():
        return [len(message) for sink in sinks for message in sink.messages()]
    wait_until(lambda: len(sizes()) == 12 and min(sizes()) > 2400000, 5, sizes)


@root_only
def test_postfix_as_backend(start):
    postfix = programs.Postfix()
    try:
        weir = start([postfix])
        with weir.client() as client:
            client.ehlo()
            assert {"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "SIZE"} <= set(client.extensions)
            assert not {"ETRN", "VRFY", "STARTTLS", "XCLIENT"} & set(client.extensions)
            client.message(sender="data@client.test")
            client.envelope(sender="bdat@client.test", parameters="BODY=8BITMIME RET=HDRS ENVID=x1")
            assert client.bdat(b"Subject: chunks\r\n\r\n\xe4\r\n", last=False).code == 250
            assert client.bdat(b"end\r\n").code == 250
            client.envelope(sender="twice@client.test", recipients=("a@relay.test", "b@relay.test"))
            client.ok("RSET")
            reply = client.ok("MAIL FROM:<refused@client.test>", 250)
            assert client.command("RCPT TO:<no@such..domain>").code in (501, 550, 554, 250)
            client.ok("RSET")
            client.quit()
        assert reply.enhanced == "2.1.0"
        code, error = programs.smtp_source(weir.port, 5, 60, 2048)
        assert code == 0, error
        wait_until(lambda: len(postfix.queued()) == 62, 20, lambda: "62 messages queued, are %d" % len(postfix.queued()))
        senders = [sender for sender, _ in postfix.queued()]
        assert senders.count("data@client.test") == senders.count("bdat@client.test") == 1
    finally:
        postfix.stop()


@root_only
def test_postfix_relays_on_to_a_relay(start, relay):
    """Client → Weir → Postfix → a relay that shows what came of it."""
    postfix = programs.Postfix(next_hop=relay.port)
    try:
        weir = start([postfix])
        with weir.client() as client:
            client.ehlo().message(wire=b"Subject: through\r\n\r\n..dot\r\n", sender="someone@client.test")
            client.quit()
        relay.wait("committed", timeout=15)
        arrived = relay.committed()[0]
        assert arrived.mail == b"someone@client.test"
        assert b"Subject: through\r\n" in arrived.content and arrived.content.endswith(b"\r\n\r\n.dot\r\n")
    finally:
        postfix.stop()


def test_aiosmtpd_as_backend(start):
    aio = programs.Aiosmtpd()
    try:
        weir = start([aio])
        with weir.client() as client:
            client.ehlo()
            assert "CHUNKING" not in client.extensions and "SIZE" in client.extensions
            for number in range(5):
                client.message(wire=stuff(b".\r\nbody %d\r\n" % number), sender="%d@client.test" % number)
            client.quit()
        assert [message[2] for message in aio.messages] == [b".\r\nbody %d\r\n" % number for number in range(5)]
    finally:
        aio.stop()


def test_swaks_as_client(start, relay):
    weir = start([relay])
    code, dialogue = programs.swaks(weir.port, "--body", "from swaks\n.\nend", "--pipeline")
    assert code == 0, dialogue
    assert re.search(r"<-\s+220 weir\.test ESMTP Weir", dialogue)
    assert b"from swaks\r\n.\r\nend" in relay.committed()[0].content
    code, dialogue = programs.swaks(weir.port, "--to", "a@x,b@x,c@x")
    assert code == 0 and relay.committed()[1].rcpts == [b"a@x", b"b@x", b"c@x"]
    relay.on("rcpt", b"550 5.1.1 unknown\r\n")
    assert programs.swaks(weir.port)[0] != 0



def test_mime_samples_by_data_and_bdat(start, relay):
    """Every message of Python's test suite. As lines with CRLF by DATA and BDAT, and as the file is by BINARYMIME."""
    weir = start([relay])
    paths = programs.mime_samples()
    if not paths:
        pytest.skip("no Python test suite is installed")
    with weir.client() as client:
        client.ehlo()
        for number, path in enumerate(paths):
            with open(path, "rb") as file:
                raw = file.read()
            lines = re.sub(rb"\r\n|\r|\n", b"\r\n", raw)
            lines += b"" if lines.endswith(b"\r\n") else b"\r\n"
            client.envelope(parameters="BODY=8BITMIME").ok("DATA", 354)
            client.split(stuff(lines) + b".\r\n", number)
            client.expect(250)
            client.envelope(parameters="BODY=8BITMIME")
            middle = len(lines) // 2
            assert client.bdat(lines[:middle], last=False).code == 250
            assert client.bdat(lines[middle:]).code == 250
            client.envelope(parameters="BODY=BINARYMIME")
            assert client.bdat(raw).code == 250
            data, bdat, binary = relay.committed()[-3:]
            assert data.content == bdat.content == lines, path
            assert binary.content == raw, path
        client.quit()
    assert len(relay.committed()) == 3 * len(paths)


def test_bdat_in_one_segment_with_the_envelope(start, relay):
    """RFC 3030 lets BDAT stand in a pipelined group."""
    weir = start([relay])
    with weir.client() as client:
        client.ehlo()
        client.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nBDAT 7\r\nfirst\r\nBDAT 0\r\nBDAT 6 LAST\r\nlast\r\nQUIT\r\n")
        codes = [reply.code for reply in client.replies()]
    assert codes == [250, 250, 250, 250, 250, 221], codes
    assert relay.committed()[0].content == b"first\r\nlast\r\n"


def test_parameters_reach_the_backend(start, relay):
    weir = start([relay])
    with weir.client() as client:
        client.ehlo().ok("MAIL FROM:<a@x> SIZE=1000 BODY=8BITMIME RET=FULL ENVID=QQ314159 SMTPUTF8")
        client.ok("RCPT TO:<b@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@x")
        assert client.data(b"x\r\n").code == 250
        client.ok("MAIL FROM:<>")
        client.ok('RCPT TO:<"quoted > local"@x>')
        assert client.data(b"x\r\n").code == 250
        client.quit()
    lines = relay.traffic()[0].lines
    mail = next(line for line in lines if line.startswith(b"MAIL"))
    assert mail.startswith(b"MAIL FROM:<a@x> ")
    assert set(mail.split()[2:]) == {b"SIZE=1000", b"BODY=8BITMIME", b"RET=FULL", b"ENVID=QQ314159", b"SMTPUTF8"}
    assert b"RCPT TO:<b@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@x" in lines
    assert b"MAIL FROM:<>" in lines and b'RCPT TO:<"quoted > local"@x>' in lines
    assert lines[0] == b"EHLO weir.test", "Weir's own name, not the client's"


def test_unicode_addresses(start, relay):
    weir = start([relay])
    with weir.client() as client:
        client.ehlo()
        assert client.command("MAIL FROM:<\u00e9@x>").code == 553, "needs SMTPUTF8"
        client.ok("MAIL FROM:<\u00e9@x> SMTPUTF8")
        client.ok("RCPT TO:<\u7528\u6237@x>")
        assert client.data("Subject: \u00fc\r\n".encode()).code == 250
        client.quit()
    assert relay.committed()[0].rcpts == ["\u7528\u6237@x".encode()]


def test_the_backend_is_left_politely(start, relay):
    weir = start([relay])
    weir.deliver()
    wait_until(lambda: not relay.traffic()[0].open, 5, "the connection ended")
    assert relay.traffic()[0].lines[-1] == b"QUIT"
