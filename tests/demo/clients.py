"""Many mail clients at once, each doing with a 4xx or a lost connection what a real one does: try again."""

import asyncio
import hashlib
import random
import time

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)


class Refused(Exception):
    """4xx: try again. `code` is 421 when the session is over as well."""

    def __init__(self, code, text):
        super().__init__("%d %s" % (code, text))
        self.code = code


class Bounced(Exception):
    """5xx: it would go back to its sender."""


class Session:
    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        await self.reply(220)
        await self.command("EHLO client.demo.example", 250)
        return self

    async def reply(self, wanted):
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 30)
            if not line.endswith(b"\r\n"):
                raise ConnectionResetError("closed in place of a reply")
            if line[3:4] != b"-":
                break
        code = int(line[:3])
        if code == wanted:
            return
        text = line[4:].decode("latin-1").strip()
        raise Refused(code, text) if code // 100 == 4 else Bounced("%d %s" % (code, text))

    async def command(self, line, wanted):
        self.writer.write(line.encode() + b"\r\n")
        await self.reply(wanted)

    async def message(self, number, octets):
        # As PIPELINING allows: the envelope in one segment.
        self.writer.write(b"MAIL FROM:<n%d@demo.example> SIZE=%d BODY=8BITMIME\r\n" % (number, len(octets)) +
                          b"RCPT TO:<to@relay.example>\r\nDATA\r\n")
        refusal = None
        for wanted in (250, 250, 354):
            try:
                await self.reply(wanted)
            except (Refused, Bounced) as error:
                if isinstance(error, Refused) and error.code == 421:
                    raise  # nothing comes behind it
                refusal = refusal or error
        if refusal:
            raise refusal
        self.writer.write(octets.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        await self.reply(250)

    async def close(self, politely):
        try:
            if politely:
                await self.command("QUIT", 221)
            self.writer.close()
            await self.writer.wait_closed()
        except (OSError, Refused, Bounced, asyncio.TimeoutError):
            pass


def compose(number, chance):
    lines = ["From: <n%d@demo.example>" % number, "To: <to@relay.example>", "Subject: message %d" % number,
             "X-Demo-Number: %d" % number, "", "This is message %d." % number]
    # Some lines begin with a dot, some hold octets beyond ASCII.
    lines += [chance.choice(("", "", ".", "..", "é")) + "%064x" % chance.getrandbits(256) for _ in range(chance.randint(2, 60))]
    return ("\r\n".join(lines) + "\r\n").encode()


class Crowd:
    def __init__(self, port, clients, messages, seed=1):
        self.port, self.clients, self.messages = port, clients, messages
        self.next_number, self.acknowledged, self.bounced = 1, set(), []
        self.digests = {}
        self.hold_from, self.released = messages + 1, None  # later messages wait until `released` is set
        self.refusals, self.lost, self.retried = {}, 0, 0
        self.chance = random.Random(seed)
        self.seconds = 0

    async def run(self):
        began = time.monotonic()
        self.released = asyncio.Event()
        await asyncio.gather(*(self.client() for _ in range(self.clients)))
        self.seconds = time.monotonic() - began

    async def client(self):
        session, left = None, 0
        while self.next_number <= self.messages:
            number, self.next_number = self.next_number, self.next_number + 1
            if number >= self.hold_from:
                await self.released.wait()
            octets = compose(number, self.chance)
            self.digests[number] = hashlib.sha256(octets).hexdigest()
            attempt = 0
            while True:
                try:
                    if session is None:
                        session, left = Session(), self.chance.randint(1, 5)
                        await session.open(self.port)
                    await session.message(number, octets)
                    self.acknowledged.add(number)
                    left -= 1
                    if left == 0:
                        await session.close(True)
                        session = None
                    break
                except Bounced as error:
                    self.bounced.append("message %d: %s" % (number, error))
                    break
                except (Refused, OSError, asyncio.TimeoutError) as error:
                    refused = isinstance(error, Refused)
                    if refused:
                        self.refusals[str(error)] = self.refusals.get(str(error), 0) + 1
                    else:
                        self.lost += 1
                        reason = "connection lost: %s" % (error or type(error).__name__)
                        self.refusals[reason] = self.refusals.get(reason, 0) + 1
                    self.retried += 1
                    await session.close(refused and error.code != 421)
                    session = None
                    await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)] * self.chance.uniform(0.5, 1.5))
                    attempt += 1
        if session:
            await session.close(True)
