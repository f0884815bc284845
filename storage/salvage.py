"""Rebuilds a damaged outbox from every row that can still be read. Deletes nothing: the damaged file is kept beside it.

What was lost is named by a gap in the rebuilt file. May be cut at any instant: the next start goes on or begins anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from storage import books
from storage.books import FIELDS
from storage.connection import connect
from storage.directory import make_private, sync_directory
from storage.envelope import Gap
from storage.findings import Describe, Findings, Found, find, load, pending
from storage.guard import guard
from storage.high_water import HighWater
from storage.images import Images, opened
from storage.schema import COLUMNS, INSTALLATION, PROBE, migrate

REBUILDING, REBUILT = "outbox.rebuilding", "outbox.rebuilt"  # the second name means: it is whole
LOST_BOOKMARK = "lost_bookmark/"  # and the bookmark's name: a note for whoever reads its source again
ANY = "*"  # in place of the name when nobody knows which bookmarks there were
SOURCE = "outbox"
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
    finish_swap(path)
    kept = _free_name(path, now) if _bytes_of(path) or _bytes_of(_wal(path)) else None
    with opened(path) as there:
        found = find(there, describe, mark.installation if mark is not None else None)
        if mark is not None and found.notes.get(INSTALLATION, (0, mark.installation))[1] != mark.installation:
            mark = None  # it is about another outbox, which somebody has replaced by this one
        report = _Rebuilding(found, mark, reason, kept).build(there, path.with_name(REBUILDING), describe, now)
    path.with_name(REBUILDING).rename(path.with_name(REBUILT))
    sync_directory(path.parent)
    _swap(path, kept)
    return report


def finish_swap(path: Path) -> bool:
    """Ends a swap that was cut, or throws away a rebuilt file that was not whole yet; whether one was ended."""
    rebuilt = path.with_name(REBUILT)
    if rebuilt.exists() and not path.exists():
        _swap(path, _name_of_cut_swap(path))
        return True
    for name in (REBUILT, REBUILDING, f"{REBUILDING}-journal"):
        path.with_name(name).unlink(missing_ok=True)
    return False


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
                _put(sql, "envelope", replace(envelope, doubtful=doubtful).row)
            self._copy_the_rest(sql)
            report = self._balance(sql, waiting, now)
            self._raise_sequence(sql)
            sql.execute("COMMIT")
        return report

    @property
    def _installation(self) -> str | None:
        if self._mark is not None:
            return self._mark.installation
        return self._found.notes.get(INSTALLATION, (0, None))[1]

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
        for values in self._found.gaps.values():
            _put(sql, "gap", (*values, guard("gap", *values)))
        for number, name in self._found.marks.items():
            _put(sql, "mark", (number, name, guard("mark", number, name)))
        for name, (_, value) in self._found.notes.items():
            if name in {INSTALLATION, PROBE}:
                continue
            books.put_note(sql, name, value)

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
        to_name = None if lost is None else max(lost, books.unnamed(sql, SOURCE))
        if to_name != 0 or gone:
            books.enter_gap(sql, Gap(SOURCE, self._reason, None, None, to_name, self._detail(waiting)), now)
        return report

    def _settle_bookmarks(self, sql: sqlite3.Connection) -> tuple[str, ...]:
        """Saves the bookmarks that can be gone on from; gives the names of the others, each with its note."""
        known = dict(self._mark.bookmarks) if self._mark is not None else {}
        gone = []
        for name in sorted({*known, *self._found.bookmarks}):
            at, _, value = self._found.bookmarks.get(name, (-1, 0, b""))
            if at >= 0 and self._may_go_on(at, known.get(name, at)):
                books.put_bookmark(sql, name, value, at)
            else:
                gone.append(name)
        # Without a mark nobody knows which there were; neither where a rebuild before this one gave all of them up.
        if self._mark is None or (self._mark.high > 0 and not known and not self._found.bookmarks):
            gone.append(ANY)
        for name in gone:
            books.put_note(sql, f"{LOST_BOOKMARK}{name}", self._reason)
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


# -- the swap --------------------------------------------------------------------------------------------------------


def _swap(path: Path, kept: str | None) -> None:
    """In steps of which each can be the last: the rebuilt file is the sign that it is not ended."""
    wal = _wal(path)
    if path.exists() and kept is not None:
        path.rename(path.with_name(kept))
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
    if wal.exists() and kept is not None:
        # What stands in it belongs to the damaged file; beside the rebuilt one SQLite would read it.
        wal.rename(path.with_name(f"{kept}-wal"))
    for leftover in (wal, path.with_name(f"{path.name}-shm")):
        leftover.unlink(missing_ok=True)
    sync_directory(path.parent)
    path.with_name(REBUILT).rename(path)
    sync_directory(path.parent)


def _name_of_cut_swap(path: Path) -> str | None:
    """The name under which the WAL of a file that was renamed already has to be kept."""
    wal = _wal(path)
    if not wal.exists():
        return None
    found = [each for each in path.parent.glob("outbox.damaged-*") if not each.name.endswith("-wal")]
    newest = max(found, key=lambda each: each.stat().st_mtime_ns, default=None)
    if newest is not None and not newest.with_name(f"{newest.name}-wal").exists():
        return newest.name
    return _free_name(path, wal.stat().st_mtime)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _free_name(path: Path, now: float) -> str:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (f"outbox.damaged-{stamp}{more}" for more in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(n for n in names if not path.with_name(n).exists() and not path.with_name(f"{n}-wal").exists())
