"""Looks that take any time at a server that is well, slow, full or away, with commands at any time: the load stays in
the budget, nothing is skipped or doubled, and when the server is well again the looks go on and nothing is wrong.

What could go wrong: a stretch, a pause of the breaker and a backoff that push each other away without end; a command
that breaks the budget for the looks that follow; an open breaker that forgets the rows; a command without an answer.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from hypothesis import event, given, settings
from hypothesis import strategies as st

from agent.body import unpack
from agent.breaker import PAUSE_CAP_S
from agent.commands import Command
from agent.sinks import COMMAND_RESULT, QUERIES
from agent.watch import REST_CAP_S
from tests.fakes.manual import Rig

INTERVAL_S = 300.0
CALM_S = REST_CAP_S + PAUSE_CAP_S + 3 * INTERVAL_S  # the longest that anything of the past keeps looks away
SECONDS = st.sampled_from([0.0, 0.01, 0.3, 1.5, 4.0, 30.0, 400.0])
STEPS = st.lists(
    st.tuples(
        st.one_of(
            st.tuples(st.just("takes"), SECONDS),
            st.tuples(st.just("takes"), st.just(0.01)),
            st.tuples(st.just("new rows take"), SECONDS),
            st.tuples(st.just("used"), st.sampled_from([5, 95, 96, 100])),
            st.tuples(st.just("away"), st.booleans()),
            st.tuples(st.just("rows"), st.integers(1, 60)),
            st.tuples(st.just("collect"), st.just(None)),
        ),
        st.sampled_from([0.0, 30.0, 100.0, 700.0, 3_000.0]),
    ).map(lambda pair: (*pair[0], pair[1])),
    min_size=1,
    max_size=12,
)


@dataclass
class Look:
    """One look: when it began, what it cost anew (None: it was lost), whether the schedule brought it.

    Others came because somebody asked, or because the database is back: that ends the state `reconnecting`.
    """

    began_s: float
    is_scheduled: bool
    cost_s: float | None = None


@dataclass
class World:
    """A watch with a budget over a server that changes."""

    rig: Rig
    looks: list[Look] = field(default_factory=list)
    given: int = 0
    takes_s: float = 0.01
    new_take_s: float = 0.0
    opened: int = 0

    def __post_init__(self) -> None:
        self.rig.source.before_read = self._read
        self.rig.source.between = lambda _: self.rig.clock.turn(self.new_take_s)
        has_cost = self.rig.watch.has_cost

        def told(cost_s: float, began_s: float) -> None:
            if self.looks and self.looks[-1].cost_s is None:
                self.looks[-1].cost_s = cost_s
            has_cost(cost_s, began_s)

        self.rig.watch.has_cost = told  # type: ignore[method-assign]

    def _read(self) -> None:
        is_scheduled = not self.rig.watch.asked and self.rig.states[-2:-1] != ["reconnecting"]
        self.looks.append(Look(self.rig.clock.monotonic(), is_scheduled))
        self.rig.clock.turn(self.takes_s)

    def do(self, what: str, value: Any) -> None:
        """One step of the plan."""
        if what == "takes":
            self.takes_s = value
        elif what == "new rows take":
            self.new_take_s = min(value, 4.0)
        elif what == "rows":
            self.rig.source.rows += value
        elif what == "collect":
            self.given += 1
            self.rig.inbox.put(Command(self.given, "collect", {}, "noon"))
        else:
            setattr(self.rig.source, what, value)

    def heal(self) -> None:
        """The server is well from now on."""
        self.opened += "DB-05" in str(self.rig.board.watch("default").error)
        self.takes_s, self.new_take_s = 0.01, 0.0
        self.rig.source.used, self.rig.source.away = 5, False
        self.rig.source.rows += 3

    def bodies(self, topic: str) -> list[Any]:
        """What waits in the outbox."""
        found, seen = [], set[int]()
        while (envelope := self.rig.outbox.head(topic, seen)) is not None:
            seen.add(envelope.seq)
            found.append(orjson.loads(unpack(envelope.body)))
        return found


@given(STEPS, st.sampled_from([0.01, 0.1, 1.0]))
@settings(max_examples=60)
def test_looks_keep_the_budget_and_go_on_when_the_server_is_well(
    steps: list[tuple[str, Any, float]], max_load: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory), interval_s=INTERVAL_S, db_config={"max_load": max_load})
        world = World(rig)
        at_s = 0.0
        for what, value, pause_s in steps:
            rig.at(at_s, lambda what=what, value=value: world.do(what, value))  # type: ignore[misc]
            at_s += pause_s
        rig.at(at_s, world.heal)
        rig.run_for(at_s + CALM_S + 800)  # a look may be under way when it heals
        status = rig.board.watch("default")
        rows = [record["id"] for body in world.bodies(QUERIES) for record in body["queries"]]
        answered = sorted(body["command_id"] for body in world.bodies(COMMAND_RESULT))
        ended_s = rig.clock.monotonic()
        rig.outbox.close()
    event(f"the breaker was open when it healed: {bool(world.opened)}")
    assert rows == [f"r{number}" for number in range(rig.source.rows)]
    assert answered == list(range(1, world.given + 1))
    assert (status.error, status.state) == (None, "idle")
    assert ended_s - world.looks[-1].began_s <= INTERVAL_S + 1
    check_load(world.looks, max_load)


def check_load(looks: list[Look], max_load: float) -> None:
    """Each look that the schedule brought leaves the rest to its predecessor, and so any stretch of them the load."""
    stretch: list[Look] = []
    for earlier, later in pairwise(looks):
        if not later.is_scheduled or earlier.cost_s is None:
            stretch = []
            continue
        rest_s = earlier.cost_s / max_load
        assert later.began_s - earlier.began_s >= min(rest_s, REST_CAP_S) - 1e-6
        stretch = [*stretch, earlier] if rest_s <= REST_CAP_S else []
        if stretch:
            spent_s = sum(look.cost_s or 0.0 for look in stretch)
            assert spent_s <= max_load * (later.began_s - stretch[0].began_s) + 1e-6
            event("a stretch of looks kept the budget")


def test_control_without_a_budget_the_same_looks_are_too_much() -> None:
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory), interval_s=INTERVAL_S, db_config={"max_load": 0})
        world = World(rig, takes_s=20.0)
        rig.run_for(1_000)
        rig.outbox.close()
    try:
        check_load(world.looks, 0.01)
    except AssertionError:
        return
    raise AssertionError("nobody noticed")
