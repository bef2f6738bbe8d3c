"""Scorecard F: real Exim behind Weir. It believes the PROXY header, logs and judges the client that is in it, and TLS comes behind it."""

import re

import pytest
from test_backends import SLOW_CHECKS, send_commands
from test_identity import PROXY, name_of
from weirtest.client import Client
from weirtest.exim import Exim
from weirtest.identity import v1, v2
from weirtest.net import wait_until
from weirtest.weir import tls_listener

BEHIND = {"hosts_proxy": "127.0.0.1", "hostlist relay_from_hosts": "<; 127.0.0.0/29; 198.51.100.0/24; 2001:db8::/32"}
FRONT = "127.0.0.5"
FROM_FRONT = {"proxy-protocol-from": [FRONT + "/32"], "allow-from": ["127.0.0.0/8", "198.51.100.0/24", "2001:db8::/32"]}
BARE = 16 + 12  # octets of a version 2 header for TCP4 with nothing behind the addresses


@pytest.fixture
def exim():
    """exim(settings, next_hop=port) starts one."""
    made = []

    def make(settings, **options):
        made.append(Exim(settings=settings, **options))
        return made[-1]
    yield make
    for one in made:
        one.stop()


def with_tls(pki, **more):
    return dict(BEHIND, tls_advertise_hosts="*", tls_certificate=pki.relay, **more)


def told(version, address, port):
    return FRONT, (address, port), version((address, port))


@pytest.mark.parametrize("identity", PROXY)
def test_exim_logs_the_client(start, relay, exim, identity):
    server = exim(BEHIND, next_hop=relay.port)
    weir = start([server], pool={"identity": identity}, listener=FROM_FRONT)
    known = {}
    for number, (source, header, octets) in enumerate([
            ("127.0.0.6", None, b""), ("127.0.0.7", None, b""), told(v1, "198.51.100.7", 40001), told(v2, "198.51.100.8", 40002),
            told(v2, "2001:db8::5", 40003)]):
        with weir.client(source=source, header=octets) as client:
            sender = "s%d@client.test" % number
            known[sender] = header or name_of(client)
            client.ehlo().message(sender=sender)
            client.message(sender=sender)
            client.quit()
    found = server.wait_received(2 * len(known))
    assert len(found) == 2 * len(known)
    assert "no host name found for IP address 198.51.100.7" in server.log(), "it looks up whom it is told of, asked or not"
    for one in found:
        assert (one["address"], one["port"]) == known[one["sender"]], server.log()
        assert (one["helo"], one["PRX"]) == ("weir.test", "127.0.0.1"), "the proxy's name and address"
    wait_until(lambda: len(relay.committed()) == len(found), 10, server.log)
    for one in relay.committed():
        address, port = known[one.mail.decode()]
        assert b"from [%s] (port=%d helo=weir.test)" % (address.encode(), port) in one.content, one.content


@pytest.mark.parametrize("identity", PROXY)
def test_exim_judges_the_client(start, exim, identity):
    server = exim(BEHIND)
    weir = start([server], pool={"identity": identity})
    with weir.client(source="127.0.0.6") as client:
        client.ehlo().message()
    with weir.client(source="127.0.0.9") as client:
        client.ehlo().ok("MAIL FROM:<a@x>")
        reply = client.command("RCPT TO:<b@elsewhere.test>")
        assert (reply.code, reply.text) == (550, "relay not permitted")
        client.quit()
    wait_until(lambda: re.search(r"H=\(weir\.test\) \[127\.0\.0\.9\]:\d+ F=<a@x> rejected RCPT", server.log()), 5, server.log)


def test_others_send_no_header(exim):
    """One port is for both."""
    server = exim(BEHIND)
    with Client(server.address, source="127.0.0.9") as client:
        client.ehlo().ok("MAIL FROM:<a@x>")
        assert client.command("RCPT TO:<b@elsewhere.test>").code == 550
        client.quit()
    assert not server.headers() and "[127.0.0.9]" in server.log()


@pytest.mark.parametrize("identity", PROXY)
def test_checks_send_the_header(start, exim, identity):
    """Without it this Exim would answer 503 to EHLO."""
    server = exim(BEHIND)
    weir = start([server], pool={"identity": identity, "health": {"interval": "100ms"}})
    wait_until(lambda: len(server.headers()) >= 3, 5, server.debug)
    assert set(server.headers()) == {(1, None) if identity == "proxy-v1" else (2, BARE)}
    assert weir.metric("weir_backend_up") == 1 and "SMTP>> 503" not in server.debug()
    wait_until(lambda: re.search(r"connection from \(weir\.test\) \[127\.0\.0\.1\]:\d+ (D=\S+ )?closed by QUIT", server.log()), 5, server.log)


@pytest.mark.parametrize("mode", ["verify", "implicit-verify"])
@pytest.mark.parametrize("identity", PROXY)
def test_tls_comes_behind_the_header(start, exim, pki, identity, mode):
    """TLS on both sides. Version 2 tells of the client's, and Exim skips what it does not use of that."""
    server = exim(with_tls(pki), implicit=mode == "implicit-verify")
    weir = start([server], pool={"identity": identity, "tls": mode, "ca": pki.ca}, listener=tls_listener("starttls", pki.mx))
    name = "mx.example.test"
    with weir.introduced(sni=name, source="127.0.0.6") as client:
        client.message()
        version, cipher, address = client.sock.version(), client.sock.cipher(), name_of(client)
        client.quit()
    with weir.client(source="127.0.0.7") as client:
        client.ehlo().message()
        plain = name_of(client)
        client.quit()
    first, second = server.wait_received(2)
    assert [(one["address"], one["port"]) for one in (first, second)] == [address, plain]
    for one in (first, second):
        assert one["P"] == "esmtps" and one["X"].startswith("TLS1.3:"), server.log()
    if identity == "proxy-v2":
        told = 3 + len(name) + 3 + 5 + 3 + len(version) + 3 + len(cipher)
        assert server.headers().count((2, BARE + told)) == 1 and set(server.headers()) == {(2, BARE), (2, BARE + told)}


def test_a_certificate_of_its_own_making(start, exim, pki):
    """Without one of yours it makes one up. Whose it is is asked with `verify` only."""
    server = exim(dict(BEHIND, tls_advertise_hosts="*"))
    weir = start([server], pool={"identity": "proxy-v2", "tls": "require"})
    weir.deliver()
    assert server.wait_received(1)[0]["P"] == "esmtps"
    wary = start([server], pool={"identity": "proxy-v2", "tls": "verify", "ca": pki.ca, **PATIENT}, wait="alive")
    assert "verify failed" in wary.wait_log(event="backend-state", to="down", timeout=60)["reason"]


# What does not fit together. The first check tells why, so it gets the time that Exim may take on a busy machine.

PATIENT = {"health": {"timeout": "60s"}}


@pytest.mark.parametrize("identity", PROXY)
def test_exim_expects_no_header(start, exim, identity):
    """It takes the header for commands, and what it says to them comes before its reply to EHLO: this relay is not used."""
    server = exim(dict(BEHIND, hosts_proxy=""))
    weir = start([server], pool={"identity": identity, "queue-timeout": "300ms", **PATIENT}, wait="alive")
    reason = weir.wait_log(event="backend-state", to="down", timeout=60)["reason"]
    assert re.search("554|more than was asked for", reason), reason
    with weir.client() as client:
        assert send_commands(client.ehlo())[0] // 100 == 4
    assert not server.headers() and not server.received()


def test_exim_waits_for_a_header(start, exim):
    """It waits for a while, then says 503 to everything but QUIT."""
    server = exim(dict(BEHIND, proxy_protocol_timeout="1s"))
    weir = start([server], pool={"queue-timeout": "300ms", **PATIENT}, wait="alive")
    line = weir.wait_log(event="backend-state", to="down", timeout=60)
    assert "503" in line["reason"], line
    with weir.client() as client:
        assert send_commands(client.ehlo())[0] // 100 == 4
    assert not server.received()


PORT_ZERO = pytest.mark.xfail(strict=True, raises=AssertionError, reason="Exim takes no version 1 header with a port of 0")


@pytest.mark.parametrize("identity", [pytest.param("proxy-v1", marks=PORT_ZERO), "proxy-v2"])
def test_a_client_without_an_address(start, exim, tmp_path, identity):
    """Exim trusts it in nothing, but talks to it."""
    server = exim(BEHIND)
    weir = start([server], pool={"identity": identity}, start=False)
    path = str(tmp_path / "smtp")
    weir.config["listeners"]["smtp"]["address"].append("unix:" + path)
    weir.write()
    weir.start()
    with Client(path) as client:
        client.ehlo().ok("MAIL FROM:<a@x>")
        assert client.command("RCPT TO:<b@elsewhere.test>").code == 550
        client.quit()


LONG_HOST = ".".join(["x" * 60] * 4)


def test_a_client_that_names_a_long_host(start, exim, pki):
    """Exim takes 232 octets of a header; what does not fit is not told."""
    weir = start([exim(BEHIND)], pool={"identity": "proxy-v2"}, listener=tls_listener("implicit", pki.mx))
    with weir.introduced(sni=LONG_HOST) as client:
        client.message()
        client.quit()


# Its limits count connections before it knows the client: those are all Weir's


@pytest.mark.parametrize("limits", [{"smtp_accept_max": "1"}, {"smtp_accept_max_per_host": "1"}])
def test_a_full_exim_says_so_in_its_banner(start, exim, limits):
    first, second = exim(dict(BEHIND, **limits)), exim(BEHIND)
    weir = start([first, second], pool={"identity": "proxy-v2", **SLOW_CHECKS})
    wait_until(lambda: weir.metric("weir_backend_up") == 2, 5, "both are up")
    clients = [weir.client(source="127.0.0.%d" % number).ehlo() for number in range(1, 7)]
    for client in clients:
        client.message()
    wait_until(lambda: len(first.received()) + len(second.received()) == 6, 5, lambda: first.log() + second.log())
    assert len(first.received()) <= 1 and re.search("refused: too many connections", first.log()), first.log()
    for client in clients:
        client.quit()


def test_more_messages_than_a_connection_takes(start, exim):
    """421 to the third MAIL: Weir takes another connection, and the client notices nothing."""
    server = exim(dict(BEHIND, smtp_accept_max_per_connection="2"))
    weir = start([server], pool={"identity": "proxy-v2"})
    with weir.client(source="127.0.0.6") as client:
        client.ehlo()
        for _ in range(5):
            client.message()
        address = name_of(client)
        client.quit()
    assert [(one["address"], one["port"]) for one in server.wait_received(5)] == [address] * 5
