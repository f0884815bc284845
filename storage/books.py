"""The books of an outbox: one row a topic, changed in the transaction that changes what they count."""

from __future__ import annotations

import sqlite3
from typing import Any

from storage.envelope import Gap, Tally
from storage.errors import OutboxDamaged
from storage.guard import guard

FIELDS = (
    *("captured", "delivered", "discarded", "lost", "parked", "pending", "pending_bytes", "envelopes"),
    "possible_duplicates",
)
_COLUMNS = f"topic, {', '.join(FIELDS)}, guard"
_READ = f"SELECT {_COLUMNS} FROM tally"
_WRITE = f"INSERT OR REPLACE INTO tally ({_COLUMNS}) VALUES ({', '.join('?' * (len(FIELDS) + 2))})"
_LAST_GAP = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'gap'"
_OLDEST = "SELECT created_at FROM envelope WHERE topic = ? ORDER BY place, key LIMIT 1"
_COUNTED = {
    "pending": "SELECT coalesce(sum(records), 0), coalesce(sum(length(body)), 0), count(*) FROM envelope WHERE topic = ?",
    "parked": "SELECT coalesce(sum(records), 0) FROM parked WHERE topic = ?",
}
_ENTER_GAP = """
    INSERT INTO gap (id, source, reason, since, until, estimate, detail, created_at, guard) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

Numbers = dict[str, int]


def read_all(sql: sqlite3.Connection) -> dict[str, Tally]:
    """The books of every topic; costs the same at any backlog. Raises OutboxDamaged."""
    ((gaps,),) = sql.execute(_LAST_GAP).fetchall()
    found = {}
    for topic, *numbers, check in sql.execute(_READ).fetchall():
        _demand(topic, numbers, check)
        oldest = sql.execute(_OLDEST, (topic,)).fetchone()
        found[topic] = Tally(*numbers, gaps=gaps, oldest_at=oldest[0] if oldest else None)
    return found


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
    row = (topic, *(numbers[name] for name in FIELDS))
    sql.execute(_WRITE, (*row, guard("tally", *row)))


def recount(sql: sqlite3.Connection, topic: str) -> int:
    """Brings the books in line with what is really there: what is missing is lost, what is too much was captured.

    Gives the number of records that are lost by this. Reads everything: for bad days only.
    """
    numbers = numbers_of(sql, topic)
    records, size, envelopes = sql.execute(_COUNTED["pending"], (topic,)).fetchone()
    (parked,) = sql.execute(_COUNTED["parked"], (topic,)).fetchone()
    missing = numbers["pending"] - records + numbers["parked"] - parked
    numbers.update(pending=records, pending_bytes=size, envelopes=envelopes, parked=parked)
    numbers["lost"] += max(0, missing)
    numbers["captured"] -= min(0, missing)
    write(sql, topic, numbers)
    return max(0, missing)


def enter_gap(sql: sqlite3.Connection, gap: Gap, at: float) -> None:
    """Writes a known loss down."""
    ((last,),) = sql.execute(_LAST_GAP).fetchall()
    row: tuple[Any, ...] = (last + 1, gap.source, gap.reason, gap.since, gap.until, gap.estimate, gap.detail, float(at))
    sql.execute(_ENTER_GAP, (*row, guard("gap", *row)))


def _demand(topic: str, numbers: list[int] | tuple[int, ...], check: bytes | None) -> None:
    if check is not None and check != guard("tally", topic, *numbers):
        raise OutboxDamaged(f"the books of {topic} are not what was written")
