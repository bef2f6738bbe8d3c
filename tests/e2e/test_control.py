"""The operator's hand: weirctl, the control socket under it, and what drain, maint, ready and weight do to mail."""

import fcntl
import json
import os
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import termios
import threading
import time

import pytest
from test_auth import authenticate, farm  # noqa: F401 (a fixture)
from weirtest import weir as house
from weirtest.client import Closed
from weirtest.net import free_port, wait_until
from weirtest.relay import Relay
from weirtest.weir import Weir

FIELDS = {"pool", "name", "address", "state", "admin", "weight", "connections", "farm_connections", "idle", "limit", "max_connections",
          "reason", "since", "delivered", "rejected", "deferred", "failed"}


class Wire:
    """The socket by hand."""

    def __init__(self, path, timeout=20):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)  # without a limit: with one, a full queue is an error
        self.sock.settimeout(timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, octets):
        self.sock.sendall(octets)

    def answer(self):
        """The next line as an object; None at the end."""
        while b"\n" not in self.buffer:
            try:
                octets = self.sock.recv(65536)
            except ConnectionResetError:
                octets = b""
            if not octets:
                assert not self.buffer
                return None
            self.buffer += octets
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, **request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.answer()


@pytest.fixture
def two(start, relays):
    """A Weir before two relays, both found well; and the relays."""
    weir = start(relays(2))
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    return weir, weir.relays[0], weir.relays[1]


def backend(weir, name):
    return next(one for one in weir.ask("backends") if one["name"] == name)


# Commands and answers

def test_status(two):
    weir, _, _ = two
    with weir.client() as client:
        client.ehlo().message()
        status = weir.ask("status")
        assert status["version"] and status["pid"] == weir.pid and status["sessions"] == 1 and status["queued"] == 0
        assert 0 <= status["uptime"] < 60 and status["redis"] is None
        assert [(pool["name"], pool["backends"], pool["usable"], pool["connections"]) for pool in status["pools"]] == [("relays", 2, 2, 1)]
        client.quit()
    wait_until(lambda: weir.ask("status")["delivered"] == 1, 5, "the message is counted")
    text = weir.order("status")
    assert "pid %d" % weir.pid in text and "1 messages delivered" in text and "ready" in text


def test_backends(start, relay):
    weir = start({"r1": {"address": relay, "weight": 4, "max-connections": 20}, "r2": {"address": "127.0.0.1:%d" % free_port(), "priority": 1}})
    wait_until(lambda: backend(weir, "r2")["state"] == "down", 5, "r2 is found down")
    with weir.client() as client:
        client.ehlo().message()
        first, second = weir.ask("backends")
        assert FIELDS <= set(first) and FIELDS <= set(second)
        assert (first["pool"], first["name"], first["address"]) == ("relays", "r1", "127.0.0.1:%d" % relay.port)
        assert (first["state"], first["admin"], first["weight"], first["max_connections"], first["limit"]) == ("up", "ready", 4, 20, 20)
        assert (first["connections"], first["farm_connections"], first["idle"]) == (1, 1, 0)
        assert abs(first["since"] - time.time()) < 60
        assert second["state"] == "down" and second["limit"] is None and "refused" in second["reason"]
        client.ok("MAIL FROM:<a@x>")
        relay.on("rcpt", b"550 no\r\n", times=1)
        assert client.command("RCPT TO:<b@x>").code == 550
        client.quit()
    wait_until(lambda: backend(weir, "r1")["delivered"] == 1, 5, "the message is counted")
    lines = weir.order("backends").splitlines()
    assert all(len(line) <= 80 for line in lines) and lines[0].startswith("POOL")
    assert re.search(r"r2: down for .*refused", lines[-1])


@pytest.mark.parametrize("command", ["backends", "status"])
def test_every_key_is_in_the_manual(two, command):
    weir, _, _ = two
    with open(os.path.join(house.ROOT, "docs", "weirctl.8"), encoding="utf-8") as manual:
        told = re.split(r"\n\.B (?:backends|status)\n", manual.read().split("\nThe answer as JSON:")[1].split("\n.TP")[0])
    answer = weir.ask(command)
    keys = set(answer[0] if command == "backends" else answer)
    assert not keys - set(re.findall(r"\w+", told[1 if command == "backends" else 2]))


def test_sessions(two):
    weir, _, _ = two
    assert weir.ask("sessions") == {"total": 0, "shown": 0, "sessions": []}
    with weir.client() as idle, weir.client() as busy:
        idle.ehlo("idle.test")
        busy.ehlo("busy.test").message()
        found = weir.ask("sessions")
        assert (found["total"], found["shown"]) == (2, 2)
        by = {one["helo"]: one for one in found["sessions"]}
        assert by["idle.test"]["backend"] is None and by["idle.test"]["state"] == "idle" and by["idle.test"]["transactions"] == 0
        assert by["busy.test"]["backend"] in ("r1", "r2") and by["busy.test"]["transactions"] == 1 and by["busy.test"]["pool"] == "relays"
        assert by["busy.test"]["client"].startswith("127.0.0.1:") and by["busy.test"]["listener"] == "smtp"
        busy.envelope()
        busy.ok("DATA", 354)
        wait_until(lambda: {one["helo"]: one["state"] for one in weir.ask("sessions")["sessions"]}["busy.test"] == "data", 5, "it is in the body")
        assert "busy.test" in weir.order("sessions") and all(len(line) <= 80 for line in weir.order("sessions").splitlines())
        busy.send(b"x\r\n.\r\n")
        busy.expect(250)


@pytest.fixture
def many_files():
    """A user's limit may be 1024, and more is there for the asking."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= before[0] < 4096:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, before[1]))
        except ValueError:
            pytest.skip("no more than %d files can be opened here" % before[1])
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_sessions_than_are_shown(start, relay, many_files):
    """A thousand at most, the newest, and it says so."""
    weir = start([relay])
    clients = []
    try:
        for _ in range(1100):
            clients.append(weir.client())
        found = weir.ask("sessions")
        assert (found["total"], found["shown"], len(found["sessions"])) == (1100, 1000, 1000)
        ages = [one["age"] for one in found["sessions"]]
        assert ages == sorted(ages)
        ports = {int(one["client"].rsplit(":", 1)[1]) for one in found["sessions"]}
        newest = {client.sock.getsockname()[1] for client in clients[-900:]}
        assert newest <= ports, "the newest are shown"
        assert "the newest 1000 of 1100 sessions" in weir.order("sessions")
    finally:
        for client in clients:
            client.close()


def test_names_of_peers_do_no_harm(two):
    weir, _, _ = two
    with weir.client() as client:
        client.send(b"EHLO \x1b[31mred\x1b[0m\r\n")
        first = client.reply()
        client.send(b"EHLO caf\xc3\xa9.\xff.test\r\n")
        second = client.reply()
        out = weir.order("sessions")
        assert "\x1b" not in out
        if first.code == 250 or second.code == 250:
            assert len(weir.ask("sessions")["sessions"]) == 1, "whatever it is, it is JSON"


def test_the_rest_of_the_commands(two):
    weir, _, _ = two
    assert weir.ask("version")["version"] == weir.ask("status")["version"]
    assert weir.order("version").startswith("weirctl ")
    (instance,) = weir.ask("instances")
    assert instance["pid"] == weir.pid and str(weir.pid) in weir.order("instances")
    assert weir.order("names").split() == ["r1", "r2"] and weir.ask("names") == ["r1", "r2"]
    assert weir.ctl("--help")[0] == 0 and weir.ctl("--version")[1].startswith("weirctl ")


def test_exit_codes(two):
    weir, _, _ = two
    for name in ("nobody", "r", "r12", "r1@", "", "R1"):
        code, out, err = weir.ctl("drain", name)
        assert code == 1 and not out and err.startswith("weirctl: "), (name, code, out, err)
    assert 'there is no backend "nobody"' in weir.ctl("drain", "nobody")[2]
    for arguments in ([], ["nonsense"], ["drain"], ["drain", "r1", "r2"], ["status", "x"], ["weight", "r1"], ["weight", "r1", "1001"],
                      ["weight", "r1", "-1"], ["weight", "r1", "1.5"], ["weight", "r1", ""], ["--nonsense", "status"], ["top"], ["--redis", "x", "status"]):
        code, out, err = weir.ctl(*arguments)
        assert code == 2 and not out and err, (arguments, code, out, err)
    code, out, err = weir.ctl("--socket", os.path.join(weir.directory, "nowhere"), "status")
    assert code == 3 and "nowhere" in err and not out
    listener = socket.socket(socket.AF_UNIX)
    path = os.path.join(weir.directory, "other")
    listener.bind(path)
    listener.listen(1)
    threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
    assert weir.ctl("--socket", path, "status")[0] == 3
    listener.close()
    with open("/dev/full", "wb") as full:
        done = subprocess.run([house.CONTROL, "--socket", weir.control_path, "status"], stdout=full, stderr=subprocess.PIPE, timeout=20)
    assert done.returncode == 1 and b"cannot write" in done.stderr


def test_colours_only_on_a_terminal(two):
    weir, _, _ = two

    def on_terminal(**environment):
        ours, theirs = os.openpty()
        try:
            subprocess.run([house.CONTROL, "--socket", weir.control_path, "backends"], stdin=theirs, stdout=theirs, timeout=20, check=True,
                           env=dict(weir.environment, TERM="xterm", **environment))
            return os.read(ours, 65536)
        finally:
            os.close(theirs)
            os.close(ours)
    assert b"\x1b[32m" in on_terminal()
    assert b"\x1b" not in on_terminal(NO_COLOR="1")
    assert "\x1b" not in weir.order("backends")


@pytest.mark.parametrize("words,expected", [
    (["sta"], ["status"]), (["--j"], ["--json"]), (["drain", ""], ["r1", "r2"]), (["--json", "maint", "r2"], ["r2"]), (["drain", "r1", ""], []),
    (["weight", "r1", "d"], ["default"]), (["status", ""], []), (["drain", "$(touch x)"], []),
])
def test_completion(two, words, expected):
    weir, _, _ = two
    script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_LINE="$*"; COMP_CWORD=$(($# - 1)); _weirctl; printf "%s\\n" "${COMPREPLY[@]}"'
    line = [house.CONTROL, "--socket", weir.control_path] + words
    done = subprocess.run(["bash", "-c", script, "bash", os.path.join(house.ROOT, "docs", "weirctl.bash")] + line, capture_output=True,
                          timeout=20, env=weir.environment, cwd=weir.directory)
    assert done.stdout.decode().split() == expected and not done.stderr
    assert not os.path.exists(os.path.join(weir.directory, "x"))


def test_without_an_answer_nothing_is_completed():
    done = subprocess.run(["bash", "-c", 'source "$1"; COMP_WORDS=("$2" --socket /nowhere drain ""); COMP_LINE="${COMP_WORDS[*]}"; COMP_CWORD=4; _weirctl; '
                           "echo ${#COMPREPLY[@]}", "bash",
                           os.path.join(house.ROOT, "docs", "weirctl.bash"), house.CONTROL], capture_output=True, timeout=20)
    assert done.stdout == b"0\n" and not done.stderr


@pytest.mark.parametrize("typed,made", [
    ("--redis redis://127.0.0.1:6379/0 --farm main drain r", "--redis redis://127.0.0.1:6379/0 --farm main drain relay"),
    ("--redis=redis://127.0.0.1:6379/0 --farm=main drain r", "--redis=redis://127.0.0.1:6379/0 --farm=main drain relay"),
    ("drain relay@10.0.0.11", "drain relay@10.0.0.11"), ("drain relay@1", "drain relay@10.0.0.11"), ("drain relay@", "drain relay@"),
    ("maint relay@2", "maint relay@2001:db8::1"), ("weight relay@2001:db8: d", "weight relay@2001:db8: default"),
    ("--soc", "--socket"), ("--socket=./weir.s", "--socket=./weir.sock"), ("--socket ./weir.s", "--socket ./weir.sock"),
    ("--socket a:b/w", "--socket a:b/weir.sock"),
])
def test_completion_in_a_shell(tmp_path, typed, made):
    """As bash does it, which parts words at colons and more."""
    os.makedirs(tmp_path / "a:b")
    for folder in (tmp_path, tmp_path / "a:b"):
        (folder / "weir.sock").touch()
    program = tmp_path / "weirctl"
    program.write_text('#!/bin/sh\n[ "$*" != "${*%%names}" ] || { printf "<%%s>" "$@" >%s; exit; }\n'
                       'printf "%%s\\n" "$@" >%s; printf "%%s\\n" relay relay@10.0.0.11 relay@2001:db8::1\n' % (tmp_path / "run", tmp_path / "asked"))
    program.chmod(0o755)
    ours, theirs = os.openpty()
    shell = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, start_new_session=True,
                             env={"PATH": "%s:%s" % (tmp_path, os.environ["PATH"]), "TERM": "dumb", "HOME": str(tmp_path)})
    os.close(theirs)
    try:
        source = "source %s\n" % os.path.join(house.ROOT, "docs", "weirctl.bash")
        os.write(ours, (source + "weirctl " + typed + "\t\n").encode())
        wait_until(lambda: (tmp_path / "run").exists() and (tmp_path / "run").read_text().endswith(">"), 15, "the line is run")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    assert (tmp_path / "run").read_text() == "".join("<%s>" % word for word in made.split())
    if "--farm" in typed:
        assert (tmp_path / "asked").read_text().split() == typed.split()[:-2] + ["names"]


# Drain, maint, ready, weight

def kept_sessions(weir, count):
    """Clients that each have a backend and keep it."""
    clients = [weir.client().ehlo() for _ in range(count)]
    for client in clients:
        client.message()
    return clients


def test_drain_between_transactions(two):
    """Sessions leave at once where nothing is open, and at the message's end where one is. Nobody hears of it."""
    weir, first, second = two
    clients = kept_sessions(weir, 4)
    assert backend(weir, "r1")["connections"] == 2
    open_one = next(client for client in clients if client_backend(weir, client) == "r1")
    open_one.envelope()
    assert "r1: drain (operator)" in weir.order("drain", "r1")
    wait_until(lambda: backend(weir, "r1")["connections"] == 1, 5, "the idle one has left")
    assert open_one.data(b"Subject: x\r\n\r\nx\r\n").code == 250
    wait_until(lambda: backend(weir, "r1")["connections"] == 0, 5, "the other one too")
    before = len(first.committed())
    for client in clients:
        client.message()
    for _ in range(4):
        weir.deliver()
    assert len(first.committed()) == before
    assert backend(weir, "r1")["admin"] == "drain" and backend(weir, "r1")["state"] == "up", "checks go on"
    first.stop()
    wait_until(lambda: backend(weir, "r1")["state"] == "down", 5, "checks go on, and see it go")
    first.start()
    wait_until(lambda: backend(weir, "r1")["state"] == "up", 5, "and come back")
    weir.order("ready", "r1")
    wait_until(lambda: (weir.deliver(), len(first.committed()) > before)[1], 5, "it gets mail again")
    for client in clients:
        client.quit()
    line = weir.wait_log(event="control", command="drain", backend="r1")
    assert line["uid"] == str(os.getuid()) and int(line["pid"]) > 0
    weir.wait_log(event="backend-admin", backend="r1", times=2)
    assert [(one["from"], one["to"]) for one in weir.find_log(event="backend-admin", backend="r1")] == [("ready", "drain"), ("drain", "ready")]


def client_backend(weir, client):
    port = client.sock.getsockname()[1]
    return next(one["backend"] for one in weir.ask("sessions")["sessions"] if one["client"].endswith(":%d" % port))


@pytest.mark.parametrize("word", ["drain", "maint"])
def test_drained_under_load(start, relays, word):
    """Kept sessions send and send; the last one leaves, and nobody hears an error."""
    weir = start(relays(3))
    wait_until(lambda: weir.metric("weir_backend_up") == 3, 5, "all are up")
    stopping, errors, sent = threading.Event(), [], []

    def send():
        try:
            with weir.client() as client:
                client.ehlo()
                while not stopping.is_set():
                    client.message()
                    sent.append(1)
                client.quit()
        except BaseException as error:  # whatever it is, the test is to see it
            errors.append(error)
    senders = [threading.Thread(target=send) for _ in range(12)]
    for sender in senders:
        sender.start()
    try:
        for name, relay in zip(("r1", "r2", "r3"), weir.relays):
            wait_until(lambda: backend(weir, name)["connections"] > 0 or errors, 10, "it is at work")
            weir.order(word, name)
            wait_until(lambda: backend(weir, name)["connections"] == 0 or errors, 10, "the last session has left")
            before, mails = len(relay.committed()), len(sent)
            wait_until(lambda: len(sent) > mails + 50 or errors, 20, "mail flows on")
            assert len(relay.committed()) == before, "and none of it there"
            weir.order("ready", name)
            wait_until(lambda: (weir.deliver(), len(relay.committed()) > before)[1], 10, "it gets mail again")
    finally:
        stopping.set()
        for sender in senders:
            sender.join(20)
    assert not errors, errors
    weir.wait_log(event="transaction", outcome="delivered", times=len(sent), timeout=20)
    assert not weir.find_log(event="transaction", outcome="failed") and not weir.find_log(event="transaction", outcome="unknown")


def test_all_drained(two):
    """MAIL hears 421 at once, those who wait too; /readyz says 503; a session that is kept goes on where its message is open."""
    weir, first, _ = two
    with weir.client() as client:
        client.ehlo().envelope()
        weir.order("drain", "r1")
        weir.order("drain", "r2")
        assert weir.http("/readyz")[0] == 503
        with weir.client() as other:
            assert other.ehlo().command("MAIL FROM:<a@x>").code == 421
        assert not weir.metric("weir_queue_refused_total", reason="timeout"), "it did not wait for queue-timeout"
        assert client.data(b"x\r\n").code == 250
        assert client.command("MAIL FROM:<a@x>").code == 421
    weir.order("ready", "r1")
    weir.deliver()
    assert first.committed()
    weir.order("ready", "r2")


def test_who_waits_hears_of_the_drain(start, relay):
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool={"queue-timeout": "30s"})
    with weir.client() as holder, weir.client() as waiter:
        holder.ehlo().envelope()
        waiter.ehlo().send(b"MAIL FROM:<a@x>\r\n")
        weir.wait_metric(1, "weir_queue_waiting")
        weir.order("drain", "r1")
        assert waiter.reply().code == 421
        assert holder.data(b"x\r\n").code == 250
        holder.quit()
    weir.order("ready", "r1")


def test_maint_stops_the_checks(two):
    weir, first, _ = two
    weir.order("maint", "r1")
    wait_until(lambda: not [one for one in first.connections if one.open], 5, "no check is under way")
    first.stop()
    count = len(first.connections)  # behind what was on its way
    # Two checks of the other one have come and gone: the first one had as much time.
    seen = len(weir.relays[1].connections)
    wait_until(lambda: len(weir.relays[1].connections) >= seen + 4, 10, "the other one is checked")
    assert len(first.connections) == count and backend(weir, "r1")["state"] == "up", "nobody looks"
    assert backend(weir, "r1")["admin"] == "maint"
    weir.order("ready", "r1")
    wait_until(lambda: backend(weir, "r1")["state"] == "down", 5, "it is looked at again")
    first.start()
    wait_until(lambda: backend(weir, "r1")["state"] == "up", 5, "and found")


def test_authenticated_sessions(farm):
    """They belong to their backend: drain leaves them there, maint makes them hear 421 at their next MAIL."""
    weir, first, _ = farm(2)
    with weir.introduced() as client:
        authenticate(client).message()
        name = client_backend(weir, client)
        weir.order("drain", name)
        client.message()
        assert client_backend(weir, client) == name
        client.envelope()
        weir.order("maint", name)
        assert client.data(b"x\r\n").code == 250, "not in the middle of a message"
        assert client.command("MAIL FROM:<a@x>").code == 421
        with pytest.raises(Closed):
            client.reply()
    with weir.introduced() as client:
        authenticate(client).message()
        assert client_backend(weir, client) != name
        client.quit()
    weir.order("ready", name)


def test_words_survive_a_reload(two):
    weir, _, _ = two
    weir.order("drain", "r1")
    weir.order("weight", "r2", "7")
    weir.order("reload")
    weir.wait_log(event="reload")
    weir.wait_log(event="control", command="reload", uid=os.getuid())
    assert backend(weir, "r1")["admin"] == "drain" and backend(weir, "r2")["weight"] == 7
    weir.config["pools"]["relays"]["backends"]["r2"]["weight"] = 3
    weir.write()
    weir.order("reload")
    assert backend(weir, "r2")["weight"] == 7, "the operator's word holds"
    weir.order("weight", "r2", "default")
    assert backend(weir, "r2")["weight"] == 3
    weir.order("ready", "r1")
    # Nothing of it is left in a new process.
    weir.order("drain", "r1")
    weir.order("weight", "r2", "9")
    weir.term()
    assert weir.wait() == 0
    weir.start()
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    assert backend(weir, "r1")["admin"] == "ready" and backend(weir, "r2")["weight"] == 3


def test_a_bad_reload_is_refused(two):
    weir, _, _ = two
    weir.config["nonsense"] = 1
    weir.write()
    code, _, err = weir.ctl("reload")
    assert code == 1 and "nonsense" in err
    del weir.config["nonsense"]
    weir.write()
    weir.order("reload")


def test_weight(two):
    weir, first, second = two
    weir.order("weight", "r1", "0")
    for _ in range(6):
        weir.deliver()
    assert not first.committed() and len(second.committed()) == 6
    assert weir.http("/readyz")[0] == 200
    weir.order("weight", "r2", "0")
    assert weir.http("/readyz")[0] == 503
    with weir.client() as client:
        assert client.ehlo().command("MAIL FROM:<a@x>").code == 421
    weir.order("weight", "r1", "9")
    weir.order("weight", "r2", "1")
    clients = kept_sessions(weir, 10)
    assert backend(weir, "r1")["connections"] == 9
    for client in clients:
        client.quit()
    weir.wait_log(event="backend-weight", backend="r1", **{"from": 1, "to": 0})
    weir.wait_log(event="control", command="weight", backend="r2", weight=0, uid=os.getuid())
    weir.order("weight", "r1", "default")
    weir.wait_log(event="control", command="weight", backend="r1", weight="default")


def test_metric_of_the_word(two):
    weir, _, _ = two
    weir.order("maint", "r1")
    found = {(labels["backend"], labels["admin"]): value for name, labels, value in weir.metrics() if name == "weir_backend_admin"}
    assert found == {("r1", "ready"): 0, ("r1", "drain"): 0, ("r1", "maint"): 1, ("r2", "ready"): 1, ("r2", "drain"): 0, ("r2", "maint"): 0}
    weir.order("ready", "r1")


# The socket

def assert_answers(weir):
    assert weir.ask("status")["pid"] == weir.pid


BAD = [b"\n", b"garbage\n", b"{}\n", b"[]\n", b"null\n", b"{\"command\": 5}\n", b"{\"command\": \"status\"} x\n", b"{\"command\": \"nonsense\"}\n",
       b"{\"command\": \"status\", \"command\": \"status\"}\n", b"{\"command\": \"drain\"}\n", b"{\"command\": \"drain\", \"name\": 5}\n",
       b"{\"command\": \"drain\", \"name\": \"\"}\n", b"{\"command\": \"status\", \"name\": \"r1\"}\n", b"{\"command\": \"status\", \"more\": 1}\n",
       b"{\"command\": \"weight\", \"name\": \"r1\"}\n", b"{\"command\": \"weight\", \"name\": \"r1\", \"weight\": -1}\n",
       b"{\"command\": \"weight\", \"name\": \"r1\", \"weight\": 1e3}\n", b"{\"command\": \"weight\", \"name\": \"r1\", \"weight\": 1001}\n",
       b"{\"command\": \"weight\", \"name\": \"r1\", \"weight\": 99999999999999999999}\n", b"{\"command\": \"drain\", \"name\": \"r1\\u0000\"}\n",
       b"\xff\xfe\n", b"\0\0\0\n", b"[" * 4000 + b"\n", b"{\"command\": \"drain\", \"name\": \"" + b"x" * 300 + b"\"}\n"]


def test_bad_requests_are_answered(two):
    weir, _, _ = two
    with Wire(weir.control_path) as wire:
        for request in BAD:
            wire.send(request)
            answer = wire.answer()
            assert answer["ok"] is False and answer["error"], request
        assert wire.ask(command="status")["ok"] is True, "none of them has ended anything"
    assert {one["admin"] for one in weir.ask("backends")} == {"ready"} and {one["weight"] for one in weir.ask("backends")} == {1}


def test_many_in_one_write(two):
    weir, _, _ = two
    with Wire(weir.control_path) as wire:
        wire.send(b"{\"command\":\"version\"}\n{\"command\":\"sessions\"}\nx\n{\"command\":\"status\"}\n{\"command\":\"sess")
        assert [wire.answer()["ok"] for _ in range(4)] == [True, True, False, True]
        wire.send(b"ions\"}\n")
        assert wire.answer()["result"]["total"] == 0
    with Wire(weir.control_path) as wire:  # as `nc -N` does
        wire.send(b"{\"command\":\"sessions\"}\n{\"command\":\"version\"}\n")
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.answer()["ok"] and wire.answer()["ok"] and wire.answer() is None


def test_a_megabyte_without_a_newline(two):
    weir, _, _ = two
    with Wire(weir.control_path) as wire:
        try:
            wire.send(b"x" * (1 << 20))
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert "4096" in wire.answer()["error"] and wire.answer() is None
    with Wire(weir.control_path) as wire:
        wire.send(b"{\"command\":\"status\"")
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.answer()["ok"] is False and wire.answer() is None
    assert_answers(weir)


def test_half_a_request_then_silence(two):
    weir, _, _ = two
    with Wire(weir.control_path) as wire, Wire(weir.control_path) as silent:
        wire.send(b"{\"command\":")
        assert_answers(weir)
        assert "10 seconds" in wire.answer()["error"] and wire.answer() is None
        assert silent.answer() is None


def test_a_client_that_does_not_read(two):
    """It is asked no more questions than it takes answers for, and dropped in the end. Mail and operators don't notice."""
    weir, _, _ = two
    with Wire(weir.control_path) as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        wire.sock.setblocking(False)
        sent = 0
        for _ in range(20000):  # the answers are some ten megabytes
            try:
                sent += wire.sock.send(b"{\"command\":\"backends\"}\n")
            except BlockingIOError:
                break
        else:
            raise AssertionError("it took all of them")
        weir.deliver()
        assert_answers(weir)
        wait_until(lambda: not [peer for peer in unix_peers(weir) if peer == weir.control_path], 20, "it is dropped", 0.2)


def unix_peers(weir):
    """The paths of the process's connected Unix sockets that have a name."""
    inodes = set()
    for entry in os.listdir("/proc/%d/fd" % weir.pid):
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink("/proc/%d/fd/%s" % (weir.pid, entry)))
        except OSError:
            continue
        if found:
            inodes.add(found.group(1))
    with open("/proc/net/unix") as file:
        rows = [line.split() for line in file][1:]
    return [row[7] for row in rows if len(row) > 7 and row[6] in inodes and row[5] == "03"]


def test_a_hundred_connections(two):
    weir, _, _ = two
    wires = []
    try:
        for _ in range(100):
            wires.append(Wire(weir.control_path))
        answers = []
        for wire in wires:
            try:
                answers.append(wire.ask(command="version"))
            except (BrokenPipeError, ConnectionResetError):
                answers.append(wire.answer())
        served = [answer for answer in answers if answer and answer["ok"]]
        refused = [answer for answer in answers if answer and not answer["ok"]]
        assert len(served) == 32 and refused and all("too many" in answer["error"] for answer in refused)
        weir.deliver()
    finally:
        for wire in wires:
            wire.sock.close()
    wait_until(lambda: weir.ctl("status")[0] == 0, 5, "there is room again")


def test_gone_before_the_answer(two):
    weir, _, _ = two
    for number in range(50):
        with Wire(weir.control_path) as wire:
            wire.send(b"{\"command\":\"sessions\"}\n" * (1 + number % 3))
            if number % 2:
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: weir.ctl("status")[0] == 0, 5, "it has noticed that they are gone")
    assert_answers(weir)


def test_mode(two):
    weir, _, _ = two
    info = os.stat(weir.control_path)
    assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o660


def test_removed_at_the_end(two):
    weir, _, _ = two
    weir.term()
    assert weir.wait() == 0 and not os.path.exists(weir.control_path)


def test_a_stale_socket_is_replaced(start, relay):
    weir = start([relay])
    weir.kill()
    assert os.path.exists(weir.control_path), "nobody has removed it"
    weir.start()
    assert_answers(weir)


@pytest.mark.parametrize("what", ["file", "folder", "another"])
def test_what_lies_there_stays(start, relay, what):
    """An address that the file names and that can't be had is an error at the start, and what lies there is not touched."""
    weir = start([relay], start=False)
    listener = socket.socket(socket.AF_UNIX)
    if what == "file":
        with open(weir.control_path, "w") as file:
            file.write("precious")
    elif what == "folder":
        os.mkdir(weir.control_path)
    else:
        listener.bind(weir.control_path)
        listener.listen(1)
    weir.start(wait=None)
    assert weir.wait() == 1
    assert "control: %s" % weir.control_path in weir.output()
    assert os.path.exists(weir.control_path)
    assert ("another Weir listens there" in weir.output()) == (what == "another")
    if what == "file":
        assert open(weir.control_path).read() == "precious"
    listener.close()
    weir.checks_log = False  # it said so on standard error


def test_two_weirs_one_path(two, start, relay):
    weir, _, _ = two
    second = start([relay], top={"control": weir.control_path}, start=False)
    second.start(wait=None)
    assert second.wait() == 1 and "another Weir listens there" in second.output()
    second.checks_log = False
    assert_answers(weir)


def test_none(start, relay):
    weir = start([relay], top={"control": ""})
    assert not os.path.exists(weir.control_path) and weir.ctl("status")[0] == 3


def test_a_folder_is_made(start, relay):
    weir = start([relay], start=False)
    weir.control_path = os.path.join(weir.directory, "run", "weir.sock")
    weir.config["control"] = weir.control_path
    weir.write()
    weir.start()
    assert_answers(weir)
    assert stat.S_IMODE(os.stat(os.path.dirname(weir.control_path)).st_mode) & 0o022 == 0


def test_moved_by_a_reload(two):
    weir, _, _ = two
    old, new = weir.control_path, os.path.join(weir.directory, "elsewhere")
    with Wire(old) as kept:
        assert kept.ask(command="version")["ok"]
        weir.config["control"] = new
        weir.write()
        assert kept.ask(command="reload")["ok"] is True, "who asked for it hears of it"
        assert not os.path.exists(old)
        assert kept.ask(command="status")["ok"] is True
    weir.control_path = new
    assert_answers(weir)
    # One that can't be had: everything stays.
    weir.config["control"] = os.path.join(weir.log_path, "x")
    weir.write()
    assert weir.ctl("reload")[0] == 1
    assert_answers(weir)
    weir.config["control"] = ""
    weir.write()
    weir.order("reload")
    assert not os.path.exists(new) and weir.ctl("status")[0] == 3
    weir.reload(lambda config: config.update(control=new))
    wait_until(lambda: weir.ctl("status")[0] == 0, 5, "it is back")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_the_user_s_own(start, relay):
    """Behind `user`, the socket is that user's; and a reload can still move it."""
    weir = start([relay], top={"user": "nobody"}, start=False)
    folder = os.path.join(weir.directory, "run")
    weir.control_path = os.path.join(folder, "weir.sock")
    weir.config["control"] = weir.control_path
    weir.write()
    weir.start()
    info = os.stat(weir.control_path)
    assert info.st_uid == os.stat("/proc/%d" % weir.pid).st_uid != 0 and stat.S_IMODE(info.st_mode) == 0o660
    weir.config["control"] = os.path.join(folder, "other.sock")
    weir.write()
    weir.order("reload")
    assert not os.path.exists(weir.control_path)
    weir.control_path = weir.config["control"]
    assert_answers(weir)
    weir.term()
    assert weir.wait() == 0 and not os.path.exists(weir.control_path)


def own_run(options):
    """Start it with a /run of its own."""
    return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o %s tmpfs /run && exec "$@"' % options, "sh"]


CAN_UNSHARE = subprocess.run(own_run("rw") + ["true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


@pytest.mark.skipif(not CAN_UNSHARE, reason="no mount namespaces here")
def test_the_default(start, relay):
    """Where the file says nothing it is /run/weir/weir.sock; and what is not asked for may be missing, with a warning."""
    weir = start([relay], top={"control": None}, wrapper=own_run("rw"))
    weir.control_path = "/proc/%d/root/run/weir/weir.sock" % weir.pid
    assert_answers(weir)
    without = start([relay], top={"control": None}, wrapper=own_run("ro"))
    assert "/run/weir/weir.sock" in without.wait_log(event="control", level="warning")["message"]
    without.deliver()
    without.config["control"] = "/run/weir/weir.sock"  # now it is asked for
    without.reload()
    without.wait_log(event="reload-failed")


def test_asked_while_it_stops(start, relay):
    """Requests up to the last moment: each is answered or ends, and the process ends well."""
    weir = start([relay], top={"drain-timeout": "300ms"})
    stopping = threading.Event()

    def ask():
        while not stopping.is_set():
            try:
                with Wire(weir.control_path) as wire:
                    wire.ask(command="sessions")
                    wire.ask(command="backends")
            except OSError:
                pass
    askers = [threading.Thread(target=ask) for _ in range(3)]
    with weir.client() as client:
        client.ehlo()
        for asker in askers:
            asker.start()
        weir.term()
        assert weir.wait() == 0
    stopping.set()
    for asker in askers:
        asker.join(20)


# The live view

def test_top():
    with RunningTop() as (weir, top):
        top.wait_for(b"r1", b"SHARE", b"q quits")
        assert b"\x1b[?1049h" in top.seen
        top.press(b"q")
        assert top.ended() == 0
        assert top.seen.rstrip().endswith(b"\x1b[?1049l"), "the screen is given back"
        assert top.echoes(), "and the terminal's mode"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGABRT])
def test_top_ends_by_a_signal(number):
    with RunningTop() as (weir, top):
        top.wait_for(b"q quits")
        top.process.send_signal(number)
        assert top.ended() in (0, -signal.SIGABRT)
        assert b"\x1b[?1049l" in top.seen and top.echoes()


def test_top_fits_and_goes_on():
    """In 80 by 24 and in less, while Weir goes and comes back."""
    with RunningTop() as (weir, top):
        top.wait_for(b"q quits")
        for columns, rows in ((80, 24), (40, 8), (5, 3), (200, 50)):
            top.seen = b""
            top.resize(columns, rows)
            top.wait_for(b"\x1b[%d;1H" % rows)
            frame = top.seen.split(b"\x1b[H")[-1]
            for line in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", frame).split(b"\r\n"):
                assert len(line.decode("utf-8", "ignore")) <= columns + 1, (columns, line)
        top.resize(80, 24)
        weir.signal(signal.SIGSTOP)
        top.wait_for(b"no answer")
        weir.signal(signal.SIGCONT)
        top.seen = b""
        top.wait_for(b"messages")
        top.press(b"q")
        assert top.ended() == 0


class RunningTop:
    """weirctl top in a terminal of ours, with the Weir that it shows; `where`: in place of its socket."""

    def __init__(self, where=None, **options):
        self.relay = Relay()
        self.weir = Weir([self.relay], **options)
        self.where = where or ["--socket", self.weir.control_path]
        self.ours, self.theirs = os.openpty()
        self.seen = b""

    def __enter__(self):
        if "redis" in self.weir.config:  # it is in Redis before it is looked for there
            wait_until(lambda: (self.weir.status()["redis"] or {}).get("state") == "shared", 15, self.weir.output)
        self.resize(80, 24)
        self.process = subprocess.Popen([house.CONTROL, *self.where, "top"], stdin=self.theirs, stdout=self.theirs,
                                        env=dict(self.weir.environment, TERM="xterm", ASAN_OPTIONS="handle_abort=0:detect_leaks=1"),
                                        start_new_session=True)
        os.set_blocking(self.ours, False)
        return self.weir, self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)
        self.weir.finish() if kind is None else self.weir.discard()
        self.relay.stop()

    def read(self):
        try:
            self.seen += os.read(self.ours, 65536)
        except BlockingIOError:
            pass
        return self.seen

    def wait_for(self, *texts, timeout=15):
        wait_until(lambda: all(text in self.read() for text in texts), timeout, lambda: "%s in %r" % (texts, self.seen[-2000:]))

    def press(self, key):
        os.write(self.ours, key)

    def resize(self, columns, rows):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def ended(self):
        wait_until(lambda: (self.read(), self.process.poll() is not None)[1], 10, lambda: "it ends; %r" % self.seen[-500:])
        self.read()
        return self.process.returncode

    def echoes(self):
        return bool(termios.tcgetattr(self.theirs)[3] & termios.ECHO) and bool(termios.tcgetattr(self.theirs)[3] & termios.ICANON)
