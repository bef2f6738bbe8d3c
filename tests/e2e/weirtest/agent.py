"""
A scripted agent: says the same line to everyone who connects, until a test has it say another.

    agent = Agent(b"up ready 100%\n")
    agent.say(b"drain\n")              from the next question on
    agent.say(HANG)                    accepts, and says nothing
    agent.stop(), agent.start()        refuses, and is there again
"""

import socket
import threading

from .net import abort, free_port, wait_until

HANG = object()


class Agent:
    def __init__(self, line=b"up ready 100%\n"):
        self.address = ("127.0.0.1", free_port())
        self.line, self.asked = line, 0
        self.listener, self.thread, self.held = None, None, []
        self.start()

    @property
    def text(self):
        return "%s:%d" % self.address

    def start(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(self.address)
        self.listener.listen(16)
        self.thread = threading.Thread(target=self.serve, args=(self.listener,), daemon=True)
        self.thread.start()

    def serve(self, listener):
        while True:
            try:
                peer = listener.accept()[0]
            except OSError:
                return
            line = self.line
            self.asked += 1
            if line is HANG:
                self.held.append(peer)
                continue
            try:
                peer.sendall(line)
                peer.close()
            except OSError:
                peer.close()  # it has heard enough

    def say(self, line):
        self.line = line

    def wait_asked(self, times=1, timeout=5):
        """Until it has been asked so often from here on, and the last but one has been heard."""
        wanted = self.asked + times + 1
        wait_until(lambda: self.asked >= wanted, timeout, "the agent is asked")

    def stop(self):
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.thread.join(5)
            self.listener = None
        for peer in self.held:
            abort(peer)
        self.held = []
