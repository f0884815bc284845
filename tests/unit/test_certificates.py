"""Certificates in files, real ones.

What could go wrong: a file that does not do is found out by a handshake, weeks later; the complaint shows a path or
what stands in it, which may be the key itself; OpenSSL asks at the terminal for a password, and a service waits for
ever; what OpenSSL reports is passed on in its own words, or an accident of the network is called a lasting fault.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from agent.certificates import FileUnusable, client_context, disagreement, of_this_system
from tests.servers.authority import Authorities, openssl


def unusable(ca: Path | None, cert: Path | None = None, key: Path | None = None) -> tuple[str, str]:
    with pytest.raises(FileUnusable) as caught:
        client_context(ca, cert, key, checks_chain=ca is not None, checks_name=True)
    for path in (ca, cert, key):
        assert path is None or str(path) not in str(caught.value)
    return caught.value.key, caught.value.reason


def test_what_is_checked_is_what_was_asked_for(authorities: Authorities) -> None:
    ca = authorities.ours.ca
    seen = []
    for checks_chain, checks_name in ((True, True), (True, False), (False, True), (False, False)):
        context = client_context(ca, None, None, checks_chain=checks_chain, checks_name=checks_name)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        seen.append((context.verify_mode == ssl.CERT_REQUIRED, context.check_hostname, len(context.get_ca_certs())))
    assert seen == [(True, True, 1), (True, False, 1), (False, False, 0), (False, False, 0)]


def test_without_authorities_of_its_own_those_of_the_system_are_trusted(
    authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities.ours.ca))
    assert of_this_system() == authorities.ours.ca
    context = client_context(None, None, None, checks_chain=True, checks_name=True)
    assert [each["subject"] for each in context.get_ca_certs()] == [((("commonName", "authority ours"),),)]


def test_a_system_without_authorities_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        cafile = None

    monkeypatch.setattr(ssl, "get_default_verify_paths", Nowhere)
    with pytest.raises(FileUnusable, match="ca: is not given, and this system has no file of authorities"):
        client_context(None, None, None, checks_chain=True, checks_name=True)


def test_a_directory_of_authorities_will_do(authorities: Authorities, tmp_path: Path) -> None:
    client_context(tmp_path, None, None, checks_chain=True, checks_name=True)


@pytest.mark.parametrize("content", [None, b"", b"hunter2", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_that_holds_no_certificate_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_bytes(content)
    assert unusable(path)[0] == "ca"
    assert unusable(None, path)[0] == "cert"
    assert "hunter2" not in unusable(path)[1]


def test_a_file_that_nobody_may_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    assert unusable(tmp_path / "x") == ("ca", "the file cannot be read (Permission denied)")


def test_a_key_that_does_not_do_is_told(authorities: Authorities, tmp_path: Path) -> None:
    good, other = authorities.good, authorities.foreign
    assert unusable(None, good.cert, other.key) == ("key", "the key belongs to another certificate")
    assert unusable(None, good.cert) == ("cert", "the file holds no private key (it should be PEM)")
    assert unusable(None, good.cert, other.cert) == ("key", "the file holds no private key (it should be PEM)")
    assert unusable(None, good.key, good.key)[0] == "cert"
    assert unusable(None, good.cert, tmp_path / "none")[0] == "key"


@pytest.mark.parametrize("kind", ["of today", "of old"])
def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_password(
    authorities: Authorities, tmp_path: Path, kind: str
) -> None:
    pair = authorities.ours.issue("encrypted", passphrase="hunter2")
    key = pair.key
    if kind == "of old":
        key = tmp_path / "old.key"
        words = ("-in", pair.key, "-passin", "pass:hunter2", "-aes128", "-passout", "pass:hunter2", "-out", key)
        openssl("ec", *words)
    assert b"ENCRYPTED" in key.read_bytes()
    assert "encrypted, and there is nobody to ask" in unusable(None, pair.cert, key)[1]


# In the words of OpenSSL 3.0 and of later ones; Python and libpq write them differently.
@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "demands a client certificate"),
        ("tlsv13 alert certificate required", "demands a client certificate"),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not know the authority of the client certificate"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "does not take the client certificate"),
        ("ssl/tls alert certificate expired", "the client certificate has expired"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no TLS 1.2"),
        ("unsupported protocol", "no TLS 1.2"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "or shares no cipher"),
        ("ssl/tls alert handshake failure", "or shares no cipher"),
        ("WRONG_VERSION_NUMBER", "speaks no TLS"),
        ("record layer failure", "speaks no TLS"),
        ("EE_KEY_TOO_SMALL", "too short"),
        ("ca md too weak", "not safe"),
    ],
)
def test_what_openssl_reports_has_a_meaning(reason: str, meaning: str) -> None:
    assert meaning in (disagreement(reason) or "")


@pytest.mark.parametrize(
    "reason", ["", "UNEXPECTED_EOF_WHILE_READING", "decryption failed or bad record mac", "CERTIFICATE_VERIFY_FAILED"]
)
def test_what_may_pass_by_itself_has_none(reason: str) -> None:
    assert disagreement(reason) is None
