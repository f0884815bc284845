"""Fifty thousand pending records against none (`backlog.torture` does it with a million).

What could go wrong: the start reads through the backlog; memory grows with it; an enqueue or a delivery looks at all
that waits; the file keeps its size when all is delivered. Compared is what SQLite does, counted in steps and bytes,
which is the same on a busy machine; seconds are torture's. The controls take the index away, look through the file at
the start, hold the backlog in memory, and make the file without the means to shrink: each breaks its guard.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from agent.sinks import QUERIES
from storage.envelope import Change
from storage.outbox import FILE_NAME, Outbox
from tests.faults.backlog import (
    MORE_MB,
    RATIO,
    SMALL_BYTES,
    Taker,
    draft,
    drain,
    fill,
    flusher,
    opened,
    report,
    size,
    torture,
)
from tests.faults.meter import Cost, Meter

RECORDS, BATCH = 50_000, 20
RECORD_BYTES = 1_500  # statements of some length: together more than a start may look through for damage (64 MiB)
TURNS = 15
PAGES = 16 * 4_096  # a deeper tree, and the pages of a body that an empty outbox still has in memory


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    opened(tmp_path / "empty").close()
    return tmp_path / "empty"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("full")
    with closing(opened(directory)) as outbox:
        fill(outbox, RECORDS, BATCH, random.Random(1), RECORD_BYTES)
        assert outbox.tally(QUERIES).pending == RECORDS
    assert size(directory) > RECORDS * RECORD_BYTES > 64 * 1_048_576
    return directory


@pytest.fixture
def copy(full: Path, tmp_path: Path) -> Path:
    """The full one, to be spoiled."""
    return shutil.copytree(full, tmp_path / "copy")


@dataclass(frozen=True, slots=True)
class Costs:
    """Of a start, and the medians of an enqueue and of a delivery (the sink takes nothing of either)."""

    start: Cost
    enqueue: Cost
    delivery: Cost

    def like(self, other: Costs) -> list[bool]:
        """Whether each is about that of the other."""
        pairs = ((self.start, other.start), (self.enqueue, other.enqueue), (self.delivery, other.delivery))
        return [ours.steps <= RATIO * plain.steps and ours.read <= plain.read + PAGES for ours, plain in pairs]


def costs(directory: Path, spoil: Callable[[Outbox], None] = lambda _: None) -> Costs:
    """`spoil` does its harm when the outbox is open, and is part of the start."""
    meter, rng = Meter(), random.Random(2)
    made: list[Outbox] = []
    enqueues: list[Cost] = []
    deliveries: list[Cost] = []

    def begin() -> None:
        made.append(opened(directory))
        spoil(made[0])

    with meter.watching():
        start = meter.cost(begin)
    with closing(made[0]) as outbox:
        sink = Taker()
        runner = flusher(outbox, sink)
        for _ in range(TURNS):
            change = Change(drafts=(draft(rng, BATCH, RECORD_BYTES),))
            enqueues.append(meter.cost(partial(outbox.commit, change)))
            deliveries.append(meter.cost(runner.step))
        assert sink.records == TURNS * BATCH
    return Costs(start, middle(enqueues), middle(deliveries))


def middle(found: list[Cost]) -> Cost:
    return Cost(round(median(each.steps for each in found)), round(median(each.read for each in found)))


def raw(directory: Path, *statements: str) -> None:
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as spoiling:
        for statement in statements:
            spoiling.execute(statement).fetchall()


def test_start_enqueue_and_delivery_do_the_same_work_as_with_an_empty_outbox(empty: Path, copy: Path) -> None:
    plain, ours = costs(empty), costs(copy)
    assert min(plain.start.steps, plain.enqueue.steps, plain.delivery.steps) > 50, "the meter counts nothing"
    assert ours.like(plain) == [True, True, True], f"{ours} against {plain}"


def test_a_fresh_agent_over_it_needs_no_more_memory(empty: Path, full: Path, tmp_path: Path) -> None:
    plain, ours = report(empty), report(shutil.copytree(full, tmp_path / "copy"))
    print(f"with {RECORDS} pending: {ours}; with none: {plain}")  # noqa: T201
    assert ours["peak_rss_mb"] < plain["peak_rss_mb"] + MORE_MB


def test_all_of_it_is_delivered_and_the_file_shrinks(copy: Path) -> None:
    with closing(opened(copy)) as outbox:
        assert drain(outbox) == RECORDS
        assert (outbox.tally(QUERIES).pending, outbox.tally(QUERIES).balances) == (0, True)
        assert size(copy) < SMALL_BYTES


def test_torture_tells_its_figures() -> None:
    heard: list[int] = []
    try:
        figures = str(torture(5_000, 1, heard.append, pairs=5))
    except AssertionError as complaint:  # seconds on a busy machine decide nothing here
        figures = str(complaint)
    assert heard == [*range(500, 10_001, 500)]
    for name in (
        "x500: start s",
        "x1: enqueue ratio",
        "x1: delivery ratio",
        "x500: peak MB more",
        "MB after the drain",
    ):
        assert f"'{name}'" in figures


# -- controls --------------------------------------------------------------------------------------------------------


def test_control_without_the_index_enqueue_and_delivery_look_at_all_that_waits(empty: Path, copy: Path) -> None:
    found = costs(copy, spoil=lambda _: raw(copy, "DROP INDEX envelope_order"))
    assert found.like(costs(empty))[1:] == [False, False]


@pytest.mark.parametrize("look", ["SELECT count(*) FROM envelope", "PRAGMA quick_check", "SELECT sha256 FROM envelope"])
def test_control_a_start_that_looks_through_the_file_is_seen(empty: Path, copy: Path, look: str) -> None:
    found = costs(copy, spoil=lambda _: raw(copy, look))
    assert found.like(costs(empty)) == [False, True, True]


def test_control_an_agent_that_holds_the_backlog_is_seen(empty: Path, full: Path, tmp_path: Path) -> None:
    greedy = report(shutil.copytree(full, tmp_path / "copy"), "greedy")
    assert greedy["peak_rss_mb"] > report(empty)["peak_rss_mb"] + MORE_MB


def test_control_a_file_without_the_means_to_shrink_keeps_its_size(copy: Path) -> None:
    raw(copy, "PRAGMA journal_mode=DELETE", "PRAGMA auto_vacuum=NONE", "VACUUM")
    with closing(opened(copy)) as outbox:
        runner = flusher(outbox, Taker())
        while outbox.tally(QUERIES).pending:
            runner.step()
        outbox.shrink()
        assert size(copy) > SMALL_BYTES
