"""The rows of envelopes and of what was parked. Keeps no books: who changes rows here changes those as well."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from storage.envelope import PARTIAL, Draft, Envelope
from storage.errors import EnvelopeGone
from storage.schema import COLUMNS

_NAMES = ", ".join(COLUMNS["envelope"])
_OLDEST = f"""
    SELECT {_NAMES} FROM envelope WHERE topic = ? AND seq NOT IN ({{skipped}}) ORDER BY place, key LIMIT 1
"""
_ONE = f"SELECT {_NAMES} FROM envelope WHERE seq = ?"
_STORE = f"INSERT INTO envelope ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS['envelope']))})"
_PARK = f"INSERT INTO parked VALUES ({', '.join('?' * len(COLUMNS['parked']))})"
_ASIDE = "SELECT topic, key, records, body, sha256, created_at, reason FROM parked WHERE seq = ?"
_RETRIABLE = "SELECT seq FROM parked WHERE reason NOT LIKE ? ORDER BY seq"
_BY_KEY = f"SELECT {_NAMES} FROM envelope WHERE key = ?"
_LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'envelope'"


def last_seq(sql: sqlite3.Connection) -> int:
    """The highest sequence number ever given; 0 when there was none."""
    ((number,),) = sql.execute(_LAST_SEQ).fetchall()
    return int(number)


def made_of(draft: Draft, seq: int, installation: str, created_at: float) -> Envelope:
    """A draft as the envelope with that number."""
    digest = hashlib.sha256(draft.body)
    key = f"{installation}-{seq}-{digest.hexdigest()[:16]}"
    return Envelope(seq, draft.topic, seq, key, draft.records, draft.body, digest.digest(), created_at)


def halves(envelope: Envelope, drafts: Sequence[Draft], seq: int) -> Iterator[Envelope]:
    """The halves of an envelope at its place, numbered from `seq` on, with its key and .0 and .1 behind it."""
    for number, draft in enumerate(drafts):
        half = replace(envelope, seq=seq + number, key=f"{envelope.key}.{number}", records=draft.records)
        yield replace(half, body=draft.body, sha256=hashlib.sha256(draft.body).digest())


def oldest(sql: sqlite3.Connection, topic: str, skip: Collection[int]) -> Envelope | None:
    """The first in the order of sending whose number is not in `skip`; as it stands there, whole or not."""
    row = sql.execute(_OLDEST.format(skipped=", ".join("?" * len(skip))), (topic, *skip)).fetchone()
    return None if row is None else Envelope(*row)


def by_key(sql: sqlite3.Connection, key: str) -> Envelope | None:
    """The envelope with that key; None when none waits that has it."""
    row = sql.execute(_BY_KEY, (key,)).fetchone()
    return None if row is None else Envelope(*row)


def by_seq(sql: sqlite3.Connection, seq: int) -> Envelope | None:
    """The envelope with that number; None when none waits that has it."""
    row = sql.execute(_ONE, (seq,)).fetchone()
    return None if row is None else Envelope(*row)


def store(sql: sqlite3.Connection, envelope: Envelope) -> None:
    """Writes the row."""
    sql.execute(_STORE, envelope.row)


def remove(sql: sqlite3.Connection, envelope: Envelope) -> None:
    """Deletes the row. Raises EnvelopeGone when it is not there."""
    if sql.execute("DELETE FROM envelope WHERE seq = ?", (envelope.seq,)).rowcount != 1:
        raise EnvelopeGone(f"seq {envelope.seq}")


def doubt(sql: sqlite3.Connection, seq: int) -> None:
    """Marks an envelope as one that may have arrived already, if it is still there."""
    envelope = by_seq(sql, seq)
    if envelope is not None and envelope.is_intact:
        doubted = replace(envelope, doubtful=True)
        sql.execute("UPDATE envelope SET doubtful = 1, guard = ? WHERE seq = ?", (doubted.guard_now, seq))


def park(sql: sqlite3.Connection, envelope: Envelope, records: int, at: float, reason: str) -> None:
    """Keeps the body aside; `records`: how many of it were not taken."""
    head = (envelope.seq, envelope.topic, envelope.key, records, envelope.body, envelope.sha256)
    sql.execute(_PARK, (*head, envelope.created_at, at, reason))


def parked(sql: sqlite3.Connection) -> list[tuple[int, int, str]]:
    """What was kept aside: seq, records, reason; oldest first."""
    return sql.execute("SELECT seq, records, reason FROM parked ORDER BY seq").fetchall()


def retriable(sql: sqlite3.Connection) -> list[int]:
    """The numbers of what was kept aside as a whole; of the rest the backend has taken a part."""
    return [seq for (seq,) in sql.execute(_RETRIABLE, (f"{PARTIAL}%",)).fetchall()]


def aside(sql: sqlite3.Connection, seq: int) -> tuple[Envelope, str] | None:
    """What was kept aside under that number, as the envelope that it was, and why; None when there is none."""
    row = sql.execute(_ASIDE, (seq,)).fetchone()
    if row is None:
        return None
    topic, key, records, body, digest, created_at, reason = row
    return Envelope(seq, topic, seq, key, records, body, digest, created_at), reason


def forget_aside(sql: sqlite3.Connection, seq: int) -> None:
    """Deletes what was kept aside."""
    sql.execute("DELETE FROM parked WHERE seq = ?", (seq,))
