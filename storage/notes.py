"""What is remembered by name: bookmarks, notes, and marks of what is done. Each row carries its checksum."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from storage.errors import OutboxDamaged
from storage.guard import guard

MARKS_KEPT = 1_000
LOST_BOOKMARK = "lost_bookmark/"  # and the bookmark's name: a note for whoever reads its source again
ANY = "*"  # in place of the name when nobody knows which bookmarks there were

_LAST_MARK = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'mark'"
# By rank and not by number: a salvage may have left holes.
_PRUNE_MARKS = "DELETE FROM mark WHERE id <= (SELECT id FROM mark ORDER BY id DESC LIMIT 1 OFFSET ?)"


def bookmark(sql: sqlite3.Connection, name: str) -> bytes | None:
    """The bookmark of that name; None when there is none yet. Raises OutboxDamaged."""
    row = sql.execute("SELECT name, value, at_seq, guard FROM bookmark WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(_demand("bookmark", row)[1])


def put_bookmark(sql: sqlite3.Connection, name: str, value: bytes, at_seq: int) -> None:
    """Writes a bookmark, in place of an earlier one of that name; `at_seq`: the newest envelope there is by then."""
    row = (name, value, at_seq)
    sql.execute("INSERT OR REPLACE INTO bookmark VALUES (?, ?, ?, ?)", (*row, guard("bookmark", *row)))
    remove(sql, f"{LOST_BOOKMARK}{name}")


def give_up(sql: sqlite3.Connection, name: str, reason: str) -> None:
    """Notes that a bookmark was lost: its source must not be read from the beginning again."""
    put(sql, f"{LOST_BOOKMARK}{name}", reason)


def is_given_up(sql: sqlite3.Connection, name: str) -> bool:
    """Whether that bookmark was lost, and none was saved since."""
    names = (f"{LOST_BOOKMARK}{name}", f"{LOST_BOOKMARK}{ANY}")
    noted = sql.execute("SELECT 1 FROM note WHERE name IN (?, ?)", names).fetchone()
    return noted is not None and sql.execute("SELECT 1 FROM bookmark WHERE name = ?", (name,)).fetchone() is None


def given_up(sql: sqlite3.Connection) -> set[str]:
    """The names of the bookmarks that were lost."""
    rows = sql.execute("SELECT name FROM note").fetchall()
    return {name.removeprefix(LOST_BOOKMARK) for (name,) in rows if name.startswith(LOST_BOOKMARK)}


def note(sql: sqlite3.Connection, name: str) -> str | None:
    """The note of that name; None when there is none. Raises OutboxDamaged."""
    row = sql.execute("SELECT name, value, guard FROM note WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(_demand("note", row)[1])


def beginning_with(sql: sqlite3.Connection, prefix: str) -> dict[str, str]:
    """The notes whose names begin like that. Raises OutboxDamaged."""
    rows = sql.execute("SELECT name, value, guard FROM note WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
    return {row[0]: str(_demand("note", row)[1]) for row in rows.fetchall()}


def put(sql: sqlite3.Connection, name: str, text: str) -> None:
    """Writes a note, in place of an earlier one of that name."""
    sql.execute("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", (name, text, guard("note", name, text)))


def remove(sql: sqlite3.Connection, name: str) -> None:
    """Removes the note of that name, if there is one."""
    sql.execute("DELETE FROM note WHERE name = ?", (name,))


def has_mark(sql: sqlite3.Connection, name: str) -> bool:
    """Whether that mark was set, among the newest MARKS_KEPT. Raises OutboxDamaged."""
    row = sql.execute("SELECT id, name, guard FROM mark WHERE name = ?", (name,)).fetchone()
    return row is not None and bool(_demand("mark", row))


def put_marks(sql: sqlite3.Connection, names: Sequence[str]) -> None:
    """Sets the marks, and forgets the oldest of too many."""
    for name in names:
        ((last,),) = sql.execute(_LAST_MARK).fetchall()
        row = (last + 1, name)
        sql.execute("INSERT OR IGNORE INTO mark VALUES (?, ?, ?)", (*row, guard("mark", *row)))
    if names:
        sql.execute(_PRUNE_MARKS, (MARKS_KEPT,))


def _demand(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    if row[-1] != guard(table, *row[:-1]):
        raise OutboxDamaged(f"{table} {row[0]} is not what was written")
    return row
