"""The WAL beside a database file, handled by its bytes. SQLite keeps no lock on it that a close could drop."""

from __future__ import annotations

import os
from pathlib import Path

from storage.ballast import reserve
from storage.connection import PAGE_BYTES
from storage.errors import OutboxBroken

_CHUNK_BYTES = 1_048_576
_MAGIC, _HEAD_BYTES = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"), 32


def wal_of(path: Path) -> Path:
    """Where the WAL of a database file is."""
    return path.with_name(f"{path.name}-wal")


def has_wal(path: Path) -> bool:
    """Whether there is a WAL with content beside a database file."""
    wal = wal_of(path)
    return wal.exists() and wal.stat().st_size > 0


def has_frames(path: Path) -> bool:
    """Whether there is a WAL beside a database file in which SQLite would look for pages."""
    try:
        with wal_of(path).open("rb") as file:
            head = file.read(_HEAD_BYTES + 1)
    except FileNotFoundError:
        return False
    return len(head) > _HEAD_BYTES and head.startswith(_MAGIC)


def write_through(path: Path) -> None:
    """Makes durable what stands in the WAL of `path`, before anybody relies on it. Raises OutboxBroken.

    What a killed process wrote and never synced would be read as if the disk had it. Written once more, because after
    a sync that failed the kernel takes it for clean.
    """
    wal = wal_of(path)
    try:
        with wal.open("r+b", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                file.seek(-len(chunk), os.SEEK_CUR)
                file.write(chunk)
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutboxBroken(f"{wal} ({error.strerror})") from error


def widen(path: Path, pages: int) -> None:
    """Gives the WAL of `path` room for so many pages, before somebody else takes it; SQLite takes zeros for its end."""
    reserve(wal_of(path), pages * PAGE_BYTES)


def bytes_with_wal(path: Path) -> int:
    """The size of a database file with its WAL."""
    return sum(each.stat().st_size for each in (path, wal_of(path)) if each.exists())
