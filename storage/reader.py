"""Reads the envelopes of an outbox file: a copy, one of an older format, one that an agent writes at this moment, or a
damaged one. Changes nothing in it, and leaves nothing beside it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storage.closable import Closable
from storage.connection import STATEMENT_ERRORS, connect, connect_readonly, explain
from storage.diagnosis import diagnose
from storage.directory import free_bytes
from storage.envelope import Envelope
from storage.errors import OutboxDamaged, OutboxForeign, OutboxFull, OutboxInaccessible
from storage.findings import Describe, mended
from storage.high_water import FILE_NAME as MARK_NAME
from storage.high_water import newest
from storage.lock import holder
from storage.outbox_file import FILE_NAME
from storage.salvage import Report, salvage
from storage.schema import GUARDED, identify, installation_of
from storage.traces import without_traces
from storage.wal import bytes_with_wal, wal_of

_ALL = -1
_HEADS = """
    SELECT seq, topic, place, key, records, length(body), created_at, {doubtful}, NULL, sha256, {guard} FROM envelope
"""
_PARKED = """
    SELECT seq, topic, seq, key, records, length(body), created_at, 0, reason, sha256, NULL FROM parked
"""
_ROW = """
    SELECT seq, topic, place, key, records, body, sha256, created_at, {doubtful}, {guard} FROM envelope WHERE seq = ?
"""
_ASIDE = "SELECT seq, topic, seq, key, records, body, sha256, created_at, 0, NULL FROM parked WHERE seq = ?"


@dataclass(frozen=True, slots=True)
class Head:
    """An envelope without its body. `bytes`: of the body, packed; `created_at`: Unix seconds; `parked`: why it was.

    `row`: the number under which it stands: `seq`, unless that was damaged and is put right here; 0: in no file.
    """

    seq: int
    topic: str
    place: int
    key: str
    records: int
    bytes: int
    created_at: float
    doubtful: int
    parked: str | None
    row: int = 0


class OutboxReader(Closable):
    """`path`: the file itself or its directory. `salvaged`: what a damaged one was found to have lost, else None;
    `unreadable`: what is wrong with envelopes that were left out because nobody can know what they were.

    `beside`: a file that an agent writes is read where it is, each question for itself; else a copy of it as it was.

    Raises OutboxForeign, OutboxNewer, OutboxInaccessible, OutboxFull (a damaged or a live file is copied first, into
    `scratch`), or OutboxBroken.
    """

    def __init__(
        self, path: Path, describe: Describe, *, now: float, scratch: Path | None = None, beside: bool = False
    ) -> None:
        self.path = path / FILE_NAME if _is_directory(path) else path
        self.salvaged: Report | None = None
        self.unreadable: list[str] = []
        self._mark = newest(self.path.with_name(MARK_NAME))[1] if self.path.name == FILE_NAME else None
        self.agent = holder(self.path.parent) if self.path.name == FILE_NAME else None
        self._describe, self._now, self._scratch, self._beside = describe, now, scratch, beside
        if not self.path.is_file():
            raise OutboxInaccessible(f"{self.path} (there is no such file)")
        with ExitStack() as stack:
            self._sql = self._open(stack)
            self.version = identify(self._sql, self.path)
            if self.version == 0:
                raise OutboxForeign(f"{self.path} is empty")
            self.installation = installation_of(self._sql)
            self._stack = stack.pop_all()

    # -- opening -----------------------------------------------------------------------------------------------

    def _open(self, stack: ExitStack) -> sqlite3.Connection:
        if self.agent is not None and self._beside:
            return _connected(stack, self.path)
        if self.agent is not None:
            return stack.enter_context(closing(self._snapshot(stack)))
        stack.enter_context(without_traces(self.path))
        try:
            wrong = self._diagnosed(self.path)
            if wrong is None:
                return _connected(stack, self.path)
        except OutboxInaccessible:  # a disk that cannot be written: SQLite wants to make an index of the WAL there
            wrong = None
        copy = self._copied(stack)
        wrong = wrong or self._diagnosed(copy)
        if wrong is not None:
            self.salvaged = salvage(copy, wrong, self._mark, self._describe, self._now)
        return _connected(stack, copy)

    def _diagnosed(self, path: Path) -> str | None:
        try:
            return diagnose(path, self._mark, self._describe, reads_all=True)
        except STATEMENT_ERRORS as error:
            raise explain(error) from error

    def _snapshot(self, stack: ExitStack) -> sqlite3.Connection:
        """What an agent has written up to now; it goes on writing meanwhile."""
        copy = self._room(stack) / FILE_NAME
        with closing(connect_readonly(self.path)) as live, closing(connect(copy)) as target:
            try:
                live.backup(target)
            except sqlite3.Error as error:
                raise explain(error) from error
        return connect_readonly(copy)

    def _copied(self, stack: ExitStack) -> Path:
        copy = self._room(stack) / FILE_NAME
        try:
            shutil.copyfile(self.path, copy)
            if wal_of(self.path).exists():
                shutil.copyfile(wal_of(self.path), wal_of(copy))
        except OSError as error:
            raise OutboxInaccessible(f"{self.path} ({error.strerror})") from error
        return copy

    def _room(self, stack: ExitStack) -> Path:
        try:
            room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outbox-", dir=self._scratch)))
        except OSError as error:
            raise OutboxInaccessible(f"{self._scratch or tempfile.gettempdir()} ({error.strerror})") from error
        needed, (free, _) = 2 * bytes_with_wal(self.path), free_bytes(room)
        if free < needed:
            raise OutboxFull(
                f"to copy {self.path.name} {needed:,} bytes are needed in {room.parent}, {free:,} are free"
            )
        return room

    # -- what is in it -----------------------------------------------------------------------------------------

    def heads(self, limit: int = _ALL) -> list[Head]:
        """What waits, by topic in the order of sending; the first `limit`."""
        return list(self._heads(f"{self._for_version(_HEADS)} ORDER BY topic, place, key LIMIT ?", limit))

    def parked(self, limit: int = _ALL) -> list[Head]:
        """What was kept aside, by topic and number; the first `limit`."""
        return list(self._heads(f"{_PARKED} ORDER BY topic, seq LIMIT ?", limit))

    def find(self, seq: int) -> Head | None:
        """What waits or was kept aside under that number; None when there is none."""
        waiting = self._heads(f"{self._for_version(_HEADS)} WHERE seq = ?", seq)
        return next(iter((*waiting, *self._heads(f"{_PARKED} WHERE seq = ?", seq))), None)

    def load(self, head: Head) -> Envelope:
        """The whole envelope. Raises OutboxDamaged when its body is not what was stored."""
        found = self._whole(head.row, is_parked=head.parked is not None)
        if found is None or found.key != head.key:
            raise OutboxDamaged(f"the body of envelope {head.seq} is not what was stored")
        return replace(found, doubtful=bool(head.doubtful))

    def _for_version(self, sql: str) -> str:
        is_guarded = self.version >= GUARDED
        return sql.format(doubtful="doubtful" if is_guarded else "0", guard="guard" if is_guarded else "NULL")

    def _heads(self, sql: str, value: int) -> Iterator[Head]:
        for row in self._rows(sql, value):
            *names, digest, check = row
            head = replace(Head(*names), row=names[0])
            if head.parked is None and not _holds(head, digest, check):
                mended = self._mended(head)
                if mended is None:
                    self.unreadable.append(f"envelope {head.seq} is not what was stored")
                    continue
                head = mended
            yield replace(head, doubtful=1) if self._was_offered(head) else head

    def _mended(self, head: Head) -> Head | None:
        """The same as its body tells it; None when that is damaged, too."""
        found = self._whole(head.row, is_parked=False)
        if found is None:
            return None
        names = (found.seq, found.topic, found.place, found.key, found.records)
        return Head(*names, len(found.body), found.created_at, int(found.doubtful), None, head.row)

    def _was_offered(self, head: Head) -> bool:
        """Whether it was on its way when the agent ended."""
        mark = self._mark
        return mark is not None and mark.installation == self.installation and mark.offered == head.seq > 0

    def _whole(self, row: int, *, is_parked: bool) -> Envelope | None:
        rows = self._rows(_ASIDE if is_parked else self._for_version(_ROW), row)
        found = [replace(Envelope(*each), doubtful=bool(each[8])) for each in rows]
        try:
            if is_parked:
                return next((each for each in found if each.is_intact), None)
            return next((mended(each, self._describe, self.installation) for each in found), None)
        except (TypeError, ValueError, AttributeError):  # a damaged row has values of any type
            return None

    def _rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._sql.execute(sql, values)
        except STATEMENT_ERRORS as error:
            raise explain(error) from error

    def close(self) -> None:
        """Ends the connection and removes the copy, if there was one; calling it twice is fine."""
        self._stack.close()


def outboxes(path: Path) -> list[Path]:
    """The outbox files that are meant by a path: the file itself, that of a data directory, or all below a directory.

    Raises OutboxInaccessible when there is none.
    """
    try:
        if not path.is_dir():
            return [path]
        if (path / FILE_NAME).exists():
            return [path / FILE_NAME]
        found = sorted({*path.glob("*.sqlite3"), *path.rglob(FILE_NAME)})
    except OSError as error:
        raise OutboxInaccessible(f"{path} ({error.strerror})") from error
    if not found:
        raise OutboxInaccessible(f"{path} (there is no outbox in it)")
    return found


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise OutboxInaccessible(f"{path} ({error.strerror})") from error


def _holds(head: Head, digest: bytes, check: bytes | None) -> bool:
    """Whether the row is what was written; one of format 1 says nothing of itself."""
    names = (head.seq, head.topic, head.place, head.key, head.records)
    row = Envelope(*names, b"", digest, head.created_at, bool(head.doubtful))
    with suppress(TypeError, ValueError):  # a damaged row has values of any type
        return check is not None and row.guard_now == check
    return False


def _connected(stack: ExitStack, path: Path) -> sqlite3.Connection:
    connection = stack.enter_context(closing(connect_readonly(path)))
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except STATEMENT_ERRORS as error:
        raise explain(error) from error
    return connection
