"""Scorecard D: backends that lie, babble or fall silent. None of their octets may be taken for anything else."""

import re
import threading
import time

import pytest
from test_clients import lean, resident
from weirtest.net import wait_until
from weirtest.relay import DROP, STALL, At, Bytewise, Delay

SLOW_CHECKS = {"health": {"interval": "1h", "fast-interval": "200ms", "fall": 3, "rise": 1}}


def quiet(start, relay, **options):
    """A Weir that has seen `relay` well once and does not look again while a test makes it misbehave."""
    return start([relay], pool=SLOW_CHECKS, **options)


def send_commands(client):
    """An envelope and a message, whatever is said, up to a 421. The code of each reply."""
    codes = []
    for line in ("MAIL FROM:<a@x>", "RCPT TO:<b@relay.test>", "DATA"):
        codes.append(client.command(line).code)
        if codes[-1] == 421:
            return codes
    if codes[-1] == 354:
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        codes.append(client.reply().code)
    return codes


def assert_survives(weir, relay, codes):
    """The client heard no success, the connection is given up, and the session's next transaction gets a fresh one."""
    assert codes[-1] == 451, codes
    assert not [code for code in codes if code // 100 == 5], "an error of the backend's making was told as the client's"
    wait_until(lambda: not [one for one in relay.traffic() if one.open], 5, "the backend's connection is dropped")
    assert not relay.committed()


@pytest.mark.scorecard(38, "two codes in one reply: 451, connection dropped")
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "end"])
def test_two_codes(start, relay, step):
    weir = quiet(start, relay)
    relay.on(step, b"250-a\r\n550 b\r\n" if step != "data" else b"354-a\r\n550 b\r\n", times=1)
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        if step == "mail":
            # Nothing had been answered: a second connection is tried, or the client told to come back.
            assert codes in ([250, 250, 354, 250], [451, 451, 451]), codes
        elif step == "end":
            assert codes == [250, 250, 354, 451]
            wait_until(lambda: not relay.traffic()[0].open, 5, "the backend's connection is dropped")
        else:
            assert_survives(weir, relay, codes)
        client.message(sender="second@x")
    assert relay.committed()[-1].mail == b"second@x"


@pytest.mark.scorecard(39, "an endless reply or a 10 MB line: bounded memory, 451")
@pytest.mark.parametrize("piece,step", [(b"250-x\r\n" * 2000, "rcpt"), (b"250 " + b"x" * 16384, "rcpt"),
                                        (b"250-x\r\n" * 2000, "end"), (b"x" * 16384, "data"), (b"\0" * 16384, "end")])
def test_endless_reply(start, relay, piece, step):
    weir = lean(start, [relay], pool=SLOW_CHECKS)
    for _ in range(3):
        weir.deliver()

    def babble(connection, line):
        connection.send(piece)
        try:
            for _ in range(10 * 1024 * 1024 // len(piece)):
                connection.sock.sendall(piece if not piece.startswith(b"250 ") else b"x" * len(piece))
        except OSError:
            pass
        return DROP
    relay.on(step, babble, times=1)
    before = resident(weir.pid)
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes[-1] == 451 and not [code for code in codes if code >= 500], codes
        assert resident(weir.pid) - before < 1 << 20
        client.message()


@pytest.mark.scorecard(40, "replies octet by octet, with bare LF, without text: parsed or cleanly failed")
@pytest.mark.parametrize("step", ["banner", "ehlo", "mail", "rcpt", "data", "end", "quit"])
def test_reply_octet_by_octet(start, relay, step):
    weir = quiet(start, relay)
    relay.on(step, Bytewise(pause=0.0005))
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]
        client.quit()
    relay.behave()


@pytest.mark.scorecard(40, "replies octet by octet, with bare LF, without text: parsed or cleanly failed")
@pytest.mark.parametrize("said", [b"250\r\n", b"250 \r\n", b"250-\r\n250\r\n", b"250-a\r\n250 b\r\n"])
def test_reply_without_text(start, relay, said):
    weir = quiet(start, relay)
    relay.on("mail", said).on("rcpt", said).on("end", said)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]
    assert len(relay.committed()) == 1


@pytest.mark.scorecard(40, "replies octet by octet, with bare LF, without text: parsed or cleanly failed")
@pytest.mark.parametrize("step", ["rcpt", "end"])
def test_reply_with_bare_lf(start, relay, step):
    weir = quiet(start, relay)
    relay.on(step, b"250 2.0.0 a\n")
    with weir.client() as client:
        codes = []
        worker = threading.Thread(target=lambda: codes.extend(send_commands(client.ehlo())), daemon=True)
        worker.start()
        # Taken as a line it is 250, taken as half a line there is nothing yet, and when the relay goes it is 451.
        relay.wait(step)
        worker.join(0.5)
        if worker.is_alive():
            relay.stop()
            worker.join(10)
            assert codes[-1] == 451, codes
            relay.start()
        else:
            assert codes[-1] in (250, 451), codes


@pytest.mark.scorecard(41, "codes 999, abc, an empty line: 451")
@pytest.mark.parametrize("said", [b"999 x\r\n", b"abc\r\n", b"\r\n", b"25 x\r\n", b"2500 x\r\n", b"250x\r\n", b"-1 x\r\n", b"150 x\r\n",
                                  b"\xff\xfe\r\n"])
@pytest.mark.parametrize("step", ["rcpt", "end"])
def test_no_code(start, relay, said, step):
    weir = quiet(start, relay)
    relay.on(step, said, times=1)
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes[-1] == 451 and not [code for code in codes if code >= 500], codes
        client.message()


@pytest.mark.scorecard(42, "250 for 354, 354 to MAIL: no body is sent, 451")
def test_250_in_place_of_354(start, relay):
    weir = quiet(start, relay)
    relay.on("data", b"250 2.0.0 Ok\r\n", times=1)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 451]
        client.message()
    assert len(relay.committed()) == 1 and not any(b"Subject: x" in one.received for one in relay.connections)


@pytest.mark.scorecard(42, "250 for 354, 354 to MAIL: no body is sent, 451")
@pytest.mark.parametrize("step", ["mail", "rcpt"])
def test_354_out_of_place(start, relay, step):
    weir = quiet(start, relay)
    relay.on(step, b"354 go on\r\n")
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes[-1] in (451, 421) and 354 not in codes and not [code for code in codes if code >= 500], codes
    assert not any(b"Subject: x" in one.received for one in relay.connections)


@pytest.mark.scorecard(42, "250 for 354, 354 to MAIL: no body is sent, 451")
@pytest.mark.parametrize("step,said", [("mail", b"250 a\r\n250 b\r\n"), ("rcpt", b"250 a\r\n250 2.0.0 queued\r\n"),
                                       ("end", b"250 a\r\n550 b\r\n")])
def test_an_extra_reply_answers_nothing(start, relay, step, said):
    """The second reply must be taken neither for the next command's nor for the next transaction's."""
    weir = quiet(start, relay)
    relay.on(step, said, times=1)
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert not [code for code in codes if code >= 500], codes
        if codes[-1] == 250:
            assert len(relay.committed()) == 1
        relay.on("rcpt", b"450 4.2.0 the real one\r\n", times=1)
        client.ok("RSET")
        client.ok("MAIL FROM:<second@x>")
        assert client.command("RCPT TO:<b@x>").text == "4.2.0 the real one"


@pytest.mark.scorecard(43, "550 in mid-body, then it stops reading: the client gets the 550")
def test_early_refusal(start, relay):
    weir = quiet(start, relay)
    relay.on("body", At(100000, [b"550 5.7.1 no more of this\r\n", STALL]), times=1)
    with weir.client(timeout=30) as client:
        client.ehlo().envelope().ok("DATA", 354)
        block = (b"x" * 998 + b"\r\n") * 1000
        for _ in range(20):
            client.send(block)
        client.send(b".\r\n")
        reply = client.reply()
        assert (reply.code, reply.text) == (550, "5.7.1 no more of this")
        client.message()
    assert len(relay.committed()) == 1


@pytest.mark.scorecard(43, "550 in mid-body, then it stops reading: the client gets the 550")
@pytest.mark.parametrize("said,code", [(b"452 4.3.1 disk full\r\n", 452), (b"250 2.0.0 believe me\r\n", 451),
                                       (b"421 4.3.0 bye\r\n", 451), (b"nonsense\r\n", 451)])
def test_early_reply(start, relay, said, code):
    weir = quiet(start, relay)
    relay.on("body", At(10, said), times=1)
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send(b"Subject: long enough\r\n")
        # Weir has heard it, and has left the connection: else this could be the reply to all of the message.
        wait_until(lambda: relay.transactions() and not relay.transactions()[0].connection.open, 5, "the early reply was heard")
        client.send(b"x\r\n" * 100 + b".\r\n")
        assert client.reply().code == code
        client.message()
    assert not relay.transactions()[0].committed


@pytest.mark.scorecard(44, "ESC, NUL, lone CR in a reply: sanitised to client and log")
@pytest.mark.parametrize("step", ["rcpt", "end"])
def test_dirty_reply(start, relay, step):
    weir = quiet(start, relay)
    relay.on(step, b"550-5.1.1 \x1b[31mred\x07 a\xff\xfe\r\n550 5.1.1 lone\x7f\t\x1b]0;title\x07 end\r\n", times=1)
    with weir.client() as client:
        codes = []
        client.ehlo().ok("MAIL FROM:<a@x>")
        reply = client.command("RCPT TO:<b@x>")
        if step == "end":
            reply = client.data(b"x\r\n")
        codes.append(reply.code)
        assert reply.code in (550, 451)
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", reply.raw), reply.raw
        client.ok("RSET")
        client.message()
    weir.wait_log(event="transaction")
    weir.log()  # strict: it refuses control characters


@pytest.mark.scorecard(44, "ESC, NUL, lone CR in a reply: sanitised to client and log")
@pytest.mark.parametrize("said", [b"250 nul\0nul\r\n", b"250 lone\rcr\r\n", b"250 end\r\r\n", b"250-a\r250 b\r\n"])
def test_reply_with_nul_or_cr(start, relay, said):
    weir = quiet(start, relay)
    relay.on("rcpt", said, times=1)
    with weir.client() as client:
        client.ehlo().ok("MAIL FROM:<a@x>")
        reply = client.command("RCPT TO:<b@x>")
        assert reply.code in (250, 451)
        assert b"\0" not in reply.raw and b"\r" not in reply.raw.replace(b"\r\n", b"")


@pytest.mark.scorecard(45, "only what all usable backends offer and Weir carries is offered")
def test_intersection(start, relays):
    rich = relays(1, extensions=["PIPELINING", "SIZE 20000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING",
                                 "BINARYMIME", "STARTTLS", "AUTH PLAIN", "XCLIENT NAME ADDR", "XFORWARD NAME", "ETRN", "VRFY",
                                 "REQUIRETLS", "BURL imap", "X-WEIRD yes"])[0]
    plain = relays(1, extensions=["PIPELINING", "SIZE 0", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN"])[0]
    small = relays(1, extensions=["PIPELINING", "SIZE 10000", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING"])[0]
    weir = start([rich, plain, small])

    def offered():
        with weir.client() as client:
            return client.ehlo().extensions
    expected = {"PIPELINING": "", "SIZE": "10000", "8BITMIME": "", "ENHANCEDSTATUSCODES": ""}
    wait_until(lambda: offered() == expected, 10, lambda: "steady: %s" % offered())
    for _ in range(16):  # to whom is by lot
        weir.deliver()
        assert offered() == expected
    assert len([one for one in (rich, plain, small) if one.committed()]) > 1


@pytest.mark.scorecard(45, "only what all usable backends offer and Weir carries is offered")
def test_a_transaction_goes_where_it_can_be_carried(start, relays):
    """A session keeps the set it was told; a backend that lost SMTPUTF8 meanwhile gets none of its mail."""
    first, second = relays(2)
    weir = start([first, second], pool=SLOW_CHECKS)
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 10, "both are up")
    clients = [weir.client().ehlo() for _ in range(8)]
    assert "SMTPUTF8" in clients[0].extensions
    second.extensions = ["PIPELINING", "8BITMIME"]
    for client in clients:
        client.ok("MAIL FROM:<\u00e9@x> SMTPUTF8")
        client.ok("RCPT TO:<b@x>")
        assert client.data(b"x\r\n").code == 250
        client.quit()
    assert len(first.committed()) == 8 and not second.committed()


def test_a_backend_without_pipelining_gets_one_command_at_a_time(start, relay):
    relay.extensions = ["SIZE 1000000", "8BITMIME"]
    ahead = []

    def note(connection, line):
        time.sleep(0.02)
        ahead.append(bytes(connection.buffer))
        connection.sock.setblocking(False)
        try:
            ahead.append(connection.sock.recv(4096))
        except BlockingIOError:
            pass
        finally:
            connection.sock.setblocking(True)
    weir = start([relay])
    for step in ("mail", "rcpt", "data"):
        relay.on(step, note)
    with weir.client() as client:
        client.ehlo()
        assert "PIPELINING" in client.extensions, "that is Weir's own"
        client.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
        client.send(b"x\r\n.\r\n")
        client.expect(250)
    assert not any(ahead), ahead


def test_a_backend_that_knows_only_helo(start, relay):
    relay.on("ehlo", b"502 5.5.1 no\r\n")
    weir = start([relay])
    with weir.client() as client:
        client.ehlo().message()
    assert len(relay.committed()) == 1
    assert relay.traffic()[0].lines[1].startswith(b"HELO")


def test_a_slow_backend_is_waited_for(start, relay):
    weir = quiet(start, relay)
    for step in ("banner", "ehlo", "mail", "rcpt", "data", "end"):
        relay.on(step, Delay(0.3), times=1)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]


def test_refusals_are_passed_on_as_they_are(start, relay):
    weir = start([relay])
    with weir.client() as client:
        client.ehlo()
        relay.on("mail", b"550-5.7.1 two\r\n550 5.7.1 lines\r\n", times=1)
        reply = client.command("MAIL FROM:<a@x>")
        assert (reply.code, reply.lines) == (550, ["5.7.1 two", "5.7.1 lines"])
        relay.on("rcpt", b"451 4.7.1 greylisted\r\n", times=1)
        client.ok("MAIL FROM:<a@x>")
        assert client.command("RCPT TO:<b@x>").text == "4.7.1 greylisted"
        client.ok("RCPT TO:<c@x>")
        relay.on("end", b"552 5.2.2 full\r\n", times=1)
        assert client.data(b"x\r\n").text == "5.2.2 full"
        client.message(sender="good@x")
        client.quit()
    assert weir.wait_log(event="transaction", outcome="rejected", code=552)["rcpts"] == "1/2"
    weir.wait_log(event="transaction", outcome="delivered")
    assert len(relay.committed()) == 1
