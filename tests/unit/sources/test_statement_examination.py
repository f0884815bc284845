"""What the examination says of servers that are not quite a PostgreSQL: compatible ones, proxies, impostors.

What could go wrong: a setting that is not there, is NULL or no number ends the examination with a traceback, or hides
what can be told of the others.
"""

from __future__ import annotations

from typing import Any

import pytest

from agent.config.schema import DbConfig
from agent.finding import Finding
from agent.sources import SourceSettings
from agent.sources._postgres_session import Session
from agent.sources.pg_stat_statements import StatementStatistics
from tests.fakes.clock import ManualClock

SETTINGS = {"pg_stat_statements.max": "5000", "pg_stat_statements.track": "top", "compute_query_id": "auto"}
HONEST: dict[str, list[Any]] = {
    "server_version": [("15.9", "monitoring", "shop")],
    "pg_stat_ssl": [("TLSv1.3",)],
    "clock_timestamp": [(ManualClock().unix(),)],
    "FROM pg_settings": list(SETTINGS.items()),
    "pg_available_extensions": [("1.10", "1.10", True)],
    "FROM pg_extension": [("public", True, True, True)],
    "to_regclass": [(True,)],
    "count(*) FILTER": [(7, 3)],
    "count(*)": [(7,)],
    "dealloc": [(0, "2024-05-01")],
    "count(query)": [(7,)],
}


class Saying(Session):
    """A connection over which these answers come, by a part of the statement."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self._answers = {**HONEST, **answers}
        self.is_dropped = False

    def drop(self) -> None:
        self.is_dropped = True

    def columns(self, sql: str) -> list[str]:
        return ["toplevel", "total_exec_time", "max_exec_time"]

    def rows(self, sql: str, values: Any = (), *, types: Any = None, **_: Any) -> list[Any]:
        return next(rows for part, rows in self._answers.items() if part in sql)


def examined(answers: dict[str, list[Any]]) -> dict[str, Finding]:
    session = Saying(answers)
    settings = SourceSettings("default", DbConfig(host="db.example.com", user="u"), 5432)
    found = {each.subject: each for each in StatementStatistics(settings, ManualClock(), lambda *_: session).examine()}
    assert session.is_dropped
    return found


def codes(found: dict[str, Finding]) -> dict[str, str]:
    return {subject: each.code for subject, each in found.items() if each.verdict != "right"}


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({}, {}),
        ({"pg_stat_statements.max": "many"}, {"places": "DB-09"}),
        ({"pg_stat_statements.max": "9" * 5_000}, {"places": "DB-09"}),
        ({"pg_stat_statements.track": ...}, {"track": "DB-09"}),
        ({"pg_stat_statements.track": None}, {"track": "DB-09"}),
        ({"pg_stat_statements.track": "none"}, {"track": "PG-05"}),
    ],
)
def test_a_setting_that_is_missing_or_makes_no_sense_is_a_finding_and_the_others_are_told(
    odd: dict[str, Any], expected: dict[str, str]
) -> None:
    settings = {name: value for name, value in {**SETTINGS, **odd}.items() if value is not ...}
    found = examined({"FROM pg_settings": list(settings.items())})
    assert codes(found) == expected
    assert "texts" in found


@pytest.mark.parametrize("rows", [[], [()], [5], [(None, None, None, None, None)]])
@pytest.mark.parametrize("at", ["server_version", "FROM pg_settings", "pg_available_extensions", "FROM pg_extension"])
def test_whatever_it_answers_the_examination_comes_to_an_end(at: str, rows: list[Any]) -> None:
    assert codes(examined({at: rows})) != {}
