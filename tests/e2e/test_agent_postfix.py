"""The agent for Postfix: its curve, the operator's words, beside Weir and beside HAProxy, and over a queue of Postfix's own."""

import csv
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest
from weirtest.net import free_port, wait_until
from weirtest.programs import Postfix, find_program, smtp_source
from weirtest.weir import ROOT

SCRIPT = os.path.join(ROOT, "docker", "agent", "weir-agent.sh")
FAST = {"health": {"interval": "100ms", "fast-interval": "50ms", "fall": 2, "rise": 2, "timeout": "5s"}}


class Queue:
    """A queue directory, and the file with the operator's words."""

    def __init__(self, path):
        self.path, self.say_path = path, os.path.join(path, "say")
        for name in ("incoming", "active", "deferred"):
            os.makedirs(os.path.join(path, name, "A"))

    def fill(self, name, count):
        for number in range(count):
            with open(os.path.join(self.path, name, "A" if number % 2 else ".", "%06X" % number), "w"):
                pass

    def say(self, text):
        fresh = self.say_path + ".new"
        with open(fresh, "w") as file:
            file.write(text)
        os.rename(fresh, self.say_path)

    def command(self, maximum=100):
        return ["sh", SCRIPT, "-q", self.path, "-m", str(maximum), "-s", self.say_path]

    def line(self, **options):
        return subprocess.run(self.command(**options), capture_output=True, text=True, timeout=10).stdout


class Inetd:
    """What systemd and inetd do with the script: one process a connection."""

    def __init__(self, command):
        self.command = command
        self.port = free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            with peer:
                subprocess.run(self.command, stdin=peer, stdout=peer, stderr=subprocess.DEVNULL, timeout=10)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def queue(tmp_path):
    return Queue(str(tmp_path / "queue"))


@pytest.fixture
def inetd(queue):
    one = Inetd(queue.command())
    yield one
    one.stop()


@pytest.mark.parametrize("incoming,active,percent", [
    (0, 0, 100), (20, 29, 100), (25, 25, 100), (0, 75, 55), (60, 0, 82), (50, 50, 10), (51, 50, 0), (300, 300, 0)])
def test_curve(queue, incoming, active, percent):
    queue.fill("incoming", incoming)
    queue.fill("active", active)
    queue.fill("deferred", 500)
    assert queue.line() == "up %d%%  # %d of 100 in the queue\n" % (percent, min(incoming + active, 101))


@pytest.mark.parametrize("text,words", [("drain\n", "up 100% drain # 0 of 100 in the queue\n"), ("down #upgrade", "up 100% down  # upgrade\n"),
                                        ("", "up 100%  # 0 of 100 in the queue\n"), ("ready\ndrain\n", "up 100% ready # 0 of 100 in the queue\n")])
def test_operator(queue, text, words):
    queue.say(text)
    assert queue.line() == words


def test_nothing_to_see(queue, tmp_path):
    done = subprocess.run(["sh", SCRIPT, "-q", str(tmp_path / "none")], capture_output=True, text=True, timeout=10)
    assert done.stdout.startswith("# can't look into") and done.returncode == 1
    assert subprocess.run(queue.command(maximum="x"), capture_output=True, timeout=10).returncode == 2


def test_beside_weir(start, relays, queue, inetd):
    first, second = relays(2)
    weir = start({"r1": {"address": first, "agent": inetd.port}, "r2": second}, pool=FAST)
    weir.wait_metric(1, "weir_backend_agent_share", 10)
    queue.fill("active", 75)
    weir.wait_metric(0.55, "weir_backend_agent_share", 10)
    queue.fill("incoming", 26)
    weir.wait_metric(0, "weir_backend_agent_share", 10)
    queue.say("down #upgrade\n")
    assert weir.wait_log(event="backend-state", backend="r1", to="down", timeout=10)["reason"] == "agent: down: upgrade"
    queue.say("ready\n")
    weir.wait_log(event="backend-state", backend="r1", to="up", times=2, timeout=10)
    os.rename(os.path.join(queue.path, "active"), os.path.join(queue.path, "away"))
    assert "can't look into" in weir.wait_log(event="backend-agent", backend="r1", state="not-understood", timeout=10)["reason"]


class HAProxy:
    """One server with an agent, and its line of `show stat`."""

    def __init__(self, relay_port, agent_port):
        self.directory = tempfile.mkdtemp(prefix="weir-haproxy-")
        self.socket_path = os.path.join(self.directory, "stat")
        path = os.path.join(self.directory, "haproxy.cfg")
        with open(path, "w") as file:
            file.write("global\n stats socket %s level admin\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n timeout check 5s\n"
                       "listen mail\n bind 127.0.0.1:%d\n server r1 127.0.0.1:%d weight 100 check inter 100ms agent-check agent-port %d agent-inter 100ms\n"
                       % (self.socket_path, free_port(), relay_port, agent_port))
        self.process = subprocess.Popen([find_program("haproxy"), "-db", "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def server(self):
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.socket_path)
                sock.sendall(b"show stat\n")
                text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        except OSError:
            return {}
        rows = list(csv.DictReader(text.lstrip("# ").splitlines()))
        return next((row for row in rows if row["svname"] == "r1"), {})

    def wait(self, **fields):
        wait_until(lambda: fields.items() <= self.server().items(), 15, lambda: "%s in %s" % (fields, self.server()))

    def stop(self):
        self.process.terminate()
        self.process.wait(5)
        shutil.rmtree(self.directory, ignore_errors=True)


def test_beside_haproxy(relay, queue, inetd):
    haproxy = HAProxy(relay.address[1], inetd.port)
    try:
        haproxy.wait(status="UP", weight="100", agent_status="L7OK")
        queue.fill("active", 75)
        haproxy.wait(weight="55")
        queue.say("drain\n")
        haproxy.wait(status="DRAIN (agent)")
        queue.say("ready down #upgrade\n")
        haproxy.wait(status="DOWN (agent)")
        queue.say("")
        haproxy.wait(status="UP", weight="55")
    finally:
        haproxy.stop()


def test_a_postfix_of_its_own(start, tmp_path):
    """Mail that can't be delivered at once is seen in its queue, by a user who may look into it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # its next hop says nothing: what is sent stays active
        postfix = Postfix(next_hop=silent.getsockname()[1])
        user = pwd.getpwnam("postfix")

        def become():
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)

        def say():
            # On its input, and not here: the tree may lie where that user can't look (/root).
            with open(SCRIPT) as script:
                return subprocess.run(command, stdin=script, cwd="/", capture_output=True, text=True, preexec_fn=become, timeout=10)
        command = ["sh", "-s", "--", "-q", os.path.join(postfix.directory, "queue"), "-m", "10", "-s", str(tmp_path / "say")]
        try:
            assert smtp_source(postfix.port, 2, 8)[0] == 0
            wait_until(lambda: say().stdout == "up 46%  # 8 of 10 in the queue\n", 10, lambda: "the agent sees eight: %s" % say())
        finally:
            postfix.stop()
