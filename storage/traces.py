"""Leaves a database file that is only read as it was: what SQLite makes beside it goes again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.lock import unless_held
from storage.wal import wal_of


def shm_of(path: Path) -> Path:
    """Where SQLite's index of the WAL of a database file is."""
    return path.with_name(f"{path.name}-shm")


@contextmanager
def without_traces(path: Path) -> Iterator[None]:
    """At the end removes what was made beside `path` meanwhile, unless an agent has begun to work on it."""
    absent = [each for each in (wal_of(path), shm_of(path)) if not each.exists()]
    try:
        yield
    finally:
        for each in absent:
            with unless_held(each.parent) as is_ours, suppress(OSError):
                if is_ours and (each.stat().st_size == 0 or each.name.endswith("-shm")):
                    os.unlink(each)
