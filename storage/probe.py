"""A note that is only there to be written, to show that a commit of some size succeeds. Commits nothing itself."""

from __future__ import annotations

import sqlite3

from storage.guard import guard
from storage.schema import PROBE

_BYTES = 40_960  # about what the delete of a large envelope writes

_PUT = "INSERT OR REPLACE INTO note VALUES (?, ?, ?)"
_THERE = f"SELECT 1 FROM note WHERE name = '{PROBE}'"


def is_there(sql: sqlite3.Connection) -> bool:
    """Whether it was ever put; the file grows only the first time."""
    return sql.execute(_THERE).fetchone() is not None


def put(sql: sqlite3.Connection) -> None:
    """Writes it, in its place when it is there: on a full disk the file cannot grow."""
    note = (PROBE, "0" * _BYTES)
    sql.execute(_PUT, (*note, guard("note", *note))).close()
