"""Files as a crash and other users must find them: private from their first byte, and durable with their names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


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
