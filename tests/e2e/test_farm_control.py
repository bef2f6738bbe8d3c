"""A whole farm by way of Redis: weirctl --redis, the statistics, what an operator can read and say with redis-cli."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest
from test_control import RunningTop
from weirtest.net import free_port, wait_until
from weirtest.redis import Redis
from weirtest.weir import CONTROL, ROOT, SANITIZER, SANITIZER_OPTIONS

FIELDS = {"pool", "name", "address", "state", "admin", "weight", "connections", "farm_connections", "idle", "limit", "max_connections",
          "reason", "since", "delivered", "rejected", "deferred", "failed"}
PREFIX = "weir:{main}:"


class Server(Redis):
    """With redis-cli, as operators use it."""

    def cli(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
        out = done.stdout.rstrip("\n")
        assert done.returncode == 0 and not out.startswith(("ERR", "NOPERM", "WRONGTYPE")), (words, out, done.stderr)
        return out


@pytest.fixture
def redis():
    server = Server()
    yield server
    server.discard()


def farmctl(url, *arguments, farm="main", environment=None):
    """(exit code, standard output, standard error) of weirctl."""
    where = ["--redis", url] if url else []
    done = subprocess.run([CONTROL, *where, "--farm", farm, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30, env=dict(os.environ, **SANITIZER_OPTIONS, COLUMNS="80", **(environment or {})))
    assert not SANITIZER.search(done.stderr), done.stderr
    return done.returncode, done.stdout, done.stderr


def ask(url, *arguments):
    code, out, err = farmctl(url, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def shared(redis, **more):
    return {"redis": {"url": redis.url, "farm": "main", "publish-interval": "50ms", **more}}


@pytest.fixture
def farm(redis, start, relays):
    """Two Weirs before the same two relays."""
    both = relays(2)
    weirs = [start(both, top=shared(redis)) for _ in range(2)]
    wait_until(lambda: len(alive(redis)) == 2 and all(one["instances"] == 2 for one in ask(redis.url, "backends")), 20,
               "both are in Redis")
    return redis, weirs, both


def alive(redis):
    code, out, _ = farmctl(redis.url, "--json", "instances")
    return [one for one in json.loads(out) if one["alive"]] if code == 0 else []


def backends(redis):
    return {one["name"]: one for one in ask(redis.url, "backends")}


def test_the_whole(farm):
    redis, weirs, _ = farm
    clients = [weirs[0].client().ehlo(), weirs[0].client().ehlo(), weirs[1].client().ehlo()]
    for client in clients:
        client.message()
    wait_until(lambda: sum(one["connections"] for one in backends(redis).values()) == 3, 10, "three connections")
    for one in ask(redis.url, "backends"):
        assert FIELDS <= set(one), FIELDS - set(one)
        assert one["pool"] == "relays" and one["state"] == "up" and one["admin"] == "ready" and one["weight"] == 1
        assert one["connections"] == one["farm_connections"] and one["instances"] == 2 and not one["disagreement"]
        assert re.fullmatch(r"127\.0\.0\.1:\d+", one["address"])
    wait_until(lambda: ask(redis.url, "status")["delivered"] == 3, 15, "three messages are counted")
    status = ask(redis.url, "status")
    assert {"version", "pid", "uptime", "sessions", "queued", "pools", "redis"} <= set(status)
    assert status["instances"] == 2 and status["gone"] == 0 and status["sessions"] == 3 and status["ready"]
    assert status["pools"] == [{"name": "relays", "queued": 0, "backends": 2, "usable": 2, "connections": 3}]
    for client in clients:
        client.quit()


def test_a_redis_that_is_held_up(farm):
    """The Weirs give it half a second, for they can do without; an operator waits."""
    redis, _, _ = farm
    redis.ask("CLIENT", "PAUSE", 1200, "ALL")
    assert len(ask(redis.url, "backends")) == 2


def test_tables(farm):
    redis, weirs, _ = farm
    code, out, _ = farmctl(redis.url, "status")
    assert code == 0 and out.startswith("farm main: 2 instances, 0 gone, the oldest up ") and out.splitlines()[0].endswith(": ready")
    for command in ("status", "backends", "instances", "names", "version"):
        code, out, err = farmctl(redis.url, command)
        assert code == 0 and not err and all(len(line) <= 80 for line in out.splitlines()), out
    assert farmctl(redis.url, "names")[1] == "r1\nr2\n"
    _, out, _ = farmctl(redis.url, "instances")
    assert len(out.splitlines()) == 3 and str(weirs[0].pid) in out and str(weirs[1].pid) in out


def test_who_waits(redis, start, relay):
    """Both views of a pool have the same columns, and say who waits; the farm's, at every Weir."""
    weirs = [start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "30s"}, top=shared(redis)) for _ in range(2)]
    wait_until(lambda: len(alive(redis)) == 2, 20, "both are in Redis")
    clients = [weir.client(timeout=30).ehlo() for weir in (weirs[0], weirs[0], weirs[1], weirs[1])]
    clients[0].envelope()
    wait_until(lambda: weirs[1].status()["backends"][0]["farm_connections"] == 1, 10, "the place is taken for both")
    for client in clients[1:]:
        client.send(b"MAIL FROM:<a@x>\r\n")
    wait_until(lambda: ask(redis.url, "status")["pools"][0]["queued"] == 3, 10, lambda: str(ask(redis.url, "status")))
    assert ask(redis.url, "status")["queued"] == 3 and sorted(one["queued"] for one in ask(redis.url, "instances")) == [1, 2]

    def pools(out):
        """The table behind the blank line: title → figure."""
        titles, row = out.split("\n\n")[1].splitlines()[:2]
        return dict(zip(titles.split(), row.split()))
    whole, own = pools(farmctl(redis.url, "status")[1]), pools(weirs[1].order("status"))
    assert list(whole) == list(own) == ["POOL", "BACKENDS", "USABLE", "CONNECTIONS", "WAITING"]
    assert (whole["WAITING"], own["WAITING"]) == ("3", "2")
    for client in clients:
        client.close()


def test_one_dies(farm):
    redis, weirs, _ = farm
    weirs[1].process.kill()
    weirs[1].process.wait()
    weirs[1].exit_code = -9
    wait_until(lambda: len(alive(redis)) == 1, 10, "its lease ends")
    dead = [one for one in ask(redis.url, "instances") if not one["alive"]]
    assert len(dead) == 1 and dead[0]["last_seen"] > 0
    assert "gone" in farmctl(redis.url, "instances")[1]
    assert ask(redis.url, "status")["gone"] == 1
    assert all(one["instances"] == 1 for one in ask(redis.url, "backends"))


def test_drain_everywhere(farm):
    redis, weirs, _ = farm
    assert ask(redis.url, "drain", "r1")[0]["admin"] == "drain"
    for weir in weirs:
        wait_until(lambda: {one["name"]: one["admin"] for one in weir.ask("backends")} == {"r1": "drain", "r2": "ready"}, 5, "it has heard")
        weir.client().ehlo().message()
    assert [weir.ask("backends")[0]["delivered"] for weir in weirs] == [0, 0]
    assert backends(redis)["r1"]["admin"] == "drain" and backends(redis)["r1"]["admin_by"] == "farm"
    assert redis.hash(PREFIX + "admin") == {"r1": "drain"}
    # The local operator can't lift it, and lifting it leaves the local operator's word alone.
    weirs[0].order("maint", "r1")
    farmctl(redis.url, "ready", "r1")
    wait_until(lambda: weirs[1].ask("backends")[0]["admin"] == "ready", 5, "it has heard")
    assert weirs[0].ask("backends")[0]["admin"] == "maint"
    weirs[0].order("ready", "r1")
    assert redis.hash(PREFIX + "admin") == {}


def test_weight(farm):
    redis, weirs, _ = farm
    assert ask(redis.url, "weight", "r2", "7")[0]["weight"] == 7
    for weir in weirs:
        wait_until(lambda: weir.ask("backends")[1]["weight"] == 7, 5, "it has heard")
    assert ask(redis.url, "drain", "r2")[0]["weight"] == 7 and ask(redis.url, "ready", "r2")[0]["admin"] == "ready"
    assert ask(redis.url, "weight", "r2", "default")[0]["weight"] == 1
    for weir in weirs:
        wait_until(lambda: weir.ask("backends")[1]["weight"] == 1, 5, "it has heard")
    assert redis.hash(PREFIX + "admin") == {}
    assert farmctl(redis.url, "weight", "r2", "1001")[0] == 2


def test_by_redis_cli(farm):
    """As docs/redis.md says."""
    redis, weirs, _ = farm
    redis.cli("HSET", PREFIX + "admin", "r2", "maint")
    assert redis.cli("PUBLISH", PREFIX + "events", '{"admin":1}') == "2"
    for weir in weirs:
        wait_until(lambda: weir.ask("backends")[1]["admin"] == "maint", 5, "it has heard")
    # Without saying so it is heard of at the next resync.
    redis.cli("HDEL", PREFIX + "admin", "r2")
    for weir in weirs:
        wait_until(lambda: weir.ask("backends")[1]["admin"] == "ready", 15, "it has looked")


def test_they_disagree(farm, start, relays):
    redis, _, both = farm
    third = start({"r1": "127.0.0.1:1", "r2": both[1]}, top=shared(redis))
    wait_until(lambda: backends(redis)["r1"]["instances"] == 3, 10, "it is there")
    wait_until(lambda: backends(redis)["r1"]["disagreement"], 10, "it has found r1 down")
    one = backends(redis)["r1"]
    assert one["state"] == "up" and re.match(r"1 of 3 say otherwise: down at \S+: ", one["reason"]), one
    assert "r1: up for" in farmctl(redis.url, "backends")[1]
    assert third.alive()


def test_statistics_stay(farm):
    redis, weirs, _ = farm
    for _ in range(3):
        weirs[0].client().ehlo().message()
    name = next(key for key in redis.cli("KEYS", PREFIX + "instance:*").splitlines()
                if redis.hash(key)["pid"] == str(weirs[0].pid)).rsplit(":", 1)[1]
    weirs[0].term()
    assert weirs[0].wait() == 0
    stats = redis.hash(PREFIX + "stats:" + name)
    assert int(stats["r1.delivered"]) + int(stats["r2.delivered"]) == 3, stats
    assert int(stats["sessions"]) >= 3 and int(stats["bytes_in"]) > 0 and int(stats["bytes_out"]) > 0
    assert redis.cli("EXISTS", PREFIX + "connections:" + name, PREFIX + "instance:" + name) == "0"
    assert name not in redis.cli("ZRANGE", PREFIX + "instances", "0", "-1")
    assert name in redis.cli("ZRANGE", PREFIX + "stats", "0", "-1")
    assert ask(redis.url, "status")["delivered"] == 3


def test_refused_and_unanswered(farm):
    redis, _, _ = farm
    for arguments in (("drain", "nobody"), ("sessions",), ("reload",)):
        code, out, err = farmctl(redis.url, *arguments)
        assert code == 1 and not out and err.startswith("weirctl: ")
    assert farmctl(redis.url, "status", farm="other")[0] == 1
    for arguments in (("drain",), ("nonsense",), ("--socket", "/x", "status"), ("--ca", "/x", "status")):
        assert farmctl(redis.url, *arguments)[0] == 2
    assert farmctl(redis.url, "status", farm="no}name")[0] == 2
    redis.stop()
    code, out, err = farmctl("redis://user:geheim@127.0.0.1:%d" % redis.port, "status")
    assert code == 3 and "connection refused" in err and "geheim" not in err and "user" not in err


@pytest.mark.parametrize("there,expected", [(True, 1), (False, 3)])
def test_top_that_does_not_begin(redis, there, expected):
    """The same exit codes as of the other commands."""
    ours, theirs = os.openpty()
    url = redis.url if there else "redis://127.0.0.1:%d" % free_port()
    try:
        done = subprocess.run([CONTROL, "--redis", url, "--farm", "nobody", "top"], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, timeout=20)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == expected and done.stderr.startswith(b"weirctl: ")


def test_password(redis, relays, start):
    redis.cli("ACL", "SETUSER", "ops", "on", ">geh%40eim", "~*", "&*", "+@all")
    redis.cli("CONFIG", "SET", "requirepass", "other")
    url = "redis://ops:geh%2540eim@127.0.0.1:{}".format(redis.port)
    start(relays(1), top={"redis": {"url": url}})
    wait_until(lambda: farmctl(None, "status", environment={"WEIR_REDIS_URL": url})[0] == 0, 10, "it is there")
    code, out, err = farmctl(None, "--json", "status", environment={"WEIR_REDIS_URL": url})
    assert code == 0 and "eim" not in out + err and json.loads(out)["redis"]["server"] == "redis://127.0.0.1:%d" % redis.port
    code, out, err = farmctl("redis://127.0.0.1:%d" % redis.port, "status")
    assert code == 3 and "NOAUTH" in err
    code, out, err = farmctl("redis://ops:wr:ong@127.0.0.1:%d" % redis.port, "status")
    assert code in (2, 3) and "wr:ong" not in err and "ong@" not in err
    assert farmctl(None, "status")[0] == 2


def test_hostile_keys(farm):
    """Nothing that stands there is believed, and weirctl says what can be said."""
    redis, _, _ = farm
    evil = PREFIX + "%s:evil"
    redis.cli("ZADD", PREFIX + "instances", "1e300", "evil", "5", "bad id", "6", "wrong")
    redis.cli("HSET", evil % "instance", "schema", "1", "pid", "-7", "started", "x", "sessions", "9223372036854775808", "host", "\x1b[31m")
    redis.cli("HSET", evil % "connections", "r1", "-5", "r2", "1e9", "ghost", "99999999999999999999")
    redis.cli("HSET", evil % "health", "r1", "state=flying since=never", "r2", "state=", "ghost", "reason=\x1b]0;x\x07 state=up")
    redis.cli("HSET", evil % "stats", "r1.delivered", "-1", "r2.delivered", "99999999999999999999999")
    redis.cli("SET", PREFIX + "stats:wrong", "text")
    redis.cli("HSET", PREFIX + "admin", "r1", "explode", "r2.weight", "-1", "", "drain")
    redis.cli("EVAL", "for i = 1, 33000 do redis.call('HSET', KEYS[1], i, i) end", "1", PREFIX + "stats:evil")
    for command in ("status", "backends", "instances", "version", "names"):
        code, out, err = farmctl(redis.url, command)
        assert code == 0 and "\x1b" not in out, err
    found = backends(redis)
    assert found["r1"]["connections"] == 0 and found["r1"]["state"] == "up" and found["r1"]["admin"] == "ready"
    assert found["r2"]["weight"] == 1 and found["r2"]["delivered"] == 0 and found["ghost"]["state"] == "init"
    redis.cli("DEL", PREFIX + "admin")
    redis.cli("SET", PREFIX + "admin", "text")
    code, _, err = farmctl(redis.url, "drain", "r1")
    assert code == 1 and "WRONGTYPE" in err


def test_many_that_are_gone(farm):
    """Who lives is found among thousands that have not."""
    redis, _, _ = farm
    for key in ("instances", "stats"):
        redis.cli("EVAL", "for i = 1, 40000 do redis.call('ZADD', KEYS[1], i, 'old-' .. i) end", "1", PREFIX + key)
    assert sorted(backends(redis)) == ["r1", "r2"]
    assert sum(one["alive"] for one in ask(redis.url, "instances")) == 2
    assert ask(redis.url, "drain", "r1")[0]["admin"] == "drain"


def test_a_server_that_writes_on_terminals():
    """What a server says instead of answering comes to an operator's eyes, not to the terminal."""
    def serve():
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"-ERR \x1b]0;owned\x07\r\n")
            while sock.recv(4096):
                pass
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        code, out, err = farmctl("redis://127.0.0.1:%d" % listener.getsockname()[1], "status")
        thread.join()
    assert code == 3 and "owned" in err and not re.search("[\x00-\x09\x0b-\x1f\x7f]", out + err), ascii(err)


def test_top(redis):
    """Live; while Redis is away it says so, and goes on when it is back."""
    with RunningTop(["--redis", redis.url, "--farm", "main"], top=shared(redis)) as (weir, top):
        top.wait_for(b"farm main: 1 instances, 0 gone: ready", b"r1", b"q quits")
        redis.stop()
        top.wait_for(b"what is shown is old")
        top.seen = b""
        redis.start()
        top.wait_for(b"messages 0.0/s")
        top.press(b"q")
        assert top.ended() == 0


# What docs/redis.md says

def section(title):
    with open(os.path.join(ROOT, "docs", "redis.md")) as file:
        return re.search(r"^## %s\n(.*?)(?=^## |\Z)" % title, file.read(), re.M | re.S)[1]


def test_commands_of_the_documentation(farm, tmp_path):
    """Each block is run as it stands, with a redis-cli that knows the port."""
    redis, weirs, _ = farm
    wrapper = tmp_path / "redis-cli"
    wrapper.write_text('#!/bin/sh\nexec %s -p %d "$@"\n' % (shutil.which("redis-cli"), redis.port))
    wrapper.chmod(0o755)
    client = weirs[0].client().ehlo()
    client.message()
    wait_until(lambda: ask(redis.url, "status")["delivered"] == 1, 15, "it is counted")
    blocks = re.findall(r"(?:^    .*\n)+", section("With redis-cli"), re.M)
    printed = []
    for block in blocks:
        if "SUBSCRIBE" in block:
            continue
        done = subprocess.run(["sh", "-c", block], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
                              env=dict(os.environ, PATH="%s:%s" % (tmp_path, os.environ["PATH"])))
        assert done.returncode == 0 and not done.stderr, (block, done.stderr)
        printed.append(done.stdout)
    who, spread, health, delivered, rates = printed[:5]
    assert len(who.splitlines()) == 2 and str(weirs[0].pid) in who
    assert spread in ("r1 1\nr2 0\n", "r1 0\nr2 1\n")
    assert health.splitlines() and all(":health:" in line for line in health.splitlines())
    assert delivered == "1\n" and rates.startswith("arrival_rate:relays ")
    assert printed[5] == "1\n2\n" and printed[6] == "1\n2\n"
    client.quit()


def test_metrics_of_the_documentation(farm):
    _, weirs, _ = farm
    weirs[0].client().ehlo().message()
    with open(os.path.join(ROOT, "docs", "grafana-dashboard.json")) as file:
        board = json.load(file)
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    named = set(re.findall(r"weir_[a-z_]+", " ".join(queries) + section("Prometheus and Grafana")))
    known = set(re.findall(r"^(weir_[a-z_]+)", weirs[0].http("/metrics")[1], re.M))
    assert len(named) > 5 and named <= known, named - known
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in board["panels"]})


# The least that a user needs

def documented_rights():
    """The ACL line of docs/redis.md, in words."""
    with open(os.path.join(ROOT, "docs", "redis.md")) as file:
        return re.search(r"^ACL SETUSER weir (.*)$", file.read(), re.M)[1].split()


def documented_commands():
    return [word[1:] for word in documented_rights() if word.startswith("+")]


# What only the reaper does, which waits an hour: tests/unit/test_statistics.c takes each of them away.
REAPER = {"hincrby", "hlen", "set"}


def user(redis, *without):
    redis.cli("ACL", "SETUSER", "weir", "reset", *[word for word in documented_rights() if word[1:] not in without])
    return "redis://weir:change-me@127.0.0.1:%d" % redis.port


def test_rights_suffice(redis, start, relays):
    both = relays(2)
    weirs = [start(both, top={"redis": {"url": user(redis), "publish-interval": "50ms"}}) for _ in range(2)]
    wait_until(lambda: len(alive(redis)) == 2, 10, "both are there")
    url = user(redis)
    redis.cli("ACL", "SETUSER", "weir", "+hdel")  # as the operators' line has it
    ask(url, "drain", "r1")
    wait_until(lambda: weirs[1].ask("backends")[0]["admin"] == "drain", 5, "it has heard")
    weirs[0].client().ehlo().message()
    wait_until(lambda: ask(url, "status")["delivered"] == 1, 15, "it is counted")
    ask(url, "ready", "r1")
    weirs[0].term()
    assert weirs[0].wait() == 0
    wait_until(lambda: len(alive(redis)) == 1, 5, "it has said bye")
    for weir in weirs:
        assert not denied(weir), weir.output()


def test_rights_of_operators(farm):
    """Those of the second line suffice, and without what it says may be left out all can be looked at."""
    redis, weirs, _ = farm
    with open(os.path.join(ROOT, "docs", "redis.md")) as file:
        text = file.read()
    rights = re.search(r"^ACL SETUSER ops (.*)$", text, re.M)[1].split()
    only = re.search(r"leave out `(.*?)` for those who may only look", text)[1].split()
    url = "redis://ops:change-me-too@127.0.0.1:%d" % redis.port
    assert set(only) < set(rights)
    redis.cli("ACL", "SETUSER", "ops", "reset", *rights)
    for order in (("drain", "r1"), ("weight", "r1", "3"), ("weight", "r1", "default"), ("ready", "r1")):
        ask(url, *order)
    redis.cli("ACL", "SETUSER", "ops", "reset", *[word for word in rights if word not in only])
    for command in ("status", "backends", "instances"):
        assert ask(url, command)
    code, _, err = farmctl(url, "drain", "r1")
    assert code == 1 and "NOPERM" in err, err


def denied(weir):
    return re.search(r"NOPERM|can't run this command|ACL failure in script", weir.output())


@pytest.mark.parametrize("command", sorted(set(documented_commands() if os.path.exists(os.path.join(ROOT, "docs", "redis.md")) else ())
                                           - REAPER))
def test_rights_are_needed(redis, start, relays, command):
    weir = start(relays(1), top={"redis": {"url": user(redis, command), "publish-interval": "50ms"}})
    # What is said at the end only is asked for then.
    if command not in ("zrem",):
        wait_until(lambda: denied(weir), 20, lambda: "what is refused is logged:\n" + weir.output())
    weir.client().ehlo().message()
    weir.term()
    assert weir.wait() == 0
    assert denied(weir), weir.output()


def test_the_reaper_rights_are_tested():
    with open(os.path.join(ROOT, "tests", "unit", "test_statistics.c")) as file:
        needed = set(re.findall(r'"([a-z]+)"', re.search(r"needed\[\] = \{(.*?)\}", file.read(), re.S)[1]))
    assert REAPER <= needed and REAPER <= set(documented_commands())
