"""What could go wrong: a socket without a limit hangs a thread for ever (silence, a drip in the headers or the body, a
peer that does not read), a cut answer passes as a whole one, an endless answer fills the memory, a redirect carries
the key elsewhere, a password from ~/.netrc is sent, the proxy of the environment is passed by, a secret is told.
"""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from agent.errors import BackendAway
from agent.transport import MAX_ANSWER_BYTES, Answer, Transport
from tests.fakes.peer import GOOD, Peer, Script, answering

KEY = "collector_7_very-secret"


def post(url: str, *, read_s: float = 10, total_s: float = 20, body: bytes = b"{}") -> Answer:
    transport = Transport(url, KEY, read_timeout_s=read_s, total_timeout_s=total_s)
    try:
        return transport.post("/api/x", body)
    finally:
        transport.close()


def away(url: str, **options: float) -> str:
    with pytest.raises(BackendAway) as error:
        post(url, **options)  # type: ignore[arg-type]
    assert KEY not in str(error.value)
    return error.value.detail


# -- what goes out and comes back --------------------------------------------------------------------------------------


def test_an_answer_comes_back_whole_with_small_header_names(serve: Callable[[Script], Peer]) -> None:
    peer = serve(answering(b"HTTP/1.1 201 Created\r\nX-Thing: A\r\nContent-Length: 5\r\n\r\nhello"))
    found = post(f"{peer.url}", body=b'{"a": 1}')
    assert (found.status, found.headers["x-thing"], found.body) == (201, "A", b"hello")
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    lines = {line.split(b":")[0].lower(): line.partition(b": ")[2] for line in head.split(b"\r\n")[1:]}
    assert (head.split(b"\r\n")[0], body) == (b"POST /api/x HTTP/1.1", b'{"a": 1}')
    assert (lines[b"x-collector-api-key"], lines[b"content-type"]) == (KEY.encode(), b"application/json")
    assert (lines[b"accept-encoding"], lines[b"user-agent"][:14]) == (b"identity", b"dbpower-agent/")


def test_the_connection_is_kept_and_a_closed_one_opened_anew(serve: Callable[[Script], Peer]) -> None:
    peer = serve(answering(GOOD))
    transport = Transport(peer.url, KEY)
    for _ in range(3):
        transport.post("/", b"{}")
    assert peer.connections == 1
    transport.close()
    assert transport.post("/", b"{}").status == 200
    assert peer.connections == 2
    transport.close()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Wed, 01 May 2024 12:00:00 GMT", 1_714_564_800.0),
        ("Wed, 01 May 2024 12:00:00 -0000", 1_714_564_800.0),
        ("yesterday", None),
        ("", None),
        ("Wed, 01 May 99999 12:00:00 GMT", None),
        (None, None),
    ],
)
def test_the_backends_clock_is_read_or_unknown(header: str | None, expected: float | None) -> None:
    assert Answer(200, {} if header is None else {"date": header}, b"").unix_time == expected


# -- what is no answer -------------------------------------------------------------------------------------------------


def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "refused" in away(f"http://127.0.0.1:{port}")


def test_silence_ends_with_the_read_timeout(serve: Callable[[Script], Peer]) -> None:
    def silent(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        peer.closing.wait(60)

    peer = serve(silent)
    assert "timed out" in away(peer.url, read_s=0.2)
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "kept", sorted({*range(0, len(GOOD), 9), GOOD.index(b"Content-L"), len(GOOD) - 4, len(GOOD) - 2})
)
def test_an_answer_cut_anywhere_is_none(serve: Callable[[Script], Peer], kept: int) -> None:
    def cut(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(GOOD[:kept])

    peer = serve(cut)
    away(peer.url, read_s=5)
    assert len(peer.requests) == 1


def test_an_answer_cut_inside_its_chunks_is_none(serve: Callable[[Script], Peer]) -> None:
    def cut(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n5\r\nab")

    away(serve(cut).url)


def test_a_reset_connection_is_none(serve: Callable[[Script], Peer]) -> None:
    def reset(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    away(serve(reset).url)


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\x15\x03\x01", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\r\n" * 9]
)
def test_what_is_no_http_is_no_answer(serve: Callable[[Script], Peer], garbage: bytes) -> None:
    def babble(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(garbage)

    away(serve(babble).url)


@pytest.mark.parametrize("announced", [True, False])
def test_an_answer_of_20_mb_is_not_taken_into_memory(serve: Callable[[Script], Peer], announced: bool) -> None:
    size = 20_000_000
    length = b"Content-Length: 20000000\r\n" if announced else b""

    def flood(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + b"x" * size)

    assert size > MAX_ANSWER_BYTES
    assert "larger" in away(serve(flood).url)


def test_a_body_that_unfolds_without_end_is_not_taken_into_memory(serve: Callable[[Script], Peer]) -> None:
    bomb = gzip.compress(b"\0" * 40_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    assert "larger" in away(serve(answering(head + bomb)).url)


# -- the time for all of it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["status line", "headers", "body", "body without length", "chunk size"],
)
def test_a_peer_that_drips_is_left_when_the_total_is_over(serve: Callable[[Script], Peer], start: bytes) -> None:
    def drip(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(start)
        data = b"HTTP/1.1 200 OK" if not start else b"1" if start.endswith(b"chunked\r\n\r\n") else b""
        peer.drip(connection, data + b"1" * 10_000, 0.01)

    peer = serve(drip)
    assert away(peer.url, read_s=5, total_s=0.4)
    assert len(peer.requests) == 1


def test_control_the_same_drip_outlives_the_read_timeout_alone(serve: Callable[[Script], Peer]) -> None:
    def drip(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        for byte in GOOD:
            connection.sendall(bytes([byte]))
            peer.closing.wait(0.01)

    assert post(serve(drip).url, read_s=0.5, total_s=60).body == b"{}"


def test_a_peer_that_does_not_read_is_left_when_the_time_is_over(serve: Callable[[Script], Peer]) -> None:
    peer = serve(lambda peer, _: (peer.closing.wait(60), None)[1])
    transport = Transport(peer.url, KEY, read_timeout_s=0.3, total_timeout_s=20)
    with pytest.raises(BackendAway):
        transport.post("/", b"x" * 32_000_000)
    transport.close()


# -- where it goes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(serve: Callable[[Script], Peer], status: int) -> None:
    elsewhere = serve(answering(GOOD))
    moved = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}/x\r\nContent-Length: 0\r\n\r\n"
    assert post(serve(answering(moved.encode())).url).status == status
    assert elsewhere.requests == []


@pytest.mark.parametrize("location", ["http://[", "\xff\xfe", "ftp://x", "http://" + "x" * 5_000])
def test_a_redirect_to_nonsense_is_an_answer_too(serve: Callable[[Script], Peer], location: str) -> None:
    moved = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    assert post(serve(answering(moved)).url).status == 302


def test_a_redirect_with_an_endless_body_is_bounded(serve: Callable[[Script], Peer]) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000
    assert "larger" in away(serve(answering(moved)).url)


def test_a_password_in_netrc_is_not_sent(
    serve: Callable[[Script], Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    peer = serve(answering(GOOD))
    requests.post(peer.url, timeout=10)
    assert b"authorization" in peer.requests[0].lower()  # control: requests alone would send it
    post(peer.url)
    assert b"authorization" not in peer.requests[1].lower()


def test_the_proxy_of_the_environment_is_used(serve: Callable[[Script], Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(answering(GOOD))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert post("http://backend.invalid").body == b"{}"
    assert proxy.requests[0].startswith(b"POST http://backend.invalid/api/x HTTP/1.1")


def test_a_dripping_proxy_is_left_too(serve: Callable[[Script], Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        peer.drip(connection, b"HTTP", 0.01)

    proxy = serve(drip)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        away(f"{scheme}://backend.invalid", read_s=5, total_s=0.4)
    assert [request.split()[0] for request in proxy.requests] == [b"POST", b"CONNECT"]


def test_a_host_that_the_environment_excludes_is_reached_directly(
    serve: Callable[[Script], Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, peer = serve(answering(GOOD)), serve(answering(GOOD))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    post(peer.url)
    assert (len(proxy.requests), len(peer.requests)) == (0, 1)


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_an_interim_answer_is_not_the_answer(serve: Callable[[Script], Peer], status: str) -> None:
    interim = f"HTTP/1.1 {status}\r\nLink: </style.css>\r\n\r\n".encode()
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    peer = serve(answering(interim + interim + final))
    answer = post(peer.url)
    assert (answer.status, answer.body) == (200, b"{}")


@pytest.mark.parametrize("proxy", ["http://user:hunter2@127.0.0.1:99999", "http://user:hun/ter2@127.0.0.1:1"])
def test_the_password_of_a_malformed_proxy_is_not_told(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    told = away("http://backend.invalid:1")
    assert "hun" not in told
