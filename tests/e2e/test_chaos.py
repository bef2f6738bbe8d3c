"""
Everything at once: clients that leave at any step and in any way, relays that fail at any step, one that is killed and comes
back, and reloads in between. Then nothing may be left over, and the promise must have been kept.
"""

import random
import socket
import threading
import time
from collections import Counter

from weirtest.client import Client, Closed
from weirtest.net import free_port, wait_until
from weirtest.relay import DROP, RESET, Delay

SEED = 20261123
CLIENTS, SESSIONS = 12, 30
# An answer may take three backends, and for each a second in the queue, one for its banner, and a late reply to all that is
# said to it: less than eight. The rest is the machine's.
PATIENCE = 20
FAULTS = ("connect", "banner", "ehlo", "mail", "rcpt", "data", "end", "rset", "quit")


class Leaves(Exception):
    """The client has had enough."""


class Sender(threading.Thread):
    """Sessions of random manners, one after the other. `heard` holds the senders of messages that were answered 250."""

    def __init__(self, number, weir, addresses):
        super().__init__(daemon=True)
        self.name, self.chance, self.addresses = "c%d" % number, random.Random(SEED + number), addresses
        self.weir = weir
        self.heard, self.asked, self.trouble = [], [], []

    def run(self):
        for session in range(SESSIONS):
            try:
                self.session("%s-%d" % (self.name, session))
            except (Leaves, Closed, ConnectionError, BrokenPipeError):
                pass
            except (AssertionError, OSError) as problem:  # no SMTP, or nothing within the client's patience
                self.trouble.append("%s-%d: %s: %s" % (self.name, session, type(problem).__name__, problem))

    def session(self, name):
        try:
            client = Client(self.chance.choice(self.addresses), banner=False, timeout=PATIENCE)
        except (ConnectionError, FileNotFoundError):  # the listener that comes and goes is away
            return
        with client:
            try:
                self.dialogue(client, name)
            except socket.timeout:
                # While the session is there to be looked at.
                raise AssertionError("%s hears nothing at %s; its sessions:\n%s" % (
                    client.sock.getsockname(), client.sock.getpeername(), self.weir.ctl("--json", "sessions")[1])) from None

    def dialogue(self, client, name):
        self.maybe_leave(client)
        if client.reply().code != 220:
            return
        self.maybe_leave(client)
        client.ehlo()
        for message in range(self.chance.choice((1, 1, 2, 4))):
            self.maybe_leave(client)
            self.transaction(client, "%s-%d@chaos.test" % (name, message))
        if self.chance.random() < 0.7:
            client.command("QUIT")

    def transaction(self, client, sender):
        commands = [b"MAIL FROM:<%s>" % sender.encode(), b"RCPT TO:<a@x>", b"RCPT TO:<b@x>", b"DATA"]
        self.asked.append(sender)
        if self.chance.random() < 0.1:
            self.all_at_once(client, commands, sender)
        if self.chance.random() < 0.4:
            client.send(b"\r\n".join(commands) + b"\r\n")
            self.maybe_leave(client)
            codes = [client.reply().code for _ in commands]
        else:
            codes = []
            for command in commands:
                codes.append(client.command(command).code)
                if codes[-1] == 421:
                    break
                self.maybe_leave(client)
        if codes[-1] != 354:
            if 421 in codes:
                time.sleep(0.05)  # there may be a relay by then
            if 421 in codes or self.chance.random() < 0.3:
                raise Leaves
            client.ok("RSET")
            return
        self.body(client, sender)

    def all_at_once(self, client, commands, sender):
        """The whole session, then no more octets: it is served to its end all the same."""
        client.send(b"\r\n".join(commands) + b"\r\nhello\r\n.\r\nQUIT\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        codes = [reply.code for reply in client.replies()]
        if codes[3:5] == [354, 250]:
            self.heard.append(sender)
        raise Leaves

    def body(self, client, sender):
        octets = b"Subject: chaos\r\n\r\n" + b"0123456789abcdef" * 3 * self.chance.choice((1, 20, 10000)) + b"\r\n"
        cut = self.chance.randrange(len(octets))
        client.send(octets[:cut])
        self.maybe_leave(client)
        client.send(octets[cut:] + b".\r\n")
        self.maybe_leave(client)
        code = client.reply().code
        if code == 250:
            self.heard.append(sender)
        elif code == 421:
            raise Leaves

    def maybe_leave(self, client):
        if self.chance.random() > 0.06:
            return
        manner = self.chance.choice(("close", "reset", "half", "pause", "pause"))
        if manner == "pause":
            time.sleep(0.05)
            return
        if manner == "half":
            client.sock.shutdown(socket.SHUT_WR)
            client.wait_closed()
        if manner == "reset":
            client.abort()
        raise Leaves


def fault(chance):
    """For a relay's script: now and then the connection ends, in one way or the other, or the answer is a refusal or late."""
    lock = threading.Lock()

    def act(_connection, _line):
        with lock:
            draw = chance.random()
        for share, action in ((0.01, DROP), (0.02, RESET), (0.025, b"421 4.3.2 going\r\n"), (0.03, b"what?\r\n"),
                              (0.05, b"450 4.2.0 later\r\n"), (0.08, Delay(0.1))):
            if draw < share:
                return action
        return None
    return act


def change(config, chance, extra):
    """A configuration that is somehow other than the last."""
    pools, listeners = config["pools"], config["listeners"]
    backends = pools["relays"]["backends"]
    backends["r1"]["max-connections"] = chance.choice((3, 4, 6))
    backends["r2"]["weight"] = chance.choice((1, 2, 5))
    pools["relays"]["algorithm"] = chance.choice(("least-connections", "p2c", "round-robin"))
    if chance.random() < 0.5:
        spare = backends.pop("r3", None)
        backends.update({} if spare else {"r3": {"address": extra["r3"]}})
    listeners["extra"] = {"address": [extra["tcp"]], "pool": chance.choice(("relays", "second"))}
    pools["second"] = {"backends": {"r1": None, "r2": None}, "queue-timeout": "1s", "connect-timeout": "1s",
                       "health": pools["relays"]["health"]}
    if chance.random() < 0.3:
        del listeners["extra"], pools["second"]


def unrest(weir, relays, senders, extra):
    """Reload and kill until the senders are done."""
    chance, turns = random.Random(SEED), 0
    while any(sender.is_alive() for sender in senders):
        weir.reload(lambda config: change(config, chance, extra))
        turns += 1
        if turns % 6 == 3:
            relays[1].stop()
        if turns % 6 == 4:
            relays[1].start()
        time.sleep(0.03)
        assert weir.alive(), weir.output()[-5000:]
    return turns


def assert_promise(weir, relays, senders):
    """A client's 250 is a message in a relay; in a relay there is each at most once; Weir's log knows them all."""
    heard = [name for sender in senders for name in sender.heard]
    stored = Counter(one.mail.decode() for relay in relays for one in relay.committed())
    asked = {name for sender in senders for name in sender.asked}
    assert not [name for name in heard if not stored[name]], "accepted, and in no relay"
    assert not [name for name, times in stored.items() if times > 1], "nobody sent one twice"
    told = {}

    def all_are_told():
        told.update({line["from"].strip("<>"): line for line in weir.find_log(event="transaction")})
        return set(stored) & asked <= set(told)
    wait_until(all_are_told, 5, lambda: "Weir tells of %s" % (set(stored) & asked - set(told)))
    for name in set(stored) & asked:
        assert told[name]["outcome"] in ("delivered", "unknown"), told[name]
    for name in heard:
        assert told[name]["outcome"] == "delivered", told[name]
    for name, line in told.items():
        assert line["outcome"] != "delivered" or stored[name] == 1, line
    return heard


def assert_retries_left(weir, relays):
    """Each of these needs a second backend: retries that were never given back would be missed."""
    for turn in range(5):
        # Others each time: three failed MAILs in a row, which is what this makes, would eject one.
        fresh = {"s%d%d" % (turn, number): {"address": "127.0.0.1:%d" % relay.port} for number, relay in enumerate(relays)}
        weir.reload(lambda config, fresh=fresh: config["pools"]["relays"].update(backends=fresh))
        wait_until(lambda: {labels["backend"] for name, labels, _ in weir.metrics() if name == "weir_backend_up"} >= set(fresh), 8, "they are there")
        wait_until(lambda: sum(value for name, labels, value in weir.metrics() if name == "weir_backend_up" and labels["backend"] in fresh) == 3, 8, "all are up")
        for relay in relays[:2]:
            relay.on("mail", DROP, times=1)
        with weir.client() as client:
            client.ehlo().message(sender="retry@chaos.test")
            client.quit()
        for relay in relays:
            relay.behave()


def test_chaos(start, relays, tmp_path):
    farm = relays(3)
    path = str(tmp_path / "smtp.sock")
    weir = start(farm, start=False, pool={"queue-timeout": "1s", "queue-size": 8, "connect-timeout": "1s"},
                 top={"workers": 3})
    extra = {"tcp": "127.0.0.1:%d" % free_port(), "r3": "127.0.0.1:%d" % farm[2].port}
    weir.config["listeners"]["smtp"]["address"].append("unix:" + path)
    weir.config["listeners"]["smtp"]["max-connections-per-client"] = CLIENTS + 8
    weir.write()
    weir.start()
    wait_until(lambda: weir.metric("weir_backend_up") == 3, 5, "all are up")
    weir.mark_baseline()
    before = {key: options.copy() for key, options in weir.config["pools"]["relays"]["backends"].items()}
    for number, relay in enumerate(farm):
        act = fault(random.Random(SEED * 3 + number))
        for step in FAULTS:
            relay.on(step, act)
    addresses = [weir.address, weir.address, path, ("127.0.0.1", int(extra["tcp"].rpartition(":")[2]))]
    senders = [Sender(number, weir, addresses) for number in range(CLIENTS)]
    for sender in senders:
        sender.start()
    turns = unrest(weir, farm, senders, extra)
    trouble = [one for sender in senders for one in sender.trouble]
    assert not trouble, "\n".join(trouble)

    for relay in farm:
        relay.behave()
        if relay.listener is None:
            relay.start()

    def restore(config):
        config["listeners"].pop("extra", None)
        config["pools"].pop("second", None)
        config["pools"]["relays"]["backends"] = before
    weir.reload(restore)
    weir.assert_baseline()
    heard = assert_promise(weir, farm, senders)
    assert len(heard) > CLIENTS * SESSIONS // 8, "too few got through to mean anything: %d" % len(heard)
    assert turns > 20, turns
    assert_retries_left(weir, farm)
