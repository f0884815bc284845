"""TLS to PostgreSQL in the words of libpq, which reads the files itself for each connection. Opens none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.certificates import FileUnusable, disagreement, of_this_system
from agent.config.tls import DatabaseTls
from agent.source_errors import DatabaseUntrusted

_NEWER_ONLY = "TLSv1.3"
_MINIMUM = "PGSSLMINPROTOCOLVERSION"
_UNTRUSTED = "certificate verify failed"
# What libpq and the server say of TLS; both know no codes for it.
_WORDS = (
    _UNTRUSTED,
    "does not match host name",
    "server does not support SSL",
    "root certificate file",
    "could not read certificate file",
    "private key file",
    "valid client certificate",
)


def parameters(tls: DatabaseTls, environ: Mapping[str, str]) -> dict[str, Any]:
    """What libpq has to be told. What is not said here is as the PGSSL* variables of `environ` say.

    Raises DatabaseUntrusted.
    """
    told: dict[str, Any] = {} if environ.get(_MINIMUM) == _NEWER_ONLY else {"ssl_min_protocol_version": "TLSv1.2"}
    if tls.wanted is not None:
        told["sslmode"] = tls.wanted
    if tls.wanted == "require":
        told["gssencmode"] = "disable"  # libpq would prefer it where there is a Kerberos ticket, and check nothing
    if tls.checks_chain:
        told["sslmode"] = "verify-full" if tls.checks_name else "verify-ca"
        told["sslrootcert"] = _authorities(tls)
    if tls.cert is not None:
        told |= {"sslcert": str(tls.cert), "sslkey": str(tls.key or tls.cert)}
    return told


def _authorities(tls: DatabaseTls) -> str:
    # Not libpq's own word `system`: the library in the driver's package looks where it was built, and finds nothing.
    try:
        return str(tls.ca or of_this_system())
    except FileUnusable as error:
        raise DatabaseUntrusted(f"db_config tls.{error}") from None


def mistrust(detail: str) -> DatabaseUntrusted | None:
    """What it was about TLS that libpq reports; None when it was something else."""
    _, has_failed, reason = detail.partition("SSL error: ")
    meaning = disagreement(reason) if has_failed else None
    if meaning is not None:
        return DatabaseUntrusted(f"{meaning}: {detail}")
    if _UNTRUSTED in detail:
        return DatabaseUntrusted(f"{detail} (its authority is not in ca, or it has expired)")
    return DatabaseUntrusted(detail) if any(word in detail for word in _WORDS) else None
