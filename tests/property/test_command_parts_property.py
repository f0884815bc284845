"""Commands that several watches carry out in parts, in any order, with crashes around every commit, full disks, repeats
and restarts: in the end there is one result of each, its effect was once in each watch that it concerns, and it says
of each what that watch did.

What could go wrong is in the head of tests/unit/test_command_book.py; here it is looked for in histories that nobody
thought of.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from agent.command_book import PARTS_NOTE
from agent.command_desk import PAUSED_NOTE
from agent.commands import Command, addressees
from storage.envelope import Change
from storage.errors import OutboxFull
from tests.fakes.clock import ManualClock
from tests.fakes.several import Several

NAMES = ("orders", "billing", "stock")
WORDS = ("stop", "start", "collect", "dance")
MISHAPS = ("crash before", "crash after", "disk full", "none")


class CrashError(BaseException):
    """The process is gone at this instant."""


class World:
    """One agent over its restarts."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, ManualClock()
        self.given: list[Command] = []
        self.effects: Counter[tuple[int, str]] = Counter()  # command and watch: how often it was made durable
        self.looks: dict[tuple[int, str], bool] = {}  # a `collect` and the watch: how the look went that answered it
        self.mishap = "none"
        self.crashes = 0
        self.start()

    def start(self) -> None:
        self.agent = Several(self.directory, NAMES, self.clock)
        self._commit = self.agent.outbox.commit
        self.agent.outbox.commit = self._faulty_commit  # type: ignore[method-assign]

    def restart(self) -> None:
        self.agent.close()
        self.start()

    def _faulty_commit(self, change: Change) -> None:
        mishap, self.mishap = self.mishap, "none"
        if mishap == "crash before":
            raise CrashError
        if mishap == "disk full":
            raise OutboxFull("says the test")
        self._commit(change)
        self._committed()
        if mishap == "crash after":
            raise CrashError

    def _committed(self) -> None:
        self.effects.update(self._doing)

    def play(self, what: str, number: int, name: str, detail: Any) -> None:
        """One step of a history."""
        try:
            if what == "give":
                target = {"target": name} if detail == "target" else {}
                self.given.append(Command(len(self.given), WORDS[number % len(WORDS)], target, "noon"))
            elif what == "do" and self.given:
                self.do(self.given[number % len(self.given)], name)
            elif what == "look":
                self.look(name, success=detail != "fails")
            elif what == "mishap":
                self.mishap = MISHAPS[number % len(MISHAPS)]
            elif what == "restart":
                self.restart()
        except OutboxFull:
            event("disk full")
        except CrashError:
            self.crashes += 1
            self.restart()

    def do(self, command: Command, name: str) -> None:
        """The watch hears it, for the first time or again."""
        if name in addressees(command, NAMES):
            self._doing = [] if command.word == "collect" else [(command.id, name)]
            self.agent.desks[name].carry_out(command)

    def look(self, name: str, *, success: bool) -> None:
        """The end of a look answers every `collect` that was asked for."""
        asked = list(self.agent.watches[name].asked)
        self._doing = [(command.id, name) for command in asked]
        for command in asked:
            if self.effects[command.id, name] == 0:
                self.looks[command.id, name] = success
        self.agent.look(name, success=success)

    def heal(self) -> None:
        """The backend hands out everything until it has a result."""
        self.mishap = "none"
        for command in self.given:
            for name in NAMES:
                self.do(command, name)
        for name in NAMES:
            self.look(name, success=True)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["do", "do", "do", "do", "mishap", "mishap", "look", "give", "restart"]),
        st.integers(0, 30),
        st.sampled_from(NAMES),
        st.sampled_from(["target", "fails", "plain", "plain"]),
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=60)
@given(steps=STEPS)
def test_each_command_has_its_effect_once_in_each_watch_and_one_result(steps: list[tuple[str, int, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.given = [Command(number, word, {}, "noon") for number, word in enumerate(WORDS[:3])]
        for step in steps:
            world.play(*step)
        world.heal()
        results, left = world.agent.results(), world.agent.outbox.notes(PARTS_NOTE)
        paused = world.agent.paused()
        world.agent.close()
    event(f"crashes: {min(world.crashes, 3)}")
    expected = {(command.id, name) for command in world.given for name in addressees(command, NAMES)}
    assert world.effects == Counter(dict.fromkeys(expected, 1))
    assert Counter(result["command_id"] for result in results) == Counter(command.id for command in world.given)
    assert left == {}
    assert len(paused) <= len(NAMES)
    for result in results:
        command = world.given[result["command_id"]]
        went = {name: went_well(world, command, name) for name in addressees(command, NAMES)}
        assert result["success"] == all(went.values())
        if len(went) > 1:
            told = result["result"]["watches"]
            assert {name: part["success"] for name, part in told.items()} == went


def went_well(world: World, command: Command, name: str) -> bool:
    return world.looks[command.id, name] if command.word == "collect" else command.word != "dance"


def test_control_a_note_that_is_not_of_the_same_transaction_is_found_missing(tmp_path: Path) -> None:
    """The same history without the note of the part: the effect is there a second time."""
    world = World(tmp_path)

    def torn(change: Change) -> None:
        world._commit(Change(notes={name: text for name, text in change.notes.items() if PAUSED_NOTE in name}))
        world._committed()

    world.agent.outbox.commit = torn  # type: ignore[method-assign]
    world.given.append(Command(0, "stop", {}, "noon"))
    world.do(world.given[0], "orders")
    world.restart()
    world.do(world.given[0], "orders")
    assert world.effects[0, "orders"] == 2
    world.agent.close()
