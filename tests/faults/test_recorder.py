"""The recorder sees everything that the outbox does to its files, and the recorded program does what it says.

What could go wrong: SQLite goes past the recorder (linked into Python, another name of a call, a mapped file), so that
power is cut in a log that has nothing to do with the files; the program acknowledges what it did not do, so that
nothing is demanded; a cut happens in calls that were never made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest

from storage.outbox import FILE_NAME
from tests.faults import recorder
from tests.faults.disk import Disk
from tests.faults.looks import Look
from tests.faults.power_cuts import LIFE, PROGRAM, Recording
from tests.faults.recorded_program import CUT_SHORT
from tests.faults.recorder import Event, Operation


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}


def replayed(events: Iterable[Event]) -> dict[str, bytes]:
    disk = Disk()
    for event in events:
        disk.apply(event)
    return disk.current


def test_whatever_is_done_to_files_is_recorded(recorder_library: Path, tmp_path: Path) -> None:
    directory, log, acks = tmp_path / "data", tmp_path / "log", tmp_path / "acks"
    directory.mkdir()
    module = "tests.faults.plain_files"
    assert recorder.run(recorder_library, module, directory, directory=directory, log=log, acks=acks) == 0
    events = recorder.read_log(log)
    there = files(directory)
    assert sorted(there) == ["appended", "covered", "failed", "new name", "placed", "plain"]
    assert (there["covered"], len(there["placed"])) == (b"over", 9_000)
    assert replayed(events) == there
    assert {event.operation for event in events} == set(get_args(Operation)) - {"ack"}
    assert [event.name for event in events if event.operation == "sync"] == ["placed", "placed", "failed", "."]
    assert {event.name for event in events}.isdisjoint({"elsewhere", "index-shm"})


@pytest.fixture(scope="module")
def ends(recorder_library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, list[Event], Any]]:
    """Of each part of the program: how it ended, what was recorded until then, what the files are."""
    place = tmp_path_factory.mktemp("life")
    directory, log, acks = place / "data", place / "log", place / "acks"
    directory.mkdir()
    found = []
    for part in LIFE:
        arguments = (PROGRAM, part, directory, acks, place / "looks")
        code = recorder.run(recorder_library, *arguments, directory=directory, log=log, acks=acks)
        found.append((code, recorder.read_log(log), files(directory)))
    return found


def test_the_files_are_what_was_recorded(ends: list[tuple[int, list[Event], Any]]) -> None:
    assert [replayed(events) == there for _, events, there in ends] == [True, True, True]
    assert all(there["outbox.sqlite3"].startswith(b"SQLite format 3") for _, _, there in ends)


def test_a_record_without_one_of_the_writes_is_not_what_the_files_are(ends: list[tuple[int, list[Event], Any]]) -> None:
    _, events, there = ends[0]
    last = max(at for at, event in enumerate(events) if event.operation == "write")
    assert replayed([*events[:last], *events[last + 1 :]]) != there


def test_the_first_two_processes_are_killed_with_a_wal_left_and_the_last_goes_by_itself(
    ends: list[tuple[int, list[Event], Any]],
) -> None:
    assert [code for code, _, _ in ends] == [-9, -9, 0]
    assert ["outbox.sqlite3-wal" in there for _, _, there in ends] == [True, True, False]


def stretches(events: Iterable[Event]) -> list[list[Event]]:
    """What was done for each acknowledgement, which is the last of it."""
    found: list[list[Event]] = [[]]
    for event in events:
        found[-1].append(event)
        if event.operation == "ack":
            found.append([])
    return found[:-1]


def test_each_change_is_written_and_synced_before_it_is_acknowledged(life: Recording) -> None:
    for stretch, look, following in zip(stretches(life.events), life.looks, life.looks[1:], strict=False):
        if look != following:
            wal = [event.operation for event in stretch if event.name == f"{FILE_NAME}-wal"]
            assert "sync" in wal[len(wal) - wal[::-1].index("write") :], "after the last write to it"


def test_the_life_has_checkpoints_and_gives_space_back(life: Recording) -> None:
    seen = Counter((event.operation, event.name) for event in life.events)
    assert seen["truncate", "outbox.sqlite3"] > 1
    assert seen["sync", "outbox.sqlite3"] > 5
    assert seen["unlink", "outbox.sqlite3-wal"] > 1
    starts = [event.offset for event in life.events if event.operation == "write" and event.name.endswith("-wal")]
    assert starts.count(0) > seen["create", "outbox.sqlite3-wal"], "the WAL is begun again after a checkpoint"


def test_what_is_acknowledged_is_what_was_done(life: Recording) -> None:
    captured, gone, delivered, parked = list[int](), set[int](), 0, 0
    promises = [json.loads(event.data) for event in life.events if event.operation == "ack"]
    assert len(life.looks) == len(promises) + 1
    for promise, look in zip(promises, life.looks[1:], strict=True):
        assert isinstance(look, Look)
        captured += promise.get("captured", [])
        gone |= {*promise.get("delivered", []), *promise.get("parked", [])}
        delivered, parked = delivered + len(promise.get("delivered", [])), parked + len(promise.get("parked", []))
        assert captured == list(range(len(captured)))
        assert sorted(look.waiting) == [number for number in captured if number not in gone]
        assert int(look.bookmark or 0) == len(captured) == look.captured
        assert [sum(books[at] for books in look.books.values()) for at in (1, 4)] == [delivered, parked]
        assert look.is_sound
    assert (delivered > 40, parked > 1) == (True, True), "there is something to lose"
    assert CUT_SHORT in [len(promise.get("captured", [])) for promise in promises]
