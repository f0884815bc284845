"""Outbox files of every format that was ever released, kept as they were written.

What could go wrong: an upgrade loses what waits, renames it, sends it in another order, or changes a byte of it; the
books do not balance afterwards; a checksum that did not hold is replaced by one that does; an old file that is damaged
is refused or its records are lost; who only looks cannot read an old file any more.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from storage.audit import audit
from storage.bodies import describe
from storage.envelope import Gap, Tally
from storage.high_water import FILE_NAME as MARK_NAME
from storage.outbox import FILE_NAME, Outbox
from storage.schema import COLUMNS, VERSION, columns_in, has_shape
from storage.view import OutboxView

GOLDEN = Path(__file__).parents[2] / "golden"
TOPICS = ("command_result", "queries")
DETAIL = "rows were not read before the rotation"
GAP = Gap("default", "rotated", "2026-05-01T00:00:00", "2026-05-02T00:00:00", 5, DETAIL)
UNCOUNTED = Gap("default", "rotated", "2026-05-02T00:00:00", "2026-05-03T00:00:00", None, DETAIL)
BOOKS = Tally(
    captured=60, delivered=10, parked=1, pending=49, pending_bytes=1_166, envelopes=3, gaps=1, oldest_at=1_780_000_000.0
)


@dataclass(frozen=True)
class Old:
    """A file of that format and what is in it. `keys`: of what waits, in the order of sending."""

    format: int
    installation: str
    keys: tuple[str, ...]
    books: Tally
    gaps: tuple[Gap, ...]

    @property
    def file(self) -> Path:
        return GOLDEN / f"outbox-format-{self.format}.sqlite3"

    def put(self, directory: Path) -> Path:
        """The file, and the mark beside it where agents of that time kept one."""
        shutil.copy(self.file, directory / FILE_NAME)
        if (mark := self.file.with_suffix(".mark")).exists():
            shutil.copy(mark, directory / MARK_NAME)
        return directory

    def bodies(self) -> list[bytes]:
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro&immutable=1", uri=True)) as sql:
            rows = sql.execute("SELECT body FROM envelope WHERE topic = 'queries' ORDER BY place, key").fetchall()
        return [row[0] for row in rows]


FORMATS = (
    Old(
        1,
        "f3ed1d98356cb78d",
        (
            "f3ed1d98356cb78d-2-5c94f9314efd6fcc",
            "f3ed1d98356cb78d-4-72f1ccbcc62a6bf9.0",
            "f3ed1d98356cb78d-4-72f1ccbcc62a6bf9.1",
        ),
        BOOKS,
        (GAP,),
    ),
    Old(
        2,
        "400d58f0221fdaaa",
        (
            "400d58f0221fdaaa-2-b8497a2658bdb100",
            "400d58f0221fdaaa-4-5fb631ab3fc3c2b6.0",
            "400d58f0221fdaaa-4-5fb631ab3fc3c2b6.1",
        ),
        replace(BOOKS, pending_bytes=457, possible_duplicates=10, gaps=2),
        (GAP, UNCOUNTED),
    ),
)


@pytest.fixture(params=FORMATS, ids=lambda old: f"format {old.format}")
def old(request: pytest.FixtureRequest) -> Old:
    assert isinstance(request.param, Old)
    return request.param


def drained(outbox: Outbox) -> list[tuple[str, bytes]]:
    found = []
    while (envelope := outbox.head("queries")) is not None:
        found.append((envelope.key, envelope.body))
        outbox.accept(envelope, delivered=envelope.records)
    return found


def test_there_is_a_file_of_every_format_before_this_one_and_it_is_of_that_format() -> None:
    assert [old.format for old in FORMATS] == list(range(1, VERSION))
    for old in FORMATS:
        with closing(sqlite3.connect(f"file:{old.file}?mode=ro&immutable=1", uri=True)) as sql:
            assert sql.execute("PRAGMA user_version").fetchone() == (old.format,)
            assert [has_shape(sql, version) for version in range(1, VERSION + 1)] == [
                version == old.format for version in range(1, VERSION + 1)
            ]


def test_it_is_taken_over_with_everything_in_it(old: Old, tmp_path: Path) -> None:
    with closing(Outbox(old.put(tmp_path), topics=TOPICS)) as outbox:
        assert (outbox.installation, outbox.tally("queries"), outbox.gaps()) == (
            old.installation,
            old.books,
            list(old.gaps),
        )
        assert (outbox.bookmark("default"), outbox.note("paused/default")) == (b"60", "yes")
        assert (outbox.has_mark("command 7"), outbox.parked()) == (
            True,
            [(3, 1, "refused by the backend (status 400)")],
        )
        assert drained(outbox) == list(zip(old.keys, old.bodies(), strict=True))
    assert audit(tmp_path).balances


def test_after_the_upgrade_every_small_row_carries_its_checksum(old: Old, tmp_path: Path) -> None:
    Outbox(old.put(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert has_shape(sql, VERSION)
        for table in COLUMNS.keys() - {"envelope", "parked"}:
            assert sql.execute(f"SELECT count(*) FROM {table} WHERE guard IS NULL").fetchone() == (0,)


@pytest.mark.parametrize("table", ["tally", "gap", "bookmark", "note"])
def test_an_upgrade_vouches_for_nothing_that_was_damaged_before(table: str, tmp_path: Path) -> None:
    old = FORMATS[1]
    column = {"tally": "delivered", "gap": "estimate", "bookmark": "at_seq", "note": "value"}[table]
    where = "WHERE name = 'paused/default'" if table == "note" else ""
    with closing(sqlite3.connect(old.put(tmp_path) / FILE_NAME)) as sql:
        assert column in columns_in(old.format, table)
        assert sql.execute(f"UPDATE {table} SET {column} = 1 {where}").rowcount > 0
        sql.commit()
    told: list[str] = []
    with closing(Outbox(tmp_path, topics=TOPICS, describe=describe, on_loss=told.append)) as outbox:
        assert len(told) == 1
        assert told[0].startswith("The outbox was damaged: 50 records saved")
        assert drained(outbox) == list(zip(old.keys, old.bodies(), strict=True))


def test_control_without_damage_nothing_is_told(old: Old, tmp_path: Path) -> None:
    told: list[str] = []
    Outbox(old.put(tmp_path), topics=TOPICS, describe=describe, on_loss=told.append).close()
    assert told == []


def test_who_only_looks_reads_it_and_leaves_it_as_it_is(old: Old, tmp_path: Path) -> None:
    with OutboxView(old.put(tmp_path)) as view:
        assert (view.tally("queries"), view.bookmark("default")) == (old.books, b"60")
        assert view.losses().newest == old.gaps[::-1]
    found = audit(tmp_path)
    assert (found.balances, found.losses.newest, [account.topic for account in found.accounts]) == (
        True,
        old.gaps[::-1],
        list(TOPICS),
    )
    assert (tmp_path / FILE_NAME).read_bytes() == old.file.read_bytes()


def test_a_damaged_file_is_rebuilt_with_what_is_whole(old: Old, tmp_path: Path) -> None:
    content = bytearray((old.put(tmp_path) / FILE_NAME).read_bytes())
    content[100:200] = b"\xff" * 100  # the table of tables
    (tmp_path / FILE_NAME).write_bytes(content)
    told: list[str] = []
    with closing(Outbox(tmp_path, topics=TOPICS, describe=describe, on_loss=told.append)) as outbox:
        saved = "an unknown number of" if old.format == 1 else "0"
        assert [sentence.split(";")[0] for sentence in told] == [
            f"The outbox was damaged: 50 records saved, {saved} lost"
        ]
        assert drained(outbox) == list(zip(old.keys, old.bodies(), strict=True))
        # Nothing vouches for a bookmark of format 1 that stands there.
        assert outbox.has_lost_bookmark("default") == (old.format == 1)
        assert set(old.gaps) <= set(outbox.gaps()) or old.format == 1
    assert audit(tmp_path).balances
