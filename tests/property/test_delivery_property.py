"""Random answers over time, through the real flusher and the real outbox: whatever a backend says and loses, no record
is skipped, none is stored twice where keys are honoured, and without keys only what was answered by nothing is.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson
from hypothesis import event, given, settings
from hypothesis import strategies as st

from agent import body
from agent.delivery import Hold, Refused, Retry, TooLarge, Verdict
from agent.errors import BackendAway, BackendBusy, KeyRefused, NotTheBackend
from agent.flusher import Flusher
from agent.sinks import QUERIES
from agent.status import LinkStatus, Scoreboard
from storage.envelope import Change, Draft, Envelope
from storage.errors import OutboxFull
from storage.outbox import Outbox
from tests.fakes.clock import ManualClock
from tests.fakes.inside import sql_of
from tests.fakes.sink import FakeSink

ANSWERS: dict[str, Verdict] = {
    "away": Retry(BackendAway()),
    "429": Retry(BackendBusy("status 429"), floor_s=7, is_failure=False),
    "500": Retry(BackendBusy("status 500"), blames_body=True),
    "401": Hold(KeyRefused()),
    "portal": Hold(NotTheBackend()),
    "413": TooLarge(),
    "400": Refused("status 400"),
}


class FullOutbox(Outbox):
    """The real one; recording an acceptance fails so many times."""

    full = 0

    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        """As the real one, unless there is no room."""
        if self.full:
            self.full -= 1
            raise OutboxFull("says the test")
        super().accept(envelope, delivered=delivered, reason=reason)


@dataclass
class World:
    """An agent's delivery over its restarts."""

    directory: Path
    sink: FakeSink
    clock: ManualClock
    captured: int = 0

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.board = Scoreboard(0.0)
        self.outbox = FullOutbox(self.directory, now=self.clock.unix)
        self.flusher = Flusher(self.outbox, self.sink, self.board, clock=self.clock, rng=random.Random(1), hold_s=30)

    def restart(self) -> None:
        self.outbox.close()
        self.open()

    def fill(self, count: int, batch: int) -> None:
        ids = [orjson.dumps({"id": f"r{number}"}) for number in range(self.captured, self.captured + count)]
        parts = [ids[at : at + batch] for at in range(0, count, batch)]
        self.outbox.commit(Change(drafts=tuple(Draft(QUERIES, len(part), body.queries(part)) for part in parts)))
        self.captured += count

    def live(self, seconds: float, steps: int = 3_000) -> None:
        end_s = self.clock.monotonic() + seconds
        for _ in range(steps):
            self.board.heartbeat = LinkStatus(None, self.clock.monotonic())
            wait_s = self.flusher.step()
            if wait_s is None or self.clock.monotonic() + wait_s > end_s:
                return
            self.clock.turn(wait_s)
        raise AssertionError("it never comes to rest")

    def check(self) -> None:
        books = self.outbox.tally(QUERIES)
        assert books.balances
        assert (books.captured, books.discarded, books.lost) == (self.captured, 0, 0)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("fill"), st.integers(1, 40), st.sampled_from([1, 7, 20])),
        st.tuples(st.just("answer"), st.sampled_from([*sorted(ANSWERS), "well"]), st.just(0)),
        st.tuples(st.just("lose"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("full"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("live"), st.sampled_from([1, 40, 400]), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=15,
)


def play(world: World, operations: list[tuple[str, int | str, int]]) -> None:
    for what, value, more in operations:
        if what == "fill":
            world.fill(int(value), more)
        elif what == "answer":
            verdict = ANSWERS.get(str(value))
            world.sink.verdict = lambda _, verdict=verdict: verdict  # type: ignore[misc]
        elif what == "lose":
            world.sink.lose_answers = int(value)
        elif what == "full":
            world.outbox.full = int(value)
        elif what == "live":
            world.live(float(value))
        elif (
            world.flusher._unsettled is None or world.sink.honours_keys
        ):  # else a crash before the record; only a backend with keys heals that
            world.restart()
        world.check()


def heal(world: World) -> None:
    """Everything works, and new records come, whose acceptance shows that the backend takes any."""
    world.sink.verdict = lambda _: None
    world.sink.lose_answers, world.outbox.full = 0, 0
    world.sink.bad &= {f"r{number}" for number in range(world.captured)}  # a bad one at the very end would be held
    for _ in range(4):
        world.fill(5, 5)
        world.live(4_000)
    world.check()


@given(
    operations=OPERATIONS,
    bad=st.sets(st.integers(0, 60), max_size=12),
    honours_keys=st.booleans(),
)
@settings(max_examples=60)
def test_nothing_is_skipped_and_nothing_doubled(
    operations: list[tuple[str, int | str, int]], bad: set[int], honours_keys: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        sink = FakeSink(honours_keys=honours_keys)
        sink.bad = {f"r{number}" for number in bad}
        world = World(Path(directory), sink, ManualClock())
        play(world, operations)
        heal(world)
        books = world.outbox.tally(QUERIES)
        counts = Counter(sink.stored)
        parked = _parked_ids(world.outbox)
        world.outbox.close()
    everything = {f"r{number}" for number in range(world.captured)}
    event(f"lost answers: {min(sink.lost, 3)}, keys: {honours_keys}")
    assert books.pending == 0
    assert set(counts) | parked == everything
    if honours_keys or sink.lost == 0:
        assert set(counts.values()) <= {1}
    assert sink.bad & everything <= parked


def _parked_ids(outbox: Outbox) -> set[str]:
    rows = sql_of(outbox).execute("SELECT body FROM parked").fetchall()
    return {record["id"] for (packed,) in rows for record in orjson.loads(body.unpack(packed))["queries"]}


@given(kind=st.sampled_from(["400", "500", "401", "portal", "away", "429"]), hours=st.integers(1, 48))
@settings(max_examples=20)
def test_a_backend_that_takes_nothing_parks_nothing_and_loses_nothing(kind: str, hours: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), FakeSink(), ManualClock())
        world.fill(60, 20)
        world.sink.verdict = lambda _: ANSWERS[kind]
        world.live(hours * 3_600, steps=100_000)
        refused = world.outbox.tally(QUERIES)
        world.sink.verdict = lambda _: None
        world.live(4_000)
        stored, books = list(world.sink.stored), world.outbox.tally(QUERIES)
        world.outbox.close()
    assert (refused.parked, refused.pending) == (0, 60)
    assert (sorted(stored), books.parked, books.pending) == (sorted(f"r{number}" for number in range(60)), 0, 0)
