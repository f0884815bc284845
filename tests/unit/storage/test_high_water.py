"""The mark outside the database.

What could go wrong: a write that is torn takes the last good state with it; nonsense is believed or keeps the agent
from starting; a mark that cannot be written stops it; with very many databases it does not fit and is not written at
all; an old mark wins over a newer one; a mark of the next version is thrown away.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.high_water import FILE_NAME, HighWater, HighWaterFile, newest

SLOT_BYTES = 2_048
BOOKS = {"queries": (9, 5, 0, 0, 1, 3, 1_000, 2, 0), "command_result": (1, 1, 0, 0, 0, 0, 0, 0, 0)}


def state(high: int) -> HighWater:
    return HighWater(
        *(2, "0123456789abcdef", high),
        low=high - 3,
        offered=high - 1,
        books=BOOKS,
        bookmarks={"default": high},
        first={"queries": high - 3, "command_result": high + 1},
    )


def written(directory: Path, *highs: int) -> Path:
    file = HighWaterFile(directory)
    for high in highs:
        file.write(state(high))
    file.close()
    return directory / FILE_NAME


def found(directory: Path) -> HighWater | None:
    return HighWaterFile(directory).found


def spoil(path: Path, at: int, content: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(content)] = content
    path.write_bytes(whole)


def test_what_was_written_last_is_found(tmp_path: Path) -> None:
    assert found(tmp_path) is None
    for highs in ((10,), (11, 12), (13, 14, 15)):
        written(tmp_path, *highs)
        assert found(tmp_path) == state(highs[-1])


def test_looking_makes_no_file_and_it_is_ours_alone(tmp_path: Path) -> None:
    HighWaterFile(tmp_path).close()
    assert list(tmp_path.iterdir()) == []
    path = written(tmp_path, 10)
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_size) == (0o600, 2 * SLOT_BYTES)


@pytest.mark.parametrize("highs", [(10, 11), (10, 11, 12)])
def test_a_torn_write_costs_one_step(tmp_path: Path, highs: tuple[int, ...]) -> None:
    path = written(tmp_path, *highs)
    newest_slot = len(highs) % 2 * SLOT_BYTES
    spoil(path, newest_slot + 100, b"\0" * 500)
    assert found(tmp_path) == state(highs[-2])
    written(tmp_path, 20)  # and the torn slot is the one that is overwritten
    assert found(tmp_path) == state(20)


def test_with_both_slots_torn_there_is_no_mark_and_a_new_one_begins(tmp_path: Path) -> None:
    path = written(tmp_path, 10, 11)
    for at in (50, SLOT_BYTES + 50):
        spoil(path, at, b"torn")
    assert found(tmp_path) is None
    written(tmp_path, 12)
    assert found(tmp_path) == state(12)


@given(st.binary(max_size=5_000))
def test_nonsense_is_no_mark(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("mark") / FILE_NAME
    path.write_bytes(content)
    assert newest(path) == (0, None)


@given(st.integers(0, 2 * SLOT_BYTES - 1), st.integers(0, 7))
def test_one_bit_costs_one_step_at_most(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = written(tmp_path_factory.mktemp("mark"), 10, 11)
    spoil(path, at, bytes([path.read_bytes()[at] ^ 1 << bit]))
    assert found(path.parent) in (state(10), state(11))


def test_with_very_many_databases_the_newest_bookmark_is_told_for_all_and_then_the_books_go_too(tmp_path: Path) -> None:
    many = {f"database{number}": number for number in range(200)}
    books = {f"topic{number}": (1,) * 9 for number in range(200)}
    file = HighWaterFile(tmp_path)
    file.write(HighWater(2, "name", 10, books=BOOKS, bookmarks=many, first={"queries": 4}))
    assert found(tmp_path) == HighWater(2, "name", 10, books=BOOKS, bookmarks={"*": 199}, first={"queries": 4})
    file.write(HighWater(2, "name", 11, books=books, bookmarks=many, first={"queries": 4}))
    assert found(tmp_path) == HighWater(2, "name", 11, bookmarks={"*": 199})
    file.close()


def test_a_mark_of_a_later_version_that_says_more_is_still_understood(tmp_path: Path) -> None:
    text = json.dumps([7, 3, 50, 40, 0, "name", {}, {}, {"queries": 41}, "something new"])
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    (tmp_path / FILE_NAME).write_bytes(f"{digest} {text}".encode().ljust(SLOT_BYTES))
    assert found(tmp_path) == HighWater(3, "name", 50, 40, first={"queries": 41})


def test_a_mark_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    file = HighWaterFile(tmp_path)
    file.write(state(10))
    file.close()
    file.close()
    assert (file.found, (tmp_path / FILE_NAME).is_dir()) == (None, True)


def test_a_full_disk_stops_nobody_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 10)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    file = HighWaterFile(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        file.write(state(11))
    assert found(tmp_path) == state(10)
    file.write(state(12))
    file.close()
    assert found(tmp_path) == state(12)
