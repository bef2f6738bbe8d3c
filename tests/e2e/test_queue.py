"""The wait queue between clients: whose turn it is, who loses a seat, how long one waits. Counts and orders, no seconds."""

import pytest
from weirtest.client import Client
from weirtest.net import free_port, wait_until

BULK = "127.0.0.2"


def light(number):
    """The address of one of many clients."""
    return "127.0.1.%d" % (number + 1)


def holding(weir, count, **where):
    """So many sessions that have a backend."""
    clients = [weir.client(timeout=30, **where).ehlo() for _ in range(count)]
    for number, client in enumerate(clients):
        client.ok("MAIL FROM:<holds%d@x>" % number)
    return clients


def ask(weir, sender, address=None, timeout=30, **where):
    """A session whose MAIL waits: it is in the queue when this returns."""
    waiting = weir.metric("weir_queue_waiting")
    client = Client(address or weir.address, timeout=timeout, **where).ehlo()
    client.send(b"MAIL FROM:<%s@x>\r\n" % sender.encode())
    weir.wait_metric(waiting + 1, "weir_queue_waiting")
    return client


def refused(client):
    reply = client.reply()
    assert (reply.code, reply.enhanced) == (421, "4.3.2")


def finds_no_seat(weir, **where):
    with weir.client(**where) as client:
        client.ehlo().send(b"MAIL FROM:<late@x>\r\n")
        refused(client)


def served(relay):
    """The senders in the order in which they got a connection."""
    return [one.mail.decode().partition("@")[0] for one in relay.transactions()]


def queue_refusals(weir):
    return {reason: weir.metric("weir_queue_refused_total", pool="relays", reason=reason)
            for reason in ("full", "timeout", "displaced")}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_bulk_client_beside_twenty(start, relay, workers):
    """200 sessions of one client, 20 clients with one each, 40 places: of the next 21 places the bulk client gets its one."""
    weir = start({"r1": {"address": relay, "max-connections": 40}}, pool={"queue-timeout": "50s"}, top={"workers": workers})
    holders = holding(weir, 40, source=BULK)
    bulk = [weir.client(source=BULK, timeout=30).ehlo() for _ in range(160)]
    for client in bulk:
        client.send(b"MAIL FROM:<bulk@x>\r\n")
    weir.wait_metric(160, "weir_queue_waiting")
    twenty = [ask(weir, "light%d" % number, source=light(number)) for number in range(20)]
    for client in holders[:21]:
        client.quit()
    for client in twenty:
        client.expect(250)
    wait_until(lambda: len(served(relay)) == 61, 10, "21 places were handed on")
    assert served(relay)[40:].count("bulk") == 1
    assert weir.metric("weir_queue_waiting") == 159
    for client in holders[21:] + twenty:
        client.quit()
    wait_until(lambda: served(relay).count("bulk") == 40, 20, "then all places are the bulk client's")
    assert queue_refusals(weir) == {"full": 0, "timeout": 0, "displaced": 0}
    assert relay.max_concurrent() == 40
    for client in bulk:
        client.abort()


def test_clients_take_turns(start, relay):
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "50s"}, top={"workers": 1})
    turn = holding(weir, 1)[0]
    waiting = {name + str(number): ask(weir, name + str(number), source=light(ord(name)))
               for name, count in (("a", 3), ("b", 1), ("c", 2)) for number in range(count)}
    order = ["a0", "b0", "c0", "a1", "c1", "a2"]
    for name in order:
        turn.quit()
        turn = waiting[name]
        turn.expect(250)
    turn.quit()
    assert served(relay)[1:] == order


def test_one_user_is_one_client(start, relay):
    """Many may sit behind one address, and say who they are by a balancer in front: each is a client of its own."""
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "50s"},
                 listener={"xclient-from": ["127.0.0.1"]}, top={"workers": 1})
    holder = holding(weir, 1)[0]
    waiting = []
    for number, user in enumerate(["ann", "ann", "bob"]):
        client = weir.client(timeout=30).ehlo()
        client.ok("XCLIENT LOGIN=%s" % user, 220)
        client.ehlo().send(b"MAIL FROM:<%s%d@x>\r\n" % (user.encode(), number))
        weir.wait_metric(number + 1, "weir_queue_waiting")
        waiting.append(client)
    holder.quit()
    for index in (0, 2, 1):
        waiting[index].expect(250)
        waiting[index].quit()
    assert served(relay)[1:] == ["ann0", "bob2", "ann1"]


def second_listener(priority):
    port = free_port()
    return ("127.0.0.1", port), {"urgent": {"address": ["127.0.0.1:%d" % port], "pool": "relays", "priority": priority}}


def test_a_listener_with_priority_goes_first(start, relay):
    """Bulk mail waits from before and fills the queue, and the others don't notice."""
    urgent, listeners = second_listener(10)
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "50s", "queue-size": 6},
                 top={"workers": 1, "listeners": listeners})
    turn = holding(weir, 1, source=BULK)[0]
    bulk = [ask(weir, "bulk%d" % number, source=light(number)) for number in range(6)]
    for number in range(8):
        client = Client(urgent, timeout=30).ehlo()
        client.send(b"MAIL FROM:<urgent%d@x>\r\n" % number)
        if number == 0:
            refused(bulk[5])  # it was full; whose turn comes last gives way
        turn.quit()
        client.expect(250)
        turn = client
    turn.quit()
    for client in bulk[:5]:
        client.expect(250)
        client.quit()
    assert served(relay)[1:] == ["urgent%d" % number for number in range(8)] + ["bulk%d" % number for number in range(5)]
    assert queue_refusals(weir) == {"full": 0, "timeout": 0, "displaced": 1}


def test_a_full_queue_takes_from_the_largest(start, relay):
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "50s", "queue-size": 4})
    holder = holding(weir, 1)[0]
    bulk = [ask(weir, "bulk%d" % number, source=BULK) for number in range(4)]
    finds_no_seat(weir, source=BULK)
    others = []
    for number in range(2):
        client = weir.client(source=light(number), timeout=30).ehlo()
        client.send(b"MAIL FROM:<light%d@x>\r\n" % number)
        refused(bulk.pop())  # its youngest
        others.append(client)
    assert weir.metric("weir_queue_waiting") == 4
    assert queue_refusals(weir) == {"full": 1, "timeout": 0, "displaced": 2}
    weir.wait_log(event="transaction", outcome="failed", times=3)
    holder.quit()
    for client in (bulk[0], others[0], others[1], bulk[1]):
        client.expect(250)
        client.quit()


def test_a_client_over_its_share_waits(start, relay):
    """Half of four places while others wait; what nobody else can use it has all the same."""
    weir = start({"r1": {"address": relay, "max-connections": 4}}, top={"workers": 1},
                 pool={"queue-timeout": "50s", "max-share-per-client": "50%"})
    holders = holding(weir, 4, source=BULK)
    bulk = [ask(weir, "bulk%d" % number, source=BULK) for number in range(3)]
    others = [ask(weir, "light%d" % number, source=light(0)) for number in range(3)]
    for client in holders[:2]:
        client.quit()
    others[0].expect(250)
    others[1].expect(250)  # two and two
    holders[2].quit()
    bulk[0].expect(250)
    others[0].quit()
    others[2].expect(250)
    others[1].quit()
    bulk[1].expect(250)  # nobody else waits
    others[2].quit()
    bulk[2].expect(250)
    for client in holders[3:] + bulk:
        client.quit()
    assert served(relay)[4:] == ["light0", "light1", "bulk0", "light2", "bulk1", "bulk2"]


def test_a_share_that_a_reload_brings(start, relay):
    """Places that were had before are not counted, and given back no oftener than they were counted."""
    weir = start({"r1": {"address": relay, "max-connections": 2}}, top={"workers": 1}, pool={"queue-timeout": "50s"})
    before = holding(weir, 2, source=BULK)
    weir.reload(lambda config: config["pools"]["relays"].update({"max-share-per-client": "50%"}))
    weir.wait_log(event="reload")
    before.pop().quit()
    wait_until(lambda: weir.metric("weir_backend_connections") == 1, 5, "a place is free")
    after = holding(weir, 1, source=BULK)
    bulk = [ask(weir, "bulk%d" % number, source=BULK) for number in range(2)]
    other = ask(weir, "light", source=light(0))
    before.pop().quit()
    other.expect(250)
    weir.reload(lambda config: config["pools"]["relays"].pop("max-share-per-client"))
    weir.wait_log(event="reload", times=2)
    for client in [after[0], other] + bulk:
        if client in bulk:
            client.expect(250)
        client.quit()
    assert served(relay)[3:] == ["light", "bulk0", "bulk1"]


def test_newcomers_hurry_while_nobody_is_served(start, relay):
    """A relay that has stopped: who comes after a while is not kept for the whole queue-timeout. Who was there before waits on."""
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "55s"})
    holder = holding(weir, 1)[0]
    first = ask(weir, "first")
    later = []

    def somebody_gave_up():
        # How many wait is not awaited: who came before may give up just now.
        later.append(weir.client(timeout=30, source=light(len(later))).ehlo())
        later[-1].send(b"MAIL FROM:<later@x>\r\n")
        return queue_refusals(weir)["timeout"] > 0
    wait_until(somebody_gave_up, 30, "a newcomer hears 421", 0.5)
    assert first.silent(0.1)
    holder.quit()
    first.expect(250)
    first.quit()
    for client in later:
        client.abort()


def test_who_waits_in_vain_is_counted(start, relay):
    """Until the client is gone, or the time is up: the histogram and the log have both."""
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "1s"})
    holder = holding(weir, 1)[0]
    ask(weir, "gone").abort()
    line = weir.wait_log(event="transaction", outcome="aborted")
    assert int(line["queue_ms"]) > 0
    weir.wait_metric(2, "weir_queue_wait_seconds_count")
    refused(ask(weir, "late"))
    line = weir.wait_log(event="transaction", outcome="failed")
    assert int(line["queue_ms"]) > 900
    weir.wait_metric(3, "weir_queue_wait_seconds_count")
    assert weir.metric("weir_queue_wait_seconds_sum") > 0.9
    holder.quit()


def test_nobody_waits_for_what_is_drained(start, relays):
    """Weights of 0: nothing is usable, so 421 comes at once, for those who wait too; the one that comes back takes all."""
    two = relays(2)
    weir = start({"r1": {"address": two[0], "max-connections": 1, "weight": 1000}, "r2": {"address": two[1], "weight": 0}},
                 pool={"queue-timeout": "50s"})
    holder = holding(weir, 1)[0]
    waiting = ask(weir, "waiting")

    def weigh(weight):
        weir.reload(lambda config: config["pools"]["relays"]["backends"]["r1"].update(weight=weight))
    weigh(0)
    refused(waiting)
    finds_no_seat(weir)
    assert queue_refusals(weir) == {"full": 0, "timeout": 0, "displaced": 0}
    holder.ok("RCPT TO:<b@x>")
    assert holder.data(b"x\r\n").code == 250  # its backend stays its own
    holder.quit()
    weigh(1000)
    wait_until(lambda: weir.answers("/readyz"), 5, "it is back")
    weir.deliver()
    assert not two[1].traffic()
