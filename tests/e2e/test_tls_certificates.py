"""Scorecard B, what a listener shows its clients and asks of them: certificates by name, reload, client-ca, resumption, stapling."""

import os
import re
import shutil
import ssl

import pytest
from weirtest import programs
from weirtest.net import free_port, wait_until
from weirtest.tls import client_context, leaf, read, write
from weirtest.weir import run, tls_listener

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
RSA_ONLY = "ECDHE-RSA-AES128-GCM-SHA256"


def shown(weir, sni=None, context=None):
    """The certificate that a client gets."""
    with weir.client() as client:
        return client.ehlo().starttls(context, sni).sock.certificate()


def handshakes(weir, result):
    return weir.metric("weir_tls_handshakes_total", side="client", result=result)


# By name

def test_certificates_by_name(start, relay, pki):
    weir = start([relay], listener=tls_listener("starttls", pki.mx, pki.mx_rsa, pki.other, pki.wildcard))
    for name, pem in (("mx.example.test", pki.mx), ("mx2.example.test", pki.mx), ("MX.Example.TEST", pki.mx), ("other.example.test", pki.other),
                      ("OTHER.example.test", pki.other), ("a.wild.example.test", pki.wildcard), ("a.b.wild.example.test", pki.mx),
                      ("wild.example.test", pki.mx), ("unknown.test", pki.mx), ("xother.example.test", pki.mx), ("test", pki.mx), (None, pki.mx)):
        assert shown(weir, name) == leaf(pem), name
    # The chain comes along: it is verified with the root alone.
    for name in ("mx.example.test", "other.example.test", "b.wild.example.test"):
        assert shown(weir, name, client_context(ca=pki.ca))
    rsa = client_context(maximum=TLS12, ciphers=RSA_ONLY)
    for name in ("mx.example.test", "unknown.test", None):
        assert shown(weir, name, rsa) == leaf(pki.mx_rsa), name


def test_the_first_file_serves_who_names_nobody(start, relay, pki):
    weir = start([relay], listener=tls_listener("starttls", pki.other, pki.mx_rsa, pki.mx))
    assert shown(weir) == leaf(pki.other)
    assert shown(weir, "mx.example.test") == leaf(pki.mx), "ECDSA for whoever can verify both"
    assert shown(weir, "mx.example.test", client_context(maximum=TLS12, ciphers=RSA_ONLY)) == leaf(pki.mx_rsa)


def test_rsa_or_ecdsa_by_what_a_tls13_client_verifies(start, relay, pki):
    weir = start([relay], listener=tls_listener("implicit", pki.mx, pki.mx_rsa))
    for algorithm, kind in (("rsa_pss_rsae_sha256", "RSA"), ("ecdsa_secp256r1_sha256", "ECDSA|id-ecPublicKey")):
        said = programs.s_client(weir.port, "-tls1_3", "-sigalgs", algorithm, "-servername", "mx.example.test")
        assert re.search("Peer signature type: .*(%s)" % kind, said, re.I), said


def test_rsa_alone(start, relay, pki):
    weir = start([relay], listener=tls_listener("starttls", pki.mx_rsa))
    for context in (None, client_context(maximum=TLS12)):
        assert shown(weir, "mx.example.test", context) == leaf(pki.mx_rsa)
    weir.deliver()


# Mistakes in the configuration

BROKEN = {
    "missing": lambda pki, at: at,
    "directory": lambda pki, at: pki.directory,
    "empty": lambda pki, at: write(at, ""),
    "text": lambda pki, at: write(at, "this is no PEM\n"),
    "no-key": lambda pki, at: write(at, read(pki.mx).split("-----BEGIN PRIVATE KEY-----")[0]),
    "no-certificate": lambda pki, at: write(at, "-----BEGIN PRIVATE KEY-----" + read(pki.mx).split("-----BEGIN PRIVATE KEY-----")[1]),
    "mismatch": lambda pki, at: pki.mixed(pki.mx, pki.other),
    "mismatch-kind": lambda pki, at: pki.mixed(pki.mx, pki.mx_rsa),
    "damaged": lambda pki, at: write(at, read(pki.mx).replace("\n", "\n!", 3)),
    "cut": lambda pki, at: write(at, read(pki.mx)[:300]),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_files(pki, tmp_path, fault):
    """--check: exit 2, and the line of the file that names it."""
    pem = BROKEN[fault](pki, str(tmp_path / "broken.pem"))
    text = ("listeners:\n  smtp:\n    address: \"127.0.0.1:%d\"\n    pool: relays\n    tls: starttls\n    certificate:\n      - %s\n      - %s\n"
            "pools:\n  relays:\n    backends:\n      r1: { address: \"127.0.0.1:%d\" }\n" % (free_port(), pki.other, pem, free_port()))
    code, out, err, path = run("--check", "-c", text=text)
    assert code == 2, out + err
    lines = (out + err).strip().split("\n")
    assert len(lines) == 1 and re.match(re.escape(path) + r":[78]:\d+: .", lines[0]), lines
    assert "PRIVATE" not in lines[0]


@pytest.mark.parametrize("option,content", [("client-ca", "no PEM"), ("client-ca", None), ("tls-ticket-keys", "short\n"), ("tls-ticket-keys", "QUJD\n"),
                                            ("tls-ticket-keys", ""), ("tls-ticket-keys", None)])
def test_broken_files_beside_a_certificate(pki, tmp_path, option, content):
    path = str(tmp_path / "file")
    if content is not None:
        write(path, content)
    text = ("listeners:\n  smtp:\n    address: \"127.0.0.1:%d\"\n    pool: relays\n    tls: required\n    certificate: [%s]\n    %s: %s\n"
            "pools:\n  relays:\n    backends:\n      r1: { address: \"127.0.0.1:%d\" }\n" % (free_port(), pki.mx, option, path, free_port()))
    code, out, err, name = run("--check", "-c", text=text)
    lines = (out + err).strip().split("\n")
    assert code == 2 and len(lines) == 1 and re.match(re.escape(name) + r":7:\d+: listeners\.smtp\.%s: " % option, lines[0]), lines


# Reload

def replaceable(start, relay, pki, pem, **listener):
    """A Weir whose certificate can be replaced in its place."""
    weir = start([relay], listener=tls_listener("starttls", "", **listener), start=False)
    weir.pem = os.path.join(weir.directory, "mx.pem")
    shutil.copy(pem, weir.pem)
    weir.config["listeners"]["smtp"]["certificate"] = [weir.pem]
    weir.write()
    weir.start()
    return weir


def replace(weir, pem):
    shutil.copy(pem, weir.pem + ".new")
    os.replace(weir.pem + ".new", weir.pem)
    weir.reload()


@pytest.mark.scorecard(22, "reload brings a new certificate; a bad PEM leaves the old")
def test_a_new_certificate(start, relay, pki):
    weir = replaceable(start, relay, pki, pki.mx)
    with weir.introduced(sni="mx.example.test") as before, weir.client() as between:
        before.envelope().ok("DATA", 354)
        between.ehlo()
        replace(weir, pki.mx_renewed)
        wait_until(lambda: shown(weir, "mx.example.test") == leaf(pki.mx_renewed), what="new connections have it")
        before.send(b"still\r\n.\r\n")
        before.expect(250)
        before.message()
        assert before.sock.certificate() == leaf(pki.mx)
        between.starttls(sni="mx.example.test").ehlo().message()
        before.quit()
        between.quit()


@pytest.mark.scorecard(22, "reload brings a new certificate; a bad PEM leaves the old")
@pytest.mark.parametrize("fault", [one for one in BROKEN if one not in ("missing", "directory")])
def test_a_bad_pem_leaves_the_old(start, relay, pki, tmp_path, fault):
    weir = replaceable(start, relay, pki, pki.mx)
    session = weir.introduced()
    replace(weir, BROKEN[fault](pki, str(tmp_path / "broken.pem")))
    line = weir.wait_log(level="error", message=re.compile(re.escape(weir.path) + r":\d+:\d+: "))
    assert "PRIVATE" not in line["message"]
    assert shown(weir) == leaf(pki.mx)
    session.message()
    session.quit()
    weir.deliver()
    replace(weir, pki.mx_renewed)
    wait_until(lambda: shown(weir) == leaf(pki.mx_renewed), what="a good one is taken after it")


def test_tls_comes_and_goes_with_a_reload(start, relay, pki):
    weir = start([relay])

    def offered():
        with weir.client() as client:
            return "STARTTLS" in client.ehlo().extensions
    assert not offered()
    weir.reload(lambda config: config["listeners"]["smtp"].update({"tls": "starttls", "certificate": [pki.mx]}))
    wait_until(offered, what="STARTTLS is offered")
    with weir.introduced() as client:
        weir.reload(lambda config: [config["listeners"]["smtp"].pop(key) for key in ("tls", "certificate")])
        wait_until(lambda: not offered(), what="STARTTLS is gone")
        client.message()
        client.quit()


# Clients' certificates

@VERSIONS
@pytest.mark.parametrize("mode", ["required", "implicit"])
def test_client_ca(start, relay, pki, mode, version):
    def context(pem=None):
        return client_context(certificate=pem, minimum=version, maximum=version)
    weir = start([relay], listener=tls_listener(mode, pki.mx, client_ca=pki.ca), context=context(pki.client))
    for pem in (None, pki.foreign_client, pki.expired_client, pki.self_signed):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)), weir.client(**{"tls": False} if mode == "implicit" else {},
                                                                                        banner=mode != "implicit") as client:
            if mode == "required":
                client.ehlo().ok("STARTTLS", 220)
            # Under TLS 1.3 the client is through before its certificate has been looked at.
            client.secure(context(pem))
            client.ok("NOOP", 220, 250)
    wait_until(lambda: handshakes(weir, "failed") == 4, what="four failed handshakes counted")
    assert handshakes(weir, "full") == 0
    weir.wait_log(event="tls", listener="smtp", reason=re.compile("(?i)certificate"), times=4)
    weir.deliver()
    assert len(relay.committed()) == 1


@VERSIONS
@pytest.mark.parametrize("name", ["mx.example.test", "other.example.test", "a.wild.example.test", "unknown.test"])
def test_rules_hold_under_every_name(start, relay, pki, name, version):
    """Another certificate is no way round the listener's rules."""
    weir = start([relay], listener=tls_listener("required", pki.mx, pki.other, pki.wildcard, client_ca=pki.ca),
                 context=client_context(certificate=pki.client, minimum=version, maximum=version))
    for options in ({}, {"certificate": pki.foreign_client}, {"certificate": pki.client, "alpn": ["http/1.1"]}):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)), weir.client() as client:
            client.ehlo().ok("STARTTLS", 220)
            client.secure(client_context(minimum=version, maximum=version, **options), name)
            client.ok("NOOP")
    with weir.introduced(sni=name) as client:
        client.message()
        session = client.sock.session
        client.quit()
    with weir.introduced(sni=name, session=session) as client:
        assert client.sock.resumed
        client.message()
        client.quit()
    weir.wait_log(event="transaction", outcome="delivered", times=2)
    weir.wait_log(event="transaction", sni=name)  # OpenSSL tells no unknown name when a TLS 1.2 session is resumed


# Resumption

def resumes(weir, version, session=None):
    """Whether a session is resumed, and the session that it leaves behind."""
    with weir.introduced(sni="mx.example.test", session=session) as client:
        assert client.sock.version() == version
        resumed, left = client.sock.resumed, client.sock.session
        client.quit()
    return resumed, left


def resuming(start, relay, pki, version, mode="starttls", certificate=None, context=None, **listener):
    weir = start([relay], listener=tls_listener(mode, pki.mx, **listener),
                 context=context or client_context(certificate=certificate, minimum=version, maximum=version))
    weir.version = "TLSv1.%d" % (3 if version == TLS13 else 2)
    return weir


@VERSIONS
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_resumption(start, relay, pki, mode, version):
    weir = resuming(start, relay, pki, version, mode)
    resumed, session = resumes(weir, weir.version)
    assert not resumed
    for _ in range(3):
        resumed, session = resumes(weir, weir.version, session)
        assert resumed
    assert (handshakes(weir, "full"), handshakes(weir, "resumed")) == (1, 3)


@VERSIONS
def test_resumption_across_instances(start, relay, pki, version):
    """With keys from one file; and with keys of its own an instance refuses, politely."""
    keys = pki.ticket_keys("shared-%d" % version)
    one = resuming(start, relay, pki, version, tls_ticket_keys=keys)
    two = resuming(start, relay, pki, version, context=one.context, tls_ticket_keys=keys)
    stranger = resuming(start, relay, pki, version, context=one.context)
    _, session = resumes(one, one.version)
    assert resumes(two, one.version, session)[0]
    assert not resumes(stranger, one.version, session)[0]
    assert handshakes(stranger, "full") == 1 and handshakes(two, "resumed") == 1


@VERSIONS
def test_ticket_keys_are_rotated(start, relay, pki, version):
    keys = pki.ticket_keys("rotated-%d" % version)
    weir = resuming(start, relay, pki, version, tls_ticket_keys=keys)
    _, session = resumes(weir, weir.version)
    # The old key below a new one still decrypts; once it is gone, no more.
    both = pki.ticket_keys("both-%d" % version, first=keys)
    weir.reload(lambda config: config["listeners"]["smtp"].update({"tls-ticket-keys": both}))
    weir.wait_log(event="reload")
    resumed, newer = resumes(weir, weir.version, session)
    assert resumed
    write(both, read(both).split("\n")[0] + "\n")
    weir.reload()
    weir.wait_log(event="reload", times=2)
    if version == TLS13:  # under TLS 1.2 the old ticket goes on
        assert resumes(weir, weir.version, newer)[0]
    assert not resumes(weir, weir.version, session)[0]


@VERSIONS
def test_no_resumption_across_listeners(start, relay, pki, version):
    """A ticket of a listener without client-ca opens none that has one; nor a ticket of one CA's listener another's."""
    keys = pki.ticket_keys("listeners-%d" % version)
    plain = resuming(start, relay, pki, version, tls_ticket_keys=keys, certificate=pki.client)
    strict = resuming(start, relay, pki, version, "required", tls_ticket_keys=keys, client_ca=pki.ca, context=plain.context)
    _, easy = resumes(plain, plain.version)
    assert not resumes(strict, plain.version, easy)[0]
    resumed, hard = resumes(strict, plain.version)
    assert not resumed
    resumed, hard = resumes(strict, plain.version, hard)
    assert resumed, "but its own is honoured"
    assert not resumes(plain, plain.version, hard)[0]
    # The same listener under other authorities is another one.
    authorities = write(pki.file("both-authorities"), read(pki.ca), read(pki.foreign_ca))
    strict.reload(lambda config: config["listeners"]["smtp"].update({"client-ca": authorities}))
    strict.wait_log(event="reload")
    assert not resumes(strict, plain.version, hard)[0]


@VERSIONS
def test_no_resumption_across_names_of_listeners(start, relay, pki, version):
    port = free_port()
    weir = start([relay], listener=tls_listener("starttls", pki.mx, tls_ticket_keys=pki.ticket_keys("names-%d" % version)), start=False,
                 context=client_context(minimum=version, maximum=version))
    weir.config["listeners"]["other"] = dict(weir.config["listeners"]["smtp"], address="127.0.0.1:%d" % port)
    weir.write()
    weir.start()
    name = "TLSv1.%d" % (3 if version == TLS13 else 2)
    _, session = resumes(weir, name)
    weir.port, first = port, weir.port
    assert not resumes(weir, name, session)[0]
    weir.port = first
    assert resumes(weir, name, session)[0]


@VERSIONS
def test_a_resumed_session_has_the_client_certificate_still(start, relay, pki, version):
    weir = resuming(start, relay, pki, version, "required", client_ca=pki.ca, certificate=pki.client)
    _, session = resumes(weir, weir.version)
    with weir.introduced(sni="mx.example.test", session=session) as client:
        assert client.sock.resumed
        client.message()
        client.quit()


# Stapling

def stapled(weir, name="mx.example.test"):
    said = programs.s_client(weir.port, "-starttls", "smtp", "-status", "-servername", name)
    if "OCSP response: no response sent" in said:
        return None
    return re.search(r"OCSP Response Status: (\w+)", said).group(1), re.search(r"Cert Status: (\w+)", said).group(1)


def test_stapling(start, relay, pki):
    weir = replaceable(start, relay, pki, pki.mx, tls_min="1.2")
    weir.config["listeners"]["smtp"]["certificate"].append(pki.other)
    assert stapled(weir) is None
    shutil.copy(pki.ocsp(pki.mx), weir.pem + ".ocsp")
    weir.reload()
    wait_until(lambda: stapled(weir) == ("successful", "good"), what="stapled", interval=0.1)
    assert stapled(weir, "other.example.test") is None, "each has its own"
    # Who did not ask gets none, and a client of Python's is fine with that.
    weir.deliver()
    weir.reload(lambda config: config["listeners"]["smtp"].update({"certificate": [pki.other]}))
    wait_until(lambda: shown(weir) == leaf(pki.other), what="the other certificate alone")
    assert stapled(weir) is None


def test_a_bad_staple_leaves_the_old(start, relay, pki):
    weir = replaceable(start, relay, pki, pki.mx)
    staple = weir.pem + ".ocsp"
    shutil.copy(pki.ocsp(pki.mx), staple)
    weir.reload()
    weir.wait_log(event="reload", level="info")
    with open(pki.ocsp(pki.other), "rb") as file:
        foreign = file.read()
    for number, content in enumerate((b"", b"no DER", foreign[:100], foreign)):
        with open(staple, "wb") as file:
            file.write(content)
        weir.reload()
        weir.wait_log(level="error", message=re.compile(re.escape(weir.path) + r":\d+:\d+: .*" + re.escape(staple)), times=number + 1)
    assert stapled(weir) == ("successful", "good")
    os.unlink(staple)
    weir.reload()
    weir.wait_log(event="reload", level="info", times=2)
    assert stapled(weir) is None
