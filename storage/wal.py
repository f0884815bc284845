"""The WAL beside an outbox, as a file. No lock on it is dropped by a close, and SQLite takes zeros for its end."""

from __future__ import annotations

import os
from pathlib import Path

from storage.errors import OutboxBroken

_CHUNK_BYTES = 1_048_576


def wal_of(path: Path) -> Path:
    """Where the WAL of the database at `path` is."""
    return path.with_name(f"{path.name}-wal")


def settle(path: Path) -> None:
    """Makes what stands in the WAL durable; raises OutboxBroken.

    What a killed process wrote and never synced would be read as if the disk had it. It is written once more, because
    after a sync that failed the kernel takes it for clean.
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
