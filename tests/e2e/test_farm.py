"""A farm in trouble, seen as a whole: a relay killed under many sessions, one that flaps, all that go and come back at once."""

import threading

import pytest
from weirtest.net import wait_until
from weirtest.relay import DROP, STALL, Delay

SESSIONS = 200


def attempts_beyond_the_first(weir):
    return sum(int(line["attempts"]) - 1 for line in weir.find_log(event="transaction"))


def test_a_relay_killed_under_200_sessions(start, relays):
    """Only who was in the middle of a transaction there hears 451; nobody is sent there once one attempt has failed."""
    a, b, c = relays(3)
    weir = start([a, b, c], pool={"slow-start": "1s", "health": {"interval": "60s", "fast-interval": "300ms", "fall": 1, "rise": 2}})
    wait_until(lambda: weir.metric("weir_backend_up") == 3, 5, "all are up")
    idle, open_ones, fresh = [], [], []
    try:
        for number in range(SESSIONS):
            client = weir.client(timeout=30)
            client.ehlo()
            if number % 2:
                client.message()
                idle.append(client)
            elif number % 4:
                client.envelope()
                open_ones.append(client)
            else:
                fresh.append(client)
        caught = len([one for one in a.open_now() if one.traffic and one.transactions and not one.transactions[-1].ended])
        assert 0 < caught < len(open_ones), "the dead relay has some of the open transactions"
        a.stop()
        attempted = len(a.connections)
        # Idle sessions and those that have asked for nothing yet notice nothing.
        for client in idle + fresh:
            client.message()
        # Of the open ones, just those of the dead relay hear 451 (their replies were passed on), and go on afterwards.
        lost = 0
        for client in open_ones:
            reply = client.command("DATA")
            assert reply.code in (354, 451), reply
            if reply.code == 354:
                client.send(b"x\r\n.\r\n")
                client.expect(250)
                continue
            lost += 1
            client.ok("RSET")
            client.message()
        assert lost == caught
        assert attempts_beyond_the_first(weir) <= 1, "one attempt failed, and then nobody was sent there"
        weir.wait_log(event="backend-state", backend="r1", to="down")
        a.start()
        weir.wait_log(event="backend-state", backend="r1", **{"from": "down", "to": "up"})
        checks = len(a.connections) - attempted
        assert checks == 2, "`rise` checks brought it back, not %d" % checks
        for client in idle + fresh + open_ones:
            client.quit()
    finally:
        for client in idle + fresh + open_ones:
            client.close()
    # It gets mail again, and in the end its share.
    wait_until(lambda: weir.metric("weir_backend_weight", backend="r1") == 1, 10, "slow start is over")
    before = len(a.committed())
    for _ in range(50):  # by lot, where they are alike: it may miss a few
        weir.deliver()
    assert len(a.committed()) > before


def crowd_of(weir, relay, count):
    """So many clients whose MAIL waits for the banner of a relay that says none."""
    relay.on("banner", STALL)
    clients = [weir.client(timeout=30).ehlo() for _ in range(count)]
    for client in clients:
        client.send(b"MAIL FROM:<from@client.test>\r\n")
    wait_until(lambda: len(relay.open_now()) >= count, 10, lambda: "%d wait for its banner" % len(relay.open_now()))
    return clients


def codes_of(clients):
    """What each hears at last, all of them at once."""
    heard = []

    def finish(client):
        code = client.reply().code
        if code == 250:
            client.ok("RCPT TO:<to@relay.test>")
            code = client.data(b"x\r\n").code
            client.quit()
        heard.append(code)
    threads = [threading.Thread(target=finish, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(heard) == len(clients)
    return heard


@pytest.mark.parametrize("room", [0, 4])
def test_a_crowd_at_a_relay_that_goes(start, relays, room):
    """All are sent elsewhere, though only a few may be at a time, and where they go to may be full: nobody hears of it."""
    a, b = relays(2)
    weir = start({"a": {"address": a, "weight": 1000}, "b": {"address": b, "max-connections": room}},
                 pool={"queue-timeout": "20s", "connect-timeout": "20s"})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    clients = crowd_of(weir, a, 40)
    a.stop()
    assert set(codes_of(clients)) == {250}
    assert len(b.committed()) == 40 and not weir.find_log(outcome="failed")
    assert not room or b.max_concurrent() <= room


def test_a_line_of_retries(start, relays):
    """Who waits for another to have done may leave, and is refused when it takes too long; and no turn is lost by that."""
    a, b = relays(2)
    weir = start({"a": {"address": a, "weight": 1000}, "b": b}, pool={"queue-timeout": "3s", "connect-timeout": "20s"})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    clients = crowd_of(weir, a, 40)
    b.on("banner", Delay(6))
    a.stop()
    wait_until(lambda: len(b.open_now()) >= 8, 5, "a fifth of them may try another")
    for client in clients[::4]:
        client.close()
    heard = codes_of([client for number, client in enumerate(clients) if number % 4])
    assert set(heard) == {250, 421} and heard.count(250) <= 8, heard
    # Each has asked twice, and who stood in line in vain is among them.
    weir.wait_metric(80, "weir_queue_wait_seconds_count")
    assert weir.metric("weir_queue_wait_seconds_sum") > 0.9 * heard.count(421)
    assert weir.metric("weir_queue_refused_total", reason="timeout") == heard.count(421)
    for relay in (a, b):
        relay.behave()
    a.start()
    weir.wait_log(10, 2, event="backend-state", backend="a", to="up")
    # A check of the other one may still wait for its banner, and put it out for a moment when it has waited for too long.
    wait_until(lambda: not b.open_now(), 10, "that is over")
    weir.wait_metric(2, "weir_backend_up")
    clients = crowd_of(weir, a, 12)
    a.stop()
    assert codes_of(clients) == [250] * 12


def test_the_line_of_retries_is_seen(start, relays):
    """The time until its turn came is in the same figures as that in the queue."""
    a, b = relays(2)
    weir = start({"a": {"address": a, "weight": 1000}, "b": b}, pool={"queue-timeout": "30s", "connect-timeout": "10s"})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    clients = crowd_of(weir, a, 20)
    b.on("banner", Delay(0.2))
    a.stop()
    assert set(codes_of(clients)) == {250}
    # Four at a time at most, so the last waited for four others.
    assert weir.metric("weir_queue_wait_seconds_count") == 40
    assert weir.metric("weir_queue_wait_seconds_sum") > 0.7
    assert max(int(line["queue_ms"]) for line in weir.find_log(outcome="delivered")) > 700


def test_a_whole_farm_down_and_back_at_once(start, relays):
    """The first to come back is not run over: caps hold, and nobody waits in vain."""
    farm = relays(3)
    weir = start({"r%d" % n: {"address": relay, "max-connections": 6} for n, relay in enumerate(farm)},
                 pool={"queue-timeout": "20s", "slow-start": "1s", "health": {"interval": "500ms", "fast-interval": "100ms", "fall": 1, "rise": 2}})
    for relay in farm:
        relay.stop()
    wait_until(lambda: weir.metric("weir_backend_up") == 0, 5, "all are down")
    with weir.client() as client:
        assert client.ehlo().command("MAIL FROM:<a@x>").code == 421
    codes, lock, begin = [], threading.Lock(), threading.Event()

    def send():
        begin.wait(20)
        with weir.client(timeout=30) as client:
            reply = client.ehlo().command("MAIL FROM:<a@x>")
            if reply.code == 250:
                client.ok("RCPT TO:<b@x>")
                client.ok("DATA", 354)
                client.send(b"x\r\n.\r\n")
                reply = client.reply()
                client.quit()
            with lock:
                codes.append(reply.code)
    senders = [threading.Thread(target=send, daemon=True) for _ in range(60)]
    for sender in senders:
        sender.start()
    for relay in farm:
        relay.start()
    wait_until(lambda: weir.metric("weir_backend_up") >= 1, 5, "the first is back")
    begin.set()
    for sender in senders:
        sender.join(40)
    assert codes == [250] * 60, codes
    assert all(relay.max_concurrent() <= 6 for relay in farm), [relay.max_concurrent() for relay in farm]
    wait_until(lambda: weir.metric("weir_backend_up") == 3, 5, "all are back")


@pytest.mark.parametrize("answer", [b"garbage\r\n", b"421 4.3.2 Too busy\r\n", DROP])
def test_a_relay_that_fails_fast(start, relays, answer):
    """It greets all and fails at every MAIL, so it always has the fewest connections; and it loses its traffic within a few sessions."""
    good, bad = relays(2)
    bad.on("mail", answer)
    weir = start({"good": good, "bad": bad}, pool={"health": {"interval": "200ms", "fast-interval": "100ms"}})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    for _ in range(40):
        weir.deliver()
        assert weir.ctl("status")[0] == 0  # the control thread has seen it
    weir.wait_log(event="backend-state", backend="bad", to="ejected")
    assert len(weir.find_log(event="backend-state", backend="bad")) == 2, "up, and ejected"
    assert len(good.committed()) == 40
    # Three failures in a row. All 40 would begin there.
    assert 3 <= len(bad.traffic()) <= 10


def test_a_relay_that_comes_and_goes_floods_no_log(start, relays):
    """One line a change; and from the third time on it is left alone for a while, however well its checks go."""
    good, flapper = relays(2)
    weir = start({"good": good, "flapper": flapper}, pool={"health": {"interval": "200ms", "fast-interval": "50ms", "fall": 1, "rise": 1}})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    for flap in range(1, 4):
        flapper.stop()
        weir.deliver()
        wait_until(lambda: weir.metric("weir_backend_up", backend="flapper") == 0, 5, "down")
        flapper.start()
        if flap < 3:
            wait_until(lambda: weir.metric("weir_backend_up", backend="flapper") == 1, 5, "up")
    checks = len(flapper.connections)
    wait_until(lambda: len(flapper.connections) > checks + 3, 5, "checks go well")
    assert weir.metric("weir_backend_up", backend="flapper") == 0
    weir.wait_log(event="backend-state", backend="flapper", times=6)
    lines = weir.find_log(event="backend-state", backend="flapper")
    assert [line["to"] for line in lines] == ["up", "down", "up", "down", "up", "down"]
    assert len(good.committed()) + len(flapper.committed()) == 3
