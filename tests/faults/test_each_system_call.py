"""Each system call of a change may be the last one, or fail: the change is there wholly or not at all.

What could go wrong: a process is killed between two writes and half of a change is found; a disk error or a full disk
is not told, leaves half a change behind, or leaves an outbox behind that works only after a new start; an outbox that
was being made when it happened is never one.
The faults are made by tests/faults/recorder.c inside a process that runs tests/faults/faulty_calls.py.
"""

from __future__ import annotations

import errno
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storage.errors import OutboxBroken, OutboxFull
from storage.outbox import FILE_NAME
from storage.schema import VERSION
from tests.faults import recorder
from tests.faults.faulty_calls import COMMITTED, ERRORS
from tests.faults.looks import Look
from tests.faults.old_format import FORMATS, version
from tests.faults.power_cuts import start

PROGRAM = "tests.faults.faulty_calls"
CHANGES = ["commit", "accept", "park", "split"]
STARTS = ["creation", "start"]
MIGRATIONS = [f"migration of format {earlier}" for earlier in FORMATS]
BY_HAND = [f"`migrate` of format {earlier}" for earlier in FORMATS]  # an opening and a closing, then one more opening


@dataclass(frozen=True)
class Report:
    """What the program has to tell; `before` and `after` are looks without a fault."""

    calls: list[str]
    trials: list[dict[str, Any]]
    before: Look | None
    after: Look

    @property
    def tried(self) -> set[str]:
        """The calls at which something was made to happen."""
        return {trial["call"] for trial in self.trials}

    @property
    def closing(self) -> range:
        """The calls of the checkpoint with which an outbox is closed; none when it stays open."""
        if (gone := f"unlink {FILE_NAME}-wal") not in self.calls:
            return range(0)
        end = self.calls.index(gone) + 1
        last = max(number for number, call in enumerate(self.calls[:end], 1) if call == f"write {FILE_NAME}-wal")
        return range(self.calls.index(COMMITTED, last) + 2, end + 1)

    def must_be_told(self, trial: dict[str, Any], last: int) -> bool:
        """Whether the change is not on the disk without this call, which is among the first `last`.

        Where there was no room once, the outbox may have made some and tried again. What a failed checkpoint leaves
        undone is in the WAL, where the next process finds it.
        """
        operation, name = str(trial["call"]).split(" ", 1)
        is_needed = operation in {"write", "sync"} and name.startswith(FILE_NAME) and int(trial["number"]) <= last
        is_needed = is_needed and trial["number"] not in self.closing
        return is_needed and (trial["error"] != "ENOSPC" or bool(trial["for_ever"]))


def same(found: dict[str, Any] | None, expected: Look | None) -> bool:
    """Whether a look shows what is expected; a new outbox is like any other new one."""
    if found is None or expected is None:
        return found is None and expected is None
    look = Look(**found)
    return look == expected or (look.is_new and expected.is_new)


def report(library: Path, kind: str, operation: str, place: Path) -> Report:
    """Lets the faults happen in directories of `place`."""
    arguments = (PROGRAM, kind, operation, place)
    assert recorder.run(library, *arguments, directory=place, log=place / "log", acks=place / "acks") == 0
    told = json.loads((place / "report.json").read_text(encoding="utf-8"))
    before = told["before"] and Look(**told["before"])
    return Report(told["calls"], told["trials"], before, Look(**told["after"]))


# -- killed ------------------------------------------------------------------------------------------------------------


def demand_all_or_nothing(library: Path, operation: str, place: Path) -> Report:
    """Kills at each call and opens what is left."""
    told = report(library, "kills", operation, place)
    *killed, unharmed = told.trials
    assert {trial["code"] for trial in killed} == {-signal.SIGKILL}, "the fault has happened"
    assert unharmed["code"] == 0, "there is no call after the last one"
    assert len({trial["directory"] for trial in told.trials}) == len(told.trials)
    found = {trial["directory"]: start(place / trial["directory"], told.before, told.after) for trial in told.trials}
    assert {name: seen for name, (verdict, seen) in found.items() if verdict != "fine"} == {}
    assert start(place / "rehearsal", told.after, None) == ("fine", ""), "and in the end it is there"
    return told


@pytest.mark.parametrize("operation", [*CHANGES, *STARTS])
def test_killed_at_any_call_it_has_happened_wholly_or_not_at_all(
    recorder_library: Path, place: Path, operation: str
) -> None:
    told = demand_all_or_nothing(recorder_library, operation, place)
    assert told.tried == {*told.calls, "the end"}
    assert len(told.trials) > len(told.calls)


def test_killed_at_any_call_of_a_checkpoint_nothing_is_lost(recorder_library: Path, place: Path) -> None:
    told = demand_all_or_nothing(recorder_library, "checkpoint", place)
    assert told.tried == {*behind_the_commit(told), "the end"}


def behind_the_commit(told: Report) -> list[str]:
    """What a checkpoint does."""
    calls = told.calls[told.calls.index(COMMITTED) + 1 :]
    assert {f"write {FILE_NAME}", f"sync {FILE_NAME}"} <= {*calls}, "there is a checkpoint"
    return calls


def test_killed_before_its_last_sync_a_commit_may_be_there_and_before_its_last_write_never(
    recorder_library: Path, place: Path
) -> None:
    told = report(recorder_library, "kills", "commit", place)
    last = told.calls.index(COMMITTED) + 1
    assert start(place / f"{last}", told.after, None) == ("fine", ""), "the control: the process did the last write"
    assert start(place / f"{last - 1}-torn", told.after, None)[0] == "lost"
    assert start(place / "1", told.after, None)[0] == "lost"


def test_a_change_in_two_transactions_is_found_half_done(recorder_library: Path, place: Path) -> None:
    told = report(recorder_library, "kills", "careless", place)
    verdicts = {start(place / trial["directory"], told.before, told.after)[0] for trial in told.trials}
    assert verdicts == {"fine", "torn"}


# -- failed ------------------------------------------------------------------------------------------------------------


def demand_that_errors_are_told(library: Path, operation: str, place: Path) -> Report:
    """Lets each call fail and looks at what the process does then."""
    told = report(library, "errors", operation, place)
    is_start = operation in {*STARTS, *MIGRATIONS, *BY_HAND}
    commits = [number for number, call in enumerate(told.calls, 1) if call == COMMITTED]
    last = max(commits, default=0) if is_start else commits[0]
    for trial in told.trials:
        what = {name: trial[name] for name in ("call", "number", "error", "for_ever", "raised")}
        assert trial["met"] > 0, what
        assert bool(trial["raised"]) or not told.must_be_told(trial, last), what
        assert same(trial["found"], (None if is_start else told.before) if trial["raised"] else told.after), what
        assert same(trial["again"], told.after), what
        more = Look(**trial["more"])
        assert (more.captured, len(more.waiting)) == (told.after.captured + 1, len(told.after.waiting) + 1), what
        assert more.is_sound, what
        assert trial["kept"], what
    return told


@pytest.mark.parametrize("operation", [*CHANGES, *STARTS])
def test_a_call_that_fails_is_told_and_changes_nothing_and_the_outbox_works_on(
    recorder_library: Path, place: Path, operation: str
) -> None:
    told = demand_that_errors_are_told(recorder_library, operation, place)
    assert told.tried == {*told.calls}
    assert len(told.trials) > len(told.calls)
    assert {trial["error"] for trial in told.trials} == {errno.errorcode[error] for error in ERRORS}


def test_a_checkpoint_that_fails_is_no_failure_of_the_commit_before_it(recorder_library: Path, place: Path) -> None:
    told = demand_that_errors_are_told(recorder_library, "checkpoint", place)
    assert told.tried == {*behind_the_commit(told)}
    assert {trial["raised"] for trial in told.trials} == {""}


def test_a_change_in_two_transactions_that_fails_is_left_half_done(recorder_library: Path, place: Path) -> None:
    told = report(recorder_library, "errors", "careless", place)
    assert any(trial["raised"] and not same(trial["found"], told.before) for trial in told.trials)


def test_a_full_disk_is_told_as_one(recorder_library: Path, place: Path) -> None:
    told = report(recorder_library, "errors", "commit", place)
    writes = [trial for trial in told.trials if trial["call"] == f"write {FILE_NAME}-wal" and trial["for_ever"]]
    assert {(trial["error"], trial["code"]) for trial in writes} == {
        ("EIO", OutboxBroken.code),
        ("ENOSPC", OutboxFull.code),
    }


# -- an outbox of an earlier format ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [*MIGRATIONS, *BY_HAND])
def test_killed_at_any_call_a_migration_has_happened_wholly_or_not_at_all(
    recorder_library: Path, place: Path, operation: str
) -> None:
    demand_all_or_nothing(recorder_library, operation, place)
    assert version(place / "rehearsal") == VERSION


@pytest.mark.parametrize("operation", [*MIGRATIONS, *BY_HAND])
def test_a_call_that_fails_ends_a_migration_that_can_be_tried_again(
    recorder_library: Path, place: Path, operation: str
) -> None:
    told = demand_that_errors_are_told(recorder_library, operation, place)
    assert bool(told.closing) == (operation in BY_HAND)
