"""
A real redis-server (or sentinel, or node of a cluster) of the test's own, and a client for it.

    redis = Redis()                            options as on its command line: Redis("--maxmemory", "2mb")
    redis.ask("HGETALL", "weir:{main}:admin")  → bytes, int, list, None; RedisError
    redis.stop(); redis.start()                on the same port
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile

from .net import free_port, wait_until


class RedisError(Exception):
    """An error that the server answered with."""


class RedisClient:
    """One connection."""

    def __init__(self, port, timeout=10):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()

    def ask(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        reply = self.reply()
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("redis-server closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return self.file.read(int(rest) + 2)[:-2]


class Redis:
    def __init__(self, *options, program="redis-server", configuration=None, start=True):
        self.directory = tempfile.mkdtemp(prefix="weir-redis-")
        self.port = free_port()
        self.program, self.options, self.process = program, list(options), None
        self.arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory, "--loglevel", "warning"]
        if configuration is None:
            self.arguments += ["--save", "", "--appendonly", "no"]
        else:  # a sentinel rewrites its own
            path = os.path.join(self.directory, "redis.conf")
            with open(path, "w") as file:
                file.write(configuration)
            self.arguments.insert(0, path)
        if start:
            self.start()

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def url(self):
        return "redis://127.0.0.1:%d" % self.port

    def start(self, wait=True):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen([self.program, *self.arguments, *self.options], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        if wait:
            wait_until(self.answers, 20, "redis-server answers")

    def answers(self):
        assert self.process.poll() is None, "redis-server ended with %s" % self.process.returncode
        try:
            self.ask("PING")
        except RedisError:
            return True
        except (OSError, ConnectionError):
            return False
        return True

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """At once; what it held is gone."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def discard(self):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    # Commands

    def client(self):
        return RedisClient(self.port)

    def ask(self, *words):
        with self.client() as client:
            return client.ask(*words)

    def hash(self, key):
        """A hash, as text."""
        reply = self.ask("HGETALL", key)
        return {name.decode(): value.decode() for name, value in zip(reply[::2], reply[1::2])}

    def members(self, key):
        return [one.decode() for one in self.ask("ZRANGE", key, 0, -1)]
