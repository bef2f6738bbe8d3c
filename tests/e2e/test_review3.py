"""What an adversarial review of TLS and AUTH found."""

import pytest
from test_auth import PASSWORD, USER, STRANGERS, authenticate, b64, delivers, farm, plain  # noqa: F401  (farm is a fixture)
from test_auth_losses import BOUND, found_in_memory, new_secret, pieces_of
from test_backends import SLOW_CHECKS
from weirtest.client import Client
from weirtest.identity import tlv, v1, v2
from weirtest.weir import tls_listener


def test_a_mechanism_that_is_gone_leaves_the_session_its_mail(farm):
    """What was tried for AUTH is not held against the MAIL behind it."""
    weir, relay = farm(listener={"allow-from": ["127.0.0.0/8"]}, pool={"health": {"depth": "ehlo"}})
    relay.auth_required = False
    with weir.introduced() as client:
        relay.auth = "LOGIN"  # it came back from an update without the others
        assert client.command(b"AUTH PLAIN " + plain()).code == 454
        client.message()
        client.quit()
    assert len(relay.committed()) == 1


@pytest.mark.parametrize("way", ["bare line feed", "bare carriage return", "behind its relay", "long response", "too early"])
def test_what_is_refused_is_wiped_too(farm, way):
    secret = new_secret()
    weir, relay = farm(users={USER: secret}, top={"workers": 1}, environment=BOUND)
    with weir.introduced() as client:
        if way == "bare line feed":
            client.send(b"AUTH PLAIN " + plain(password=secret) + b"\n")
            client.expect(500)
        elif way == "bare carriage return":
            client.send(b"AUTH PLAIN\r" + plain(password=secret) + b"\r\n")
            client.expect(500)
        elif way == "behind its relay":
            client.ok(b"AUTH LOGIN " + b64(USER), 334)
            relay.connections[-1].sock.shutdown(2)
            client.expect(421)
            client.send(b64(secret) + b"\r\n")
            client.close()
            weir.wait_log(event="session")
        elif way == "long response":
            client.ok("AUTH PLAIN", 334)
            client.send(b"=" * 14000 + plain(password=secret) + b"\r\n")
            client.expect(501)
        else:  # pipelined behind an AUTH that failed: a command like any other
            relay.on("auth", b"454 4.7.0 later\r\n", times=1)
            client.send(b"AUTH PLAIN\r\n" + plain(password=secret) + b"\r\n")
            client.expect(454)
            client.expect(500)
        found = found_in_memory(weir, *pieces_of(secret))
        assert not found


SSL_FIELD = tlv(0x20, b"\1\0\0\0\1")  # PP2_TYPE_SSL: the client came over TLS, without a certificate


@pytest.mark.parametrize("header,private", [
    (v1(("198.51.100.7", 4711), ("192.0.2.1", 25)), False), (v2(("198.51.100.7", 4711), ("192.0.2.1", 25)), False),
    (v2(("198.51.100.7", 4711), ("192.0.2.1", 25), SSL_FIELD), True)])
def test_a_header_over_a_unix_socket_tells_of_the_way_before_it(start, relays, pki, tmp_path, header, private):
    """Somebody far away whom a balancer passes on: only the balancer knows how it came."""
    relay = relays(1, auth="PLAIN", users={USER: PASSWORD})[0]
    path = str(tmp_path / "smtp")
    weir = start([relay], listener=tls_listener("starttls", pki.mx, **{"auth": "relay", "proxy-protocol-from": ["unix"]}), start=False)
    weir.config["listeners"]["smtp"]["address"].append("unix:" + path)
    weir.write()
    weir.start()
    with Client(path, header=header) as client:
        assert ("AUTH" in client.ehlo().extensions) == private
        if not private:
            assert client.command(b"AUTH PLAIN " + plain()).code == 538
            client.starttls().ehlo()
        authenticate(client)
        client.quit()


def test_strangers_with_wrong_passwords_hold_no_places(start, relays, pki):
    relay = relays(1, auth="PLAIN", users={USER: PASSWORD}, auth_required=True)[0]
    weir = start({"r1": {"address": relay, "max-connections": 2}}, listener=tls_listener("starttls", pki.mx, auth="relay", **STRANGERS),
                 pool={"queue-timeout": "5s", **SLOW_CHECKS})
    weir.delivers = lambda: delivers(weir, [relay], USER, PASSWORD)
    idle = []
    for _ in range(3):
        client = weir.introduced()
        idle.append(client)
        assert client.command(b"AUTH PLAIN " + plain(password=b"wrong")).code == 535
    with weir.introduced() as client:
        authenticate(client)
        client.message()
        client.quit()
    for client in idle:
        client.close()
