"""Relays that report their load: agents that speak HAProxy's agent-check, good, odd and hostile ones."""

import contextlib

import pytest
from weirtest.agent import HANG, Agent
from weirtest.net import wait_until

FAST = {"health": {"interval": "100ms", "fast-interval": "50ms", "fall": 2, "rise": 2, "timeout": "3s"}}


@pytest.fixture
def agent():
    one = Agent()
    yield one
    one.stop()


@pytest.fixture
def weir(start, relays, agent):
    """Two relays; r1 has the agent."""
    first, second = relays(2)
    weir = start({"r1": {"address": first, "agent": agent.text}, "r2": second}, pool=FAST)
    weir.wait_metric(1, "weir_backend_agent_up", backend="r1")
    weir.wait_metric(2, "weir_backend_up")
    return weir


def share(weir, sessions=40):
    """Of so many messages, how many the first relay got."""
    before = len(weir.relays[0].traffic())
    for _ in range(sessions):
        weir.deliver()
    return len(weir.relays[0].traffic()) - before


def split(weir, sessions):
    """How so many sessions at a time are spread over both."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(weir.client()) for _ in range(sessions)]
        for client in clients:
            client.ehlo().ok("MAIL FROM:<a@b.test>")
        found = [weir.metric("weir_backend_connections", backend=name) for name in ("r1", "r2")]
        for client in clients:
            client.quit()
    weir.wait_metric(0, "weir_backend_connections")
    return found


def state_lines(weir, backend="r1"):
    return [(line["from"], line["to"]) for line in weir.find_log(event="backend-state", backend=backend)]


def test_weight(weir, agent):
    assert weir.metric("weir_backend_agent_share", backend="r1") == 1
    assert weir.metric("weir_backend_agent_share", backend="r2") is None
    agent.say(b"25%\n")
    weir.wait_metric(0.25, "weir_backend_agent_share")
    assert split(weir, 10) == [2, 8]
    agent.say(b"300%\n")
    weir.wait_metric(3, "weir_backend_agent_share")
    assert split(weir, 8) == [6, 2]
    agent.say(b"0%\n")
    weir.wait_metric(0, "weir_backend_agent_share")
    assert share(weir) == 0
    weir.wait_log(event="backend-agent", backend="r1", percent=0)
    agent.say(b"100%\n")
    weir.wait_metric(1, "weir_backend_agent_share")
    assert share(weir) > 5
    # Nothing of it was a change of state.
    assert state_lines(weir) == [("init", "up")]


def test_figures_are_not_logged_one_by_one(weir, agent):
    for percent in range(20, 60):
        agent.say(b"%d%%\n" % percent)
        weir.wait_metric(percent / 100, "weir_backend_agent_share")
    assert not weir.find_log(event="backend-agent")


def test_limit(weir, agent):
    agent.say(b"maxconn:1\n")
    weir.wait_metric(1, "weir_backend_limit", backend="r1")
    assert split(weir, 6) == [1, 5]
    agent.say(b"maxconn:0\n")
    weir.wait_metric(float("inf"), "weir_backend_limit", backend="r1")


@pytest.mark.parametrize("word", [b"drain\n", b"maint\n"])
def test_drain_and_maint(weir, agent, word):
    agent.say(word)
    line = weir.wait_log(event="backend-admin", backend="r1", to=word.decode().strip())
    assert line["by"] == "agent"
    assert share(weir, 10) == 0
    # Not said is not taken back, and down is another matter.
    agent.say(b"100% up\n")
    agent.wait_asked()
    assert share(weir, 10) == 0
    agent.say(b"ready\n")
    weir.wait_log(event="backend-admin", backend="r1", to="ready")
    wait_until(lambda: share(weir, 10) > 0, 15, "it is used again")


@pytest.mark.parametrize("word", ["down", "fail", "stopped"])
def test_down(weir, agent, word):
    agent.say(b"%s #queue, is full\r\nup\r\n" % word.upper().encode())
    line = weir.wait_log(event="backend-state", backend="r1", to="down")
    assert line["reason"] == "agent: %s: queue, is full" % word
    checked = len(weir.relays[0].connections)
    assert share(weir, 10) == 0
    # Checks pass meanwhile, and ready is the other word's opposite.
    agent.say(b"ready\n")
    wait_until(lambda: len(weir.relays[0].connections) >= checked + 6, 5, "checks go on")
    assert state_lines(weir)[-1] == ("up", "down")
    agent.say(b"up\n")
    weir.wait_log(event="backend-state", backend="r1", to="up", times=2)
    assert share(weir) > 5


def test_no_agent_no_change(weir, agent):
    """It goes away, and hangs: what it said holds, and one line tells of each."""
    agent.say(b"down\n")
    weir.wait_log(event="backend-state", backend="r1", to="down")
    agent.stop()
    line = weir.wait_log(event="backend-agent", backend="r1", state="unreachable")
    assert line["reason"] == "connect refused" and line["agent"] == agent.text
    assert weir.metric("weir_backend_agent_up") == 0
    checked = len(weir.relays[0].connections)
    wait_until(lambda: len(weir.relays[0].connections) >= checked + 8, 5, "checks go on")
    assert len(weir.find_log(event="backend-agent")) == 1
    assert state_lines(weir)[-1] == ("up", "down")
    agent.say(b"up\n")
    agent.start()
    weir.wait_log(event="backend-agent", backend="r1", state="answers")
    weir.wait_log(event="backend-state", backend="r1", to="up", times=2)
    # Unreachable is not down either.
    agent.say(HANG)
    assert weir.wait_log(15, event="backend-agent", state="unreachable", times=2)["reason"] == "timeout"
    assert share(weir, 20) > 0
    assert state_lines(weir)[-1] == ("down", "up")


GARBAGE = {
    "nothing": (b"", "it says nothing"),
    "empty line": (b"\n", "it says nothing"),
    "another protocol": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unknown word: HTTP/1.1"),
    "figures without a unit": (b"75\n", "unknown word: 75"),
    "NUL": (b"\0\0up\n", "no line of text"),
    "a megabyte": (b"x" * (1 << 20), "no line of text"),
    "a megabyte of words": (b"down 0% " * (1 << 17), "no line of text"),
    "every octet": (bytes(set(range(1, 256)) - set(b"\r\n")) + b"\n", "unknown word: \1\2\3\4\5\6\7\10"),
}


@pytest.mark.parametrize("text,reason", GARBAGE.values(), ids=GARBAGE)
def test_garbage(weir, agent, text, reason):
    agent.say(b"50%\n")
    weir.wait_metric(0.5, "weir_backend_agent_share")
    agent.say(text)
    weir.wait_log(event="backend-agent", backend="r1", state="not-understood")
    agent.wait_asked(3)
    lines = weir.find_log(event="backend-agent")
    assert [line["reason"] for line in lines] == [reason]
    assert weir.metric("weir_backend_agent_share") == 0.5 and weir.metric("weir_backend_agent_up") == 0
    assert state_lines(weir) == [("init", "up")]
    agent.say(b"75%\n")
    weir.wait_metric(0.75, "weir_backend_agent_share")


def test_half_understood(weir, agent):
    agent.say(b"load=17 40% up")
    weir.wait_metric(0.4, "weir_backend_agent_share")
    agent.wait_asked(3)
    weir.wait_log(event="backend-agent")
    assert [line["reason"] for line in weir.find_log(event="backend-agent")] == ["unknown word: load=17"]
    assert weir.metric("weir_backend_agent_up") == 1


def test_reload_withdraws(weir, agent):
    agent.say(b"down maxconn:3 10% drain\n")
    weir.wait_log(event="backend-state", backend="r1", to="down")
    weir.wait_log(event="backend-admin", backend="r1", to="drain")

    def change(config):
        del config["pools"]["relays"]["backends"]["r1"]["agent"]
    weir.reload(change)
    weir.wait_log(event="backend-state", backend="r1", to="up", times=2)
    weir.wait_log(event="backend-admin", backend="r1", to="ready")
    assert weir.metric("weir_backend_agent_up") is None
    assert weir.metric("weir_backend_limit", backend="r1") == float("inf")
    assert share(weir) > 5
    asked = agent.asked
    checked = len(weir.relays[0].connections)
    wait_until(lambda: len(weir.relays[0].connections) >= checked + 4, 5, "checks go on")
    assert agent.asked == asked


def test_reload_another_agent(weir, agent):
    other = Agent(b"up 60%\n")
    agent.say(b"drain 10%\n")
    weir.wait_log(event="backend-admin", backend="r1", to="drain")

    def change(config):
        config["pools"]["relays"]["backends"]["r1"]["agent"] = other.text
    weir.reload(change)
    weir.wait_log(event="backend-admin", backend="r1", to="ready")
    weir.wait_metric(0.6, "weir_backend_agent_share")
    # The same one: its word stays over a reload.
    weir.reload()
    other.wait_asked()
    assert weir.metric("weir_backend_agent_share") == 0.6
    other.stop()


def test_what_status_shows(weir, agent):
    agent.say(b"down drain 20% maxconn:9\n")
    weir.wait_log(event="backend-state", backend="r1", to="down")

    def shown():
        rows = {row["name"]: row for row in weir.status()["backends"]}
        assert rows["r2"]["agent"] is None and set(rows["r2"]["check_ms"]) == {"connect", "banner", "ehlo", "quit"}
        return rows["r1"]["agent"] == {"answers": True, "down": True, "admin": "drain", "percent": 20, "limit": 9}
    wait_until(shown, 5, lambda: weir.status())
    agent.say(b"up ready\n")
    weir.wait_log(event="backend-state", backend="r1", to="up", times=2)


def test_names_and_ports(start, relays):
    first, second = relays(2)
    agent = Agent(b"30%\n")
    weir = start({"r1": {"address": first, "agent": agent.address[1]}, "r2": {"address": second, "agent": "localhost:%d" % agent.address[1]}},
                 pool=FAST)
    for name in ("r1", "r2"):
        weir.wait_metric(0.3, "weir_backend_agent_share", backend=name)
    agent.stop()


def test_stage_times(start, relay):
    weir = start([relay], pool=FAST, top={"log": {"level": "debug"}})
    line = weir.wait_log(event="check", backend="r1")
    assert {key for key in line if key.endswith("_ms")} == {"connect_ms", "banner_ms", "ehlo_ms", "quit_ms"}
    wait_until(lambda: weir.metric("weir_check_seconds_count", stage="ehlo"), 5, "it is counted")
    assert weir.metric("weir_check_seconds_count", stage="mail") is None
    assert weir.metric("weir_backend_check_seconds", backend="r1") >= 0


def test_the_whole_farm_goes_and_comes_back(start, relays):
    """Each is told of once, who asks meanwhile hears 421, and then all is as before; the checks did not come all in one moment."""
    farm = relays(16)
    weir = start(farm, pool={"health": {"interval": "2s", "fast-interval": "500ms", "fall": 2, "rise": 2}, "queue-timeout": "200ms"})
    weir.wait_metric(16, "weir_backend_up")
    for one in farm:
        one.stop()
    weir.wait_metric(0, "weir_backend_up", timeout=15)
    with weir.client() as client:
        assert client.ehlo().command("MAIL FROM:<a@b.test>").code == 421
    for one in farm:
        one.start()
    weir.wait_metric(16, "weir_backend_up", timeout=15)
    weir.deliver()
    weir.wait_log(event="backend-state", times=48)
    for number in range(16):
        assert state_lines(weir, "r%d" % (number + 1)) == [("init", "up"), ("up", "down"), ("down", "up")]
    moments = {line["time"][:-2] for line in weir.find_log(event="backend-state", to="up")[16:]}
    assert len(moments) > 1, moments


def test_flapping_is_damped(start, relays):
    """A relay that comes and goes with every check is soon left alone for longer, while there is another."""
    first, second = relays(2)
    weir = start([first, second], pool={"health": {**FAST["health"], "fall": 1, "rise": 1}})
    weir.wait_metric(2, "weir_backend_up")
    for times in range(3):
        first.on("ehlo", b"451 4.3.0 not now\r\n")
        weir.wait_log(event="backend-state", backend="r1", to="down", times=times + 1)
        first.behave()
        if times < 2:
            weir.wait_log(event="backend-state", backend="r1", to="up", times=times + 2)
    checked = len(first.connections)
    wait_until(lambda: len(first.connections) >= checked + 5, 5, "checks go on, and pass")
    assert state_lines(weir)[-1] == ("up", "down")
    assert int(weir.find_log(event="backend-state", backend="r1")[-1]["held_ms"]) >= 4500
    # With nothing beside it, it is better than none.
    second.on("ehlo", b"451 4.3.0 not now\r\n")
    weir.wait_log(event="backend-state", backend="r2", to="down")
    weir.wait_log(event="backend-state", backend="r1", to="up", times=4)
    weir.deliver()
    second.behave()
