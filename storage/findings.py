"""What can still be read of a damaged outbox: every row whose checksum holds, wherever it stands. Writes nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from storage import images, pages
from storage.envelope import Envelope
from storage.guard import Value, guard
from storage.high_water import HighWater
from storage.images import Images

Describe = Callable[[bytes], tuple[str, int] | None]  # a body -> its topic and how many records it holds
ParkedRow = tuple[Any, ...]

_KEY = re.compile(r"[0-9a-f]{16}-(\d{1,18})-([0-9a-f]{16})(?:\.[01])*")
_CHAINS = 2  # so many ages of overflow pages are tried for a row


@dataclass(slots=True)
class Findings:
    """Rows by what names them. `ages`: how many newer versions the page had in which an envelope was found."""

    envelopes: dict[str, Envelope] = field(default_factory=dict)
    ages: dict[str, int] = field(default_factory=dict)
    parked: dict[str, ParkedRow] = field(default_factory=dict)
    books: dict[str, tuple[int, ...]] = field(default_factory=dict)
    bookmarks: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)  # at_seq, -age, value
    notes: dict[str, tuple[int, str]] = field(default_factory=dict)  # -age, value
    marks: dict[int, str] = field(default_factory=dict)
    gaps: dict[int, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recognised as ours."""
        return not (self.envelopes or self.parked or self.books or self.notes)


def find(path: Path, describe: Describe) -> Findings:
    """Everything of ours in the file and in the WAL beside it."""
    found = Findings()
    there = images.read(path)
    for row, age in _rows(there):
        _sort_in(found, row, age, describe)
    return found


def mended(envelope: Envelope, describe: Describe) -> Envelope | None:
    """The envelope with what its body tells about it where its row is damaged; None when the body is damaged."""
    if envelope.is_intact:
        return envelope
    digest = hashlib.sha256(envelope.body)
    short = digest.hexdigest()[:16]
    key = _KEY.fullmatch(envelope.key)
    is_named = key is not None and key.group(2) == short and "." not in envelope.key
    told = describe(envelope.body) if is_named or digest.digest() == envelope.sha256 else None
    if told is None:
        return None
    seq = int(key.group(1)) if key is not None and is_named else envelope.seq
    name = envelope.key if key is not None else f"mended-{envelope.seq}-{short}"
    place = envelope.place if 0 < envelope.place <= seq else seq
    return Envelope(seq, told[0], place, name, told[1], envelope.body, digest.digest(), envelope.created_at, True)


def pending(found: Findings, mark: HighWater | None) -> list[Envelope]:
    """The envelopes that still wait: not settled, not split, not parked; in the order of their numbers.

    Of those that stand only in older versions of pages so many are taken as the books miss.
    """
    low = mark.low if mark is not None else 0
    named = {*found.envelopes, *found.parked}
    waiting = {
        key: envelope
        for key, envelope in found.envelopes.items()
        if envelope.seq >= low and key not in found.parked and not {f"{key}.0", f"{key}.1"} & named
    }
    chosen = [envelope for key, envelope in waiting.items() if found.ages[key] == 0]
    older = sorted((e for key, e in waiting.items() if found.ages[key] > 0), key=lambda each: each.seq)
    for envelope in older:
        missing = _missing(envelope.topic, chosen, mark)
        if missing is None or missing >= envelope.records:
            chosen.append(envelope)
    by_seq: dict[int, Envelope] = {}
    for envelope in sorted(chosen, key=lambda each: each.key):
        by_seq.setdefault(envelope.seq, envelope)
    return [by_seq[seq] for seq in sorted(by_seq)]


def _missing(topic: str, chosen: list[Envelope], mark: HighWater | None) -> int | None:
    if mark is None or topic not in mark.books:
        return None
    return mark.books[topic][5] - sum(each.records for each in chosen if each.topic == topic)


# -- how -------------------------------------------------------------------------------------------------------------


def _rows(there: Images) -> Iterator[tuple[pages.Row, int]]:
    free = there.free()
    for number in there.numbers:
        if number in free:
            continue  # what stands there was deleted
        for age, page in enumerate(there.versions(number)):
            for chain in range(age, age + (_CHAINS if there.frames else 1)):
                for row in pages.rows(page, first=number == 1, overflow=_overflow(there, chain)):
                    yield row, age
    for page in there.strays:
        for row in pages.rows(page, first=False, overflow=_overflow(there, 0)):
            yield row, 0


def _overflow(there: Images, age: int) -> pages.Overflow:
    return lambda first, wanted: there.overflow(first, wanted, age)


def _sort_in(found: Findings, row: pages.Row, age: int, describe: Describe) -> None:
    match row.values:
        case (None, str(), int(), str(), int(), bytes(), bytes(), float() | int(), *_) if len(row.values) <= 10:
            _add_envelope(found, row, age, describe)
        case (None, str(), str(key), int(), bytes(body), bytes(digest), float() | int(), float() | int(), str(), *_):
            if hashlib.sha256(body).digest() == digest:
                found.parked.setdefault(key, (row.number, *row.values[1:9]))
        case (str(topic), *numbers, bytes(check)) if len(numbers) == 9:
            if _holds("tally", (topic, *numbers), check):
                found.books[topic] = max(found.books.get(topic, ()), cast("tuple[int, ...]", tuple(numbers)))
        case (str(name), bytes(value), int() | None as at, bytes(check)) if _holds("bookmark", (name, value, at), check):
            there = (at or 0, -age, value)
            found.bookmarks[name] = max(found.bookmarks.get(name, there), there)
        case (str(name), str(value), bytes(check)) if _holds("note", (name, value), check):
            found.notes[name] = max(found.notes.get(name, (-age, value)), (-age, value))
        case (None, str(name), bytes(check)) if _holds("mark", (row.number, name), check):
            found.marks[row.number] = name
        case (None, str(), str(), _, _, _, str(), float() | int(), bytes(check)):
            values = (row.number, *row.values[1:7], float(cast("float", row.values[7])))
            if _holds("gap", values, check):
                found.gaps[row.number] = values


def _holds(table: str, values: tuple[Any, ...], check: bytes) -> bool:
    return guard(table, *values) == check


def _add_envelope(found: Findings, row: pages.Row, age: int, describe: Describe) -> None:
    values = cast("tuple[Any, ...]", row.values)
    topic, place, key, records, body, digest, created_at, *rest = values[1:]
    doubtful, check = (*rest, *(0, None)[len(rest) :])
    read = Envelope(row.number, topic, place, key, records, body, digest, float(created_at), bool(doubtful), check)
    envelope = mended(read, describe)
    if envelope is None:
        return
    known = found.envelopes.get(envelope.key)
    if known is None or age < found.ages[envelope.key]:
        found.ages[envelope.key] = age
        # That somebody doubted it once is never forgotten.
        doubted = envelope.doubtful or (known is not None and known.doubtful)
        found.envelopes[envelope.key] = replace(envelope, doubtful=doubted)
