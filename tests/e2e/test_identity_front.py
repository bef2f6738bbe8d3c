"""Scorecard F: who the client is, as somebody in front of Weir says it: PROXY headers and XCLIENT, from those listed and from no one else."""

import os
import subprocess
import time

import pytest
from test_identity import name_of, spoken, told
from weirtest import programs
from weirtest.client import Client
from weirtest.identity import SIGNATURE, tlv, v1, v2, v2_raw
from weirtest.net import free_port, wait_until
from weirtest.relay import XCLIENT_RELAY, XFORWARD_RELAY

FRONT, STRANGER = "127.0.0.5", "127.0.0.9"
ALLOWED, OTHER, SIX = ("10.1.2.3", 5678), ("10.9.9.9", 5678), ("fd00:1::5", 5678)
ALLOW = ["127.0.0.1/32", "10.1.0.0/16", "fd00:1::/32"]
HEADER_LIMIT = 15  # seconds; "at once" is far below


def proxied(start, relay, pool=None, **listener):
    """A Weir that takes headers from FRONT. FRONT itself may not relay, 127.0.0.1 (the epilogue) may."""
    return start([relay], listener={"proxy-protocol-from": [FRONT + "/32"], "allow-from": ALLOW, **listener}, pool=pool)


def labelled(start, relay, pool=None, **listener):
    return start([relay], listener={"xclient-from": [FRONT + "/32"], "allow-from": ALLOW, **listener}, pool=pool)


def text(name):
    return ("[%s]:%d" if ":" in name[0] else "%s:%d") % name


def try_mail(client):
    """A message if MAIL is taken; the reply to MAIL."""
    reply = client.command("MAIL FROM:<a@x>")
    if reply.code == 250:
        client.ok("RCPT TO:<b@x>")
        assert client.data(b"x\r\n").code == 250
    return reply


# PROXY headers that hold

TLVS = tlv(1, b"h2") + tlv(2, b"mx.test") + tlv(4, b"\0" * 40) + tlv(0x20, b"\1\0\0\0\0" + tlv(0x21, b"TLSv1.3")) + tlv(0xEA, b"")
LONGEST = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
HEADERS = {  # what is sent → the client it tells
    "v1-tcp4": (v1(ALLOWED), ALLOWED), "v1-tcp4-other": (v1(OTHER), OTHER), "v1-tcp6": (v1(SIX, ("::1", 25)), SIX),
    "v1-longest-tcp6": (v1(("fd00:0001:ffff:ffff:ffff:ffff:ffff:ffff", 65535), ("ffff:" * 7 + "ffff", 65535)),
                        ("fd00:1:ffff:ffff:ffff:ffff:ffff:ffff", 65535)),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None), "v1-unknown-longest": (LONGEST, None),
    "v1-unknown-lies": (b"PROXY UNKNOWN " + v1(ALLOWED)[11:], None),
    "v2-tcp4": (v2(ALLOWED), ALLOWED), "v2-tcp4-other": (v2(OTHER), OTHER), "v2-tcp4-tlvs": (v2(ALLOWED, tlvs=TLVS), ALLOWED),
    "v2-tcp6": (v2(SIX), SIX), "v2-tcp6-tlvs": (v2(SIX, tlvs=TLVS), SIX), "v2-padded": (v2(ALLOWED, tlvs=tlv(4, b"x" * 480)), ALLOWED),
    "v2-local": (v2(command=0), None), "v2-local-lies": (v2(ALLOWED, command=0), None), "v2-local-tlvs": (v2(command=0, tlvs=TLVS), None),
    "v2-unspec": (v2(), None), "v2-unix": (v2_raw(b"/front".ljust(108, b"\0") * 2, family=0x31), None),
}
assert len(LONGEST) <= 107 and len(HEADERS["v1-longest-tcp6"][0]) <= 107


@pytest.mark.scorecard(53, "PROXY headers too long, LOCAL, UNKNOWN, octet by octet")
@pytest.mark.parametrize("sending", ["whole", "bytewise"])
@pytest.mark.parametrize("header", HEADERS)
def test_a_header_is_believed(start, relay, header, sending):
    octets, tells = HEADERS[header]
    # FRONT may relay: and yet who tells no address may not.
    weir = proxied(start, relay, **{"allow-from": ALLOW + ["127.0.0.5/32"]})
    with weir.client(source=FRONT, banner=False) as client:
        if sending == "whole":
            client.send(octets)
        else:
            client.trickle(octets[:-1], 0.001)
            assert client.silent(0.1), "it waits for the last octet"
            client.send(octets[-1:])
        client.expect(220)
        client.ehlo()
        reply = try_mail(client)
        if tells and tells != OTHER:
            assert reply.code == 250, reply
        else:
            assert (reply.code, reply.enhanced) == (550, "5.7.1")
        own = name_of(client)
        client.quit()
    line = weir.wait_log(event="session", client=text(tells or own))
    if reply.code == 250:
        assert weir.wait_log(event="transaction", outcome="delivered")["client"] == line["client"]
    assert len(relay.committed()) == (reply.code == 250)


def test_commands_behind_the_header_are_not_lost(start, relay):
    weir = proxied(start, relay)
    with weir.client(source=FRONT, header=v2(ALLOWED) + b"EHLO x\r\nMAIL FROM:<a@x>\r\n") as client:
        client.expect(250)
        client.expect(250)
        client.ok("RCPT TO:<b@x>")
        assert client.data(b"x\r\n").code == 250
        client.quit()


# … and that do not

V1 = "PROXY TCP4 10.1.2.3 127.0.0.1 %s\r\n"
MALFORMED = {
    "v1-over-107": b"PROXY UNKNOWN " + b"x" * 94, "v1-over-107-crlf": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1-endless": b"PROXY TCP4 " + b"1" * 4000,
    "v1-port-65536": (V1 % "1 65536").encode(), "v1-port-01": (V1 % "01 25").encode(), "v1-port-minus": (V1 % "-1 25").encode(),
    "v1-port-plus": (V1 % "+1 25").encode(), "v1-one-port": (V1 % "1").encode(), "v1-three-ports": (V1 % "1 2 3").encode(),
    "v1-two-spaces": (V1 % "1  2").encode(), "v1-space-at-end": (V1 % "1 2 ").encode(), "v1-nul": (V1 % "1 2\0").encode(),
    "v1-lf": v1(ALLOWED).replace(b"\r\n", b"\n"), "v1-cr": v1(ALLOWED).replace(b"\r\n", b"\r\r\n"), "v1-lower": v1(ALLOWED).lower(),
    "v1-tcp5": v1(ALLOWED).replace(b"TCP4", b"TCP5"),
    "v1-tcp6-with-ipv4": v1(ALLOWED).replace(b"TCP4", b"TCP6"), "v1-tcp4-with-ipv6": v1(SIX).replace(b"TCP6", b"TCP4"),
    "v1-short-address": v1(ALLOWED).replace(b"10.1.2.3", b"10.1.3"), "v1-zero-address": v1(ALLOWED).replace(b"10.1.2.3", b"010.1.2.3"),
    "v1-scope": v1(SIX).replace(b"fd00:1::5", b"fe80::1%lo"), "v1-empty": b"PROXY\r\n", "v1-unknown-joined": b"PROXY UNKNOWNX\r\n",
    "v2-0xffff": v2_raw(b"\0" * 12, length=0xFFFF), "v2-local-0xffff": v2_raw(b"", command=0, family=0, length=0xFFFF),
    "v2-0xffff-filled": v2_raw(b"\0" * 0xFFFF), "v2-short-tcp4": v2_raw(b"\0" * 11), "v2-tcp6-as-tcp4": v2_raw(b"\0" * 12, family=0x21),
    "v2-short-unix": v2_raw(b"\0" * 12, family=0x31), "v2-version-1": v2_raw(b"\0" * 12, version=1), "v2-version-3": v2_raw(b"\0" * 12, version=3),
    "v2-command-2": v2(ALLOWED, command=2), "v2-udp": v2(ALLOWED, family=0x12), "v2-family-4": v2(ALLOWED, family=0x41),
    "v2-half-a-tlv": v2(ALLOWED, tlvs=b"\4\0"),
    "v2-tlv-too-long": v2(ALLOWED, tlvs=b"\4\0\5xxxx"), "v2-bad-crc": v2(ALLOWED, tlvs=tlv(3, b"abcd")),
    "v2-signature": SIGNATURE[:-1] + b"X" + v2(ALLOWED)[12:],
    "ehlo": b"EHLO client.test\r\n", "get": b"GET / HTTP/1.1\r\n\r\n", "tls": b"\x16\x03\x01\x02\x00\x01", "lf": b"\n", "noise": os.urandom(600),
}


@pytest.mark.scorecard(53, "PROXY headers too long, LOCAL, UNKNOWN, octet by octet")
@pytest.mark.parametrize("sending", ["whole", "bytewise"])
def test_a_malformed_header(start, relay, sending):
    weir = proxied(start, relay)
    for name, octets in MALFORMED.items():
        with weir.client(source=FRONT, banner=False, timeout=3) as client:
            if sending == "whole":
                try:
                    client.send(octets)
                except OSError:
                    pass
            else:
                client.trickle(octets[:600])
            try:
                said = client.wait_closed()
            except TimeoutError:
                raise AssertionError("%s: still open" % name) from None
            assert said == b"", "%s: %r" % (name, said)
    assert not relay.traffic() and not weir.find_log(event="transaction")
    assert not [line for line in weir.find_log(event="session") if line["client"].startswith(("10.", "[fd00", "[::"))]


@pytest.mark.scorecard(53, "PROXY headers too long, LOCAL, UNKNOWN, octet by octet")
def test_a_header_that_does_not_come(start, relay):
    """Closed without a word; the limit is for the whole header, not from octet to octet."""
    weir = proxied(start, relay)
    began, waiting = time.monotonic(), []
    for octets in (b"", b"PROXY TCP4 10.1.2.3 127", v2(ALLOWED)[:15], v2(ALLOWED)[:-1]):
        waiting.append(weir.client(source=FRONT, banner=False, timeout=HEADER_LIMIT))
        waiting[-1].send(octets)
    assert all(client.silent(0.25) for client in waiting)
    with weir.client(source=FRONT, banner=False, timeout=HEADER_LIMIT) as client:
        trickled = time.monotonic()
        client.trickle(b"PROXY UNKNOWN " + b"x" * 80, 0.25)
        assert time.monotonic() - trickled < HEADER_LIMIT
        waiting.append(client)
        for client in waiting:
            assert client.wait_closed() == b""
            client.close()
        assert time.monotonic() - began < HEADER_LIMIT
    assert not relay.traffic()


def test_a_client_that_leaves_within_its_header(start, relay):
    weir = proxied(start, relay)
    for size in range(0, len(v2(ALLOWED)), 3):
        client = weir.client(source=FRONT, banner=False, header=v2(ALLOWED)[:size])
        client.abort() if size % 2 else client.close()
    weir.assert_baseline()


def test_term_while_a_header_is_awaited(start, relay):
    weir = proxied(start, relay)
    with weir.client(source=FRONT, banner=False, header=b"PROXY ") as client:
        began = time.monotonic()
        weir.term()
        assert weir.wait() == 0 and time.monotonic() - began < 15
        assert client.wait_closed() == b""


# Strangers


@pytest.mark.scorecard(52, "a PROXY header from a stranger is refused")
@pytest.mark.parametrize("header", ["v1-tcp4", "v1-tcp6", "v2-tcp4", "v2-tcp6", "v2-tcp4-tlvs", "v1-unknown", "v2-local"])
@pytest.mark.parametrize("delay", ["0s", "300ms"])
def test_a_strangers_header(start, relay, header, delay):
    weir = proxied(start, relay, **{"greet-delay": delay})
    with weir.client(source=STRANGER, banner=False, header=HEADERS[header][0]) as client:
        own = name_of(client)
        try:
            client.send(b"\r\nEHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n")
            client.send(b"DATA\r\nx\r\n.\r\nQUIT\r\n")
        except OSError:
            pass
        codes = [reply.code for reply in client.replies()]
    # Closed on the first line, or refused, and its MAIL with it.
    assert codes in ([], [220]) or [code for code in codes if code >= 400], codes
    assert 354 not in codes and codes.count(250) <= 1, codes
    line = weir.wait_log(event="session")
    assert line["client"] == text(own)
    assert not relay.traffic()


@pytest.mark.scorecard(52, "a PROXY header from a stranger is refused")
def test_without_the_option_all_are_strangers(start, relay):
    weir = start([relay], listener={"allow-from": ALLOW})
    with weir.client(source=STRANGER) as client:
        client.send(v1(ALLOWED))
        try:
            client.send(b"EHLO x\r\nMAIL FROM:<a@x>\r\nQUIT\r\n")
        except OSError:
            pass
        codes = [reply.code for reply in client.replies()]
        assert not codes or (codes[0] >= 500 and codes.count(250) <= 1), codes
    assert weir.wait_log(event="session")["client"].startswith(STRANGER + ":")


# What the true client is used for


def test_connections_are_counted_per_true_client(start, relay):
    weir = proxied(start, relay, **{"max-connections-per-client": 1})
    first = weir.client(source=FRONT, header=v2(ALLOWED)).ehlo()
    other = weir.client(source=FRONT, header=v1(OTHER)).ehlo()
    with weir.client(source=FRONT, header=v1((ALLOWED[0], 999)), banner=False) as client:
        reply = client.reply()
        assert (reply.code, reply.enhanced) == (421, "4.7.0")
        assert client.wait_closed() == b""
    first.message()
    first.quit()
    wait_until(lambda: weir.metric("weir_sessions_active") == 1, 5, "the first has gone")
    weir.client(source=FRONT, header=v1((ALLOWED[0], 999))).ehlo().message()
    other.close()


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "xclient", "xforward"])
@pytest.mark.parametrize("true", [ALLOWED, SIX], ids=["ipv4", "ipv6"])
def test_the_true_client_is_passed_on(start, relays, identity, true):
    extensions = {"xclient": XCLIENT_RELAY, "xforward": XFORWARD_RELAY}.get(identity)
    relay = relays(1, **{"extensions": extensions} if extensions else {"proxy_header": True})[0]
    weir = proxied(start, relay, pool={"identity": identity})
    there = ("fd00:1::25", 25) if true == SIX else ("10.1.0.25", 25)
    with weir.client(source=FRONT, header=v2(true, there)) as client:
        client.ehlo().message()
        client.quit()
    one = relay.committed()[0]
    assert told(one, identity) == ("IPV6:" if identity[0] == "x" and true == SIX else "") + true[0]
    if identity.startswith("proxy"):
        header = one.connection.header
        assert (header.source, header.destination) == (true, there)
    else:
        assert getattr(one, identity)["PORT"] == b"%d" % true[1]


def test_greet_delay_counts_from_the_header(start, relay):
    weir = proxied(start, relay, **{"greet-delay": "500ms"})
    with weir.client(source=FRONT, banner=False) as client:
        time.sleep(0.7)
        began = time.monotonic()
        client.send(v2(ALLOWED))
        client.expect(220)
        assert time.monotonic() - began > 0.48
        client.ehlo().message()
    for early in (b"E", b"EHLO x\r\n"):
        with weir.client(source=FRONT, banner=False, header=v2(ALLOWED) + early) as client:
            reply = client.reply()
            assert (reply.code, reply.enhanced) == (554, "5.7.0"), "behind the header, in its segment"
            assert client.replies() == []
    with weir.client(source=FRONT, banner=False, header=v1(ALLOWED)) as client:
        assert client.silent(0.1)
        client.send(b"EHLO x\r\n")
        assert client.reply().code == 554


HAPROXY_CFG = """\
defaults
  mode tcp
  timeout connect 2s
  timeout client 20s
  timeout server 20s
listen front
  bind 127.0.0.1:{port}
  server weir 127.0.0.1:{weir} {how} source {source}
"""


@pytest.mark.skipif(not programs.find_program("haproxy"), reason="no haproxy")
@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_behind_haproxy(start, relay, tmp_path, how):
    weir = proxied(start, relay, **{"allow-from": ["127.0.0.1/32", "127.0.0.7/32"]})
    port = free_port()
    path = tmp_path / "haproxy.cfg"
    path.write_text(HAPROXY_CFG.format(port=port, weir=weir.port, how=how, source=FRONT))
    process = subprocess.Popen([programs.find_program("haproxy"), "-db", "-f", str(path)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: programs.listening(port), 5, "haproxy listens")
        with Client(("127.0.0.1", port), source="127.0.0.7") as client:
            client.ehlo().message()
            name = text(name_of(client))
            client.quit()
        assert weir.wait_log(event="transaction", outcome="delivered")["client"] == name
    finally:
        process.terminate()
        process.wait(5)


def test_swaks_sends_a_header(start, relay):
    weir = proxied(start, relay)
    for version in ("1", "2"):
        more = ("--proxy-family", "TCP4") if version == "1" else (
            "--proxy-family", "AF_INET", "--proxy-command", "PROXY", "--proxy-protocol", "STREAM")
        code, dialogue = programs.swaks(weir.port, "--local-interface", FRONT, "--proxy-version", version, "--proxy-source", "10.1.2." + version,
                                        "--proxy-source-port", "4321", "--proxy-dest", "10.1.0.25", "--proxy-dest-port", "25", *more)
        assert code == 0, dialogue
        weir.wait_log(event="transaction", outcome="delivered", client="10.1.2.%s:4321" % version)


# XCLIENT from those listed


@pytest.mark.scorecard(37, "VRFY, EXPN, ETRN, XCLIENT, XFORWARD: answered here, never relayed")
def test_xclient_is_for_those_listed(start, relays):
    relay = relays(1, extensions=XCLIENT_RELAY + XFORWARD_RELAY[-1:])[0]
    weir = labelled(start, relay)
    with weir.client() as client:
        client.ehlo()
        assert not {"XCLIENT", "XFORWARD"} & set(client.extensions)
        for command in ("XCLIENT ADDR=10.1.2.3", "XFORWARD ADDR=10.1.2.3", "XCLIENT", "XFORWARD nonsense"):
            assert client.command(command).code == 550
        client.message()
    with weir.client(source=FRONT) as client:
        client.ehlo()
        assert {"ADDR", "PORT", "HELO"} <= set(client.extensions["XCLIENT"].split())
    assert not {"XCLIENT", "XFORWARD"} & set(spoken(relay.traffic()[0]))


@pytest.mark.parametrize("true, address", [(ALLOWED, "10.1.2.3"), (SIX, "IPV6:fd00:1::5"), (SIX, "ipv6:FD00:1:0::5")])
def test_the_session_starts_anew(start, relay, true, address):
    weir = labelled(start, relay)
    with weir.client(source=FRONT) as client:
        client.ehlo("front.test")
        assert client.command("MAIL FROM:<a@x>").code == 550, "FRONT itself may not"
        client.ok("XCLIENT ADDR=%s PORT=%d HELO=true.test" % (address, true[1]), 220)
        client.ok("MAIL FROM:<a@x>", 503)
        client.ehlo("front.test").message()
        client.quit()
    line = weir.wait_log(event="transaction", outcome="delivered")
    assert (line["client"], line["helo"]) == (text(true), "true.test")
    assert weir.wait_log(event="session")["client"] == text(true)
    assert "XCLIENT" not in spoken(relay.traffic()[0])


def test_xclient_before_ehlo_and_in_parts(start, relay):
    weir = labelled(start, relay)
    with weir.client(source=FRONT) as client:
        client.ok("XCLIENT HELO=true.test PROTO=ESMTP", 220)
        client.ehlo("front.test")
        client.ok("xclient port=5678 addr=10.1.2.3 name=[UNAVAILABLE]", 220)
        client.ehlo("front.test").message()
    line = weir.wait_log(event="transaction", outcome="delivered")
    assert (line["client"], line["helo"]) == (text(ALLOWED), "true.test")


@pytest.mark.parametrize("label", ["ADDR=10.9.9.9", "ADDR=[UNAVAILABLE]", "ADDR=[TEMPUNAVAIL]", "ADDR=IPV6:2001:db8::1"])
def test_allow_from_sees_the_label(start, relay, label):
    weir = labelled(start, relay, **{"allow-from": ALLOW + [FRONT + "/32"]})
    with weir.client(source=FRONT) as client:
        client.ehlo().message()
        client.ok("XCLIENT " + label, 220)
        reply = client.ehlo().command("MAIL FROM:<a@x>")
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        client.ok("XCLIENT ADDR=10.1.2.3", 220)
        client.ehlo().message()
        client.quit()
    assert len(relay.committed()) == 2


BAD_ATTRIBUTES = ["", " ", "ADDR", "ADDR=", "=10.1.2.3", "ADDR=10.1.2", "ADDR=10.1.2.256", "ADDR=fd00:1::5", "ADDR=IPV6:10.1.2.3", "ADDR=IPV6:xyz",
                  "ADDR=10.1.2.3/32", "PORT=65536", "PORT=-1", "PORT=x", "PORT=", "NONSENSE=1",
                  "ADDR=10.1.2.3 NONSENSE=1", "HELO=a+", "HELO=a+2", "HELO=a+zz",
                  "ADDR=10.1.2.3 HELO=+ZZ", "PROTO=HTTP", "ADDR=10.1.2.3\tPORT=1", "HELO=x\u00e9", "LOGIN=u ADDR=1.2.3.4 x"]


@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
def test_malformed_attributes(start, relay, verb):
    """Refused as a whole: the session is still FRONT's, and has its EHLO."""
    weir = labelled(start, relay, **{"max-errors": 1000})
    with weir.client(source=FRONT) as client:
        client.ehlo("front.test")
        for arguments in BAD_ATTRIBUTES:
            reply = client.command(("%s %s" % (verb, arguments)).rstrip(" ") if arguments else verb)
            assert reply.code == 501, "%s %r: %r" % (verb, arguments, reply)
            assert client.command("MAIL FROM:<a@x>").code == 550, arguments
        own = name_of(client)
        client.quit()
    line = weir.wait_log(event="session")
    assert (line["client"], line["helo"]) == (text(own), "front.test")


@pytest.mark.parametrize("chunking", [False, True])
def test_in_a_transaction(start, relay, chunking):
    weir = labelled(start, relay, **{"allow-from": ALLOW + [FRONT + "/32"]})
    with weir.client(source=FRONT) as client:
        client.ehlo()
        client.ok("MAIL FROM:<a@x>")
        assert client.command("XCLIENT ADDR=10.1.2.3").code == 503
        client.ok("RCPT TO:<b@x>")
        assert client.command("XCLIENT ADDR=10.1.2.3").code == 503
        if chunking:
            assert client.bdat(b"first ", last=False).code == 250
            assert client.command("XCLIENT ADDR=10.1.2.3").code == 503
            assert client.bdat(b"last").code == 250
        else:
            assert client.data(b"x\r\n").code == 250
        own = name_of(client)
        client.ok("XCLIENT ADDR=10.1.2.3", 220)
        client.quit()
    assert weir.wait_log(event="transaction", outcome="delivered")["client"] == text(own)
    assert len(relay.committed()) == 1


def test_xforward_changes_nothing(start, relays):
    relay = relays(1, extensions=XCLIENT_RELAY + XFORWARD_RELAY[-1:])[0]
    weir = labelled(start, relay, **{"allow-from": ALLOW + [FRONT + "/32"]})
    with weir.client(source=FRONT) as client:
        client.ehlo("front.test")
        own = name_of(client)
        client.ok("XFORWARD ADDR=10.9.9.9 PORT=1 HELO=forwarded.test NAME=[UNAVAILABLE] PROTO=ESMTP")
        client.ok("XFORWARD IDENT=4F00 SOURCE=REMOTE")
        client.message()
        client.quit()
    line = weir.wait_log(event="transaction", outcome="delivered")
    assert (line["client"], line["helo"]) == (text(own), "front.test")
    assert not {"XCLIENT", "XFORWARD"} & set(spoken(relay.traffic()[0]))


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "xclient", "xforward"])
def test_each_label_has_its_own_connection(start, relays, identity):
    extensions = {"xclient": XCLIENT_RELAY, "xforward": XFORWARD_RELAY}.get(identity)
    relay = relays(1, **{"extensions": extensions} if extensions else {"proxy_header": True})[0]
    weir = labelled(start, relay, pool={"identity": identity})
    with weir.client(source=FRONT) as client:
        client.ehlo()
        for number in range(4):
            address = "IPV6:fd00:1::%d" % number if number == 3 else "10.1.0.%d" % number
            client.ok("XCLIENT ADDR=%s PORT=%d HELO=h%d.test" % (address, 1000 + number, number), 220)
            client.ehlo("front.test").message()
            client.message()
        client.quit()
    assert len(relay.committed()) == 8 and len(relay.traffic()) == 4
    for at, one in enumerate(relay.committed()):
        number = at // 2
        wanted = "fd00:1::3" if number == 3 else "10.1.0.%d" % number
        if identity.startswith("proxy"):
            assert one.connection.header.source == (wanted, 1000 + number)
        else:
            found = getattr(one, identity)
            assert found["ADDR"] == (b"IPV6:" if number == 3 else b"") + wanted.encode() and found["PORT"] == b"%d" % (1000 + number)
            assert found["HELO"] == b"h%d.test" % number


def test_labels_are_counted_as_clients(start, relay):
    weir = labelled(start, relay, **{"max-connections-per-client": 2})
    held = []
    for address, may in (("10.1.0.1", True), ("10.1.0.1", True), ("10.1.0.2", True), ("10.1.0.1", False)):
        client = weir.client(source=FRONT).ehlo()
        client.ok("XCLIENT ADDR=" + address, 220)
        # It is counted behind the 220: the next reply is the proof, and a refusal comes unasked.
        if may:
            client.ehlo()
        else:
            assert client.reply().code == 421
        held.append(client)
    held[0].ehlo().message()
    assert held[3].wait_closed() == b""
    held.pop().close()
    held.pop(0).quit()
    wait_until(lambda: weir.metric("weir_sessions_active") == 2, 5, "two have gone")
    with weir.client(source=FRONT) as client:
        client.ehlo().ok("XCLIENT ADDR=10.1.0.1", 220)
        client.ehlo().message()
    for client in held:
        client.close()


def test_who_may_label_after_a_header(start, relay):
    """xclient-from too sees the true client, and never one without an address."""
    weir = proxied(start, relay, **{"xclient-from": [FRONT + "/32", "10.1.0.0/16"]})
    for header, may in ((v2(ALLOWED), True), (v1(OTHER), False), (v2(command=0), False), (b"PROXY UNKNOWN\r\n", False)):
        with weir.client(source=FRONT, header=header) as client:
            client.ehlo()
            assert ("XCLIENT" in client.extensions) == may, header
            assert client.command("XCLIENT ADDR=10.1.2.4").code == (220 if may else 550), header


INJECTIONS = ["x+20LOGIN=root", "x+20LOGIN+3Droot", "x+0D+0AMAIL+20FROM:<evil@x>", "x+0AQUIT", "esc+1B[2J", "+25n+25s", "+FF+FE", "nul+00",
              "+2B" * 150, "a" * 300, "u+20ADDR+3D1.2.3.4", "[UNAVAILABLE]", "quo+22te+5C", "x+20level+3Derror"]


@pytest.mark.scorecard(54, "what a client says of itself is xtext at the backend")
@pytest.mark.scorecard(55, "ESC, %n, invalid UTF-8, bare CR in HELO and MAIL: one well-formed log line each")
@pytest.mark.parametrize("attribute", ["HELO", "LOGIN", "NAME"])
@pytest.mark.parametrize("identity", ["xclient", "xforward"])
def test_what_a_label_says(start, relays, attribute, identity):
    """Taken back to octets, checked, and coded anew: it can't add an attribute, a command or a log line."""
    relay = relays(1, extensions={"xclient": XCLIENT_RELAY, "xforward": XFORWARD_RELAY}[identity])[0]
    weir = labelled(start, relay, pool={"identity": identity}, **{"max-errors": 1000})
    for value in INJECTIONS:
        with weir.client(source=FRONT) as client:
            client.ehlo("front.test")
            reply = client.ok("XCLIENT ADDR=10.1.2.3 %s=%s" % (attribute, value), 220, 500, 501)
            if reply.code != 220:
                client.ok("XCLIENT ADDR=10.1.2.3", 220)
            client.ehlo("front.test").message()
            client.quit()
        found = getattr(relay.committed()[-1], identity)
        assert found["ADDR"] == b"10.1.2.3", (value, found)
        assert b"evil" not in relay.committed()[-1].mail
        if attribute != "LOGIN":
            assert found.get("LOGIN") in (None, b"[UNAVAILABLE]"), (value, found)
    assert len(relay.transactions()) == len(INJECTIONS)
    weir.wait_log(event="transaction", outcome="delivered", times=len(INJECTIONS))
    assert all(line["client"].startswith("10.1.2.3:") for line in weir.find_log(event="transaction"))
    assert not [line for line in weir.log() if line["level"] == "error"]


def test_a_login_from_in_front_goes_on(start, relays):
    """To relays that list it; and no other ever does."""
    relay = relays(1, extensions=XCLIENT_RELAY)[0]
    weir = labelled(start, relay, pool={"identity": "xclient"})
    with weir.client(source=FRONT) as client:
        client.ehlo().ok("XCLIENT ADDR=10.1.2.3 LOGIN=user+2Btag@x.test", 220)
        client.ehlo().message()
    weir.deliver()
    first, second = relay.committed()
    assert first.xclient["LOGIN"] == b"user+tag@x.test" and "LOGIN" not in second.xclient


def test_swaks_labels(start, relay):
    weir = labelled(start, relay)
    code, dialogue = programs.swaks(weir.port, "--local-interface", FRONT, "--xclient-addr", "10.1.2.3", "--xclient-port", "4321",
                                    "--xclient-helo", "a+b=c")
    assert code == 0, dialogue
    line = weir.wait_log(event="transaction", outcome="delivered")
    assert (line["client"], line["helo"]) == ("10.1.2.3:4321", "a+b=c")


def test_postfix_in_front(start, relay):
    """It sends XFORWARD wherever that is offered."""
    weir = labelled(start, relay, **{"allow-from": ALLOW + [FRONT + "/32"]})
    postfix = programs.Postfix(next_hop=weir.port, settings={"smtp_send_xforward_command": "yes", "smtp_bind_address": FRONT})
    try:
        with Client(postfix.address) as client:
            client.ehlo().message(sender="through@postfix.test")
        line = weir.wait_log(event="transaction", outcome="delivered", timeout=10, **{"from": "<through@postfix.test>"})
        assert line["client"].startswith(FRONT + ":"), "for the log only, and Weir's does not listen"
    finally:
        postfix.stop()
    assert "XFORWARD" not in spoken(relay.traffic()[0])
