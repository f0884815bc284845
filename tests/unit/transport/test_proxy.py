"""A proxy between this host and the backend.

What could go wrong: the one of the configuration is passed by, or the environment's is taken in its place; the tunnel
is no tunnel, and the proxy reads the key; its user and password are not said, or are told in an error; what the proxy
has refused passes for something that the backend may have stored; nobody knows that it was the proxy; a proxy that
speaks TLS itself ends the thread with a defect.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from agent.config.tls import BackendTls
from agent.errors import BackendAway, BackendUntrusted
from agent.transport import Transport
from tests.fakes.peer import GOOD, Peer, answering, over_tls
from tests.fakes.relay import ConnectProxy
from tests.servers.authority import Authorities
from tests.unit.transport.conftest import KEY, Serve, failure, post, speaking

SECRET = "hunter2-p@ss:w/rd"
ESCAPED = "hunter2-p%40ss%3Aw%2Frd"


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy() as running:
        yield running


@pytest.fixture
def strict_proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy("agent", SECRET) as running:
        yield running


@pytest.fixture
def backend(serve: Serve, authorities: Authorities) -> Peer:
    return serve(over_tls(speaking(authorities.good), answering(GOOD)))


@pytest.fixture
def tls(authorities: Authorities) -> BackendTls:
    return BackendTls(ca=authorities.ours.ca)


def test_a_socks_proxy_is_refused_whatever_is_installed(backend: Peer, tls: BackendTls) -> None:
    # Its connections would be neither bounded nor checked against the authorities of the configuration.
    refused = failure(Transport(backend.url, KEY, tls=tls, proxy="socks5h://127.0.0.1:1"))
    assert "a SOCKS proxy cannot be used" in refused.detail


def address(proxy: ConnectProxy, scheme: str = "http", who: str = "") -> str:
    return f"{scheme}://{who}localhost:{proxy.port}"


def to(peer: Peer, tls: BackendTls, proxy: str | None = None) -> Transport:
    return Transport(f"https://localhost:{peer.port}", KEY, tls=tls, proxy=proxy, read_timeout_s=10)


@pytest.mark.parametrize("by", ["configuration", "environment"])
def test_the_backend_is_reached_through_a_tunnel(
    proxy: ConnectProxy, backend: Peer, tls: BackendTls, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "environment":
        monkeypatch.setenv("HTTPS_PROXY", address(proxy))
    assert post(to(backend, tls, None if by == "environment" else address(proxy))).body == b"{}"
    assert (proxy.asked, proxy.carried) == ([f"localhost:{backend.port}"], 1)


def test_behind_a_proxy_the_certificate_is_still_the_backends(
    proxy: ConnectProxy, serve: Serve, authorities: Authorities, tls: BackendTls
) -> None:
    peer = serve(over_tls(speaking(authorities.foreign), answering(GOOD)))
    error = failure(to(peer, tls, address(proxy)))
    assert (type(error), proxy.carried, peer.requests) == (BackendUntrusted, 1, [])


def test_the_configuration_wins_over_the_environment(
    proxy: ConnectProxy, backend: Peer, tls: BackendTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    monkeypatch.setenv("HTTPS_PROXY", dead)
    assert "refused" in failure(to(backend, tls)).detail  # control: that is where it would go
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert post(to(backend, tls, address(proxy))).status == 200
    assert proxy.carried == 1
    monkeypatch.delenv("NO_PROXY")
    assert post(to(backend, tls, "")).status == 200
    assert proxy.carried == 1


def test_a_proxy_carries_plain_http_too(proxy: ConnectProxy, serve: Serve) -> None:
    forwarding = serve(answering(GOOD))
    transport = Transport("http://backend.invalid", KEY, proxy=forwarding.url)
    assert post(transport).body == b"{}"
    assert forwarding.requests[0].startswith(b"POST http://backend.invalid/api/x HTTP/1.1")


# -- its user and password ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["configuration", "environment"])
def test_user_and_password_are_said_to_the_proxy_alone(
    strict_proxy: ConnectProxy, backend: Peer, tls: BackendTls, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    whole = address(strict_proxy, who=f"agent:{ESCAPED}@")
    if by == "environment":
        monkeypatch.setenv("HTTPS_PROXY", whole)
    assert post(to(backend, tls, None if by == "environment" else whole)).status == 200
    assert (strict_proxy.carried, strict_proxy.refused) == (1, 0)
    assert b"proxy-authorization" not in backend.requests[0].lower()


@pytest.mark.parametrize("who", ["", f"agent:{ESCAPED}-no@"])
def test_a_proxy_that_refuses_them_is_told_without_them(
    strict_proxy: ConnectProxy, backend: Peer, tls: BackendTls, who: str
) -> None:
    error = failure(to(backend, tls, address(strict_proxy, who=who)))
    assert (type(error), strict_proxy.refused, backend.connections) == (BackendAway, 1, 0)
    assert error.detail.startswith(f"by the proxy localhost:{strict_proxy.port}: ")
    assert "407" in error.detail
    assert "hunter2" not in f"{error!r} {error} {error.__cause__!r} {error.__context__!r}"
    assert not error.may_have_arrived, "the backend has heard nothing"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "trouble", ["refused", "unknown host", "cut", "unescaped /", "unescaped ?", "unescaped #", "port", "another scheme"]
)
def test_whatever_is_wrong_with_a_proxy_its_password_is_not_told(
    serve: Serve, tls: BackendTls, monkeypatch: pytest.MonkeyPatch, trouble: str, scheme: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    cutting = serve(lambda peer, connection: None)
    proxy = {
        "refused": f"http://u:hunter2@127.0.0.1:{port}",
        "unknown host": f"http://u:hunter2@proxy.invalid:{port}",
        "cut": f"http://u:hunter2@127.0.0.1:{cutting.port}",
        "unescaped /": f"http://u:1/hunter2@127.0.0.1:{port}",
        "unescaped ?": f"http://u:1?hunter2@127.0.0.1:{port}",
        "unescaped #": f"http://u:1#hunter2@127.0.0.1:{port}",
        "port": "http://u:hunter2@127.0.0.1:99999",
        "another scheme": f"ftp://u:hunter2@127.0.0.1:{port}",
    }[trouble]
    for said in (proxy, None):
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        error = failure(Transport(f"{scheme}://backend.invalid:1", KEY, tls=tls, proxy=said, read_timeout_s=5))
        shown = f"{error!r} {error} {error.__cause__!r}"
        assert ("hunter2" in shown, "u:1" in shown) == (False, False), shown


# -- a proxy that speaks TLS -------------------------------------------------------------------------------------------


def test_a_proxy_may_speak_tls_itself(authorities: Authorities, backend: Peer, tls: BackendTls) -> None:
    with ConnectProxy("agent", SECRET, speaking(authorities.good)) as secure:
        transport = to(backend, tls, address(secure, "https", f"agent:{ESCAPED}@"))
        assert [transport.post("/", b"x" * 300_000).body for _ in range(2)] == [b"{}", b"{}"]
        transport.close()
        assert (secure.carried, backend.connections) == (1, 1)


def test_a_proxy_that_speaks_tls_carries_plain_http_too(
    serve: Serve, authorities: Authorities, tls: BackendTls
) -> None:
    forwarding = serve(over_tls(speaking(authorities.good), answering(GOOD)))
    proxy = f"https://localhost:{forwarding.port}"
    assert post(Transport("http://backend.invalid", KEY, tls=tls, proxy=proxy)).body == b"{}"
    assert forwarding.requests[0].startswith(b"POST http://backend.invalid/api/x HTTP/1.1")
    lying = serve(over_tls(speaking(authorities.foreign), answering(GOOD)))
    error = failure(Transport("http://backend.invalid", KEY, tls=tls, proxy=f"https://localhost:{lying.port}"))
    assert (type(error), lying.requests) == (BackendUntrusted, [])


def test_a_proxy_whose_certificate_is_not_trusted_is_told_as_such(
    authorities: Authorities, backend: Peer, tls: BackendTls
) -> None:
    with ConnectProxy(context=speaking(authorities.foreign)) as secure:
        error = failure(to(backend, tls, address(secure, "https")))
        assert (type(error), secure.asked, backend.connections) == (BackendUntrusted, [], 0)
        assert error.detail.startswith(f"by the proxy localhost:{secure.port}: no authority that is trusted here")


def test_a_proxy_with_tls_that_drips_is_left_too(serve: Serve, authorities: Authorities, tls: BackendTls) -> None:
    def drip(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        peer.drip(connection, b"HTTP", 0.01)

    peer = serve(over_tls(speaking(authorities.good), drip))
    proxy = f"https://localhost:{peer.port}"
    transport = Transport("https://backend.invalid", KEY, tls=tls, proxy=proxy, read_timeout_s=5, total_timeout_s=0.6)
    failure(transport)  # without an end of its own this would wait as long as it drips
    assert peer.requests[0].startswith(b"CONNECT backend.invalid:443")
