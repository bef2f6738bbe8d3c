"""Scorecard A once more with TLS on both sides: STARTTLS in front, `tls: require` towards the relay, the same tests."""

import pytest
from test_framing import *  # noqa: F401,F403
from weirtest.relay import Relay
from weirtest.weir import Weir, merged, tls_listener


class Secured(Weir):
    """Its clients are behind STARTTLS already."""

    def __init__(self, pki, *arguments, **options):
        self.pki = pki
        super().__init__(*arguments, **options)

    def build(self, backends, listener, pool, top):
        return super().build(backends, merged(tls_listener("required", self.pki.mx), listener), merged({"tls": "require"}, pool), top)

    def client(self, banner=True, **options):
        client = super().client(banner=banner, **options)
        return client.ehlo().starttls() if banner else client


@pytest.fixture
def kind(pki):
    return lambda *arguments, **options: Secured(pki, *arguments, **options)


@pytest.fixture
def relay(pki):
    one = Relay(certificate=pki.relay)
    yield one
    assert all(connection.secured for connection in one.traffic())
    one.stop()


@pytest.fixture(scope="module", params=["reject", "normalize"])
def shared(request, pki):
    relay = Relay(certificate=pki.relay)
    weir = Secured(pki, [relay], listener={"bare-newline": request.param, "command-timeout": "5s", "data-timeout": "5s"})
    weir.policy = request.param
    yield weir
    assert all(connection.secured for connection in relay.traffic())
    weir.finish()
