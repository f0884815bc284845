"""What could go wrong: a trigger is forgotten (transitions leaves it out silently), a way exists that the table does
not have, the pause flag or a wish to collect is overlooked, a refused trigger changes something, the picture is old.

The table stands here a second time, written from the design and not from the code.
"""

from __future__ import annotations

import itertools

import pytest
from transitions import MachineError

from agent import machine
from agent.backoff import Backoff
from agent.commands import Command
from agent.watch import Watch
from scripts import diagram
from tests.fakes.manual import Midway

STATES = ("idle", "collecting", "paused", "reconnecting")
TRIGGERS = ("begin", "finish", "lose_connection", "pause", "resume")


def expected(state: str, trigger: str, *, paused: bool, asked: bool) -> str | None:
    """Where the design says that it goes; None: refused, nothing changes; 'error': there is no such way."""
    match (trigger, state):
        case ("begin", "idle" | "reconnecting"):
            return "collecting"
        case ("begin", "paused"):
            return "collecting" if asked else None
        case ("finish", "collecting"):
            return "paused" if paused else "idle"
        case ("lose_connection", "idle" | "collecting" | "reconnecting"):
            return "paused" if paused else "reconnecting"
        case ("pause", "idle" | "reconnecting"):
            return "paused"
        case ("resume", "paused"):
            return "idle"
    return "error"


def watch_in(state: str, *, paused: bool, asked: bool, entered: list[str]) -> Watch:
    watch = Watch(interval_s=1, paused=False, now_s=0, backoff=Backoff(1, 60, Midway()), on_enter=entered.append)  # type: ignore[arg-type]
    watch.state, watch.paused = state, paused
    watch.asked = [Command(1, "collect")] if asked else []
    return watch


@pytest.mark.parametrize(
    ("state", "trigger", "paused", "asked"),
    list(itertools.product(STATES, TRIGGERS, (False, True), (False, True))),
)
def test_each_trigger_does_in_each_state_what_the_table_says(
    state: str, trigger: str, paused: bool, asked: bool
) -> None:
    entered: list[str] = []
    watch = watch_in(state, paused=paused, asked=asked, entered=entered)
    goal = expected(state, trigger, paused=paused, asked=asked)
    if goal == "error":
        with pytest.raises(MachineError):
            getattr(watch, trigger)()
    else:
        assert getattr(watch, trigger)() == (goal is not None)
    reached = state if goal in {"error", None} else goal
    assert (watch.state, entered) == (reached, [] if goal in {"error", None} else [reached])
    assert (watch.paused, len(watch.asked)) == (paused, int(asked))


def test_the_states_and_triggers_are_exactly_those_of_the_design() -> None:
    assert set(machine.STATES) == set(STATES)
    assert {row["trigger"] for row in machine.TRANSITIONS} == set(TRIGGERS)


def test_every_trigger_is_bound_by_the_machine_and_none_is_left_to_the_class() -> None:
    watch = watch_in("idle", paused=False, asked=False, entered=[])
    assert [name for name in (*TRIGGERS, "is_collecting") if name not in vars(watch)] == []


def test_control_an_unattached_model_is_not_bound() -> None:
    watch = Watch.__new__(Watch)
    assert [name for name in TRIGGERS if name in vars(watch)] == []
    with pytest.raises(NotImplementedError):
        watch.begin()


def test_no_trigger_jumps_to_a_state_by_its_name() -> None:
    watch = watch_in("idle", paused=False, asked=False, entered=[])
    assert [name for name in dir(watch) if name.startswith("to_")] == []


def test_a_watch_that_was_paused_starts_paused() -> None:
    watch = Watch(interval_s=1, paused=True, now_s=0, backoff=Backoff(1, 60, Midway()), on_enter=lambda _: None)  # type: ignore[arg-type]
    assert (watch.state, watch.wait_s(10)) == ("paused", None)


# -- the picture -------------------------------------------------------------------------------------------------------


def test_the_picture_shows_exactly_the_ways_of_the_design() -> None:
    arrows = {
        (line.split()[0], line.split()[2].rstrip(":"), line.split()[3])
        for line in diagram.mermaid().splitlines()
        if "-->" in line and "[*]" not in line
    }
    wanted = {
        (state, goal, trigger)
        for state, trigger, paused in itertools.product(STATES, TRIGGERS, (False, True))
        if (goal := expected(state, trigger, paused=paused, asked=True)) not in {None, "error"}
    }
    assert arrows == wanted


def test_the_picture_is_put_between_its_markers_and_nothing_else_changes() -> None:
    text = f"before\n{diagram.BEGIN}\nold\n{diagram.END}\nafter\n"
    drawn = diagram.drawn_into(text)
    assert drawn == f"before\n{diagram.BEGIN}\n{diagram.mermaid()}\n{diagram.END}\nafter\n"
    assert diagram.drawn_into(drawn) == drawn


@pytest.mark.parametrize("text", ["", diagram.BEGIN, diagram.END + diagram.BEGIN, 2 * (diagram.BEGIN + diagram.END)])
def test_a_text_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should hold"):
        diagram.drawn_into(text)


def test_the_page_shows_the_table() -> None:
    text = diagram.PAGE.read_text(encoding="utf-8")
    assert text == diagram.drawn_into(text)
