"""Certificates in files: read for one connection, and what it means when they do not do. Opens no connection itself.

Whoever connects makes a context for each connection: so a certificate that was renewed on the disk is used by the next.
"""

from __future__ import annotations

import ssl
from pathlib import Path

_CERTIFICATE, _KEY, _ENCRYPTED = b"CERTIFICATE-----", b"PRIVATE KEY-----", b"ENCRYPTED"

# What OpenSSL says, in words of its own that both drivers pass on, and what it means to a person. The first that fits.
_DISAGREEMENTS = (
    ("CERTIFICATE_REQUIRED", "the other side demands a client certificate"),
    ("ALERT_UNKNOWN_CA", "the other side does not know the authority of the client certificate"),
    ("ALERT_BAD_CERTIFICATE", "the other side does not take the client certificate"),
    ("ALERT_CERTIFICATE_EXPIRED", "the client certificate has expired"),
    ("ALERT_CERTIFICATE_REVOKED", "the client certificate was revoked"),
    ("ALERT_CERTIFICATE_UNKNOWN", "the other side does not take the client certificate"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "the other side does not take the client certificate"),
    ("ALERT_ACCESS_DENIED", "the other side does not take the client certificate"),
    ("PROTOCOL_VERSION", "the other side speaks no TLS 1.2 or newer"),
    ("UNSUPPORTED_PROTOCOL", "the other side speaks no TLS 1.2 or newer"),
    ("HANDSHAKE_FAILURE", "the other side demands a client certificate, or shares no cipher"),
    ("INSUFFICIENT_SECURITY", "the other side shares no cipher"),
    ("UNRECOGNIZED_NAME", "the other side does not know itself by this name"),
    ("WRONG_VERSION_NUMBER", "what answers there speaks no TLS"),
    ("RECORD_LAYER_FAILURE", "what answers there speaks no TLS"),
    ("KEY_TOO_SMALL", "the other side's key is too short to be safe"),
    ("MD_TOO_WEAK", "the other side's certificate is signed in a way that is not safe"),
)
_WRONG_NAME = frozenset({62, 63, 64})
_NOT_YET, _EXPIRED = 9, 10


class FileUnusable(Exception):
    """A file that TLS needs. `key`: how it is called in a section `tls`; the reason never shows a path or what it
    holds, since a person may have put the secret itself in its place."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason


def client_context(
    ca: Path | None, cert: Path | None, key: Path | None, *, checks_chain: bool, checks_name: bool
) -> ssl.SSLContext:
    """What a client needs to begin TLS 1.2 or newer, with the files as they are now. Raises FileUnusable.

    `ca`: a bundle or a directory of the authorities that are trusted; None: those of this system. `cert`, `key`: its
    own certificate; the key may stand in the file of the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = checks_name and checks_chain
    if checks_chain:
        _trust(context, ca or of_this_system())
    else:  # without the authorities: nothing is compared with them, and they take 1.5 MB
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        _present(context, cert, key)
    return context


def of_this_system() -> Path:
    """The bundle of the authorities that this system trusts. Raises FileUnusable when it has none."""
    found = ssl.get_default_verify_paths().cafile
    if found is None:
        raise FileUnusable("ca", "is not given, and this system has no file of authorities")
    return Path(found)


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    if ca.is_dir():
        context.load_verify_locations(capath=ca)
        return
    _held(ca, "ca", _CERTIFICATE, "holds no certificate")
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError):
        raise FileUnusable("ca", "the file holds a certificate that cannot be read") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what stands in it is trusted, an intermediate one too


def _present(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    _held(cert, "cert", _CERTIFICATE, "holds no certificate")
    name = "cert" if key is None else "key"
    held = _held(key or cert, name, _KEY, "holds no private key")
    if _ENCRYPTED in held:
        raise FileUnusable(name, "the key in the file is encrypted, and there is nobody to ask for its password")
    try:
        # Without a password OpenSSL would ask at the terminal for that of a key in some other way encrypted.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        differs = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
        raise FileUnusable(name, "the key belongs to another certificate" if differs else "cannot be used") from None


def _held(path: Path, key: str, mark: bytes, lack: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileUnusable(key, f"the file cannot be read ({error.strerror})") from None
    if mark not in content:
        raise FileUnusable(key, f"the file {lack} (it should be PEM)")
    return content


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """Why a certificate that was shown is not trusted, in words."""
    if error.verify_code in _WRONG_NAME:  # "Hostname mismatch, certificate is not valid for 'db.example.com'."
        return f"it is for other names ({error.verify_message.partition(', ')[2].rstrip('.')})"
    if error.verify_code == _EXPIRED:
        return "it has expired, or this machine's clock is wrong"
    if error.verify_code == _NOT_YET:
        return "it is not valid yet, or this machine's clock is wrong"
    return f"no authority that is trusted here has signed it ({error.verify_message})"


def disagreement(reason: str) -> str | None:
    """What it means that no TLS came about, from OpenSSL's reason; None when it is an accident that may pass."""
    told = reason.upper().replace(" ", "_")
    return next((meaning for mark, meaning in _DISAGREEMENTS if mark in told), None)
