"""Opens the file of an outbox: diagnosed first, rebuilt when it has to be, and then durable. Keeps no connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from storage.ballast import Ballast
from storage.connection import (
    PAGE_BYTES,
    STATEMENT_ERRORS,
    WAL_AUTOCHECKPOINT_PAGES,
    close_as_it_is,
    connect,
    explain,
    make_durable,
    or_full,
)
from storage.diagnosis import diagnose, forbids_writing
from storage.directory import free_bytes, make_private
from storage.errors import OutboxDamaged, OutboxError, OutboxFull, OutboxInaccessible
from storage.findings import Describe
from storage.high_water import HighWater
from storage.salvage import DAMAGED, salvage
from storage.schema import identify, migrate
from storage.swap import finish_swap
from storage.wal import bytes_with_wal, widen, write_through

_REBUILD_PAUSE_S = 60.0  # a disk that damages everything at once is not to be filled with damaged files
_FEWEST_PAGES = 8


class Opening:
    """Opens `path` as often as it is asked to. `now` gives Unix seconds; `on_loss` hears what a rebuild has cost."""

    def __init__(
        self,
        path: Path,
        ballast: Ballast,
        *,
        now: Callable[[], float],
        describe: Describe,
        on_loss: Callable[[str], None],
    ) -> None:
        self._path, self._ballast = path, ballast
        self._now, self._describe, self._on_loss = now, describe, on_loss
        self._rebuilt_at = -_REBUILD_PAUSE_S

    @property
    def may_rebuild(self) -> bool:
        """Whether the last rebuild is long enough ago."""
        return abs(self._now() - self._rebuilt_at) >= _REBUILD_PAUSE_S

    @property
    def checkpoint_pages(self) -> int:
        """At so many pages the WAL goes into the file.

        What is not in the file yet when the disk becomes full has to fit into half of the ballast: only what is
        checkpointed makes room in the WAL for the deletes.
        """
        return max(_FEWEST_PAGES, min(WAL_AUTOCHECKPOINT_PAGES, self._ballast.bytes // 2 // PAGE_BYTES))

    def open(
        self, mark: HighWater | None, begin: Callable[[sqlite3.Connection], None], wrong: str | None = None
    ) -> sqlite3.Connection:
        """A connection on which `begin` was done.

        `mark`: what is known of the file from outside; `wrong`: why it has to be rebuilt, when that is known already.

        Raises OutboxForeign, OutboxNewer, OutboxInaccessible, OutboxNotDurable, OutboxFull, OutboxBroken, and
        OutboxDamaged when it was rebuilt just now and is damaged again.
        """
        try:
            return self._open_or_rebuild(mark, begin, wrong)
        except OutboxFull:
            # Even opening needs a little: SQLite makes an index of its WAL.
            if not self._ballast.release():
                raise
            connection = self._open_or_rebuild(mark, begin, wrong if self.may_rebuild else None)
            widen(self._path, self.checkpoint_pages)  # from now on it has the room that a drain needs
            return connection

    def _open_or_rebuild(
        self, mark: HighWater | None, begin: Callable[[sqlite3.Connection], None], wrong: str | None
    ) -> sqlite3.Connection:
        try:
            if finish_swap(self._path):
                self._on_loss("The outbox had been rebuilt before the last end; its gaps say what was lost")
            reason = wrong or diagnose(self._path, mark, self._describe)
            if reason is None:
                write_through(self._path)
                try:
                    return self._connect(begin)
                except OutboxDamaged:
                    reason = DAMAGED
            self._rebuild(reason, mark)
            return self._connect(begin)
        except STATEMENT_ERRORS as error:
            raise or_full(explain(error), self._path.parent) from error
        except OSError as error:
            inaccessible = OutboxInaccessible(f"{self._path.parent} ({error.strerror})")
            raise or_full(inaccessible, self._path.parent) from error
        except OutboxError as error:
            raise or_full(error, self._path.parent) from error

    def _rebuild(self, reason: str, mark: HighWater | None) -> None:
        if not self.may_rebuild:
            raise OutboxDamaged(f"it was rebuilt less than {_REBUILD_PAUSE_S:g} s ago")
        needed, (free, _) = bytes_with_wal(self._path), free_bytes(self._path.parent)
        if free < needed:
            raise OutboxFull(f"to rebuild a damaged outbox {needed:,} bytes are needed, {free:,} are free")
        report = salvage(self._path, reason, mark, self._describe, self._now())
        self._rebuilt_at = self._now()
        self._on_loss(str(report))

    def _connect(self, begin: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        make_private(self._path)
        connection = connect(self._path)
        try:
            version = identify(connection, self._path)
            make_durable(connection)
            connection.execute(f"PRAGMA wal_autocheckpoint={self.checkpoint_pages}").fetchall()
            migrate(connection, version)
            begin(connection)
        except STATEMENT_ERRORS as error:
            close_as_it_is(connection, self._path)
            if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY" and forbids_writing(self._path):
                raise OutboxDamaged(f"{self._path} ({error})") from error
            raise explain(error) from error
        except BaseException:
            close_as_it_is(connection, self._path)
            raise
        return connection
