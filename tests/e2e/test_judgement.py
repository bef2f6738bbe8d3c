"""What traffic tells of a relay: failed sessions, answers that say "not now", and what to do when too little is left."""

import threading

import pytest
from test_backends import send_commands
from weirtest.net import wait_until
from weirtest.relay import DROP, Delay

# Checks find all well, and don't come in between.
CHECKED = {"health": {"interval": "1h", "fast-interval": "200ms", "rise": 1}}


def up(weir, count):
    wait_until(lambda: weir.metric("weir_backend_up") == count, 5, "all are up")
    weir.wait_log(event="backend-state", to="up", times=count)
    return weir


def session(weir):
    """One message; whatever is said to it."""
    with weir.client() as client:
        try:
            codes = send_commands(client.ehlo())
            client.quit()
        except (AssertionError, OSError):
            codes = []
    return codes


def state_lines(weir, backend):
    return [(line["from"], line["to"]) for line in weir.find_log(event="backend-state", backend=backend)]


@pytest.mark.parametrize("step,answer", [("mail", b"451 4.3.1 No room now\r\n"), ("data", b"452 No room now\r\n"), ("end", b"451 4.3.2 Going down\r\n")])
def test_not_now_degrades(start, relays, step, answer):
    first, second = relays(2)
    weir = up(start({"r1": {"address": first, "weight": 4}, "r2": {"address": second, "weight": 4}}, pool=CHECKED), 2)
    first.on(step, answer)
    for _ in range(120):
        session(weir)
        if ("up", "degraded") in state_lines(weir, "r1"):
            break
    weir.wait_log(event="backend-state", backend="r1", **{"from": "up", "to": "degraded"})
    assert state_lines(weir, "r2") == [("init", "up")]
    states = {labels["backend"]: value for name, labels, value in weir.metrics()
              if name == "weir_backend_state" and labels["state"] == "degraded"}
    assert states == {"r1": 1, "r2": 0}
    # It gets little, and is not cut off.
    before = len(first.traffic()), len(second.traffic())
    for _ in range(30):  # in less than the ten seconds after which it is given more again
        session(weir)
    assert len(first.traffic()) - before[0] < (len(second.traffic()) - before[1]) / 2
    first.behave()
    if step == "mail":  # the way back, which takes ten seconds, is the same for all
        weir.wait_log(event="backend-state", backend="r1", to="up", times=2, timeout=30)


@pytest.mark.parametrize("step,answer", [("mail", b"550 5.7.1 Spam\r\n"), ("rcpt", b"450 4.2.1 Later\r\n"), ("mail", b"451 4.7.1 Greylisted\r\n"),
                                         ("data", b"554 5.6.0 Spam\r\n"), ("end", b"550 5.7.1 Spam\r\n")])
def test_the_message_s_own_fault_is_nobody_s(start, relays, step, answer):
    """One spam run, all of it refused, empties no farm."""
    first, second = relays(2)
    weir = up(start([first, second], pool=CHECKED), 2)
    for relay in (first, second):
        relay.on(step, answer)
    for _ in range(60):
        session(weir)
    assert [state_lines(weir, name) for name in ("r1", "r2")] == [[("init", "up")]] * 2
    for relay in (first, second):
        relay.behave()


@pytest.mark.parametrize("step,answer", [("mail", b"421 4.7.1 Blocked\r\n"), ("rcpt", b"421 4.7.0 Error: too many errors\r\n"),
                                         ("end", b"421 4.7.1 Spam\r\n")])
def test_a_goodbye_because_of_the_client_is_no_load(start, relays, step, answer):
    """A relay that closes on a client for what it did has no less room for others: else one client would take the farm."""
    first, second = relays(2)
    weir = up(start({"r1": {"address": first, "max-connections": 200}, "r2": {"address": second, "max-connections": 200}}, pool=CHECKED), 2)
    for relay in (first, second):
        relay.on(step, answer)
    for _ in range(30):
        session(weir)
    assert not weir.find_log(event="backend-limit")
    assert [state_lines(weir, name) for name in ("r1", "r2")] == [[("init", "up")]] * 2
    assert weir.metric("weir_backend_limit", backend="r1") == 200
    for relay in (first, second):
        relay.on(step, answer.replace(b" 4.7.", b" 4.3.").replace(b" 4.3.0 Error", b" Error"))  # about itself
    session(weir)
    weir.wait_log(event="backend-limit", reason="told")
    for relay in (first, second):
        relay.behave()


def test_a_client_that_sleeps_is_no_load(start, relays):
    """A relay that is tired of waiting for the client's next command (Postfix: 4.4.2) says nothing of itself."""
    relay, = relays(1)
    weir = up(start({"r1": {"address": relay, "max-connections": 200}}, pool=CHECKED), 1)
    relay.on("rcpt", [b"250 2.1.5 Ok\r\n", Delay(0.1, b"421 4.4.2 mx Error: timeout exceeded\r\n"), DROP])
    for _ in range(3):
        with weir.client() as client:
            client.ehlo().ok("MAIL FROM:<a@x>")
            client.ok("RCPT TO:<b@relay.test>")
            weir.wait_metric(0, "weir_backend_connections", backend="r1")
    assert weir.ctl("status")[0] == 0  # the control thread has seen it all
    assert not weir.find_log(event="backend-limit")
    assert state_lines(weir, "r1") == [("init", "up")]


def test_turned_away_for_good(start, relays):
    """A relay that refuses and hangs up (Exim's `drop`) has had enough of this client, and works."""
    first, second = relays(2)
    weir = up(start({"r1": first, "r2": {"address": second, "priority": 1}}, pool=CHECKED), 2)
    first.on("rcpt", [b"550 5.7.1 No more of you\r\n", DROP])
    for _ in range(25):
        with weir.client() as client:
            client.ehlo().ok("MAIL FROM:<a@x>")
            client.ok("RCPT TO:<b@relay.test>", 550)
            weir.wait_metric(0, "weir_backend_connections", backend="r1")
            client.command("RCPT TO:<c@relay.test>")
            client.quit()
    assert weir.ctl("status")[0] == 0  # the control thread has seen it all
    assert state_lines(weir, "r1") == [("init", "up")]
    assert not second.traffic()
    first.on("rcpt", DROP)  # without a word it is a failure
    for _ in range(25):
        session(weir)
    weir.wait_log(event="backend-state", backend="r1", to="ejected")


def test_half_of_the_sessions_fail(start, relays):
    """Never three in a row: every other one is greeted."""
    first, second = relays(2)
    weir = up(start({"r1": first, "r2": {"address": second, "priority": 1}}, pool=CHECKED), 2)
    for number in range(80):
        if number % 2:
            first.on("banner", DROP, times=1)
        assert session(weir)[-1:] == [250], "the other one takes it"
        if ("up", "ejected") in state_lines(weir, "r1"):
            break
    line = weir.wait_log(event="backend-state", backend="r1", to="ejected")
    assert line["reason"] == "half of its sessions failed", line


def test_what_a_fall_left_behind(start, relays):
    """Sessions that wait for a reply which was lost when the relay fell hear of it when it has long been back: that is no news."""
    first, second = relays(2)
    pool = {"health": {"interval": "200ms", "fast-interval": "200ms", "fall": 1, "rise": 1}}
    weir = up(start({"r1": {"address": first, "max-connections": 40}, "r2": {"address": second, "priority": 1}}, pool=pool), 2)
    back = threading.Event()

    def lose(*_):
        back.wait(20)
        return DROP

    first.on("end", lose)
    senders = [threading.Thread(target=session, args=[weir]) for _ in range(25)]
    for sender in senders:
        sender.start()
    first.wait("end", 25, timeout=10)
    first.on("banner", b"554 Going down\r\n")
    weir.wait_log(event="backend-state", backend="r1", to="down")
    first.behave()
    weir.wait_log(event="backend-state", backend="r1", to="up", times=2)
    back.set()
    for sender in senders:
        sender.join()
    weir.wait_log(event="transaction", backend="r1", outcome="unknown", times=25)
    assert weir.ctl("status")[0] == 0  # the control thread has seen it all
    assert state_lines(weir, "r1") == [("init", "up"), ("up", "down"), ("down", "up")]
    assert session(weir)[-1:] == [250]
    assert not weir.find_log(event="backend-limit")


def test_panic_uses_the_ejected(start, relays):
    """Of three the largest is ejected; then another goes down. Less than half is left, and the ejected one works again."""
    relays_ = relays(3)
    weir = up(start({"r1": {"address": relays_[0], "max-connections": 1}, "r2": relays_[1], "r3": relays_[2]},
                    pool={**CHECKED, "queue-timeout": "5s"}), 3)
    relays_[1].on("banner", DROP, times=3)
    for _ in range(80):  # whom each meets is by lot
        session(weir)
        if ("up", "ejected") in state_lines(weir, "r2"):
            break
    weir.wait_log(event="backend-state", backend="r2", to="ejected")
    assert not weir.find_log(event="pool-panic")
    relays_[2].stop()
    for _ in range(40):
        session(weir)
        if ("up", "down") in state_lines(weir, "r3"):
            break
    weir.wait_log(event="backend-state", backend="r3", to="down")
    assert "less than half" in weir.wait_log(event="pool-panic")["message"]
    assert weir.metric("weir_pool_panic") == 1
    before = len(relays_[1].traffic())
    with weir.client() as holder:  # r1 is full
        holder.ehlo().message()
        assert session(weir)[-1:] == [250]
        holder.quit()
    assert len(relays_[1].traffic()) == before + 1
