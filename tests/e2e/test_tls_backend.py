"""Scorecard B, towards backends: STARTTLS, implicit TLS, what is verified, and what comes of a backend that has no TLS or lies."""

import re
import ssl

import pytest
from test_backends import SLOW_CHECKS, send_commands
from test_identity import name_of, spoken
from weirtest import programs
from weirtest.net import wait_until
from weirtest.relay import CLOSE, DROP, RESET, STALL, XCLIENT_RELAY, XFORWARD_RELAY, At
from weirtest.relay_tls import HANDSHAKE_FAILURE, fatal_alert, half_flight
from weirtest.tls import client_context
from weirtest.weir import tls_listener

MODES = ["opportunistic", "require", "verify", "implicit", "implicit-verify"]
DEMANDING = ["require", "verify"]
BROKEN = {"drop": DROP, "reset": RESET, "alert": [HANDSHAKE_FAILURE, DROP], "half": half_flight, "plaintext": [b"220 hello\r\n", DROP]}


@pytest.fixture
def make(relays, pki):
    """make(mode, 2): relays for that mode."""
    def made(mode, count=1, **options):
        return relays(count, implicit=mode.startswith("implicit"), **{"certificate": pki.relay, **options})
    return made


@pytest.fixture
def pool(pki):
    """pool(mode, ...): the pool's options for it."""
    def options(mode, **more):
        return {"tls": mode, **({"ca": pki.ca} if mode.endswith("verify") else {}), **more}
    return options


@pytest.fixture
def pair(start, make, pool):
    """Two backends that are up. The first is preferred by its tier and is not looked at again while a test spoils it."""
    def started(mode, relay_options=None, **more):
        first, second = make(mode, 2, **(relay_options or {}))
        weir = start({"r1": first, "r2": {"address": second, "priority": 1}}, pool=pool(mode, **SLOW_CHECKS, **more))
        wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
        return weir, first, second
    return started


def assert_not_in_clear(*relays):
    for relay in relays:
        for connection in relay.connections:
            heard = connection.clear if connection.secured else connection.received
            assert b"MAIL" not in heard.upper() and b"AUTH" not in heard.upper(), heard


def assert_used(weir, first, second, transactions=1):
    """A session is served by the second, and the first hears of no mail."""
    for _ in range(transactions):
        with weir.client() as client:
            assert send_commands(client.ehlo()) == [250, 250, 354, 250]
            client.quit()
    assert not first.traffic() and len(second.committed()) == transactions


def warned(weir, what):
    return [line for line in weir.log() if line["level"] == "warning" and re.search(what, " ".join(line.values()))]


def handshakes(weir):
    """The counts of handshakes with backends, by result."""
    found = {}
    for name, labels, value in weir.metrics():
        if name == "weir_tls_handshakes_total" and labels["side"] == "backend":
            found[labels["result"]] = found.get(labels["result"], 0) + value
    return found


@pytest.mark.parametrize("mode", MODES)
def test_mail_goes_over_tls(start, make, pool, mode):
    relay = make(mode)[0]
    weir = start([relay], pool=pool(mode))
    for _ in range(2):
        with weir.client() as client:
            client.ehlo()
            assert "STARTTLS" not in client.extensions, "that is between Weir and its backends"
            client.message()
            client.message()
            client.quit()
    assert len(relay.committed()) == 4 and all(one.secured for one in relay.committed())
    assert_not_in_clear(relay)
    begin = ["EHLO", "MAIL"] if relay.implicit else ["EHLO", "STARTTLS", "EHLO", "MAIL"]
    for connection in relay.traffic():
        assert spoken(connection)[:len(begin)] == begin and connection.version == "TLSv1.3"
        assert connection.sni is None, "an address is no name (RFC 6066 section 3)"
    # The checks go the same way.
    assert len(relay.secured()) > len(relay.traffic()) and not relay.refusals


def test_every_connection_of_a_farm_without_tls_is_plain(start, make):
    relay = make("require")[0]
    weir = start([relay])
    weir.deliver()
    assert not relay.secured() and not any(b"STARTTLS" in connection.received for connection in relay.connections)
    assert not handshakes(weir) or not sum(handshakes(weir).values())


@pytest.mark.parametrize("mode", ["require", "implicit"])
@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(start, make, pool, mode, maximum):
    """The second connection of a worker costs no certificate (RFC 8446 section 2.2, RFC 5077)."""
    relay = make(mode)[0]
    relay.tls_maximum = maximum
    weir = start([relay], pool=pool(mode, **SLOW_CHECKS), top={"workers": 1})
    for _ in range(4):
        weir.deliver()
        relay.wait("closed", len(relay.connections))
    assert [one.resumed for one in relay.traffic()] == [False, True, True, True]


def test_what_was_not_verified_is_not_resumed_by_who_verifies(start, make, pool, pki):
    relay = make("require", certificate=pki.relay_foreign)[0]
    weir = start([relay], pool=pool("require", **{"queue-timeout": "500ms"}), top={"workers": 1})
    weir.deliver()
    weir.reload(lambda config: config["pools"]["relays"].update({"tls": "verify", "ca": pki.ca}))
    weir.wait_log(event="reload")
    with weir.client() as client:
        assert send_commands(client.ehlo())[0] // 100 == 4
    assert len(relay.traffic()) == 1
    relay.certificate = pki.relay


# A backend that lies


@pytest.mark.scorecard(16, "plaintext behind a backend's 220 to STARTTLS: dropped, never used")
@pytest.mark.parametrize("mode", ["opportunistic", "require", "verify"])
@pytest.mark.parametrize("behind", [b"250-evil\r\n250 SIZE 666\r\n", b"2", b"220 go on again\r\n", b"250 2.1.0 Ok\r\n" * 100])
def test_plaintext_behind_220(pair, mode, behind):
    weir, first, second = pair(mode)
    first.on("starttls", b"220 go on\r\n" + behind)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, 250]
        assert "666" not in client.ehlo().extensions.get("SIZE", "")
        client.quit()
    if mode != "opportunistic":
        assert not first.traffic() and len(second.committed()) == 1
        assert_not_in_clear(first, second)
    for connection in first.connections:
        assert not (connection.secured and connection.traffic and b"STARTTLS" in connection.clear), "what lied was used"


@pytest.mark.scorecard(16, "plaintext behind a backend's 220 to STARTTLS: dropped, never used")
def test_plaintext_behind_220_at_a_check(start, make, pool):
    relay = make("require")[0].on("starttls", b"220 go on\r\n250-evil\r\n250 STARTTLS\r\n")
    weir = start([relay], pool=pool("require", **{"queue-timeout": "300ms"}), wait="alive")
    weir.wait_log(event="backend-state", backend="r1", to="down")
    with weir.client() as client:
        assert send_commands(client.ehlo())[0] // 100 == 4
    weir.mark_baseline()


WITHOUT = {"hidden": None, "454": b"454 4.7.0 TLS not available\r\n", "502": b"502 5.5.1 what?\r\n", "354": b"354 go on\r\n", "250": b"250 2.0.0 Ok\r\n",
           "421": b"421 4.3.2 busy\r\n", "garbage": b"TLS\r\n", "drop": DROP}


def without_tls(relay, how):
    if how == "hidden":
        relay.offers_starttls = False
    else:
        relay.on("starttls", WITHOUT[how])


@pytest.mark.scorecard(17, "tls require, and the backend has no STARTTLS: no MAIL in clear, 4xx")
@pytest.mark.parametrize("mode", DEMANDING)
@pytest.mark.parametrize("how", WITHOUT)
def test_no_starttls(pair, mode, how):
    weir, first, second = pair(mode, **{"queue-timeout": "500ms"})
    without_tls(first, how)
    assert_used(weir, first, second)
    # Nobody else there.
    second.stop()
    with weir.client() as client:
        codes = send_commands(client.ehlo())
        assert codes[0] // 100 == 4, codes
    assert_not_in_clear(first, second)
    assert not first.traffic()
    first.offers_starttls = True


@pytest.mark.scorecard(17, "tls require, and the backend has no STARTTLS: no MAIL in clear, 4xx")
@pytest.mark.parametrize("mode", DEMANDING)
@pytest.mark.parametrize("how", ["hidden", "454", "354"])
def test_a_check_finds_no_starttls(start, make, pool, mode, how):
    relay = make(mode)[0]
    without_tls(relay, how)
    weir = start([relay], pool=pool(mode, **{"queue-timeout": "300ms"}), wait="alive")
    line = weir.wait_log(event="backend-state", backend="r1", to="down")
    assert re.search("(?i)starttls|tls", line["reason"]), line
    with weir.client() as client:
        assert send_commands(client.ehlo())[0] // 100 == 4
    assert_not_in_clear(relay)
    assert weir.metric("weir_backend_up") == 0
    weir.mark_baseline()
    relay.offers_starttls = True


@pytest.mark.scorecard(17, "tls require, and the backend has no STARTTLS: no MAIL in clear, 4xx")
@pytest.mark.parametrize("mode", ["require", "implicit"])
@pytest.mark.parametrize("how", list(BROKEN) + ["stall"])
def test_a_handshake_that_fails(pair, mode, how):
    weir, first, second = pair(mode)
    before = handshakes(weir)
    first.on("handshake", BROKEN.get(how, STALL))
    assert_used(weir, first, second)
    assert_not_in_clear(first, second)
    assert weir.wait_log(event="transaction", outcome="delivered")["backend"] == "r2"
    fresh = {result: count - before.get(result, 0) for result, count in handshakes(weir).items()}
    assert sum(fresh.values()) >= 2 and len([count for count in fresh.values() if count]) == 2, "one of each: %s" % fresh


# What is verified

WRONG = {
    "name": ("relay_named", "(?i)name|address|mismatch"),
    "expired": ("relay_expired", "(?i)expired"),
    "self-signed": ("relay_self_signed", "(?i)self.?signed"),
    "foreign": ("relay_foreign", "(?i)issuer|self.?signed|unable to get|verify"),
}


@pytest.mark.scorecard(18, "a wrong name, an expired or a self-signed certificate under verify: refused, marked down")
@pytest.mark.parametrize("mode", ["verify", "implicit-verify"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_certificate(start, make, pool, pki, mode, wrong):
    certificate, reason = WRONG[wrong]
    relay = make(mode, certificate=getattr(pki, certificate))[0]
    weir = start([relay], pool=pool(mode, **{"queue-timeout": "300ms"}), wait="alive")
    line = weir.wait_log(event="backend-state", backend="r1", to="down")
    assert re.search(reason, line["reason"]), line
    with weir.client() as client:
        assert send_commands(client.ehlo())[0] // 100 == 4
    assert weir.metric("weir_backend_up") == 0 and not relay.secured() or not relay.traffic()
    assert not relay.traffic()
    weir.mark_baseline()
    # A new certificate is all it takes.
    relay.certificate = pki.relay
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "it is up")


@pytest.mark.scorecard(18, "a wrong name, an expired or a self-signed certificate under verify: refused, marked down")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_certificate_that_goes_wrong(pair, pki, wrong):
    """Between two checks: the session finds out."""
    weir, first, second = pair("verify")
    first.certificate = getattr(pki, WRONG[wrong][0])
    assert_used(weir, first, second, 2)
    assert_not_in_clear(first)
    wait_until(lambda: warned(weir, "r1"), 3, weir.output)
    first.certificate = pki.relay


@pytest.mark.parametrize("mode", ["require", "opportunistic", "implicit"])
@pytest.mark.parametrize("wrong", ["relay_expired", "relay_self_signed"])
def test_what_is_not_verified_may_be_wrong(start, make, pool, pki, mode, wrong):
    relay = make(mode, certificate=getattr(pki, wrong))[0]
    start([relay], pool=pool(mode)).deliver()
    assert relay.committed()[0].secured


@pytest.mark.parametrize("mode", ["verify", "implicit-verify"])
def test_a_name_of_its_own(start, make, pool, pki, mode):
    relay = make(mode, certificate=pki.relay_named)[0]
    weir = start({"r1": {"address": relay, "tls-name": "relay.test"}}, pool=pool(mode))
    weir.deliver()
    assert relay.committed()[0].secured and {one.sni for one in relay.secured()} == {"relay.test"}


@pytest.mark.scorecard(18, "a wrong name, an expired or a self-signed certificate under verify: refused, marked down")
def test_another_name_than_its_own(start, make, pool):
    relay = make("verify")[0]
    weir = start({"r1": {"address": relay, "tls-name": "elsewhere.test"}}, pool=pool("verify"), wait="alive")
    weir.wait_log(event="backend-state", backend="r1", to="down", reason=re.compile("(?i)name|mismatch"))
    assert not relay.traffic()
    weir.mark_baseline()
    weir.reload(lambda config: config["pools"]["relays"]["backends"]["r1"].update({"tls-name": "relay.test"}))
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "it is up")


def test_without_a_ca_the_systems_count(start, make, pool):
    relay = make("verify")[0]
    weir = start([relay], pool=pool("verify", ca=""), wait="alive", environment={"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": "/nonexistent"})
    weir.wait_log(event="backend-state", backend="r1", to="down")
    assert not relay.traffic()
    weir.relays = []  # nothing can be delivered here


# Opportunistic


@pytest.mark.parametrize("how", ["hidden", "454", "502"])
def test_opportunistic_goes_on_in_the_clear(pair, how):
    weir, first, second = pair("opportunistic")
    without_tls(first, how)
    weir.deliver()
    assert not second.traffic() and len(first.committed()) == 1 and not first.committed()[0].secured
    connection = first.traffic()[0]
    assert (b"STARTTLS" in connection.received) == (how != "hidden"), "on the same connection"
    first.offers_starttls = True


@pytest.mark.parametrize("how", list(BROKEN) + ["stall"])
def test_opportunistic_tries_once_more_without(pair, how):
    weir, first, second = pair("opportunistic")
    known = len(first.connections)
    first.on("handshake", BROKEN.get(how, STALL))
    weir.deliver()
    assert not second.traffic() and len(first.committed()) == 1
    assert len(first.connections) == known + 2 and spoken(first.traffic()[0])[:2] == ["EHLO", "MAIL"]
    wait_until(lambda: warned(weir, "r1"), 3, lambda: "a warning names it:\n" + weir.output())


def test_opportunistic_keeps_a_backend_whose_handshake_fails_up(start, make, pool):
    relay = make("opportunistic")[0].on("handshake", [HANDSHAKE_FAILURE, DROP])
    weir = start([relay], pool=pool("opportunistic", health={"interval": "100ms"}))
    weir.deliver()
    relay.wait("handshake", 4)
    assert weir.metric("weir_backend_up") == 1 and not weir.find_log(event="backend-state", to="down")


def test_the_depth_starttls_demands_it(start, make, pool):
    """Of the check, where traffic would go on without."""
    relay = make("opportunistic")[0]
    weir = start([relay], pool=pool("opportunistic", health={"depth": "starttls"}))
    weir.deliver()
    assert relay.committed()[0].secured
    for number, how in enumerate(("hidden", "454", "handshake"), 1):
        relay.on("handshake", DROP) if how == "handshake" else without_tls(relay, how)
        wait_until(lambda: weir.metric("weir_backend_up") == 0, 5, "down: " + how)
        # Another thread writes the log.
        wait_until(lambda: len(weir.find_log(event="backend-state", to="down")) == number, 5, weir.output)
        assert re.search("(?i)tls", weir.find_log(event="backend-state", to="down")[-1]["reason"])
        relay.behave()
        relay.offers_starttls = True
        wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "up after " + how)


# Beside capabilities and identity


def test_capabilities_are_read_anew(start, make, pool):
    relay = make("require", extensions=["PIPELINING", "SIZE 20000", "8BITMIME", "SMTPUTF8", "CHUNKING"],
                 extensions_for_tls=["PIPELINING", "SIZE 10000", "8BITMIME", "DSN"])[0]
    weir = start([relay], pool=pool("require"))
    with weir.client() as client:
        assert client.ehlo().extensions == {"PIPELINING": "", "SIZE": "10000", "8BITMIME": "", "DSN": ""}
        client.message(parameters="RET=HDRS")
        client.quit()


@pytest.mark.parametrize("mode", ["require", "implicit-verify"])
@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2"])
def test_the_header_precedes_tls(start, make, pool, mode, identity):
    relay = make(mode, proxy_header=True)[0]
    weir = start([relay], pool=pool(mode, identity=identity))
    with weir.client(source="127.0.0.5") as client:
        client.ehlo().message()
        connection = relay.committed()[0].connection
        assert connection.secured and connection.header.source == name_of(client)
        if relay.implicit:
            assert len(connection.clear) >= connection.header.size
        client.quit()
    assert relay.secured()[0].header, "so does the check's"


def test_xclient_comes_behind_starttls(start, make, pool):
    relay = make("require", extensions=XCLIENT_RELAY)[0]
    weir = start([relay], pool=pool("require", identity="xclient"))
    with weir.client(source="127.0.0.5") as client:
        client.ehlo().message()
        client.message()
        client.quit()
    relay.wait("closed", len(relay.connections))
    assert spoken(relay.traffic()[0]) == ["EHLO", "STARTTLS", "EHLO", "XCLIENT", "EHLO"] + 2 * ["MAIL", "RCPT", "DATA"] + ["QUIT"]
    assert relay.committed()[0].xclient["ADDR"] == b"127.0.0.5"
    assert_not_in_clear(relay)


def test_xforward_comes_behind_starttls(start, make, pool):
    relay = make("require", extensions=XFORWARD_RELAY)[0]
    weir = start([relay], pool=pool("require", identity="xforward"))
    weir.deliver()
    assert spoken(relay.traffic()[0])[:5] == ["EHLO", "STARTTLS", "EHLO", "XFORWARD", "MAIL"]


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_the_header_tells_of_the_clients_tls(start, relays, pki, mode):
    relay = relays(1, proxy_header=True)[0]
    weir = start([relay], pool={"identity": "proxy-v2"}, listener=tls_listener(mode, pki.mx))
    with weir.introduced(sni="mx.example.test") as client:
        client.message()
        version, cipher = client.sock.version().encode(), client.sock.cipher().encode()
        client.quit()
    header = relay.committed()[0].connection.header
    bits, verify, more = header.tls
    assert bits == 1 and more == {0x21: version, 0x23: cipher} and header.authority == b"mx.example.test"
    with weir.introduced() as client:
        client.message()
        client.quit()
    header = relay.committed()[1].connection.header
    assert header.tls[0] == 1 and header.authority is None
    assert all(one.header.tls is None for one in relay.connections if one.header and not one.traffic), "a check has none"


def test_the_header_tells_of_the_clients_certificate(start, relays, pki):
    relay = relays(1, proxy_header=True)[0]
    weir = start([relay], pool={"identity": "proxy-v2"}, listener=tls_listener("implicit", pki.mx, client_ca=pki.ca),
                 context=client_context(pki.ca, certificate=pki.client))
    weir.context.check_hostname = False
    weir.deliver()
    bits, verify, more = relay.committed()[0].connection.header.tls
    assert bits & 3 == 3 and verify == 0 and more[0x22] == b"client.example.test"


def test_a_plain_clients_header_tells_of_no_tls(start, relays, pki):
    relay = relays(1, proxy_header=True)[0]
    weir = start([relay], pool={"identity": "proxy-v2"}, listener=tls_listener("starttls", pki.mx))
    with weir.client() as client:
        client.ehlo().message()
    header = relay.committed()[0].connection.header
    assert header.tls is None and header.authority is None


# How a stream ends


@pytest.mark.parametrize("action,code,outcome", [
    ([b"250 2.0.0 Ok", DROP], 451, "unknown"), ([b"250 2.0.0 Ok", CLOSE], 451, "unknown"), (DROP, 451, "unknown"),
    (fatal_alert, 451, "unknown"), ([b"250 2.0.0 Ok\r\n", DROP], 250, "delivered"), ([b"250 2.0.0 Ok\r\n", CLOSE], 250, "delivered")])
def test_the_end_of_a_stream_ends_no_reply(pair, action, code, outcome):
    weir, first, second = pair("require")
    first.on("end", action, times=1)
    with weir.client() as client:
        assert send_commands(client.ehlo()) == [250, 250, 354, code]
        client.message(sender="next@x")
        client.quit()
    weir.wait_log(event="transaction", times=2)
    assert len(weir.find_log(event="transaction", outcome=outcome)) == (2 if outcome == "delivered" else 1)
    assert [one.mail for one in second.committed()] == []


@pytest.mark.parametrize("action", [fatal_alert, DROP, CLOSE, RESET])
@pytest.mark.parametrize("size", [2000, 2000000])
def test_an_alert_in_the_body(pair, action, size):
    weir, first, second = pair("require")
    first.on("body", At(size // 2, action), times=1)
    with weir.client(timeout=20) as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send((b"x" * 98 + b"\r\n") * (size // 200 + 1))
        # Weir knows: else the rest could be on its way already when the loss is seen, and what became of it unknown.
        weir.wait_metric(0, "weir_backend_connections", backend="r1")
        client.send((b"x" * 98 + b"\r\n") * (size // 200 + 1) + b".\r\n")
        reply = client.reply()
        assert reply.code in (451, 421) and reply.enhanced == "4.4.2", reply
    assert not first.committed() and not second.committed()
    assert weir.wait_log(event="transaction")["outcome"] == "failed"


def test_a_large_message_arrives_whole(start, make, pool, pki):
    relay = make("verify")[0]
    weir = start([relay], pool=pool("verify"), listener=tls_listener("starttls", pki.mx))
    body = b"".join(b"%07d %s\r\n" % (number, b"y" * (number % 900)) for number in range(20000))
    with weir.introduced(timeout=30) as client:
        client.message(wire=body)
        assert client.bdat(b"x").code == 503
        client.quit()
    assert relay.committed()[0].content == body


# Real Postfix


@pytest.mark.parametrize("mode,settings", [
    ("opportunistic", {"smtpd_tls_security_level": "may"}), ("verify", {"smtpd_tls_security_level": "encrypt"}),
    ("implicit-verify", {"smtpd_tls_security_level": "encrypt", "smtpd_tls_wrappermode": "yes"}),
    ("require", {"smtpd_tls_security_level": "encrypt", "smtpd_authorized_xclient_hosts": "127.0.0.1"}),
    ("require", {"smtpd_tls_security_level": "encrypt", "smtpd_upstream_proxy_protocol": "haproxy"})])
def test_postfix_over_tls(start, pool, pki, mode, settings):
    identity = "xclient" if "smtpd_authorized_xclient_hosts" in settings else "proxy-v2" if "smtpd_upstream_proxy_protocol" in settings else "none"
    server = programs.Postfix(settings={"smtpd_tls_cert_file": pki.relay, "smtpd_tls_key_file": pki.relay, "smtpd_tls_loglevel": "1", **settings})
    try:
        weir = start([server], pool=pool(mode, identity=identity))
        with weir.client(source="127.0.0.5") as client:
            client.ehlo().message(sender="one@client.test")
            client.message(sender="two@client.test")
            client.quit()
        wait_until(lambda: len(server.queued()) == 2, 15, server.log)
        log = server.log()
        assert re.search(r"TLS connection established from \S+\[127\.0\.0\.[15]\].*: TLSv1\.3", log), log
        client = "127.0.0.1" if identity == "none" else "127.0.0.5"
        assert len(re.findall(r"client=\S+\[%s\]" % re.escape(client), log)) == 2, log
        # One such error is of the test's own look whether the port is open.
        assert log.count("SSL_accept error") <= (mode == "implicit-verify") and "improper command" not in log, log
        weir.finish()
    finally:
        server.stop()


def test_postfix_without_tls_gets_nothing(start):
    server = programs.Postfix()
    try:
        weir = start([server], pool={"tls": "require", "queue-timeout": "300ms"}, wait="alive")
        weir.wait_log(event="backend-state", to="down")
        with weir.client() as client:
            assert send_commands(client.ehlo())[0] // 100 == 4
        assert not server.queued()
        weir.finish()
    finally:
        server.stop()
