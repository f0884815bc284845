"""The books of an outbox.

What could go wrong: the numbers of one topic go to another; a number that a disk changed is added to and so made
right; a recount hides a loss, or invents one.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage import books, envelopes, gaps
from storage.envelope import Envelope, Gap, Tally
from storage.errors import OutboxDamaged
from storage.schema import COLUMNS, migrate

ZEROS = dict.fromkeys(books.FIELDS, 0)


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        migrate(connection, 0)
        yield connection


def envelope(seq: int, records: int, body: bytes = b"body", topic: str = "queries") -> Envelope:
    return Envelope(seq, topic, seq, f"key{seq}", records, body, hashlib.sha256(body).digest(), 1_000.0 + seq)


def put(sql: sqlite3.Connection, *envelopes: Envelope) -> None:
    for each in envelopes:
        sql.execute(f"INSERT INTO envelope VALUES ({', '.join('?' * len(COLUMNS['envelope']))})", each.row)


def park(sql: sqlite3.Connection, each: Envelope) -> None:
    row = (each.seq, each.topic, each.key, each.records, each.body, each.sha256, each.created_at, 2_000.0, "bad")
    sql.execute("INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def test_a_topic_without_books_has_empty_ones(sql: sqlite3.Connection) -> None:
    assert (books.read(sql, "queries"), books.read_all(sql), books.numbers_of(sql, "queries")) == (Tally(), {}, ZEROS)


def test_each_topic_has_its_own(sql: sqlite3.Connection) -> None:
    books.change(sql, "queries", captured=5, pending=5)
    books.change(sql, "command_result", captured=1, delivered=1)
    books.change(sql, "queries", pending=-2, delivered=2)
    assert books.read_all(sql) == {
        "queries": Tally(captured=5, pending=3, delivered=2),
        "command_result": Tally(captured=1, delivered=1),
    }


def test_the_oldest_that_waits_is_told_and_how_many_gaps_there_were(sql: sqlite3.Connection) -> None:
    put(sql, envelope(3, 1), envelope(2, 1), envelope(1, 1, topic="command_result"))
    books.change(sql, "queries", captured=2, pending=2)
    gaps.enter(sql, Gap("watch", "rotated"), 5)
    found = books.read(sql, "queries")
    assert (found.oldest_at, found.gaps) == (1_002.0, 1)


@pytest.mark.parametrize("column", [*books.FIELDS, "guard", "topic"])
def test_a_number_that_a_disk_changed_is_found_by_whoever_reads_or_changes_it(
    sql: sqlite3.Connection, column: str
) -> None:
    books.change(sql, "queries", captured=5, pending=5)
    changed = {"guard": "x'00'", "topic": "'querier'"}.get(column, f"{column} + 1")
    sql.execute(f"UPDATE tally SET {column} = {changed}")
    topic = "querier" if column == "topic" else "queries"
    with pytest.raises(OutboxDamaged, match=topic):
        books.read_all(sql)
    with pytest.raises(OutboxDamaged, match=topic):
        books.read(sql, topic)
    with pytest.raises(OutboxDamaged, match=topic):
        books.change(sql, topic, delivered=1)


def test_a_recount_that_finds_all_changes_nothing(sql: sqlite3.Connection) -> None:
    put(sql, envelope(1, 3, b"123"), envelope(2, 4))
    park(sql, envelope(3, 2))
    books.change(sql, "queries", captured=9, pending=7, parked=2, pending_bytes=7, envelopes=2)
    before = books.numbers_of(sql, "queries")
    assert books.recount(sql, "queries") == 0
    assert books.numbers_of(sql, "queries") == before


def test_what_is_missing_in_a_recount_is_lost(sql: sqlite3.Connection) -> None:
    put(sql, envelope(1, 3, b"123"))
    books.change(sql, "queries", captured=12, delivered=1, pending=7, parked=4, pending_bytes=999, envelopes=9)
    assert books.recount(sql, "queries") == 8
    assert books.numbers_of(sql, "queries") == {
        **ZEROS, "captured": 12, "delivered": 1, "pending": 3, "lost": 8, "pending_bytes": 3, "envelopes": 1
    }  # fmt: skip
    assert books.read(sql, "queries").balances


def test_what_is_too_much_in_a_recount_was_captured(sql: sqlite3.Connection) -> None:
    put(sql, envelope(1, 3), envelope(2, 3))
    books.change(sql, "queries", captured=4, pending=3, delivered=1)
    assert books.recount(sql, "queries") == 0
    found = books.read(sql, "queries")
    assert (found.captured, found.pending, found.lost, found.balances) == (7, 6, 0, True)


def test_a_recount_of_one_topic_leaves_the_others_alone(sql: sqlite3.Connection) -> None:
    put(sql, envelope(1, 1, topic="command_result"))
    books.change(sql, "command_result", captured=1, pending=1)
    books.change(sql, "queries", captured=1, pending=1)
    assert (books.recount(sql, "queries"), books.recount(sql, "command_result")) == (1, 0)


def test_doubt_is_written_into_the_row_and_its_checksum(sql: sqlite3.Connection) -> None:
    put(sql, envelope(1, 1))
    envelopes.doubt(sql, 1)
    envelopes.doubt(sql, 7)  # not there any more: nothing to doubt
    (row,) = sql.execute("SELECT * FROM envelope").fetchall()
    assert (Envelope(*row).doubtful, Envelope(*row).is_intact) == (1, True)


def test_a_damaged_row_is_not_made_right_by_doubting_it(sql: sqlite3.Connection) -> None:
    put(sql, envelope(1, 1))
    sql.execute("UPDATE envelope SET records = 500")
    envelopes.doubt(sql, 1)
    (row,) = sql.execute("SELECT * FROM envelope").fetchall()
    assert not Envelope(*row).is_intact
