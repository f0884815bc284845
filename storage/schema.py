"""The tables of an outbox file and how a file becomes one. Decides whose file it is before it changes a byte."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from storage.errors import OutboxBroken, OutboxForeign, OutboxInaccessible, OutboxNewer

APPLICATION_ID = 0x44425041  # "DBPA"
VERSION = 1
_SMALLEST_DATABASE = 512  # one page

CREATE_V1 = (
    # place: the order of sending. The halves of a split keep the place of their parent, their keys keep their order.
    """CREATE TABLE envelope (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        place INTEGER NOT NULL,
        key TEXT NOT NULL UNIQUE,
        records INTEGER NOT NULL,
        body BLOB NOT NULL,
        sha256 BLOB NOT NULL,
        created_at REAL NOT NULL
    )""",
    "CREATE INDEX envelope_order ON envelope (topic, place, key)",
    """CREATE TABLE parked (
        seq INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        key TEXT NOT NULL UNIQUE,
        records INTEGER NOT NULL,
        body BLOB NOT NULL,
        sha256 BLOB NOT NULL,
        created_at REAL NOT NULL,
        parked_at REAL NOT NULL,
        reason TEXT NOT NULL
    )""",
    # One row a topic. pending and parked repeat what the tables hold, so that a look costs the same at any backlog.
    """CREATE TABLE tally (
        topic TEXT PRIMARY KEY,
        captured INTEGER NOT NULL DEFAULT 0,
        delivered INTEGER NOT NULL DEFAULT 0,
        discarded INTEGER NOT NULL DEFAULT 0,
        lost INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0,
        pending INTEGER NOT NULL DEFAULT 0,
        pending_bytes INTEGER NOT NULL DEFAULT 0,
        envelopes INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    """CREATE TABLE gap (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        since TEXT,
        until TEXT,
        estimate INTEGER,
        detail TEXT NOT NULL,
        created_at REAL NOT NULL
    )""",
    "CREATE TABLE bookmark (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE mark (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)",
)


def identify(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the outbox in `path`; 0 when the file is new. Changes nothing.

    Raises OutboxForeign for another program's file, OutboxNewer for a version this code does not know.
    """
    try:
        # One snapshot: another process may be making the file at this moment.
        connection.execute("BEGIN")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise OutboxInaccessible(f"{path} ({error})") from error
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname != "SQLITE_NOTADB":
            raise OutboxBroken(f"{path} ({error})") from error
        raise OutboxForeign(f"{path} is no SQLite database") from error
    if application == 0 and tables == 0 and version == 0:
        if 0 < path.stat().st_size < _SMALLEST_DATABASE:
            # SQLite takes a text of a few bytes for an empty database and would write over it.
            raise OutboxForeign(f"{path} is no SQLite database")
        return 0
    if application != APPLICATION_ID:
        raise OutboxForeign(f"{path} has application_id {application:#x}")
    if version > VERSION:
        raise OutboxNewer(f"{path} has format {version}, this agent knows up to {VERSION}")
    return int(version)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Brings a file of `version` (0: new) to VERSION in one transaction: wholly or not at all."""
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in CREATE_V1:
            connection.execute(statement)
        # A name for this installation, so that the keys of two installations can never be the same.
        connection.execute("INSERT INTO note VALUES ('installation', ?)", (secrets.token_hex(8),))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
