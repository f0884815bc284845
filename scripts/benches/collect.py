"""Collecting mysql.slow_log into the outbox against a plain fetch of the same rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
from pymysql.cursors import SSCursor

from agent.clock import Clock
from agent.collector import Collector
from agent.config.schema import DbConfig
from agent.sources import SourceSettings
from agent.sources.mysql_slow_log import SlowLogTable
from scripts.benches.figure import Figure, paired, seconds
from storage.envelope import Change
from storage.outbox import Outbox
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate

ROWS = 200_000


def measure() -> Iterator[Figure]:
    """Rows a second, ours by theirs; fetched, mapped, redacted, hashed, compressed, committed with FULL."""
    with MariaDBTemplate() as template, MariaDBServer(template, long_query_time=3_600) as server:
        db = server.monitor()
        server.fill(ROWS)
        ratio, ours_s, plain_s = paired(lambda: collect(db), lambda: fetch(db), pairs=5)
    detail = f"{ROWS / ours_s:,.0f} rows/s into the outbox, {ROWS / plain_s:,.0f} rows/s fetched"
    yield Figure("slow log collected / plain fetch", ratio, "at least 0.35", ratio >= 0.35, detail)


def fetch(db: dict[str, Any]) -> float:
    """A plain SSCursor over the whole table; seconds."""

    def work() -> None:
        with pymysql.connect(**db, cursorclass=SSCursor) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM mysql.slow_log")
            if sum(1 for _ in cursor) != ROWS:
                raise RuntimeError("not every row was fetched")

    return seconds(work)


def collect(db: dict[str, Any]) -> float:
    """The same rows through the source and the collector into a new outbox; seconds."""
    with tempfile.TemporaryDirectory() as directory:
        outbox = Outbox(Path(directory))
        took_s = seconds(lambda: collect_into(outbox, db))
        captured = outbox.tally("queries").captured
        outbox.close()
    if captured != ROWS:
        raise RuntimeError(f"{captured} of {ROWS} rows were captured")
    return took_s


def collect_into(outbox: Outbox, db: dict[str, Any]) -> None:
    """One look, saved in the agent's turns."""
    source = SlowLogTable(SourceSettings("default", DbConfig(**db), db["port"]), Clock())
    collector = Collector(outbox, "default", batch_max_records=500, batch_max_bytes=1_048_576)
    for reading in source.read(collector.bookmark):
        collector.take(reading)
        if collector.is_full:
            collector.save(Change())
    collector.save(Change())
    source.close()
