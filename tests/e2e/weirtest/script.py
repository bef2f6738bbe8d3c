"""What a scripted relay can be told to do at a step (see relay.py)."""


class Drop:
    """`notify`: under TLS close_notify is said first; without it the peer sees a stream that was cut."""

    def __init__(self, reset, notify=False):
        self.reset, self.notify = reset, notify


class Stall:
    """Say nothing and read nothing until the peer or the test ends it."""


DROP, RESET, CLOSE, STALL = Drop(False), Drop(True), Drop(False, True), Stall()


class Delay:
    def __init__(self, seconds, then=None):
        self.seconds, self.then = seconds, then


class Bytewise:
    """The usual reply, or `octets`, one octet a segment."""

    def __init__(self, octets=None, pause=0.002):
        self.octets, self.pause = octets, pause


class At:
    """In a body: do `action` once `octets` of it have arrived. If the connection lives on, no reply is given at the end."""

    def __init__(self, octets, action):
        self.octets, self.action = octets, action


class Gone(Exception):
    """The connection is over, by the peer or by the script."""

    def __init__(self, reset=False, notify=False):
        self.reset, self.notify = reset, notify
