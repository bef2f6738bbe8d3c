"""Pools whose relays are given by a name: several addresses, others over time, and name servers that fail."""

import re
import struct
import time

import pytest
from weirtest.dns import AAAA, NOERROR, NXDOMAIN, SERVFAIL, Answer, Dnsmasq, NameServer
from weirtest.net import free_port, wait_until
from weirtest.relay import Relay


@pytest.fixture
def farm():
    """farm(11, 12): relays at 127.0.0.11 and 127.0.0.12, on one port."""
    made = []

    def make(*hosts):
        port = free_port("0.0.0.0")
        fresh = [Relay("relay%d.test" % host, host="127.0.0.%d" % host, port=port) for host in hosts]
        made.extend(fresh)
        return fresh
    yield make
    for one in made:
        one.stop()


@pytest.fixture
def servers():
    """servers(NameServer, …) or servers(Dnsmasq, …) starts one."""
    made = []

    def make(kind, **arguments):
        made.append(kind(**arguments))
        return made[-1]
    yield make
    for one in made:
        one.discard()


@pytest.fixture
def start(farm, servers, start):
    """Weir ends before those whom it asks: a question that nobody answers any more holds its socket for 14 seconds."""
    return start


def at(*hosts):
    return ["127.0.0.%d" % host for host in hosts]


def by_name(start, server, port, name="relay", options=None, top=None, **more):
    """A Weir whose one backend is called `name` and is name.farm.test."""
    backend = dict({"address": "%s.farm.test:%d" % (name, port)}, **(options or {}))
    return start({name: backend}, top=dict({"nameservers": [server.address]}, **(top or {})), **more)


def up(weir, *names):
    """Exactly these are there, and all of them up."""
    wanted = {name: 1 for name in names}

    def seen():
        return {labels["backend"]: value for name, labels, value in weir.metrics() if name == "weir_backend_up"}
    wait_until(lambda: seen() == wanted, 15, lambda: "%s are up, there are %s\n%s" % (sorted(names), seen(), weir.output()))


def full(*hosts):
    return ["relay@127.0.0.%d" % host for host in hosts]


def reask(weir):
    """A reload asks for every name at once, where a TTL would take its five seconds."""
    weir.reload()


def held(weir):
    client = weir.client().ehlo()
    client.envelope()
    return client


def finish(client):
    assert client.data(b"Subject: x\r\n\r\n").code == 250
    return client


def test_a_farm_by_its_name(start, farm, servers):
    """Two addresses share the mail; a third comes by its TTL and begins slowly; one goes, and is left between two messages."""
    a, b, c = farm(11, 12, 13)
    server = servers(Dnsmasq, relay=at(11, 12))
    weir = by_name(start, server, a.port, options={"max-connections": 100}, pool={"slow-start": "1h"})
    up(weir, *full(11, 12))
    weir.wait_log(event="backend-members")
    first = weir.find_log(event="backend-members")
    assert [(line["backend"], line["added"], line["removed"], line["addresses"]) for line in first] == [
        ("relay", "127.0.0.11 127.0.0.12", "", "2")]
    assert [weir.metric("weir_backend_limit", backend=name) for name in full(11, 12)] == [100, 100], "slow at Weir's own start"
    clients = [held(weir) for _ in range(10)]
    assert [weir.metric("weir_backend_connections", backend=name) for name in full(11, 12)] == [5, 5]

    server.say(relay=at(11, 12, 13))
    line = weir.wait_log(event="backend-members", times=2, timeout=20)
    assert (line["added"], line["removed"]) == ("127.0.0.13", "")
    up(weir, *full(11, 12, 13))
    assert weir.metric("weir_backend_limit", backend="relay@127.0.0.13") < 15, "it begins slowly"
    assert weir.metric("weir_backend_limit", backend="relay@127.0.0.11") == 100, "the others go on as they were"
    assert weir.metric("weir_backend_connections") == 10

    server.say(relay=at(12, 13))
    weir.wait_log(event="backend-members", removed="127.0.0.11", timeout=20)
    assert weir.metric("weir_backend_connections", backend="relay@127.0.0.11") == 5, "what is under way ends there"
    for client in clients:
        finish(client)  # where it was begun
    assert len(a.committed()) == 5
    weir.wait_metric(None, "weir_backend_connections", backend="relay@127.0.0.11")
    for client in clients:
        client.message()
    assert len(a.committed()) == 5 and len(b.committed()) + len(c.committed()) == 15
    for client in clients:
        client.quit()
    assert not weir.find_log(outcome="failed") and not weir.find_log(outcome="deferred")


def test_a_relay_that_has_moved(start, farm, servers):
    """A long TTL is not waited for while a relay of the name is down: it may be elsewhere by now."""
    a, b = farm(11, 12)
    server = servers(Dnsmasq, ttl=300, relay=at(11))
    weir = by_name(start, server, a.port)
    up(weir, "relay")
    weir.deliver()
    server.say(relay=at(12))
    a.stop()
    weir.wait_log(event="backend-members", added="127.0.0.12", removed="127.0.0.11", timeout=30)
    up(weir, "relay")
    weir.deliver()
    assert len(b.committed()) == 1


def test_redis_is_the_same(redis, start, farm, servers, pki):
    """Relays that come and go are no reason to leave Redis, over TLS neither."""
    a, _ = farm(11, 12)
    names, server = servers(Dnsmasq, relay=at(11)), redis(tls=pki)
    weir = by_name(start, names, a.port, top={"redis": {"url": server.url, "ca": pki.ca}})

    def connections():
        return [line.split()[0] for line in server.ask("CLIENT", "LIST").decode().splitlines() if " name=weir:" in line]
    wait_until(lambda: weir.status()["redis"]["state"] == "shared", 15, weir.output)
    before = connections()
    assert len(before) == 2
    names.say(relay=at(11, 12))
    weir.wait_log(event="backend-members", added="127.0.0.12", timeout=20)
    up(weir, *full(11, 12))
    assert connections() == before and weir.status()["redis"]["state"] == "shared"


def test_the_farm_s_word_of_one_goes_before_that_of_all(redis, start, farm, servers):
    """In whatever order operators have said it; as weirctl shows it."""
    a, _ = farm(11, 12)
    names, server = servers(Dnsmasq, relay=at(11, 12)), redis()
    weir = by_name(start, names, a.port, top={"redis": {"url": server.url}})
    up(weir, *full(11, 12))

    def in_force():
        return [(one["admin"], one["weight"]) for one in sorted(weir.status()["backends"], key=lambda one: one["name"])]
    said = [("relay", "drain"), ("relay@127.0.0.11", "maint"), ("relay.weight", 7), ("relay@127.0.0.11.weight", 3)]
    for words in (said, said[::-1]):
        server.ask("DEL", "weir:{main}:admin")
        server.ask("PUBLISH", "weir:{main}:events", '{"admin":1}')
        wait_until(lambda: in_force() == [("ready", 1)] * 2, 10, lambda: str(in_force()))
        for field, value in words:
            server.ask("HSET", "weir:{main}:admin", field, value)
        server.ask("PUBLISH", "weir:{main}:events", '{"admin":1}')
        wait_until(lambda: in_force() == [("maint", 3), ("drain", 7)], 10, lambda: "%s, said %s" % (in_force(), words))


def test_the_last_answer_holds(start, farm, servers):
    """No such name, an empty answer, nobody at home: the relays of the last answer go on."""
    a, b = farm(11, 12)
    server = servers(Dnsmasq, relay=at(11))
    weir = by_name(start, server, a.port)
    up(weir, "relay")
    server.write({})
    server.say(other=at(99))
    reask(weir)
    said = weir.wait_log(event="backend-name", what="it does not resolve; its last answer holds")
    assert said["name"] == "relay.farm.test" and said["level"] == "warning"
    weir.deliver()
    server.stop()
    reask(weir)
    weir.wait_log(event="reload", times=2)
    weir.deliver()
    server.write({"relay": at(12)})
    server.start()
    weir.wait_log(event="backend-name", what="it resolves again", timeout=30)
    weir.wait_log(event="backend-members", added="127.0.0.12", removed="127.0.0.11")
    up(weir, "relay")
    weir.deliver()
    assert (len(a.committed()), len(b.committed())) == (2, 1)
    assert len(weir.find_log(event="backend-name", level="warning")) == 1, "said once"


BAD_ANSWERS = {
    "empty": Answer(),
    "servfail": Answer(code=SERVFAIL),
    "nxdomain with an address": Answer("127.0.0.99", code=NXDOMAIN),
    "nothing": Answer(raw=b""),
    "an octet": Answer(raw=b"\0"),
    "another's": Answer(raw=b"\xff" * 40),
    "a header": Answer(raw=lambda asked: struct.pack(">HHHHH", 0x8580, 1, 1, 0, 0)),
    "counts that lie": Answer(raw=lambda asked: struct.pack(">HHHHH", 0x8580, 1, 65535, 65535, 65535) + asked),
    "a name that points at itself": Answer(raw=lambda asked: struct.pack(">HHHHH", 0x8580, 1, 1, 0, 0) + asked + struct.pack(
        ">BBHHIH", 0xC0, 12 + len(asked), 1, 1, 1, 4) + b"\x7f\0\0\x63"),
    "an address of three octets": Answer(raw=lambda asked: struct.pack(">HHHHH", 0x8580, 1, 1, 0, 0) + asked + struct.pack(
        ">HHHIH", 0xC00C, 1, 1, 1, 3) + b"\x7f\0\0"),
    "of no use": Answer("0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "fe80::1", "::ffff:127.0.0.99"),
}


def several(start, server, port, names, **more):
    """A Weir with a backend for each name, all of them the relay at that port."""
    return start({name: "%s.farm.test:%d" % (name, port) for name in names}, top={"nameservers": [server.address]}, **more)


def test_bad_answers(start, farm, servers):
    """All at once, each to a name of its own: some are asked for again and again before they are given up."""
    bad = {re.sub("[^a-z]+", "-", what): answer for what, answer in BAD_ANSWERS.items()}
    a, = farm(11)
    server = servers(NameServer, **{name: Answer(*at(11)) for name in bad})
    weir = several(start, server, a.port, bad)
    up(weir, *bad)
    weir.wait_log(event="backend-members", times=len(bad))
    server.say(**bad)
    reask(weir)
    weir.deliver()
    for name in bad:
        weir.wait_log(event="backend-name", name=name + ".farm.test", what="it does not resolve; its last answer holds", timeout=40)
    up(weir, *bad)
    for _ in bad:
        weir.deliver()
    assert len(a.committed()) == 1 + len(bad)
    assert len(weir.find_log(event="backend-members")) == len(bad)


@pytest.mark.parametrize("code", [NOERROR, SERVFAIL])
def test_half_an_answer(start, farm, servers, code):
    """IPv4 is answered, IPv6 is not any more: gone where the name server says so, kept where it only fails."""
    a, = farm(11)
    six = Relay(host="::1", port=a.port)
    server = servers(NameServer, relay=Answer("127.0.0.11", "::1"))
    try:
        weir = by_name(start, server, a.port)
        up(weir, "relay@127.0.0.11", "relay@::1")
        weir.wait_log(event="backend-members")
        server.say(relay=Answer("127.0.0.11", code_of_aaaa=code))
        asked = server.count("relay", AAAA)
        reask(weir)
        server.wait_asked("relay", asked + 2, kind=AAAA)
        if code == NOERROR:
            weir.wait_log(event="backend-members", removed="::1")
            up(weir, "relay")
        else:
            server.wait_asked("relay", asked + 5, 30, AAAA)  # again, soon, and the address is still there
            up(weir, "relay@127.0.0.11", "relay@::1")
            assert len(weir.find_log(event="backend-members")) == 1
        server.say(relay=Answer("::1", code=code, code_of_aaaa=NOERROR))
        reask(weir)
        if code == NOERROR:
            weir.wait_log(event="backend-members", added="::1", removed="127.0.0.11")
        weir.deliver()
    finally:
        six.stop()


def test_addresses_of_no_use_are_left_out(start, farm, servers):
    a, b = farm(11, 12)
    server = servers(NameServer, relay=Answer("0.0.0.0", "127.0.0.11", "::ffff:127.0.0.11", "ff02::1", "127.0.0.12", "127.0.0.11"))
    weir = by_name(start, server, a.port)
    up(weir, *full(11, 12))
    weir.wait_log(event="backend-name", what="an address that no relay can have is left out")
    assert not weir.find_log(event="backend-state", to="down")


def test_an_answer_of_a_hundred(start, servers):
    """Over TCP, in another order each time: 64 of them, the lowest, and always the same."""
    everywhere = Relay(host="0.0.0.0")
    addresses = ["127.0.1.%d" % (100 - n) for n in range(100)]
    server = servers(NameServer, relay=Answer(*addresses))
    try:
        weir = by_name(start, server, everywhere.port)
        up(weir, *["relay@127.0.1.%d" % (n + 1) for n in range(64)])
        weir.wait_log(event="backend-state", times=64)
        server.say(relay=Answer(*addresses[50:], *addresses[:50]))
        asked = server.count("relay")
        reask(weir)
        server.wait_asked("relay", asked + 2)  # over UDP, then over TCP
        weir.deliver()
        assert len(weir.find_log(event="backend-name", what="of its addresses only so many are used, the lowest")) == 1
        assert len(weir.find_log(event="backend-members")) == 1
        assert ("relay", 1, "tcp") in server.asked
    finally:
        everywhere.stop()


def test_ttls(start, farm, servers):
    """However short, it is not asked for in a hurry; however long, it does no harm."""
    ttls = {"none": 0, "short": 1, "long": 2**31 - 1, "too-long": 2**32 - 1}
    a, = farm(11)
    server = servers(NameServer, **{name: Answer(*at(11), ttl=ttl) for name, ttl in ttls.items()})
    began = time.monotonic()
    weir = several(start, server, a.port, ttls)
    up(weir, *ttls)
    for name in ("none", "short"):
        server.wait_asked(name, 3, 30)
    assert time.monotonic() - began > 9.5, "five seconds at least between two questions"
    assert server.count("long") < 3 <= server.count("short")
    weir.deliver()


def test_one_two_one(start, farm, servers):
    """Its name changes with its company; its places, its cap and its counters don't."""
    a, b = farm(11, 12)
    server = servers(NameServer, relay=Answer(*at(11)))
    weir = by_name(start, server, a.port, options={"max-connections": 2}, pool={"queue-timeout": "20s"})
    up(weir, "relay")
    weir.deliver()
    clients = [held(weir), held(weir)]
    assert weir.metric("weir_backend_connections", backend="relay") == 2

    server.say(relay=Answer(*at(12, 11)))
    reask(weir)
    up(weir, *full(11, 12))
    assert weir.metric("weir_backend_connections", backend="relay@127.0.0.11") == 2
    assert weir.metric("weir_transactions_total", backend="relay@127.0.0.11", outcome="delivered") == 1
    for _ in range(3):
        weir.deliver()
    assert (len(a.committed()), len(b.committed())) == (1, 3)

    server.say(relay=Answer(*at(11)))
    reask(weir)
    up(weir, "relay")
    assert weir.metric("weir_backend_connections", backend="relay") == 2
    with weir.client() as waiting:
        waiting.ehlo().send(b"MAIL FROM:<waits@x>\r\n")
        weir.wait_metric(1, "weir_queue_waiting")
        finish(clients[0]).quit()
        waiting.expect(250)
        finish(clients[1]).quit()
        waiting.ok("RCPT TO:<to@relay.test>")
        finish(waiting).quit()
    assert a.max_concurrent() == 2
    assert weir.metric("weir_transactions_total", backend="relay", outcome="delivered") == 4


def test_the_operator_s_word_is_of_the_name(start, farm, servers):
    """An address that comes later is drained like those that were; not where the word was of one address alone."""
    a, _, _ = farm(11, 12, 13)
    server = servers(NameServer, relay=Answer(*at(11)))
    weir = by_name(start, server, a.port)
    up(weir, "relay")
    weir.order("drain", "relay")
    server.say(relay=Answer(*at(11, 12)))
    reask(weir)
    up(weir, *full(11, 12))
    wait_until(lambda: [weir.metric("weir_backend_admin", backend=name, admin="drain") for name in full(11, 12)] == [1, 1], 5, "both are drained")
    with weir.client() as client:
        assert client.ehlo().command("MAIL FROM:<a@x>").code == 421
    weir.order("ready", "relay@127.0.0.11")
    server.say(relay=Answer(*at(11, 12, 13)))
    reask(weir)
    up(weir, *full(11, 12, 13))
    assert weir.metric("weir_backend_admin", backend="relay@127.0.0.13", admin="ready") == 1


@pytest.mark.parametrize("held_there", [False, True])
def test_a_relay_in_maintenance_stays_there(start, farm, servers, held_there):
    """Its name has its address no more and then again, as where a server gives another choice each time: no mail comes of that."""
    a, b = farm(11, 12)
    server = servers(NameServer, relay=Answer(*at(11, 12)))
    weir = by_name(start, server, a.port)
    up(weir, *full(11, 12))
    clients = []
    while held_there and not [one for one in b.open_now() if one.traffic]:
        clients.append(held(weir))

    def gone_and_back(word=None, name="relay@127.0.0.12"):
        server.say(relay=Answer(*at(11)))
        reask(weir)
        up(weir, "relay")
        if word:
            answer = weir.ask(word, name)[-1]
            assert (answer["name"], answer["connections"]) == ("relay@127.0.0.12", int(held_there))
        server.say(relay=Answer(*at(11, 12)))
        reask(weir)
        wait_until(lambda: len(weir.ask("backends")) == 2, 5, "it is back")
        return {one["name"]: one["admin"] for one in weir.ask("backends")}["relay@127.0.0.12"]
    weir.order("maint", "relay@127.0.0.12")
    assert gone_and_back() == "maint"
    assert gone_and_back("drain") == "drain"
    assert gone_and_back("ready") == "ready"
    assert gone_and_back() == "ready"
    weir.order("weight", "relay@127.0.0.12", "7")
    assert gone_and_back("maint", "relay") == "maint"
    assert {one["name"]: one["weight"] for one in weir.ask("backends")} == {"relay@127.0.0.11": 1, "relay@127.0.0.12": 7}
    for client in clients:
        client.close()


def admins(weir):
    return {one["name"]: one["admin"] for one in weir.ask("backends")}


def say(weir, server, *hosts):
    """The name has these addresses now, and Weir knows."""
    server.say(relay=Answer(*at(*hosts)))
    reask(weir)
    wait_until(lambda: sorted(one["address"].rsplit(":")[0] for one in weir.ask("backends")) == at(*hosts), 10, "Weir knows")


@pytest.mark.parametrize("meanwhile", [[11], [14]])
def test_the_word_of_one_is_not_that_of_the_others(start, farm, servers, meanwhile):
    """Several that nothing was said of go and come back together, with and without the one that is drained."""
    a, _, _, _ = farm(11, 12, 13, 14)
    server = servers(NameServer, relay=Answer(*at(11, 13)))
    weir = by_name(start, server, a.port)
    up(weir, *full(11, 13))
    say(weir, server, 11, 12, 13)
    weir.order("drain", "relay@127.0.0.11")
    say(weir, server, *meanwhile)
    reask(weir)
    weir.wait_log(event="reload", times=3)
    say(weir, server, 11, 12, 13)
    assert admins(weir) == dict(dict.fromkeys(full(12, 13), "ready"), **{"relay@127.0.0.11": "drain"})


@pytest.mark.parametrize("held_there", [False, True])
def test_what_is_said_of_the_name_is_of_those_that_leave_it(start, farm, servers, held_there):
    """Nothing was ever said of an address that is away, and now something is of the whole name: a session that is still there
    changes nothing."""
    a, b = farm(11, 12)
    server = servers(NameServer, relay=Answer(*at(12)))
    weir = by_name(start, server, a.port)
    up(weir, "relay")
    client = held(weir) if held_there else None
    say(weir, server, 11)
    weir.order("drain", "relay")
    say(weir, server, 11, 12)
    assert admins(weir) == dict.fromkeys(full(11, 12), "drain")
    if client:
        client.close()


def test_a_name_that_was_taken_out_and_put_back(start, farm, servers):
    """With a session on the address that is drained: that one is drained still, and not the other one too."""
    a, _ = farm(11, 12)
    server = servers(NameServer, relay=Answer(*at(11)))
    weir = by_name(start, server, a.port)
    up(weir, "relay")
    client = held(weir)
    say(weir, server, 11, 12)
    weir.order("drain", "relay@127.0.0.11")

    def rename(config):
        backends = config["pools"]["relays"]["backends"]
        backends["other"] = backends.pop("relay")

    def name_again(config):
        backends = config["pools"]["relays"]["backends"]
        backends["relay"] = backends.pop("other")
    weir.reload(rename)
    wait_until(lambda: sorted(admins(weir)) == ["other@127.0.0.11", "other@127.0.0.12"], 10, "it has another name")
    reask(weir)
    weir.wait_log(event="reload", times=3)
    weir.reload(name_again)
    wait_until(lambda: sorted(admins(weir)) == full(11, 12), 10, "it has its name again")
    assert admins(weir) == {"relay@127.0.0.11": "drain", "relay@127.0.0.12": "ready"}
    client.close()


def test_an_address_that_goes_and_comes_back(start, farm, servers):
    """With a session on it all the time: it is the same backend, and a cap of one stays one."""
    a, b = farm(11, 12)
    server = servers(NameServer, relay=Answer(*at(11)))
    weir = by_name(start, server, a.port, options={"max-connections": 1})
    up(weir, "relay")
    client = held(weir)
    server.say(relay=Answer(*at(12)))
    reask(weir)
    weir.wait_log(event="backend-members", added="127.0.0.12", removed="127.0.0.11")
    up(weir, "relay")
    assert weir.metric("weir_backend_connections", backend="relay@127.0.0.11") == 1
    assert weir.metric("weir_backend_connections", backend="relay") == 0
    server.say(relay=Answer(*at(11, 12)))
    reask(weir)
    up(weir, *full(11, 12))
    assert weir.metric("weir_backend_connections", backend="relay@127.0.0.11") == 1
    for _ in range(3):
        weir.deliver()
    assert (len(a.committed()), len(b.committed())) == (0, 3)
    finish(client).message()
    client.quit()
    assert len(a.committed()) >= 1
    weir.wait_metric(0, "weir_backend_connections")


def test_before_the_first_answer(start, farm, servers):
    """Mail waits while the name server thinks; where it says that there is no such name, mail does not wait."""
    a, = farm(11)
    server = servers(NameServer, relay=Answer(silent=True))
    weir = by_name(start, server, a.port, wait="alive", pool={"queue-timeout": "30s"})
    with weir.client() as client:
        client.ehlo().send(b"MAIL FROM:<a@x>\r\n")
        weir.wait_metric(1, "weir_queue_waiting")
        server.say(relay=Answer(*at(11)))
        client.expect(250)
        client.ok("RCPT TO:<to@relay.test>")
        finish(client).quit()
    weir.wait_log(event="transaction", backend="relay", outcome="delivered")


def test_no_such_name(start, farm, servers):
    a, = farm(11)
    server = servers(NameServer, relay=Answer(code=NXDOMAIN))
    weir = by_name(start, server, a.port, wait="alive")
    said = weir.wait_log(event="backend-state", backend="relay", to="down")
    assert said["reason"].startswith("name does not resolve: ")
    with weir.client() as client:
        reply = client.ehlo().command("MAIL FROM:<a@x>")
        assert (reply.code, reply.enhanced) == (421, "4.3.2")
    server.say(relay=Answer(*at(11)))
    up(weir, "relay")
    weir.deliver()


def test_a_name_that_leads_back(start, farm, servers):
    """To Weir's own listener: left out, and said; with nothing else there is no relay."""
    a, = farm(11)
    server = servers(NameServer, relay=Answer("127.0.0.1", "127.0.0.11"), alone=Answer("127.0.0.1"))
    weir = by_name(start, server, a.port, top={"listeners": {"smtp": {"address": ["127.0.0.1:%d" % a.port]}}}, wait="alive")
    weir.port = a.port
    up(weir, "relay")
    said = weir.wait_log(event="backend-name", level="error")
    assert (said["name"], said["backend"]) == ("relay.farm.test", "relay")
    for _ in range(4):
        weir.deliver()
    assert len(a.committed()) == 4
    weir.reload(lambda config: config["pools"]["relays"]["backends"].update(
        alone={"address": "alone.farm.test:%d" % a.port, "priority": 1}))
    down = weir.wait_log(event="backend-state", backend="alone", to="down")
    assert "listener of this Weir" in down["reason"]


def test_reloads(start, farm, servers):
    """A slip in the name keeps the relays; other name servers, another port, an address in place of the name are followed."""
    a, b = farm(11, 12)
    server, other = servers(NameServer, relay=Answer(*at(11))), servers(NameServer, relay=Answer(*at(12)))
    weir = by_name(start, server, a.port)
    up(weir, "relay")

    def rename(config):
        config["pools"]["relays"]["backends"]["relay"]["address"] = "slip.farm.test:%d" % a.port
    weir.reload(rename)
    server.wait_asked("slip", 1)
    weir.wait_log(event="reload")
    weir.deliver()
    assert len(a.committed()) == 1

    def back_elsewhere(config):
        config["pools"]["relays"]["backends"]["relay"]["address"] = "relay.farm.test:%d" % a.port
        config["nameservers"] = [other.address]
    weir.reload(back_elsewhere)
    weir.wait_log(event="backend-members", added="127.0.0.12", removed="127.0.0.11")
    up(weir, "relay")
    weir.deliver()
    assert len(b.committed()) == 1

    moved = Relay(host="127.0.0.12")
    try:
        def port(config):
            config["pools"]["relays"]["backends"]["relay"]["address"] = "relay.farm.test:%d" % moved.port
        weir.reload(port)
        moved.wait("ehlo", timeout=10)
        weir.wait_log(event="reload", times=3)
        weir.deliver()
        assert len(moved.committed()) == 1
    finally:
        moved.stop()

    def literal(config):
        config["pools"]["relays"]["backends"]["relay"]["address"] = "%s:%d" % a.address
    weir.reload(literal)
    weir.wait_log(event="reload", times=4)
    weir.deliver()
    assert len(a.committed()) == 2


def test_two_pools_one_question(start, farm, servers):
    """The same name and port under two backends: asked for once, and two backends of each address."""
    a, = farm(11)
    server = servers(NameServer, relay=Answer(*at(11), ttl=300))
    address = "relay.farm.test:%d" % a.port
    weir = start({"one": {"address": address}}, top={
        "nameservers": server.address, "pools": {"more": {"backends": {"two": {"address": address}}}}})
    up(weir, "one", "two")
    assert server.count("relay") == 1


def test_many_names_at_once(start, servers):
    """All of them change together, again and again, under traffic: nobody hears an error."""
    everywhere = Relay(host="0.0.0.0")
    names = ["n%d" % n for n in range(20)]

    def answers(turn):
        return {name: Answer("127.0.2.%d" % (turn + 1), "127.0.2.%d" % (turn + 2), "127.0.3.%d" % (n + 1))
                for n, name in enumerate(names)}
    server = servers(NameServer, **answers(0))
    try:
        weir = start({name: {"address": "%s.farm.test:%d" % (name, everywhere.port)} for name in names},
                     top={"nameservers": [server.address]})
        client = weir.client().ehlo()
        for turn in range(1, 6):
            server.say(**answers(turn))
            asked = server.count("n19")
            reask(weir)
            server.wait_asked("n19", asked + 1)
            client.message()
            weir.deliver()
        for name in names:
            weir.wait_log(event="backend-members", backend=name, added=re.compile(r"127\.0\.2\.7\b"), timeout=15)
        client.message()
        client.quit()
        assert len(everywhere.committed()) == 11
        assert not weir.find_log(outcome="failed")
    finally:
        everywhere.stop()


def test_hosts_file_goes_first(start, relay, servers):
    server = servers(NameServer)
    weir = start({"r1": "localhost:%d" % relay.port}, top={"nameservers": [server.address]})
    weir.deliver()
    assert len(relay.committed()) == 1 and not server.asked
