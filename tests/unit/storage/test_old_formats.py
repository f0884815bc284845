"""Outbox files of every format that was ever released, kept as they were written.

What could go wrong: an upgrade loses what waits, renames it, sends it in another order, or changes a byte of it; the
books do not balance afterwards; an old file that is damaged is refused or its records are lost; who only looks cannot
read an old file any more.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.collector import describe
from storage.audit import audit
from storage.envelope import Gap, Tally
from storage.outbox import FILE_NAME, Outbox
from storage.schema import COLUMNS, VERSION
from storage.view import OutboxView

GOLDEN = Path(__file__).parents[2] / "golden"
FORMAT_1 = GOLDEN / "outbox-format-1.sqlite3"
TOPICS = ("command_result", "queries")
INSTALLATION = "f3ed1d98356cb78d"
KEYS = [
    f"{INSTALLATION}-2-5c94f9314efd6fcc",
    f"{INSTALLATION}-4-72f1ccbcc62a6bf9.0",
    f"{INSTALLATION}-4-72f1ccbcc62a6bf9.1",
]
GAP = Gap(
    "default", "rotated", "2026-05-01T00:00:00", "2026-05-02T00:00:00", 5, "rows were not read before the rotation"
)
BOOKS = Tally(
    captured=60, delivered=10, parked=1, pending=49, pending_bytes=1_166, envelopes=3, gaps=1, oldest_at=1_780_000_000.0
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    shutil.copy(FORMAT_1, tmp_path / FILE_NAME)
    return tmp_path


def bodies() -> list[bytes]:
    with closing(sqlite3.connect(f"file:{FORMAT_1}?mode=ro&immutable=1", uri=True)) as sql:
        rows = sql.execute("SELECT body FROM envelope WHERE topic = 'queries' ORDER BY place, key").fetchall()
    return [row[0] for row in rows]


def drained(outbox: Outbox) -> list[tuple[str, bytes]]:
    found = []
    while (envelope := outbox.head("queries")) is not None:
        found.append((envelope.key, envelope.body))
        outbox.accept(envelope, delivered=envelope.records)
    return found


def test_format_1_is_taken_over_with_everything_in_it(data_dir: Path) -> None:
    with closing(Outbox(data_dir, topics=TOPICS)) as outbox:
        assert (outbox.installation, outbox.tally("queries"), outbox.gaps()) == (INSTALLATION, BOOKS, [GAP])
        assert (outbox.bookmark("default"), outbox.note("paused/default")) == (b"60", "yes")
        assert (outbox.has_mark("command 7"), outbox.parked()) == (
            True,
            [(3, 1, "refused by the backend (status 400)")],
        )
        assert drained(outbox) == list(zip(KEYS, bodies(), strict=True))
    assert audit(data_dir).balances


def test_after_the_upgrade_every_small_row_carries_its_checksum(data_dir: Path) -> None:
    Outbox(data_dir).close()
    with closing(sqlite3.connect(data_dir / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (VERSION,)
        for table in COLUMNS.keys() - {"envelope", "parked"}:
            assert sql.execute(f"SELECT count(*) FROM {table} WHERE guard IS NULL").fetchone() == (0,)


def test_who_only_looks_reads_format_1_and_leaves_it_as_it_is(data_dir: Path) -> None:
    with OutboxView(data_dir) as view:
        assert (view.tally("queries"), view.bookmark("default")) == (BOOKS, b"60")
    found = audit(data_dir)
    assert (found.balances, found.losses.newest, [account.topic for account in found.accounts]) == (
        True,
        (GAP,),
        list(TOPICS),
    )
    assert (data_dir / FILE_NAME).read_bytes() == FORMAT_1.read_bytes()


def test_a_damaged_file_of_format_1_is_rebuilt_with_what_is_whole(data_dir: Path) -> None:
    content = bytearray((data_dir / FILE_NAME).read_bytes())
    content[100:200] = b"\xff" * 100  # the table of tables
    (data_dir / FILE_NAME).write_bytes(content)
    told: list[str] = []
    with closing(Outbox(data_dir, topics=TOPICS, describe=describe, on_loss=told.append)) as outbox:
        assert [sentence.split(";")[0] for sentence in told] == [
            "The outbox was damaged: 50 records saved, an unknown number of lost"
        ]
        assert drained(outbox) == list(zip(KEYS, bodies(), strict=True))
        assert outbox.has_lost_bookmark("default")  # nothing vouches for the one that stands there
    assert audit(data_dir).balances
