"""Scorecard C and F, AUTH: offered over TLS only, passed on line by line to one backend, and nothing of it kept."""

import base64
import hashlib
import hmac
import re

import pytest
from test_backends import SLOW_CHECKS
from weirtest import programs
from weirtest.client import Client
from weirtest.net import free_port, wait_until
from weirtest.tls import server_context
from weirtest.weir import Weir, run, tls_listener

USER, PASSWORD = b"user@client.test", b"correct horse / battery + staple"
MECHANISMS = "PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER DIGEST-MD5"
STRANGERS = {"allow-from": []}  # who has not authenticated may nothing


def b64(octets):
    return base64.b64encode(octets)


def plain(user=USER, password=PASSWORD, authority=b""):
    return b64(authority + b"\0" + user + b"\0" + password)


def authenticate(client, user=USER, password=PASSWORD):
    client.ok(b"AUTH PLAIN " + plain(user, password), 235)
    return client


def cram(challenge, user=USER, password=PASSWORD):
    return b64(user + b" " + hmac.new(password, base64.b64decode(challenge), hashlib.md5).hexdigest().encode())


def secrets_of(password):
    """The password, and what is left of it inside base64 wherever it may begin."""
    inside = [b64(b"x" * skip + password)[4 if skip else 0:] for skip in range(3)]
    return [password] + [part.rstrip(b"=")[:-1] for part in inside]


def assert_no_secret(weir, password=PASSWORD):
    text = weir.output().encode("utf-8", "surrogateescape")
    assert not [secret for secret in secrets_of(password) if secret in text], text


@pytest.fixture
def farm(start, relays, pki):
    """farm(2): relays that want AUTH, the first preferred, and a Weir with `auth: relay` in front of them: (weir, relay, …)."""
    made = []

    def make(count=1, mode="starttls", listener=None, pool=None, mechanisms=MECHANISMS, users=None, top=None, environment=None, **options):
        farm = relays(count, auth=mechanisms, **{"auth_required": True, "users": users or {USER: PASSWORD}, **options})
        weir = start({"r%d" % (n + 1): {"address": one, "priority": n} for n, one in enumerate(farm)},
                     listener=tls_listener(mode, pki.mx, auth="relay", **{**STRANGERS, **(listener or {})}),
                     pool=dict(SLOW_CHECKS, **(pool or {})), top=top, environment=environment)
        wait_until(lambda: weir.metric("weir_backend_up") == count, 5, "all are up")
        user, password = next(iter((users or {USER: PASSWORD}).items()))
        weir.delivers = lambda: delivers(weir, farm, user, password)
        made.append(weir)
        return (weir, *farm)
    yield make
    for weir in made:
        assert_no_secret(weir)


def delivers(weir, farm, user, password):
    """As Weir.delivers(), which nobody may here without AUTH."""
    for relay in farm:
        relay.auth_required = False
    with weir.introduced() as client:
        if "PLAIN" not in client.extensions.get("AUTH", "").split():  # then it has done it otherwise
            return True
        if client.command(b"AUTH PLAIN " + plain(user, password)).code != 235:
            return False
        return client.command("MAIL FROM:<epilogue@client.test>").code == 250 \
            and client.command("RCPT TO:<to@relay.test>").code == 250 and client.data(b"Subject: epilogue\r\n\r\n").code == 250


# Who may, and what is offered


@pytest.mark.scorecard(34, "AUTH on cleartext: not offered, refused, the password never logged")
@pytest.mark.parametrize("mode", ["starttls", "required"])
def test_in_the_clear(farm, mode):
    weir, relay = farm(mode=mode)
    with weir.client() as client:
        assert not {"AUTH"} & set(client.ehlo().extensions)
        for line in (b"AUTH PLAIN " + plain(), b"AUTH LOGIN", b"auth plain", b"AUTH NONSENSE"):
            client.ok(line, 538, 530)
        assert client.command("MAIL FROM:<a@x>").code in (530, 550)
        client.starttls().ehlo()
        assert sorted(client.extensions["AUTH"].split()) == sorted(MECHANISMS.split())
        authenticate(client).message()
        client.quit()
    assert len(relay.auths()) == 1 and len(relay.committed()) == 1
    assert_no_secret(weir)


@pytest.mark.scorecard(34, "AUTH on cleartext: not offered, refused, the password never logged")
def test_538(farm):
    weir, relay = farm()
    with weir.client() as client:
        assert client.ehlo().command(b"AUTH PLAIN " + plain()).code == 538
        client.send(b"AUTH LOGIN\r\nNOOP\r\n")  # and what follows is no response
        client.expect(538)
        client.expect(250)
        client.quit()
    assert not relay.auths()
    weir.wait_log(event="session")
    assert_no_secret(weir)


def test_auth_off(start, relays, pki):
    relay = relays(1, auth=MECHANISMS)[0]
    weir = start([relay], listener=tls_listener("starttls", pki.mx))
    with weir.introduced() as client:
        assert "AUTH" not in client.extensions
        assert client.command(b"AUTH PLAIN " + plain()).code in (502, 503)
        client.message()
    assert not relay.auths()


def test_a_unix_socket_is_private(start, relays, pki, tmp_path):
    relay = relays(1, auth="PLAIN", users={USER: PASSWORD})[0]
    path = str(tmp_path / "smtp")
    weir = start([relay], listener=tls_listener("starttls", pki.mx, auth="relay"), start=False)
    weir.config["listeners"]["smtp"]["address"].append("unix:" + path)
    weir.write()
    weir.start()
    with Client(path) as client:
        assert client.ehlo().extensions["AUTH"] == "PLAIN" and "STARTTLS" in client.extensions
        authenticate(client).message()
        client.quit()
    assert relay.committed()[0].user == USER
    assert_no_secret(weir)


@pytest.mark.parametrize("first,second,offered", [
    ("PLAIN LOGIN CRAM-MD5 XOAUTH2", "XOAUTH2 LOGIN PLAIN", "PLAIN LOGIN XOAUTH2"),
    ("PLAIN EXTERNAL GSSAPI NTLM SCRAM-SHA-256-PLUS SCRAM-SHA-256 X-OWN", "EXTERNAL GSSAPI NTLM SCRAM-SHA-256-PLUS SCRAM-SHA-256 X-OWN PLAIN",
     "PLAIN SCRAM-SHA-256"),
    ("PLAIN", "LOGIN", None), ("PLAIN", "", None), ("GSSAPI NTLM EXTERNAL", "GSSAPI NTLM EXTERNAL", None)])
def test_what_is_offered(start, relays, pki, first, second, offered):
    one, two = relays(1, auth=first) + relays(1, auth=second)
    weir = start([one, two], listener=tls_listener("implicit", pki.mx, auth="relay"))
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    with weir.introduced() as client:
        if offered is None:
            assert "AUTH" not in client.extensions
            assert client.command(b"AUTH PLAIN " + plain()).code in (502, 503, 504)
        else:
            assert sorted(client.extensions["AUTH"].split()) == sorted(offered.split())
            for mechanism in set((first + " " + second).split()) - set(offered.split()):
                assert client.command("AUTH " + mechanism).code == 504
        client.quit()
    assert not one.auths() and not two.auths()
    weir.wait_log(event="session")
    assert_no_secret(weir)


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_stranger_may_relay_once_it_has_authenticated(farm, mode):
    weir, relay = farm(mode=mode)
    with weir.introduced(source="127.0.0.9") as client:
        reply = client.command("MAIL FROM:<a@x>")
        assert (reply.code, reply.enhanced) == (530, "5.7.0")
        authenticate(client).message()
        client.message()
        client.quit()
    assert [one.user for one in relay.committed()] == [USER, USER]
    with weir.introduced(source="127.0.0.9") as client:
        client.ok("MAIL FROM:<a@x>", 530)


def test_who_may_relay_anyway_need_not(farm):
    weir, relay = farm(listener={"allow-from": ["127.0.0.0/8"]}, auth_required=False)
    with weir.introduced() as client:
        client.message()
        authenticate(client).message()
        client.quit()
    assert [one.user for one in relay.committed()] == [None, USER]


# The exchanges


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("way", ["PLAIN", "PLAIN later", "LOGIN", "LOGIN at once", "CRAM-MD5", "lower"])
def test_mechanisms(farm, mode, way):
    weir, relay = farm(mode=mode)
    with weir.introduced() as client:
        if way in ("PLAIN", "lower"):
            client.ok((b"AUTH PLAIN " if way == "PLAIN" else b"auth plain ") + plain(), 235)
        elif way == "PLAIN later":
            assert client.ok("AUTH PLAIN", 334).text == ""
            client.ok(plain(), 235)
        elif way == "CRAM-MD5":
            client.ok(cram(client.ok("AUTH CRAM-MD5", 334).text), 235)
        else:
            if way == "LOGIN":
                assert base64.b64decode(client.ok("AUTH LOGIN", 334).text) == b"Username:"
                challenge = client.ok(b64(USER), 334)
            else:
                challenge = client.ok(b"AUTH LOGIN " + b64(USER), 334)
            assert base64.b64decode(challenge.text) == b"Password:"
            client.ok(b64(PASSWORD), 235)
        client.message()
        client.quit()
    assert relay.committed()[0].user == USER
    for event in ("transaction", "session"):
        assert weir.wait_log(event=event)["user"] == USER.decode()


SCRAM = b"n,,n=user=2C=3Dname,r=fyko+d2lbbFgONRv9qkxdawL"
NAMED = [("SCRAM-SHA-256", SCRAM, "user,=name"), ("XOAUTH2", b"user=some.one@x.test\1auth=Bearer " + PASSWORD + b"\1\1", "some.one@x.test"),
         ("OAUTHBEARER", b"n,a=some.one@x.test,\1host=h\1auth=Bearer " + PASSWORD + b"\1\1", "some.one@x.test"), ("DIGEST-MD5", None, None)]


@pytest.mark.parametrize("mechanism,first,user", NAMED)
@pytest.mark.parametrize("initial", [True, False])
def test_an_exchange_passes_as_it_is(farm, mechanism, first, user, initial):
    """Byte for byte in both directions, whatever the mechanism; and the name is read where it shows."""
    weir, relay = farm()
    sent, heard = [], []
    with weir.introduced() as client:
        if first and initial:
            reply = client.ok(b"AUTH %s %s" % (mechanism.encode(), b64(first)), 334, 235)
        else:
            reply = client.ok("AUTH " + mechanism, 334)
            if first:
                sent.append(b64(first))
                reply = client.ok(sent[-1], 334, 235)
        while reply.code == 334:
            heard.append(base64.b64decode(reply.text))
            sent.append(b64(b"response %d\0\xff" % len(heard)) if len(heard) == 1 else b"")
            reply = client.ok(sent[-1], 334, 235)
        assert reply.raw == b"235 2.7.0 Authentication successful\r\n"
        client.message()
        client.quit()
    attempt = relay.auths()[0]
    assert attempt.mechanism == mechanism and attempt.responses == sent and attempt.initial == (b64(first) if first and initial else None)
    assert len(heard) == (0 if "OAUTH" in mechanism else 2)
    for event in ("transaction", "session"):
        assert weir.wait_log(event=event).get("user") == user


def test_challenges_of_any_size(farm):
    weir, relay = farm()
    relay.challenges = [b"x" * 350, b"", b"\0\xff"] * 4
    with weir.introduced() as client:
        reply = client.ok(b"AUTH SCRAM-SHA-256 " + b64(SCRAM), 334)
        for challenge in relay.challenges:
            assert base64.b64decode(reply.text) == challenge
            reply = client.ok(b64(challenge + b"r") if challenge else b"", 334, 235)
        assert reply.code == 235
        client.message()


def test_octet_by_octet(farm):
    weir, relay = farm()
    with weir.introduced() as client:
        for line in (b"AUTH LOGIN\r\n", b64(USER) + b"\r\n"):
            client.trickle(line)
            client.expect(334)
        client.trickle(b64(PASSWORD) + b"\r\n")
        client.expect(235)
        client.message()
    assert relay.committed()[0].user == USER


def test_what_follows_in_one_segment(farm):
    """Not to be done (RFC 4954 section 4), but then it is in order."""
    weir, relay = farm()
    with weir.introduced() as client:
        client.send(b"AUTH PLAIN " + plain() + b"\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(4)] == [235, 250, 250, 354]
        client.send(b"x\r\n.\r\n")
        client.expect(250)
        client.quit()
    assert len(relay.committed()) == 1 and relay.auths()[0].initial == plain()


@pytest.mark.scorecard(27, "line limits: AUTH 12,288 octets; MAIL over its limit 500")
def test_the_longest_line(farm):
    weir, relay = farm(mechanisms="PLAIN CRAM-MD5")
    longest = b"AUTH CRAM-MD5 " + b"A" * 12272 + b"\r\n"
    assert len(longest) == 12288
    with weir.introduced() as client:
        client.send(longest)
        challenge = client.expect(334)
        client.ok(b"AAAA" * 3071, 535)  # a response of 12,286 octets, with its end
        client.send(b"AUTH PLAIN " + b"A" * 12280 + b"\r\n")
        client.expect(500)
        client.ok("AUTH CRAM-MD5", 334)
        client.send(b"A" * 16384 + b"\r\n")
        client.expect(500, 501)
        client.ok("NOOP")
        authenticate(client).message()
    assert len(relay.auths()[0].initial) == 12272 and len(relay.auths()[0].responses[0]) == 12284 and challenge
    assert relay.auths()[1].cancelled and len(relay.auths()) == 3


# What is refused


@pytest.mark.scorecard(36, "AUTH *, bad base64, twice, in a transaction: 501, 501, 503, 503")
def test_given_up(farm):
    weir, relay = farm()
    with weir.introduced() as client:
        client.ok("AUTH LOGIN", 334)
        assert client.ok("*", 501).enhanced
        client.ok("MAIL FROM:<a@x>", 530)
        client.ok("AUTH LOGIN", 334)
        client.ok(b64(USER), 334)
        client.ok("*", 501)
        authenticate(client).message()
        client.quit()
    assert [one.cancelled for one in relay.auths()] == [True, True, False] and len(relay.committed()) == 1


@pytest.mark.scorecard(36, "AUTH *, bad base64, twice, in a transaction: 501, 501, 503, 503")
@pytest.mark.parametrize("bad", [b"!", b"YQ", b"YQ=", b"Y=Q=", b"YWJj YWJj", b"YWJj\tYWJj", b" ", b"*YQ=", b"YWJj====", b"\xff\xff\xff\xff", b"\x1b[2J",
                                 b"QUIT", b"=", b"**"])
def test_bad_base64(farm, bad):
    weir, relay = farm()
    with weir.introduced() as client:
        if bad not in (b"=", b"QUIT", b" "):  # an empty initial response, four digits, a blank behind the command
            assert client.command(b"AUTH PLAIN " + bad).code == 501
        assert not relay.auths()
        client.ok("AUTH LOGIN", 334)
        if bad == b"QUIT":
            client.ok(bad, 334)
            bad = b"?"
        client.ok(bad, 501)
        authenticate(client).message()
        client.quit()
    first, second = relay.auths()
    assert first.cancelled and bad not in first.responses and second.code == 235 and not relay.faults


@pytest.mark.scorecard(36, "AUTH *, bad base64, twice, in a transaction: 501, 501, 503, 503")
def test_out_of_place(farm):
    weir, relay = farm(listener={"allow-from": ["127.0.0.0/8"]}, auth_required=False)
    with weir.client() as client:
        client.ehlo().starttls()
        client.ok(b"AUTH PLAIN " + plain(), 503)  # no EHLO since
        client.ok("HELO client.test")
        client.ok(b"AUTH PLAIN " + plain(), 503, 502)  # HELO offers nothing
        client.ehlo()
        client.ok("MAIL FROM:<a@x>")
        client.ok(b"AUTH PLAIN " + plain(), 503)
        client.ok("RCPT TO:<b@x>")
        client.ok(b"AUTH PLAIN " + plain(), 503)
        client.ok("RSET")
        assert not relay.auths()
        authenticate(client)
        client.ok(b"AUTH PLAIN " + plain(), 503)
        client.ok("AUTH LOGIN", 503)
        client.message()
        client.ok(b"AUTH PLAIN " + plain(), 503)
        client.quit()
    assert len(relay.auths()) == 1 and not relay.faults


@pytest.mark.parametrize("line", [b"AUTH", b"AUTH ", b"AUTH PLAIN  YQ==", b"AUTH PLAIN YQ== YQ==", b"AUTH PL%AIN", b"AUTH \x1b[2J",
                                  b"AUTH " + b"X" * 300, b"AUTH EXTERNAL", b"AUTH ANONYMOUS dHJhY2U="])
def test_malformed(farm, line):
    weir, relay = farm()
    with weir.introduced() as client:
        client.ok(line, 501, 504)
        authenticate(client).message()
    assert len(relay.auths()) == 1


@pytest.mark.scorecard(35, "five failed AUTHs: 421")
@pytest.mark.parametrize("way", ["at once", "later", "mixed"])
def test_five_failures(farm, way):
    weir, relay = farm()
    with weir.introduced() as client:
        for number in range(5):
            wrong = plain(password=b"guess %d" % number)
            if way == "at once" or (way == "mixed" and number % 2):
                client.ok(b"AUTH PLAIN " + wrong, 535)
            else:
                client.ok("AUTH PLAIN", 334)
                client.ok(wrong, 535)
        assert client.expect(421).enhanced == "4.7.0"
        assert client.wait_closed() == b""
    assert [one.code for one in relay.auths()] == [535] * 5
    weir.wait_log(event="session")
    for number in range(5):
        assert_no_secret(weir, b"guess %d" % number)


def test_four_failures_and_a_success(farm):
    weir, relay = farm()
    with weir.introduced() as client:
        for _ in range(4):
            assert client.ok(b"AUTH PLAIN " + plain(password=b"wrong"), 535).raw == b"535 5.7.8 Authentication credentials invalid\r\n"
        authenticate(client).message()
        client.quit()


@pytest.mark.parametrize("said", [b"454 4.7.0 later\r\n", b"535 5.7.8 no\r\n", b"534-5.7.9 use\r\n534 5.7.9 another\r\n", b"432 4.7.12 change it\r\n"])
def test_refusals_pass_as_they_are(farm, said):
    weir, relay = farm()
    relay.on("auth", said, times=1)
    with weir.introduced() as client:
        assert client.command(b"AUTH PLAIN " + plain()).raw == said
        client.ok("MAIL FROM:<a@x>", 530)
        authenticate(client).message()
        client.quit()


@pytest.mark.parametrize("said", [b"250 2.0.0 Ok\r\n", b"354 go on\r\n", b"235\r\n250 more\r\n", b"nonsense\r\n", b"999 x\r\n", b"220 x\r\n"])
def test_a_backend_that_lies(farm, said):
    """Nobody is authenticated by what is no 235."""
    weir, first, second = farm(2)
    first.on("auth", said, times=1)
    with weir.introduced() as client:
        reply = client.command(b"AUTH PLAIN " + plain())
        assert reply.code in ((235, 421) if said.startswith(b"235") else (421,)), reply
        if reply.code == 235:
            assert client.command("MAIL FROM:<a@x>").code in (250, 421)
        else:
            assert client.wait_closed() == b""
    assert not second.auths() and not second.traffic()


# Configuration

FILE = """\
listeners:
  smtp: { address: ["127.0.0.1:%d"], pool: relays, %s }
pools:
  relays: { backends: { r1: { address: "%s" } }%s }
http: { address: "" }
control: ""
"""


@pytest.mark.parametrize("listener,address,pool,line", [
    ("auth: relay, tls: starttls, certificate: [%s]", "203.0.113.5:25", "", 4),
    ("auth: relay, tls: starttls, certificate: [%s]", "[2001:db8::5]:25", ", tls: off", 4),
    ("auth: relay", "127.0.0.1:1", "", 2),
    ("auth: relay, tls: off", "127.0.0.1:1", "", 2),
    ("auth: yes, tls: starttls, certificate: [%s]", "127.0.0.1:1", "", 2),
    ("auth: relay, tls: starttls", "127.0.0.1:1", "", 2)])
def test_passwords_may_not_be_meant_to_go_in_the_clear(pki, listener, address, pool, line):
    code, _, said, path = run("--check", "-c", text=FILE % (free_port(), listener % pki.mx if "%s" in listener else listener, address, pool))
    assert code == 2 and re.search(r"^%s:%d:\d+: .*(auth|AUTH|certificate)" % (re.escape(path), line), said, re.M), said


@pytest.mark.parametrize("address,pool", [("203.0.113.5:25", ", tls: require"), ("203.0.113.5:25", ", tls: opportunistic"), ("10.1.2.3:25", ""),
                                          ("203.0.113.5:465", ", tls: implicit-verify"), ("[fd00::5]:25", ""), ("127.0.0.1:1", "")])
def test_these_may(pki, address, pool):
    text = FILE % (free_port(), "auth: relay, tls: required, certificate: [%s]" % pki.mx, address, pool)
    assert run("--check", "-c", text=text)[0] == 0, run("--check", "-c", text=text)


# Real programs


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("option", ["--tls", "--tls-on-connect"])
def test_swaks_authenticates(farm, mechanism, option):
    if mechanism == "CRAM-MD5" and option != "--tls":
        pytest.skip("once is enough")
    weir, relay = farm(mode="starttls" if option == "--tls" else "implicit", mechanisms=mechanism)
    code, dialogue = programs.swaks(weir.port, option, "--auth", mechanism, "--auth-user", USER.decode(), "--auth-password", PASSWORD.decode())
    assert code == 0, dialogue
    assert relay.committed()[0].user == USER
    assert weir.wait_log(event="session")["user"] == USER.decode()


class AuthServer(programs.Aiosmtpd):
    """An aiosmtpd that demands STARTTLS and then AUTH."""

    def __init__(self, pem):
        from aiosmtpd.controller import Controller
        from aiosmtpd.smtp import AuthResult
        super().__init__()
        super().stop()
        self.users = []

        def judge(server, session, envelope, mechanism, data):
            good = (data.login, data.password) == (USER, PASSWORD)
            if good:
                self.users.append((mechanism, data.login))
            return AuthResult(success=good, handled=False)
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, tls_context=server_context(pem), authenticator=judge,
                                     auth_required=True, auth_require_tls=True, require_starttls=True)
        self.controller.start()


def test_aiosmtpd_judges(start, pki):
    server = AuthServer(pki.relay)
    try:
        weir = start([server], listener=tls_listener("starttls", pki.mx, auth="relay", **STRANGERS), pool={"tls": "verify", "ca": pki.ca})
        with weir.introduced() as client:
            assert set(client.extensions["AUTH"].split()) == {"LOGIN", "PLAIN"}
            client.ok("MAIL FROM:<a@x>", 530)
            client.ok(b"AUTH PLAIN " + plain(password=b"wrong"), 535)
            authenticate(client).message()
            client.message()
            client.quit()
        with weir.introduced() as client:
            client.ok("AUTH LOGIN", 334)
            client.ok(b64(USER), 334)
            client.ok(b64(PASSWORD), 235)
            client.message()
            client.quit()
        assert server.users == [("PLAIN", USER), ("LOGIN", USER)] and len(server.messages) == 3
        assert_no_secret(weir)
        weir.finish()
    finally:
        server.stop()


def test_weir_behind_weir(farm, start, pki):
    """The exchange passes two of them."""
    inner, relay = farm()
    outer = start({"inner": {"address": "127.0.0.1:%d" % inner.port, "tls-name": "mx.example.test"}},
                  listener=tls_listener("implicit", pki.mx, auth="relay", **STRANGERS), pool={"tls": "verify", "ca": pki.ca})
    with outer.introduced() as client:
        authenticate(client).message()
        client.quit()
    assert relay.committed()[0].user == USER
    for weir in (inner, outer):
        assert isinstance(weir, Weir) and weir.wait_log(event="transaction")["user"] == USER.decode()
    assert_no_secret(outer)
