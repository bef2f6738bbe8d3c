"""What an adversarial review of TLS and AUTH found."""

import pytest
from test_auth import PASSWORD, USER, b64, farm, plain  # noqa: F401  (farm is a fixture)
from test_auth_losses import BOUND, found_in_memory, new_secret, pieces_of


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
