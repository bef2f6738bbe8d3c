"""
AUTH of a scripted relay (RFC 4954): PLAIN, LOGIN and CRAM-MD5 as they are, checked against relay.users; SCRAM-*, XOAUTH2,
OAUTHBEARER and DIGEST-MD5 by their shape, which accept everybody. `relay.challenges` replaces what is asked.

    relay = Relay(auth="PLAIN LOGIN", auth_tls_only=True, auth_required=True)
    relay.on("auth", b"454 4.7.0 later\r\n")     instead of the first reply of an exchange; "auth2": of the second …

Each exchange is kept as an Attempt: relay.auths().
"""

import base64
import binascii
import hashlib
import hmac
import re

ACCEPTED = b"235 2.7.0 Authentication successful\r\n"
REFUSED = b"535 5.7.8 Authentication credentials invalid\r\n"
CHALLENGES = {
    "SCRAM": (b"r=clientserver,s=QSXCR+Q6sek8bf92,i=4096", b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="),
    "DIGEST-MD5": (b'realm="relay.test",nonce="OA6MG9tEQGm2hh",qop="auth",charset=utf-8,algorithm=md5-sess', b"rspauth=ea40f60335c427b5"),
}


def encode(octets):
    return base64.b64encode(octets)


class Attempt:
    def __init__(self, connection, line):
        self.connection, self.line, self.secured = connection, line, connection.secured
        words = line.split(b" ")
        self.mechanism = words[1].upper().decode("ascii", "replace") if len(words) > 1 else ""
        self.initial = words[2] if len(words) > 2 else None
        self.responses = []  # the lines behind the first, as they came
        self.user = None     # octets
        self.code = 0        # how it ended
        self.cancelled = False


class AuthSide:
    """The part of a connection that has to do with AUTH."""

    user = None        # octets, once it has authenticated
    conversing = None  # the Attempt under way

    @property
    def attempts(self):
        return self.__dict__.setdefault("attempts_made", [])

    def offered_auth(self):
        relay = self.relay
        return ["AUTH " + relay.auth] if relay.auth and (self.secured or not relay.auth_tls_only) else []

    def do_auth(self, line):
        attempt = Attempt(self, line)
        self.attempts.append(attempt)
        offered = "".join(self.offered_auth()).upper().split()[1:]
        for broken, reply in ((attempt.mechanism not in offered, b"504 5.5.4 not offered\r\n"), (self.transaction, b"503 5.5.1 in a transaction\r\n"),
                              (self.user is not None, b"503 5.5.1 again\r\n"), (self.greeting, b"503 5.5.1 EHLO first\r\n")):
            if broken:
                self.fault("%r: %s" % (line[:200], reply[10:-2].decode()))
                self.send(reply)
                return
        self.conversing = attempt
        try:
            self.converse(attempt, exchange_of(attempt.mechanism)(self.relay, attempt))
        except binascii.Error:
            self.fault("not base64: %r, %r" % (line[:200], attempt.responses))
            self.said = None
            self.send(b"501 5.5.2 not base64\r\n")
        self.conversing = None
        if attempt.code == 235:
            self.user = attempt.user or b""

    def converse(self, attempt, exchange):
        line, response, step = attempt.line, None, 1
        while True:
            try:
                usual = exchange.send(response)
            except StopIteration as done:
                usual = done.value or REFUSED
            code = self.answer("auth" if step == 1 else "auth%d" % step, usual, line)
            if code != 334:
                return
            line = response = self.read_line()
            attempt.responses.append(response)
            if response == b"*":
                attempt.cancelled = True
                self.answer("cancel", b"501 5.7.0 cancelled\r\n", line)
                return
            step += 1


# The mechanisms: generators of challenges that return the verdict.

def decode(line):
    return b"" if line == b"=" else base64.b64decode(line, validate=True)


def ask(challenge):
    return b"334 " + encode(challenge) + b"\r\n"


def verdict(relay, attempt, fits):
    return ACCEPTED if attempt.user in relay.users and fits(relay.users[attempt.user]) else REFUSED


def plain(relay, attempt):
    response = attempt.initial
    if response is None:
        response = yield ask(b"")
    parts = decode(response).split(b"\0")
    if len(parts) != 3:
        return REFUSED
    attempt.user = parts[1]
    return verdict(relay, attempt, lambda password: parts[2] == password)


def login(relay, attempt):
    name = attempt.initial
    if name is None:
        name = yield ask(b"Username:")
    attempt.user = decode(name)
    given = decode((yield ask(b"Password:")))
    return verdict(relay, attempt, lambda password: given == password)


def cram_md5(relay, attempt):
    challenge = b"<1896.697170952@relay.test>"
    attempt.user, _, digest = decode((yield ask(challenge))).rpartition(b" ")
    return verdict(relay, attempt, lambda password: digest.decode() == hmac.new(password, challenge, hashlib.md5).hexdigest())


def scripted(relay, attempt):
    """The client's first, then a challenge and a response each, then 235."""
    response = attempt.initial
    challenges = getattr(relay, "challenges", None) or CHALLENGES.get(attempt.mechanism) or CHALLENGES["SCRAM"]
    if attempt.mechanism in ("XOAUTH2", "OAUTHBEARER"):
        challenges = ()
    if response is None and attempt.mechanism != "DIGEST-MD5":
        response = yield ask(b"")
    first = decode(response or b"=")
    named = re.search(rb"(?:^|,)n=([^,]*)|user=([^\x01]*)\x01|a=([^,]*),", first)
    attempt.user = next((part for part in named.groups() if part is not None), b"") if named else b""
    for challenge in challenges:
        decode((yield ask(challenge)))
    return ACCEPTED


def exchange_of(mechanism):
    return {"PLAIN": plain, "LOGIN": login, "CRAM-MD5": cram_md5}.get(mechanism, scripted)
