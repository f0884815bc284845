"""Servers with certificates, and what the environment of a machine behind a proxy would spoil."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Callable, Iterator

import pytest

from agent.errors import BackendAway
from agent.transport import Answer, Transport
from tests.fakes.peer import Peer, Script
from tests.servers.authority import Pair

KEY = "collector_7_very-secret"
Serve = Callable[[Script], Peer]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor authorities."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name in {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}:
            monkeypatch.delenv(name)


@pytest.fixture
def serve() -> Iterator[Serve]:
    peers: list[Peer] = []

    def start(script: Script) -> Peer:
        peers.append(Peer(script))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


def speaking(pair: Pair) -> ssl.SSLContext:
    """A server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


def older(context: ssl.SSLContext, at_most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """One that speaks what nobody should speak any more, from TLS 1.0 on."""
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = at_most or ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def post(transport: Transport) -> Answer:
    try:
        return transport.post("/api/x", b"{}")
    finally:
        transport.close()


def failure(transport: Transport) -> BackendAway:
    with pytest.raises(BackendAway) as caught:
        post(transport)
    assert KEY not in str(caught.value)
    return caught.value
