"""AUTH: the backend, the client or the handshake is lost; who is told what of whom; and that no password stays anywhere."""

import array
import base64
import mmap
import os
import time

import pytest
from test_auth import PASSWORD, USER, assert_no_secret, authenticate, b64, farm, plain, secrets_of  # noqa: F401 (a fixture)
from test_backends import send_commands
from test_identity import spoken
from weirtest.client import Closed
from weirtest.net import wait_until
from weirtest.relay import CLOSE, DROP, EXTENSIONS, RESET, XCLIENT_RELAY, At, Delay


# The backend is lost


@pytest.mark.parametrize("action", [DROP, RESET, b"421 4.3.2 going down\r\n"])
@pytest.mark.parametrize("step", ["auth", "auth2", "auth3"])
def test_lost_in_the_exchange(farm, step, action):
    weir, first, second = farm(2)
    first.on(step, [action, DROP] if isinstance(action, bytes) else action, times=1)
    with weir.introduced() as client:
        replies = [client.command("AUTH LOGIN").code]
        for line in (b64(USER), b64(PASSWORD)):
            if replies[-1] == 334:
                replies.append(client.command(line).code)
        assert replies == [334] * (int(step[4:] or 1) - 1) + [421]
        assert client.wait_closed() == b""
    assert not second.auths(), "no other backend hears half an exchange"
    with weir.introduced() as client:
        authenticate(client).message()


@pytest.mark.parametrize("step,action", [("connect", DROP), ("banner", b"421 4.3.2 full\r\n"), ("ehlo", DROP)])
def test_lost_before_the_exchange(farm, step, action):
    """Nothing has been said yet: another will do."""
    weir, first, second = farm(2)
    first.on(step, action)
    with weir.introduced() as client:
        authenticate(client).message()
        client.quit()
    assert not first.auths() and second.committed()[0].user == USER


def test_none_to_be_had(farm):
    weir, first = farm(pool={"queue-timeout": "300ms", "connect-timeout": "500ms"})
    first.stop()
    with weir.introduced() as client:
        reply = client.command(b"AUTH PLAIN " + plain())
        assert reply.code in (421, 454), reply


@pytest.mark.parametrize("action", [CLOSE, RESET])
@pytest.mark.parametrize("before", [0, 1])
def test_lost_between_transactions(farm, action, before):
    weir, first, second = farm(2)
    with weir.introduced() as client:
        authenticate(client)
        for _ in range(before):
            client.message()
        backend = first.auths()[0].connection
        backend.sock.shutdown(2)
        wait_until(lambda: not backend.open, 5, "the backend has gone")
        reply = client.command("MAIL FROM:<a@x>")
        assert reply.code == 421, reply
        assert client.wait_closed() == b""
    assert not second.auths() and not second.traffic()
    weir.wait_log(event="session")


@pytest.mark.parametrize("step,action", [("mail", DROP), ("rcpt", RESET), ("data", DROP), ("body", At(3, DROP)), ("end", DROP),
                                         ("rcpt", [b"421 4.3.2 bye\r\n", DROP])])
def test_lost_in_a_transaction(farm, step, action):
    weir, first, second = farm(2)
    first.on(step, action, times=1)
    with weir.introduced() as client:
        codes = send_commands(authenticate(client))
        assert codes[-1] in (451, 421) and not [code for code in codes if code >= 500], codes
        if codes[-1] == 451:
            client.ok("RSET", 250, 421)
            try:
                assert client.command("MAIL FROM:<again@x>").code == 421
            except (Closed, OSError):
                pass  # it was said with RSET
    assert not second.auths() and not second.traffic() and not first.committed()
    if step == "end":
        weir.wait_log(event="transaction", outcome="unknown")


def test_one_session_is_one_backends(farm):
    """Whatever the algorithm would choose next, and whatever else is said between."""
    weir, first, second = farm(2, pool={"algorithm": "round-robin"})
    weir.reload(lambda config: [one.pop("priority") for one in config["pools"]["relays"]["backends"].values()])
    weir.wait_log(event="reload")
    sessions = []
    for number in range(4):
        with weir.introduced() as client:
            authenticate(client)
            for line in (None, "RSET", "NOOP", "VRFY x"):
                if line:
                    client.ok(line, 250, 252)
                client.message(sender="s%d@x" % number)
            client.ehlo().message(sender="s%d@x" % number)
            client.quit()
        sessions.append({id(one.connection) for relay in (first, second) for one in relay.committed() if one.mail == b"s%d@x" % number})
    assert all(len(connections) == 1 for connections in sessions)
    assert first.committed() and second.committed() and len(first.auths() + second.auths()) == 4


def test_two_sessions_share_nothing(farm):
    weir, relay = farm(users={b"one@x": b"password one", b"two@x": b"password two"})
    with weir.introduced() as one, weir.introduced() as two, weir.introduced() as stranger:
        authenticate(one, b"one@x", b"password one").message(sender="one@x")
        authenticate(two, b"two@x", b"password two").message(sender="two@x")
        stranger.ok("MAIL FROM:<stranger@x>", 530)
        one.message(sender="one@x")
        one.quit()
        stranger.ok("MAIL FROM:<stranger@x>", 530)
    assert all(transaction.user == transaction.mail for transaction in relay.committed()) and len(relay.committed()) == 3
    weir.wait_log(event="transaction", times=3)
    assert {line["user"] for line in weir.find_log(event="transaction")} == {"one@x", "two@x"}
    assert_no_secret(weir, b"password one")


@pytest.mark.parametrize("how", ["abort", "close", "quit"])
def test_the_client_goes_in_the_exchange(farm, how):
    weir, relay = farm()
    relay.on("auth2", Delay(0.2))
    with weir.introduced() as client:
        client.ok("AUTH LOGIN", 334)
        client.send(b64(USER) + b"\r\n" if how != "quit" else b"QUIT\r\n")  # QUIT is base64
        if how == "quit":
            client.expect(334)
        client.abort() if how == "abort" else client.close()
    wait_until(lambda: all(not one.connection.open for one in relay.auths()), 5, "the backend's connection has ended")


# Beside TLS and identity


@pytest.mark.parametrize("tls", ["require", "implicit", "opportunistic"])
def test_credentials_go_over_tls(farm, pki, tls):
    weir, relay = farm(pool={"tls": tls}, certificate=pki.relay, implicit=tls == "implicit", auth_tls_only=True)
    with weir.introduced() as client:
        authenticate(client).message()
        client.quit()
    assert relay.auths()[0].secured and relay.committed()[0].user == USER and not relay.faults
    assert not any(b"AUTH" in one.clear for one in relay.connections)


def test_no_second_try_in_the_clear(farm, pki):
    """Who breaks a handshake may be waiting for just that."""
    weir, first, second = farm(2, pool={"tls": "opportunistic", "queue-timeout": "500ms"}, certificate=pki.relay)
    first.on("handshake", DROP)
    with weir.introduced() as client:
        authenticate(client).message()
        client.quit()
    assert not first.auths() and second.auths()[0].secured
    second.on("handshake", DROP)
    with weir.introduced() as client:
        reply = client.command(b"AUTH PLAIN " + plain())
        assert reply.code in (421, 454), reply
    assert not first.auths() and len(second.auths()) == 1


@pytest.mark.scorecard(54, "what a client says of itself is xtext at the backend")
@pytest.mark.parametrize("user", [b"u ADDR=1.2.3.4", b"a+b=c", b"\xff\xfe", b"u\r\nXCLIENT ADDR=1.2.3.4", b"x" * 300, b"\xc3\xa9"])
@pytest.mark.parametrize("identity", ["xclient", "xforward"])
def test_xclient_comes_first_and_names_no_user(farm, user, identity):
    listed = XCLIENT_RELAY if identity == "xclient" else EXTENSIONS + ("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",)
    weir, relay = farm(pool={"identity": identity}, users={user: PASSWORD}, extensions=listed)
    with weir.introduced(source="127.0.0.5") as client:
        authenticate(client, user)
        client.message()
        client.message()
        client.quit()
    for one in relay.committed():
        told = getattr(one, identity)
        assert told["ADDR"] == b"127.0.0.5" and "LOGIN" not in told and "IDENT" not in told and one.user == user
    verbs = spoken(relay.auths()[0].connection)
    if identity == "xclient":
        assert verbs[:5] == ["EHLO", "XCLIENT", "EHLO", "AUTH", "MAIL"] and verbs.count("XCLIENT") == 1
    assert not relay.faults
    weir.wait_log(event="session")
    weir.log()


@pytest.mark.scorecard(55, "ESC, %n, invalid UTF-8, bare CR in HELO and MAIL: one well-formed log line each")
def test_any_users_name_is_one_log_line(farm):
    users = [b"\x1b[31mred", b"%n%s%x", b"\xff\xfe\xc0\x80", b"bare\rcr", b"lf\nevent=forged", b'quo"te\\', b"x" * 600, b"blank ", b"\x7f\x80\x9b", b"="]
    weir, relay = farm(users={**{USER: PASSWORD}, **{user: PASSWORD for user in users}})
    for number, user in enumerate(users):
        with weir.introduced() as client:
            authenticate(client, user).message(sender="n%d@x" % number)
            client.quit()
        line = weir.wait_log(event="transaction", **{"from": "<n%d@x>" % number})
        assert line["user"], "one line, and it is there"
    weir.wait_log(event="session", times=len(users))
    weir.log()
    assert not weir.find_log(event="forged") and len(relay.auths()) == len(users)
    assert weir.find_log(event="transaction", user="%n%s%x") and weir.find_log(event="transaction", user="lf\nevent=forged")


# Nothing is kept


# Without it the dynamic linker saves the vector registers on the stack at the first call of each function, and what memcpy()
# left in them. (The release build is linked that way.)
BOUND = {"LD_BIND_NOW": "1"}


def memory_of(pid):
    """Everything writable of a process but what is mapped from files, in runs of the pages that are there."""
    page = mmap.PAGESIZE
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory, open("/proc/%d/pagemap" % pid, "rb") as pagemap:
        for line in maps:
            span, permissions, _, device, _ = line.split()[:5]
            first, last = (int(part, 16) // page for part in span.split("-"))
            if "w" not in permissions or device != "00:00" or last - first > 1 << 20:
                continue  # the largest is a sanitizer's shadow
            pagemap.seek(first * 8)
            there = [entry >> 62 != 0 for entry in array.array("Q", pagemap.read((last - first) * 8))] + [False]
            while True in there:
                start = there.index(True)
                end = there.index(False, start)
                there[start:end] = [False] * (end - start)
                memory.seek((first + start) * page)
                yield memory.read((end - start) * page)


def new_secret():
    """Long: what is read next covers the beginning of what was read before it."""
    return b"Sesame-" + base64.b32encode(os.urandom(95))


def pieces_of(secret):
    return [part[at:at + 16] for part in secrets_of(secret) for at in (len(part) // 2, len(part) - 16)]


def found_in_memory(weir, *secrets, known=None):
    """What of these stays there: a client may hear a reply before the worker has wiped what it was to. `known` may stay."""
    texts = [*secrets, known] if known else secrets
    for _ in range(20):
        found = {text for octets in memory_of(weir.pid) for text in texts if text in octets}
        if not found - {known}:
            break
        time.sleep(0.1)
    return found


WAYS = ["at once", "later", "login", "wrong", "bytewise", "waiting", "in the clear", "lost", "too long", "with mail"]


def give_password(weir, relay, client, way, secret):
    if way == "at once":
        client.ok(b"AUTH PLAIN " + plain(password=secret), 235)
    elif way == "later":
        client.ok("AUTH PLAIN", 334)
        client.ok(plain(password=secret), 235)
    elif way == "login":
        client.ok(b"AUTH LOGIN " + b64(USER), 334)
        client.ok(b64(secret), 235)
    elif way == "wrong":
        client.ok(b"AUTH PLAIN " + plain(user=b"x", password=secret), 535)
    elif way == "bytewise":
        client.trickle(b"AUTH PLAIN " + plain(password=secret) + b"\r\n")
        client.expect(235)
    elif way == "waiting":  # for a backend: the line stays where it was read
        relay.on("banner", Delay(0.3), times=1)
        client.ok(b"AUTH PLAIN " + plain(password=secret), 235)
    elif way == "lost":
        relay.on("auth", DROP, times=1)
        client.ok(b"AUTH PLAIN " + plain(password=secret), 421)
    elif way == "too long":
        client.ok(b"AUTH PLAIN " + plain(password=secret) + b"=" * 20000, 500)
    elif way == "with mail":
        client.send(b"AUTH PLAIN " + plain(password=secret) + b"\r\nMAIL FROM:<a@x>\r\n")
        assert [client.reply().code for _ in range(2)] == [235, 250]
    else:
        assert way == "in the clear"
        client.ok(b"AUTH PLAIN " + plain(password=secret), 538)


@pytest.mark.parametrize("way,tls", [(way, "off") for way in WAYS] + [("at once", "implicit"), ("login", "implicit"), ("waiting", "require")])
def test_no_password_stays_in_memory(farm, pki, way, tls):
    secret = new_secret()
    weir, relay = farm(users={USER: secret}, top={"workers": 1}, environment=BOUND, pool={"tls": tls}, certificate=pki.relay, implicit=tls == "implicit")
    known = b"known-%s.test" % base64.b32encode(os.urandom(10)).lower()
    try:
        next(memory_of(weir.pid))
    except PermissionError:
        pytest.skip("the memory of a process cannot be read here")
    with (weir.client() if way == "in the clear" else weir.introduced()) as client:
        client.ehlo(known.decode())
        give_password(weir, relay, client, way, secret)
        # A session's EHLO name is in its memory, so that shows whether this looks where things are.
        found = found_in_memory(weir, *pieces_of(secret), known=known)
        assert found - {known} == set(), found
        assert way == "lost" or known in found, "it looks in the wrong places"
        # Nor when it ended.
        client.close()
    weir.wait_log(event="session")
    assert not found_in_memory(weir, *pieces_of(secret))
    assert_no_secret(weir, secret)


def test_half_a_line_is_wiped_with_its_session(farm):
    secret = new_secret()
    weir, relay = farm(top={"workers": 1}, environment=BOUND)
    with weir.introduced() as client:
        client.send(b"AUTH PLAIN " + plain(password=secret))
        client.abort()
    weir.wait_log(event="session")
    assert not found_in_memory(weir, *pieces_of(secret))
