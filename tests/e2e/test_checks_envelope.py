"""Health checks that begin a transaction: relays that greet everybody and take mail from nobody."""

import pytest
from weirtest.net import wait_until

FAST = {"interval": "200ms", "fast-interval": "100ms", "fall": 2, "rise": 2, "depth": "envelope"}


def started(start, relay, **health):
    weir = start([relay], pool={"health": {**FAST, **health}})
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "it is up")
    return weir


def commands(connection):
    return bytes(connection.received).split(b"\r\n")[:-1]


@pytest.mark.parametrize("health,said", [
    ({}, [b"MAIL FROM:<>", b"RSET", b"QUIT"]),
    ({"sender": "probe@weir.test"}, [b"MAIL FROM:<probe@weir.test>", b"RSET", b"QUIT"]),
    ({"recipient": "postmaster@relay.test"}, [b"MAIL FROM:<>", b"RCPT TO:<postmaster@relay.test>", b"RSET", b"QUIT"])])
def test_a_transaction_that_leaves_no_trace(start, relay, health, said):
    weir = started(start, relay, **health)
    wait_until(lambda: any(commands(one)[1:] == said for one in relay.connections), 5, lambda: [commands(one) for one in relay.connections])
    assert not relay.committed()
    weir.deliver()


@pytest.mark.parametrize("step,answer,reason", [
    ("mail", b"451 4.3.1 Queue file system is full\r\n", "MAIL 451 4.3.1 Queue file system is full"),
    ("mail", b"550 5.7.1 Not you\r\n", "MAIL 550 5.7.1 Not you"), ("rcpt", b"451 4.3.0 No alias map\r\n", "RCPT 451 4.3.0 No alias map")])
def test_what_it_says_takes_it_out(start, relay, step, answer, reason):
    weir = started(start, relay, recipient="postmaster@relay.test")
    relay.on(step, answer)
    line = weir.wait_log(event="backend-state", to="down", timeout=10)
    assert line["reason"] == reason, line
    relay.behave()
    weir.wait_log(event="backend-state", to="up", times=2, timeout=10)
    weir.deliver()


def test_at_depth_ehlo_the_same_relay_stays(start, relay):
    weir = started(start, relay, depth="ehlo")
    relay.on("mail", b"550 5.7.1 Not you\r\n")
    seen = len(relay.connections)
    wait_until(lambda: len(relay.connections) >= seen + 5, 5, "checks go on")
    assert weir.metric("weir_backend_up") == 1 and not weir.find_log(to="down")
    relay.behave()
