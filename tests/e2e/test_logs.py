"""One event is one line, whatever peers send and wherever the log goes."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from test_backends import send_commands
from weirtest import logfmt
from weirtest.net import wait_until
from weirtest.relay import DROP
from weirtest.weir import run

F_SETPIPE_SZ = 1031
DIRTY = [b"esc\x1b[2Jape", b"%n%s%x%n", b"\xff\xfe\xc3\x28", b"bare\rcr", b"nul\0nul", b"\xc2\x9bcsi", b'quo"te\\', b"a b=c level=error",
         "\u202egnp\u2028\u0085".encode(), b"\xed\xa0\x80", b"x" * 1000]


def read_json(text):
    lines = [line for line in text.split("\n") if line]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
    return [json.loads(line) for line in lines]


@pytest.mark.scorecard(55, "ESC, %n, invalid UTF-8, bare CR in HELO and MAIL: one well-formed log line each")
@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_dirty_values(start, relay, form):
    weir = start([relay], top={"log": {"format": form, "level": "debug"}}, listener={"max-errors": 1000})
    weir.checks_log = form == "logfmt"
    for dirty in DIRTY:
        with weir.client() as client:
            client.send(b"EHLO " + dirty + b"\r\n")
            if client.reply().code != 250:
                client.ehlo()
            for path in (b"<" + dirty + b"@x>", b'<"' + dirty + b'"@x>'):
                client.send(b"MAIL FROM:" + path + b" SMTPUTF8\r\n")
                reply = client.reply()
                if reply.code == 250:
                    client.send(b"RCPT TO:<" + dirty + b"@x>\r\nRSET\r\n")
                    assert client.reply().code // 100 in (2, 5)
                    client.expect(250)
                else:
                    assert reply.code // 100 == 5
            client.send(dirty + b"\r\n")
            client.reply()
            client.message()
            client.quit()
    wait_until(lambda: len(re.findall(r'event"?[=:]"?session\b', weir.output())) >= len(DIRTY), 5,
               lambda: "a line for each session:\n" + weir.output())
    lines = read_json(weir.output()) if form == "json" else weir.log()
    delivered = [line for line in lines if line["event"] == "transaction" and line["outcome"] == "delivered"]
    assert len(delivered) == len(DIRTY)
    assert all(line["from"] == "<from@client.test>" for line in delivered)
    assert not [line for line in lines if line["level"] == "error"], "no forged field"


TRANSACTION = set("time level event session listener client helo from rcpts size pool backend outcome code reply "
                  "queue_ms connect_ms total_ms attempts".split())


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_transaction_line(start, relay, form):
    weir = start([relay], top={"log": {"format": form}})
    weir.checks_log = form == "logfmt"
    relay.on("rcpt", b"550 5.1.1 no such user\r\n", times=1)
    with weir.client() as client:
        client.ehlo("name.test").ok("MAIL FROM:<a@x>")
        client.command("RCPT TO:<no@x>")
        client.ok("RCPT TO:<yes@x>")
        client.data(b"12345678\r\n")
        port = client.sock.getsockname()[1]
        client.quit()
    wait_until(lambda: re.search('"event": ?"session"|event=session', weir.output()), 5, "the session's line")
    lines = read_json(weir.output()) if form == "json" else weir.log()
    line = [one for one in lines if one["event"] == "transaction"][0]
    assert TRANSACTION <= set(line), TRANSACTION - set(line)
    expected = {"listener": "smtp", "client": "127.0.0.1:%d" % port, "helo": "name.test", "from": "<a@x>", "rcpts": "1/2", "size": 10,
                "pool": "relays", "backend": "r1", "outcome": "delivered", "code": 250, "attempts": 1}
    assert {key: str(line[key]) for key in expected} == {key: str(value) for key, value in expected.items()}
    assert line["reply"].startswith("2.0.0 Ok: queued as")
    session = [one for one in lines if one["event"] == "session"][0]
    assert session["session"] == line["session"]


def test_what_weir_refuses_is_in_the_session_s_line(start, relay):
    """The operator who forgot allow-from finds it there."""
    weir = start([relay], listener={"allow-from": ["127.0.0.1"]})
    with weir.client(source="127.0.0.9") as client:
        client.ehlo()
        assert client.command("MAIL FROM:<a@x>").code == 550
        client.quit()
    assert weir.wait_log(event="session")["refusal"] == "550 5.7.1 Relaying from your address is not allowed"
    weir.deliver()
    weir.wait_log(event="session", times=2)
    assert "refusal" not in weir.find_log(event="session")[1]


def test_each_outcome_is_logged_and_counted(start, relay):
    weir = start([relay])
    for outcome, step, action in (("delivered", None, None), ("rejected", "end", b"554 5.7.1 spam\r\n"),
                                  ("deferred", "end", b"452 4.3.1 full\r\n"), ("unknown", "end", DROP), ("failed", "data", DROP)):
        if step:
            relay.on(step, action, times=1)
        with weir.client() as client:
            send_commands(client.ehlo())
        assert weir.wait_log(event="transaction", outcome=outcome)
        weir.wait_metric(1, "weir_transactions_total", outcome=outcome)
    assert len(weir.find_log(event="transaction")) == 5


def test_a_backend_going_and_coming_is_logged(start, relay):
    weir = start([relay])
    relay.stop()
    wait_until(lambda: weir.metric("weir_backend_up") == 0, 5, "down")
    relay.start()
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "up")
    wait_until(lambda: len([line for line in weir.find_log(backend="r1") if line["event"] not in ("transaction", "session")]) >= 2, 3,
               lambda: "a line for each change:\n" + weir.output())


OWN_DEV = """
mount -t tmpfs tmpfs "$1" && for name in null zero random urandom; do touch "$1/$name" && mount --bind "/dev/$name" "$1/$name"; done
ln -s "$2" "$1/log" && mount --rbind "$1" /dev && shift 2 && exec "$@"
"""


def own_dev(folder, log):
    """Start it with a /dev of its own, where /dev/log is that socket."""
    return ["unshare", "-m", "sh", "-c", OWN_DEV, "sh", str(folder), str(log)]


def test_log_to_syslog(start, relay, tmp_path):
    """A datagram is a line, of facility mail and the level's priority; what a peer sent is no format."""
    (tmp_path / "dev").mkdir()
    wrapper = own_dev(tmp_path / "dev", tmp_path / "log")
    if subprocess.run(wrapper + ["true"], stdin=subprocess.DEVNULL, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(5)
        weir = start([relay], top={"log": {"destination": "syslog"}}, wrapper=wrapper)
        with weir.client() as client:
            client.ehlo("%s%n.test")
            client.message()
            client.quit()
        heard = []
        while not any(b"event=session" in line for line in heard):
            heard.append(log.recv(65536))
        weir.term()
        assert weir.wait() == 0
    line = [line for line in heard if b"event=transaction" in line][0]
    assert re.match(rb"<22>\w{3} [ \d]\d [\d:]{8} weir\[%d\]: time=\S+ level=info event=transaction [^\n]* helo=%%s%%n\.test" % weir.pid,
                    line), line  # 2 << 3 | 6


def test_log_to_a_full_disk(start, relay):
    weir = start([relay], top={"log": {"destination": "/dev/full"}})
    for _ in range(20):
        weir.deliver()


def test_log_to_a_blocked_fifo(start, relay, tmp_path):
    """Nobody reads: mail flows all the same, and what could not be written is counted."""
    fifo = str(tmp_path / "log")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, F_SETPIPE_SZ, 4096)
        weir = start([relay], top={"log": {"destination": fifo}}, wait="ready")
        wide = "w" * 240 + ".test"
        deadline = time.monotonic() + 100
        with weir.client() as client:
            client.ehlo(wide)
            while not weir.metric("weir_log_dropped_total"):
                assert time.monotonic() < deadline, "nothing was dropped; is the log unbounded?"
                for _ in range(50):
                    began = time.monotonic()
                    client.message(sender="s" * 60 + "@" + "d" * 200 + ".test")
                    assert time.monotonic() - began < 8, "mail waits for the log"
            client.quit()
        # Someone reads again: the lines that come are whole.
        text = b""
        os.set_blocking(reader, True)
        while b"\n" not in text:
            text += os.read(reader, 65536)
        logfmt.parse_line(text.split(b"\n")[0].decode())
    finally:
        os.close(reader)


def test_log_reopen(start, relay, tmp_path):
    path = tmp_path / "weir.log"
    weir = start([relay], top={"log": {"destination": str(path)}})
    weir.deliver(sender="before@x")
    wait_until(lambda: "before@x" in path.read_text(), 5, "the first is logged")
    path.rename(tmp_path / "weir.log.1")
    weir.signal(signal.SIGUSR1)
    wait_until(path.exists, 5, "the log is opened anew")
    weir.deliver(sender="after@x")
    wait_until(lambda: "after@x" in path.read_text(), 5, "the second is in the new file")
    assert "after@x" not in (tmp_path / "weir.log.1").read_text()
    for line in path.read_text().splitlines() + (tmp_path / "weir.log.1").read_text().splitlines():
        logfmt.parse_line(line)


def test_log_level(start, relay):
    weir = start([relay], top={"log": {"level": "error"}})
    weir.deliver()
    weir.assert_baseline()
    assert weir.log() == []


def test_log_into_a_missing_directory(relay):
    code, _, err, path = run("-c", text="log: { destination: /nonexistent/weir.log }\n"
                             "listeners: { smtp: { address: [\"127.0.0.1:2525\"], pool: p } }\n"
                             "pools: { p: { backends: { r1: { address: \"127.0.0.1:%d\" } } } }\n" % relay.port)
    assert code in (1, 2) and "/nonexistent/weir.log" in err, err
