"""Opens SQLite files so that a commit means: on the disk. Does not know any table."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import quote

from storage.errors import (
    OutboxBroken,
    OutboxDamaged,
    OutboxError,
    OutboxFull,
    OutboxInaccessible,
    OutboxNotDurable,
)

Connection = sqlite3.Connection
SQLITE = sqlite3.sqlite_version  # of the library that Python was built with
BUSY_TIMEOUT_MS = 5_000
PAGE_BYTES = 4_096  # SQLite's default, in force wherever an outbox was made
WAL_AUTOCHECKPOINT_PAGES = 256
JOURNAL_SIZE_LIMIT = 1_048_576
CACHE_KIB = 128  # envelopes are written once and read once

# The order matters: auto_vacuum is only taken by a file that has no table yet, and before WAL is switched on.
_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    "PRAGMA auto_vacuum=INCREMENTAL",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA temp_store=MEMORY",
    f"PRAGMA cache_size=-{CACHE_KIB}",
    f"PRAGMA wal_autocheckpoint={WAL_AUTOCHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT}",
    # Debian's SQLite overwrites every deleted page: 20 MB of deletes would write 20 MB of WAL on a full disk.
    "PRAGMA secure_delete=FAST",
)
# What a statement raises: where SQLite complains in bytes of a damaged file, Python cannot even read the complaint.
STATEMENT_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_FULL = 2  # what PRAGMA synchronous answers for FULL


def connect(path: Path) -> sqlite3.Connection:
    """Opens (or creates) `path` without touching its content yet; transactions are written out by the caller.

    Raises OutboxInaccessible when the file cannot be opened.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    except sqlite3.Error as error:
        raise OutboxInaccessible(f"{path} ({error})") from error
    return _patient(connection, path)


def connect_readonly(path: Path, *, alone: bool = False, keeps_index: bool = False) -> sqlite3.Connection:
    """Opens `path` for looking only, beside a running writer. Raises OutboxInaccessible.

    `alone`: nobody writes it and no WAL with content is beside it; then nothing is made beside it either.
    `keeps_index`: nobody writes it, and the index of its WAL stays as its last writer has left it.
    """
    options = "mode=ro&immutable=1" if alone else "mode=ro&readonly_shm=1" if keeps_index else "mode=ro"
    try:
        connection = sqlite3.connect(f"file:{quote(os.fsencode(path))}?{options}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise OutboxInaccessible(f"{path} ({error})") from error
    return _patient(connection, path, "PRAGMA query_only=ON")


def _patient(connection: sqlite3.Connection, path: Path, *pragmas: str) -> sqlite3.Connection:
    try:
        for pragma in (f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", *pragmas):
            connection.execute(pragma)
    except sqlite3.Error as error:
        connection.close()
        raise OutboxInaccessible(f"{path} ({error})") from error
    return connection


def make_durable(connection: sqlite3.Connection) -> None:
    """Sets WAL and synchronous=FULL and reads both back. Raises OutboxNotDurable when SQLite took another mode."""
    for pragma in _PRAGMAS:
        connection.execute(pragma).fetchall()
    demand_durable(connection)


def number(connection: sqlite3.Connection, pragma: str) -> int:
    """What that PRAGMA answers."""
    ((found,),) = connection.execute(f"PRAGMA {pragma}").fetchall()
    return int(found)


def give_back(connection: sqlite3.Connection, pages: int) -> None:
    """Gives so many unused pages to the file system, through the WAL."""
    # execute() would free a single page; executescript runs the pragma to its end.
    connection.executescript(f"PRAGMA incremental_vacuum({pages}); PRAGMA wal_checkpoint(PASSIVE)")


def close_as_it_is(connection: sqlite3.Connection, path: Path) -> None:
    """Closes the only connection that writes `path` without what SQLite does at the last one: merge the WAL into the
    file and delete it. Where the file is too damaged to be opened a second time it does."""
    with ExitStack() as stack:
        with suppress(OutboxError, *STATEMENT_ERRORS):
            witness = stack.enter_context(closing(connect_readonly(path)))
            witness.execute("SELECT count(*) FROM sqlite_master").fetchall()
        # Whatever happened above: one that is forgotten would be closed some time later, and delete the WAL of a file
        # that stands there then.
        connection.close()


def demand_durable(connection: sqlite3.Connection) -> None:
    """Raises OutboxNotDurable unless a commit on this connection means: on the disk."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if mode != "wal" or synchronous != _FULL:
        raise OutboxNotDurable(f"journal_mode is {mode}, synchronous is {synchronous}")


def or_full(error: OutboxError, directory: Path) -> OutboxError:
    """The error, or OutboxFull: SQLite has many names for a disk without room or inodes."""
    if not isinstance(error, OutboxInaccessible | OutboxBroken):
        return error
    try:
        disk = os.statvfs(directory)
    except OSError:
        return error
    return OutboxFull(error.detail) if not disk.f_bavail or (disk.f_files and not disk.f_favail) else error


def explain(error: sqlite3.Error | UnicodeDecodeError) -> OutboxError:
    """The coded error for what SQLite reported: no room, no access, damaged, or broken."""
    name = getattr(error, "sqlite_errorname", "") or ""
    text = f"{name or type(error).__name__}: {error}"
    # And what Python says of a text that SQLite took as it was.
    if isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not decode to UTF-8"):
        return OutboxDamaged(text)
    if name in {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}:
        return OutboxFull(text)
    if name.startswith("SQLITE_CORRUPT") or name == "SQLITE_NOTADB":
        return OutboxDamaged(text)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return OutboxInaccessible(text)
    return OutboxBroken(text)
