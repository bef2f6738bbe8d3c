"""Scorecard B, the clients' side: STARTTLS and implicit TLS, in the dialogue and below it."""

import re
import socket
import ssl

import pytest
from weirtest import programs
from weirtest.client import ProtocolError
from weirtest.identity import v1, v2
from weirtest.net import wait_until
from weirtest.tls import TlsSocket, any_server, client_context, client_hello
from weirtest.weir import tls_listener

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
MODES = ["starttls", "implicit"]
QUICK = {"command_timeout": "2s"}
FRONT, CLIENT = "127.0.0.5", ("10.1.2.3", 5678)
HANDSHAKE, ALERT = b"\x16", b"\x15"


def secured(start, relay, pki, mode="starttls", top=None, **listener):
    return start([relay], listener=tls_listener(mode, pki.mx, **listener), top=top)


def below(weir, **options):
    """A client where its ClientHello is due."""
    if weir.tls == "implicit":
        return weir.client(tls=False, banner=False, **options)
    client = weir.client(**options).ehlo()
    client.ok("STARTTLS", 220)
    return client


def handshakes(weir, result):
    return weir.metric("weir_tls_handshakes_total", side="client", result=result)


def ends(client):
    """What still came before the end, however that looks."""
    try:
        return client.wait_closed()
    except ssl.SSLError:
        return b""


# The dialogue

@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("mode", MODES + ["required"])
def test_mail_over_tls(start, relay, pki, mode, version):
    weir = secured(start, relay, pki, mode)
    context = client_context(ca=pki.ca, minimum=version, maximum=version)
    if mode == "implicit":
        client = weir.client(tls=context, sni="mx.example.test").ehlo()
    else:
        client = weir.client().ehlo()
        assert "STARTTLS" in client.extensions and "PIPELINING" in client.extensions
        client.starttls(context, "mx.example.test").ehlo("inside.test")
    assert "STARTTLS" not in client.extensions
    client.message(b"Subject: secret\r\n\r\n" + b"x" * 70000 + b"\r\n")
    cipher = client.sock.cipher()
    client.quit()
    assert client.sock.ending == "close_notify"
    name = "TLSv1.%d" % (3 if version == TLS13 else 2)
    for event in ("transaction", "session"):
        line = weir.wait_log(event=event)
        assert (line["tls"], line["cipher"], line["sni"]) == (name, cipher, "mx.example.test")
        assert line["helo"] == ("client.test" if mode == "implicit" else "inside.test")
    assert handshakes(weir, "full") == 1 and handshakes(weir, "resumed") == 0 and handshakes(weir, "failed") == 0
    assert len(relay.committed()) == 1


def test_what_is_in_the_clear_is_logged_as_such(start, relay, pki):
    weir = secured(start, relay, pki)
    with weir.client() as client:
        client.ehlo().message()
        client.quit()
    assert not {"tls", "cipher", "sni"} & set(weir.wait_log(event="session"))
    with weir.introduced() as client:
        client.quit()
    assert "sni" not in weir.wait_log(event="session", tls=re.compile("TLS")), "no name was sent"


def test_not_offered_without_certificate(weir):
    with weir.client() as client:
        assert "STARTTLS" not in client.ehlo().extensions
        assert client.command("STARTTLS").code == 502
        client.message()


BEHIND = {
    "noop": b"NOOP\r\n", "commands": b"EHLO evil.test\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<v@relay.test>\r\nDATA\r\n",
    "long": b"X" * 20000 + b"\r\n", "half": b"NOO",
}


@pytest.mark.scorecard(12, "a command pipelined behind STARTTLS is discarded")
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("mode", ["starttls", "required"])
def test_commands_behind_starttls(start, relay, pki, mode, behind):
    weir = secured(start, relay, pki, mode)
    with weir.client() as client:
        client.send(b"EHLO client.test\r\nSTARTTLS\r\n" + BEHIND[behind])
        client.expect(250)
        client.expect(220)
        if behind == "long":
            # More than is read at once: what arrives later is no ClientHello, and the session must end.
            with pytest.raises((ssl.SSLError, OSError)):
                client.secure()
                client.ok("NOOP")
        else:
            client.secure()
            assert client.silent(0.2), "something was answered inside TLS: %r" % bytes(client.buffer)
            client.ok("NOOP")
            assert client.command("RCPT TO:<v@relay.test>").code == 503
            client.ehlo().message()
            client.quit()
    assert not any(b"evil" in connection.received for connection in relay.connections)


@pytest.mark.scorecard(13, "half a command before STARTTLS is never joined to TLS octets")
@pytest.mark.parametrize("before,inside", [(b"MAIL FR", b"OM:<joined@x>"), (b"EH", b"LO joined.test"), (b"NO", b"OP"),
                                           (b"MAIL FROM:<joined@x>\r", b"\n")])
def test_half_a_command_before_starttls(start, relay, pki, before, inside):
    weir = secured(start, relay, pki)
    with weir.client() as client:
        usual = client.command(inside)
    with weir.client() as client:
        client.ehlo()
        client.send(b"STARTTLS\r\n" + before)
        client.expect(220)
        client.secure()
        assert client.command(inside).raw == usual.raw, "as if nothing had come before"
        assert client.command("MAIL FROM:<a@x>").code == 503
        client.ehlo().message()
        client.quit()
    assert not any(b"joined" in connection.received for connection in relay.connections)


@pytest.mark.scorecard(14, "STARTTLS in a transaction; MAIL before a new EHLO")
@pytest.mark.parametrize("envelope", [1, 2])
def test_starttls_in_a_transaction(start, relay, pki, envelope):
    weir = secured(start, relay, pki)
    with weir.client() as client:
        client.ehlo()
        for line in ("MAIL FROM:<before@x>", "RCPT TO:<before@relay.test>")[:envelope]:
            client.ok(line)
        client.starttls()
        weir.wait_metric(0, "weir_backend_connections")
        assert client.command("RCPT TO:<after@relay.test>").code == 503
        assert client.command("DATA").code == 503
        assert client.command("MAIL FROM:<after@x>").code == 503
        client.ehlo()
        assert client.command("RCPT TO:<after@relay.test>").code == 503
        client.message(sender="proper@x")
        client.quit()
    assert [one.mail for one in relay.committed()] == [b"proper@x"]
    assert [one.rcpts for one in relay.committed()] == [[b"to@relay.test"]]


@pytest.mark.scorecard(15, "STARTTLS with an argument, or twice")
@pytest.mark.parametrize("mode", ["starttls", "required"])
def test_malformed_and_second_starttls(start, relay, pki, mode):
    weir = secured(start, relay, pki, mode)
    with weir.client() as client:
        client.ehlo()
        assert client.command("STARTTLS x").code == 501
        client.ok("NOOP")
        client.starttls().ehlo()
        assert "STARTTLS" not in client.extensions
        assert client.command("STARTTLS").code == 503
        client.ok("NOOP")
        client.message()
        client.quit()


def test_starttls_on_an_implicit_listener(start, relay, pki):
    weir = secured(start, relay, pki, "implicit")
    with weir.client() as client:
        assert "STARTTLS" not in client.ehlo().extensions
        assert client.command("STARTTLS").code in (502, 503)
        client.message()


def test_required(start, relay, pki):
    weir = secured(start, relay, pki, "required", max_errors=50)
    with weir.client() as client:
        refused = ("HELO client.test", "MAIL FROM:<a@x>", "RCPT TO:<b@x>", "DATA", "RSET", "VRFY x", "HELP")
        assert client.command("HELO client.test").code == 530
        client.ehlo()
        assert "STARTTLS" in client.extensions and "AUTH" not in client.extensions
        for line in refused:
            reply = client.command(line)
            assert (reply.code, reply.enhanced) == (530, "5.7.0"), (line, reply)
        client.ok("NOOP")
        client.ehlo()
        client.starttls().ehlo().message()
        client.quit()
    with weir.client() as client:
        client.quit()
    with weir.client() as client:
        client.ehlo()
        client.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(3)] == [530] * 3
        client.quit()
    assert len(relay.committed()) == 1 and len(relay.traffic()) == 1


@pytest.mark.scorecard(19, "ALPN: http/1.1 fails, smtp and none work")
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("mode", MODES)
def test_alpn(start, relay, pki, mode, version):
    weir = secured(start, relay, pki, mode)
    for offered in (["http/1.1"], ["h2", "http/1.1"], ["imap"], ["smtpx"]):
        with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
            below(weir).secure(client_context(alpn=offered, minimum=version, maximum=version))
    wait_until(lambda: handshakes(weir, "failed") == 4, what="four failed handshakes counted")
    for offered, agreed in (((), None), (["smtp"], "smtp"), (["http/1.1", "smtp"], "smtp")):
        with below(weir) as client:
            client.secure(client_context(alpn=offered, minimum=version, maximum=version))
            assert client.sock.alpn() == agreed
            if mode == "implicit":
                client.expect(220)
            client.ehlo().message()
            client.quit()


@pytest.mark.scorecard(20, "TLS 1.2 renegotiation is refused")
@pytest.mark.parametrize("mode", MODES)
def test_renegotiation(start, relay, pki, mode):
    weir = secured(start, relay, pki, mode)
    options = () if mode == "implicit" else ("-starttls", "smtp")
    client = programs.SClient(weir.port, "-tls1_2", "-crlf", *options)
    try:
        client.wait("Verify return code")
        client.send("EHLO client.test\n")
        client.wait(r"250 \S+\r?\n(?s:.*)250 " if mode == "starttls" else r"250 ")
        client.send("R\n")
        client.wait("RENEGOTIATING")
        client.send("NOOP\n")
        # Either the alert ends it at the client, or the session goes on as it was.
        client.wait(r"RENEGOTIATING(?s:.*)(no renegotiation|250 |errno|closed)")
        after = client.text.split("RENEGOTIATING", 1)[1]
        assert "depth=" not in after and "Server certificate" not in after, "it was renegotiated:\n" + after
    finally:
        client.stop()
    assert handshakes(weir, "full") == 1


# Handshakes that do not come to an end

def tell(weir, cases):
    """Each case on a connection of its own, all at once; label → what came before the end."""
    clients = {label: below(weir) for label in cases}
    for label, client in clients.items():
        try:
            client.send(cases[label])
        except OSError:
            pass
    said = {label: ends(client) for label, client in clients.items()}
    for client in clients.values():
        client.close()
    return said


@pytest.mark.scorecard(21, "a handshake that stalls is closed at its deadline")
@pytest.mark.parametrize("mode", MODES)
def test_a_handshake_that_stalls(start, relay, pki, mode):
    weir = secured(start, relay, pki, mode, **QUICK)
    hello = client_hello()
    tell(weir, {"nothing": b"", "one": b"\x16", "two": b"\x16\x03", "header": hello[:5], "half": hello[:40], "all but one": hello[:-1]})
    wait_until(lambda: handshakes(weir, "failed") == 6, what="six failed handshakes counted")
    weir.wait_log(event="tls", listener="smtp", client=re.compile(r"^127\.0\.0\.1:\d+$"), reason=re.compile(r"\S"), times=6)


@pytest.mark.scorecard(21, "a handshake that stalls is closed at its deadline")
@pytest.mark.parametrize("mode", MODES)
def test_a_handshake_that_trickles(start, relay, pki, mode):
    """An octet now and then keeps no deadline away."""
    weir = secured(start, relay, pki, mode, **QUICK)
    with below(weir) as client:
        client.sock.settimeout(0.1)
        octets = iter(client_hello(name=b"a" * 180))
        for octet in octets:
            try:
                client.raw.send(bytes([octet]))
                if not client.receive():
                    break
            except TimeoutError:
                pass
            except OSError:
                break
        assert next(octets, None) is not None, "it was let come to its end"


@pytest.mark.scorecard(21, "a handshake that stalls is closed at its deadline")
def test_half_way_through(start, relay, pki):
    """The server's flight is here, and then the client says no more."""
    weir = secured(start, relay, pki, "implicit", **QUICK)
    with below(weir) as client:
        tls = TlsSocket(client.sock, any_server(), handshake=False)
        client.send(tls.flight())
        assert client.receive() and bytes(client.buffer[:1]) == HANDSHAKE
        ends(client)
    wait_until(lambda: handshakes(weir, "failed") == 1, what="a failed handshake counted")


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("mode", MODES)
def test_a_handshake_octet_by_octet(start, relay, pki, mode, version):
    weir = secured(start, relay, pki, mode)
    with below(weir) as client:
        tls = TlsSocket(client.sock, client_context(minimum=version, maximum=version), handshake=False)
        flight = tls.flight()
        while True:
            client.trickle(flight)
            try:
                tls.tls.do_handshake()
                flight = tls.outgoing.read()
                break
            except ssl.SSLWantReadError:
                flight = tls.outgoing.read() or tls.flight(client.sock.recv(1))
        client.trickle(flight)
        client.sock = tls
        if mode == "implicit":
            client.expect(220)
        for octet in tls.records(b"EHLO client.test\r\n"):
            tls.raw.send(bytes([octet]))
        client.expect(250)
        client.message()
        client.quit()


def test_nothing_is_said_before_the_handshake_of_an_implicit_listener(start, relay, pki):
    weir = secured(start, relay, pki, "implicit")
    with below(weir) as client:
        assert client.silent(0.2)


NO_TLS = {"ehlo": b"EHLO client.test\r\n", "http": b"GET / HTTP/1.1\r\n\r\n", "crlf": b"\r\n", "nuls": bytes(100),
          "sslv2": b"\x80\x2e\1\3\1" + bytes(60), "endless": b"QUIT\r\n" * 5000, "alert": b"\x15\3\3\0\2\2\x28",
          "data": b"\x17\3\3\0\5hello", "long": b"\x16\3\1\xff\xff" + bytes(70000)}


@pytest.mark.parametrize("mode", MODES)
def test_no_tls_where_tls_is_due(start, relay, pki, mode):
    weir = secured(start, relay, pki, mode, **QUICK)
    for label, said in tell(weir, NO_TLS).items():
        assert not said or said[:1] == ALERT, "%s: answered in the clear: %r" % (label, said)
    wait_until(lambda: handshakes(weir, "failed") == len(NO_TLS), what="as many failed handshakes counted")
    weir.wait_log(event="tls", listener="smtp", client=re.compile(r"^127\.0\.0\.1:\d+$"), reason=re.compile(r"\S"), times=len(NO_TLS))


def test_tls_on_a_plain_port(start, relay):
    weir = start([relay], listener={"command-timeout": "1s"})
    with weir.client() as client:
        client.send(client_hello())
        try:
            assert all(reply.code in (421, 500, 502, 503, 554) for reply in client.replies())
        except ProtocolError as error:
            raise AssertionError("half a reply") from error
    with pytest.raises(ssl.SSLError):
        weir.client(banner=False).secure()


@pytest.mark.parametrize("mode", MODES)
def test_broken_handshakes_leave_nothing_behind(start, relay, pki, mode):
    """Cut anywhere, by FIN or by reset, or damaged: the epilogue counts descriptors and sessions."""
    weir = secured(start, relay, pki, mode, max_errors=1000)
    hello = TlsSocket(None, any_server(), "mx.example.test", handshake=False).flight()
    damaged = hello[:60] + bytes(octet ^ 0xFF for octet in hello[60:80]) + hello[80:]
    for number in range(100):
        client = below(weir)
        kind = number % 5
        if kind == 4:
            client.send(damaged)
            client.receive()
        elif kind == 3:
            # Its first flight is answered; the second is noise in place of Finished.
            client.send(hello)
            client.receive()
            client.send(b"\x14\3\3\0\1\1\x17\3\3\0\x35" + bytes(0x35))
        else:
            client.send(hello[:1 + number * 5 % len(hello)])
        if kind == 1:
            client.abort()
        elif kind == 2:
            client.sock.shutdown(socket.SHUT_WR)
            ends(client)
        client.close()
    wait_until(lambda: handshakes(weir, "failed") == 100, 10, lambda: "100 failed: %s" % handshakes(weir, "failed"))


# Ends

BODIES = {"middle": b"Subject: x\r\n\r\nhalf", "line": b"Subject: x\r\n\r\nline\r\n", "dot": b"line\r\n.", "dot-cr": b"line\r\n.\r", "empty": b""}


@pytest.mark.parametrize("ending", ["cut", "close_notify", "reset", "half a record", "damaged record"])
@pytest.mark.parametrize("body", BODIES)
def test_an_end_inside_a_body(start, relay, pki, body, ending):
    """Whatever ends the stream there, it is no end of data (RFC 3207, truncation)."""
    weir = secured(start, relay, pki, "implicit")
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send(BODIES[body])
        if ending == "cut":
            client.sock.cut()
        elif ending == "close_notify":
            client.sock.shutdown(socket.SHUT_WR)
        elif ending == "reset":
            client.abort()
        else:
            record = client.sock.records({"dot": b"\r\n", "dot-cr": b"\n"}.get(body, b"\r\n.\r\n"))
            client.raw.sendall(record[:-1] if ending == "half a record" else record[:-1] + bytes([record[-1] ^ 1]))
            client.raw.shutdown(socket.SHUT_WR)
        line = weir.wait_log(event="transaction")
    assert line["outcome"] == "aborted", line
    assert not relay.committed() and not [one for one in relay.transactions() if one.ended]


@pytest.mark.parametrize("ending", ["cut", "close_notify"])
def test_an_end_behind_a_message(start, relay, pki, ending):
    """A client that sends all it has and its end at once still has its message delivered."""
    weir = secured(start, relay, pki, "implicit")
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        client.send(b"Subject: x\r\n\r\nwhole\r\n.\r\n")
        client.sock.cut() if ending == "cut" else client.sock.shutdown(socket.SHUT_WR)
        relay.wait("committed")
    assert weir.wait_log(event="transaction")["outcome"] == "delivered"


def test_an_alert_in_mid_session(start, relay, pki):
    weir = secured(start, relay, pki, "implicit")
    with weir.client() as client:
        client.ehlo().envelope()
        client.raw.sendall(b"\x17\3\3\0\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            client.reply()
    assert weir.wait_log(event="transaction")["outcome"] == "aborted"


# A PROXY header comes first

@pytest.mark.parametrize("header", [v1(CLIENT), v2(CLIENT)], ids=["v1", "v2"])
@pytest.mark.parametrize("sending", ["apart", "together", "bytewise"])
@pytest.mark.parametrize("mode", MODES)
def test_a_header_before_tls(start, relay, pki, mode, sending, header):
    weir = secured(start, relay, pki, mode, proxy_protocol_from=[FRONT + "/32"], allow_from=["127.0.0.1/32", "10.1.0.0/16"])
    client = weir.client(source=FRONT, banner=False, tls=False)
    if sending == "bytewise":
        client.trickle(header)
    if sending == "apart":
        client.send(header)
    if mode == "implicit":
        tls = TlsSocket(client.sock, any_server(), "mx.example.test", handshake=False)
        client.send((header if sending == "together" else b"") + tls.flight())
        tls.handshake()
        client.sock = tls
        client.expect(220)
    else:
        client.send((header if sending == "together" else b"") + b"EHLO client.test\r\nSTARTTLS\r\n")
        for code in (220, 250, 220):
            client.expect(code)
        client.secure(sni="mx.example.test")
    client.ehlo().message()
    client.quit()
    for event in ("transaction", "session"):
        line = weir.wait_log(event=event)
        assert (line["client"], line["sni"]) == ("10.1.2.3:5678", "mx.example.test") and line["tls"].startswith("TLSv1.")


def test_no_header_before_tls(start, relay, pki):
    """A peer that must send one and begins with TLS is closed; so is one that must not and does."""
    weir = secured(start, relay, pki, "implicit", proxy_protocol_from=[FRONT + "/32"])
    with weir.client(source=FRONT, banner=False, tls=False) as client:
        client.send(client_hello())
        assert ends(client) == b""
    with weir.client(banner=False, tls=False) as client:
        client.send(v2(CLIENT) + client_hello())
        assert ends(client)[:1] in (b"", ALERT)
    assert not weir.find_log(client="10.1.2.3:5678")


# The log

def test_what_a_client_names_is_escaped(start, relay, pki):
    """SNI is the client's word: one well-formed line, whatever it holds (weir.log() refuses anything else)."""
    weir = secured(start, relay, pki, "implicit")
    for name in ("esc\x1b[2Jape", 'quo"te\\', "a=b level=error", "\u202egnp", "x" * 250):
        said = programs.s_client(weir.port, "-servername", name)
        assert "Verify return code" in said, said
    wait_until(lambda: len(weir.find_log(event="session")) >= 5, what="five sessions in the log")
    names = {line["sni"] for line in weir.find_log(event="session")}
    assert 'quo"te\\' in names and "a=b level=error" in names
    assert not weir.find_log(level="error")


# Old versions

@pytest.mark.scorecard(23, "no SSLv3, TLS 1.0, TLS 1.1; testssl.sh finds nothing")
@pytest.mark.parametrize("mode", MODES)
def test_old_versions_are_refused(start, relay, pki, mode):
    weir = secured(start, relay, pki, mode)
    for version in (0x0303, 0x0300, 0x0301, 0x0302):
        with below(weir) as client:
            client.send(client_hello(version))
            if version == 0x0303:
                assert client.receive() and bytes(client.buffer[:1]) == HANDSHAKE, "it is no hello at all that is refused"
            else:
                assert ends(client)[:1] in (b"", ALERT)
    wait_until(lambda: handshakes(weir, "failed") == 4, what="four failed handshakes counted")


@pytest.mark.scorecard(23, "no SSLv3, TLS 1.0, TLS 1.1; testssl.sh finds nothing")
def test_tls_min(start, relay, pki):
    weir = secured(start, relay, pki, tls_min="1.3")
    with pytest.raises(ssl.SSLError, match="(?i)version"):
        below(weir).secure(client_context(maximum=TLS12))
    with below(weir) as client:
        client.secure(client_context(minimum=TLS13)).ehlo().message()


@pytest.mark.scorecard(23, "no SSLv3, TLS 1.0, TLS 1.1; testssl.sh finds nothing")
def test_weak_ciphers_are_refused(start, relay, pki):
    """No key exchange without forward secrecy, nothing anonymous, no RC4, no 3DES."""
    weir = start([relay], listener=tls_listener("implicit", pki.mx, pki.mx_rsa))
    for cipher in (0x002F, 0x003C, 0x009C, 0x0005, 0x000A, 0xC011, 0xC012, 0x0034, 0x0018, 0x0002, 0x0033):
        with below(weir) as client:
            client.send(client_hello(ciphers=(cipher,)))
            assert ends(client)[:1] in (b"", ALERT), "cipher suite %04x" % cipher


def needs(*names):
    """Skipped where none of these programs is installed."""
    return pytest.mark.skipif(not any(map(programs.find_program, names)), reason="no " + names[0])


# What a test authority cannot have.
TRUST = re.compile(r"cert_(chain_of_trust|trust|expirationStatus|revocation|crlDistribution|ocsp)|DNS_CAArecord|"
                   r"cert_(caIssuers|validityPeriod|notAfter)|intermediate_cert|OCSP|overall_grade|engine_problem|scanTime|optimal_proto")


@needs("testssl.sh", "testssl")
@pytest.mark.scorecard(23, "no SSLv3, TLS 1.0, TLS 1.1; testssl.sh finds nothing")
def test_testssl(start, relay, pki):
    weir = start([relay], listener=tls_listener("starttls", pki.mx, pki.mx_rsa, max_errors=10000))
    # Protocols, ciphers; Heartbleed, CCS injection, renegotiation, CRIME. In full it takes minutes.
    found = programs.testssl(weir.port, "mx.example.test", "-t", "smtp", "--add-ca", pki.ca, "-p", "-s", "-H", "-I", "-R", "-C")
    offered = {one["id"]: one["finding"] for one in found}
    assert {"TLS1", "TLS1_1", "TLS1_2", "heartbleed", "CCS", "secure_client_renego", "CRIME_TLS"} <= set(offered), found
    bad = [one for one in found if one["severity"] in ("HIGH", "CRITICAL", "FATAL") and not TRUST.match(one["id"])]
    assert not bad, bad
    assert offered["TLS1"] == "not offered" and offered["TLS1_1"] == "not offered" and offered["TLS1_2"].startswith("offered")


@needs("sslscan")
@pytest.mark.scorecard(23, "no SSLv3, TLS 1.0, TLS 1.1; testssl.sh finds nothing")
def test_sslscan(start, relay, pki):
    weir = start([relay], listener=tls_listener("starttls", pki.mx, pki.mx_rsa, max_errors=10000))
    said = programs.sslscan(weir.port, "--starttls-smtp")
    versions = dict(re.findall(r"^((?:SSL|TLS)v[\d.]+)\s+(enabled|disabled)", said, re.M))
    assert [name for name, state in versions.items() if state == "enabled"] == ["TLSv1.2", "TLSv1.3"], said
    accepted = re.findall(r"^(?:Preferred|Accepted)\s+\S+\s+\d+ bits\s+(\S+)", said, re.M)
    assert accepted and not [name for name in accepted if re.search("RC4|DES|NULL|anon|EXP|MD5|^AES", name)], said
