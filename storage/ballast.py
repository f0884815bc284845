"""Room that is kept for bad days: files that are given up when the disk is full, so that the outbox can still shrink.

On a disk with no byte free even a DELETE fails, because SQLite writes it to the WAL first. Knows no database.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

BALLAST_BYTES = 2 * 1_048_576
_SHARE_OF_DISK = 8
# More than one, because they keep inodes too: SQLite may need one for the WAL and one for its index.
NAMES = ("outbox.ballast-1", "outbox.ballast-2")


class Ballast:
    """The files in `directory`, all of the same size. One thread uses it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._paths = [directory / name for name in NAMES]
        self.is_kept = False

    @property
    def bytes(self) -> int:
        """So much is kept: less on a small disk. 0 when the disk cannot be asked."""
        try:
            disk = os.statvfs(self._directory)
        except OSError:
            return 0
        return min(BALLAST_BYTES, disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK)

    def keep(self) -> bool:
        """Makes the files where there is room for them, and as much again; whether they are there."""
        if not self.is_kept:
            size = self.bytes // len(self._paths)
            has_room = size > 0 and self._has_room(2 * self.bytes)
            self.is_kept = has_room and all(_keep(path, size) for path in self._paths)
        return self.is_kept

    def release(self) -> bool:
        """Gives the room up; whether there was any to give."""
        self.is_kept = False
        found = False
        for path in self._paths:
            with suppress(OSError):
                path.unlink()
                found = True
        return found

    def _has_room(self, wanted: int) -> bool:
        try:
            disk = os.statvfs(self._directory)
        except OSError:
            return False
        there = sum(path.stat().st_size for path in self._paths if path.exists())
        return disk.f_bavail * disk.f_frsize + there >= wanted


def reserve(path: Path, size: int) -> bool:
    """Makes the file at least `size` bytes long, with all of them allocated; whether that was done."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Allocated and not only extended: a hole in a file keeps no room.
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def _keep(path: Path, size: int) -> bool:
    is_kept = reserve(path, size)
    with suppress(OSError):
        if is_kept:
            os.truncate(path, size)
        else:
            path.unlink()
    return is_kept
