"""
TLS for the tests: certificates made with the openssl command, contexts of Python's, and a TLS socket that lets a test reach
below the records.

    pki = Pki()                                        a root, an intermediate under it, a foreign root
    pki.mx, pki.mx_rsa, pki.other, pki.wildcard        PEM files of servers: certificate, intermediate, key
    pki.expired, pki.self_signed, pki.wrong_name       … of servers to be refused
    pki.relay, pki.relay_expired, pki.relay_foreign    … for 127.0.0.1, with relay.test as a further name
    pki.client, pki.foreign_client                     … of clients
    pki.issue("name", hosts=["a.test"], key="rsa")     any other
    pki.ca, pki.foreign_ca                             what a peer trusts
    pki.ticket_keys("name", keys=2), pki.ocsp(pem)

Everything is made when it is first asked for.
"""

import base64
import functools
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import warnings

CA_CONFIG = """\
[ca]
default_ca = one
[one]
dir = %(d)s
database = %(d)s/index.txt
new_certs_dir = %(d)s
certificate = %(d)s/ca.pem
private_key = %(d)s/ca.key
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = none
[any]
commonName = optional
"""
CA_EXTENSIONS = """\
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
LEAF_EXTENSIONS = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = %s
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
%s
"""
KEYS = {"ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), "rsa": ("-newkey", "rsa:2048")}
DAY = 86400


def openssl(*arguments, check=True, octets=None, timeout=30):
    """Run the openssl command; (exit code, what it printed on both)."""
    done = subprocess.run(["openssl"] + [str(one) for one in arguments], input=b"" if octets is None else octets,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                          env=dict(os.environ, OPENSSL_CONF="/dev/null"))
    text = done.stdout.decode("utf-8", "replace")
    assert not check or done.returncode == 0, "openssl %s\n%s" % (" ".join(map(str, arguments)), text)
    return done.returncode, text


def stamp(days):
    """A day so far from today, as `openssl ca` wants it."""
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * DAY))


def read(path):
    with open(path) as file:
        return file.read()


def write(path, *texts):
    with open(path, "w") as file:
        file.write("".join(texts))
    return path


class Authority:
    """One CA in a directory of its own. Without `parent` it signs itself."""

    def __init__(self, directory, name, parent=None):
        self.directory, self.parent = os.path.join(directory, name), parent
        self.lock = threading.Lock()
        os.mkdir(self.directory)
        self.pem, self.key = self.file("ca.pem"), self.file("ca.key")
        write(self.file("index.txt"))
        self.config = write(self.file("ca.cnf"), CA_CONFIG % {"d": self.directory})
        request = self.file("ca.csr")
        openssl("req", "-new", *KEYS["ec"], "-nodes", "-keyout", self.key, "-out", request, "-subj", "/CN=%s" % name)
        signer = parent or self
        signer.sign(request, self.pem, CA_EXTENSIONS, -1, 30, () if parent else ("-selfsign",))

    def file(self, name):
        return os.path.join(self.directory, name)

    def sign(self, request, out, extensions, since, until, options=()):
        with self.lock:  # one index for all that it signs
            openssl("ca", "-batch", "-notext", "-config", self.config, "-in", request, "-out", out, "-extfile",
                    write(self.file("extensions"), extensions), "-startdate", stamp(since), "-enddate", stamp(until), *options)

    def chain(self):
        """What a server sends behind its own: everything below the root."""
        return read(self.pem) + self.parent.chain() if self.parent else ""


class Pki:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="weir-pki-")
        os.chmod(self.directory, 0o755)
        self.made = 0
        self.lock = threading.Lock()

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def file(self, name):
        return os.path.join(self.directory, name)

    @functools.cached_property
    def root(self):
        return Authority(self.directory, "root")

    @functools.cached_property
    def intermediate(self):
        return Authority(self.directory, "intermediate", self.root)

    @functools.cached_property
    def foreign(self):
        return Authority(self.directory, "foreign")

    def issue(self, name, hosts=(), addresses=(), key="ec", authority=None, since=-1, until=20, client=False):
        """A PEM file: certificate, what lies between it and the root, key. `authority` "self": signed by itself."""
        authority = authority or self.intermediate
        with self.lock:
            self.made += 1
            base = self.file("%s-%d" % (name, self.made))
        names = ["DNS:" + host for host in hosts] + ["IP:" + address for address in addresses]
        extensions = LEAF_EXTENSIONS % ("clientAuth" if client else "serverAuth",
                                        "subjectAltName = " + ", ".join(names) if names else "")
        subject = ("-subj", "/CN=%s" % (hosts[0] if hosts else name))
        openssl("req", "-new", *KEYS[key], "-nodes", "-keyout", base + ".key", "-out", base + ".csr", *subject)
        if authority == "self":
            openssl("x509", "-req", "-in", base + ".csr", "-signkey", base + ".key", "-days", until, "-out", base + ".crt",
                    "-extfile", write(base + ".ext", extensions.replace("authorityKeyIdentifier = keyid\n", "")))
            chain = ""
        else:
            authority.sign(base + ".csr", base + ".crt", extensions, since, until)
            chain = authority.chain()
        return write(base + ".pem", read(base + ".crt"), chain, read(base + ".key"))

    # Authorities

    @property
    def ca(self):
        return self.root.pem

    @property
    def foreign_ca(self):
        return self.foreign.pem

    # Servers' certificates, for Weir as a server

    @functools.cached_property
    def mx(self):
        return self.issue("mx", ["mx.example.test", "mx2.example.test"])

    @functools.cached_property
    def mx_rsa(self):
        return self.issue("mx-rsa", ["mx.example.test", "mx2.example.test"], key="rsa")

    @functools.cached_property
    def mx_renewed(self):
        return self.issue("mx-renewed", ["mx.example.test", "mx2.example.test"])

    @functools.cached_property
    def other(self):
        return self.issue("other", ["other.example.test"])

    @functools.cached_property
    def wildcard(self):
        return self.issue("wildcard", ["*.wild.example.test"])

    @functools.cached_property
    def expired(self):
        return self.issue("expired", ["mx.example.test"], since=-40, until=-10)

    @functools.cached_property
    def self_signed(self):
        return self.issue("self-signed", ["mx.example.test"], authority="self")

    @functools.cached_property
    def wrong_name(self):
        return self.issue("wrong-name", ["wrong.example.test"])

    # … for relays on 127.0.0.1

    @functools.cached_property
    def relay(self):
        return self.issue("relay", ["relay.test"], ["127.0.0.1"])

    @functools.cached_property
    def relay_named(self):
        """It has the name only, and no address: to be verified with tls-name."""
        return self.issue("relay-named", ["relay.test"])

    @functools.cached_property
    def relay_expired(self):
        return self.issue("relay-expired", ["relay.test"], ["127.0.0.1"], since=-40, until=-10)

    @functools.cached_property
    def relay_self_signed(self):
        return self.issue("relay-self-signed", ["relay.test"], ["127.0.0.1"], authority="self")

    @functools.cached_property
    def relay_foreign(self):
        return self.issue("relay-foreign", ["relay.test"], ["127.0.0.1"], authority=self.foreign)

    # Clients' certificates

    @functools.cached_property
    def client(self):
        return self.issue("client.example.test", client=True)

    @functools.cached_property
    def foreign_client(self):
        return self.issue("stranger.example.test", client=True, authority=self.foreign)

    @functools.cached_property
    def expired_client(self):
        return self.issue("former.example.test", client=True, since=-40, until=-10)

    # Files beside them

    def ticket_keys(self, name="tickets", keys=1, first=None):
        """A file of new keys, one a line. `first`: a file whose keys go below the new ones (a rotation)."""
        fresh = ["%s\n" % base64.b64encode(os.urandom(80)).decode() for _ in range(keys)]
        return write(self.file(name), *fresh, read(first) if first else "")

    def ocsp(self, pem, authority=None):
        """Lay the OCSP response for a certificate of `authority` beside it, as Weir looks for it."""
        authority = authority or self.intermediate
        with authority.lock:
            openssl("ocsp", "-index", authority.file("index.txt"), "-rsigner", authority.pem, "-rkey", authority.key,
                    "-CA", authority.pem, "-issuer", authority.pem, "-cert", pem, "-ndays", "2", "-respout", pem + ".ocsp",
                    "-resp_no_certs", "-noverify")
        return pem + ".ocsp"

    def mixed(self, certificate, key):
        """The certificate of one file with the key of another."""
        with self.lock:
            self.made += 1
            name = self.file("mixed-%d.pem" % self.made)
        return write(name, read(certificate).split("-----BEGIN PRIVATE KEY-----")[0],
                     "-----BEGIN PRIVATE KEY-----" + read(key).split("-----BEGIN PRIVATE KEY-----")[1])


# Contexts

def with_versions(context, minimum, maximum):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what some tests are about
        context.minimum_version = minimum or ssl.TLSVersion.TLSv1_2
        context.maximum_version = maximum or ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Python sets it; then a cut would pass for close_notify
    return context


def server_context(pem, client_ca=None, alpn=(), minimum=None, maximum=None):
    """For a relay. `client_ca`: a certificate of it is demanded."""
    context = with_versions(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), minimum, maximum)
    context.load_cert_chain(pem)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_context(ca=None, certificate=None, alpn=(), minimum=None, maximum=None, ciphers=None):
    """With `ca` the server's chain and name are verified, otherwise nothing is."""
    context = with_versions(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), minimum, maximum)
    if ca:
        context.load_verify_locations(ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if ciphers:
        context.set_ciphers(ciphers)
    return context


@functools.lru_cache(maxsize=None)
def any_server():
    """A context that verifies nothing and offers no certificate."""
    return client_context()


def leaf(pem):
    """The first certificate of a file, in DER: what getpeercert(True) of a peer says."""
    return ssl.PEM_cert_to_DER_cert(read(pem).split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")


def client_hello(version=0x0303, ciphers=(0xC02B, 0xC02F, 0xC009, 0xC013, 0x002F, 0x0035, 0x000A), name=b""):
    """The record of a ClientHello that offers nothing newer than `version` (0x0300 is SSLv3): for what no library says any more."""
    def vector(octets, width=2):
        return len(octets).to_bytes(width, "big") + octets
    extensions = b"".join(kind.to_bytes(2, "big") + vector(content) for kind, content in (
        [(0, vector(b"\0" + vector(name)))] if name else []) + [
        (10, vector(bytes.fromhex("001d00170018"))), (11, vector(b"\0", 1)), (13, vector(bytes.fromhex("04030503080408050401020302010101")))])
    hello = (version.to_bytes(2, "big") + bytes(32) + vector(b"", 1)
             + vector(b"".join(cipher.to_bytes(2, "big") for cipher in ciphers)) + vector(b"\0", 1) + vector(extensions))
    return b"\x16" + min(version, 0x0301).to_bytes(2, "big") + vector(b"\1" + vector(hello, 3))


# A TLS socket

class TlsSocket:
    """
    TLS over a connected socket, with nothing between the test and the octets: `raw` is the socket below, flight() is what a
    handshake would send next. It reads and writes as a socket does; recv() is b"" at every end, and `ending` says whether
    that was "close_notify" or a "cut". As with a socket, one thread may shut down what another one reads.
    """

    def __init__(self, raw, context, sni=None, server_side=False, session=None, handshake=True):
        self.raw = raw
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, sni, session)
        self.lock = threading.Lock()  # of `tls` and what it reads: OpenSSL is at work there without Python's own lock
        self.ending = None
        if handshake:
            self.handshake()

    def __getattr__(self, name):
        return getattr(self.raw, name)

    def flight(self, received=b""):
        """Take what the peer sent, return what the handshake answers: to be sent by the caller. For half handshakes."""
        if received:
            self.feed(received)
        try:
            self.locked(self.tls.do_handshake)
        except ssl.SSLWantReadError:
            pass
        return self.locked(self.outgoing.read)

    def handshake(self):
        self.repeat(self.tls.do_handshake)

    def locked(self, operation, *arguments):
        with self.lock:
            return operation(*arguments)

    def feed(self, octets):
        """What the peer sent, to be read by `tls`; b"" is its end."""
        if octets:
            self.locked(self.incoming.write, octets)
        else:
            self.locked(self.incoming.write_eof)

    def flush(self):
        octets = self.locked(self.outgoing.read)
        if octets:
            self.raw.sendall(octets)  # not locked: it may wait for the peer

    def repeat(self, operation, *arguments):
        """Until it has what it needs from the peer. An alert of ours goes out too."""
        while True:
            try:
                result = self.locked(operation, *arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                self.feed(self.raw.recv(262144))
            except ssl.SSLError as error:
                try:
                    self.flush()
                except OSError:
                    pass
                if error.reason == "UNEXPECTED_EOF_WHILE_READING":  # one and the same, by the versions of Python
                    raise ssl.SSLEOFError(*error.args) from None
                raise

    def recv(self, size=65536):
        if self.ending:
            return b""
        try:
            octets = self.repeat(self.tls.read, size)
        except ssl.SSLZeroReturnError:
            octets = b""
        except (ssl.SSLEOFError, ConnectionResetError):
            self.ending = "cut"
            return b""
        if not octets:
            self.ending = "close_notify"
        return octets

    def send(self, octets):
        return self.repeat(self.tls.write, octets)

    def sendall(self, octets):
        view = memoryview(octets)
        while view:
            view = view[self.send(view):]

    def records(self, octets):
        """The records that hold these octets, unsent: for raw.sendall(), in whatever pieces."""
        self.locked(self.tls.write, octets)
        return self.locked(self.outgoing.read)

    def notify(self):
        """Say close_notify, and do not wait for the peer's."""
        try:
            self.locked(self.tls.unwrap)
        except (ssl.SSLError, ValueError):
            pass
        try:
            self.flush()
        except OSError:
            pass

    def shutdown(self, how):
        if how != socket.SHUT_RD:
            self.notify()
        self.raw.shutdown(how)

    def cut(self):
        """FIN without close_notify."""
        self.raw.shutdown(socket.SHUT_WR)

    def close(self):
        self.notify()
        self.raw.close()

    # What was agreed

    def version(self):
        return self.tls.version()

    def cipher(self):
        return self.tls.cipher()[0]

    def certificate(self):
        """The peer's, in DER."""
        return self.tls.getpeercert(True)

    @property
    def resumed(self):
        return self.tls.session_reused

    @property
    def session(self):
        """To be resumed. Under TLS 1.3 it comes with the first octets behind the handshake."""
        return self.tls.session

    def alpn(self):
        return self.tls.selected_alpn_protocol()
