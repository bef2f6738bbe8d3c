"""
Scorecard D and E once more with TLS on both sides: the tests of test_backends.py and test_failover.py as they are, run with
relays, a listener, a pool and clients that speak TLS. One or a few of each row's cases; those files have them all.
"""

import functools
import inspect
import threading

import pytest
import test_backends as backends
import test_failover as failover
from weirtest.client import Client, Closed
from weirtest.relay import DROP, STALL
from weirtest.tls import any_server
from weirtest.weir import Weir, merged, tls_listener

NAMES = {
    38: "two codes in one reply: 451, connection dropped", 39: "an endless reply or a 10 MB line: bounded memory, 451",
    40: "replies octet by octet, with bare LF, without text: parsed or cleanly failed", 41: "codes 999, abc, an empty line: 451",
    42: "250 for 354, 354 to MAIL: no body is sent, 451", 43: "550 in mid-body, then it stops reading: the client gets the 550",
    44: "ESC, NUL, lone CR in a reply: sanitised to client and log",
    45: "only what all usable backends offer and Weir carries is offered",
    46: "loss at connect, banner, EHLO: 250 through another backend", 47: "loss at MAIL, RCPT, DATA: as the table says, never 5xx",
    48: "loss in the body: a 4xx that the client receives", 49: "loss after the end of data: 451, one backend saw it, logged unknown",
    50: "all backends down: 4xx in time; recovery without a restart",
    51: "kill -9 of a backend under load: every 250'd message is there",
}
STARTTLS, IMPLICIT = "starttls", "implicit"

# Row, test, TLS on both sides, the test's parameters.
CASES = [
    (38, backends.test_two_codes, STARTTLS, {"step": "rcpt"}),
    (38, backends.test_two_codes, IMPLICIT, {"step": "end"}),
    (39, backends.test_endless_reply, STARTTLS, {"piece": b"250-x\r\n" * 2000, "step": "rcpt"}),
    (40, backends.test_reply_octet_by_octet, STARTTLS, {"step": "ehlo"}),
    (40, backends.test_reply_octet_by_octet, IMPLICIT, {"step": "end"}),
    (40, backends.test_reply_without_text, STARTTLS, {"said": b"250\r\n"}),
    (40, backends.test_reply_with_bare_lf, IMPLICIT, {"step": "end"}),
    (41, backends.test_no_code, STARTTLS, {"said": b"999 x\r\n", "step": "rcpt"}),
    (41, backends.test_no_code, IMPLICIT, {"said": b"\r\n", "step": "end"}),
    (42, backends.test_250_in_place_of_354, STARTTLS, {}),
    (42, backends.test_354_out_of_place, IMPLICIT, {"step": "mail"}),
    (42, backends.test_an_extra_reply_answers_nothing, STARTTLS, {"step": "rcpt", "said": b"250 a\r\n250 2.0.0 queued\r\n"}),
    (42, backends.test_an_extra_reply_answers_nothing, IMPLICIT, {"step": "end", "said": b"250 a\r\n550 b\r\n"}),
    (43, backends.test_early_refusal, STARTTLS, {}),
    (43, backends.test_early_refusal, IMPLICIT, {}),
    (43, backends.test_early_reply, STARTTLS, {"said": b"250 2.0.0 believe me\r\n", "code": 451}),
    (44, backends.test_dirty_reply, STARTTLS, {"step": "end"}),
    (44, backends.test_reply_with_nul_or_cr, IMPLICIT, {"said": b"250 nul\0nul\r\n"}),
    (45, backends.test_a_transaction_goes_where_it_can_be_carried, STARTTLS, {}),
    (46, failover.test_loss_before_the_envelope, STARTTLS, {"step": "banner", "loss": "reset"}),
    (46, failover.test_loss_before_the_envelope, STARTTLS, {"step": "ehlo", "loss": "close"}),
    (46, failover.test_loss_before_the_envelope, IMPLICIT, {"step": "connect", "loss": "close"}),
    (46, failover.test_refused_connect, IMPLICIT, {}),
    (46, failover.test_refused_greeting, STARTTLS, {"step": "banner", "said": b"421 4.3.2 busy\r\n"}),
    (46, failover.test_silent_banner, IMPLICIT, {}),
    (47, failover.test_loss_in_the_envelope, STARTTLS, {"step": "mail", "loss": "close"}),
    (47, failover.test_loss_in_the_envelope, IMPLICIT, {"step": "rcpt", "loss": "reset"}),
    (47, failover.test_loss_in_the_envelope, STARTTLS, {"step": "data", "loss": "close"}),
    (47, failover.test_421_in_the_envelope, STARTTLS, {"step": "data"}),
    (47, failover.test_loss_under_pipelining, IMPLICIT, {"step": "rcpt", "codes": [250, 451, 451, 451]}),
    (48, failover.test_loss_in_the_body, STARTTLS, {"loss": "close", "size": 3000000}),
    (48, failover.test_loss_in_the_body, IMPLICIT, {"loss": "reset", "size": 3000000}),
    (48, failover.test_loss_between_chunks, STARTTLS, {"step": "between"}),
    (48, failover.test_loss_between_chunks, IMPLICIT, {"step": "last"}),
    (49, failover.test_loss_after_the_end_of_data, STARTTLS, {"loss": "close"}),
    (49, failover.test_loss_after_the_end_of_data, IMPLICIT, {"loss": "reset"}),
    (49, failover.test_half_a_final_reply, STARTTLS, {}),
    (50, failover.test_all_down_and_back, STARTTLS, {}),
    (50, failover.test_all_refuse_before_the_checks_know, IMPLICIT, {}),
    (None, backends.test_a_backend_that_knows_only_helo, IMPLICIT, {}),
    (None, failover.test_an_idle_backend_connection_that_ends_is_no_failure, STARTTLS, {}),
    (None, failover.test_many_sessions_through_a_flapping_relay, STARTTLS, {}),
]


def case_id(function, tls, options):
    return "-".join([function.__name__[5:], tls] + [str(value)[:12] for value in options.values() if isinstance(value, str)])


class TlsClient(Client):
    """It does STARTTLS where a test lets it say EHLO, once."""

    def ehlo(self, name="client.test"):
        super().ehlo(name)
        if self.raw is self.sock:
            self.starttls(any_server())
            super().ehlo(name)
        return self


@pytest.fixture
def tls():
    """Which kind of TLS: a test's parameter, if it has any."""
    return STARTTLS


@pytest.fixture
def relays(relays, pki, tls):
    return lambda count, **options: relays(count, certificate=pki.relay, implicit=tls == IMPLICIT, **options)


@pytest.fixture
def relay(relays):
    return relays(1)[0]


@pytest.fixture
def start(start, pki, tls, monkeypatch):
    if tls == STARTTLS:
        monkeypatch.setattr(Weir, "client", lambda weir, **options: TlsClient(weir.address, **options))
        monkeypatch.setattr(Weir, "introduced", lambda weir, **options: weir.client(**options).ehlo())
        monkeypatch.setattr(Weir, "delivers", delivers)

    def make(backends, listener=None, pool=None, **options):
        secure = {"tls": "verify" if tls == STARTTLS else "implicit-verify", "ca": pki.ca}
        return start(backends, listener=merged(tls_listener(tls, pki.mx), listener), pool=merged(secure, pool), **options)
    return make


def delivers(weir):
    with weir.client(banner=False) as client:
        return client.reply().code == 220 and client.ehlo().command("MAIL FROM:<epilogue@client.test>").code == 250 \
            and client.command("RCPT TO:<to@relay.test>").code == 250 and client.data(b"Subject: epilogue\r\n\r\n").code == 250


def marked(row, function, tls, options):
    return pytest.param(function, tls, options, id=case_id(function, tls, options),
                        marks=[pytest.mark.scorecard(row, NAMES[row])] if row else [])


@pytest.mark.parametrize("function,tls,options", [marked(*case) for case in CASES])
def test_over_tls(start, relays, function, tls, options):
    wanted = inspect.signature(function).parameters
    made = []

    def counted(count, **more):
        made.extend(relays(count, **more))
        return made[-count:]
    if function is backends.test_endless_reply:  # it measures memory: one worker, so that it has been used before
        start = functools.partial(start, top={"workers": 1})
    given = dict(options, start=start)
    if "relays" in wanted:
        given["relays"] = counted
    if "relay" in wanted:
        given["relay"] = counted(1)[0]
    function(**given)
    for relay in made:
        assert all(one.secured for one in relay.transactions()), "something went in the clear"


# What TLS adds to the table: it is one more step at which a backend can be lost.


@pytest.mark.scorecard(46, NAMES[46])
@pytest.mark.parametrize("tls", [STARTTLS, IMPLICIT])
@pytest.mark.parametrize("step,action", [("starttls", DROP), ("starttls", b"454 4.7.0 no\r\n"), ("handshake", DROP), ("handshake", STALL)])
def test_loss_at_the_handshake(start, relays, tls, step, action):
    if tls == IMPLICIT and step == "starttls":
        pytest.skip("no STARTTLS there")
    weir, first, second = failover.pair(start, relays)
    first.on(step, action)
    with weir.client() as client:
        assert backends.send_commands(client.ehlo()) == [250, 250, 354, 250]
    assert len(second.committed()) == 1 and not first.traffic()


@pytest.mark.scorecard(47, NAMES[47])
def test_loss_at_the_ehlo_behind_starttls(start, relays):
    weir, first, second = failover.pair(start, relays)
    first.on("ehlo", lambda connection, line: DROP if connection.secured else None)
    with weir.client() as client:
        assert backends.send_commands(client.ehlo()) == [250, 250, 354, 250]
    assert len(second.committed()) == 1 and not first.traffic()


@pytest.mark.scorecard(51, NAMES[51])
@pytest.mark.parametrize("tls", [STARTTLS, IMPLICIT])
def test_numbered_messages_survive_losses(start, relays, tls):
    """Two relays are cut off in turn under ten senders. A message is told twice only after a reply that leaves it open."""
    first, second = relays(2)
    weir = start([first, second])
    accepted, tried, trouble, done = [], {}, [], threading.Event()

    def send(sender):
        for number in range(20):
            name = b"m%d-%d@x" % (sender, number)
            for tried[name] in range(1, 100):
                try:
                    with weir.client() as client:
                        codes = backends.send_commands(Named(client.ehlo(), name))
                except (Closed, OSError) as error:
                    trouble.append(repr(error))
                    return
                if codes[-1] == 250:
                    accepted.append(name)
                    break
                if codes[-1] // 100 != 4:
                    trouble.append(codes)
                    return
    senders = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(10)]
    for sender in senders:
        sender.start()
    for victim in (first, second, first, second):
        done.wait(0.12)
        victim.stop()
        done.wait(0.12)
        victim.start()
    for sender in senders:
        sender.join(30)
    assert not trouble, trouble
    assert len(set(accepted)) == 200 == len(accepted)
    there = [one.mail for relay in (first, second) for one in relay.committed()]
    assert set(there) >= set(accepted)
    assert all(one.secured for relay in (first, second) for one in relay.transactions())
    weir.wait_log(event="transaction", outcome="delivered", times=200, timeout=10)
    unknown = {line["from"].strip("<>").encode() for line in weir.find_log(event="transaction", outcome="unknown")}
    assert {name for name in accepted if there.count(name) > 1} <= unknown


class Named:
    """A client whose MAIL is from somebody else than it says."""

    def __init__(self, client, name):
        self.client, self.name = client, name

    def command(self, line):
        return self.client.command(line.encode().replace(b"<a@x>", b"<%s>" % self.name))

    def __getattr__(self, name):
        return getattr(self.client, name)
