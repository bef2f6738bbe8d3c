"""weirctl and a farm whose Redis is more than one server: sentinels, a cluster; and over TLS."""

import json
import re

import pytest
from test_control import RunningTop
from test_farm_control import farmctl
from weirtest.net import free_port, wait_until
from weirtest.redis import Redis, SlotMove, cluster_of, sentinels_of


class Farm:
    """Two Weirs before the same two relays, and weirctl over the same URL."""

    def __init__(self, url, start, relays, ca=None):
        self.url, self.options = url, ["--ca", ca] if ca else []
        section = {"url": url, "publish-interval": "50ms", **({"ca": ca} if ca else {})}
        both = relays(2)
        self.weirs = [start(both, top={"redis": section}) for _ in range(2)]
        self.wait_for_both()
        for weir in self.weirs:
            weir.mark_baseline()

    def ctl(self, *arguments):
        return farmctl(self.url, *self.options, *arguments)

    def ask(self, *arguments):
        code, out, err = self.ctl("--json", *arguments)
        assert code == 0, (arguments, err)
        return json.loads(out)

    def wait_for_both(self):
        """Until both are there, and whoever asks hears so."""
        wait_until(lambda: self.alive() == 2, 40, lambda: "two that live:\n%s\n%s" % (self.ctl("instances"), self.weirs[0].output()), 0.1)

    def alive(self):
        code, out, _ = self.ctl("--json", "instances")
        return sum(one["alive"] for one in json.loads(out)) if code == 0 else 0

    def admin(self):
        return [weir.ask("backends")[0]["admin"] for weir in self.weirs]

    def goes_round(self):
        """What operators say reaches every Weir, and what Weirs count reaches the operators."""
        clients = [weir.client().ehlo() for weir in self.weirs]
        for client in clients:
            client.envelope()
        wait_until(lambda: sum(one["connections"] for one in self.ask("backends")) == 2, 10, lambda: str(self.ask("backends")))
        assert self.ask("drain", "r1")[0]["admin"] == "drain"
        wait_until(lambda: self.admin() == ["drain"] * 2, 10, lambda: str(self.admin()))
        assert self.ask("backends")[0]["admin_by"] == "farm"
        assert self.ask("ready", "r1")[0]["admin"] == "ready"
        wait_until(lambda: self.admin() == ["ready"] * 2, 10, lambda: str(self.admin()))
        for client in clients:
            client.data(b"x\r\n")
            client.quit()
        wait_until(lambda: self.ask("status")["pools"][0]["usable"] == 2, 10, "each Weir has said so")
        status = self.ask("status")
        assert status["instances"] == 2 and status["ready"] and status["pools"][0]["backends"] == 2
        return status


@pytest.fixture(params=["plain", "tls"])
def tls(request, pki):
    """None, or for sentinels_of() and cluster_of()."""
    return pki if request.param == "tls" else None


def test_sentinels(redis, start, relays, tls):
    """Before and after a failover; what was said before it holds."""
    url, master, other = sentinels_of(redis, tls)
    farm = Farm(url, start, relays, tls and tls.ca)
    assert farm.goes_round()["redis"]["server"] == url
    farm.ask("weight", "r2", "7")
    wait_until(lambda: other.hash("weir:{main}:admin") == {"r2.weight": "7"}, 10, "the replica has it")
    master.stop()
    farm.wait_for_both()
    assert other.ask("ROLE")[0] == b"master"
    assert farm.ask("backends")[1]["weight"] == 7
    farm.goes_round()
    # A sentinel that is not there is passed over.
    first = url[len("sentinel://"):].split(",")[0]
    farm.url = url.replace(first, "127.0.0.1:%d" % free_port())
    farm.goes_round()
    code, _, err = farmctl(url.replace("/mail", "/nobody"), *farm.options, "status")
    assert code == 3 and "nobody" in err and "Traceback" not in err, err


def test_top_over_a_failover(redis):
    """The live view goes on at the new master."""
    url, master, _ = sentinels_of(redis)
    with RunningTop(["--redis", url, "--farm", "main"], top={"redis": {"url": url, "publish-interval": "50ms"}}) as (_, top):
        top.wait_for(b"farm main: 1 instances, 0 gone: ready", b"r1", b"q quits")
        master.stop()
        top.wait_for(b"what is shown is old")
        top.seen = b""
        top.wait_for(b"farm main: 1 instances, 0 gone: ready", b"messages 0.0/s", timeout=40)
        top.press(b"q")
        assert top.ended() == 0


def test_a_cluster(redis, start, relays, tls):
    """By any of its nodes; while the farm's slot moves, and after."""
    url, nodes = cluster_of(redis, tls=tls)
    farm = Farm(url, start, relays, tls and tls.ca)
    assert farm.goes_round()["redis"]["server"] == url
    move = SlotMove(nodes, "weir:{main}:instances")
    stranger = next(node for node in nodes if node not in (move.owner, move.heir))
    farm.url = "cluster://127.0.0.1:%d%s" % (stranger.public_port, "?tls=on" if tls else "")
    farm.goes_round()
    # It is moving: weirctl is sent to and fro with what it asks.
    move.begin()
    assert farm.ask("weight", "r2", "7")[0]["weight"] == 7
    assert len(farm.ask("backends")) == 2
    move.keys()
    assert farm.ask("backends")[1]["weight"] == 7
    assert farm.ask("weight", "r2", "default")[0]["weight"] == 1
    assert move.keys().end().ask("EXISTS", "weir:{main}:instances") == 1
    farm.wait_for_both()
    farm.goes_round()
    # Redis by itself is not taken for a cluster's node, and says where to go.
    code, _, err = farmctl(stranger.url, *farm.options, "status")
    assert code in (1, 3) and "MOVED" in err, err


def test_tls(redis, start, relays, pki):
    """The certificate is verified: by `ca`, and not without."""
    url = redis(tls=pki).url
    farm = Farm(url, start, relays, pki.ca)
    assert farm.goes_round()["redis"]["server"] == url
    for options in ([], ["--ca", pki.foreign_ca]):
        code, out, err = farmctl(url, *options, "status")
        assert code == 3 and not out and "certificate" in err, err
    code, _, err = farmctl(url.replace("127.0.0.1", "localhost"), "--ca", pki.ca, "status")
    assert code == 3 and re.search("certificate|connect", err), err
    code, _, err = farmctl(url.replace("rediss", "redis"), "status")
    assert code == 3, err
    code, _, err = farmctl(url, "--ca", "/nowhere/ca.pem", "status")
    assert code == 2 and "--ca: cannot be read" in err, err
