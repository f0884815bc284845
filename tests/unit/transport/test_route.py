"""Which way a connection takes.

What could go wrong: an address that others can read along passes for a safe one, or the agent warns of its own host;
a backend at an address of IPv6 is not reached; an address that a name has no longer is used for ever; what is shown of
a proxy holds a part of its password.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from agent.config.tls import BackendTls
from agent.transport import Transport, is_plain
from agent.transport.route import shown
from tests.fakes.peer import GOOD, Peer, answering, over_tls
from tests.servers.authority import Authorities
from tests.unit.transport.conftest import KEY, post, speaking


@pytest.mark.parametrize(
    "url",
    [
        "http://backend.example.com",
        "HTTP://10.0.0.1:8000",
        "http://backend:8000",
        "http://[2001:db8::1]",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://0x7f.1",
        "http://0.0.0.0",
    ],
)
def test_http_to_somewhere_else_is_plain(url: str) -> None:
    assert is_plain(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://backend.example.com",
        "HTTPS://10.0.0.1",
        "http://localhost:8000",
        "http://LOCALHOST.",
        "http://dbpower.localhost",
        "http://127.0.0.1:8000",
        "http://127.9.9.9",
        "http://[::1]:8000",
        "http://[::ffff:127.0.0.1]",
    ],
)
def test_https_and_this_host_are_not(url: str) -> None:
    assert not is_plain(url)


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("http://user:secret@proxy.example.com:3128", "proxy.example.com:3128"),
        ("http://proxy.example.com", "proxy.example.com"),
        ("user:secret@proxy.example.com:3128/", "proxy.example.com:3128"),
        ("http://user:sec@ret@proxy:1", "proxy:1"),
        ("http://[2001:db8::1]:3128", "[2001:db8::1]:3128"),
        ("http://user:1/secret@proxy:1", None),
        ("http://user:secret/x@proxy:1", None),
        ("http://user:1?secret@proxy:1", None),
        ("http://user:1#secret@proxy:1", None),
        ("http://[secret", None),
        ("http://", None),
    ],
)
def test_of_a_proxy_only_host_and_port_are_shown(proxy: str, expected: str | None) -> None:
    assert shown("https://backend.example.com", {"https": proxy}) == expected


def test_without_a_proxy_none_is_shown() -> None:
    assert shown("https://backend.example.com", {"http": "http://proxy:1"}) is None


# -- IPv6 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_ipv6(authorities: Authorities) -> Iterator[tuple[Peer, Peer]]:
    """The same twice at ::1, without and with TLS."""
    try:
        plain = Peer(answering(GOOD), "::1")
    except OSError as missing:
        pytest.skip(f"this machine has no IPv6: {missing}")
    secure = Peer(over_tls(speaking(authorities.good), answering(GOOD)), "::1")
    yield plain, secure
    plain.close()
    secure.close()


def test_a_backend_at_an_address_of_ipv6_is_reached(at_ipv6: tuple[Peer, Peer], authorities: Authorities) -> None:
    plain, secure = at_ipv6
    assert post(Transport(f"http://[::1]:{plain.port}", KEY)).body == b"{}"
    assert f"Host: [::1]:{plain.port}".encode() in plain.requests[0]
    tls = BackendTls(ca=authorities.ours.ca)
    assert post(Transport(f"https://[::1]:{secure.port}", KEY, tls=tls)).body == b"{}"


# -- names that change -------------------------------------------------------------------------------------------------


class Names:
    """What the names of this process stand for now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: dict[str, list[str]] = {}
        self.asked = 0
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, *rest: object, **named: object) -> list[object]:
        if host not in self.now:
            return self._real(host, *rest, **named)  # type: ignore[arg-type,return-value]
        self.asked += 1
        return [each for address in self.now[host] for each in self._real(address, *rest, **named)]  # type: ignore[arg-type]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def moved() -> Iterator[tuple[Peer, Peer]]:
    """Two on one port, at 127.0.0.1 and 127.0.0.2."""
    first = Peer(answering(GOOD))
    second = Peer(answering(GOOD), "127.0.0.2", first.port)
    yield first, second
    first.close()
    second.close()


def test_a_new_connection_asks_anew_where_the_backend_is(moved: tuple[Peer, Peer], names: Names) -> None:
    first, second = moved
    names.now["backend.test"] = ["127.0.0.1"]
    transport = Transport(f"http://backend.test:{first.port}", KEY)
    transport.post("/", b"{}")
    names.now["backend.test"] = ["127.0.0.2"]
    transport.post("/", b"{}")  # what is open and answers is kept
    assert (first.connections, second.connections, names.asked) == (1, 0, 1)
    first.close()
    assert post(transport).status == 200  # the kept one has died
    assert (second.connections, names.asked) == (1, 2)


def test_each_address_of_a_name_is_tried(moved: tuple[Peer, Peer], names: Names) -> None:
    first, second = moved
    names.now["backend.test"] = ["127.0.0.3", "127.0.0.2"]  # nobody listens at the first
    assert post(Transport(f"http://backend.test:{first.port}", KEY)).status == 200
    assert second.connections == 1
