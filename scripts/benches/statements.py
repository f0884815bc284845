"""One look at a full pg_stat_statements against a bare fetch of the same columns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from agent.clock import Clock
from agent.collector import Collector
from agent.config.schema import DbConfig
from agent.dev.postgres import wheel_bin_dir
from agent.sources import SourceSettings
from agent.sources.pg_stat_statements import StatementStatistics
from scripts.benches.figure import Figure, paired, seconds
from storage.envelope import Change
from storage.outbox import Outbox
from tests.servers.postgres import WatchedPostgres, shape

STATEMENTS = 5_000
_BARE = """
    SELECT userid, dbid, queryid, toplevel, calls, total_exec_time, max_exec_time, rows,
        extract(epoch FROM stats_since)::float8
    FROM pg_stat_statements(false) WHERE queryid IS NOT NULL AND calls > 0
"""


def measure() -> Iterator[Figure]:
    """Time of a look at 5,000 statements, all called since the last, none slow; ours by theirs."""
    settings = {"pg_stat_statements.max": "10000"}
    with WatchedPostgres(wheel_bin_dir(), settings=settings) as server, tempfile.TemporaryDirectory() as directory:
        db = server.monitor()
        outbox = Outbox(Path(directory))
        source = StatementStatistics(SourceSettings("default", DbConfig(**db), db["port"]), Clock())
        collector = Collector(outbox, "default", batch_max_records=500, batch_max_bytes=1_048_576)
        bare = psycopg2.connect(
            host=db["host"], port=db["port"], user=db["user"], password=db["password"], dbname="postgres"
        )
        load(server)
        inverse, ours_s, plain_s = paired(lambda: look(server, source, collector), lambda: fetch(server, bare), pairs=9)
        source.close()
        bare.close()
        outbox.close()
    ratio = 1 / inverse
    detail = f"{ours_s * 1000:.1f} ms a look with its commit, {plain_s * 1000:.1f} ms a bare fetch"
    yield Figure("look at 5,000 statements / bare fetch", ratio, "at most 1.5", ratio <= 1.5, detail)


def load(server: WatchedPostgres) -> None:
    """Calls each of the 5,000 statements once."""
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        for number in range(STATEMENTS):
            cursor.execute(shape(f"bench{number}"))


def look(server: WatchedPostgres, source: StatementStatistics, collector: Collector) -> float:
    """Seconds of one look, saved."""
    load(server)

    def work() -> None:
        for reading in source.read(collector.bookmark):
            if reading.records:
                raise RuntimeError("something was slow")
            collector.take(reading)
        collector.save(Change())

    return seconds(work)


def fetch(server: WatchedPostgres, connection: Any) -> float:
    """Seconds of a bare fetch."""
    load(server)

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute(_BARE)
            if len(cursor.fetchall()) < STATEMENTS:
                raise RuntimeError("statements were evicted")

    return seconds(work)
