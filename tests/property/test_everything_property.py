"""Everything at once: looks, deliveries, an unsteady backend, kills, power cuts, full disks, jumping clocks, damage and
copies, in any order, through the real outbox on a disk, the real collector and the real flusher.

What could go wrong: in some order of things a record is lost in silence, invented or doubled, or the books stop
balancing.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from storage.envelope import Change, Envelope
from storage.outbox import Outbox
from tests.fakes.moody_backend import Mood
from tests.property.mischief import MISCHIEFS, Mischief, lose_everything
from tests.property.whole_world import DiskOfTest, World

MEMORY = Path("/dev/shm")
EXAMPLES, CONTROL_EXAMPLES, STEPS = 60, 300, 40
OTHERS = ("crashes", "killed within", "power cuts", "full", "damages", "bodies spoilt", "losses told", "copies")
MOODS_AND_MISCHIEFS = ([mood.name for mood in Mood], [mischief.__name__ for mischief in MISCHIEFS])
seeds = st.integers(0, 2**32 - 1)
few = st.integers(1, 4)


class Everything(RuleBasedStateMachine):
    """`make` and `told` are for controls and for whoever counts."""

    make: type[Outbox] = DiskOfTest
    told: Callable[[Counter[str]], None] = staticmethod(lambda _: None)

    @initialize(
        honours_keys=st.booleans(),
        bad=st.sets(st.integers(0, 80), max_size=6),
        skipped=st.sets(st.integers(0, 80), max_size=4),
        limit=st.sampled_from([1, 3, 1_000]),
        batch=st.integers(1, 7),
        has_copies=st.booleans(),
        may_be_damaged=st.booleans(),
    )
    def begin(self, **nature: Any) -> None:
        self.may_be_damaged = nature.pop("may_be_damaged")  # where nothing is, nothing may be lost at all
        self.has_copies = nature.pop("has_copies") and nature["honours_keys"]
        self.place = Path(tempfile.mkdtemp(prefix="everything-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.world = World(self.place, make=self.make, suspects=not self.has_copies, **nature)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.recover()
            self.told(self.world.happened)
        finally:
            self.world.close()
            shutil.rmtree(self.place)

    # -- life --------------------------------------------------------------------------------------------------

    @rule(rows=st.integers(0, 25), with_result=st.booleans())
    def look(self, rows: int, with_result: bool) -> None:
        self.world.look(rows, with_result=with_result)

    @rule(steps=few, waits=st.booleans())
    def flush(self, steps: int, waits: bool) -> None:
        self.world.flush(steps, waits=waits)

    @rule(mood=st.sampled_from(Mood))
    def change_mood(self, mood: Mood) -> None:
        self.change_to(mood)

    def change_to(self, mood: Mood) -> None:
        self.world.backend.mood = mood
        self.world.happened[mood.name] += 1

    @rule(mood=st.sampled_from([mood for mood in Mood if mood is not Mood.WELL]), steps=few)
    def flush_in_a_mood(self, mood: Mood, steps: int) -> None:
        self.change_to(mood)
        self.world.flush(steps, waits=True)
        self.world.backend.mood = Mood.WELL

    @rule(hours=st.sampled_from([-10_000.0, -1.0, -0.01, 0.01, 1.0, 10_000.0]))
    def set_the_wall_clock(self, hours: float) -> None:
        self.world.set_wall(hours)

    @rule(seconds=st.sampled_from([1.0, 40.0, 400.0, 100_000.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.world.clock.turn(seconds)

    # -- ends --------------------------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule()
    def crash(self) -> None:
        self.world.happened["crashes"] += 1
        self.world.crash()

    @rule(rows=st.integers(1, 25))
    def crash_after_the_commit_of_a_look(self, rows: int) -> None:
        self.world.main.dies_after_commit = True
        self.world.dies(lambda: self.world.look(rows))

    @rule(steps=few)
    def crash_after_the_commit_of_a_delivery(self, steps: int) -> None:
        self.world.main.dies_after_commit = True
        self.world.dies(lambda: self.world.flush(steps, waits=True))

    @rule(steps=few)
    def crash_between_storing_and_recording(self, steps: int) -> None:
        self.world.backend.is_deadly = True
        self.world.dies(lambda: self.world.flush(steps, waits=True))

    @rule()
    def the_mark_reaches_the_disk(self) -> None:
        self.world.remember_mark()

    @rule(seed=seeds)
    def cut_the_power(self, seed: int) -> None:
        self.world.cut_power(random.Random(seed))

    # -- the disk ----------------------------------------------------------------------------------------------

    @rule(acceptances=st.integers(0, 3))
    def fill_the_disk(self, acceptances: int) -> None:
        self.world.fill_the_disk(acceptances=acceptances)

    @rule()
    def free_the_disk(self) -> None:
        self.world.free_the_disk()

    @precondition(lambda self: self.may_be_damaged)
    @rule(seed=seeds)
    def spoil_a_body(self, seed: int) -> None:
        self.world.spoil_a_body(random.Random(seed))

    @precondition(lambda self: self.may_be_damaged)
    @rule(mischief=st.sampled_from(MISCHIEFS), seed=seeds)
    def damage_the_files(self, mischief: Mischief, seed: int) -> None:
        self.world.happened[mischief.__name__] += 1
        self.world.damage(lambda home: mischief(home, random.Random(seed)))

    # -- a copy ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.has_copies and len(self.world.copies) < 2)
    @rule()
    def replay_a_copy(self) -> None:
        self.world.replay_a_copy()

    @precondition(lambda self: self.has_copies and self.world.copies)
    @rule(steps=few)
    def flush_a_copy(self, steps: int) -> None:
        self.world.flush_a_copy(steps)

    # -- what holds --------------------------------------------------------------------------------------------

    @invariant()
    def everything_acknowledged_is_waiting_delivered_parked_or_named_as_lost(self) -> None:
        self.world.check()


def torture(
    examples: int,
    seed: int,
    progress: Callable[[int], None],
    *,
    make: type[Outbox] = DiskOfTest,
    phases: Sequence[Phase] = (Phase.generate, Phase.shrink),
) -> dict[str, int]:
    """Plays so many lives, drawn from the seed. `progress` hears how many have ended well.

    Gives how often what happened in them: lives, records, doubled (all of them counted by the agent as possible),
    "lost by damage" (all of them named), and each fault. Raises AssertionError with the shortest life found in which
    something went wrong.
    """
    machine, happened = _counting(make, progress)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=chosen)
    return dict(happened)


def _counting(make: type[Outbox], progress: Callable[[int], None]) -> tuple[type[Everything], Counter[str]]:
    happened: Counter[str] = Counter()

    def hear(life: Counter[str]) -> None:
        happened.update(life)
        happened["lives"] += 1
        progress(happened["lives"])

    return type("EverythingCounted", (Everything,), {"make": make, "told": staticmethod(hear)}), happened


@pytest.mark.timeout(600)
def test_nothing_is_lost_in_silence_nothing_invented_and_nothing_doubled_uncounted() -> None:
    machine, happened = _counting(DiskOfTest, lambda _: None)
    run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
    for names in (OTHERS, *MOODS_AND_MISCHIEFS):  # chance may leave some out
        assert sum(happened[name] > 0 for name in names) > len(names) / 2
    assert happened["records"] > 10 * happened["lives"]


# -- controls --------------------------------------------------------------------------------------------------------


class DeletesBeforeTheAnswer(DiskOfTest):
    """Takes what is offered for delivered."""

    def offer(self, envelope: Envelope) -> None:
        """Delivered, it says."""
        super().accept(envelope, delivered=envelope.records)

    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        """It was so from the beginning."""


class SavesTheBookmarkLater(DiskOfTest):
    """In a transaction of its own, behind that of the records."""

    def commit(self, change: Change) -> None:
        """In two steps."""
        super().commit(replace(change, bookmarks={}))
        super().commit(Change(bookmarks=change.bookmarks))


class SavesTheBookmarkFirst(DiskOfTest):
    """In a transaction of its own, before that of the records."""

    def commit(self, change: Change) -> None:
        """In two steps."""
        super().commit(Change(bookmarks=change.bookmarks))
        super().commit(replace(change, bookmarks={}))


class NeverDoubts(DiskOfTest):
    """Forgets that an answer was lost."""

    def offer(self, envelope: Envelope) -> None:
        """Remembers nothing."""

    def doubt(self, envelope: Envelope) -> None:
        """Has none."""


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (DeletesBeforeTheAnswer, "lost in silence"),
        (SavesTheBookmarkLater, "something was invented|not what was captured|doubled in spite of keys"),
        (SavesTheBookmarkFirst, "lost in silence"),
        (NeverDoubts, "doubled, .* counted"),
    ],
)
def test_control_a_broken_outbox_is_found_out(broken: type[Outbox], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        torture(CONTROL_EXAMPLES, 1, lambda _: None, make=broken, phases=(Phase.generate,))


def test_a_bookmark_that_was_lost_stays_lost_when_the_rebuilt_file_is_lost_as_well(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.look(20)
    world.flush(20, waits=True)
    for _ in range(3):
        world.damage(lambda home: lose_everything(home, random.Random(1)))
    assert world.collector.must_skip
    world.recover()
    world.close()
