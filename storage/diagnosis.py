"""Whether an outbox file can be worked on as it is, or has to be rebuilt first. Changes nothing.

Through a connection that cannot write: a writing one would merge a WAL when it is closed, and so change a file that
may be another program's.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from storage import envelopes, notes
from storage.connection import STATEMENT_ERRORS, connect_readonly, explain
from storage.errors import OutboxDamaged, OutboxForeign, OutboxNewer
from storage.findings import Describe, find
from storage.guard import guard
from storage.high_water import FILE_NAME as MARK_NAME
from storage.high_water import HighWater
from storage.images import opened
from storage.salvage import DAMAGED, MISSING, ROLLED_BACK
from storage.schema import COLUMNS, GUARDED, PROBE, VERSION, columns_in, has_shape, identify, installation_of
from storage.wal import has_wal

CHECKED_BYTES = 64 * 1_048_576  # a larger file is not read through at each start; its rows are checked as they are read

_JOURNAL_MAGIC, _JOURNAL_HEAD_BYTES = bytes.fromhex("d9d505f920a163d7"), 28
_PAGES_BEFORE = slice(16, 20)  # of the file that the journal belongs to
_GUARDED_TABLES = ("tally", "bookmark", "note", "gap")  # an upgrade would vouch for a damaged gap, a join count it
_WRITE_VERSION, _WAL_VERSION = 18, 2  # where the head says which SQLite may write it


def diagnose(path: Path, mark: HighWater | None, describe: Describe, *, reads_all: bool = False) -> str | None:
    """Why the file has to be rebuilt; None when it is sound, or when there is none and never was.

    `reads_all`: a file that is large is read through as well.

    Raises OutboxForeign, OutboxNewer, OutboxInaccessible, and sqlite3.Error for what is no damage.
    """
    if not path.exists():
        return MISSING if mark is not None or has_wal(path) else None
    if mark is None and _is_new(path):
        return None
    try:
        return _examine(path, mark, reads_all=reads_all)
    except OutboxForeign:
        if not _is_ours(path, mark, describe):
            raise
    except OutboxNewer:
        if mark is None or mark.format > VERSION or not _has_our_shape(path):
            raise
    except OutboxDamaged:
        pass
    except STATEMENT_ERRORS as error:
        if not isinstance(explain(error), OutboxDamaged):
            raise
    return DAMAGED


def forbids_writing(path: Path) -> bool:
    """Whether a number in the head of a file that no connection has open forbids it to SQLite: ours never do.

    SQLite says the same of a file that it could not open for writing, for a moment or for good.
    """
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_WRITE_VERSION + 1)
        return len(head) > _WRITE_VERSION and head[_WRITE_VERSION] > _WAL_VERSION
    return False


def _examine(path: Path, mark: HighWater | None, *, reads_all: bool) -> str | None:
    if path.stat().st_size == 0:
        return DAMAGED  # SQLite would delete the WAL beside it
    with closing(connect_readonly(path, alone=not has_wal(path))) as sql:
        version = identify(sql, path)
        if version == 0:
            return DAMAGED if mark is not None else None
        if not has_shape(sql, version):
            return DAMAGED
        is_read = reads_all or path.stat().st_size <= CHECKED_BYTES
        if is_read and sql.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
            return DAMAGED
        if version >= GUARDED and not all(_is_guarded(sql, table, version) for table in _GUARDED_TABLES):
            return DAMAGED
        if any(_would_repeat_numbers(sql, table) for table in ("envelope", "gap", "mark")):
            return DAMAGED
        return ROLLED_BACK if mark is not None and _is_behind(sql, version, mark) else None


def _is_guarded(sql: sqlite3.Connection, table: str, version: int) -> bool:
    columns = ", ".join(columns_in(version, table))
    rows = sql.execute(f"SELECT {columns} FROM {table}")  # row by row: an agent before this one joined no gaps
    return all(row[-1] == guard(table, *row[:-1]) for row in rows if row[0] != PROBE)


def _would_repeat_numbers(sql: sqlite3.Connection, table: str) -> bool:
    """Whether SQLite's memory of the highest number is below what is there: each new row would be refused."""
    ((known,),) = sql.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).fetchall()
    ((highest,),) = sql.execute(f"SELECT max({COLUMNS[table][0]}) FROM {table}").fetchall()
    return bool(highest is not None and (known is None or known < highest))


def _is_behind(sql: sqlite3.Connection, version: int, mark: HighWater) -> bool:
    """Whether the file does not know what was committed before the mark was written.

    A mark of another installation says nothing: somebody has put another outbox here.
    """
    if installation_of(sql) != mark.installation:
        return False
    known = {topic: row for topic, *row in sql.execute("SELECT topic, captured, delivered FROM tally").fetchall()}
    books = any(
        now < then
        for topic, numbers in mark.books.items()
        for now, then in zip(known.get(topic, (0, 0)), numbers, strict=False)
    )
    read = dict(sql.execute("SELECT name, at_seq FROM bookmark").fetchall()) if version >= GUARDED else {}
    given_up = notes.given_up(sql)  # a rebuilt file knows what it lost
    read[notes.ANY] = max((at or 0 for at in read.values()), default=0)
    bookmarks = any((read.get(name) or 0) < at for name, at in mark.bookmarks.items() if name not in given_up)
    return envelopes.last_seq(sql) < mark.high or books or bookmarks


def _is_new(path: Path) -> bool:
    """Whether there is nothing in it: also when its making was cut, and the journal beside it will undo everything."""
    if path.stat().st_size == 0:
        return not has_wal(path)
    journal = path.with_name(f"{path.name}-journal")
    if not journal.exists():
        return False
    with journal.open("rb") as file:
        head = file.read(_JOURNAL_HEAD_BYTES)
    return head.startswith(_JOURNAL_MAGIC) and head[_PAGES_BEFORE] == bytes(4)


def _has_our_shape(path: Path) -> bool:
    with closing(connect_readonly(path, alone=not has_wal(path))) as sql:
        return any(has_shape(sql, version) for version in range(1, VERSION + 1))


def _is_ours(path: Path, mark: HighWater | None, describe: Describe) -> bool:
    """Whether a file whose head says nothing of us is ours all the same, damaged."""
    try:
        with closing(connect_readonly(path, alone=not has_wal(path))) as sql:
            names = {row[0] for row in sql.execute("SELECT name FROM sqlite_master").fetchall()}
    except STATEMENT_ERRORS:
        names = set()
    if names:
        return COLUMNS.keys() <= names
    # No database, or what SQLite takes for an empty one: the first bytes of a file that was cut. A mark, even one that
    # says nothing any more, is only where an agent worked; and what is taken for ours by mistake is kept aside.
    if mark is not None or path.with_name(MARK_NAME).exists():
        return True
    with opened(path) as there:
        return not find(there, describe, None).is_empty
