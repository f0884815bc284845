"""What the PostgreSQL driver reports becomes one of our errors.

What could go wrong: a lost connection ends a look as a set-up error, or a set-up error leads to endless reconnecting;
a message over several lines spoils the log; a name with a dead address is never reached at its other one.
"""

import socket

import psycopg2
import pytest

from agent.source_errors import (
    DatabaseAway,
    LoginRefused,
    SetupError,
    SourceError,
    StatementsNotCreated,
    StatementsNotGranted,
    StatementsNotLoaded,
    TextsUndecodable,
)
from agent.sources._postgres_session import addresses, explain


class Reported(psycopg2.OperationalError):
    """As the server reports it, with a code."""

    pgcode: str | None = None

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.pgcode = code


CASES: dict[type[SourceError], list[str]] = {
    DatabaseAway: ["08000", "08006", "57P01", "57P02", "57P03", "53300", "53200"],
    LoginRefused: ["28000", "28P01"],
    StatementsNotCreated: ["42P01", "42883"],
    StatementsNotLoaded: ["55000"],
    StatementsNotGranted: ["42501"],
    TextsUndecodable: ["22021", "22P05"],
    SetupError: ["57014", "42601", "55P03"],
}


@pytest.mark.parametrize(("expected", "code"), [(kind, code) for kind, codes in CASES.items() for code in codes])
def test_a_code_of_the_server_has_its_error(expected: type[SourceError], code: str) -> None:
    assert type(explain(Reported(code, "what it said"))) is expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('FATAL: password authentication failed for user "x"', LoginRefused),
        ('FATAL: database "x" does not exist', SetupError),
        ('FATAL: role "x" does not exist', LoginRefused),
        ("fe_sendauth: no password supplied", LoginRefused),
        ('FATAL: no pg_hba.conf entry for host "h"', LoginRefused),
        ("connection refused", DatabaseAway),
        ("server closed the connection unexpectedly", DatabaseAway),
        ("", DatabaseAway),
    ],
)
def test_an_error_without_code_is_told_by_its_words(message: str, expected: type[SourceError]) -> None:
    assert type(explain(Reported(None, message))) is expected


def test_a_message_becomes_one_line() -> None:
    assert explain(Reported("42601", "one\n  two\n")).detail == "one two (42601)"
    assert explain(Reported(None, "")).detail == "the connection was closed"


def test_bytes_that_are_no_text_are_a_refusal_not_an_outage() -> None:
    assert type(explain(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))) is SetupError


# -- where it looks ----------------------------------------------------------------------------------------------------


def test_each_address_of_a_name_is_tried_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [("::1", 5432, 0, 0), ("192.0.2.1", 5432)]
    found = [(None, None, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert addresses("db.example.com", 5432, {}) == [{"hostaddr": "::1"}, {"hostaddr": "192.0.2.1"}]


@pytest.mark.parametrize(
    ("host", "environ"),
    [("/run/postgresql", {}), ("@abstract", {}), ("one,two", {}), ("db", {"PGHOSTADDR": "192.0.2.1"})],
)
def test_what_is_no_name_or_is_said_elsewhere_is_left_to_libpq(host: str, environ: dict[str, str]) -> None:
    assert addresses(host, 5432, environ) == [{}]


@pytest.mark.parametrize("host", ["db.invalid", "x" * 300, "a..b"])
def test_a_name_that_nobody_knows_is_an_outage(host: str) -> None:
    with pytest.raises(DatabaseAway, match="cannot be resolved"):
        addresses(host, 5432, {})
