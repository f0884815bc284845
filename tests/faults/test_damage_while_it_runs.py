"""Damage that comes while the outbox is in use.

What could go wrong: whoever meets it fails again and again, or goes on with half of the rows; one envelope that was hit
takes the file with it; a disk that damages everything at once is filled with damaged files.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from storage.envelope import Change, Draft, Envelope
from storage.errors import OutboxDamaged
from storage.outbox import Outbox
from tests.fakes.inside import sql_of
from tests.faults.judgement import Opened, kept_in, start
from tests.faults.played import PAGE_BYTES, TOPIC, snapshot, waiting


def meddle(path: Path, at: int, content: bytes) -> None:
    """Writes into the file from another process: opening it here would drop SQLite's locks."""
    code = "import os, sys; os.pwrite(os.open(sys.argv[1], os.O_WRONLY), bytes.fromhex(sys.argv[3]), int(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, path, str(at), content.hex()], check=True)


@pytest.fixture
def running(place: Path) -> Iterator[Opened]:
    """An outbox that is in use, all of it in the file, and nothing of it in memory."""
    opened = start(place / "data")
    rng = random.Random(3)
    for number in range(12):
        drafts = (Draft(TOPIC, 1, b"%d " % number + rng.randbytes(1_500)),)
        opened.outbox.commit(Change(drafts, bookmarks={"watch": b"%d" % number}))
    forget(opened.outbox)
    yield opened
    opened.outbox.close()


def forget(outbox: Outbox) -> None:
    for pragma in ("wal_checkpoint(TRUNCATE)", "shrink_memory"):
        sql_of(outbox).execute(f"PRAGMA {pragma}").fetchall()


def zero_root(outbox: Outbox, table: str) -> None:
    """Zeroes the page that leads to all rows of a table."""
    (page,) = sql_of(outbox).execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    forget(outbox)
    meddle(outbox.path, (page - 1) * PAGE_BYTES, bytes(PAGE_BYTES))


ASKS: dict[str, Callable[[Outbox], object]] = {
    "head": lambda outbox: outbox.head(TOPIC),
    "commit": lambda outbox: outbox.commit(Change((Draft(TOPIC, 1, b"new"),), bookmarks={"watch": b"12"})),
    "accept": lambda outbox: outbox.accept(cast(Envelope, FIRST[outbox]), delivered=1),
}
FIRST: dict[Outbox, Envelope | None] = {}


@pytest.mark.parametrize("ask", ASKS)
def test_what_finds_the_damage_fails_once_and_then_goes_on(running: Opened, ask: str) -> None:
    outbox = running.outbox
    before = waiting(outbox)
    FIRST[outbox] = outbox.head(TOPIC)
    zero_root(outbox, "envelope")
    with pytest.raises(OutboxDamaged):
        ASKS[ask](outbox)
    assert len(running.told) == 1
    ASKS[ask](outbox)
    del FIRST[outbox]
    now = waiting(outbox)
    added, taken = (ask == "commit", ask == "accept")
    assert [each.body for each in now.values()] == [each.body for each in before.values()][taken:] + [b"new"] * added
    assert outbox.tally(TOPIC).balances
    assert (outbox.tally(TOPIC).lost, outbox.bookmark("watch")) == (0, b"12" if added else b"11")
    assert len(kept_in(outbox.path.parent)) >= 1


def test_a_body_that_is_hit_while_it_runs_is_lost_alone(running: Opened) -> None:
    outbox = running.outbox
    before = waiting(outbox)
    forget(outbox)
    fourth = list(before.values())[3]
    at = snapshot(outbox.path.parent, before, outbox.path.parent.parent).places[fourth.key][1]
    meddle(outbox.path, at[1], b"#")
    arrived = running.drain()
    assert [each.key for each in arrived] == [key for key in before if key != fourth.key]
    assert running.told == [f"Envelope {fourth.seq} was damaged on the disk: 1 records lost"]
    assert [gap.detail for gap in outbox.gaps()] == [f"envelope {fourth.seq} was damaged on the disk"]
    assert (outbox.tally(TOPIC).lost, outbox.tally(TOPIC).balances) == (1, True)


def test_it_is_rebuilt_at_most_once_a_minute(running: Opened) -> None:
    outbox, directory = running.outbox, running.outbox.path.parent
    for kept in (1, 2):
        zero_root(outbox, "envelope")
        with pytest.raises(OutboxDamaged):
            outbox.head(TOPIC)
        assert outbox.head(TOPIC) is not None
        zero_root(outbox, "envelope")
        for _ in range(3):
            with pytest.raises(OutboxDamaged):
                outbox.head(TOPIC)
        names = Counter(name.endswith("-wal") for name in kept_in(directory))
        assert names[False] == 2 * kept - 1
        running.clock.turn(61)
        with pytest.raises(OutboxDamaged):
            outbox.head(TOPIC)
        assert outbox.head(TOPIC) is not None
        running.clock.turn(61)
    assert len(running.told) == 4
    assert len(waiting(outbox)) == 12
