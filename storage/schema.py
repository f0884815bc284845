"""The tables of an outbox file and how a file becomes one. Decides whose file it is before it changes a byte."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from storage.errors import OutboxDamaged, OutboxForeign, OutboxInaccessible, OutboxNewer
from storage.guard import guard

APPLICATION_ID = 0x44425041  # "DBPA"
VERSION = 3
GUARDED = 2  # from this format on each row carries a checksum
TIMES = 3  # from this format on a gap says how often its loss happened
INSTALLATION = "installation"  # the note that holds this installation's name
PROBE = "probe"  # the note that is only there to be written; nobody misses it
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


# Format 2: a checksum in each row, the doubt about an answer that was lost, and how far the books of a bookmark go.
# Columns that are added are made in an instant, however large the file is; envelopes from before have no guard (NULL),
# of them the hash of the body is known anyway.
UPGRADE_V2 = (
    "ALTER TABLE envelope ADD COLUMN doubtful INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE envelope ADD COLUMN guard BLOB",
    "ALTER TABLE tally ADD COLUMN possible_duplicates INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE tally ADD COLUMN guard BLOB",
    "ALTER TABLE gap ADD COLUMN guard BLOB",
    "ALTER TABLE bookmark ADD COLUMN at_seq INTEGER",
    "ALTER TABLE bookmark ADD COLUMN guard BLOB",
    "ALTER TABLE note ADD COLUMN guard BLOB",
    "ALTER TABLE mark ADD COLUMN guard BLOB",
)
# Format 3: how often the loss of a gap happened. The guard stays the last column, so the table is made anew; as a copy,
# because SQLite before 3.35 drops no column.
UPGRADE_V3 = (
    "ALTER TABLE gap RENAME TO gap_before",
    """CREATE TABLE gap (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        since TEXT,
        until TEXT,
        estimate INTEGER,
        detail TEXT NOT NULL,
        created_at REAL NOT NULL,
        times INTEGER NOT NULL DEFAULT 1,
        guard BLOB
    )""",
    """INSERT INTO gap (id, source, reason, since, until, estimate, detail, created_at)
        SELECT id, source, reason, since, until, estimate, detail, created_at FROM gap_before""",
    "DROP TABLE gap_before",
)
_STEPS = (CREATE_V1, UPGRADE_V2, UPGRADE_V3)  # from 0 to 1, from 1 to 2, ...

# What a row consists of, as it is stored; the guard is the last column and covers all before it, except the body, for
# which its sha256 stands.
COLUMNS: dict[str, tuple[str, ...]] = {
    "envelope": ("seq", "topic", "place", "key", "records", "body", "sha256", "created_at", "doubtful", "guard"),
    "parked": ("seq", "topic", "key", "records", "body", "sha256", "created_at", "parked_at", "reason"),
    "tally": (
        *("topic", "captured", "delivered", "discarded", "lost", "parked", "pending", "pending_bytes", "envelopes"),
        *("possible_duplicates", "guard"),
    ),
    "gap": ("id", "source", "reason", "since", "until", "estimate", "detail", "created_at", "times", "guard"),
    "bookmark": ("name", "value", "at_seq", "guard"),
    "note": ("name", "value", "guard"),
    "mark": ("id", "name", "guard"),
}
_SINCE = {"doubtful": GUARDED, "possible_duplicates": GUARDED, "at_seq": GUARDED, "guard": GUARDED, "times": TIMES}


def columns_in(version: int, table: str) -> tuple[str, ...]:
    """The columns that a table has in files of that format."""
    return tuple(name for name in COLUMNS[table] if _SINCE.get(name, 1) <= version)


def identify(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the outbox in `path`; 0 when the file is new. Changes nothing.

    Raises OutboxForeign for another program's file, OutboxNewer for a version this code does not know, OutboxDamaged.
    """
    try:
        # One snapshot: another process may be making the file at this moment.
        connection.execute("BEGIN")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "unsupported file format" in str(error):  # a number in its head that no SQLite has written
            raise OutboxDamaged(f"{path} ({error})") from error
        raise OutboxInaccessible(f"{path} ({error})") from error
    except UnicodeDecodeError as error:
        raise OutboxDamaged(f"{path} (what SQLite says of it cannot be read)") from error
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname != "SQLITE_NOTADB":
            raise OutboxDamaged(f"{path} ({error})") from error
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


def installation_of(connection: sqlite3.Connection) -> str:
    """The name of the installation whose file it is; empty when it is not known."""
    row = connection.execute("SELECT value FROM note WHERE name = ?", (INSTALLATION,)).fetchone()
    return str(row[0]) if row else ""


def columns_of(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """The names of a table's columns; none when there is no such table."""
    return tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall())


def has_shape(connection: sqlite3.Connection, version: int) -> bool:
    """Whether the tables are those of that version."""
    return all(columns_of(connection, table) == columns_in(version, table) for table in COLUMNS)


def rewritten_from(version: int) -> tuple[str, ...]:
    """The tables whose rows a migration of that format writes anew; the envelopes are never among them.

    What carried a checksum before keeps it: a new one would vouch for what was damaged meanwhile.
    """
    if version == VERSION:
        return ()
    return ("gap",) if version >= GUARDED else ("tally", "gap", "bookmark", "note", "mark")


def migrate(connection: sqlite3.Connection, version: int, installation: str | None = None) -> None:
    """Brings a file of `version` (0: new) to VERSION in one transaction: wholly or not at all.

    `installation`: the name that a new file takes; a new one when there is none.
    """
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in _STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        _guard(connection, rewritten_from(version))
        if version == 0:
            # A name for this installation, so that the keys of two installations can never be the same.
            name = (INSTALLATION, installation or secrets.token_hex(8))
            connection.execute("INSERT INTO note VALUES (?, ?, ?)", (*name, guard("note", *name)))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _guard(connection: sqlite3.Connection, tables: tuple[str, ...]) -> None:
    for table in tables:
        name, columns = COLUMNS[table][0], ", ".join(COLUMNS[table][:-1])
        read, put = f"SELECT {columns} FROM {table} WHERE {name} = ?", f"UPDATE {table} SET guard = ? WHERE {name} = ?"
        # Of a file without a bound the names alone are held: there may be any number of rows.
        for key in connection.execute(f"SELECT {name} FROM {table}").fetchall():
            row = connection.execute(read, key).fetchone()
            if row is None:
                raise OutboxDamaged(f"{table} has a row that it does not find")
            connection.execute(put, (guard(table, *row), *key))
