"""Room that is kept for bad days.

What could go wrong: it takes the last room there is; it is a hole in a file and keeps nothing; half of it is left
behind; it is not given up when it is needed, or taken again at once; a disk that cannot be asked stops the agent.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.ballast import BALLAST_BYTES, NAMES, Ballast


def disk(monkeypatch: pytest.MonkeyPatch, free_mib: float, whole_mib: float = 10_240) -> None:
    sizes = SimpleNamespace(f_bavail=int(free_mib * 256), f_blocks=int(whole_mib * 256), f_frsize=4_096)
    monkeypatch.setattr(os, "statvfs", lambda _: sizes)


def kept(directory: Path) -> int:
    """Bytes that are really taken from the disk."""
    return sum((directory / name).stat().st_blocks * 512 for name in NAMES if (directory / name).exists())


def test_it_is_kept_for_real_and_for_us_alone(tmp_path: Path) -> None:
    assert Ballast(tmp_path).keep()
    assert kept(tmp_path) >= BALLAST_BYTES
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(NAMES, 0o600)


@pytest.mark.parametrize(("free_mib", "is_kept"), [(4, True), (3.9, False), (0, False)])
def test_as_much_again_must_be_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: float, is_kept: bool
) -> None:
    disk(monkeypatch, free_mib)
    assert Ballast(tmp_path).keep() is is_kept
    assert (kept(tmp_path) > 0) is is_kept


def test_of_a_small_disk_it_takes_an_eighth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, 8, 8)
    assert Ballast(tmp_path).keep()
    assert kept(tmp_path) == 1 << 20


def test_what_an_earlier_start_kept_counts_as_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ballast(tmp_path).keep()
    disk(monkeypatch, 2)
    assert Ballast(tmp_path).keep()
    assert Ballast(tmp_path).bytes == BALLAST_BYTES


def test_it_is_given_up_once_and_kept_again_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ballast = Ballast(tmp_path)
    ballast.keep()
    assert ballast.release()
    assert list(tmp_path.iterdir()) == []
    assert not ballast.release()
    with monkeypatch.context() as patch:
        disk(patch, 1)
        assert not ballast.keep()
    assert ballast.keep()
    assert kept(tmp_path) >= BALLAST_BYTES


def test_a_ballast_of_an_earlier_start_is_given_up_too(tmp_path: Path) -> None:
    Ballast(tmp_path).keep()
    assert Ballast(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_where_it_does_not_fit_no_file_is_left_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, _offset: int, _size: int) -> None:
        os.ftruncate(descriptor, 100_000)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert not Ballast(tmp_path).keep()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_asked_keeps_nothing(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "gone")
    assert (ballast.bytes, ballast.keep(), ballast.release()) == (0, False, False)
