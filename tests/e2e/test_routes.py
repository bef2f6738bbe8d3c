"""Routes: which pool takes what comes to a listener, by client, user and sender's domain."""

import base64

import pytest
from test_backends import SLOW_CHECKS
from test_identity import told
from weirtest.client import Client
from weirtest.identity import v2
from weirtest.net import wait_until
from weirtest.relay import DROP, EXTENSIONS, XCLIENT_RELAY
from weirtest.tls import any_server
from weirtest.weir import merged, tls_listener

NEWS, OTHER = b"news@client.test", b"other@client.test"
USERS = {NEWS: b"news' password", OTHER: b"another one"}


def pool_of(weir, relays, **options):
    """A pool for the file: its backends have the relays' names."""
    weir.relays.extend(relays)
    return merged({"slow-start": "0s", "connect-timeout": "2s", "queue-timeout": "3s", **SLOW_CHECKS,
                   "backends": {one.name.partition(".")[0]: {"address": "%s:%d" % one.address} for one in relays}}, options)


def split(start, relays, routes, pools=None, listener=None, own=None, options=None):
    """A Weir with the pools "relays" and "bulk", of a relay each unless `pools` has others (name → a list of relays), and the
    routes: (weir, the relay of "relays", the one of "bulk")."""
    pools = pools or {"relays": relays(1), "bulk": relays(1)}
    weir = start(pools["relays"], listener={"routes": routes, **(listener or {})}, pool={**SLOW_CHECKS, **(own or {})}, start=False)
    for name, members in pools.items():
        if name != "relays":
            weir.config["pools"][name] = pool_of(weir, members, **(options or {}).get(name, {}))
    weir.write()
    weir.start()
    wait_until(lambda: weir.metric("weir_backend_up") == sum(map(len, pools.values())), 5, "all are up")
    return (weir, pools["relays"][0], pools["bulk"][0])


def senders(relay):
    return [one.mail.decode() for one in relay.committed()]


def to_bulk(**conditions):
    return [{**{name.replace("_", "-"): value for name, value in conditions.items()}, "pool": "bulk"}]


def plain(user, password=None):
    return base64.b64encode(b"\0" + user + b"\0" + (password or USERS[user]))


# By sender

@pytest.mark.parametrize("globs,sender,bulk", [
    ("bulk.example", "a@bulk.example", True), ("bulk.example", "a@BULK.Example", True), ("bulk.example", "a@bulk.example.", True),
    ("bulk.example", "a@x.bulk.example", False), ("*.bulk.example", "a@x.bulk.example", True), ("*.bulk.example", "a@bulk.example", False),
    (["one.example", "b?lk.*"], "a@bolk.org", True), ("bulk.example", "bulk.example@one.example", False),
    ("bulk.example", '"a@one.example"@bulk.example', True), ("one.example", '"a@one.example"@bulk.example', False),
    ("[192.0.2.1]", "a@[192.0.2.1]", True), ("[192.0.2.1]", "a@1", False), ("<>", "", True), ("", "", True), ("?*", "", False), ("*", "", True),
    ("bulk.example", "@hop.example:a@bulk.example", True)])
def test_by_sender(start, relays, globs, sender, bulk):
    weir, own, other = split(start, relays, to_bulk(sender_domain=globs))
    weir.deliver(sender=sender)
    assert (senders(own), senders(other)) == (([], [sender]) if bulk else ([sender], []))
    line = weir.wait_log(event="transaction")
    assert line["pool"] == ("bulk" if bulk else "relays") and line["backend"] == ("relay2" if bulk else "r1")


def test_utf8_domains_as_given(start, relays):
    weir, own, other = split(start, relays, to_bulk(sender_domain="b?cher.example"))
    with weir.introduced() as client:
        for sender in ("a@bücher.example", "a@xn--bcher-kva.example"):
            client.ok(("MAIL FROM:<%s> SMTPUTF8" % sender).encode())
            client.ok("RCPT TO:<to@relay.test>")
            assert client.data(b"x\r\n").code == 250
        client.quit()
    assert senders(other) == ["a@bücher.example"] and senders(own) == ["a@xn--bcher-kva.example"]


def test_a_long_path_has_its_domain(start, relays):
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"))
    sender = "@" + ",@".join("hop%d.example" % n for n in range(40)) + ":" + "a" * 64 + "@bulk.example"
    weir.deliver(sender=sender)
    assert senders(other) == [sender] and not own.committed()


# By client

def test_by_client(start, relays):
    weir, own, other = split(start, relays, to_bulk(client=["127.0.0.2/32", "127.0.1.0/24"]))
    for n, source in enumerate(("127.0.0.1", "127.0.0.2", "127.0.1.77", "127.0.0.3")):
        with Client(weir.address, source=source) as client:
            client.ehlo().message(sender="%d@x" % n)
            client.quit()
    assert senders(own) == ["0@x", "3@x"] and senders(other) == ["1@x", "2@x"]


def test_by_client_behind_a_balancer(start, relays):
    weir, own, other = split(start, relays, to_bulk(client="10.1.0.0/16"),
                             listener={"proxy-protocol-from": ["127.0.0.5/32"], "allow-from": ["127.0.0.1/32", "10.0.0.0/8"]})
    for source in ("10.1.2.3", "10.2.2.3"):
        with Client(weir.address, source="127.0.0.5", header=v2((source, 99))) as client:
            client.ehlo().message(sender="a@" + source)
            client.quit()
    assert senders(other) == ["a@10.1.2.3"] and senders(own) == ["a@10.2.2.3"]


def test_by_client_on_a_unix_socket(start, relays, tmp_path):
    path = str(tmp_path / "smtp")
    weir, own, other = split(start, relays, to_bulk(client="unix"))
    weir.reload(lambda config: config["listeners"]["smtp"]["address"].append("unix:" + path))
    weir.wait_log(event="reload")
    weir.mark_baseline()
    with Client(path) as client:
        client.ehlo().message(sender="near@x")
        client.quit()
    weir.deliver(sender="far@x")
    assert senders(other) == ["near@x"] and senders(own) == ["far@x"]


# By user

def test_by_the_user_that_xclient_names(start, relays):
    weir, own, other = split(start, relays, to_bulk(user=["news-*", "*@news.example"]), listener={"xclient-from": ["127.0.0.1/32"]})
    with weir.introduced() as client:
        for login in ("news-1", "a@news.example", "NEWS-1", "other", "[UNAVAILABLE]", "news-2"):
            client.ok("XCLIENT LOGIN=" + login, 220)
            client.ehlo().message(sender=login.strip("[]") + ("" if "@" in login else "@x"))
        client.quit()
    assert senders(other) == ["news-1@x", "a@news.example", "news-2@x"]
    assert senders(own) == ["NEWS-1@x", "other@x", "UNAVAILABLE@x"]


# Which of several

def test_the_first_that_fits_wins_and_all_conditions_count(start, relays):
    pools = {"relays": relays(1), "bulk": relays(1), "third": relays(1)}
    weir, own, other = split(start, relays, pools=pools, routes=[
        {"client": ["127.0.0.2/32", "127.0.0.3/32"], "sender-domain": ["a.example", "b.example"], "pool": "bulk"},
        {"sender-domain": "a.example", "pool": "third"},
        {"sender-domain": "*.example", "client": "127.0.0.3/32", "pool": "relays"},
        {"client": "127.0.0.3/32", "pool": "third"}])
    expected = {("127.0.0.2", "a.example"): "bulk", ("127.0.0.3", "b.example"): "bulk", ("127.0.0.1", "a.example"): "third",
                ("127.0.0.1", "b.example"): "relays", ("127.0.0.3", "c.example"): "relays", ("127.0.0.3", "c.test"): "third",
                ("127.0.0.2", "c.test"): "relays"}
    for (source, domain), _ in expected.items():
        with Client(weir.address, source=source) as client:
            client.ehlo().message(sender="%s@%s" % (source, domain))
            client.quit()
    weir.wait_log(event="transaction", times=len(expected))
    assert {line["from"].strip("<>"): line["pool"] for line in weir.find_log(event="transaction")} \
        == {"%s@%s" % key: pool for key, pool in expected.items()}
    assert len(own.committed()) == 3 and len(other.committed()) == 2 and len(pools["third"][0].committed()) == 2


def test_a_route_that_takes_all(start, relays):
    weir, own, other = split(start, relays, [{"sender-domain": "client.test", "pool": "relays"}, {"pool": "bulk"}])
    weir.deliver(sender="a@client.test")
    weir.deliver(sender="a@x")
    assert senders(own) == ["a@client.test"] and senders(other) == ["a@x"]


# A session that is kept

def test_two_senders_in_one_session(start, relays):
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"))
    with weir.introduced() as client:
        for sender in ("1@x", "2@bulk.example", "3@bulk.example", "4@x"):
            client.message(sender=sender)
        client.quit()
    assert senders(own) == ["1@x", "4@x"] and senders(other) == ["2@bulk.example", "3@bulk.example"]
    # Parted with politely, and kept where nothing changes.
    assert len(own.traffic()) == 2 and len(other.traffic()) == 1
    wait_until(lambda: not any(one.open for one in own.traffic() + other.traffic()), 5, "both were left")
    assert all(bytes(one.received).endswith(b"QUIT\r\n") for one in own.traffic() + other.traffic())
    weir.wait_log(event="transaction", times=4)
    assert [(line["pool"], line["backend"]) for line in weir.find_log(event="transaction")] \
        == [("relays", "r1"), ("bulk", "relay2"), ("bulk", "relay2"), ("relays", "r1")]
    assert weir.metric("weir_transactions_total", pool="bulk", backend="relay2", outcome="delivered") == 2
    assert weir.metric("weir_transactions_total", pool="relays", backend="r1", outcome="delivered") == 2
    assert weir.metric("weir_transactions_total") == 4


def pipelined(*messages):
    return b"".join(b"MAIL FROM:<%s>\r\nRCPT TO:<to@relay.test>\r\n%s" % (sender, rest) for sender, rest in messages)


def test_pipelined(start, relays):
    """All that can be said in one go: the next MAIL behind the end of a message, or behind RSET."""
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"))
    with weir.introduced() as client:
        client.send(pipelined((b"1@x", b"RSET\r\n"), (b"2@bulk.example", b"RSET\r\n"), (b"3@x", b"DATA\r\n")))
        assert [client.reply().code for _ in range(9)] == [250] * 8 + [354]
        client.send(b"three\r\n.\r\n" + pipelined((b"4@bulk.example", b"DATA\r\n")))
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
        client.send(b"four\r\n.\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(2)] == [250, 221]
    assert senders(own) == ["3@x"] and senders(other) == ["4@bulk.example"]
    assert [one.mail for one in other.transactions()] == [b"2@bulk.example", b"4@bulk.example"]


@pytest.mark.parametrize("routed", [True, False])
def test_chunks_in_one_go(start, relays, routed):
    """With BDAT nothing has to be waited for: two whole messages and QUIT, and the client stops sending."""
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example") if routed else [])
    with weir.introduced() as client:
        client.send(pipelined((b"1@x", b"BDAT 5 LAST\r\none\r\n"), (b"2@bulk.example", b"RSET\r\n"), (b"3@x", b"BDAT 7 LAST\r\nthree\r\n"))
                    + b"QUIT\r\n")
        client.sock.shutdown(1)
        assert [reply.code for reply in client.replies()] == [250] * 9 + [221]
    assert senders(own) == ["1@x", "3@x"] and len(other.transactions()) == routed


def test_without_pipelining_behind(start, relays):
    plain_one = [one for one in EXTENSIONS if one != "PIPELINING"]
    pools = {"relays": relays(1, extensions=plain_one), "bulk": relays(1, extensions=plain_one)}
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"), pools=pools)
    with weir.introduced() as client:
        client.send(pipelined((b"1@x", b"RSET\r\n"), (b"2@bulk.example", b"RSET\r\n"), (b"3@bulk.example", b"DATA\r\n")))
        assert [client.reply().code for _ in range(9)] == [250] * 8 + [354]
        client.send(b"three\r\n.\r\n")
        assert client.reply().code == 250
        client.quit()
    assert senders(other) == ["3@bulk.example"] and len(own.transactions()) == 1


# A reload

def reload_routes(weir, routes, number=1):
    weir.reload(lambda config: config["listeners"]["smtp"].update(routes=routes))
    weir.wait_log(event="reload", times=number)


def test_a_kept_session_follows_a_reload(start, relays):
    weir, own, other = split(start, relays, [])
    with weir.introduced() as client:
        client.message(sender="1@bulk.example")
        reload_routes(weir, to_bulk(sender_domain="bulk.example"))
        client.message(sender="2@bulk.example")
        client.message(sender="3@x")
        reload_routes(weir, to_bulk(sender_domain="x"), 2)
        client.message(sender="4@x")
        client.message(sender="5@bulk.example")
        client.message(sender="6@x")
        reload_routes(weir, [], 3)
        client.message(sender="7@x")
        client.quit()
    assert senders(own) == ["1@bulk.example", "3@x", "5@bulk.example", "7@x"]
    assert senders(other) == ["2@bulk.example", "4@x", "6@x"]


def test_a_pool_that_comes_with_a_reload_and_goes_with_one(start, relays):
    third = relays(1)[0]
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"))

    def add(config):
        config["pools"] = {"new": pool_of(weir, [third]), **config["pools"]}  # all others move on by one
        config["listeners"]["smtp"]["routes"] = [{"sender-domain": "bulk.example", "pool": "new"}]

    def remove(config):
        del config["pools"]["new"]
        config["listeners"]["smtp"]["routes"] = to_bulk(sender_domain="bulk.example")

    with weir.introduced() as client:
        client.message(sender="1@bulk.example")
        weir.reload(add)
        wait_until(lambda: weir.metric("weir_backend_up") == 3, 5, "all are up")
        client.message(sender="2@bulk.example")
        client.message(sender="3@x")
        client.message(sender="4@bulk.example")
        weir.reload(remove)
        weir.wait_log(event="reload", times=2)
        client.message(sender="5@bulk.example")
        client.quit()
    assert senders(third) == ["2@bulk.example", "4@bulk.example"] and senders(own) == ["3@x"]
    assert senders(other) == ["1@bulk.example", "5@bulk.example"]
    weir.wait_log(event="transaction", times=5)
    assert [line["pool"] for line in weir.find_log(event="transaction")] == ["bulk", "new", "relays", "new", "bulk"]


def test_a_listener_that_is_gone_keeps_its_routes(start, relays):
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"))

    def rename(config):
        config["listeners"] = {"renamed": {**config["listeners"]["smtp"], "routes": [{"sender-domain": "x", "pool": "bulk"}]}}

    with weir.introduced() as client:
        client.message(sender="1@x")
        weir.reload(rename)
        weir.wait_log(event="reload")
        client.message(sender="2@bulk.example")
        client.message(sender="3@x")
        client.quit()
    assert senders(own) == ["1@x", "3@x"] and senders(other) == ["2@bulk.example"]
    weir.config["listeners"]["smtp"] = weir.config["listeners"]["renamed"]  # where clients are to look for the epilogue


def test_whom_a_reload_shuts_out_keeps_its_ways(start, relays):
    """Its pool judged it, the new one would trust whoever comes: no relay opens for a session that began before."""
    weir, own, other = split(start, relays, [], listener={"allow-from": ["127.0.0.1/32", "127.0.0.9/32"]})

    def shut_out(config):
        config["listeners"]["smtp"].update({"pool": "bulk", "allow-from": ["127.0.0.1/32"]})

    with Client(weir.address, source="127.0.0.9") as stranger, weir.introduced() as welcome:
        stranger.ehlo()
        weir.reload(shut_out)
        weir.wait_log(event="reload")
        stranger.message(sender="stranger@x")
        welcome.message(sender="welcome@x")
        stranger.quit()
        welcome.quit()
    assert senders(own) == ["stranger@x"] and senders(other) == ["welcome@x"]
    with Client(weir.address, source="127.0.0.9") as stranger:
        assert stranger.ehlo().command("MAIL FROM:<a@x>").code == 550


def test_a_pool_that_can_do_less_comes_with_a_reload(start, relays):
    """The session keeps what it was told at EHLO: what its pool can't carry is deferred, and the session goes on."""
    pools = {"relays": relays(1), "bulk": relays(1, extensions=["PIPELINING"])}
    weir, own, other = split(start, relays, [], pools=pools)
    with weir.introduced() as client:
        client.message(sender="1@bulk.example")
        reload_routes(weir, to_bulk(sender_domain="bulk.example"))
        assert client.command("MAIL FROM:<2@bulk.example> BODY=8BITMIME").code == 451
        client.message(sender="3@x", parameters="BODY=8BITMIME")
        client.message(sender="4@bulk.example")
        client.quit()
    assert senders(own) == ["1@bulk.example", "3@x"] and senders(other) == ["4@bulk.example"]
    assert weir.wait_log(event="transaction", outcome="failed")["pool"] == "bulk"


# A routed pool in trouble

def test_all_of_a_routed_pool_are_down(start, relays):
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"),
                             options={"bulk": {"health": {"interval": "100ms", "fast-interval": "50ms", "fall": 1}}})
    other.stop()
    weir.wait_metric(0, "weir_backend_up", backend="relay2")
    with weir.introduced() as client:
        assert client.command("MAIL FROM:<a@bulk.example>").code == 421
        assert client.wait_closed() == b""
    with weir.introduced() as client:  # that has a backend of the other pool
        client.message(sender="a@x")
        assert client.command("MAIL FROM:<a@bulk.example>").code == 421
    weir.deliver(sender="b@x")
    assert senders(own) == ["a@x", "b@x"]
    weir.wait_log(event="transaction", times=2, outcome="failed", pool="bulk")
    assert not any("backend" in line for line in weir.find_log(event="transaction", outcome="failed"))
    assert weir.metric("weir_transactions_total", pool="bulk", backend="", outcome="failed") == 2
    assert weir.metric("weir_transactions_total", pool="relays", outcome="failed") == 0


def test_another_relay_of_the_same_pool(start, relays):
    pools = {"relays": relays(1), "bulk": relays(2)}
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"), pools=pools,
                             options={"bulk": {"backends": {"relay3": {"priority": 1}}}})
    with weir.introduced() as client:
        client.message(sender="1@x")
        other.on("mail", DROP, times=1)
        assert send_commands_from(client, "2@bulk.example") == [250, 250, 354, 250]
        client.quit()
    assert senders(own) == ["1@x"] and senders(pools["bulk"][1]) == ["2@bulk.example"]
    line = weir.wait_log(event="transaction", pool="bulk")
    assert line["backend"] == "relay3" and line["attempts"] == "2" and line["outcome"] == "delivered"


def send_commands_from(client, sender):
    codes = [client.command("MAIL FROM:<%s>" % sender).code, client.command("RCPT TO:<to@relay.test>").code]
    codes.append(client.command("DATA").code)
    client.send(b"x\r\n.\r\n")
    return codes + [client.reply().code]


def test_the_queue_is_the_pool_s(start, relays):
    """Whose queue-timeout it is: the listener's pool would have it wait for an hour."""
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"), own={"queue-timeout": "1h"},
                             options={"bulk": {"queue-timeout": "200ms", "backends": {"relay2": {"max-connections": 1}}}})
    with weir.introduced() as first, weir.introduced() as second, weir.introduced() as third:
        first.envelope(sender="1@bulk.example")
        second.send(b"MAIL FROM:<2@bulk.example>\r\n")
        assert second.reply().code == 421
        third.message(sender="3@x")
        assert first.data(b"x\r\n").code == 250
        third.quit()
        first.quit()
    assert weir.wait_log(event="transaction", outcome="failed")["pool"] == "bulk"
    assert weir.metric("weir_queue_wait_seconds_count", pool="bulk") >= 1


# What is offered

def test_what_ehlo_offers(start, relays):
    """What all pools can do that this client may be sent to, and the smallest SIZE of theirs."""
    without = [one for one in EXTENSIONS if one not in ("SMTPUTF8", "SIZE 52428800")] + ["SIZE 2000"]
    pools = {"relays": relays(1), "bulk": relays(1, extensions=without),
             "third": relays(1, extensions=[one for one in EXTENSIONS if one != "DSN"])}
    weir, own, other = split(start, relays, pools=pools, routes=[
        {"client": "127.0.0.2/32", "sender-domain": "bulk.example", "pool": "bulk"}, {"client": "127.0.0.3/32", "pool": "third"}])

    def offered(source):
        with Client(weir.address, source=source) as client:
            return client.ehlo().extensions
    every = {one.partition(" ")[0] for one in EXTENSIONS}
    assert set(offered("127.0.0.1")) == every and offered("127.0.0.1")["SIZE"] == "52428800"
    assert set(offered("127.0.0.2")) == every - {"SMTPUTF8"} and offered("127.0.0.2")["SIZE"] == "2000"
    assert set(offered("127.0.0.3")) == every - {"DSN"} and offered("127.0.0.3")["SIZE"] == "52428800"
    with Client(weir.address, source="127.0.0.2") as client:
        assert client.ehlo().command("MAIL FROM:<a@x> SIZE=3000").code == 552


def test_what_ehlo_offers_who_may_be_anybody(start, relays):
    pools = {"relays": relays(1), "bulk": relays(1, extensions=[one for one in EXTENSIONS if one != "DSN"])}
    weir, own, other = split(start, relays, to_bulk(client="10.1.0.0/16"), pools=pools,
                             listener={"xclient-from": ["127.0.0.5/32"], "allow-from": ["127.0.0.0/8", "10.0.0.0/8"]})
    with Client(weir.address, source="127.0.0.5") as client:
        assert "DSN" not in client.ehlo().extensions
        client.ok("XCLIENT ADDR=10.1.2.3", 220)
        assert "DSN" not in client.ehlo().extensions
        client.message(sender="a@x")
    with Client(weir.address) as client:
        assert "DSN" in client.ehlo().extensions
    assert senders(other) == ["a@x"]


# Pools that want to know who the client is

def test_each_pool_has_its_own_identity(start, relays):
    pools = {"relays": relays(1, extensions=XCLIENT_RELAY), "bulk": relays(1, proxy_header=True)}
    weir, own, other = split(start, relays, to_bulk(sender_domain="bulk.example"), pools=pools, own={"identity": "xclient"},
                             options={"bulk": {"identity": "proxy-v2"}})
    with Client(weir.address, source="127.0.0.7") as client:
        client.ehlo()
        for sender in ("1@x", "2@bulk.example", "3@x"):
            client.message(sender=sender)
        client.quit()
    assert [told(one, "xclient") for one in own.committed()] == ["127.0.0.7"] * 2
    assert [told(one, "proxy-v2") for one in other.committed()] == ["127.0.0.7"]


# AUTH

@pytest.fixture
def submission(start, relays, pki):
    """submission(routes): AUTH is relayed, both pools know the users."""
    def make(routes, mechanisms=("PLAIN LOGIN CRAM-MD5",) * 2, **listener):
        pools = {"relays": relays(1, auth=mechanisms[0], users=USERS), "bulk": relays(1, auth=mechanisms[1], users=USERS)}
        return split(start, relays, routes, pools=pools,
                     listener=tls_listener("implicit", pki.mx, auth="relay", **{"allow-from": ["127.0.0.1/32"], **listener}))
    return make


def secure(weir, source="127.0.0.9"):
    """A client from outside allow-from."""
    return Client(weir.address, source=source, tls=any_server()).ehlo()


@pytest.mark.parametrize("line,responses", [
    (b"AUTH PLAIN " + plain(NEWS), []), (b"AUTH LOGIN " + base64.b64encode(NEWS), [base64.b64encode(USERS[NEWS])])])
def test_auth_that_shows_the_user(submission, line, responses):
    weir, own, other = submission(to_bulk(user="news@*"))
    with secure(weir) as client:
        reply = client.command(line)
        for response in responses:
            assert reply.code == 334
            reply = client.command(response)
        assert reply.code == 235
        client.message(sender="1@x")
        client.message(sender="2@y")
        client.quit()
    with secure(weir) as client:
        client.ok(b"AUTH PLAIN " + plain(OTHER), 235)
        client.message(sender="3@x")
        client.quit()
    assert senders(other) == ["1@x", "2@y"] and senders(own) == ["3@x"]
    assert len(other.auths()) == len(own.auths()) == 1
    assert weir.wait_log(event="transaction", user=NEWS.decode())["pool"] == "bulk"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_auth_that_does_not_show_the_user(submission, mechanism):
    """The name comes when the backend has been chosen: it goes by what else is known, and stays there."""
    weir, own, other = submission(to_bulk(user="news@*"))
    with secure(weir) as client:
        client.ok("AUTH " + mechanism, 334)
        responses = [plain(NEWS)] if mechanism == "PLAIN" else [base64.b64encode(NEWS), base64.b64encode(USERS[NEWS])]
        for response in responses[:-1]:
            client.ok(response, 334)
        client.ok(responses[-1], 235)
        client.message(sender="1@x")
        client.quit()
    assert senders(own) == ["1@x"] and not other.auths()


def test_who_has_authenticated_stays(submission):
    weir, own, other = submission(to_bulk(sender_domain="bulk.example"))
    with secure(weir) as client:
        client.ok(b"AUTH PLAIN " + plain(NEWS), 235)
        client.message(sender="1@bulk.example")
        client.quit()
    with secure(weir, "127.0.0.1") as client:  # who need not
        client.message(sender="2@bulk.example")
        client.quit()
    assert senders(own) == ["1@bulk.example"] and senders(other) == ["2@bulk.example"]


def test_auth_by_client(submission):
    weir, own, other = submission(to_bulk(client="127.0.0.9/32"))
    for source in ("127.0.0.9", "127.0.0.8"):
        with secure(weir, source) as client:
            client.ok(b"AUTH PLAIN " + plain(NEWS), 235)
            client.message(sender="a@" + source)
            client.quit()
    assert senders(other) == ["a@127.0.0.9"] and senders(own) == ["a@127.0.0.8"]


def test_auth_behind_a_message_and_mail_behind_a_wrong_password(submission):
    """A backend is at hand, of another pool than what comes next belongs to."""
    weir, own, other = submission(to_bulk(user="news@*"))
    with secure(weir, "127.0.0.1") as client:
        client.message(sender="1@x")
        client.ok(b"AUTH PLAIN " + plain(NEWS, b"wrong"), 535)
        client.message(sender="2@x")
        client.ok(b"AUTH PLAIN " + plain(OTHER, b"wrong"), 535)
        client.ok(b"AUTH PLAIN " + plain(NEWS), 235)
        client.message(sender="3@x")
        client.quit()
    assert senders(own) == ["1@x", "2@x"] and senders(other) == ["3@x"]
    assert [one.user for one in other.auths()] == [NEWS, NEWS] and [one.user for one in own.auths()] == [OTHER]


def test_mechanisms_are_those_of_the_pools_that_auth_goes_to(submission):
    for routes, mechanisms in ((to_bulk(user="news@*"), "PLAIN"), (to_bulk(sender_domain="bulk.example"), "CRAM-MD5 PLAIN LOGIN"),
                               (to_bulk(client="127.0.0.9/32"), "PLAIN"), (to_bulk(client="127.0.0.8/32"), "CRAM-MD5 PLAIN LOGIN")):
        weir, own, other = submission(routes, ("PLAIN LOGIN CRAM-MD5", "PLAIN"))
        with secure(weir) as client:
            assert client.extensions["AUTH"] == mechanisms, routes


def test_no_relay_for_auth_in_a_routed_pool(submission):
    weir, own, other = submission(to_bulk(user="news@*"))
    other.on("connect", DROP)
    with secure(weir) as client:
        assert client.command(b"AUTH PLAIN " + plain(NEWS)).code == 421
    assert not own.auths()
    with secure(weir) as client:
        client.ok(b"AUTH PLAIN " + plain(OTHER), 235)
