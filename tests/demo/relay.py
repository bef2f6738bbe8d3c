"""
A relay that keeps what it takes: each message is in the store before its 250 goes out, so kill -9 can lose none that was
acknowledged. `relay.py PORT STORE NAME MILLISECONDS`: the last is how long a message takes it.

The store is a file of records: a line "number size", the message without its dot-stuffing, an empty line.
"""

import asyncio
import hashlib
import os
import re
import sys

END = b"\r\n.\r\n"
NUMBER = re.compile(rb"^X-Demo-Number: (\d+)\r$", re.MULTILINE)


def read_store(path):
    """([(number, sha256 of what is there), ...], how many octets are whole records)"""
    records, good = [], 0
    try:
        with open(path, "rb") as store:
            text = store.read()
    except FileNotFoundError:
        return [], 0
    while True:
        head, newline, _ = text[good:good + 200].partition(b"\n")
        words = head.split()
        if not newline or len(words) != 2:
            return records, good
        start = good + len(head) + 1
        message, tail = text[start:start + int(words[1])], text[start + int(words[1]):start + int(words[1]) + 1]
        if tail != b"\n":
            return records, good
        records.append((int(words[0]), hashlib.sha256(message).hexdigest()))
        good = start + len(message) + 1


class Session(asyncio.Protocol):
    def __init__(self, name, store, seconds):
        self.name, self.store, self.seconds = name, store, seconds
        self.buffer, self.in_body, self.busy, self.mail, self.rcpts = bytearray(), False, False, False, 0

    def connection_made(self, transport):
        self.transport = transport
        self.say("220 %s ESMTP keeps what it takes" % self.name)

    def say(self, line):
        self.transport.write(line.encode() + b"\r\n")

    def data_received(self, octets):
        self.buffer += octets
        self.go_on()

    def go_on(self):
        while not self.busy and not self.transport.is_closing():
            if self.in_body:
                end = self.buffer.find(END)
                if end < 0:
                    return
                message = bytes(self.buffer[:end + 2])
                del self.buffer[:end + len(END)]
                self.in_body, self.busy = False, True
                asyncio.get_running_loop().call_later(self.seconds, self.keep, message)
            else:
                line, found, _ = self.buffer.partition(b"\r\n")
                if not found:
                    return
                del self.buffer[:len(line) + 2]
                self.command(line.decode("latin-1"))

    def keep(self, message):
        message = message.replace(b"\r\n.", b"\r\n")
        number = NUMBER.search(message)
        number = int(number.group(1)) if number else 0
        head = b"%d %d\n" % (number, len(message))
        os.write(self.store, head + message + b"\n")
        self.mail, self.rcpts, self.busy = False, 0, False
        if not self.transport.is_closing():
            self.say("250 2.0.0 Ok: kept as %d by %s" % (number, self.name))
            self.go_on()

    def command(self, line):
        verb = line[:4].upper()
        if verb == "EHLO":
            self.say("250-%s\r\n250-PIPELINING\r\n250-SIZE 10485760\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES" % self.name)
        elif verb == "MAIL":
            self.mail, self.rcpts = True, 0
            self.say("250 2.1.0 Ok")
        elif verb == "RCPT" and self.mail:
            self.rcpts += 1
            self.say("250 2.1.5 Ok")
        elif verb == "DATA" and self.rcpts:
            self.in_body = True
            self.say("354 End data with <CR><LF>.<CR><LF>")
        elif verb in ("RCPT", "DATA"):
            self.say("503 5.5.1 Bad sequence of commands")
        elif verb in ("RSET", "NOOP", "HELO"):
            self.mail, self.rcpts = False, 0
            self.say("250 2.0.0 Ok")
        elif verb == "QUIT":
            self.say("221 2.0.0 Bye")
            self.transport.close()
        else:
            self.say("502 5.5.1 Not here")


async def serve(port, path, name, seconds):
    # A kill can fall into a write: what is not whole was never acknowledged.
    store = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.ftruncate(store, read_store(path)[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(name, store, seconds), "127.0.0.1", port, backlog=512, reuse_address=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]) / 1000))
    except KeyboardInterrupt:
        pass
