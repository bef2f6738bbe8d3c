"""
max-connections-per-client over a farm: several instances and one Redis.

Clients come from addresses of 127.0.0.0/8 that no epilogue uses.
"""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from test_farm_control import documented_rights
from test_shared import AGAIN, LEASE, heard, id_of, instance, wait_state  # noqa: F401: fixtures
from weirtest.identity import v1
from weirtest.net import free_port, wait_until
from weirtest.weir import ROOT

LIMIT = "max-connections-per-client"
CLIENT = "127.0.0.7"
FRONT = "127.0.0.9"


def key(who=CLIENT, listener="smtp"):
    return "weir:{main}:clients:%s:%s" % (listener, who)


def comes(weir, source=CLIENT, **options):
    """A session, or None if the client has too many."""
    client = weir.client(source=source, banner=False, timeout=30, **options)
    reply = client.reply()
    if reply.code == 220:
        return client
    assert (reply.code, reply.enhanced) == (421, "4.7.0"), reply
    assert client.wait_closed() == b""
    client.close()
    return None


def visits(weir, source=CLIENT, **options):
    """It comes, and goes at once; whether it was let in."""
    client = comes(weir, source, **options)
    if client:
        client.quit()
    return client is not None


def stay(weir, count, source=CLIENT):
    """So many sessions of it, in each of which a message is sent."""
    clients = []
    for _ in range(count):
        clients.append(comes(weir, source))
        assert clients[-1], "%d are let in" % count
        clients[-1].ehlo().message()
    return clients


def full(weir, source=CLIENT, **options):
    wait_until(lambda: not visits(weir, source, **options), AGAIN, lambda: "no more of it:\n" + weir.output())


def welcome(weir, source=CLIENT, timeout=AGAIN, **options):
    wait_until(lambda: visits(weir, source, **options), timeout, lambda: "one more of it:\n" + weir.output())


def counts(server, who=CLIENT, listener="smtp"):
    """What Redis has of a client: id → sessions."""
    words = server.ask("ZRANGE", key(who, listener), 0, -1, "WITHSCORES")
    return {id.decode(): float(count) for id, count in zip(words[::2], words[1::2])}


def told(server, weirs, numbers, who=CLIENT):
    want = {id_of(weir): number for weir, number in zip(weirs, numbers) if number}
    wait_until(lambda: counts(server, who) == want, AGAIN, lambda: "%s, is %s" % (want, counts(server, who)))


@pytest.fixture
def farm(redis, instance, relays):  # noqa: F811
    """farm(limit, instances): (instances that hear each other, their Redis)."""
    def make(limit=4, instances=2, listener=None, redis_options=None, url=None, top=None):
        server, backends = redis(), relays(1)
        weirs = [instance((url or (lambda one: one.url))(server), backends, redis_options, listener={LIMIT: limit, **(listener or {})}, top=top or {})
                 for _ in range(instances)]
        heard(weirs)
        return weirs, server
    return make


def test_counted_over_the_farm(farm):
    """What is held at one leaves less at the others, and what ends at one makes room at the others."""
    weirs, server = farm(instances=3)
    there = stay(weirs[0], 2)
    told(server, weirs, (2, 0, 0))
    assert 600000 >= server.ask("PTTL", key()) > 0
    here = stay(weirs[1], 2)
    for weir in weirs:
        full(weir)
        assert visits(weir, "127.0.0.8")
    told(server, weirs, (2, 2, 0))
    assert all(weir.metric("weir_sessions_refused_total") >= 1 for weir in weirs)
    here.pop().quit()
    for weir in weirs:
        welcome(weir)
    more = stay(weirs[2], 1)
    for weir in weirs:
        full(weir)
    for client in there + here + more:
        client.message()
        client.quit()
    wait_until(lambda: server.ask("KEYS", key("*")) == [], 15, lambda: "nothing is left: %s" % server.ask("KEYS", "*"))


def test_at_all_of_them_at_once(farm):
    """What they had not heard of each other gets in. Nothing is closed for that, and then nothing more gets in above the limit."""
    weirs, server = farm(instances=3)
    clients = [client for client in [comes(weir) for _ in range(4) for weir in weirs] if client]
    print("%d of 12 are let in" % len(clients))
    assert 4 <= len(clients) <= 12
    for weir in weirs:
        full(weir)
    while len(clients) > 4:
        clients.pop().quit()
    wait_until(lambda: sum(counts(server).values()) == 4, 10, lambda: "four are left: %s" % counts(server))
    for weir in weirs:
        full(weir)
    clients.pop().quit()
    for weir in weirs:
        welcome(weir)
    for client in clients:
        client.quit()


def test_an_instance_is_killed(farm):
    """Its sessions count until its lease is over, and not for the minutes that the key lives."""
    weirs, server = farm()
    clients = stay(weirs[0], 4)
    full(weirs[1])
    weirs[0].kill()
    began = time.monotonic()
    welcome(weirs[1], timeout=LEASE * 10)
    print("room after %.2f s" % (time.monotonic() - began))
    mine = stay(weirs[1], 4)
    full(weirs[1])
    wait_until(lambda: sorted(counts(server).values()) == [4, 4], 10, lambda: "the dead's still stands there: %s" % counts(server))
    weirs[0].start()
    heard(weirs)
    full(weirs[0])
    for client in clients:
        client.close()
    for client in mine:
        client.quit()


def test_a_clean_stop(farm):
    """At once: the lease is a minute."""
    weirs, server = farm(redis_options={"lease": "60s"}, top={"drain-timeout": "0s"})
    clients = stay(weirs[0], 4)
    full(weirs[1])
    weirs[0].term()
    assert weirs[0].wait() == 0
    welcome(weirs[1])
    for client in clients:
        client.close()


def test_an_instance_is_stopped_and_goes_on(farm):
    """Past its lease it counts nothing; then all that it has."""
    weirs, server = farm()
    clients = stay(weirs[0], 4)
    full(weirs[1])
    weirs[0].signal(signal.SIGSTOP)
    welcome(weirs[1])
    weirs[0].signal(signal.SIGCONT)
    full(weirs[1])
    for client in clients:
        client.quit()
    welcome(weirs[1])


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_redis_goes_away(farm, how):
    """The last view holds, sessions go on, and what has ended meanwhile is known when it is back."""
    weirs, server = farm()
    clients = stay(weirs[0], 3)
    mine = stay(weirs[1], 1)
    for weir in weirs:
        full(weir)
    getattr(server, how)()
    for weir in weirs:
        wait_state(weir, "held")
        assert not visits(weir) and visits(weir, "127.0.0.8")
    # Two, for the last that the first heard of the other may be a visit of full()'s that has gone since.
    clients.pop().quit()
    clients.pop().quit()
    welcome(weirs[0])
    assert not visits(weirs[1])  # which can't know
    server.start() if how == "stop" else server.resume()
    for weir in weirs:
        wait_state(weir, "rejoin", "shared")
        welcome(weir)
    told(server, weirs, (1, 1))
    for client in clients + mine:
        client.message()
        client.quit()


def test_without_redis_each_by_itself(redis, instance, relays):  # noqa: F811
    server, backends = redis(start=False), relays(1)
    weirs = [instance(server.url, backends, listener={LIMIT: 2}, joins=False) for _ in range(2)]
    clients = []
    for weir in weirs:
        wait_state(weir, "local")
        clients += stay(weir, 2)
        assert not visits(weir)
    server.start()
    heard(weirs)
    told(server, weirs, (2, 2))
    clients.pop(0).quit()
    clients.pop(0).quit()
    told(server, weirs, (0, 2))
    full(weirs[0])
    for client in clients:
        client.quit()
    for weir in weirs:
        weir.mark_baseline()


@pytest.mark.scorecard(59, "FLUSHALL, and clients' counts")
def test_flushed(farm):
    """What is lost is told again, all of it or a single one."""
    weirs, server = farm()
    clients = stay(weirs[0], 3) + stay(weirs[0], 1, "127.0.0.8")
    told(server, weirs, (3, 0))
    server.ask("FLUSHALL")
    told(server, weirs, (3, 0))
    told(server, weirs, (1, 0), "127.0.0.8")
    server.ask("DEL", key())
    told(server, weirs, (3, 0))
    clients += stay(weirs[1], 1)
    for weir in weirs:
        full(weir)
    for client in clients:
        client.quit()


def test_garbage(farm):
    """Other types, scores that are no counts, members that are no instances: none of it refuses anybody, and all is told once."""
    weirs, server = farm()
    server.ask("SET", key(), "a string")
    clients = stay(weirs[0], 3)
    for weir in weirs:
        assert visits(weir)
        weir.wait_log(event="redis", level="warning", message=re.compile("^clients: .*WRONGTYPE"))
    assert server.ask("GET", key()) == b"a string"
    server.ask("DEL", key())
    told(server, weirs, (3, 0))
    for number, score in enumerate(("inf", "-inf", "-5", "1.5", "9223372036854775807", "1e300", "1000001", "1000000")):
        server.ask("ZADD", key(), score, "forged-%d" % number)
        server.ask("ZADD", key(), score, "no id: \r\n\x00 %d" % number)
    for score in ("inf", "1e300", "-7", "2.5"):
        server.ask("ZADD", key(), score, id_of(weirs[0]))
        for _ in range(3):
            assert visits(weirs[1])  # it knows nothing worse than the truth, which is 3
    weirs[1].wait_log(event="redis", level="warning", message="count of a client: malformed")
    # So many leftovers of nobody are thrown out.
    told(server, weirs, (3, 0))
    clients += stay(weirs[1], 1)
    full(weirs[0])
    for weir in weirs:
        lines = [line["message"] for line in weir.find_log(event="redis")]
        assert len(lines) == len(set(lines)) <= 2, lines
    for client in clients:
        client.quit()


def test_ipv6_by_network(farm):
    """One /64 is one client, wherever its addresses come."""
    weirs, server = farm(limit=2, listener={"proxy-protocol-from": [FRONT + "/32"], "allow-from": ["127.0.0.0/8", "fd00::/8"]})

    def header(address):
        return {"source": FRONT, "header": v1((address, 1000), ("fd00:1::25", 25))}
    clients = [comes(weirs[0], **header("fd00:1::1")), comes(weirs[1], **header("fd00:1::ffff:2"))]
    assert all(clients)
    for weir in weirs:
        full(weir, **header("fd00:1::3"))
        assert visits(weir, **header("fd00:1:0:1::1"))
    told(server, weirs, (1, 1), "fd00:1::/64")
    clients.pop().quit()
    welcome(weirs[0], **header("fd00:1::3"))
    clients.pop().quit()


def test_who_is_in_may_say_more_of_itself(farm):
    """Another XCLIENT that names the same client is no arrival: nothing is closed because of what was heard since."""
    weirs, server = farm(listener={"xclient-from": [FRONT + "/32"]})
    client = weirs[0].client(source=FRONT).ehlo()
    client.ok("XCLIENT ADDR=%s" % CLIENT, 220)
    told(server, weirs, (1, 0))
    server.ask("ZADD", key(), 4, id_of(weirs[1]))
    full(weirs[0])
    client.ehlo().ok("XCLIENT LOGIN=ann PORT=25", 220)
    client.ehlo().message()
    told(server, weirs, (1, 4))
    client.ok("XCLIENT ADDR=127.0.0.8", 220)
    told(server, weirs, (1, 0), "127.0.0.8")
    client.ehlo().ok("XCLIENT ADDR=%s" % CLIENT, 220)
    client.expect(421)
    client.wait_closed()
    server.ask("ZREM", key(), id_of(weirs[1]))
    welcome(weirs[0])


def test_listeners_count_apart(redis, instance, relays):  # noqa: F811
    server, backends = redis(), relays(1)
    other = {"address": ["127.0.0.1:%d" % free_port()], "pool": "relays", LIMIT: 1}
    weirs = [instance(server.url, backends, listener={LIMIT: 1}, top={"listeners": {"other": dict(other)}} if first else {})
             for first in (True, False)]
    heard(weirs)
    clients = stay(weirs[0], 1)
    full(weirs[1])
    port, weirs[0].port = weirs[0].port, int(other["address"][0].split(":")[1])
    clients += stay(weirs[0], 1)
    wait_until(lambda: counts(server, listener="other") == {id_of(weirs[0]): 1}, 10, "the other's is told")
    weirs[0].port = port
    for client in clients:
        client.quit()


def test_only_with_the_option(farm):
    """Without it nothing of it is said; a reload that sets it begins to count."""
    weirs, server = farm(limit=0)
    clients = stay(weirs[0], 3)
    for weir in weirs:
        weir.reload(lambda config: config["listeners"]["smtp"].update({LIMIT: 2}))
        weir.wait_log(event="reload")
    assert server.ask("KEYS", key("*")) == []
    clients += stay(weirs[0], 2)
    full(weirs[1])
    told(server, weirs, (2, 0))
    for client in clients:
        client.quit()


def user(server, *without):
    server.ask("ACL", "SETUSER", "weir", "reset", *[word for word in documented_rights() if word[1:] not in without])
    return "redis://weir:change-me@127.0.0.1:%d" % server.port


def test_it_takes_no_right_of_its_own(farm):
    """The line of docs/redis.md is enough."""
    weirs, server = farm(limit=2, url=user)
    clients = stay(weirs[0], 2)
    full(weirs[1])
    for client in clients:
        client.quit()
    welcome(weirs[1])
    for weir in weirs:
        assert "NOPERM" not in weir.output()


def test_a_right_is_missing(farm):
    """Counts that can't be taken back are believed by nobody."""
    weirs, server = farm(url=lambda server: user(server, "zrem"))
    for weir, numbers in zip(weirs, ((1, 0), (1, 1))):
        client, = stay(weir, 1)
        told(server, weirs, numbers)
        client.quit()
        weir.wait_log(event="redis", level="warning", message=re.compile("^clients: NOPERM"))
    for weir in weirs:
        clients = stay(weir, 4)
        assert not visits(weir)
        for client in clients:
            client.quit()


def test_commands_of_the_documentation(farm, tmp_path):
    """As they stand, with a redis-cli that knows the port."""
    weirs, server = farm()
    wrapper = tmp_path / "redis-cli"
    wrapper.write_text('#!/bin/sh\nexec %s -p %d "$@"\n' % (shutil.which("redis-cli"), server.port))
    wrapper.chmod(0o755)
    clients = stay(weirs[0], 2) + stay(weirs[1], 1) + stay(weirs[1], 1, "127.0.0.8")
    told(server, weirs, (2, 1))
    told(server, weirs, (0, 1), "127.0.0.8")
    with open(os.path.join(ROOT, "docs", "redis.md")) as file:
        block, = re.findall(r"Sessions of one client.*\n\n((?:    .*\n)+)", file.read())
    done = subprocess.run(["sh", "-c", block.replace("192.0.2.9", CLIENT)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=20, env=dict(os.environ, PATH="%s:%s" % (tmp_path, os.environ["PATH"])))
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [id_of(weirs[1]), "1", id_of(weirs[0]), "2"]
    assert sorted(lines[4:]) == ["%s 3" % key(), "%s 1" % key("127.0.0.8")]
    for client in clients:
        client.quit()
