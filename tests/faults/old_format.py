"""Outboxes of earlier formats, as those agents wrote them: made with that format's own statements, never today's."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from storage.envelope import Envelope
from storage.guard import guard
from storage.high_water import HighWater, HighWaterFile
from storage.outbox import FILE_NAME
from storage.schema import APPLICATION_ID, COLUMNS, CREATE_V1, GUARDED, UPGRADE_V2, columns_in
from tests.faults.looks import BOOKMARK, MARKS, NOTE, Look, body

INSTALLATION = "0123456789abcdef"
CREATED_AT = 1_700_000_000.0
QUERIES, RESULTS = "queries", "command_result"
# seq, topic, place, first record, records; the last is the second half of a split whose first half was delivered.
ENVELOPES = ((3, QUERIES, 3, 4, 2), (4, RESULTS, 4, 6, 1), (6, QUERIES, 5, 9, 2))
PARKED = (2, QUERIES, 2, 3, 1)
BOOKS = {QUERIES: (10, 5, 0, 0, 1, 4), RESULTS: (1, 0, 0, 0, 0, 1)}  # captured, ..., pending
REASON, GAP = "refused", ("watch", "truncated")
HIGHEST = max(row[0] for row in ENVELOPES)
FORMATS = (1, GUARDED)


def outbox_of_format(version: int, *, is_closed: bool) -> tuple[dict[str, bytes], Look]:
    """The files of one, and what a look into it must show. `is_closed`: no WAL is left beside it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / FILE_NAME
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            _fill(connection)
            if version == GUARDED:
                _guard(connection)
                _mark(path.parent)
            left = _files(path.parent)
        return _files(path.parent) if is_closed else left, _look()


def version(directory: Path) -> int:
    """The format of the outbox in `directory`."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}


def _key(seq: int, content: bytes) -> str:
    return f"{INSTALLATION}-{seq}-{hashlib.sha256(content).hexdigest()[:16]}"


def _keyed(row: tuple[int, str, int, int, int]) -> tuple[str, bytes]:
    seq, _, place, first, records = row
    content = body(first, records, 100)
    # The key of a half is its parent's with its number behind it; the parent had the number that is the place.
    return (_key(seq, content) if place == seq else f"{_key(place, b'whole')}.1"), content


def _fill(connection: sqlite3.Connection) -> None:
    for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for statement in CREATE_V1:
        connection.execute(statement)
    for row in ENVELOPES:
        key, content = _keyed(row)
        values = (*row[:3], key, row[4], content, hashlib.sha256(content).digest(), CREATED_AT)
        connection.execute("INSERT INTO envelope VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    key, content = _keyed(PARKED)
    aside = (
        PARKED[0],
        QUERIES,
        key,
        PARKED[4],
        content,
        hashlib.sha256(content).digest(),
        CREATED_AT,
        CREATED_AT,
        REASON,
    )
    connection.execute("INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", aside)
    for topic, books in BOOKS.items():
        connection.execute("INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (topic, *books, *_waiting(topic)))
    connection.execute("INSERT INTO gap VALUES (1, ?, ?, NULL, NULL, NULL, '', ?)", (*GAP, CREATED_AT))
    connection.execute("INSERT INTO bookmark VALUES (?, ?)", (BOOKMARK, b"11"))
    connection.execute("INSERT INTO note VALUES ('installation', ?), (?, 'since 1')", (INSTALLATION, NOTE))
    connection.execute("INSERT INTO mark (name) VALUES (?)", MARKS[:1])
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute("PRAGMA user_version=1")
    connection.execute("COMMIT")


def _guard(connection: sqlite3.Connection) -> None:
    """As an agent of format 2 has left it: each row with its checksum."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in UPGRADE_V2:
        connection.execute(statement)
    connection.execute("UPDATE bookmark SET at_seq = ?", (HIGHEST,))
    for table in ("tally", "gap", "bookmark", "note", "mark"):
        for row in connection.execute(f"SELECT {', '.join(columns_in(GUARDED, table)[:-1])} FROM {table}").fetchall():
            _vouch(connection, table, row[0], guard(table, *row))
    for row in connection.execute(f"SELECT {', '.join(COLUMNS['envelope'])} FROM envelope").fetchall():
        _vouch(connection, "envelope", row[0], Envelope(*row).guard_now)
    connection.execute(f"PRAGMA user_version={GUARDED}")
    connection.execute("COMMIT")


def _vouch(connection: sqlite3.Connection, table: str, name: object, check: bytes) -> None:
    connection.execute(f"UPDATE {table} SET guard = ? WHERE {COLUMNS[table][0]} = ?", (check, name))


def _mark(directory: Path) -> None:
    books = {topic: (*numbers, *_waiting(topic), 0) for topic, numbers in BOOKS.items()}
    low, first = min(row[0] for row in ENVELOPES), {QUERIES: 3, RESULTS: 4}
    mark = HighWaterFile(directory)
    mark.write(HighWater(GUARDED, INSTALLATION, HIGHEST, low, 0, books, {BOOKMARK: HIGHEST}, first))
    mark.close()


def _waiting(topic: str) -> tuple[int, int]:
    """Bytes and number of what waits."""
    sizes = [len(_keyed(row)[1]) for row in ENVELOPES if row[1] == topic]
    return sum(sizes), len(sizes)


def _look() -> Look:
    envelopes = []
    for row in ENVELOPES:
        key, content = _keyed(row)
        names = list(range(row[3], row[3] + row[4]))
        envelopes.append([row[1], key, row[4], names, hashlib.sha256(content).hexdigest()])
    return Look(
        installation=INSTALLATION,
        envelopes=sorted(envelopes, key=lambda envelope: envelope[0] != QUERIES),
        parked=[[PARKED[0], PARKED[4], REASON]],
        bookmark="11",
        note="since 1",
        marks=list(MARKS[:1]),
        gaps=[list(GAP)],
        books={topic: [*books, *_waiting(topic), 1] for topic, books in BOOKS.items()},
        is_sound=True,
    )
