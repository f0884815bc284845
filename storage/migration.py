"""What a start would do to an outbox of an earlier format, told without doing it; and doing it, as a start does.

How the formats differ is known to `schema` alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from storage.connection import PAGE_BYTES, STATEMENT_ERRORS, connect_readonly, explain
from storage.directory import free_bytes
from storage.errors import OutboxDamaged, OutboxFull, OutboxGone, OutboxInaccessible
from storage.findings import Describe
from storage.high_water import FILE_NAME as MARK_NAME
from storage.high_water import newest
from storage.lock import DirectoryLock, holder
from storage.outbox import FILE_NAME, Outbox
from storage.schema import VERSION, columns_in, has_shape, identify, rewritten_from
from storage.traces import shm_of, without_traces
from storage.wal import has_frames

# A row that is written goes into the WAL, and from there into the file, where it may have no place yet; pages are
# seldom full. The tables' definitions and the books are some pages, whatever is in them.
_COPIES, _SOME_PAGES = 3, 64
_ROWS_A_SECOND = 20_000  # on a slow machine


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is in `path` now. `format`: of the file, 0 when there is none yet; `process`: the agent that works on it.

    `rows` and `bytes`: what would be written anew; `needed_bytes`: of the disk while that lasts, of which `free_bytes`
    are free.
    """

    path: Path
    process: str | None = None
    format: int = 0
    rows: int = 0
    bytes: int = 0
    free_bytes: int = 0

    @property
    def is_due(self) -> bool:
        """Whether there is something to be migrated."""
        return 0 < self.format < VERSION

    @property
    def needed_bytes(self) -> int:
        """At most, of the disk."""
        return _COPIES * self.bytes + _SOME_PAGES * PAGE_BYTES if self.is_due else 0

    @property
    def seconds(self) -> int:
        """About how long it takes, at most on most machines."""
        return -(-self.rows // _ROWS_A_SECOND) if self.is_due else 0

    def demand_room(self) -> None:
        """Raises OutboxFull when the disk has too little."""
        if self.free_bytes < self.needed_bytes:
            raise OutboxFull(
                f"to migrate {self.path} {self.needed_bytes:,} bytes are needed, {self.free_bytes:,} are free"
            )


def look(directory: Path) -> Outlook:
    """What would be done in `directory`. Changes nothing there, also where an agent that was killed has left its WAL.

    Raises OutboxForeign, OutboxNewer, OutboxDamaged (a start would rebuild it), OutboxGone, OutboxInaccessible,
    OutboxBroken.
    """
    return _look(directory, holder(directory))


def migrate(directory: Path, describe: Describe, on_loss: Callable[[str], None]) -> Outlook:
    """Does it, when there is something to do; what was found before. `describe` and `on_loss`: as for Outbox.

    Raises what `look` does, OutboxLocked while an agent works there, and OutboxFull; then nothing was changed.
    """
    found = look(directory)
    if not found.format:
        return found
    with DirectoryLock(directory):
        found = _look(directory, None)
        if found.is_due:
            found.demand_room()
            Outbox(directory, describe=describe, on_loss=on_loss).close()
        return found


def _look(directory: Path, process: str | None) -> Outlook:
    path = directory / FILE_NAME
    try:
        if not directory.is_dir():
            raise OutboxInaccessible(f"{directory} is no directory")
        if not path.exists():
            if newest(directory / MARK_NAME)[1] is not None:
                raise OutboxGone(f"{path}, although {MARK_NAME} tells of it")
            return Outlook(path, process)
        with without_traces(path):
            return _read(path, process)
    except STATEMENT_ERRORS as error:
        raise explain(error) from error
    except OSError as error:  # another user's directory
        raise OutboxInaccessible(f"{directory} ({error.strerror})") from error


def _read(path: Path, process: str | None) -> Outlook:
    if process is not None:
        return _told(path, process)
    if not has_frames(path):
        return _told(path, process, alone=True)
    try:
        return _told(path, process, keeps_index=shm_of(path).exists())
    except OutboxInaccessible:  # a WAL of which SQLite cannot make head or tail without an index of its own
        return _told(path, process)


def _told(path: Path, process: str | None, **how: bool) -> Outlook:
    with closing(connect_readonly(path, **how)) as sql:
        version = identify(sql, path)
        if version == 0:
            return Outlook(path, process)
        sql.execute("BEGIN")
        if not has_shape(sql, version):
            raise OutboxDamaged(f"{path} has not the tables of format {version}")
        rows, size = _rewritten(sql, version)
        return Outlook(path, process, version, rows, size, free_bytes(path.parent)[0])


def _rewritten(sql: sqlite3.Connection, version: int) -> tuple[int, int]:
    """Rows, and bytes in them, that a migration of this format writes anew."""
    rows = size = 0
    for table in rewritten_from(version):
        lengths = " + ".join(f"coalesce(length(CAST({name} AS BLOB)), 0)" for name in columns_in(version, table))
        ((number, length),) = sql.execute(f"SELECT count(*), total({lengths}) FROM {table}").fetchall()
        rows, size = rows + number, size + int(length)
    return rows, size
