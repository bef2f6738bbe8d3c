"""Who gets what: weights, caps, the wait queue, tiers, and one backend a session."""

import threading
import time

import pytest
from weirtest.client import Client
from weirtest.net import free_port, wait_until
from weirtest.relay import Delay
from weirtest.weir import HEALTH


def all_up(weir, count):
    wait_until(lambda: weir.metric("weir_backend_up") == count, 5, "%d backends are up" % count)


def hold(weir, count):
    """So many sessions with an open transaction each."""
    clients = []
    for _ in range(count):
        clients.append(weir.client().ehlo())
        clients[-1].envelope()
    return clients


def release(clients):
    for client in clients:
        assert client.data(b"x\r\n").code == 250
        client.quit()


def test_weighted_least_connections(start, relays):
    """28 held sessions over weights 4, 2 and 1: (own+1)/weight, smallest first, comes to 16, 8 and 4 whatever the ties."""
    three = relays(3)
    weir = start({"a": {"address": three[0], "weight": 4}, "b": {"address": three[1], "weight": 2}, "c": {"address": three[2]}})
    all_up(weir, 3)
    clients = hold(weir, 28)
    assert [weir.metric("weir_backend_connections", backend=name) for name in "abc"] == [16, 8, 4]
    assert [len(one.traffic()) for one in three] == [16, 8, 4]
    release(clients)


@pytest.mark.parametrize("algorithm", ["round-robin", "random", "p2c", "peak-ewma", "hash"])
def test_other_algorithms_deliver_and_spread(start, relays, algorithm):
    two = relays(2)
    weir = start(two, pool={"algorithm": algorithm})
    all_up(weir, 2)
    clients = []
    for number in range(40):
        clients.append(weir.client(source="127.0.1.%d" % (number + 1)).ehlo())
        clients[-1].envelope(sender="%d@x" % number)
    counts = [len(one.traffic()) for one in two]
    # How quick each was just then is what peak-ewma goes by. By lot, one of them gets three or fewer once in 50 million times.
    assert sum(counts) == 40 and min(counts) >= {"peak-ewma": 1, "random": 4}.get(algorithm, 8), counts
    if algorithm == "round-robin":
        assert counts == [20, 20]
    release(clients)


def test_hash_keeps_a_client_with_its_backend(start, relays):
    two = relays(2)
    weir = start(two, pool={"algorithm": "hash"})
    all_up(weir, 2)
    for _ in range(12):
        weir.deliver()
        # Two that have not been counted out yet are a load that it may go round (1.25 times the mean).
        wait_until(lambda: all(weir.metric("weir_backend_connections", backend=name) == 0 for name in ("r1", "r2")))
    assert sorted(len(one.committed()) for one in two) == [0, 12]


def test_hash_goes_by_whom_xclient_names(start, relays):
    """Now this one, now that one in one session: each has the backend that it has in a session of its own."""
    three = relays(3)
    weir = start(three, pool={"algorithm": "hash"}, listener={"xclient-from": ["127.0.0.1"], "allow-from": ["127.0.0.0/8", "10.0.0.0/8"]})
    all_up(weir, 3)

    def sends(client, address):
        """The backend that it is given."""
        client.ok("XCLIENT ADDR=%s" % address, 220)
        weir.wait_metric(0, "weir_backend_connections")  # a load that it may go round
        before = [len(one.committed()) for one in three]
        client.ehlo().message()
        return [len(one.committed()) - had for one, had in zip(three, before)].index(1)
    addresses = ["10.0.0.%d" % number for number in range(1, 13)]
    alone = []
    for address in addresses:
        with weir.client() as client:
            alone.append(sends(client.ehlo(), address))
            client.quit()
    with weir.client() as client:
        client.ehlo()
        assert [sends(client, address) for address in addresses] == alone
        client.quit()
    assert len(set(alone)) > 1


def test_weight_zero_gets_nothing(start, relays):
    two = relays(2)
    weir = start({"r1": two[0], "r2": {"address": two[1], "weight": 0}})
    all_up(weir, 2)
    for _ in range(6):
        weir.deliver()
    assert len(two[0].committed()) == 6


@pytest.mark.parametrize("workers", [1, 4])
def test_the_cap_is_exact(start, relay, workers):
    """40 clients at once against a cap of 5: never more than five connections, and everyone is served."""
    weir = start({"r1": {"address": relay, "max-connections": 5}}, pool={"queue-timeout": "20s"}, top={"workers": workers})
    relay.on("end", Delay(0.02))
    failures = []

    def send(number):
        try:
            for message in range(3):
                with weir.client(timeout=30) as client:
                    client.ehlo().message(sender="%d-%d@x" % (number, message))
                    client.quit()
        except AssertionError as error:
            failures.append(error)
    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(40)]
    for thread in threads:
        thread.start()
    highest = 0
    while any(thread.is_alive() for thread in threads):
        highest = max(highest, weir.metric("weir_backend_connections", backend="r1"))
        time.sleep(0.01)
    assert not failures, failures[0]
    assert len({one.mail for one in relay.committed()}) == 120
    assert relay.max_concurrent() == 5 and highest <= 5
    assert weir.metric("weir_backend_limit", backend="r1") == 5


def test_queue(start, relay):
    """One place, two in the queue, no third; the places are handed on in order; waiting ends at queue-timeout."""
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-size": 2, "queue-timeout": "5s"})
    holder = hold(weir, 1)[0]
    waiting = []
    for number in range(2):
        client = weir.client().ehlo()
        client.send(b"MAIL FROM:<%d@x>\r\n" % number)
        waiting.append(client)
        weir.wait_metric(number + 1, "weir_queue_waiting", pool="relays")
    with weir.client() as client:
        reply = client.ehlo().command("MAIL FROM:<late@x>")
        assert (reply.code, reply.enhanced) == (421, "4.3.2"), "the queue is full"
    release([holder])
    waiting[0].expect(250)
    assert waiting[1].silent(0.1)
    reply = waiting[1].reply()
    assert (reply.code, reply.enhanced) == (421, "4.3.2")
    assert waiting[1].replies() == []
    waiting[0].ok("RCPT TO:<b@x>")
    release(waiting[:1])
    assert relay.max_concurrent() == 1
    weir.wait_log(event="transaction", outcome="failed", times=2)


def test_a_client_that_leaves_the_queue(start, relay):
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "30s"})
    holder = hold(weir, 1)[0]
    gone = weir.client().ehlo()
    gone.send(b"MAIL FROM:<gone@x>\r\n")
    weir.wait_metric(1, "weir_queue_waiting")
    gone.abort()
    weir.wait_metric(0, "weir_queue_waiting")
    stays = weir.client().ehlo()
    stays.send(b"MAIL FROM:<stays@x>\r\nRCPT TO:<b@x>\r\n")
    weir.wait_metric(1, "weir_queue_waiting")
    release([holder])
    stays.expect(250)
    stays.expect(250)
    release([stays])
    assert [one.mail for one in relay.committed()] == [b"from@client.test", b"stays@x"]


def test_a_mail_before_the_first_check_waits(start, relay):
    """A MAIL that comes while every backend is still unknown waits in the queue, and is not refused."""
    relay.on("banner", Delay(0.5))
    weir = start([relay], wait="alive", pool={"queue-timeout": "8s"})
    with weir.client() as client:
        client.ehlo().message()


def test_tiers(start, relays):
    """A lower tier is used only while the one above has no usable backend."""
    first, second = relays(2)
    weir = start({"r1": first, "r2": {"address": second, "priority": 1}})
    all_up(weir, 2)
    for _ in range(5):
        weir.deliver()
    assert (len(first.committed()), len(second.committed())) == (5, 0)
    first.stop()
    all_up(weir, 1)
    weir.deliver()
    assert len(second.committed()) == 1
    first.start()
    all_up(weir, 2)
    weir.deliver()
    assert (len(first.committed()), len(second.committed())) == (6, 1)


def test_a_session_stays_with_its_backend(start, relays):
    """Mode session: several transactions, one backend, one connection."""
    two = relays(2)
    weir = start(two)
    all_up(weir, 2)
    with weir.client() as client:
        client.ehlo()
        for number in range(6):
            client.message(sender="%d@x" % number)
        client.quit()
    busy = [one for one in two if one.traffic()]
    assert len(busy) == 1 and len(busy[0].traffic()) == 1
    assert [one.mail for one in busy[0].committed()] == [b"%d@x" % number for number in range(6)]
    wait_until(lambda: busy[0].traffic()[0].lines[-1] == b"QUIT", 5, "the backend was told QUIT")


def test_an_idle_client_costs_no_backend_anything(start, relay):
    weir = start([relay], pool={"health": dict(HEALTH, **{"interval": "60s", "fast-interval": "60s"})})
    before = len(relay.connections)
    clients = [weir.client() for _ in range(10)]
    for client in clients:
        client.ehlo()
        client.ok("NOOP")
        client.ok("RSET")
        client.ok("VRFY someone", 252)
    weir.wait_metric(10, "weir_sessions_active")
    assert len(relay.connections) == before
    assert weir.metric("weir_backend_connections") == 0
    for client in clients:
        client.quit()


def test_slow_start(start, relays):
    """After a failure, and not at Weir's own start, a backend's share grows with time."""
    first, second = relays(2)
    weir = start([first, second], pool={"slow-start": "30s"})
    all_up(weir, 2)
    release(hold(weir, 20))
    assert len(first.traffic()) == len(second.traffic()) == 10
    first.stop()
    all_up(weir, 1)
    first.start()
    all_up(weir, 2)
    before = len(first.traffic())
    release(hold(weir, 20))
    assert len(first.traffic()) - before <= 6


def test_a_backend_in_two_pools_is_one(start, relay):
    other = free_port()
    weir = start({"r1": {"address": relay, "max-connections": 2}}, top={
        "listeners": {"second": {"address": ["127.0.0.1:%d" % other], "pool": "others"}},
        # By name alone: the one written with its address is the same object.
        "pools": {"others": {"queue-timeout": "300ms", "backends": {"r1": {}}}}}, start=False)
    weir.config["pools"]["others"]["backends"]["r1"] = None
    weir.write()
    weir.start()
    clients = hold(weir, 2)
    with Client(("127.0.0.1", other)) as client:
        assert client.ehlo().command("MAIL FROM:<a@x>").code == 421
    release(clients)
    assert relay.max_concurrent() == 2


def test_a_client_with_nothing_to_say_holds_no_place(start, relay):
    """A relay that never answers QUIT keeps its place for a moment, not for as long as it likes."""
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "8s"})
    relay.on("quit", Delay(30), times=1)
    weir.deliver()
    weir.deliver()


def test_metrics_count_what_happened(start, relay):
    weir = start([relay])
    sessions = weir.metric("weir_sessions_total")
    for _ in range(3):
        weir.deliver()
    weir.wait_metric(sessions + 3, "weir_sessions_total")
    assert weir.metric("weir_transactions_total", pool="relays", backend="r1", outcome="delivered") == 3
    assert weir.metric("weir_backend_up", pool="relays", backend="r1") == 1
    assert weir.metric("weir_log_dropped_total") == 0
    assert weir.metric("weir_bytes_total") > 0
