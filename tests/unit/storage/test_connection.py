"""A commit means: on the disk.

What could go wrong: SQLite takes another mode than the one that was asked for and nobody reads it back; a reader
creates or changes the file; an error of SQLite reaches people without a code or under the wrong one (a full disk told
as a broken one would end the process).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage.connection import connect, connect_readonly, demand_durable, explain, make_durable
from storage.errors import OutboxBroken, OutboxError, OutboxFull, OutboxInaccessible, OutboxNotDurable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.sqlite3"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path)) as connection:
        yield connection


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_durable_connection_writes_ahead_and_syncs_fully(connection: sqlite3.Connection) -> None:
    make_durable(connection)
    answers = {name: pragma(connection, name) for name in ("journal_mode", "synchronous", "auto_vacuum")}
    assert answers == {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2}


def test_the_wal_stays_small(connection: sqlite3.Connection) -> None:
    make_durable(connection)
    assert (pragma(connection, "wal_autocheckpoint"), pragma(connection, "journal_size_limit")) == (256, 1_048_576)


@pytest.mark.parametrize("level", ["OFF", "NORMAL"])
def test_a_weaker_synchronous_is_refused(connection: sqlite3.Connection, level: str) -> None:
    make_durable(connection)
    connection.execute(f"PRAGMA synchronous={level}")
    with pytest.raises(OutboxNotDurable, match=r"synchronous is [01]"):
        demand_durable(connection)


def test_a_file_that_cannot_have_a_wal_is_refused() -> None:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with closing(memory), pytest.raises(OutboxNotDurable, match="journal_mode is memory"):
        make_durable(memory)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutboxInaccessible, match=str(tmp_path)):
        connect(tmp_path)


def test_a_reader_does_not_create_the_file(path: Path) -> None:
    with pytest.raises(OutboxInaccessible):
        connect_readonly(path)
    assert not path.exists()


def test_a_reader_sees_what_a_writer_committed_and_cannot_write(path: Path, connection: sqlite3.Connection) -> None:
    make_durable(connection)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (1)")
    with closing(connect_readonly(path)) as reader:
        assert reader.execute("SELECT x FROM t").fetchall() == [(1,)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("INSERT INTO t VALUES (2)")


def test_a_reader_finds_a_file_with_odd_characters_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%41 d.sqlite3"
    with closing(connect(path)) as writer:
        writer.execute("CREATE TABLE t (x)")
    with closing(connect_readonly(path)) as reader:
        assert reader.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]


def error_of(connection: sqlite3.Connection, *statements: str) -> sqlite3.Error:
    *before, last = statements
    for statement in before:
        connection.execute(statement)
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(last)
    return caught.value


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (
            ("CREATE TABLE t (x)", "PRAGMA max_page_count=1", "INSERT INTO t VALUES (randomblob(100000))"),
            OutboxFull,
        ),
        (("CREATE TABLE t (x)", "PRAGMA query_only=ON", "INSERT INTO t VALUES (1)"), OutboxInaccessible),
        (("SELECT nonsense",), OutboxBroken),
    ],
)
def test_what_sqlite_reports_gets_its_code(
    connection: sqlite3.Connection, statements: tuple[str, ...], expected: type[OutboxError]
) -> None:
    assert type(explain(error_of(connection, *statements))) is expected


def test_an_error_without_a_name_is_a_broken_outbox() -> None:
    assert type(explain(sqlite3.ProgrammingError("Cannot operate on a closed database."))) is OutboxBroken
