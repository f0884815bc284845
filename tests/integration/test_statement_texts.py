"""The texts of statements on real PostgreSQL servers, 15 and 18, by users who may read and nothing else.

What could go wrong: one text that is not valid in its encoding costs all others theirs, or the counters; a text of a
database with another encoding arrives garbled; a text that is cut loses the digest of the whole, or ends within a
character; a text that is not there is called by a wrong reason; the way around costs something when all is well.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from typing import Any

import psycopg2
import pytest

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.sources import SourceSettings
from agent.sources._postgres_session import Session
from agent.sources._statement_queries import Link
from agent.sources.pg_stat_statements import StatementStatistics
from tests.integration.statement_looks import database, look, make
from tests.servers.postgres import WatchedPostgres

BYTES = "ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
LATIN = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
BAD = b"SELECT /* \xff\xfe */ pg_sleep(0.01)"
VERSIONS = ["1.4", "1.5", "1.6", "1.7", "1.8", "1.9", "1.10", "1.11", "1.12"]


@pytest.fixture
def server(clean_postgres: WatchedPostgres) -> WatchedPostgres:
    return clean_postgres


@pytest.fixture
def source(server: WatchedPostgres) -> Iterator[StatementStatistics]:
    with closing(make(server.monitor())) as found:
        yield found


def run(server: WatchedPostgres, name: str, *statements: bytes | str) -> None:
    with closing(server.admin(name)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def bytes_beside(server: WatchedPostgres, version: str = "") -> Iterator[str]:
    """A database that takes any byte, with the extension; afterwards no text of it is left."""
    with database(server, "bytes_beside", BYTES) as name:
        server.execute(f"CREATE EXTENSION pg_stat_statements {version and f'VERSION {version!r}'}", database=name)
        try:
            yield name
        finally:
            server.reset()


def can_make(server: WatchedPostgres, version: str) -> bool:
    known = "SELECT 1 FROM pg_available_extension_versions WHERE name = 'pg_stat_statements' AND version = %s"
    return bool(server.execute(known, (version,)))


@pytest.mark.parametrize("version", VERSIONS)
def test_exactly_the_undecodable_texts_are_missing(
    server: WatchedPostgres, source: StatementStatistics, version: str
) -> None:
    if not can_make(server, version):
        assert version in {"1.11", "1.12"}  # of PostgreSQL 17 and 18
        return
    server.slow_workload("bark", calls=3)
    server.execute("SELECT pg_sleep(0.01) AS 語")
    with bytes_beside(server, version) as name, database(server, "latin", LATIN) as latin:
        run(server, latin, "SELECT pg_sleep(0.01) AS é")
        run(server, name, BAD, BAD.replace(b"SELECT", b"SELECT 1,"), "SELECT 1, 2, pg_sleep(0.01) AS à".encode())
        with pytest.raises(psycopg2.Error, match="encoding"):
            server.counters("bark")
        texts = sorted(record.sql_text for record in look(source).records if "sleep" in record.sql_text)
        found = look(source).records
        missing = [record for record in found if record.sql_text.startswith("<text")]
    assert texts == [
        "SELECT $1, $2, pg_sleep($3) AS à",
        "SELECT pg_sleep($1) AS é",
        "SELECT pg_sleep($1) AS 語",
        "WITH bark AS (SELECT pg_sleep($1)) SELECT * FROM bark",
    ]
    assert [(record.sql_text, record.db) for record in missing] == [
        (f"<text unavailable: undecodable> queryid {record.window.queryid}", name)
        for record in missing
        if record.window
    ]
    assert len(missing) == 2


def test_without_such_a_database_the_numbers_arrive_and_it_is_said_once(
    server: WatchedPostgres, source: StatementStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    server.slow_workload("bark", calls=3)
    with database(server, "no_extension", BYTES) as name, caplog.at_level(logging.INFO):
        run(server, name, BAD)
        found = look(source)
        look(source)
        server.reset()
        server.slow_workload("bark")
        look(source)
    windows = [record.window for record in found.records if record.window]
    assert [record.sql_text for record in found.records] == [
        f"<text unavailable: another one is undecodable> queryid {window.queryid}" for window in windows
    ]
    assert max(window.calls for window in windows) == 3
    told = [record for record in caplog.records if getattr(record, "event", "").startswith("texts.")]
    assert [(getattr(record, "event", ""), "PG-04" in record.message) for record in told] == [
        ("texts.wrong", True),
        ("texts.right", False),
    ]


def test_an_agent_in_a_database_of_bytes_reads_texts_too(server: WatchedPostgres) -> None:
    server.execute("SELECT pg_sleep(0.01) AS 語")
    with bytes_beside(server) as name:
        run(server, name, BAD)
        with closing(make(server.monitor(name))) as source:
            texts = [record.sql_text for record in look(source).records]
    assert "SELECT pg_sleep($1) AS 語" in texts
    assert len([text for text in texts if text.startswith("<text unavailable: undecodable>")]) == 1


def test_an_agent_in_a_database_of_another_encoding_reads_texts_too(server: WatchedPostgres) -> None:
    server.execute("SELECT pg_sleep(0.01) AS 語")
    with (
        bytes_beside(server),
        database(server, "latin", LATIN) as latin,
        closing(make(server.monitor(latin))) as source,
    ):
        texts = [record.sql_text for record in look(source).records]
    assert "SELECT pg_sleep($1) AS 語" in texts


def test_nothing_more_is_asked_when_all_texts_are_well(server: WatchedPostgres) -> None:
    asked: list[str] = []

    class Listened(Session):
        def rows(self, sql: str, values: Any = (), **limits: Any) -> Any:
            asked.append(sql)
            return super().rows(sql, values, **limits)

    config = {"connect_timeout": 3, "read_timeout": 20, "min_exec_time_ms": 5, **server.monitor()}
    db = DbConfig(**config)
    with bytes_beside(server) as name:
        server.slow_workload("birch")
        with closing(StatementStatistics(SourceSettings("default", db, db.port or 0), Clock(), Listened)) as source:
            assert len(look(source).of("birch")) == 1
            well = [sql for sql in asked if "pg_stat_statements(true)" in sql]
            run(server, name, BAD)
            asked.clear()
            look(source, None)
    around = [sql for sql in asked if "pg_stat_statements(true)" in sql]
    assert (len(well), len(around)) == (1, 2)


@pytest.mark.parametrize("is_beside_a_bad_one", [False, True])
def test_a_long_text_is_cut_at_a_character_with_the_digest_of_the_whole(
    server: WatchedPostgres, is_beside_a_bad_one: bool
) -> None:
    server.execute(f"SELECT pg_sleep(0.01) AS {'é' * 20}, 1 /* {'é' * 2_000} */")
    whole = f"SELECT pg_sleep($1) AS {'é' * 20}, $2 /* {'é' * 2_000} */"
    with bytes_beside(server) as name:
        if is_beside_a_bad_one:
            run(server, name, BAD)
        with closing(make(server.monitor(), max_sql_text_bytes=1_025)) as source:
            [record] = [record for record in look(source).records if "é" in record.sql_text]
    assert whole.startswith(record.sql_text)
    assert 1_024 <= len(record.sql_text.encode()) <= 1_025
    assert record.text_sha256 == sha256(whole.encode()).hexdigest()


def test_a_text_in_characters_of_many_bytes_is_cut_by_its_bytes(server: WatchedPostgres) -> None:
    server.execute(f"SELECT pg_sleep(0.01) /* {'語' * 600} */")
    with closing(make(server.monitor(), max_sql_text_bytes=1_024)) as source:
        [record] = [record for record in look(source).records if "語" in record.sql_text]
    assert len(record.sql_text.encode()) <= 1_024
    assert record.text_sha256 is not None


def test_a_text_that_fits_has_no_digest(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("beech")
    assert look(source).one("beech")[0].text_sha256 is None


# -- texts that are not there --------------------------------------------------------------------------------------


def test_texts_that_the_server_lost_are_called_so(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("maple", calls=2)
    [file] = server.directory.rglob("pgss_query_texts.stat")
    file.unlink()
    file.mkdir()  # so that the server cannot read it
    try:
        assert server.execute("SELECT query FROM pg_stat_statements WHERE calls = 2") == [(None,)]
        [record] = [record for record in look(source).records if record.window and record.window.calls == 2]
    finally:
        file.rmdir()
        server.reset()
    assert record.sql_text.startswith("<text unavailable: lost by the server> queryid ")


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        ("REVOKE pg_read_all_stats FROM monitoring", "insufficient privilege"),
        ("SELECT pg_stat_statements_reset()", "evicted"),
    ],
)
def test_texts_that_go_between_counters_and_texts_have_their_reason(
    server: WatchedPostgres,
    source: StatementStatistics,
    monkeypatch: pytest.MonkeyPatch,
    happens: str,
    reason: str,
) -> None:
    server.slow_workload("cedar", calls=2)
    names = Link.databases

    def first(link: Link) -> dict[int, str]:
        server.execute(happens)
        return names(link)

    monkeypatch.setattr(Link, "databases", first)
    texts = {record.sql_text.partition(" queryid ")[0] for record in look(source).records}
    assert texts == {f"<text unavailable: {reason}>"}
