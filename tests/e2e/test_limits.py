"""Limits: how much mail a client, a user or a sender's domain may send; one instance, without Redis."""

import re
import time

import pytest
from test_auth import PASSWORD, USER, plain
from test_backends import SLOW_CHECKS
from weirtest.client import Client
from weirtest.net import free_port, wait_until
from weirtest.relay import DROP
from weirtest.tls import any_server
from weirtest.weir import tls_listener

HINT = re.compile(r"4\.7\.1 Too many (messages|recipients); try again in (\d+) s")
LONG = "1/720h"


def hinted(reply, what="messages"):
    """The reply is a limit's: the seconds that it names."""
    assert reply.code == 450, reply
    found = HINT.fullmatch(reply.lines[0])
    assert found and found.group(1) == what, reply
    return int(found.group(2))


def mail(client, sender="a@client.test"):
    return client.command("MAIL FROM:<%s>" % sender)


def sends(weir):
    """As Weir.delivers(), by who has not sent in any test."""
    with weir.introduced(source="127.0.0.99") as client:
        client.message(sender="a@somebody.example")
        client.quit()
    return True


def refused(weir, rule, what="messages"):
    return weir.metric("weir_limit_refused_total", rule=rule, what=what)


@pytest.fixture
def limited(start, relays):
    """limited(rule={...}, …): a Weir with these limits in front of a relay: (weir, relay)."""
    def make(limits, **options):
        relay, = relays(1)
        weir = start([relay], pool=SLOW_CHECKS, top={"limits": limits}, **options)
        weir.delivers = lambda: sends(weir)
        return weir, relay
    return make


def test_messages_by_client(limited):
    weir, relay = limited({"each": {"by": "client", "messages": "2/720h"}})
    with weir.introduced(source="127.0.0.2") as client:
        client.message()
        client.message()
        assert hinted(mail(client)) > 3600
        client.quit()
    with weir.introduced(source="127.0.0.2") as client:
        hinted(mail(client))
        client.quit()
    with weir.introduced(source="127.0.0.3") as client:
        client.message()
        client.quit()
    assert len(relay.committed()) == 3 and refused(weir, "each") == 2
    weir.wait_log(event="limit", rule="each", what="messages", who="127.0.0.2", refused="1")
    assert len(weir.find_log(event="limit")) == 1  # the second refusal is not told at once


def test_an_outage_uses_nothing_up(limited):
    """While no relay can be had, clients come again and again; afterwards they have all of what they may send."""
    weir, relay = limited({"each": {"by": "client", "messages": "2/720h", "recipients": "2/720h"}})
    relay.stop()
    for _ in range(5):
        with weir.introduced() as client:
            client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<to@relay.test>\r\n")
            assert client.reply().code in (421, 451)
    relay.start()

    def is_back():
        with weir.introduced(source="127.0.0.98") as client:
            return mail(client, "a@somebody.example").code == 250
    wait_until(is_back, 15, "it is back", 0.1)
    with weir.introduced() as client:
        client.message()
        client.message()
        hinted(mail(client))
    assert refused(weir, "each") == 1 and not refused(weir, "each", "recipients")


def test_it_works_when_the_hint_said(limited):
    weir, relay = limited({"each": {"by": "client", "messages": "2/4s"}})
    with weir.introduced() as client:
        client.message()
        client.message()
        wait = hinted(mail(client))
        assert 1 <= wait <= 2
        time.sleep(wait)  # it is the time itself that is tried here
        client.message()
        hinted(mail(client))
        client.quit()
    assert len(relay.committed()) == 3


def test_recipients(limited):
    weir, relay = limited({"each": {"by": "client", "recipients": "3/720h"}})
    with weir.introduced() as client:
        client.envelope(recipients=["1@relay.test", "2@relay.test"])
        client.data(b"one\r\n")
        client.envelope(recipients=["3@relay.test"])
        hinted(client.command("RCPT TO:<4@relay.test>"), "recipients")
        client.data(b"two\r\n")
        client.ok("MAIL FROM:<a@client.test>", 250)
        hinted(client.command("RCPT TO:<5@relay.test>"), "recipients")
        client.ok("RSET", 250)
        client.quit()
    assert [len(one.rcpts) for one in relay.committed()] == [2, 1]
    assert refused(weir, "each", "recipients") == 2
    weir.wait_log(event="transaction", rcpts="1/2", outcome="delivered")
    weir.wait_log(event="transaction", rcpts="0/1", outcome="deferred", code="450")


def test_pipelined(limited):
    weir, relay = limited({"each": {"by": "client", "messages": "2/720h", "recipients": "2/720h"}})
    with weir.introduced() as client:
        client.send(b"MAIL FROM:<a@client.test>\r\n" + b"".join(b"RCPT TO:<%d@relay.test>\r\n" % n for n in range(4)) + b"DATA\r\n")
        assert [client.reply().code for _ in range(6)] == [250, 250, 250, 450, 450, 354]
        client.send(b"hello\r\n.\r\nMAIL FROM:<b@client.test>\r\nRCPT TO:<1@relay.test>\r\nRSET\r\nMAIL FROM:<c@client.test>\r\nNOOP\r\n")
        assert [client.reply().code for _ in range(6)] == [250, 250, 450, 250, 450, 250]
        client.quit()
    assert len(relay.committed()) == 1


def test_by_sender_domain(limited):
    weir, relay = limited({"domain": {"by": "sender-domain", "messages": LONG, "recipients": "1/720h"}})
    with weir.introduced() as client:
        client.message(sender="a@one.example")
        hinted(mail(client, "b@ONE.Example."))
        client.envelope(sender="a@two.example", recipients=["1@relay.test"])
        hinted(client.command("RCPT TO:<2@relay.test>"), "recipients")
        client.ok("RSET", 250)
        for _ in range(3):
            client.envelope(sender="", recipients=["1@relay.test", "2@relay.test"])
            client.data(b"nobody's\r\n")
        client.quit()
    weir.wait_log(event="limit", who="one.example")


def test_all_rules_count_and_a_refusal_costs_nothing(limited):
    weir, relay = limited({"domain": {"by": "sender-domain", "messages": LONG}, "each": {"by": "client", "messages": "2/720h"}})
    with weir.introduced() as client:
        client.message(sender="a@one.example")
        for _ in range(3):
            hinted(mail(client, "a@one.example"))
        client.message(sender="a@two.example")  # the client's second: the refused ones were given back
        hinted(mail(client, "a@three.example"))
        client.quit()
    assert (refused(weir, "domain"), refused(weir, "each")) == (3, 1)
    with weir.introduced(source="127.0.0.2") as client:
        client.message(sender="a@three.example")  # given back by the client's refusal
        client.quit()


def test_by_user(start, relays, pki):
    relay, = relays(1, auth="PLAIN", users={USER: PASSWORD, b"other": b"x"})
    weir = start([relay], pool=SLOW_CHECKS, listener=tls_listener("starttls", pki.mx, auth="relay"),
                 top={"limits": {"user": {"by": "user", "messages": LONG}}})
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "it is up")
    for user, password, codes in ((USER, PASSWORD, (250, 450)), (b"other", b"x", (250, 450)), (USER, PASSWORD, (450,)), (None, None, (250, 250))):
        client = weir.client()
        with client:
            client.ehlo()
            client.starttls(any_server())
            client.ehlo()
            if user:
                client.ok(b"AUTH PLAIN " + plain(user, password), 235)
            for code in codes:
                assert mail(client).code == code, (user, codes)
                client.ok("RSET", 250)
            client.quit()
    assert refused(weir, "user") == 3
    weir.wait_log(event="limit", who=USER.decode())


def test_what_a_lost_relay_did_not_answer_is_no_use(start, relays, pki):
    """Who has logged in can't have another relay: as where none is to be had."""
    relay, = relays(1, auth="PLAIN", users={USER: PASSWORD})
    weir = start([relay], pool=SLOW_CHECKS, listener=tls_listener("starttls", pki.mx, auth="relay"),
                 top={"limits": {"user": {"by": "user", "messages": LONG}}})
    wait_until(lambda: weir.metric("weir_backend_up") == 1, 5, "it is up")

    def log_in():
        client = weir.client().ehlo()
        client.starttls(any_server())
        client.ehlo().ok(b"AUTH PLAIN " + plain(USER, PASSWORD), 235)
        return client
    relay.on("mail", DROP, times=1)
    with log_in() as client:
        assert mail(client).code == 421
    with log_in() as client:
        client.message()
        hinted(mail(client))
        client.quit()
    assert refused(weir, "user") == 1


def test_by_login_and_address_of_xclient(limited):
    weir, _ = limited({"user": {"by": "user", "messages": LONG}, "each": {"by": "client", "messages": "2/720h"}},
                          listener={"xclient-from": ["127.0.0.0/8"], "allow-from": ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"]})

    def comes(address, login):
        with weir.introduced() as client:
            client.ok("XCLIENT ADDR=%s LOGIN=%s" % (address, login), 220)
            client.ehlo()
            code = mail(client).code
            client.quit()
            return code
    assert comes("10.0.0.1", "ann") == 250
    assert comes("10.0.0.2", "ann") == 450
    assert comes("10.0.0.1", "bob") == 250
    assert comes("10.0.0.1", "cid") == 450  # the client's third
    assert comes("10.0.0.3", "cid") == 250  # whom that has cost nothing
    assert comes("IPV6:fd00:1::1", "[UNAVAILABLE]") == 250
    assert comes("IPV6:fd00:1::2", "[UNAVAILABLE]") == 250
    assert comes("IPV6:fd00:1:0:0:ffff::", "[UNAVAILABLE]") == 450
    assert comes("IPV6:fd00:1:0:1::", "[UNAVAILABLE]") == 250
    weir.wait_log(event="limit", who="fd00:1::/64")


def test_listeners(limited):
    weir, relay = limited({"there": {"by": "client", "messages": LONG, "listeners": "other"}}, start=False)
    other = ("127.0.0.1", free_port())
    weir.config["listeners"]["other"] = {"address": "%s:%d" % other, "pool": "relays"}
    weir.write()
    weir.start()
    with Client(other) as there, weir.introduced() as here:
        there.ehlo()
        there.message()
        here.message()
        hinted(mail(there))
        here.message()
        there.quit()
        here.quit()


def test_reload(limited):
    weir, relay = limited({"each": {"by": "client", "messages": LONG}})

    def again(change):
        done = len(weir.find_log(event="reload"))
        weir.reload(change)
        weir.wait_log(event="reload", times=done + 1)
    with weir.introduced() as old:
        old.message()
        hinted(mail(old))
        again(lambda config: config["limits"].update(another={"by": "client", "messages": "9/1h"}))
        hinted(mail(old))  # it was not forgotten
        with weir.introduced() as new:
            hinted(mail(new))
            again(lambda config: config["limits"]["each"].update(messages="2/720h"))
            new.message()
            old.message()
            hinted(mail(new))  # another limit begins anew, also for who is there
            again(lambda config: config.pop("limits"))
            new.message()
            again(lambda config: config.update(limits={"each": {"by": "client", "messages": LONG}}))
            old.message()
            hinted(mail(new))
            new.quit()
        old.quit()


def test_a_rule_gives_back_only_what_was_taken_of_it(start, relays):
    """A message waits in vain, and its rule is another one meanwhile."""
    relay, = relays(1)
    weir = start({"r1": {"address": relay, "max-connections": 1}}, pool=dict(SLOW_CHECKS, **{"queue-timeout": "2s"}),
                 top={"limits": {"each": {"by": "client", "messages": "9/720h"}}})
    weir.delivers = lambda: sends(weir)
    with weir.introduced() as client:
        client.message()  # it stays at the relay, so the relay is full
        with weir.introduced() as waits:
            waits.send(b"MAIL FROM:<a@client.test>\r\n")
            weir.wait_metric(1, "weir_queue_waiting")
            weir.reload(lambda config: config["limits"]["each"].update(messages=LONG))
            weir.wait_log(event="reload")
            client.message()
            assert waits.reply().code == 421
        hinted(mail(client))
        client.quit()


def test_who_never_stops_asking(limited):
    weir, relay = limited({"each": {"by": "client", "messages": LONG}}, listener={"max-errors": 3})
    with weir.introduced() as client:
        client.message()
        for _ in range(102):
            hinted(mail(client))
        assert mail(client).code == 421
        client.wait_closed()
    weir.wait_log(event="session", end="errors")
    assert len(weir.find_log(event="limit")) == 1


def test_invented_senders(limited):
    weir, relay = limited({"domain": {"by": "sender-domain", "messages": LONG}})
    with weir.introduced() as client:
        client.message(sender="a@one.example")
        for n in range(300):
            client.ok("MAIL FROM:<a@%d.example>" % n, 250)
            client.ok("RSET", 250)
        hinted(mail(client, "a@one.example"))
        client.quit()
