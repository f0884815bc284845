"""What goes into an outbox and what comes out of it: frozen shapes, no database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.guard import guard

QUERIES, COMMAND_RESULT = "queries", "command_result"  # the topics
PARTIAL = "partial"  # how the reason begins of what was parked because the backend took only a part of its records


@dataclass(frozen=True, slots=True)
class Draft:
    """A body that wants to become an envelope. `body`: one gzip member; `records`: how many are inside."""

    topic: str
    records: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """One stored, ready-made request body. `place` orders sending; `created_at` in Unix seconds.

    `doubtful`: it was offered before and nobody knows what became of it, so its acceptance may be the second.
    `guard`: the checksum of the row; None for a row that an earlier format has written.
    """

    seq: int
    topic: str
    place: int
    key: str
    records: int
    body: bytes
    sha256: bytes
    created_at: float
    doubtful: bool = False
    guard: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def is_intact(self) -> bool:
        """Whether body and row are still what was stored."""
        return hashlib.sha256(self.body).digest() == self.sha256 and self.guard in {None, self.guard_now}

    @property
    def row(self) -> tuple[int | str | bytes | float, ...]:
        """The row that stores it, with the checksum that belongs to it."""
        head = (self.seq, self.topic, self.place, self.key, self.records, self.body, self.sha256)
        return (*head, float(self.created_at), int(self.doubtful), self.guard_now)

    @property
    def guard_now(self) -> bytes:
        """The checksum that the row should carry."""
        return guard(
            *("envelope", self.seq, self.topic, self.place, self.key, self.records),
            *(self.sha256, float(self.created_at), int(self.doubtful)),
        )


@dataclass(frozen=True, slots=True)
class Gap:
    """A known loss at a source: why, from when to when (ISO text or None), and how many (None: unknown).

    `times`: how often it happened, when several became one; `at`: when it was written down, Unix seconds.
    """

    source: str
    reason: str
    since: str | None = None
    until: str | None = None
    estimate: int | None = None
    detail: str = ""
    times: int = 1
    at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class LossSum:
    """What is known to be lost at a source for one reason: how often, how many records, and how often nobody knows."""

    source: str
    reason: str
    times: int
    estimate: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Losses:
    """What is known to be lost, bounded in size: the newest gaps, the last one first, and the sums of all."""

    newest: tuple[Gap, ...] = ()
    sums: tuple[LossSum, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What must become durable together: all of it or none of it.

    bookmarks: name to opaque bytes; notes: name to text, None removes; marks: names to be remembered as done.
    """

    drafts: tuple[Draft, ...] = ()
    bookmarks: Mapping[str, bytes] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    notes: Mapping[str, str | None] = field(default_factory=dict)
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """The books of one topic, in records (pending_bytes: compressed bodies). captured = the sum of the next five.

    `possible_duplicates`: delivered records whose earlier offer was answered by nothing.
    """

    captured: int = 0
    delivered: int = 0
    discarded: int = 0
    lost: int = 0
    parked: int = 0
    pending: int = 0
    pending_bytes: int = 0
    envelopes: int = 0
    possible_duplicates: int = 0
    gaps: int = 0
    oldest_at: float | None = None

    @property
    def balances(self) -> bool:
        """The conservation law of the outbox."""
        return self.captured == self.delivered + self.pending + self.parked + self.discarded + self.lost
