"""What else is written beside the outbox, on a disk that is full: the lock, the mark, the remote configuration.

What could go wrong: the lock is not taken because its name cannot be written; a mark that cannot be written is an
error, or is never written again; a remote configuration that does not fit destroys the one that was there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import remote
from storage.errors import OutboxFull, OutboxLocked
from storage.high_water import FILE_NAME, HighWater, HighWaterFile, newest
from storage.lock import DirectoryLock
from tests.faults.small_disk import Disk, tmpfs

BEFORE, AFTER = {"collection_interval": 60}, {"collection_interval": 61, "db_config.host": "h" * 10_000}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with tmpfs(tmp_path / "disk") as mounted:
        yield mounted


def test_the_lock_is_taken_without_room_for_the_name_of_its_holder(disk: Disk) -> None:
    disk.hog()
    with DirectoryLock(disk.path) as lock:
        assert lock.path.read_bytes() == b"", "there was no room for it"
        with pytest.raises(OutboxLocked, match="unknown"):
            DirectoryLock(disk.path)


def test_a_lock_that_cannot_be_made_says_that_there_is_no_room(disk: Disk) -> None:
    hog = disk.take_inodes()
    with pytest.raises(OutboxFull):
        DirectoryLock(disk.path)
    hog.go()
    with DirectoryLock(disk.path):
        disk.take_inodes()
    with DirectoryLock(disk.path):
        assert disk.free_inodes == 0


def test_a_mark_that_finds_no_room_is_no_error_and_is_written_as_soon_as_there_is_some(disk: Disk) -> None:
    hog = disk.hog()
    mark = HighWaterFile(disk.path)
    mark.write(HighWater(2, "i", high=1))
    assert newest(disk.path / FILE_NAME) == (0, None)
    hog.go()
    mark.write(HighWater(2, "i", high=2))
    hog = disk.hog()
    mark.write(HighWater(2, "i", high=3))
    mark.close()
    assert disk.free_bytes == 0
    found = HighWaterFile(disk.path).found
    assert found is not None
    assert found.high == 3, "it is written over in its place"


def test_a_remote_configuration_that_finds_no_room_leaves_the_one_that_was_there(disk: Disk) -> None:
    remote.save(disk.path, {}, BEFORE)
    hog = disk.hog()
    with pytest.raises(OSError, match=r".*") as caught:
        remote.save(disk.path, {}, AFTER)
    assert caught.value.errno == errno.ENOSPC
    assert disk.free_bytes == 0
    assert remote.overlay(disk.path, {}, "any") == BEFORE
    hog.go()
    remote.save(disk.path, {}, AFTER)
    assert remote.overlay(disk.path, {}, "any") == AFTER
