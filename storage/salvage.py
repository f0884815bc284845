"""Rebuilds a damaged outbox from every row that can still be read. Deletes nothing: the damaged file is kept beside it.

What was lost is named by a gap in the rebuilt file. May be cut at any instant: the next start goes on or begins anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from storage import books, envelopes, gaps, notes
from storage.books import FIELDS
from storage.connection import connect
from storage.directory import make_private
from storage.envelope import Gap
from storage.findings import Describe, Findings, Found, find, load, pending
from storage.guard import guard
from storage.high_water import HighWater
from storage.images import Images, opened
from storage.schema import COLUMNS, INSTALLATION, PROBE, migrate
from storage.swap import REBUILDING, free_name, swap
from storage.wal import bytes_with_wal

DAMAGED, ROLLED_BACK, MISSING = "damaged", "rolled_back", "missing"

_DELIVERED = FIELDS.index("delivered")
_SEQUENCE = "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1"
_BEGIN_SEQUENCE = """
    INSERT INTO sqlite_sequence (name, seq) SELECT ?1, ?2
    WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a damaged outbox. `kept`: the name of the damaged file, None when there was none; `lost`:
    records, None when nobody can know; `bookmarks`: those whose source must not be read from where it was."""

    reason: str
    kept: str | None
    saved: int
    lost: int | None
    bookmarks: tuple[str, ...]

    def __str__(self) -> str:
        lost = "an unknown number of" if self.lost is None else f"{self.lost:,}"
        kept = f"; the damaged file is kept as {self.kept}" if self.kept else ""
        return f"The outbox was {self.reason.replace('_', ' ')}: {self.saved:,} records saved, {lost} lost{kept}"


def salvage(path: Path, reason: str, mark: HighWater | None, describe: Describe, now: float) -> Report:
    """Puts a rebuilt outbox in the place of the damaged one at `path`, which no connection may have open.

    `mark`: what is known from outside the file; `now`: Unix seconds. Raises sqlite3.Error or OSError when it cannot be
    written; the damaged file is then where it was.
    """
    kept = free_name(path, now) if bytes_with_wal(path) else None
    with opened(path) as there:
        found = find(there, describe, mark.installation if mark is not None else None)
        if mark is not None and found.notes.get(INSTALLATION, (0, mark.installation))[1] != mark.installation:
            mark = None  # it is about another outbox, which somebody has replaced by this one
        report = _Rebuilding(found, mark, reason, kept).build(there, path.with_name(REBUILDING), describe, now)
    swap(path, kept)
    return report


class _Rebuilding:
    def __init__(self, found: Findings, mark: HighWater | None, reason: str, kept: str | None) -> None:
        self._found, self._mark, self._reason, self._kept = found, mark, reason, kept
        before: Mapping[str, tuple[int, ...]] = mark.books if mark is not None else {}
        topics = sorted({*before, *found.books})
        # The mark may be older than the file after a power cut; both begin with numbers that only grow.
        self._books = {topic: max(before.get(topic, ()), found.books.get(topic, ())) for topic in topics}

    def build(self, there: Images, rebuilt: Path, describe: Describe, now: float) -> Report:
        waiting = pending(self._found, self._books, self._mark.first if self._mark is not None else {})
        make_private(rebuilt)
        with closing(connect(rebuilt)) as sql:
            for pragma in ("auto_vacuum=INCREMENTAL", "synchronous=FULL"):
                sql.execute(f"PRAGMA {pragma}")
            migrate(sql, 0, self._installation)
            sql.execute("BEGIN IMMEDIATE")
            for found in waiting:
                envelope = load(there, found, describe, self._found.installation)
                doubtful = envelope.doubtful or self._may_be_settled(found)
                envelopes.store(sql, replace(envelope, doubtful=doubtful))
            self._copy_the_rest(sql)
            report = self._balance(sql, waiting, now)
            self._raise_sequence(sql)
            sql.execute("COMMIT")
        return report

    @property
    def _installation(self) -> str | None:
        if self._mark is not None:
            return self._mark.installation
        return self._found.installation

    def _may_be_settled(self, found: Found) -> bool:
        # A file that went back may hold what was delivered since, and without a mark nobody knows what was.
        went_back = self._mark is None or self._reason == ROLLED_BACK or self._is_behind(found.envelope.topic)
        return went_back or found.is_old

    def _is_behind(self, topic: str) -> bool:
        """Whether the books that were found are not those of the end: whatever else was found may be old as well."""
        before = self._mark.books.get(topic, ()) if self._mark is not None else ()
        return self._found.books.get(topic, ()) < before

    def _copy_the_rest(self, sql: sqlite3.Connection) -> None:
        for row in self._found.parked.values():
            _put(sql, "parked", row)
        for values in self._found.known_gaps():
            _put(sql, "gap", (*values, guard("gap", *values)))
        for number, name in self._found.marks.items():
            _put(sql, "mark", (number, name, guard("mark", number, name)))
        for name, (_, value) in self._found.notes.items():
            if name in {INSTALLATION, PROBE}:
                continue
            notes.put(sql, name, value)

    def _balance(self, sql: sqlite3.Connection, waiting: list[Found], now: float) -> Report:
        for topic, numbers in self._books.items():
            books.write(sql, topic, dict(zip(FIELDS, numbers, strict=True)))
        topics = {*self._books, *(each.envelope.topic for each in waiting)}
        topics |= {str(row[1]) for row in self._found.parked.values()}
        missing = sum(books.recount(sql, topic) for topic in sorted(topics))
        lost = missing if self._books or self._mark is not None else None  # without books nobody can know
        gone = self._settle_bookmarks(sql)
        report = Report(self._reason, self._kept, sum(each.envelope.records for each in waiting), lost, gone)
        # With them goes what was lost before and whose gap was lost now.
        to_name = None if lost is None else max(lost, self._unnamed(sql))
        if to_name != 0 or gone:
            gaps.enter(sql, Gap(books.SOURCE, self._reason, None, None, to_name, self._detail(waiting)), now)
        if broken := self._found.lost_gaps:
            detail = f"what {broken:,} gaps said of earlier losses cannot be read any more"
            gaps.enter(sql, Gap(books.SOURCE, self._reason, None, None, None, detail), now)
        return report

    def _unnamed(self, sql: sqlite3.Connection) -> int:
        lost = sum(tally.lost for tally in books.read_all(sql).values())
        return books.unnamed(lost, gaps.losses(sql).sums)

    def _settle_bookmarks(self, sql: sqlite3.Connection) -> tuple[str, ...]:
        """Saves the bookmarks that can be gone on from; gives the names of the others, each with its note."""
        known = dict(self._mark.bookmarks) if self._mark is not None else {}
        newest = known.pop(notes.ANY, 0)  # of very many the mark tells only how far the newest of them was
        is_behind = newest > max((at for at, _, _ in self._found.bookmarks.values()), default=0)
        gone = [notes.ANY] if is_behind else []
        for name in sorted({*known, *self._found.bookmarks}):
            at, age, value = self._found.bookmarks.get(name, (-1, 0, b""))
            should_be_at = known.get(name, max(at, newest) if is_behind or age else at)
            if at >= 0 and self._may_go_on(at, should_be_at):
                notes.put_bookmark(sql, name, value, at)
            else:
                gone.append(name)
        # Without a mark nobody knows which there were; neither where a rebuild before this one gave all of them up.
        if self._mark is None or (self._mark.high > 0 and not known and not self._found.bookmarks):
            gone.append(notes.ANY)
        for name in gone:
            notes.give_up(sql, name, self._reason)
        return tuple(gone)

    def _may_go_on(self, at: int, should_be_at: int) -> bool:
        """Whether nothing was kept or settled of what was read behind a bookmark that stands at `at`.

        Then all of it is lost here and is read again; else going on from there would double it.
        """
        if at >= should_be_at:
            return True
        seqs = [each.envelope.seq for each in self._found.envelopes.values()]
        seqs += [row[0] for row in self._found.parked.values()]
        kept = any(at < seq <= should_be_at for seq in seqs)
        settled = self._mark is not None and (self._mark.low > at + 1 or self._is_ahead_in_delivery())
        return not kept and not settled

    def _is_ahead_in_delivery(self) -> bool:
        return any(
            numbers[_DELIVERED] > self._found.books.get(topic, numbers)[_DELIVERED]
            for topic, numbers in (self._mark.books if self._mark is not None else {}).items()
        )

    def _detail(self, waiting: list[Found]) -> str:
        low, high = (self._mark.low, self._mark.high) if self._mark is not None else (0, 0)
        there = {each.envelope.seq for each in waiting}
        # Of a range without end only the ends are looked for.
        first = next((seq for seq in range(low, high + 1) if seq not in there), None)
        last = next((seq for seq in range(high, low - 1, -1) if seq not in there), None)
        kept = f"the file is kept as {self._kept}" if self._kept else "there was no file any more"
        return f"{kept}; envelopes lost between {first} and {last}" if first is not None and low else kept

    def _raise_sequence(self, sql: sqlite3.Connection) -> None:
        high = max((each.envelope.seq for each in self._found.envelopes.values()), default=0)
        high = max(high, self._mark.high if self._mark is not None else 0)
        for statement in (_BEGIN_SEQUENCE, _SEQUENCE):
            sql.execute(statement, ("envelope", high))


def _put(sql: sqlite3.Connection, table: str, row: tuple[object, ...]) -> None:
    names = ", ".join(COLUMNS[table])
    marks = ", ".join("?" * len(row))
    sql.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", row)
