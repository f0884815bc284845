"""Local damage costs local loss, and the loss is named.

What could go wrong: a damaged file keeps the agent from starting; a record that no byte of was touched is lost with
its neighbours, or arrives under another key, or twice; something arrives that was never collected; a loss is in no
book and no gap; what was damaged is deleted, or changed before anybody could look at it; a source is read again from
where it had been read already; a rebuild that is cut leaves less than there was; a disk that damages everything is
filled with damaged files.

What is expected is known without the reader that is tested (see `played`). SQLite's own pointers hold a row together:
where those were hit, a row whose bytes are all there may be lost. At most one for each page that was hit, and in all
at most 1 in 50 of what waited.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from storage import diagnosis, salvage, swap
from storage.connection import connect
from tests.faults.damage import DAMAGES, damage_and_judge, spread, torture, zero_pages
from tests.faults.judgement import Verdict, files_in, judge, kept_in, start
from tests.faults.played import DB, PAGE_BYTES, TOPIC, WAL, Play, waiting

BATCHES, SEEDS = 10, 85
SEEDS_OF_LARGE_FILES = 150
MOST_WHOLE_BUT_LOST = 1 / 50


def verdicts(plays: list[Play], place: Path, seeds: range) -> Iterator[tuple[Play, Verdict]]:
    for seed in seeds:
        rng = random.Random(seed)
        played = rng.choice(plays)
        yield played, damage_and_judge(played, place / str(seed), rng.choice(DAMAGES), rng)


def demand_fine(found: list[tuple[Play, Verdict]]) -> None:
    assert [verdict for _, verdict in found if not verdict.is_fine] == []
    whole_but_lost = sum(verdict.whole_but_lost for _, verdict in found)
    assert whole_but_lost <= MOST_WHOLE_BUT_LOST * sum(len(played.now.waiting) for played, _ in found)
    # Most of them did harm, or nothing would be shown.
    assert sum(verdict.rebuilds > 0 for _, verdict in found) > len(found) // 4
    assert sum(verdict.lost > 0 for _, verdict in found) > len(found) // 5
    assert sum(verdict.lost == 0 for _, verdict in found) > len(found) // 5


# -- a thousand damages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_is_whole_arrives_once_and_what_is_lost_is_named(plays: list[Play], place: Path, batch: int) -> None:
    demand_fine(list(verdicts(plays, place, range(batch * SEEDS, (batch + 1) * SEEDS))))


def test_so_it_is_with_a_file_that_is_too_large_to_be_read_through_at_a_start(
    plays: list[Play], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "CHECKED_BYTES", 0)
    first = BATCHES * SEEDS
    demand_fine(list(verdicts(plays, place, range(first, first + SEEDS_OF_LARGE_FILES))))


@pytest.mark.parametrize("damage", dict.fromkeys(DAMAGES), ids=lambda damage: damage.__name__)
def test_each_damage_changes_something(plays: list[Play], place: Path, damage: Any) -> None:
    changed = 0
    for number, played in enumerate(plays):
        directory = place / str(number)
        spread(played, directory)
        what = damage(directory, played, random.Random(number))
        after = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert bool(what) or after == dict(played.now.files)
        changed += after != dict(played.now.files)
    assert changed >= 2


def test_the_torture_counts_what_it_did() -> None:
    heard: list[int] = []
    counts = torture(10, 5, heard.append)
    assert heard == list(range(1, 11))
    assert counts.pop("whole_but_lost") <= 4
    assert counts == {"seeds": 10, "starts_failed": 0, "invented": 0, "doubled": 0, "unnamed": 0}


@pytest.mark.parametrize("kind", ["closed", "in both"])
def test_no_byte_of_the_files_head_keeps_it_from_starting_or_costs_a_record(
    plays: list[Play], place: Path, kind: str
) -> None:
    played = next(each for each in plays if each.kind == kind)
    for at in range(100):
        directory = place / str(at)
        spread(played, directory)
        content = bytearray((directory / DB).read_bytes())
        content[at] ^= (0xFF, 0x01, 0x80)[at % 3]
        (directory / DB).write_bytes(content)
        verdict = judge(played, directory, f"byte {at} of the head")
        assert verdict.is_fine, verdict
        assert verdict.lost == 0


# -- again and again -------------------------------------------------------------------------------------------------


def test_nothing_that_was_kept_is_deleted_by_rebuilds_to_come(plays: list[Play], place: Path) -> None:
    rng, played, directory = random.Random(7), plays[1], place / "data"
    spread(played, directory)
    kept: dict[str, bytes] = {}
    left = set(played.now.waiting)
    for rebuild in range(1, 5):
        (directory / DB).write_bytes((directory / DB).read_bytes().ljust(2 * PAGE_BYTES, b"\0"))
        (directory / DB).write_bytes(b"\0" * PAGE_BYTES + (directory / DB).read_bytes()[PAGE_BYTES:])
        for _ in range(2):
            zero_pages(directory, played, rng)
        damaged = files_in(directory)
        opened = start(directory)
        with closing(opened.outbox):
            assert [sentence[:15] for sentence in opened.told] == ["The outbox was "]
            there = kept_in(directory)
            assert {name: there[name] for name in kept} == kept
            assert damaged[DB] in [there[name] for name in there.keys() - kept.keys()]
            assert len([name for name in there if not name.endswith("-wal")]) == rebuild
            kept = there
            found = set(waiting(opened.outbox))
            assert found <= left
            left = found
            tally = opened.outbox.tally(TOPIC)
            assert tally.balances
            assert tally.captured == played.captured[TOPIC]


# -- a rebuild that is cut -------------------------------------------------------------------------------------------


class PowerOff(BaseException):
    """The end, in the middle of a step."""


class Fuse:
    """Blows at the step of that number, before or behind what it does; counts them."""

    def __init__(self, at: int, *, behind: bool) -> None:
        self.at, self.behind, self.steps = at, behind, 0

    def step(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self.steps += 1
        if self.steps != self.at:
            return work(*arguments, **named)
        if self.behind:
            work(*arguments, **named)
        raise PowerOff

    def wired(self, work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: self.step(work, *arguments, **named)

    def put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fuse = self

        class Fused(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                if arguments[0] in {"COMMIT", "BEGIN IMMEDIATE"}:
                    return cast(sqlite3.Cursor, fuse.step(super().execute, *arguments))
                return super().execute(*arguments)

        def connect_fused(path: Path) -> sqlite3.Connection:
            connect(path).close()
            return sqlite3.connect(path, isolation_level=None, factory=Fused)

        monkeypatch.setattr(salvage, "connect", connect_fused)
        for name in ("rename", "unlink"):
            monkeypatch.setattr(Path, name, self.wired(getattr(Path, name)))
        monkeypatch.setattr(os, "fsync", self.wired(os.fsync))


def cut(directory: Path, step: int, *, behind: bool) -> int:
    """A start whose rebuild ends at that step; gives how many steps there were."""
    fuse = Fuse(step, behind=behind)
    with pytest.MonkeyPatch.context() as patch:
        fuse.put_in(patch)
        try:
            start(directory).outbox.close()
        except PowerOff:
            return fuse.steps
    return fuse.steps if fuse.at > fuse.steps else -1


def damaged_play(plays: list[Play], directory: Path) -> Play:
    """A play with a WAL and zeroes over a few bodies and what is around them."""
    played = plays[1]
    assert played.kind == "in both"
    spread(played, directory)
    for key in list(played.now.waiting)[3:6]:
        name, at, _ = played.now.places[key][1]
        with (directory / name).open("r+b") as file:
            file.seek(at - at % PAGE_BYTES)
            file.write(bytes(PAGE_BYTES))
    return played


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_a_rebuild_that_is_cut_at_any_step_costs_nothing_more(plays: list[Play], place: Path, behind: bool) -> None:
    played = damaged_play(plays, place / "damaged")
    damaged = files_in(place / "damaged")
    whole = judge(played, shutil.copytree(place / "damaged", place / "whole"), "not cut")
    assert whole.is_fine
    assert whole.lost > 0
    steps = cut(shutil.copytree(place / "damaged", place / "counted"), 1_000, behind=behind)
    assert steps >= 10
    for step in range(1, steps + 1):
        directory = shutil.copytree(place / "damaged", place / str(step))
        assert cut(directory, step, behind=behind) == step
        if step % 2:  # and once more, at the next start
            cut(directory, 1 + step // 2, behind=behind)
        verdict = judge(played, directory, f"cut at step {step}", damaged)
        assert verdict.is_fine, verdict
        assert verdict.lost == whole.lost
        assert {damaged[DB], damaged[WAL]} <= set(kept_in(directory).values())
        left = {path.name for path in directory.iterdir()} & {swap.REBUILDING, swap.REBUILT}
        assert left == set()
