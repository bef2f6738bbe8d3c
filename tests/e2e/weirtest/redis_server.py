"""A real redis-server of one's own, and redis-cli as an operator uses it."""

import os
import shutil
import subprocess
import tempfile

from .net import free_port, wait_until


class RedisServer:
    """On a free port of loopback, without a file. `options`: as on its command line."""

    def __init__(self, *options):
        self.directory = tempfile.mkdtemp(prefix="weir-redis-")
        self.port = free_port()
        self.options = options
        self.process = None
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

    @property
    def url(self):
        return "redis://127.0.0.1:%d" % self.port

    def start(self):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self.directory, *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.run("PING")[1] == "PONG", 10, "redis-server answers")

    def run(self, *words):
        """(exit code, what redis-cli prints)."""
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
        return done.returncode, (done.stdout or done.stderr).rstrip("\n")

    def cli(self, *words):
        code, out = self.run(*words)
        assert code == 0 and not out.startswith(("ERR", "NOPERM", "WRONGTYPE")), "redis-cli %s: %s" % (" ".join(words), out)
        return out

    def hash(self, key):
        lines = self.cli("HGETALL", key).splitlines()
        return dict(zip(lines[::2], lines[1::2]))

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def remove(self):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
