"""
A real redis-server (or sentinel, or node of a cluster) of the test's own, and a client for it.

    redis = Redis()                            options as on its command line: Redis("--maxmemory", "2mb")
    redis.ask("HGETALL", "weir:{main}:admin")  → bytes, int, list, None; RedisError
    redis.stop(); redis.start()                on the same port
    redis = Redis(tls=PKI)                     with TLS too, on a port of its own: redis.tls_port, redis.url

REDIS_SERVER in the environment names another program than redis-server: that of Valkey, or of another version.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile

from .net import free_port, wait_until


SERVER = os.environ.get("REDIS_SERVER", "redis-server")


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
    def __init__(self, *options, configuration=None, sentinel=False, start=True, tls=None):
        self.directory = tempfile.mkdtemp(prefix="weir-redis-")
        self.port = free_port()
        self.tls_port = free_port() if tls else None
        self.options, self.process = list(options), None
        self.arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory, "--loglevel", "warning"]
        if configuration is None:
            self.arguments += ["--save", "", "--appendonly", "no"]
        else:  # a sentinel rewrites its own
            path = os.path.join(self.directory, "redis.conf")
            with open(path, "w") as file:
                file.write(configuration)
            self.arguments = [path, *self.arguments, *(["--sentinel"] if sentinel else [])]
        if tls:
            # As servers of one cluster they demand certificates of each other, whatever they do with clients.
            self.arguments += ["--tls-port", str(self.tls_port), "--tls-cert-file", tls.relay, "--tls-key-file", tls.relay,
                               "--tls-client-cert-file", tls.client, "--tls-client-key-file", tls.client,
                               "--tls-ca-cert-file", tls.ca, "--tls-auth-clients", "no"]
        if start:
            self.start()

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def url(self):
        return "redis%s://127.0.0.1:%d" % ("s" if self.tls_port else "", self.public_port)

    @property
    def public_port(self):
        """Where others than the test are to ask."""
        return self.tls_port or self.port

    def start(self, wait=True):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen([SERVER, *self.arguments, *self.options], stdin=subprocess.DEVNULL, stdout=log,
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


# Several of them. `make` starts one, as Redis() does.

def sentinels_of(make, tls=None):
    """
    A master, its replica, and three sentinels that know all of that: (URL, master, replica). With `tls`, as of Redis, they speak
    it among themselves too.
    """
    among = ("--tls-replication", "yes") if tls else ()
    master = make(*among, tls=tls)
    other = make("--replicaof", "127.0.0.1", str(master.public_port), "--repl-diskless-sync-delay", "0", *among, tls=tls)
    wait_until(lambda: b"master_link_status:up" in other.ask("INFO", "replication"), 20, "the replica follows")
    watch = "sentinel monitor mail 127.0.0.1 %d 2\nsentinel down-after-milliseconds mail 1500\nsentinel failover-timeout mail 3000\n"
    sentinels = [make(*among, configuration=watch % master.public_port, sentinel=True, tls=tls) for _ in range(3)]
    for sentinel in sentinels:
        wait_until(lambda: len(sentinel.ask("SENTINEL", "replicas", "mail")) == 1 and len(sentinel.ask("SENTINEL", "sentinels", "mail")) == 2,
                   20, "the sentinels know each other")
    hosts = ",".join("127.0.0.1:%d" % sentinel.public_port for sentinel in sentinels)
    return "sentinel://%s/mail%s" % (hosts, "?tls=on" if tls else ""), master, other


SLOTS = 16384


def cluster_of(make, count=3, tls=None):
    """A cluster of so many nodes, the slots shared out in order: (URL, nodes). `tls` as for sentinels_of()."""
    ports = [free_port() for _ in range(count)]
    among = ("--tls-cluster", "yes") if tls else ()
    nodes = [make("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(port), *among, tls=tls)
             for port in ports]
    for n, node in enumerate(nodes):
        node.ask("CLUSTER", "ADDSLOTSRANGE", n * SLOTS // count, (n + 1) * SLOTS // count - 1)
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    for node, port in zip(nodes[1:], ports[1:]):
        nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.public_port, port)
    for node in nodes:
        wait_until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO") and node.ask("CLUSTER", "NODES").count(b"connected") == count,
                   20, "the cluster is there")
    return "cluster://%s%s" % (",".join("127.0.0.1:%d" % node.public_port for node in nodes), "?tls=on" if tls else ""), nodes


class SlotMove:
    """The slot of a key goes from its `owner` to the next node, its `heir`: SlotMove(nodes, key).begin().keys().end()."""

    def __init__(self, nodes, key):
        self.nodes, self.slot = nodes, nodes[0].ask("CLUSTER", "KEYSLOT", key)
        at = next(n for n in range(len(nodes)) if self.slot < (n + 1) * SLOTS // len(nodes))
        self.owner, self.heir = nodes[at], nodes[(at + 1) % len(nodes)]
        self.names = {node: node.ask("CLUSTER", "MYID") for node in nodes}

    def begin(self):
        self.heir.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.names[self.owner])
        self.owner.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.names[self.heir])
        return self

    def keys(self):
        """Until none is left, those too that are written meanwhile."""
        while True:
            keys = self.owner.ask("CLUSTER", "GETKEYSINSLOT", self.slot, 100)
            if not keys:
                return self
            self.owner.ask("MIGRATE", "127.0.0.1", self.heir.public_port, "", 0, 5000, "KEYS", *keys)

    def end(self):
        for node in [self.heir, self.owner] + [node for node in self.nodes if node not in (self.heir, self.owner)]:
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.names[self.heir])
        return self.heir
