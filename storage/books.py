"""The books of an outbox: one row a topic, changed in the transaction that changes what they count."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from storage import gaps
from storage.envelope import LossSum, Tally
from storage.errors import OutboxDamaged
from storage.guard import guard
from storage.schema import GUARDED

FIELDS: tuple[str, ...] = (
    *("captured", "delivered", "discarded", "lost", "parked", "pending", "pending_bytes", "envelopes"),
    "possible_duplicates",
)
SOURCE = "outbox"  # of the gaps that the outbox itself has

_NEW_IN_2 = ("possible_duplicates",)
_COLUMNS = f"topic, {', '.join(FIELDS)}, guard"
_READ = f"SELECT {_COLUMNS} FROM tally"
_WRITE = f"INSERT OR REPLACE INTO tally ({_COLUMNS}) VALUES ({', '.join('?' * (len(FIELDS) + 2))})"
_OLDEST = "SELECT created_at FROM envelope WHERE topic = ? ORDER BY place, key LIMIT 1"
_PENDING = """
    SELECT coalesce(sum(records), 0), coalesce(sum(length(body)), 0), count(*) FROM envelope WHERE topic = ?
"""
_PARKED = "SELECT coalesce(sum(records), 0) FROM parked WHERE topic = ?"

Numbers = dict[str, int]


def read_all(sql: sqlite3.Connection) -> dict[str, Tally]:
    """The books of every topic; costs the same at any backlog. Raises OutboxDamaged."""
    return {row[0]: _tally(sql, row) for row in sql.execute(_READ).fetchall()}


def read(sql: sqlite3.Connection, topic: str) -> Tally:
    """The books of one topic; empty ones when it has none yet. Raises OutboxDamaged."""
    row = sql.execute(f"{_READ} WHERE topic = ?", (topic,)).fetchone()
    return Tally(gaps=gaps.so_far(sql)) if row is None else _tally(sql, row)


def fields_of(version: int) -> tuple[str, ...]:
    """The numbers that a file of that format has of each topic."""
    return FIELDS if version >= GUARDED else tuple(name for name in FIELDS if name not in _NEW_IN_2)


def unnamed(lost: int, known: Sequence[LossSum]) -> int:
    """How many of the `lost` records no gap of the outbox's own names; 0 when one of these knows no number."""
    named = [each for each in known if each.source == SOURCE]
    return 0 if any(each.unknown for each in named) else max(0, lost - sum(each.estimate for each in named))


def change(sql: sqlite3.Connection, topic: str, **by: int) -> None:
    """Adds to the numbers of a topic, which is opened when it is new."""
    numbers = numbers_of(sql, topic)
    for name, amount in by.items():
        numbers[name] += amount
    write(sql, topic, numbers)


def numbers_of(sql: sqlite3.Connection, topic: str) -> Numbers:
    """The numbers of a topic; zeros when it has no books yet. Raises OutboxDamaged."""
    row = sql.execute(f"{_READ} WHERE topic = ?", (topic,)).fetchone()
    if row is None:
        return dict.fromkeys(FIELDS, 0)
    _demand(topic, row[1:-1], row[-1])
    return dict(zip(FIELDS, row[1:-1], strict=True))


def write(sql: sqlite3.Connection, topic: str, numbers: Numbers) -> None:
    """Replaces the numbers of a topic."""
    row = [numbers[name] for name in FIELDS]
    sql.execute(_WRITE, (topic, *row, guard("tally", topic, *row)))


def waiting(sql: sqlite3.Connection, topic: str) -> tuple[int, int, int]:
    """Counted, not from the books: records, bytes and envelopes that wait. Reads everything."""
    ((records, size, envelopes),) = sql.execute(_PENDING, (topic,)).fetchall()
    return records, size, envelopes


def kept_aside(sql: sqlite3.Connection, topic: str) -> int:
    """Counted, not from the books: records that are parked. Reads everything."""
    ((records,),) = sql.execute(_PARKED, (topic,)).fetchall()
    return int(records)


def recount(sql: sqlite3.Connection, topic: str) -> int:
    """Brings the books in line with what is really there: what is missing is lost, what is too much was captured.

    Gives the number of records that are lost by this. Reads everything: for bad days only.
    """
    numbers = numbers_of(sql, topic)
    records, size, envelopes = waiting(sql, topic)
    parked = kept_aside(sql, topic)
    missing = numbers["pending"] - records + numbers["parked"] - parked
    numbers.update(pending=records, pending_bytes=size, envelopes=envelopes, parked=parked)
    numbers["lost"] += max(0, missing)
    numbers["captured"] -= min(0, missing)
    write(sql, topic, numbers)
    return max(0, missing)


def _tally(sql: sqlite3.Connection, row: tuple[Any, ...]) -> Tally:
    topic, *numbers, check = row
    _demand(topic, numbers, check)
    return tally_of(sql, topic, FIELDS, numbers)


def tally_of(sql: sqlite3.Connection, topic: str, fields: tuple[str, ...], numbers: Sequence[int]) -> Tally:
    """The numbers of a topic with what is read beside them."""
    oldest = sql.execute(_OLDEST, (topic,)).fetchone()
    named = dict(zip(fields, numbers, strict=True))
    return Tally(**named, gaps=gaps.so_far(sql), oldest_at=oldest[0] if oldest else None)


def _demand(topic: str, numbers: list[int] | tuple[int, ...], check: bytes) -> None:
    if check != guard("tally", topic, *numbers):
        raise OutboxDamaged(f"the books of {topic} are not what was written")
