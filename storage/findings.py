"""What can still be read of a damaged outbox: every row whose checksum holds, wherever it stands. Writes nothing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from storage import pages
from storage.books import FIELDS
from storage.envelope import Envelope
from storage.errors import OutboxDamaged
from storage.guard import Value, guard
from storage.images import Images
from storage.schema import COLUMNS, INSTALLATION

Describe = Callable[[bytes], tuple[str, int] | None]  # a body -> its topic and how many records it holds
ParkedRow = tuple[Any, ...]
Where = tuple[int, int, int]  # page (0: a stray one), age of its version (number of the stray one), age of the chain

_KEY = re.compile(r"(?P<installation>[0-9a-f]{16})-(?P<seq>\d{1,18})-(?P<short>[0-9a-f]{16})(?P<half>(?:\.[01])*)")
_PENDING = FIELDS.index("pending")
_OF_THE_FILE = 1 << 30  # older than every version in a WAL


@dataclass(frozen=True, slots=True)
class Found:
    """An envelope without its body, and where it was. `age`: how many newer versions that page has."""

    envelope: Envelope
    size: int
    where: Where

    @property
    def age(self) -> int:
        number, age, _ = self.where
        return age if number else 0

    @property
    def is_old(self) -> bool:
        """Whether it may have been settled since that version of its page was written."""
        return self.age > 0 or not self.where[0]


@dataclass(slots=True)
class Findings:
    """Rows by what names them. Bodies stay where they are: all of them may be more than the memory holds."""

    installation: str | None
    envelopes: dict[str, Found] = field(default_factory=dict)
    parked: dict[str, ParkedRow] = field(default_factory=dict)
    books: dict[str, tuple[int, ...]] = field(default_factory=dict)
    bookmarks: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)  # at_seq, -age, value
    notes: dict[str, tuple[int, str]] = field(default_factory=dict)  # -age, value
    marks: dict[int, str] = field(default_factory=dict)
    gaps: dict[int, tuple[int, tuple[Value, ...]]] = field(default_factory=dict)  # -age, the row without its guard
    broken_gaps: set[int] = field(default_factory=set)  # numbers of rows that are not what was written

    @property
    def own_installation(self) -> str | None:
        """Whose file it is as the file itself says it: its note, else most of the keys; None when nothing does."""
        if INSTALLATION in self.notes:
            return self.notes[INSTALLATION][1]
        keys = Counter(named["installation"] for key in self.envelopes if (named := _KEY.fullmatch(key)))
        return keys.most_common(1)[0][0] if keys else None

    def known_gaps(self) -> list[tuple[Value, ...]]:
        """The rows of gaps. One that stands in an older version of a page only was joined with others since, when there
        is such a joint one of its kind with a number before it: then it is counted there."""
        joint = [(_kind(row), row[0]) for age, row in self.gaps.values() if age == 0 and cast("int", row[-1]) > 1]
        return [
            row
            for age, row in self.gaps.values()
            if age == 0 or not any(kind == _kind(row) and cast("int", at) < cast("int", row[0]) for kind, at in joint)
        ]

    @property
    def lost_gaps(self) -> int:
        """How many known losses are known no more."""
        return len(self.broken_gaps - {cast("int", row[0]) for row in self.known_gaps()})

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recognised as ours."""
        return not (self.envelopes or self.parked or self.books or self.notes)


def find(there: Images, describe: Describe, installation: str | None) -> Findings:
    """Everything of ours in the pages. `installation`: whose they should be, when that is known."""
    found = _found(there, describe, installation)
    own = found.own_installation
    # Without the name, a key that was hit cannot be told; so they are gone through once more.
    return found if own in {None, installation} else _found(there, describe, own)


def _found(there: Images, describe: Describe, installation: str | None) -> Findings:
    found = Findings(installation)
    for row, where in _rows(there):
        _sort_in(found, row, where, describe)
    return found


def load(there: Images, found: Found, describe: Describe, installation: str | None) -> Envelope:
    """The envelope with its body. Raises OutboxDamaged when it cannot be read a second time."""
    for row in _rows_at(there, found.where):
        envelope = mended(_envelope(row), describe, installation) if _is_envelope(row) else None
        if envelope is not None and envelope.key == found.envelope.key:
            return replace(envelope, doubtful=found.envelope.doubtful)
    raise OutboxDamaged(f"{found.envelope.key} was there and is not any more")


def mended(envelope: Envelope, describe: Describe, installation: str | None) -> Envelope | None:
    """The envelope with what its body tells about it where its row is damaged; None when the body is damaged."""
    if envelope.is_intact and envelope.guard is not None:
        return envelope
    digest = hashlib.sha256(envelope.body)
    named = _KEY.fullmatch(envelope.key)
    is_named = named is not None and named["short"] == digest.hexdigest()[:16]
    told = describe(envelope.body) if is_named or digest.digest() == envelope.sha256 else None
    if told is None:
        return envelope if envelope.is_intact else None
    fitted = replace(envelope, topic=told[0], records=told[1], sha256=digest.digest())
    candidates = [replace(fitted, seq=seq, place=place, key=key) for seq, place, key in _names(fitted, installation)]
    if envelope.is_intact and envelope in candidates:
        return envelope  # of format 1, which had no checksum
    # The row's own checksum says which of them is what was written.
    whole = next((each for each in candidates if each.guard == each.guard_now), None)
    return whole or replace(candidates[0], doubtful=True, guard=None)


def _names(envelope: Envelope, installation: str | None) -> Iterator[tuple[int, int, str]]:
    """What number, place and key may have been, the likeliest first: the key holds the number and the body's hash."""
    named = _KEY.fullmatch(envelope.key)
    short = envelope.sha256.hex()[:16]
    place = envelope.place if 0 < envelope.place <= envelope.seq else envelope.seq
    if named is not None and named["half"]:  # the key of a half was made from a body that is not there any more
        yield envelope.seq, place, envelope.key
    numbers = [int(named["seq"])] if named is not None and named["short"] == short else []
    for seq in (*numbers, envelope.seq):
        for prefix in (named["installation"] if named is not None else installation, installation):
            for at in (min(place, seq), seq, envelope.place):
                yield seq, at, f"{prefix or 'mended'}-{seq}-{short}"


def pending(found: Findings, books: Mapping[str, tuple[int, ...]], first: Mapping[str, int]) -> list[Found]:
    """The envelopes that still wait, in the order of their numbers: not split, not parked, not settled, which is what
    stood before the `first` place of its topic.

    Of those that stand only in older versions of pages so many are taken as the `books` miss, the newest first: the
    others were rather settled since.
    """
    named = {*found.envelopes, *found.parked}
    waiting = [
        each
        for key, each in found.envelopes.items()
        if each.envelope.place >= first.get(each.envelope.topic, 0)
        and key not in found.parked
        and not {f"{key}.0", f"{key}.1"} & named
    ]
    chosen = [each for each in waiting if each.age == 0]
    for each in sorted((each for each in waiting if each.age > 0), key=lambda each: each.envelope.place, reverse=True):
        missing = _missing(each.envelope.topic, chosen, books)
        if missing is None or missing >= each.envelope.records:
            chosen.append(each)
    by_seq: dict[int, Found] = {}
    for each in sorted(chosen, key=lambda each: each.envelope.key):
        by_seq.setdefault(each.envelope.seq, each)
    return [by_seq[seq] for seq in sorted(by_seq)]


def _missing(topic: str, chosen: list[Found], books: Mapping[str, tuple[int, ...]]) -> int | None:
    if topic not in books:
        return None
    return books[topic][_PENDING] - sum(each.envelope.records for each in chosen if each.envelope.topic == topic)


# -- how -------------------------------------------------------------------------------------------------------------


def _rows(there: Images) -> Iterator[tuple[pages.Row, Where]]:
    free = there.free()
    for number in there.numbers:
        if number in free:
            continue  # what stands there was deleted
        versions = len(there.versions(number))
        for age in range(versions):
            for chain in _chains(age, is_last=age == versions - 1) if there.frames else (age,):
                where = (number, age, chain)
                for row in _rows_at(there, where):
                    yield row, where
    for stray in range(len(there.strays)):
        for row in _rows_at(there, (0, stray, 0)):
            yield row, (0, stray, 0)


def _chains(age: int, *, is_last: bool) -> tuple[int, ...]:
    """Of which ages the pages of overflow are tried: a page that is written anew may have a row whose rest is not,
    and what stands in the file may belong to a WAL that is not the one beside it."""
    return (age, age + 1, _OF_THE_FILE) if is_last else (age, age + 1)


def _rows_at(there: Images, where: Where) -> Iterator[pages.Row]:
    number, age, chain = where
    page = there.versions(number)[age] if number else there.strays[age]
    return pages.rows(page, first=number == 1, overflow=lambda first, wanted: there.overflow(first, wanted, chain))


def _sort_in(found: Findings, row: pages.Row, where: Where, describe: Describe) -> None:
    if _is_envelope(row):
        _add_envelope(found, row, where, describe)
    elif row.values[0] is None:
        _add_numbered(found, row, where[1] if where[0] else 1)
    else:
        _add_named(found, row, where[1] if where[0] else 0)


def _add_numbered(found: Findings, row: pages.Row, age: int) -> None:
    match row.values:
        case (None, str(), str(key), int(), bytes(body), bytes(digest), float() | int(), float() | int(), str()):
            if hashlib.sha256(body).digest() == digest:
                found.parked.setdefault(key, (row.number, *row.values[1:]))
        case (None, str(name), bytes(check)):
            if _holds("mark", (row.number, name), check):
                found.marks[row.number] = name
        case (None, str(), str(), _, _, _, str(), float() | int() as at, bytes(check)):  # as format 2 has written it
            _add_gap(found, (row.number, *row.values[1:7], float(at)), check, age)
        case (None, str(), str(), _, _, _, str(), float() | int() as at, int(times), bytes(check)):
            _add_gap(found, (row.number, *row.values[1:7], float(at), times), check, age)


def _add_gap(found: Findings, written: tuple[Value, ...], check: bytes, age: int) -> None:
    number = cast("int", written[0])
    if not _holds("gap", written, check):
        if age == 0:
            found.broken_gaps.add(number)
        return
    values = written if len(written) == len(COLUMNS["gap"]) - 1 else (*written, 1)
    # One that took the place of others has the number of the first of them; its row is the newer one.
    times = cast("int", values[-1])
    known_age, known = found.gaps.get(number, (-age, values))
    if times >= cast("int", known[-1]):
        found.gaps[number] = max(known_age, -age) if known == values else -age, values


def _kind(row: tuple[Value, ...]) -> tuple[Value, ...]:
    _, source, reason, _, _, estimate, *_ = row
    return source, reason, estimate is None


def _add_named(found: Findings, row: pages.Row, age: int) -> None:
    match row.values:
        case (str(topic), *numbers, bytes(check)) if len(numbers) == len(FIELDS):
            if _holds("tally", (topic, *numbers), check):
                found.books[topic] = max(found.books.get(topic, ()), cast("tuple[int, ...]", tuple(numbers)))
        case (str(name), bytes(value), int() | None as at, bytes(check)):
            if _holds("bookmark", (name, value, at), check):
                known = (at or 0, -age, value)
                found.bookmarks[name] = max(found.bookmarks.get(name, known), known)
        case (str(name), str(value), bytes(check)):
            # One that stands in an older version only was removed since; the name of the installation never is.
            if (age == 0 or name == INSTALLATION) and _holds("note", (name, value), check):
                found.notes[name] = max(found.notes.get(name, (-age, value)), (-age, value))


def _holds(table: str, values: tuple[Any, ...], check: bytes) -> bool:
    return guard(table, *values) == check


def _is_envelope(row: pages.Row) -> bool:
    match row.values:
        case (None, str(), int(), str(), int(), bytes(), bytes(), float() | int(), *_):
            return len(row.values) in {8, len(COLUMNS["envelope"])}  # 8: as format 1 has written it
    return False


def _envelope(row: pages.Row) -> Envelope:
    values = cast("tuple[Any, ...]", row.values)
    topic, place, key, records, body, digest, created_at, *rest = values[1:]
    doubtful, check = rest if len(rest) == 2 else (0, None)
    return Envelope(row.number, topic, place, key, records, body, digest, float(created_at), bool(doubtful), check)


def _add_envelope(found: Findings, row: pages.Row, where: Where, describe: Describe) -> None:
    envelope = mended(_envelope(row), describe, found.installation)
    if envelope is None:
        return
    new = Found(replace(envelope, body=b""), len(envelope.body), where)
    known = found.envelopes.get(envelope.key, new)
    best = new if new.age < known.age else known
    # That somebody doubted it once is never forgotten.
    doubted = new.envelope.doubtful or known.envelope.doubtful
    found.envelopes[envelope.key] = replace(best, envelope=replace(best.envelope, doubtful=doubted))
