"""Scorecard F: relays are told who the client is, by PROXY header, XCLIENT or XFORWARD; and only those that listen are used."""

import re
import time

import pytest
from test_backends import SLOW_CHECKS, send_commands
from weirtest import programs
from weirtest.client import Client
from weirtest.identity import XCLIENT_ATTRIBUTES
from weirtest.net import has_ipv6, wait_until
from weirtest.relay import DROP, EXTENSIONS, RESET, XCLIENT_RELAY, XFORWARD_RELAY, Bytewise

PROXY = {"proxy-v1": 1, "proxy-v2": 2}
TAKES = {"proxy-v1": {"proxy_header": True}, "proxy-v2": {"proxy_header": True}, "xclient": {"extensions": XCLIENT_RELAY},
         "xforward": {"extensions": XFORWARD_RELAY}}


def name_of(client):
    """(address, port) of the client's end."""
    return client.sock.getsockname()[:2]


def spoken(connection):
    """The verbs of a connection, in order."""
    return [line.split(b" ")[0].upper().decode() for line in connection.lines]


def told(transaction, identity):
    """The address that the relay was told the transaction comes from."""
    if identity in PROXY:
        return transaction.connection.header.source[0]
    return getattr(transaction, identity).get("ADDR", b"nothing").decode()


# PROXY protocol


@pytest.mark.parametrize("identity", PROXY)
def test_a_header_comes_first(start, relays, identity):
    relay = relays(1, proxy_header=True)[0]
    weir = start([relay], pool={"identity": identity})
    clients = [weir.client(source="127.0.0.%d" % number).ehlo() for number in (5, 6, 7)]
    for client in clients:
        client.message(sender="%s:%d@client.test" % name_of(client))
        client.message(sender="%s:%d@client.test" % name_of(client))
    for client in clients:
        client.quit()
    assert len(relay.committed()) == 6
    for one in relay.committed():
        header = one.connection.header
        assert b"%s:%d@client.test" % (header.source[0].encode(), header.source[1]) == one.mail
        assert (header.version, header.destination) == (PROXY[identity], weir.address)
        assert spoken(one.connection)[:2] == ["EHLO", "MAIL"]


@pytest.mark.parametrize("identity", PROXY)
def test_a_health_check_sends_its_own_addresses(start, relays, identity):
    relay = relays(1, proxy_header=True)[0]
    start([relay], pool={"identity": identity, "health": {"interval": "100ms"}})
    relay.wait("quit", 3)
    checks = [connection for connection in relay.connections if connection.header]
    assert len(checks) >= 3 and not relay.traffic()
    for check in checks:
        assert check.header.version == PROXY[identity] and check.header.source[0] == "127.0.0.1" and check.header.source[1] > 0
        assert check.header.destination == relay.address
    assert len({check.header.source[1] for check in checks}) > 1, "the ports are real"


@pytest.mark.parametrize("identity", PROXY)
@pytest.mark.skipif(not has_ipv6(), reason="no IPv6")
def test_an_ipv6_client(start, relays, identity):
    relay = relays(1, proxy_header=True)[0]
    weir = start([relay], pool={"identity": identity}, start=False)
    weir.config["listeners"]["smtp"]["address"].append("[::1]:%d" % weir.port)
    weir.write()
    weir.start()
    with Client(("::1", weir.port)) as client:
        client.ehlo().message()
        assert relay.committed()[0].connection.header.source == name_of(client)
    assert relay.committed()[0].connection.header.destination == ("::1", weir.port)


@pytest.mark.parametrize("identity", PROXY)
def test_a_client_without_an_address(start, relays, tmp_path, identity):
    """UNKNOWN would be honest, but Postfix refuses it; an address of Weir's would be trusted. So: one that nobody trusts."""
    relay = relays(1, proxy_header=True)[0]
    path = str(tmp_path / "smtp")
    weir = start([relay], pool={"identity": identity}, start=False)
    weir.config["listeners"]["smtp"]["address"].append("unix:" + path)
    weir.write()
    weir.start()
    with Client(path) as client:
        client.ehlo().message()
        client.quit()
    assert relay.committed()[0].connection.header.source == ("0.0.0.0", 0)


@pytest.mark.parametrize("identity", PROXY)
@pytest.mark.parametrize("step, action", [("connect", DROP), ("connect", RESET), ("banner", b"421 4.3.2 full\r\n"), ("ehlo", DROP)])
def test_the_next_relay_hears_it_too(start, relays, identity, step, action):
    first, second = relays(2, proxy_header=True)
    weir = start([first, second], pool={"identity": identity, **SLOW_CHECKS})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 10, "both are up")
    first.on(step, action)
    for _ in range(4):
        with weir.client(source="127.0.0.5") as client:
            client.ehlo().message()
            assert second.committed()[-1].connection.header.source == name_of(client)
            client.quit()
    assert not first.traffic()


@pytest.mark.parametrize("identity", PROXY)
def test_a_banner_octet_by_octet(start, relays, identity):
    relay = relays(1, proxy_header=True)[0].on("banner", Bytewise())
    weir = start([relay], pool={"identity": identity})
    weir.deliver()
    assert len(relay.committed()) == 1


# XCLIENT


@pytest.mark.parametrize("listed", [XCLIENT_ATTRIBUTES, "ADDR", "NAME ADDR PROTO HELO", "HELO PORT ADDR", "ADDR X-NEW IDENT",
                                    "REVERSE_NAME " + XCLIENT_ATTRIBUTES])
@pytest.mark.parametrize("greeting, proto", [("EHLO", b"ESMTP"), ("HELO", b"SMTP")])
def test_xclient(start, relays, listed, greeting, proto):
    relay = relays(1, extensions=EXTENSIONS + ("XCLIENT " + listed,))[0]
    weir = start([relay], pool={"identity": "xclient"})
    with weir.client(source="127.0.0.5") as client:
        client.ok(greeting + " client.test")
        client.message()
        client.message()
        port = b"%d" % name_of(client)[1]
        client.quit()
    first, second = relay.committed()
    assert first.connection is second.connection and first.xclient == second.xclient
    verbs = spoken(first.connection)
    assert verbs.index("XCLIENT") < verbs.index("MAIL") and verbs[0] == "EHLO" and "XCLIENT" not in verbs[verbs.index("MAIL"):]
    assert first.connection.helo, "EHLO again"
    known = {"ADDR": b"127.0.0.5", "PROTO": proto, "HELO": b"client.test", "DESTADDR": b"127.0.0.1", "DESTPORT": b"%d" % weir.port,
             "NAME": b"[UNAVAILABLE]", "PORT": port}
    for name in ("ADDR", "PORT", "PROTO", "HELO"):
        assert first.xclient.get(name) == (known[name] if name in listed.split() else None), "%s: %s" % (name, first.xclient)
    for name, value in first.xclient.items():
        assert value in (known.get(name), b"[UNAVAILABLE]") and name != "LOGIN", "%s=%r" % (name, value)


def test_xclient_tells_the_port(start, relays):
    relay = relays(1, extensions=XCLIENT_RELAY)[0]
    weir = start([relay], pool={"identity": "xclient"})
    clients = [weir.client(source="127.0.0.%d" % number).ehlo("h%d.test" % number) for number in (5, 6, 7)]
    for client in clients:
        client.message()
    found = sorted((one.xclient["ADDR"], int(one.xclient["PORT"]), one.xclient["HELO"]) for one in relay.committed())
    assert found == sorted((name_of(client)[0].encode(), name_of(client)[1], b"h%d.test" % number)
                           for client, number in zip(clients, (5, 6, 7)))
    assert len({id(one.connection) for one in relay.committed()}) == 3, "a labelled connection has one client"
    for client in clients:
        client.quit()


@pytest.mark.parametrize("identity", ["xclient", "xforward"])
def test_a_health_check_says_it_too(start, relays, identity):
    relay = relays(1, **TAKES[identity])[0]
    start([relay], pool={"identity": identity, "health": {"interval": "100ms"}})
    relay.wait("quit", 3)
    for check in [connection for connection in relay.connections if not connection.open]:
        assert getattr(check, identity)["ADDR"] == b"127.0.0.1"


def test_capabilities_after_xclient_count(start, relays):
    """A relay may offer this client more, or less."""
    relay = relays(1, extensions=["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 20000", "CHUNKING", "XCLIENT ADDR"],
                   extensions_for_client=["PIPELINING", "8BITMIME", "SIZE 10000", "DSN", "XCLIENT ADDR"])[0]
    weir = start([relay], pool={"identity": "xclient"})
    with weir.client() as client:
        client.ehlo()
        assert client.extensions == {"PIPELINING": "", "8BITMIME": "", "SIZE": "10000", "DSN": ""}
        client.message(parameters="RET=HDRS")
        client.quit()


def test_a_client_that_may_less(start, relays):
    """What its EHLO says after XCLIENT decides whether a relay can carry a transaction."""
    first, second = relays(2, extensions=XCLIENT_RELAY)
    weir = start([first, second], pool={"identity": "xclient", **SLOW_CHECKS})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 10, "both are up")
    clients = [weir.client().ehlo() for _ in range(6)]
    assert "SMTPUTF8" in clients[0].extensions
    first.extensions_for_client = ["PIPELINING", "8BITMIME", "XCLIENT ADDR"]
    for client in clients:
        client.ok("MAIL FROM:<\u00e9@x> SMTPUTF8")
        client.ok("RCPT TO:<b@x>")
        assert client.data(b"x\r\n").code == 250
        client.quit()
    assert not first.traffic() and len(second.committed()) == 6


@pytest.mark.parametrize("identity, listed", [("xclient", ()), ("xclient", ("XCLIENT",)), ("xclient", ("XCLIENT NAME HELO PROTO",)),
                                              ("xclient", ("XFORWARD NAME ADDR",)), ("xforward", ()), ("xforward", ("XFORWARD NAME HELO",)),
                                              ("xforward", ("XCLIENT NAME ADDR",))])
def test_a_relay_that_does_not_take_it_is_not_used(start, relays, identity, listed):
    relay = relays(1, extensions=EXTENSIONS + listed)[0]
    weir = start([relay], pool={"identity": identity, "queue-timeout": "500ms"}, wait="alive")
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes[0] // 100 == 4, codes
    wait_until(lambda: [line for line in weir.log() if line["level"] in ("warning", "error") and line.get("backend") == "r1"], 3,
               lambda: "the log says so:\n" + weir.output())
    weir.mark_baseline()
    assert not relay.traffic() and weir.metric("weir_backend_up") == 0
    # Once it does, it is.
    relay.extensions = list(TAKES[identity]["extensions"])
    wait_until(weir.delivers, 8, lambda: "it is used:\n" + weir.output())
    assert told(relay.committed()[-1], identity) == "127.0.0.1"


@pytest.mark.parametrize("identity", ["xclient", "xforward"])
def test_it_stops_taking_it(start, relays, identity):
    """Between two checks: a session finds out by itself, and goes elsewhere."""
    first, second = relays(2, **TAKES[identity])
    weir = start([first, second], pool={"identity": identity, **SLOW_CHECKS})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 10, "both are up")
    first.extensions = list(EXTENSIONS)
    for _ in range(6):
        weir.deliver()
    assert not first.traffic() and len(second.committed()) == 6
    first.extensions = list(TAKES[identity]["extensions"])


REFUSALS = [b"550 5.7.0 not you\r\n", b"501 5.5.4 what\r\n", b"450 4.3.0 later\r\n", b"421 4.3.2 full\r\n", b"354 go on\r\n", b"999 x\r\n", DROP,
            RESET]


@pytest.mark.parametrize("identity", ["xclient", "xforward"])
@pytest.mark.parametrize("action", REFUSALS + ["wrong 2xx", "one more"])
def test_refused(start, relays, identity, action):
    right, wrong = (220, 250) if identity == "xclient" else (250, 220)
    if action == "wrong 2xx":
        action = b"%d but not this\r\n" % wrong
    elif action == "one more":
        action = b"%d yes\r\n250 and for what comes\r\n" % right
    first, second = relays(2, **TAKES[identity])
    weir = start([first, second], pool={"identity": identity, **SLOW_CHECKS})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 10, "both are up")
    first.on(identity, action)
    sent = 0
    while first.seen(identity) < 2 and sent < 40:  # which of the two is asked is chance
        weir.deliver()
        sent += 1
    assert not first.committed() and len(second.committed()) == sent
    assert first.seen(identity) > 1, "the first was asked"
    assert not first.traffic()
    # Nobody else there: 4xx, and the session lives or ends in order.
    second.stop()
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes[0] // 100 == 4, codes


@pytest.mark.parametrize("said", [b"421 4.3.2 full\r\n", b"554 5.7.1 not this client\r\n", b"502 5.5.1 no EHLO any more\r\n", DROP])
def test_refused_at_the_second_ehlo(start, relays, said):
    def second_ehlo(connection, line):
        return said if connection.xclient else None
    first, second = relays(2, extensions=XCLIENT_RELAY)
    weir = start([first, second], pool={"identity": "xclient", **SLOW_CHECKS})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 10, "both are up")
    first.on("ehlo", second_ehlo)
    first.on("helo", b"550 nor HELO\r\n")
    for _ in range(5):
        weir.deliver()
    assert not first.committed() and len(second.committed()) == 5


JUDGING = [("proxy-v1", "banner"), ("proxy-v2", "banner"), ("proxy-v2", "ehlo"), ("xclient", "xclient"), ("xclient", "ehlo")]
NO = [b"554 5.7.1 you are listed\r\n", b"550 5.7.1 no\r\n", b"450 4.7.1 later\r\n", b"421 4.7.0 too many of you\r\n"]


@pytest.mark.parametrize("identity, step, said", [
    (identity, step, said) for identity, step in JUDGING for said in NO])
def test_a_client_that_relays_refuse(start, relays, identity, step, said):
    """They refuse the client they were told of, not Weir: it must not be able to take the farm away from everybody else."""
    def judge(connection, line):
        address = connection.header.source[0] if connection.header else connection.xclient.get("ADDR", b"").decode()
        bad = b"ADDR=127.0.0.66" in line if step == "xclient" else address == "127.0.0.66"
        return said if bad else None
    first, second = relays(2, **TAKES[identity])
    weir = start([first, second], pool={"identity": identity, **SLOW_CHECKS})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 10, "both are up")
    for one in (first, second):
        one.on(step, judge)
        one.on("helo", judge)
    for _ in range(20):
        with weir.client(source="127.0.0.66") as client:
            assert send_commands(client.ehlo())[0] // 100 in (4, 5)
    assert weir.ctl("status")[0] == 0  # the control thread has seen it all
    assert not weir.find_log(to="ejected") and weir.metric("weir_backend_up") == 2, weir.output()
    began = time.monotonic()
    for _ in range(4):
        weir.deliver()
    assert time.monotonic() - began < 9


# XFORWARD


@pytest.mark.parametrize("pipelining", [True, False])
def test_xforward_before_each_mail(start, relays, pipelining):
    extensions = [word for word in XFORWARD_RELAY if pipelining or word != "PIPELINING"]
    relay = relays(1, extensions=extensions)[0]
    ahead = []
    if not pipelining:
        for step in ("xforward", "mail", "rcpt"):
            relay.on(step, lambda connection, line: ahead.append(line) if connection.buffer else None)
    weir = start([relay], pool={"identity": "xforward"})
    with weir.client(source="127.0.0.5") as client:
        client.ehlo("forwarded.test")
        name = name_of(client)
        client.message()
        client.message()
        client.ok("MAIL FROM:<abandoned@x>")
        client.ok("RSET")
        client.send(b"MAIL FROM:<piped@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(3)] == [250, 250, 354]
        client.send(b"x\r\n.\r\n")
        client.expect(250)
        relay.on("mail", b"450 4.7.1 grey\r\n", times=1)
        client.ok("MAIL FROM:<grey@x>", 450)
        client.message()
        client.ok("NOOP")
        client.quit()
    assert not ahead, "sent ahead to a relay without PIPELINING"
    assert len(relay.committed()) == 4 and len(relay.traffic()) == 1
    for one in relay.transactions():
        found = one.xforward
        assert (found["ADDR"], found["HELO"], found["PROTO"]) == (b"127.0.0.5", b"forwarded.test", b"ESMTP"), (one.mail, found)
        assert found["PORT"] == b"%d" % name[1]
    verbs = spoken(relay.traffic()[0])
    assert all(verbs[at - 1] == "XFORWARD" for at, verb in enumerate(verbs) if verb == "MAIL"), verbs


@pytest.mark.parametrize("action", REFUSALS[:4] + [DROP])
def test_xforward_refused_later(start, relays, action):
    """The second of a session. No reply of the relay's to it is ever taken for one to the client's MAIL."""
    relay = relays(1, extensions=XFORWARD_RELAY)[0]
    weir = start([relay], pool={"identity": "xforward", **SLOW_CHECKS})
    with weir.client() as client:
        client.ehlo().message()
        relay.on("xforward", action, times=1)
        codes = send_commands(client)
        assert codes[0] // 100 in (2, 4), codes
        if codes[0] != 421:
            if codes[-1] != 250:
                client.ok("RSET")
            client.ok("VRFY someone", 252)
            client.message()
            client.quit()
    assert all(one.xforward.get("ADDR") == b"127.0.0.1" for one in relay.committed()), "none without it"


# What the client says of itself

HELOS = [b"x LOGIN=root", b"a+b=c", b"a" * 300, b"a" * 255, b"+" * 255, b"ADDR=1.2.3.4", b"x\tADDR=1.2.3.4", b"[IPv6:2001:db8::1]",
         "\u00e9.test".encode(), b"\xff\xfe", b"esc\x1b[2J", b"%n%s", b"nul\0.test", b"bare\rcr", b"[UNAVAILABLE]", b"x+20LOGIN=root"]


@pytest.mark.scorecard(54, "what a client says of itself is xtext at the backend")
@pytest.mark.parametrize("identity", ["xclient", "xforward"])
@pytest.mark.parametrize("greeting", [b"EHLO", b"HELO"])
def test_what_a_client_says_of_itself(start, relays, identity, greeting):
    relay = relays(1, **TAKES[identity])[0]
    weir = start([relay], pool={"identity": identity}, listener={"max-errors": 1000})
    for helo in HELOS:
        with weir.client(source="127.0.0.5") as client:
            reply = client.command(greeting + b" " + helo)
            assert reply.code in (250, 500, 501), (helo, reply)
            if reply.code != 250:
                client.ehlo("good.test")
            client.message()
            client.quit()
        found = getattr(relay.committed()[-1], identity)
        expected = (helo, b"[UNAVAILABLE]") if reply.code == 250 else (b"good.test",)
        assert found["HELO"] in expected and found["ADDR"] == b"127.0.0.5" and "LOGIN" not in found, (helo, found)
    assert len(relay.committed()) == len(HELOS) and not relay.faults


# Real Postfix

POSTFIX = {"proxy-v1": {"smtpd_upstream_proxy_protocol": "haproxy"}, "proxy-v2": {"smtpd_upstream_proxy_protocol": "haproxy"},
           "xclient": {"smtpd_authorized_xclient_hosts": "127.0.0.1"}, "xforward": {"smtpd_authorized_xforward_hosts": "127.0.0.1"}}


@pytest.fixture
def postfix():
    """postfix(settings, next_hop=port) starts one."""
    made = []

    def make(settings, **options):
        made.append(programs.Postfix(settings=settings, **options))
        return made[-1]
    yield make
    for one in made:
        one.stop()


@pytest.mark.parametrize("identity", POSTFIX)
def test_postfix_logs_the_client(start, relay, postfix, identity):
    server = postfix(POSTFIX[identity], next_hop=relay.port)
    weir = start([server], pool={"identity": identity})
    field = "orig_client" if identity == "xforward" else "client"
    for number, helo in ((5, "five.test"), (6, "a+b=c.test")):
        with weir.client(source="127.0.0.%d" % number) as client:
            client.ehlo(helo)
            for _ in range(2):
                client.message(sender="s%d@client.test" % number)
            client.quit()
        wait_until(lambda: len(re.findall(r"\b%s=[^ ,]*\[127\.0\.0\.%d\]" % (field, number), server.log())) == 2, 15, server.log)
    # The one warning of smtpd is about the test's own look whether the port is open. (cleanup may have one about the clock.)
    assert len(re.findall(r"smtpd\[\d+\]: warning", server.log())) <= 1 and "improper command" not in server.log(), server.log()
    wait_until(lambda: len(relay.committed()) == 4, 10, server.log)
    for one in relay.committed():
        number, helo = (5, b"five.test") if one.mail.startswith(b"s5") else (6, b"a+b=c.test")
        received = re.search(rb"Received: from (\S+) \(\S+ \[(\S+)\]\)", one.content)
        assert received, one.content
        if identity != "xforward":
            assert received.group(2) == b"127.0.0.%d" % number, one.content


def test_postfix_hears_the_clients_name(start, relay, postfix):
    """It takes the name from the EHLO after XCLIENT, over XCLIENT's own HELO."""
    weir = start([postfix(POSTFIX["xclient"], next_hop=relay.port)], pool={"identity": "xclient"})
    weir.deliver()
    wait_until(relay.committed, 10, "it went on")
    assert b"Received: from client.test (" in relay.committed()[0].content


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "xclient"])
def test_postfix_judges_the_client(start, postfix, identity):
    """Its access control sees the client, not Weir."""
    server = postfix(dict(POSTFIX[identity], mynetworks="127.0.0.0/29"))
    weir = start([server], pool={"identity": identity})
    with weir.client(source="127.0.0.5") as client:
        client.ehlo().message()
    with weir.client(source="127.0.0.9") as client:
        client.ehlo().ok("MAIL FROM:<a@x>")
        reply = client.command("RCPT TO:<b@elsewhere.test>")
        assert (reply.code, reply.enhanced) == (554, "5.7.1")


# Weir behind Weir


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "xclient"])
def test_weir_behind_weir(start, relay, identity):
    option = "xclient-from" if identity == "xclient" else "proxy-protocol-from"
    inner = start([relay], listener={option: ["127.0.0.6/32"], "allow-from": ["127.0.0.1/32", "127.0.0.5/32"]})
    outer = start([inner], pool={"identity": identity, "source": "127.0.0.6"})
    with outer.client(source="127.0.0.5") as client:
        client.ehlo("outer.test").message()
        client.message()
        name = "%s:%d" % name_of(client)
        client.quit()
    for weir in (inner, outer):
        line = weir.wait_log(event="transaction", outcome="delivered", times=2)
        assert (line["client"], line["helo"]) == (name, "outer.test" if weir is outer or identity == "xclient" else "weir.test")
    with outer.client(source="127.0.0.9") as client:
        client.ehlo()
        reply = client.command("MAIL FROM:<a@x>")
        assert reply.code == 550, "the inner one judges the client"
    assert len(relay.committed()) == 2
