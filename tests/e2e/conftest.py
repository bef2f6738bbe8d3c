"""Fixtures: relays and Weirs that end with the test, whatever became of it, and a limit for a test that hangs."""

import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from weirtest.redis import Redis  # noqa: E402
from weirtest.relay import Relay  # noqa: E402
from weirtest.tls import Pki  # noqa: E402
from weirtest.weir import BINARY, Weir  # noqa: E402

TEST_SECONDS = 150  # one that hangs; the longest takes 35 s where there is nothing else to do


def pytest_configure(config):
    config.addinivalue_line("markers", "scorecard(number, name): a row of the reliability and security scorecard")
    config.addinivalue_line("markers", "harness: proves the test house itself; needs no weir")


def pytest_collection_modifyitems(items):
    if os.access(BINARY, os.X_OK):
        return
    for item in items:
        if not item.get_closest_marker("harness"):
            item.add_marker(pytest.mark.skip(reason="no %s" % BINARY))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.call_failed = report.failed


@pytest.fixture(autouse=True)
def time_limit():
    def expired(*_):
        raise AssertionError("the test took more than %d s" % TEST_SECONDS)
    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def pki():
    """Certificates, each made when it is first asked for."""
    made = Pki()
    yield made
    made.remove()


@pytest.fixture
def relay():
    """One well-behaved relay."""
    one = Relay()
    yield one
    one.stop()


@pytest.fixture
def relays():
    """relays(3) makes three."""
    made = []

    def make(count, **options):
        fresh = [Relay("relay%d.test" % (len(made) + n + 1), **options) for n in range(count)]
        made.extend(fresh)
        return fresh
    yield make
    for one in made:
        one.stop()


@pytest.fixture
def kind():
    """What start() makes."""
    return Weir


@pytest.fixture
def start(request, kind):
    """start(backends, ...) runs a Weir. At the end of a test that passed it goes through the epilogue of every row."""
    running = []

    def make(*arguments, **options):
        weir = kind(*arguments, **options)
        running.append(weir)
        return weir
    yield make
    failed = getattr(request.node, "call_failed", True)
    try:
        for weir in running:
            if failed:
                print("weir's log:\n" + weir.output()[-20000:])
            else:
                weir.finish()
    finally:
        for weir in running:
            weir.discard()


@pytest.fixture
def weir(start, relay):
    """A Weir in front of `relay`."""
    return start([relay])


@pytest.fixture
def redis():
    """redis(...) starts one; the options are those of its command line."""
    made = []

    def make(*options, **more):
        made.append(Redis(*options, **more))
        return made[-1]
    yield make
    for one in made:
        one.discard()
