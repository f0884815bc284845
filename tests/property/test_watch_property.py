"""Random triggers, and random commands and faults through the real loop, watch, desk and outbox: the states follow the
table, the pause survives, each command is executed once, each row comes once, and nothing spins.

The table and the meaning of the commands stand here a second time, as a model.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from hypothesis import event, given, settings
from hypothesis import strategies as st
from transitions import MachineError

from agent.backoff import Backoff
from agent.body import unpack
from agent.commands import Command
from agent.sinks import COMMAND_RESULT, QUERIES
from agent.source_errors import LoginRefused
from agent.watch import Watch
from agent.watch_loop import Stop
from tests.fakes.clock import NOON, ManualClock
from tests.fakes.manual import FaultyOutbox, Midway, Rig
from tests.fakes.source import FakeSource

# -- the machine alone -------------------------------------------------------------------------------------------------


def model(state: str, trigger: str, *, paused: bool, wanted: bool) -> str | None:
    """The state after; None when the table has no such way. A refused condition stays."""
    ways: dict[tuple[str, str], str] = {
        ("begin", "idle"): "collecting",
        ("begin", "reconnecting"): "collecting",
        ("begin", "paused"): "collecting" if wanted else "paused",
        ("finish", "collecting"): "paused" if paused else "idle",
        ("lose_connection", "idle"): "paused" if paused else "reconnecting",
        ("lose_connection", "collecting"): "paused" if paused else "reconnecting",
        ("lose_connection", "reconnecting"): "paused" if paused else "reconnecting",
        ("pause", "idle"): "paused",
        ("pause", "reconnecting"): "paused",
        ("resume", "paused"): "idle",
    }
    return ways.get((trigger, state))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "finish", "lose_connection", "pause", "resume"]), st.booleans(), st.booleans()
        ),
        max_size=40,
    )
)
def test_any_sequence_of_triggers_follows_the_table(steps: list[tuple[str, bool, bool]]) -> None:
    watch = Watch(interval_s=1, paused=False, now_s=0, backoff=Backoff(1, 60, Midway()), on_enter=lambda _: None)  # type: ignore[arg-type]
    state = "idle"
    for trigger, paused, wanted in steps:
        watch.paused, watch.asked = paused, [Command(1, "collect")] if wanted else []
        goal = model(state, trigger, paused=paused, wanted=wanted)
        try:
            getattr(watch, trigger)()
        except MachineError:
            assert goal is None
        else:
            assert goal is not None
        state = goal or state
        assert watch.state == state


# -- everything together -----------------------------------------------------------------------------------------------

WORDS = ("start", "stop", "collect", "update_config", "nonsense")
FAULTS = ("away", "refused", "no room", "disk full", "well")
Step = tuple[str, Any, float]

STEPS = st.lists(
    st.tuples(
        st.one_of(
            st.tuples(st.just("command"), st.sampled_from(WORDS)),
            st.tuples(st.just("again"), st.just(None)),
            st.tuples(st.just("fault"), st.sampled_from(FAULTS)),
            st.tuples(st.just("midway"), st.sampled_from([*FAULTS, *WORDS, "again", "defect"])),
            st.tuples(st.just("rows"), st.integers(1, 60)),
            st.tuples(st.just("wall clock"), st.integers(-10_000, 10_000)),
            st.tuples(st.just("restart"), st.just(None)),
        ),
        st.sampled_from([0.0, 0.5, 5.0, 40.0, 300.0]),
    ).map(lambda pair: (*pair[0], pair[1])),
    min_size=1,
    max_size=14,
)


@dataclass
class World:
    """One agent over its restarts, with the backend's list of commands that wait for a result."""

    directory: Path
    clock: ManualClock = field(default_factory=ManualClock)
    source: FakeSource = field(default_factory=FakeSource)
    given: list[Command] = field(default_factory=list)
    states: list[tuple[str, str, bool]] = field(default_factory=list)  # from, to, flag
    faults: Counter[str] = field(default_factory=Counter)

    def play(self, steps: list[Step]) -> None:
        """Every stretch up to a restart or the end is one run of the loop."""
        stretch: list[Step] = []
        for step in [*steps, ("heal", None, 0.0), ("again", None, 400.0), ("again", None, 400.0)]:
            stretch.append(step)
            if step[0] == "restart":
                self._live(stretch)
                stretch = []
        self._live(stretch)

    def _live(self, stretch: list[Step]) -> None:
        outbox = FaultyOutbox(self.directory, now=self.clock.unix)
        self.rig = rig = Rig(self.directory, clock=self.clock, source=self.source, outbox=outbox, interval_s=100)
        rig.next_source = lambda: self.source
        assert rig.watch.state == ("paused" if self._told_pause() else "idle")
        before = [rig.watch.state]

        def entered(state: str) -> None:
            self.states.append((before[0], state, rig.watch.paused))
            before[0] = state

        rig.watch._on_enter = entered
        at_s = 0.0
        for what, value, pause_s in stretch:
            rig.at(at_s, lambda what=what, value=value: self._do(what, value))  # type: ignore[misc]
            at_s += pause_s
        rig.at(at_s + 0.1, lambda: None)
        rig.inbox.plan(self.clock.monotonic() + at_s + 0.1, self._stop)
        self._run(rig)
        assert (rig.outbox.note("paused/default") is not None) == rig.watch.paused == self._told_pause()
        self.results = list(bodies(outbox, COMMAND_RESULT))
        self.rows = [row["id"] for body in bodies(outbox, QUERIES) for row in body["queries"]]
        assert outbox.tally(QUERIES).balances
        outbox.close()

    def _run(self, rig: Rig) -> None:
        for _ in range(60):
            try:
                rig.loop.run()
            except ZeroDivisionError:  # the worker's frame and the conductor: told, and started again after a pause
                self.faults["defect"] += 1
                self.clock.turn(1.0)
            else:
                return
        raise AssertionError("it dies again and again")

    def _stop(self) -> None:
        self.rig.inbox.put(Stop())

    def _told_pause(self) -> bool:
        told = [(each["command_id"], each["success"]) for each in getattr(self, "results", [])]
        told = [(number, success) for number, success in self._results_now() or told]
        words = [self.given[number].word for number, success in told if success]
        flags = [word == "stop" for word in words if word in {"start", "stop"}]
        return flags[-1] if flags else False

    def _results_now(self) -> list[tuple[int, bool]]:
        if not hasattr(self, "rig") or not hasattr(self.rig, "outbox"):
            return []
        try:
            return [(each["command_id"], each["success"]) for each in bodies(self.rig.outbox, COMMAND_RESULT)]
        except Exception:  # closed: the run before a restart
            return []

    def _do(self, what: str, value: Any) -> None:
        if what == "command":
            self._give(value)
        elif what == "again":
            for command in self._waiting():
                self.rig.inbox.put(command)
        elif what == "fault":
            self._fault(value)
        elif what == "heal":
            self.source.between = lambda _: None
            self._fault("well")
            self._give("start")
        elif what == "rows":
            self.source.rows += value
        elif what == "wall clock":
            self.clock.set_wall(NOON + timedelta(seconds=value))
        elif what == "midway":
            self._midway(value)

    def _give(self, word: str) -> None:
        params = {"collection_interval": 100 + len(self.given)} if word == "update_config" else {}
        if word == "update_config" and len(self.given) % 2:
            params = {"db_config": {"password": f"p{len(self.given)}"}}  # type: ignore[dict-item]
        self.given.append(Command(len(self.given), word, params, "noon"))
        self._do("again", None)

    def _waiting(self) -> list[Command]:
        """What the backend hands out again with each heartbeat; here also what was reported a moment ago."""
        told = dict(self._results_now())
        return [each for each in self.given if each.id not in told or each.id >= len(self.given) - 6]

    def _fault(self, kind: str) -> None:
        self.faults[kind] += 1
        self.source.away = kind == "away"
        self.source.refusal = LoginRefused("user u") if kind == "refused" else None
        self.rig.outbox.no_room = kind == "no room"
        self.rig.outbox.disk_full = 2 if kind == "disk full" else 0

    def _midway(self, value: str) -> None:
        """Once, after the first reading of a later look."""

        def between(_: int) -> None:
            self.source.between = lambda _: None
            if value == "defect":
                raise ZeroDivisionError
            if value in WORDS:
                self._give(value)
            elif value == "again":
                self._do(value, None)
            else:
                self._fault(value)

        self.source.between = between
        self.source.rows += 25


def bodies(outbox: FaultyOutbox, topic: str) -> list[Any]:
    found, seen = [], set[int]()
    while (envelope := outbox.head(topic, seen)) is not None:
        seen.add(envelope.seq)
        found.append(orjson.loads(unpack(envelope.body)))
    return found


ALLOWED: set[tuple[str, str, bool]] = {
    ("idle", "collecting", False),
    ("reconnecting", "collecting", False),
    ("paused", "collecting", True),
    ("collecting", "idle", False),
    ("collecting", "paused", True),
    ("idle", "reconnecting", False),
    ("collecting", "reconnecting", False),
    ("reconnecting", "reconnecting", False),
    ("idle", "paused", True),
    ("reconnecting", "paused", True),
    ("paused", "idle", False),
}


@given(STEPS)
@settings(max_examples=80)
def test_commands_faults_and_restarts_in_any_order(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.play(steps)
    for fault in sorted(world.faults):
        event(f"fault {fault}")
    assert set(world.states) <= ALLOWED
    assert world.rows == [f"r{number}" for number in range(world.source.rows)]
    told = Counter(result["command_id"] for result in world.results)
    assert told == Counter(command.id for command in world.given)  # each answered, and once
    outcome = {result["command_id"]: result["success"] for result in world.results}
    for command in world.given:
        if command.word in {"start", "stop"}:
            assert outcome[command.id] is True
        if command.word == "nonsense":
            assert outcome[command.id] is False


def test_control_the_model_notices_a_way_that_the_table_does_not_have() -> None:
    forbidden: list[Callable[[], bool]] = [lambda: ("paused", "reconnecting", True) in ALLOWED]
    assert [check() for check in forbidden] == [False]
    assert model("paused", "lose_connection", paused=True, wanted=False) is None
