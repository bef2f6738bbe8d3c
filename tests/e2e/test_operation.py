"""Starting, reloading, stopping; what the operator sees over HTTP and from --check."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from weirtest import weir as house
from weirtest.client import Client
from weirtest.dns import NameServer
from weirtest.net import abort, free_port, has_ipv6, wait_until
from weirtest.weir import Weir

MINIMAL = """\
listeners:
  smtp: { address: ["127.0.0.1:%d"], pool: relays }
pools:
  relays:
    backends:
      r1: { address: "127.0.0.1:%d" }
http: { address: "" }
control: ""
"""


# Reload

def test_reload_uses_a_new_backend(start, relays):
    first, second = relays(2)
    weir = start([first])
    with weir.client() as kept:
        kept.ehlo().message()
        weir.reload(lambda config: config["pools"]["relays"].update(backends={"r2": {"address": "127.0.0.1:%d" % second.port}}))
        wait_until(lambda: weir.metric("weir_backend_up", backend="r2") == 1, 5, "r2 is up")
        weir.deliver(sender="new@x")
        assert [one.mail for one in second.committed()] == [b"new@x"]
        # The old session lives; the backend it has is out of the file, so its next transaction may go either way.
        kept.message(sender="kept@x")
        kept.quit()
    assert len(first.committed() + second.committed()) == 3
    wait_until(lambda: weir.metric("weir_backend_up", backend="r1") is None, 5, "r1 is gone from the metrics")
    weir.relays[:] = [second]


def test_reload_keeps_counts_and_health(start, relays):
    first, second = relays(2)
    weir = start([first, second])
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    clients = [weir.client().ehlo().envelope() for _ in range(4)]
    assert weir.metric("weir_backend_connections") == 4
    before = weir.metric("weir_sessions_total")
    weir.reload(lambda config: config["pools"]["relays"]["backends"]["r1"].update({"max-connections": 7}))
    weir.wait_metric(7, "weir_backend_limit", backend="r1")
    assert weir.metric("weir_backend_connections") == 4 and weir.metric("weir_backend_up") == 2
    assert weir.metric("weir_sessions_total") >= before
    for client in clients:
        assert client.data(b"x\r\n").code == 250
        client.quit()


@pytest.mark.parametrize("text", ["listeners: [", "nonsense: true\n", ""])
def test_bad_reload_changes_nothing(start, relay, text):
    weir = start([relay])
    good = open(weir.path).read()
    weir.write(text)
    weir.signal(signal.SIGHUP)
    wait_until(lambda: [line for line in weir.log() if line["level"] == "error"], 5, lambda: "an error is logged:\n" + weir.output())
    assert re.search(r"weir\.yaml:\d+:\d+: ", weir.output()), weir.output()
    weir.deliver()
    weir.write(good)
    weir.signal(signal.SIGHUP)
    weir.deliver()


def test_reload_with_a_port_in_use_changes_nothing(start, relay):
    weir = start([relay])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        weir.reload(lambda config: config["listeners"].update(other={"address": [address], "pool": "relays"}))
        wait_until(lambda: [line for line in weir.log() if line["level"] == "error"], 5, lambda: "an error is logged:\n" + weir.output())
        assert address in weir.output()
        weir.deliver()


def test_reload_adds_and_removes_a_listener(start, relay):
    weir = start([relay])
    port = free_port()
    with weir.client() as kept:
        kept.ehlo()
        weir.reload(lambda config: config["listeners"].update(other={"address": ["127.0.0.1:%d" % port], "pool": "relays"}))
        wait_until(lambda: reachable(port), 5, "the new listener accepts")
        with Client(("127.0.0.1", port)) as client:
            client.ehlo().message()
        weir.reload(lambda config: config["listeners"].pop("other"))
        wait_until(lambda: not reachable(port), 5, "the removed listener refuses")
        kept.message()
        kept.quit()
    weir.deliver()


def test_reloads_under_load_cut_nobody(start, relays):
    first, second = relays(2)
    weir = start([first, second])
    for round_number in range(8):
        clients = [weir.client().ehlo().envelope() for _ in range(4)]
        weir.reload(lambda config: config["pools"]["relays"]["backends"]["r2"].update(weight=1 + round_number % 3))
        for client in clients:
            assert client.data(b"x\r\n").code == 250
            client.message()
            client.quit()
    assert len(first.committed() + second.committed()) == 64


def reachable(port, host="127.0.0.1"):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.connect_ex((host, port)) == 0


# Stop

def test_term_drains(start, relay):
    weir = start([relay])
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        weir.term()
        wait_until(lambda: not reachable(weir.port), 5, "new connections are refused")
        client.send(b"x\r\n.\r\n")
        client.expect(250)
        assert weir.alive(), "the session is still open"
        client.quit()
    assert weir.wait() == 0
    assert len(relay.committed()) == 1


def test_term_with_idle_sessions(start, relay):
    """They may stay until drain-timeout, which is 30 s as a standard."""
    weir = start([relay], top={"drain-timeout": "3s"})
    clients = [weir.client().ehlo() for _ in range(3)]
    weir.term()
    assert weir.wait() == 0
    for client in clients:
        assert [reply.code for reply in client.replies()] in ([421], []), "told, not cut"


def test_drain_timeout(start, relay):
    weir = start([relay], top={"drain-timeout": "1s"})
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        began = time.monotonic()
        weir.term()
        assert weir.wait() == 0
        assert 0.7 < time.monotonic() - began < 20
        assert [reply.code for reply in client.replies()] in ([421], [451]), "a 4xx, received"
    assert not relay.committed()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_now(start, relay, second):
    weir = start([relay])
    with weir.client() as client:
        client.ehlo().envelope()
        weir.term()
        wait_until(lambda: not reachable(weir.port), 5, "it drains")
        weir.signal(second)
        assert weir.wait(10) in (0, 1), "long before its drain-timeout"
    assert not relay.committed()


def test_drain_grace(start, relay):
    weir = start([relay], top={"drain-grace": "4s"})
    weir.term()
    wait_until(lambda: weir.http("/readyz")[0] == 503, 5, "/readyz says 503")
    weir.deliver()
    assert weir.wait() == 0


# The command line

def test_version_and_help():
    code, out, _, _ = house.run("--version")
    assert code == 0 and re.match(r"weir \d+\.\d+", out)
    code, out, err, _ = house.run("--help")
    assert code == 0 and "--check" in out + err and "--backend" in out + err


@pytest.mark.parametrize("arguments", [("--nonsense",), ("-c",), ("--listen", "nonsense"), ("stray",),
                                       ("--listen", "127.0.0.1:0", "--backend", "x*0*0")])
def test_usage_errors(arguments):
    assert house.run(*arguments)[0] == 2


def test_check_accepts():
    code, out, err, _ = house.run("--check", "-c", text=MINIMAL % (free_port(), free_port()))
    assert code == 0, out + err


BROKEN = {
    "unknown key": ("listeners", "listener", 1),
    "unknown nested key": ("pool: relays", "poool: relays", 2),
    "unknown pool": ("pool: relays", "pool: nowhere", 2),
    "bad port": ("r1: { address: \"127.0.0.1:%d\" }", "r1: { address: \"127.0.0.1:99999\" }", 6),
    "no port": ("r1: { address: \"127.0.0.1:%d\" }", "r1: { address: \"127.0.0.1\" }", 6),
    "bad weight": ("r1: { address", "r1: { weight: heavy, address", 6),
    "negative weight": ("r1: { address", "r1: { weight: -1, address", 6),
    "bad duration": ("  relays:\n", "  relays:\n    queue-timeout: 10 parsecs\n", 5),
    "bad size": ("pool: relays }", "pool: relays, max-message-size: 5 stones }", 2),
    "bad algorithm": ("  relays:\n", "  relays:\n    algorithm: luck\n", 5),
    "bad boolean": ("pool: relays }", "pool: relays, open-to-all: perhaps }", 2),
    "bad network": ("pool: relays }", "pool: relays, allow-from: [10.0.0.1/8] }", 2),
    "open relay": ("pool: relays }", "pool: relays, allow-from: [0.0.0.0/0] }", 2),
    "key twice": ("http: { address: \"\" }", "http: { address: \"\" }\nhttp: { address: \"\" }", 8),
    "list for a map": ("http: { address: \"\" }", "http: [1]", 7),
    "text for a map": ("http: { address: \"\" }", "http: hello", 7),
    "unset variable": ("hostname", "hostname", 0),
    "not YAML": ("listeners:", "listeners: {", 0),
    "a tab": ("  smtp:", "\tsmtp:", 2),
    "own listener": ("r1: { address: \"127.0.0.1:%d\" }", "r1: { address: \"127.0.0.1:2525\" }", 6),
    "no backends": ("    backends:\n      r1: { address: \"127.0.0.1:%d\" }\n", "    backends: {}\n", 5),
    "not built yet": ("pool: relays }", "pool: relays, tls: required }", 2),
    "empty file": ("", "", 0),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_check_names_the_line(name):
    old, new, line = BROKEN[name]
    text = MINIMAL.replace(old, new) if old else ""
    if name == "unset variable":
        text, line = "hostname: ${WEIR_TEST_UNSET}\n" + MINIMAL, 1
    ports = [2525, 2526][:text.count("%d")]
    code, out, err, path = house.run("--check", "-c", text=text % tuple(ports) if ports else text)
    assert code == 2, out + err
    places = [int(found) for found in re.findall(r"^(?:weir: )?%s:(\d+):\d+: \S" % re.escape(path), out + err, re.M)]
    assert places, "FILE:LINE:COLUMN: message expected: %r" % (out + err)
    assert line == 0 or line in places, (places, out + err)


def test_check_reports_every_error_at_once():
    text = "hostname: [1]\nnonsense: 1\n" + (MINIMAL % (2525, 2526)).replace("pool: relays", "pool: gone, max-errors: x")
    text = text.replace("    backends", "    algorithm: luck\n    queue-size: -5\n    backends")
    code, out, err, path = house.run("--check", "-c", text=text)
    lines = {int(found) for found in re.findall(r"%s:(\d+):" % re.escape(path), out + err)}
    assert code == 2 and {1, 2, 4, 7, 8} <= lines, out + err


@pytest.mark.parametrize("what", ["directory", "binary", "missing", "utf-16", "deep"])
def test_check_on_what_is_no_configuration(tmp_path, what):
    path = tmp_path / "weir.yaml"
    if what == "directory":
        path.mkdir()
    elif what == "binary":
        shutil.copy("/bin/true", path)
    elif what == "utf-16":
        path.write_bytes((MINIMAL % (1, 2)).encode("utf-16"))
    elif what == "deep":
        path.write_text("[" * 20000)
    code, out, err, _ = house.run("--check", "-c", str(path))
    # UTF-16 is YAML too: it may be read, or refused.
    assert code == 2 or what == "utf-16" and code == 0, out + err
    assert code == 0 or str(path) in out + err


def test_running_a_broken_file_is_2_as_well():
    code, _, err, path = house.run("-c", text="nonsense: 1\n")
    assert code == 2 and path + ":1:" in err


@pytest.mark.parametrize("section", ["listeners.NAME", "pools.NAME", "pools.NAME.backends.NAME", "limits.NAME", "redis"])
def test_every_key_is_in_the_manual(section):
    """And the other way round, but for those that are not built."""
    with open(os.path.join(house.ROOT, "docs", "configuration.md"), encoding="utf-8") as file:
        rows = re.search(r"^## %s\n(.*?)(?=^## |\Z)" % re.escape(section), file.read(), re.M | re.S)[1].splitlines()
    keys = [re.match(r"\| `([a-z-]+)` \|", row)[1] for row in rows if row.startswith("| `") and "*Not built*" not in row]
    with open(os.path.join(house.ROOT, "docs", "weir.8"), encoding="utf-8") as file:
        table = re.search(r'^\.SS "?%s"?\n(.*?)^\.TE' % re.escape(section), file.read(), re.M | re.S)[1].replace("\\-", "-")
    told = re.findall(r"^([a-z0-9-]+)\t", table, re.M)
    assert keys and sorted(key for key in keys if key != "backends") == sorted(told)


def test_environment_variables(start, relay):
    weir = start(text="", start=False)
    weir.relays.append(relay)
    text = MINIMAL.replace('"127.0.0.1:%d" }', '"${WEIR_TEST_RELAY}" }')
    text = text.replace('http: { address: "" }', 'http: { address: "127.0.0.1:%d" }')
    weir.write("hostname: ${WEIR_TEST_NAME:-fallback.test}\n" + text % (weir.port, weir.http_port))
    weir.environment["WEIR_TEST_RELAY"] = "127.0.0.1:%d" % relay.port
    weir.start()
    with weir.client() as client:
        assert client.banner.text == "fallback.test ESMTP Weir"
        client.ehlo().message()


def test_quick_start(relay):
    port = free_port()
    process = subprocess.Popen([house.BINARY, "--listen", "127.0.0.1:%d" % port, "--backend", "127.0.0.1:%d*3" % relay.port],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=dict(os.environ, **house.SANITIZER_OPTIONS))
    try:
        wait_until(lambda: reachable(port), 10, "it listens")
        with Client(("127.0.0.1", port)) as client:
            client.ehlo().message()
            client.quit()
        process.terminate()
        output = process.communicate(timeout=15)[0].decode()
        assert process.returncode == 0 and not house.SANITIZER.search(output), output
    finally:
        process.kill()
    assert len(relay.committed()) == 1


# Listeners and addresses

def test_port_in_use_by_another_program(relay):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err, _ = house.run("-c", text=MINIMAL % (port, relay.port))
    assert code == 1 and "127.0.0.1:%d" % port in err and "in use" in err, err


def test_port_in_use_by_another_weir(start, relay):
    weir = start([relay])
    code, _, err, _ = house.run("-c", text=MINIMAL % (weir.port, relay.port))
    assert code == 1 and "127.0.0.1:%d" % weir.port in err and "in use" in err, err
    for _ in range(10):
        weir.deliver()


def test_http_port_in_use(start, relay):
    weir = start([relay])
    text = (MINIMAL % (free_port(), relay.port)).replace('http: { address: "" }', 'http: { address: "127.0.0.1:%d" }' % weir.http_port)
    code, _, err, _ = house.run("-c", text=text)
    assert code == 1 and "%d" % weir.http_port in err, err


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_privileged_port_without_rights():
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 25:
            pytest.skip("every port is free to all here")
    weir = Weir(text=MINIMAL % (25, free_port()), start=False,
                wrapper=["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"])
    try:
        weir.start(wait=None)
        assert weir.wait() == 1
        assert "127.0.0.1:25" in weir.output() and re.search("denied|permitted", weir.output()), weir.output()
    finally:
        weir.discard()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_user(start, relay):
    weir = start([relay], top={"user": "nobody"})
    with open("/proc/%d/status" % weir.pid) as file:
        status = file.read()
    assert re.search(r"^Uid:\s+65534\s+65534\s+65534\s+65534$", status, re.M), status
    assert re.search(r"^Groups:\s*(65534\s*)?$", status, re.M), status
    weir.deliver()


@pytest.fixture
def nobody():
    """A name server that knows no name: what the machine's own says, and when, is its own affair. Weir ends before it."""
    server = NameServer()
    yield {"nameservers": [server.address]}
    server.discard()


def test_unresolvable_backend(nobody, start, relay):
    weir = start({"r1": relay, "ghost": "no-such-host.invalid:25"}, top=nobody)
    wait_until(lambda: weir.metric("weir_backend_up", backend="ghost") == 0 or not
               [1 for name, labels, _ in weir.metrics() if labels.get("backend") == "ghost"], 5, "ghost is down")
    wait_until(lambda: "no-such-host.invalid" in weir.output() or weir.find_log(backend="ghost"), 10, lambda: "logged:\n" + weir.output())
    for _ in range(4):
        weir.deliver()


def test_only_an_unresolvable_backend(nobody, start):
    weir = start({"ghost": "no-such-host.invalid:25"}, pool={"queue-timeout": "500ms"}, top=nobody, wait="alive")
    with weir.client() as client:
        assert client.ehlo().command("MAIL FROM:<a@x>").code in (421, 451)
    assert weir.http("/readyz")[0] == 503


def test_a_name_with_an_address(start, relay):
    weir = start({"r1": "localhost:%d" % relay.port})
    weir.deliver()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_ipv6_listener(start, relay):
    port = free_port("::1")
    weir = start([relay], listener={"address": ["127.0.0.1:%d" % free_port(), "[::1]:%d" % port], "allow-from": ["::1"]})
    weir.relays.clear()  # the epilogue's own session would come by the other port
    with Client(("::1", port)) as client:
        client.ehlo().message()
        client.quit()
    assert weir.wait_log(event="transaction", outcome="delivered")["client"].startswith("[::1]:")


def test_unix_listener(start, relay, tmp_path):
    path = str(tmp_path / "smtp.sock")
    weir = start([relay], start=False)
    weir.config["listeners"]["smtp"]["address"].append("unix:" + path)
    weir.write()
    weir.start()
    with Client(path) as client:
        client.ehlo().message()
        client.quit()
    assert "unix" in weir.wait_log(event="transaction", outcome="delivered")["client"]
    weir.finish()
    assert len(relay.committed()) == 2
    relay.start()
    # A socket file left behind by a kill does not stand in the way.
    again = start([relay], start=False)
    again.config["listeners"]["smtp"]["address"] = ["unix:" + path]
    again.write()
    again.relays.clear()
    for _ in range(2):
        again.start()
        Client(path).ehlo().message()
        again.kill()
        assert os.path.exists(path)
    again.start()


# HTTP

def test_http_endpoints(start, relay):
    weir = start([relay])
    assert weir.http("/healthz")[0] == 200 and weir.http("/readyz")[0] == 200
    assert weir.http("/nowhere")[0] == 404
    assert weir.http("/metrics", "POST")[0] in (404, 405)
    text = weir.http("/metrics")[1]
    named = set(re.findall(r"^# TYPE (\S+) \S+$", text, re.M))
    for name in ("weir_sessions_active", "weir_sessions_total", "weir_transactions_total", "weir_backend_connections", "weir_backend_up",
                 "weir_backend_limit", "weir_queue_waiting", "weir_log_dropped_total", "weir_bytes_total"):
        assert name in named, "no TYPE for %s" % name
    assert not [name for name in named if not name.startswith("weir_")]


def test_every_metric_is_in_the_manual(start, relay):
    """And the other way round."""
    weir = start([relay], top={"redis": {"url": "redis://127.0.0.1:%d" % free_port()}, "limits": {"each": {"by": "client", "messages": "1000/1h"}}})
    there = re.findall(r"^# TYPE (\S+)", weir.http("/metrics")[1], re.MULTILINE)
    with open(os.path.join(house.ROOT, "docs", "weir.8"), encoding="utf-8") as manual:
        table = manual.read().split(".SS Metrics\n")[1].split(".TE")[0]
    assert len(there) > 20 and sorted(there) == sorted(re.findall(r"^(weir_\w+)\t", table, re.MULTILINE))


def test_ready_only_with_a_usable_backend(start, relay):
    asked = threading.Event()
    relay.on("banner", lambda *_: asked.wait(30) and None)
    weir = start([relay], wait="alive")
    assert weir.http("/readyz")[0] == 503
    asked.set()
    wait_until(lambda: weir.http("/readyz")[0] == 200, 5, "ready")


def test_http_off(relay):
    port = free_port()
    with Weir(text=MINIMAL % (port, relay.port), wait=None) as weir:
        weir.port = port
        wait_until(lambda: reachable(port), 10, "it listens")
        weir.deliver()
        weir.term()
        assert weir.wait() == 0


def test_hundred_http_connections_do_not_hurt(start, relay):
    weir = start([relay])
    sockets = []
    for _ in range(100):
        # Without waiting: those beyond the server's limits are left standing.
        sockets.append(socket.socket())
        sockets[-1].setblocking(False)
        sockets[-1].connect_ex(("127.0.0.1", weir.http_port))
    time.sleep(0.1)
    for one in sockets:
        try:
            one.send(b"GET /metrics HT")
        except OSError:
            pass
    weir.deliver()
    for one in sockets:
        abort(one)


def test_http_connections_of_one_leave_room_for_others(start, relay):
    """Who sends an octet now and then keeps his connections for long."""
    weir = start([relay])
    sockets = [socket.create_connection(("127.0.0.1", weir.http_port), 5, ("127.0.0.2", 0)) for _ in range(64)]
    for one in sockets:
        try:
            one.send(b"GET /metrics HT")
        except OSError:
            pass
    assert weir.http("/readyz")[0] == 200
    for one in sockets:
        abort(one)
