"""What the examination says of servers that are not quite what they seem: compatible ones, proxies, impostors.

What could go wrong: a variable that is not there, is NULL or no number ends the examination with a traceback, or hides
what can be told of the others; whoever asks for a version only leaves a connection behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.config.schema import DbConfig
from agent.finding import Finding
from agent.sources import SourceSettings
from agent.sources._mysql_session import Row, Session
from agent.sources.mysql_slow_log import SlowLogTable
from tests.fakes.clock import ManualClock
from tests.fakes.endless_mysql import HONEST

NOW = datetime.fromtimestamp(1_770_000_000, UTC)  # as the honest answer has it
VARIABLES: dict[str, bytes | None] = {
    "slow_query_log": b"ON",
    "log_output": b"TABLE",
    "long_query_time": b"0.5",
    "min_examined_row_limit": b"0",
    "log_throttle_queries_not_using_indexes": b"0",
    "log_queries_not_using_indexes": b"ON",
    "log_slow_admin_statements": b"ON",
    "log_slow_replica_statements": b"ON",
}


class Saying(Session):
    """A connection over which these answers come, by a part of the statement."""

    version, is_mariadb = "8.0.99-log", False

    def __init__(self, answers: dict[str, Sequence[Row]]) -> None:
        self._answers = {
            "SHOW GLOBAL VARIABLES": said(VARIABLES),
            "CURRENT_USER()": [(b"monitoring@%",)],
            "Ssl_version": [(b"Ssl_version", b"TLSv1.3")],
            **dict(HONEST),
            **answers,
        }
        self._is_open = True

    @property
    def is_open(self) -> bool:
        return self._is_open

    def drop(self) -> None:
        self._is_open = False

    def rows(self, sql: str) -> list[Row]:
        return list(next(rows for part, rows in self._answers.items() if part in sql))


def said(variables: dict[str, Any]) -> list[Row]:
    """As a server tells them; `...` stands for one that it does not have."""
    return [(name.encode(), value) for name, value in variables.items() if value is not ...]


def source(sessions: list[Saying], answers: dict[str, Sequence[Row]]) -> SlowLogTable:
    def connect(_: SourceSettings) -> Session:
        sessions.append(Saying(answers))
        return sessions[-1]

    settings = SourceSettings("default", DbConfig(host="db.example.com", user="u"), 3306)
    return SlowLogTable(settings, ManualClock(NOW), connect)


def examined(answers: dict[str, Sequence[Row]]) -> dict[str, Finding]:
    sessions = list[Saying]()
    found = {each.subject: each for each in source(sessions, answers).examine()}
    assert [each.is_open for each in sessions] == [False]
    return found


def codes(found: dict[str, Finding]) -> dict[str, str]:
    return {subject: each.code for subject, each in found.items() if each.verdict != "right"}


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({}, {}),
        ({"log_output": ...}, {"log_output": "DB-09"}),
        ({"log_output": None}, {"log_output": "DB-09"}),
        ({"slow_query_log": ...}, {"slow_query_log": "DB-09"}),
        ({"long_query_time": b"a while"}, {"long_query_time": "DB-09"}),
        ({"min_examined_row_limit": b"9" * 5_000}, {"min_examined_row_limit": "DB-09"}),
        ({"log_slow_rate_limit": b""}, {"log_slow_rate_limit": "DB-09"}),
        (
            {"log_throttle_queries_not_using_indexes": b"5", "log_queries_not_using_indexes": ...},
            {"log_throttle_queries_not_using_indexes": "DB-09"},
        ),
        ({"log_slow_rate_limit": b"7"}, {"log_slow_rate_limit": "MY-07"}),
    ],
)
def test_a_variable_that_is_missing_or_makes_no_sense_is_a_finding_and_the_others_are_told(
    odd: dict[str, Any], expected: dict[str, str]
) -> None:
    found = examined({"SHOW GLOBAL VARIABLES": said({**VARIABLES, **odd})})
    assert codes(found) == expected
    assert found["mysql.slow_log"].sentence.startswith("1 rows")


@pytest.mark.parametrize("rows", [[(None,)], [(b"x", b"\xff", b"y")], [(b"\xff", b"\xff")], [()]])
@pytest.mark.parametrize("at", ["SHOW GLOBAL VARIABLES", "CURRENT_USER()", "Ssl_version", "UNIX_TIMESTAMP", "COUNT(*)"])
def test_whatever_it_answers_the_examination_comes_to_an_end_and_says_so(at: str, rows: list[Row]) -> None:
    assert "DB-09" in codes(examined({at: rows})).values()


def test_the_version_is_asked_on_a_connection_that_is_closed_again() -> None:
    sessions = list[Saying]()
    asked = source(sessions, {})
    asked.check()
    assert asked.version() == "8.0.99-log"
    assert [each.is_open for each in sessions] == [True, False], "and the other one is left alone"
    asked.close()
