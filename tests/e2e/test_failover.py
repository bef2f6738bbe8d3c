"""Scorecard E: a backend is lost. What the client hears at each step is the table of design/smtp.md."""

import os
import subprocess
import sys
import threading
import time

import pytest
from test_backends import SLOW_CHECKS, send_commands
from weirtest.client import Closed
from weirtest.net import wait_until
from weirtest.relay import DROP, RESET, STALL, At
from weirtest.weir import BINARY, ROOT

LOSSES = {"close": DROP, "reset": RESET}
losses = pytest.mark.parametrize("loss", list(LOSSES))


def pair(start, relays, **options):
    """Two backends. The first is preferred by its tier, so that a test knows whom it meets."""
    first, second = relays(2)
    pool = dict(SLOW_CHECKS, **options.pop("pool", {}))
    weir = start({"r1": first, "r2": {"address": second, "priority": 1}}, pool=pool, **options)
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    return weir, first, second


@pytest.mark.scorecard(46, "loss at connect, banner, EHLO: 250 through another backend")
@losses
@pytest.mark.parametrize("step", ["connect", "banner", "ehlo"])
def test_loss_before_the_envelope(start, relays, step, loss):
    weir, first, second = pair(start, relays)
    first.on(step, LOSSES[loss])
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]
    assert len(second.committed()) == 1 and not first.committed()


@pytest.mark.scorecard(46, "loss at connect, banner, EHLO: 250 through another backend")
def test_refused_connect(start, relays):
    weir, first, second = pair(start, relays)
    first.stop()
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]
    assert len(second.committed()) == 1
    assert weir.wait_log(event="transaction", outcome="delivered")["backend"] == "r2"


@pytest.mark.scorecard(46, "loss at connect, banner, EHLO: 250 through another backend")
@pytest.mark.parametrize("step,said", [("banner", b"421 4.3.2 busy\r\n"), ("banner", b"554 5.3.2 no\r\n"), ("banner", b"garbage\r\n"),
                                       ("ehlo", b"421 4.3.2 busy\r\n"), ("ehlo", b"garbage\r\n"), ("ehlo", b"451 4.3.0 later\r\n")])
def test_refused_greeting(start, relays, step, said):
    weir, first, second = pair(start, relays)
    first.on(step, said)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]
    assert len(second.committed()) == 1 and not first.committed()


@pytest.mark.scorecard(46, "loss at connect, banner, EHLO: 250 through another backend")
def test_silent_banner(start, relays):
    weir, first, second = pair(start, relays)
    first.on("banner", STALL)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]
    assert len(second.committed()) == 1


@pytest.mark.scorecard(47, "loss at MAIL, RCPT, DATA: as the table says, never 5xx")
@losses
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
def test_loss_in_the_envelope(start, relays, step, loss):
    weir, first, second = pair(start, relays)
    first.on(step, LOSSES[loss], times=1)
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes in {"mail": ([250, 250, 354, 250], [451, 451, 451]), "rcpt": ([250, 451, 451],),
                         "data": ([250, 250, 451],)}[step], codes
        if codes[-1] == 451:
            # Until the transaction is left it stays failed; then the session goes on.
            reply = client.command("RCPT TO:<more@x>")
            assert (reply.code, reply.enhanced) == (451, "4.4.2")
            client.ok("RSET")
        client.message(sender="next@x")
        client.quit()
    done = first.committed() + second.committed()
    assert done[-1].mail == b"next@x" and len(done) == (2 if codes[-1] == 250 else 1)


@pytest.mark.scorecard(47, "loss at MAIL, RCPT, DATA: as the table says, never 5xx")
@pytest.mark.parametrize("step", ["rcpt", "data"])
def test_421_in_the_envelope(start, relays, step):
    weir, first, second = pair(start, relays)
    first.on(step, [b"421 4.3.2 going away\r\n", DROP], times=1)
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes[-1] == 451 and 421 not in codes, codes
        client.message()


@pytest.mark.scorecard(47, "loss at MAIL, RCPT, DATA: as the table says, never 5xx")
@pytest.mark.parametrize("step,codes", [("rcpt", [250, 451, 451, 451]), ("data", [250, 250, 250, 451])])
def test_loss_under_pipelining(start, relays, step, codes):
    weir, first, _ = pair(start, relays)
    first.on(step, DROP, times=1)
    with weir.client() as client:
        client.ehlo().send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(4)] == codes
        client.ok("RSET")
        client.message()


@pytest.mark.scorecard(48, "loss in the body: a 4xx that the client receives")
@losses
@pytest.mark.parametrize("size", [10, 3000000])
def test_loss_in_the_body(start, relays, loss, size):
    weir, first, second = pair(start, relays)
    first.on("body", At(size // 2, LOSSES[loss]), times=1)
    with weir.client(timeout=20) as client:
        client.ehlo().envelope().ok("DATA", 354)
        # Half, then the loss, then the rest: nothing of this may reach the client as a reset.
        client.send((b"x" * 98 + b"\r\n") * (size // 200 + 1))
        # Weir knows: else the rest could be on its way already when the loss is seen, and what became of it unknown.
        weir.wait_metric(0, "weir_backend_connections", backend="r1")
        client.send((b"x" * 98 + b"\r\n") * (size // 200 + 1) + b".\r\n")
        reply = client.reply()
        assert reply.code in (451, 421) and reply.enhanced == "4.4.2", reply
        if reply.code == 451:
            client.message(sender="next@x")
    assert not [one for one in first.transactions() if one.ended and one.mail != b"next@x"]
    weir.wait_log(event="transaction", outcome="failed", backend="r1")


@pytest.mark.scorecard(48, "loss in the body: a 4xx that the client receives")
@pytest.mark.parametrize("step", ["between", "chunk", "last"])
def test_loss_between_chunks(start, relays, step):
    weir, first, second = pair(start, relays)
    with weir.client() as client:
        client.ehlo().envelope()
        if step == "between":
            assert client.bdat(b"one\r\n", last=False).code == 250
            first.traffic()[0].sock.shutdown(2)
            weir.wait_metric(0, "weir_backend_connections", backend="r1")
            reply = client.bdat(b"two\r\n", last=False)
        else:
            first.on("bdat" if step == "chunk" else "bdat_last", DROP, times=1)
            reply = client.bdat(b"one\r\n", last=step == "last")
        assert (reply.code, reply.enhanced) == (451, "4.4.2")
        assert client.bdat(b"MAIL FROM:<smuggled@x>\r\n").code == 503, "later chunks: consumed and refused"
        client.ok("RSET")
        client.message()
    assert not any(b"smuggled" in connection.received for relay in (first, second) for connection in relay.connections)
    weir.wait_log(event="transaction", outcome="unknown" if step == "last" else "failed")


@pytest.mark.scorecard(49, "loss after the end of data: 451, one backend saw it, logged unknown")
@losses
def test_loss_after_the_end_of_data(start, relays, loss):
    weir, first, second = pair(start, relays)
    first.on("end", LOSSES[loss], times=1)
    with weir.client() as client:
        client.ehlo().envelope(sender="once@x")
        reply = client.data(b"x\r\n")
        assert (reply.code, reply.enhanced) == (451, "4.4.2")
        client.message(sender="next@x")
        client.quit()
    seen = [one for relay in (first, second) for one in relay.transactions() if one.ended and one.mail == b"once@x"]
    assert len(seen) == 1
    line = weir.wait_log(event="transaction", outcome="unknown")
    assert line["from"] == "<once@x>" and line["backend"] == "r1"
    weir.wait_metric(1, "weir_transactions_total", outcome="unknown", backend="r1")


@pytest.mark.scorecard(49, "loss after the end of data: 451, one backend saw it, logged unknown")
def test_half_a_final_reply(start, relays):
    """250 without its end of line is no 250."""
    weir, first, second = pair(start, relays)
    first.on("end", [b"250 2.0.0 Ok", DROP], times=1)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 451]
    weir.wait_log(event="transaction", outcome="unknown")
    assert not second.committed()


@pytest.mark.scorecard(50, "all backends down: 4xx in time; recovery without a restart")
def test_all_down_and_back(start, relays):
    first, second = relays(2)
    weir = start([first, second], pool={"connect-timeout": "1s", "queue-timeout": "1s"})
    weir.deliver()
    with weir.client() as kept:
        kept.ehlo()
        first.stop()
        second.stop()
        wait_until(lambda: weir.metric("weir_backend_up") == 0, 5, "both are down")
        assert weir.http("/readyz")[0] == 503 and weir.http("/healthz")[0] == 200
        began = time.monotonic()
        with weir.client() as client:
            reply = client.ehlo().command("MAIL FROM:<a@x>")
            assert (reply.code, reply.enhanced) == (421, "4.3.2")
            assert client.replies() == []
        assert time.monotonic() - began < 15
        first.start()
        wait_until(lambda: weir.metric("weir_backend_up", backend="r1") == 1, 5, "the first is up again")
        kept.message()
    assert weir.http("/readyz")[0] == 200


@pytest.mark.scorecard(50, "all backends down: 4xx in time; recovery without a restart")
def test_all_refuse_before_the_checks_know(start, relays):
    weir, first, second = pair(start, relays, pool={"queue-timeout": "1s", "health": dict(SLOW_CHECKS["health"], interval="2s")})
    first.stop()
    second.stop()
    began = time.monotonic()
    with weir.client() as client:
        assert client.ehlo().command("MAIL FROM:<a@x>").code in (421, 451)
    assert time.monotonic() - began < 15


@pytest.mark.scorecard(50, "all backends down: 4xx in time; recovery without a restart")
def test_rise_and_fall(start, relay):
    weir = start([relay], pool={"health": {"fall": 3, "rise": 3, "interval": "200ms", "fast-interval": "200ms"}})
    relay.stop()
    wait_until(lambda: weir.metric("weir_backend_up") == 0, 5, "down")
    before = len(relay.connections)
    relay.start()
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "up")
    assert len(relay.connections) - before >= 3, "up before `rise` checks had passed"


@pytest.mark.scorecard(51, "kill -9 of a backend under load: every 250'd message is there")
def test_kill_under_load():
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "demo", "demo.py"), "--messages", "2000", "--clients", "40", BINARY],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_backend_that_goes_down_releases_its_sessions(start, relays):
    """Before the end of data they hear 451 at once; one that waits for the final reply waits."""
    first, second = relays(2)
    weir = start({"r1": first, "r2": {"address": second, "priority": 1}})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    with weir.client() as client, weir.client() as waiting:
        client.ehlo().envelope()
        released = threading.Event()
        first.on("end", lambda *_: released.wait(30) and None, times=1)
        waiting.ehlo().envelope().ok("DATA", 354)
        waiting.send(b"x\r\n.\r\n")
        first.wait("end")
        first.on("banner", b"554 5.3.2 going down\r\n")
        wait_until(lambda: weir.metric("weir_backend_up", backend="r1") == 0, 5, "r1 is down")
        reply = client.command("RCPT TO:<more@x>")
        assert reply.code in (250, 451)
        if reply.code == 451:
            client.ok("RSET")
            client.message()
        assert waiting.silent(0.1)
        released.set()
        waiting.expect(250)


def test_an_idle_backend_connection_that_ends_is_no_failure(start, relays):
    """Between two messages the relay hangs up (Postfix under stress does): the next MAIL gets a fresh connection."""
    weir, first, second = pair(start, relays)
    with weir.client() as client:
        client.ehlo().message()
        first.traffic()[0].sock.shutdown(2)
        wait_until(lambda: not first.traffic()[0].open, 5, "the first connection ended")
        client.message()
        client.quit()
    assert len(first.committed() + second.committed()) == 2
    assert weir.metric("weir_backend_up", backend="r1") == 1


def test_many_sessions_through_a_flapping_relay(start, relays):
    """Each client hears 250 once for a message or may try again; none hears 5xx or a cut connection."""
    first, second = relays(2)
    weir = start([first, second])
    ended, trouble = threading.Event(), []

    def send(number):
        for message in range(15):
            while True:
                try:
                    with weir.client() as client:
                        codes = send_commands(client.ehlo())
                except Closed:
                    trouble.append("cut")
                    return
                if codes[-1] == 250:
                    break
                if codes[-1] // 100 != 4:
                    trouble.append(codes)
                    return
    senders = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(8)]
    for sender in senders:
        sender.start()
    for _ in range(3):
        ended.wait(0.15)
        first.stop()
        ended.wait(0.15)
        first.start()
    for sender in senders:
        sender.join(30)
    assert not trouble, trouble
    assert len(first.committed() + second.committed()) >= 8 * 15
