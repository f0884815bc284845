"""Looks at the statements of a real PostgreSQL, and what was in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.record import Record, Window
from agent.sources import Reading, SourceSettings
from agent.sources.pg_stat_statements import StatementStatistics
from tests.servers.postgres import WatchedPostgres

SLOW_MS = 5


def make(db_config: dict[str, Any], **more: Any) -> StatementStatistics:
    limits = {"connect_timeout": 3, "read_timeout": 20, "min_exec_time_ms": SLOW_MS}
    db = DbConfig(**{**limits, **db_config, **more})
    return StatementStatistics(SourceSettings("default", db, db.port or 0), Clock())


class Look:
    def __init__(self, readings: Sequence[Reading]) -> None:
        self.records = [record for reading in readings for record in reading.records]
        self.gaps = [gap for reading in readings for gap in reading.gaps]
        self.bookmark = readings[-1].bookmark
        self.coverage = readings[-1].coverage

    def of(self, name: str) -> list[Record]:
        """The records of `shape(name)`."""
        return [record for record in self.records if record.sql_text.startswith(f"WITH {name} AS ")]

    def one(self, name: str) -> tuple[Record, Window]:
        [record] = self.of(name)
        assert record.window is not None
        return record, record.window


def look(source: StatementStatistics, bookmark: bytes | None = None) -> Look:
    return Look(list(source.read(bookmark)))


def calls(looks: Sequence[Look], name: str) -> int:
    return sum(record.window.calls for each in looks for record in each.of(name) if record.window)


@contextmanager
def database(server: WatchedPostgres, name: str, options: str = "") -> Iterator[str]:
    server.execute(f"DROP DATABASE IF EXISTS {name}")
    server.execute(f"CREATE DATABASE {name} {options}")
    try:
        yield name
    finally:
        server.execute(f"DROP DATABASE IF EXISTS {name}")
