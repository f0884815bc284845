"""Files as a crash and other users must find them: private from their first byte, and durable with their names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from storage.errors import OutboxInaccessible


def make_directory(directory: Path) -> None:
    """Creates it for its owner alone, unless it is there. Raises OutboxInaccessible."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutboxInaccessible(f"{directory} ({error.strerror})") from error


def free_bytes(directory: Path) -> tuple[int, int]:
    """Bytes free for us on its disk, and the size of that. Raises OutboxInaccessible."""
    try:
        disk = os.statvfs(directory)
    except OSError as error:
        raise OutboxInaccessible(f"{directory} ({error.strerror})") from error
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


def make_private(path: Path) -> None:
    """Creates `path` for its owner alone, unless it is there; SQLite's files beside it take over the mode.

    Raises OSError.
    """
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes what was created, renamed or deleted in it durable."""
    with suppress(OSError):  # some file systems sync no directories
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
