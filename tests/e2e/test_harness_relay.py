"""The scripted relay's TLS and AUTH, shown plain clients and Python's own smtplib."""

import base64
import hashlib
import hmac
import smtplib
import ssl
import threading

import pytest
from weirtest import identity
from weirtest.client import Client, Closed, ProtocolError
from weirtest.net import wait_until
from weirtest.relay import CLOSE, DROP, RESET, STALL, Relay
from weirtest.relay_tls import HANDSHAKE_FAILURE, fatal_alert, half_flight
from weirtest.tls import TlsSocket, client_context

pytestmark = pytest.mark.harness


def upgraded(client, context=None, name="relay.test", session=None):
    """STARTTLS, done by hand."""
    client.ok("STARTTLS", 220)
    return wrapped(client, context, name, session)


def wrapped(client, context=None, name="relay.test", session=None):
    client.sock = TlsSocket(client.sock, context or client_context(), name, session=session)
    return client


@pytest.fixture
def secure(relays, pki):
    """A relay with a certificate."""
    return lambda **options: relays(1, certificate=pki.relay, **options)[0]


def test_starttls(secure, pki):
    relay = secure(extensions_for_tls=["SIZE 7"])
    with Client(relay.address) as client:
        assert "STARTTLS" in client.ehlo().extensions
        upgraded(client, client_context(pki.ca))
        client.ok("MAIL FROM:<a@x>", 503)
        assert client.ehlo().extensions == {"SIZE": "7"}
        client.ok("STARTTLS", 502)
        client.message()
        client.quit()
        assert client.sock.ending == "close_notify"
    one = relay.committed()[0]
    assert one.secured and one.connection.sni == "relay.test" and one.connection.version == "TLSv1.3" and not one.connection.resumed
    assert one.connection.clear == b"EHLO client.test\r\nSTARTTLS\r\n" and len(relay.faults) == 2
    with Client(relay.address) as client:
        client.ehlo().message()
    assert not relay.committed()[1].secured and len(relay.secured()) == 1


def test_resumption(secure, pki):
    relay = secure()
    context, session = client_context(), None
    for number in range(3):
        if number == 2:
            relay.certificate = pki.relay_named
        with Client(relay.address) as client:
            upgraded(client.ehlo(), context, session=session).ehlo()
            session = client.sock.session
            client.quit()
    assert [one.resumed for one in relay.secured()] == [False, True, False]


def test_hidden_and_refused(secure):
    relay = secure()
    relay.on("starttls", b"454 4.7.0 no\r\n", times=1)
    with Client(relay.address) as client:
        client.ehlo().ok("STARTTLS", 454)
        relay.offers_starttls = False
        assert "STARTTLS" not in client.ehlo().extensions
        client.ok("STARTTLS", 502)
        client.message()
    assert len(relay.faults) == 1 and not relay.secured()


def test_plaintext_behind_220(secure):
    relay = secure().on("starttls", b"220 go\r\n250-evil\r\n250 STARTTLS\r\n")
    with Client(relay.address) as client:
        client.ehlo().ok("STARTTLS", 220)
        client.ok("NOOP please", 250)  # it takes this for a ClientHello
        client.wait_closed()
    assert relay.refusals


def test_plaintext_behind_starttls_is_a_fault(secure):
    relay = secure()
    with Client(relay.address) as client:
        client.ehlo().send(b"STARTTLS\r\nNOOP\r\n")
        client.expect(220)
        client.wait_closed()
    assert len(relay.faults) == 1


@pytest.mark.parametrize("action", [DROP, RESET, CLOSE, [HANDSHAKE_FAILURE, DROP], half_flight])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_handshake_that_fails(secure, action, implicit):
    relay = secure(implicit=implicit).on("handshake", action)
    with Client(relay.address, banner=not implicit) as client:
        with pytest.raises((ssl.SSLError, OSError)):
            wrapped(client) if implicit else upgraded(client.ehlo())
    assert not relay.secured() and relay.connections[0].hello[:1] == b"\x16"


def test_a_handshake_that_stalls(secure):
    relay = secure(implicit=True).on("handshake", STALL)
    with Client(relay.address, banner=False, timeout=0.2) as client:
        with pytest.raises(OSError):
            wrapped(client)


def test_a_client_that_refuses(secure, pki):
    relay = secure()
    with Client(relay.address) as client:
        with pytest.raises(ssl.SSLCertVerificationError):
            upgraded(client.ehlo(), client_context(pki.foreign_ca))
    wait_until(lambda: relay.refusals, 5, "the relay has noticed")


@pytest.mark.parametrize("action,ending", [(DROP, "cut"), (CLOSE, "close_notify"), ([b"250 ok\r\n", DROP], "cut")])
def test_how_it_ends(secure, action, ending):
    relay = secure().on("mail", action)
    with Client(relay.address) as client:
        upgraded(client.ehlo()).ehlo().send(b"MAIL FROM:<a@x>\r\n")
        client.wait_closed()
        assert client.sock.ending == ending


def test_an_alert(secure):
    relay = secure().on("mail", fatal_alert)
    with Client(relay.address) as client:
        upgraded(client.ehlo()).ehlo().send(b"MAIL FROM:<a@x>\r\n")
        with pytest.raises(ssl.SSLError, match="(?i)alert"):
            client.wait_closed()


def test_one_thread_at_a_time(secure):
    """OpenSSL bears no two of them, and Python 3.11 does not see to it: a process ended by a segmentation fault."""
    relay = secure()
    with Client(relay.address) as client:
        upgraded(client.ehlo()).ehlo()
        sock = relay.connections[0].sock
        genuine, reading, unwrapping, met = sock.tls, threading.Event(), threading.Event(), []

        class Slow:
            def read(self, size):
                if not reading.is_set():
                    reading.set()
                    met.append(unwrapping.wait(0.2))
                return genuine.read(size)

            def unwrap(self):
                unwrapping.set()
                return genuine.unwrap()

            def write(self, octets):
                return genuine.write(octets)
        sock.tls = Slow()
        client.send(b"NOOP\r\n")
        assert reading.wait(5)
        relay.stop()
    assert met == [False]


def test_implicit_tls_behind_a_header(secure, pki):
    relay = secure(implicit=True, proxy_header=True)
    tls = identity.tlv(0x20, b"\1\0\0\0\0" + identity.tlv(0x21, b"TLSv1.3") + identity.tlv(0x23, b"X")) + identity.tlv(2, b"mx.test")
    with Client(relay.address, banner=False, header=identity.v2(("192.0.2.7", 4321), tlvs=tls)) as client:
        wrapped(client, client_context(pki.ca)).expect(220)
        assert "STARTTLS" not in client.ehlo().extensions
        client.message()
    header = relay.committed()[0].connection.header
    assert header.source == ("192.0.2.7", 4321) and header.authority == b"mx.test" and not relay.faults
    assert header.tls == (1, 0, {0x21: b"TLSv1.3", 0x23: b"X"})
    assert identity.parse_header(identity.v2(("192.0.2.7", 1))).tls is None
    for bad in (identity.tlv(0x20, b"\1\0\0\0"), identity.tlv(0x20, b"\1\0\0\0\0\x21\0\5TLS"), 2 * identity.tlv(2, b"a")):
        with pytest.raises(identity.Malformed):
            identity.parse_header(identity.v2(("192.0.2.7", 1), tlvs=bad))


# AUTH


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("password", ["pass word", "wrong"])
def test_smtplib_authenticates(secure, mechanism, initial, password):
    relay = secure(auth=mechanism, auth_tls_only=True, auth_required=True)
    with smtplib.SMTP(*relay.address, local_hostname="smtplib.test") as client:
        client.ehlo()
        assert not client.has_extn("auth")
        client.starttls(context=client_context())
        if password == "wrong":
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("user", password, initial_response_ok=initial)
        else:
            client.login("user", password, initial_response_ok=initial)
            client.sendmail("a@x", ["b@x"], "Subject: x\r\n\r\n")
    attempt = relay.auths()[0]
    assert (attempt.mechanism, attempt.user, attempt.secured) == (mechanism, b"user", True)
    assert attempt.code == (535 if password == "wrong" else 235)
    assert [one.user for one in relay.committed()] == ([] if password == "wrong" else [b"user"]) and not relay.faults


def test_an_exchange_of_several_steps():
    relay = Relay(auth="SCRAM-SHA-256 XOAUTH2 DIGEST-MD5")
    first = base64.b64encode(b"n,,n=user,r=abc").decode()
    with Client(relay.address) as client:
        client.ehlo().ok("AUTH SCRAM-SHA-256", 334)
        assert base64.b64decode(client.ok(first, 334).text).startswith(b"r=")
        client.ok("YmI=", 334)
        client.ok("", 235)
    with Client(relay.address) as client:
        client.ehlo().ok("AUTH XOAUTH2 " + base64.b64encode(b"user=me@x\1auth=Bearer t\1\1").decode(), 235)
    with Client(relay.address) as client:
        client.ehlo().ok("AUTH DIGEST-MD5", 334)
        client.ok("YmI=", 334)
        client.ok("", 235)
    scram, oauth, digest = relay.auths()
    assert (scram.user, scram.responses) == (b"user", [first.encode(), b"YmI=", b""]) and oauth.user == b"me@x"
    assert digest.code == 235
    relay.stop()


def test_what_is_wrong_with_auth():
    relay = Relay(auth="PLAIN CRAM-MD5")
    with Client(relay.address) as client:
        client.ehlo().ok("AUTH CRAM-MD5", 334)
        client.ok("*", 501)
        assert relay.auths()[0].cancelled and not relay.faults
        client.ok("AUTH PLAIN ?", 501)
        client.ok("AUTH LOGIN", 504)
        client.ok("AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 235)
        client.ok("AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 503)
        assert len(relay.faults) == 3
    relay.on("auth2", DROP).on("auth", b"454 4.7.0 later\r\n", times=1)
    with Client(relay.address) as client:
        client.ehlo().ok("AUTH CRAM-MD5", 454)
        challenge = base64.b64decode(client.ok("AUTH CRAM-MD5", 334).text)
        client.send(base64.b64encode(b"user " + hmac.new(b"pass word", challenge, hashlib.md5).hexdigest().encode()) + b"\r\n")
        with pytest.raises((Closed, ProtocolError)):
            client.reply()
    relay.stop()
