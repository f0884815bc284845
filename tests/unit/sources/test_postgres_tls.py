"""TLS to PostgreSQL, in libpq's words; against real servers: tests/integration/test_database_tls.py.

What could go wrong: a setting of the environment that was there before (PGSSLMODE=verify-full) is weakened without a
word; libpq takes another way than TLS and checks nothing; what it reports about a certificate passes for a wrong
password or for an outage.
"""

from __future__ import annotations

from typing import Any

import pytest

from agent.config.tls import DatabaseTls
from agent.source_errors import DatabaseUntrusted
from agent.sources._postgres_tls import mistrust, parameters

LEAST = {"ssl_min_protocol_version": "TLSv1.2"}
STRICT = {**LEAST, "gssencmode": "disable"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, LEAST),  # PGSSLMODE says the rest
        ({"verify": False}, LEAST),
        ({"cert": "/c", "key": "/k"}, {**LEAST, "sslcert": "/c", "sslkey": "/k"}),
        ({"cert": "/c"}, {**LEAST, "sslcert": "/c", "sslkey": "/c"}),
        ({"mode": "disable"}, {**LEAST, "sslmode": "disable"}),
        ({"mode": "prefer"}, {**LEAST, "sslmode": "prefer"}),
        ({"mode": "require"}, {**STRICT, "sslmode": "require"}),
        ({"mode": "require", "ca": "/a", "verify": False}, {**STRICT, "sslmode": "require"}),
        ({"ca": "/a"}, {**STRICT, "sslmode": "verify-full", "sslrootcert": "/a"}),
        ({"ca": "/a", "verify": "ca"}, {**STRICT, "sslmode": "verify-ca", "sslrootcert": "/a"}),
    ],
)
def test_the_section_becomes_what_libpq_knows(keys: dict[str, Any], expected: dict[str, str]) -> None:
    assert parameters(DatabaseTls.model_validate(keys), {}) == expected


def test_without_authorities_of_its_own_those_of_the_system_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "system.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    told = parameters(DatabaseTls(verify=True), {})
    assert (told["sslmode"], told["sslrootcert"]) == ("verify-full", str(tmp_path / "system.pem"))


@pytest.mark.parametrize(("said", "told"), [("TLSv1.3", False), ("TLSv1.2", True), ("TLSv1", True), (None, True)])
def test_the_environment_may_ask_for_more_than_tls_1_2_and_not_for_less(said: str | None, told: bool) -> None:
    environ = {} if said is None else {"PGSSLMINPROTOCOLVERSION": said}
    assert ("ssl_min_protocol_version" in parameters(DatabaseTls(), environ)) == told


TO = 'connection to server at "localhost" (127.0.0.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"{TO}SSL error: certificate verify failed", "or it has expired)"),
        (
            f'{TO}server certificate for "other.example" does not match host name "localhost"',
            "does not match host name",
        ),
        (f"{TO}server does not support SSL, but SSL was required", "server does not support SSL"),
        (f"{TO}SSL error: tlsv1 alert protocol version", "speaks no TLS 1.2"),
        (f"{TO}SSL error: unsupported protocol", "speaks no TLS 1.2"),
        (f"{TO}SSL error: tlsv13 alert certificate required", "demands a client certificate"),
        (f"{TO}SSL error: tlsv1 alert unknown ca", "does not know the authority of the client certificate"),
        (f"{TO}FATAL: connection requires a valid client certificate", "requires a valid client certificate"),
        (f'{TO}root certificate file "/srv/agent/root.crt" does not exist', "root certificate file"),
        (f'{TO}could not read root certificate file "/x": no certificate or crl found', "root certificate file"),
        (f'{TO}private key file "/x" has group or world access; permissions should be', "group or world access"),
    ],
)
def test_what_libpq_reports_of_tls_is_told_as_such(said: str, told: str) -> None:
    error = mistrust(said)
    assert isinstance(error, DatabaseUntrusted)
    assert told in error.detail


@pytest.mark.parametrize(
    "said",
    [
        f"{TO}Connection refused",
        f"{TO}SSL SYSCALL error: EOF detected",
        f"{TO}SSL error: unexpected eof while reading",
        f'{TO}FATAL: password authentication failed for user "x"',
        f'{TO}FATAL: no pg_hba.conf entry for host "127.0.0.1", user "x", database "y", no encryption',
        "",
    ],
)
def test_what_is_something_else_is_left_to_others(said: str) -> None:
    assert mistrust(said) is None
