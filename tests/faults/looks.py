"""What an outbox holds, seen through its public methods, and what may be said of it after a power cut.

Records are numbered in the order in which they are captured and each body names its own, so that a loss and an
invention can be seen from outside. The bookmark `watch` is the number of the next record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, Self

from storage.envelope import Change, Draft
from storage.outbox import Outbox

TOPICS = ("queries", "command_result")
BOOKMARK, NOTE, MARKS = "watch", "pause", ("command-1", "command-2")

Verdict = Literal["fine", "lost", "invented", "torn"]


def body(first: int, records: int, size: int) -> bytes:
    """One that names its records and cannot be taken for another, about `size` bytes."""
    return " ".join(map(str, range(first, first + records))).encode() + b"\n" + Random(first).randbytes(size)


def numbers(body: bytes) -> list[int]:
    """The records in a body; none in one that is not ours."""
    head = body[: max(body.find(b"\n"), 0)]
    return [int(word) for word in head.split()] if head.replace(b" ", b"").isdigit() else []


def halves(whole: bytes) -> tuple[list[int], list[int]]:
    """The records of the two halves of a split."""
    records = numbers(whole)
    return records[: len(records) // 2], records[len(records) // 2 :]


def change(first: int, *records: int, topic: str = "queries", size: int = 200, **more: Any) -> Change:
    """Envelopes with so many records each, the first of them number `first`, and the bookmark behind the last."""
    drafts = []
    for count in records:
        drafts.append(Draft(topic, count, body(first, count, size)))
        first += count
    return Change(tuple(drafts), bookmarks={BOOKMARK: str(first).encode()}, **more)


def opened(directory: Path) -> Outbox:
    """The outbox in `directory`, opened or made as it is everywhere here."""
    return Outbox(directory, topics=TOPICS)


@dataclass(frozen=True)
class Look:
    """One look. `envelopes`: topic, key, count, records, hash, in the order of sending.

    `books`: by topic captured, delivered, discarded, lost, parked, pending, pending bytes, envelopes, gaps.
    """

    installation: str
    envelopes: list[list[Any]]
    parked: list[list[Any]]
    bookmark: str | None
    note: str | None
    marks: list[str]
    gaps: list[list[Any]]
    books: dict[str, list[int]]
    is_sound: bool

    @classmethod
    def at(cls, outbox: Outbox) -> Self:
        """What `outbox` holds now. `is_sound`: all bodies are what was stored, and the books balance and agree."""
        envelopes: list[list[Any]] = []
        books: dict[str, list[int]] = {}
        is_sound = True
        for topic in TOPICS:
            there, size, skip = 0, 0, list[int]()
            while envelope := outbox.head(topic, skip):
                skip.append(envelope.seq)
                there, size = there + envelope.records, size + len(envelope.body)
                records = numbers(envelope.body)
                is_sound &= envelope.is_intact and envelope.records == len(records)
                envelopes.append([topic, envelope.key, envelope.records, records, envelope.sha256.hex()])
            tally = outbox.tally(topic)
            books[topic] = [tally.captured, tally.delivered, tally.discarded, tally.lost, tally.parked, tally.pending]
            books[topic] += [tally.pending_bytes, tally.envelopes, tally.gaps]
            waiting = (tally.pending, tally.pending_bytes, tally.envelopes)
            is_sound &= tally.balances and waiting == (there, size, len(skip))
        parked: list[list[Any]] = [list(row) for row in outbox.parked()]
        bookmark = outbox.bookmark(BOOKMARK)
        is_sound &= sum(row[1] for row in parked) == sum(each[4] for each in books.values())
        return cls(
            installation=outbox.installation,
            envelopes=envelopes,
            parked=parked,
            bookmark=bookmark.decode() if bookmark is not None else None,
            note=outbox.note(NOTE),
            marks=[name for name in MARKS if outbox.has_mark(name)],
            gaps=[[gap.source, gap.reason] for gap in outbox.gaps()],
            books=books,
            is_sound=is_sound,
        )

    @property
    def keys(self) -> list[str]:
        """Of the envelopes that wait."""
        return [envelope[1] for envelope in self.envelopes]

    @property
    def waiting(self) -> list[int]:
        """The records that wait to be sent."""
        return [number for envelope in self.envelopes for number in envelope[3]]

    @property
    def captured(self) -> int:
        """How many records were ever captured."""
        return sum(each[0] for each in self.books.values())

    @property
    def is_new(self) -> bool:
        """Whether it is that of an outbox into which nothing was ever put."""
        nothing = Look(self.installation, [], [], None, None, [], [], {topic: [0] * 9 for topic in TOPICS}, True)
        return self == nothing and bool(self.installation)

    @property
    def as_json(self) -> dict[str, Any]:
        """Itself, as something that can be written down."""
        return asdict(self)


def judge(found: Look, before: Look | None, after: Look | None) -> Verdict:
    """What is to be said of an outbox that must be as it was `before` the last call or as it is `after` it.

    `before` None: that call made the outbox. `after` None: no call was under way.
    """
    allowed = [look for look in (before, after) if look is not None]
    if found.is_sound and (found in allowed or (before is None and found.is_new)):
        return "fine"
    there = Counter(found.waiting)
    if before is not None:
        demanded = set(before.waiting).intersection(*(look.waiting for look in allowed))
        if not demanded <= set(there) or found.captured < before.captured or found.installation != before.installation:
            return "lost"
    known = {number for look in allowed for number in look.waiting}
    return "invented" if not set(there) <= known or there.total() != len(there) else "torn"
