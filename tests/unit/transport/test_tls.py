"""HTTPS with real certificates.

What could go wrong: a server that nobody has vouched for is believed (an unknown authority, another name, an expired
certificate, what requests has put beside our authorities); TLS 1.1 is taken; the client certificate is not shown, or
not the renewed one; an error is OpenSSL's own text, has the code of an outage, shows a path, or makes a body that never
arrived a possible duplicate; `verify: false` floods standard error.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from agent.certificates import client_context
from agent.config.tls import BackendTls
from agent.dev.server_process import wait_until
from agent.errors import BackendAway, BackendUntrusted, BackendWithoutTls
from agent.transport import Transport
from tests.fakes.peer import GOOD, Peer, answering, over_tls
from tests.servers.authority import Authorities
from tests.unit.transport.conftest import KEY, Serve, failure, older, post, speaking


def https(peer: Peer, host: str = "localhost") -> str:
    return f"https://{host}:{peer.port}"


def to(peer: Peer, tls: BackendTls, host: str = "localhost") -> Transport:
    return Transport(https(peer, host), KEY, tls=tls, read_timeout_s=10)


def demanding(known: Authorities) -> ssl.SSLContext:
    """A server that wants a client certificate of `theirs`."""
    context = speaking(known.good)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(known.theirs.ca)
    return context


# -- whom it believes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_what_our_authority_has_signed_for_this_name_is_believed(
    serve: Serve, authorities: Authorities, host: str
) -> None:
    peer = serve(over_tls(speaking(authorities.good), answering(GOOD)))
    assert post(to(peer, BackendTls(ca=authorities.ours.ca), host)).body == b"{}"
    assert b"X-Collector-API-Key: " + KEY.encode() in peer.requests[0]


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ("foreign", "no authority that is trusted here has signed it"),
        ("of_another_name", "it is for other names (certificate is not valid for 'localhost')"),
        ("nameless", "it is for other names"),  # its subject says localhost
        ("expired", "it has expired, or this machine's clock is wrong"),
    ],
)
def test_a_certificate_that_is_not_to_be_trusted_is_told_as_such_and_nothing_is_sent(
    serve: Serve, authorities: Authorities, shown: str, told: str
) -> None:
    peer = serve(over_tls(speaking(getattr(authorities, shown)), answering(GOOD)))
    error = failure(to(peer, BackendTls(ca=authorities.ours.ca)))
    assert (type(error), error.code, error.may_have_arrived) == (BackendUntrusted, "BE-06", False)
    assert error.detail.startswith(told), error.detail
    assert "_ssl.c" not in str(error)
    assert (peer.connections, peer.requests) == (1, [])


@pytest.mark.parametrize("shown", ["foreign", "of_another_name", "nameless", "expired"])
def test_the_control_of_what_is_not_trusted_unasked_it_is_taken_and_nobody_is_warned_each_time(
    serve: Serve, authorities: Authorities, shown: str
) -> None:
    peer = serve(over_tls(speaking(getattr(authorities, shown)), answering(GOOD)))
    transport = to(peer, BackendTls(verify=False))
    assert [transport.post("/", b"{}").status for _ in range(2)] == [200, 200]  # warnings are errors in the tests
    transport.close()


def test_our_authorities_take_the_place_of_the_usual_ones_and_do_not_stand_beside_them(
    serve: Serve, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise whoever can get a certificate of any authority in the world could answer in the backend's place."""
    peer = serve(over_tls(speaking(authorities.good), answering(GOOD)))
    monkeypatch.setattr("agent.transport.DEFAULT_CA_BUNDLE_PATH", str(authorities.ours.ca))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(authorities.ours.ca))
    assert post(to(peer, BackendTls())).status == 200  # control: it is one of the usual ones now
    assert isinstance(failure(to(peer, BackendTls(ca=authorities.theirs.ca))), BackendUntrusted)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_names_the_authorities_unless_the_configuration_does(
    serve: Serve, authorities: Authorities, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    peer = serve(over_tls(speaking(authorities.good), answering(GOOD)))
    assert isinstance(failure(to(peer, BackendTls())), BackendUntrusted)
    monkeypatch.setenv(variable, str(authorities.ours.ca))
    assert post(to(peer, BackendTls())).status == 200
    assert isinstance(failure(to(peer, BackendTls(ca=authorities.theirs.ca))), BackendUntrusted)


def test_authorities_that_the_environment_names_and_nobody_can_read_are_told(
    serve: Serve, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    peer = serve(over_tls(speaking(authorities.good), answering(GOOD)))
    error = failure(to(peer, BackendTls()))
    assert (type(error), error.detail) == (
        BackendWithoutTls,
        "tls.ca: the file cannot be read (No such file or directory)",
    )


# -- how they speak ----------------------------------------------------------------------------------------------------


@pytest.fixture
def only_tls_1_1(authorities: Authorities) -> ssl.SSLContext:
    return older(speaking(authorities.good), at_most=ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("verify", [True, False])
def test_what_speaks_no_tls_1_2_is_refused(
    serve: Serve, authorities: Authorities, only_tls_1_1: ssl.SSLContext, verify: bool
) -> None:
    peer = serve(over_tls(only_tls_1_1, answering(GOOD)))
    error = failure(to(peer, BackendTls(ca=authorities.ours.ca, verify=verify)))
    assert (type(error), error.detail) == (BackendWithoutTls, "the other side speaks no TLS 1.2 or newer")
    assert wait_until(lambda: len(peer.failures) == 1, 10)
    assert peer.requests == []


def test_the_control_of_the_old_tls_whoever_allows_it_is_answered(
    serve: Serve, only_tls_1_1: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = serve(over_tls(only_tls_1_1, answering(GOOD)))
    ours = client_context(None, None, None, checks_chain=False, checks_name=False)
    monkeypatch.setattr("agent.transport.client_context", lambda *_, **__: older(ours))
    assert post(to(peer, BackendTls())).status == 200


def test_what_speaks_no_tls_at_all_is_told(serve: Serve, authorities: Authorities) -> None:
    def plain(_: Peer, connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    error = failure(to(serve(plain), BackendTls(ca=authorities.ours.ca)))
    assert (type(error), error.detail) == (BackendWithoutTls, "what answers there speaks no TLS")


def test_a_handshake_that_is_cut_off_is_an_outage(serve: Serve, authorities: Authorities) -> None:
    error = failure(to(serve(lambda peer, connection: None), BackendTls(ca=authorities.ours.ca)))
    assert type(error) is BackendAway


def test_a_handshake_without_an_end_is_left_in_time(serve: Serve, authorities: Authorities) -> None:
    peer = serve(lambda peer, _: (peer.closing.wait(60), None)[1])
    transport = Transport(https(peer), KEY, tls=BackendTls(ca=authorities.ours.ca), read_timeout_s=0.2)
    assert "timed out" in failure(transport).detail


# -- what it shows of itself -------------------------------------------------------------------------------------------


@pytest.fixture(params=["1.2", "1.3"])
def strict(request: pytest.FixtureRequest, authorities: Authorities) -> ssl.SSLContext:
    """Demands a client certificate, in both ways that TLS has for it."""
    context = demanding(authorities)
    if request.param == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def test_a_client_certificate_is_shown_where_it_is_demanded(
    serve: Serve, authorities: Authorities, strict: ssl.SSLContext, tmp_path: Path
) -> None:
    pair, ca = authorities.foreign, authorities.ours.ca
    peer = serve(over_tls(strict, answering(GOOD)))
    assert post(to(peer, BackendTls(ca=ca, cert=pair.cert, key=pair.key))).status == 200
    both = tmp_path / "both.pem"
    both.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    assert post(to(peer, BackendTls(ca=ca, cert=both))).status == 200
    assert peer.failures == []


def test_a_client_certificate_that_is_missing_is_told(
    serve: Serve, authorities: Authorities, strict: ssl.SSLContext
) -> None:
    peer = serve(over_tls(strict, answering(GOOD)))
    error = failure(to(peer, BackendTls(ca=authorities.ours.ca)))
    assert (type(error), "demands a client certificate" in error.detail) == (BackendWithoutTls, True), error
    assert wait_until(lambda: len(peer.failures) == 1, 10)
    assert (error.may_have_arrived, peer.requests) == (False, [])


@pytest.mark.parametrize("size", [2, 3_000_000])
def test_a_client_certificate_that_is_not_taken_is_told(
    serve: Serve, authorities: Authorities, strict: ssl.SSLContext, size: int
) -> None:
    """With TLS 1.3 that is said only when the request is on its way; a large one is cut off by it."""
    peer = serve(over_tls(strict, answering(GOOD)))
    pair = authorities.good
    transport = to(peer, BackendTls(ca=authorities.ours.ca, cert=pair.cert, key=pair.key))
    with pytest.raises(BackendWithoutTls) as caught:
        transport.post("/", b"x" * size)
    transport.close()
    assert caught.value.detail == "the other side does not know the authority of the client certificate"
    assert wait_until(lambda: len(peer.failures) == 1, 10)
    assert (caught.value.may_have_arrived, peer.requests) == (False, [])


def test_a_certificate_that_was_renewed_on_the_disk_is_shown_by_the_next_connection(
    serve: Serve, authorities: Authorities
) -> None:
    seen: list[str] = []

    def look(peer: Peer, connection: socket.socket) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        seen.append(str((connection.getpeercert() or {})["serialNumber"]))
        answering(GOOD)(peer, connection)

    peer = serve(over_tls(demanding(authorities), look))
    pair = authorities.theirs.issue("renewed")
    transport = to(peer, BackendTls(ca=authorities.ours.ca, cert=pair.cert, key=pair.key))
    transport.post("/", b"{}")
    assert authorities.theirs.issue("renewed") == pair
    transport.post("/", b"{}")  # on the connection that is there
    transport.close()
    transport.post("/", b"{}")
    transport.close()
    assert (len(seen), len(set(seen))) == (2, 2)


def test_a_half_renewed_certificate_is_told_and_the_next_try_is_well_again(
    serve: Serve, authorities: Authorities, tmp_path: Path
) -> None:
    """Cert and key are two files: between two writes of whoever renews them they do not belong together."""
    peer = serve(over_tls(demanding(authorities), answering(GOOD)))
    old, new = authorities.theirs.issue("old"), authorities.theirs.issue("new")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(new.cert.read_bytes())
    key.write_bytes(old.key.read_bytes())
    transport = to(peer, BackendTls(ca=authorities.ours.ca, cert=cert, key=key))
    error = failure(transport)
    assert (type(error), error.detail) == (BackendWithoutTls, "tls.key: the key belongs to another certificate")
    key.unlink()
    assert "tls.key: the file cannot be read" in failure(transport).detail
    key.write_bytes(new.key.read_bytes())
    assert post(transport).status == 200


def test_an_authority_that_was_exchanged_on_the_disk_holds_for_the_next_connection(
    serve: Serve, authorities: Authorities, tmp_path: Path
) -> None:
    peer = serve(over_tls(speaking(authorities.good), answering(GOOD)))
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authorities.theirs.ca.read_bytes())
    transport = to(peer, BackendTls(ca=ca))
    assert isinstance(failure(transport), BackendUntrusted)
    ca.write_bytes(authorities.theirs.ca.read_bytes() + authorities.ours.ca.read_bytes())
    assert post(transport).status == 200
