"""The file of an outbox: opened, healed when it is damaged, usable on a full disk. Knows no envelope's meaning.

One connection, one lock; whoever gets the connection holds the lock as long.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from storage import books
from storage.ballast import Ballast
from storage.connection import (
    PAGE_BYTES,
    STATEMENT_ERRORS,
    WAL_AUTOCHECKPOINT_PAGES,
    close_as_it_is,
    connect,
    explain,
    make_durable,
)
from storage.diagnosis import diagnose, forbids_writing
from storage.directory import make_private
from storage.envelope import Tally
from storage.errors import OutboxBroken, OutboxDamaged, OutboxError, OutboxFull, OutboxGone, OutboxInaccessible
from storage.findings import Describe
from storage.high_water import HighWater, HighWaterFile
from storage.salvage import DAMAGED, finish_swap, salvage
from storage.schema import PROBE, VERSION, identify, installation_of, migrate
from storage.wal import bytes_with_wal, widen, write_through

FILE_NAME = "outbox.sqlite3"
_HEAL_PAUSE_S = 60.0  # a disk that damages everything at once is not to be filled with damaged files
_FEWEST_PAGES = 8
_PLENTY_BYTES = 64 * 1_048_576
# About what the delete of a large envelope writes. Replaced in its place each time: a full disk lets no file grow.
_PROBE = (PROBE, "0" * 40_960)

_LOW = "SELECT min(seq) FROM envelope"
_FIRST = "SELECT topic, (SELECT min(place) FROM envelope WHERE envelope.topic = tally.topic) FROM tally"
_BOOKMARKS = "SELECT name, at_seq FROM bookmark"
_PROBED = f"SELECT 1 FROM note WHERE name = '{PROBE}'"

T = TypeVar("T")
OnBooks = Callable[[str, Tally], None]


class OutboxFile:
    """Each `write` is one transaction that is on the disk when it returns. Any thread may call any method.

    Errors of all methods: OutboxFull when there was no room (nothing was changed), OutboxDamaged when the file was
    found damaged and has been rebuilt (try again), OutboxBroken or OutboxInaccessible for everything else.
    """

    def __init__(
        self,
        directory: Path,
        *,
        topics: Sequence[str],
        now: Callable[[], float],
        describe: Describe,
        on_books: OnBooks,
        on_loss: Callable[[str], None],
    ) -> None:
        """Opens or creates it. `now` gives Unix seconds; `on_books` hears each topic's books at the start and after
        every change, in order; `on_loss` hears a sentence when a damaged file had to be rebuilt."""
        self.path = directory / FILE_NAME
        self.is_tight = False  # a commit failed, and no probe has shown yet that one succeeds again
        self._topics, self._now, self._describe = tuple(topics), now, describe
        self._on_books, self._on_loss = on_books, on_loss
        self._lock = threading.Lock()
        self._ballast = Ballast(directory)
        _make_directory(directory)
        self._mark = HighWaterFile(directory)
        self._state = self._mark.found
        self._healed_at = -_HEAL_PAUSE_S
        self._connection: sqlite3.Connection | None = None
        self._inode, self._is_closed = 0, False
        with self._lock:
            self._open()

    @property
    def installation(self) -> str:
        """The name that is part of every key."""
        return self._state.installation if self._state is not None else ""

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for looking only."""
        with self._lock:
            try:
                yield self._connection or self._open()
            except STATEMENT_ERRORS as error:
                raise self._judged(explain(error)) from error
            except OutboxDamaged as error:
                raise self._judged(error) from error

    def write(self, work: Callable[[sqlite3.Connection], T], *, draining: bool = False) -> T:
        """What `work` gives, done in one transaction; it may be called again when there was no room at first.

        `draining`: room is made for it by all means, because it leads to more room.
        """
        with self._lock:
            try:
                return self._insist(lambda: self._guarded(lambda sql: self._commit(sql, work)), draining=draining)
            except OutboxFull as error:
                if draining and self._has_plenty():
                    raise self._judged(OutboxDamaged(f"{error.detail}, but there is room")) from error
                raise

    def _has_plenty(self) -> bool:
        """Whether there is room: a number of a page that is far too large looks to SQLite like a full disk."""
        free, _ = self.free_bytes()
        return free >= _PLENTY_BYTES and self._ballast.keep()

    def shrink(self) -> bool:
        """Gives a chunk of unused pages back to the file system; whether there was as much.

        In chunks, because SQLite writes what it moves to the WAL first: at once it would need the space a second time.
        """
        with self._lock:
            return self._insist(lambda: self._guarded(self._give_chunk_back), draining=True)

    def demand_there(self) -> None:
        """Raises OutboxGone when the file was deleted or moved: SQLite would go on writing into what nobody finds."""
        try:
            found = self.path.stat().st_ino
        except OSError:
            found = None
        if self._connection is not None and found != self._inode:
            raise OutboxGone(str(self.path))

    def offer(self, seq: int) -> None:
        """Remembers outside the file, 0: forgets, that this envelope may be on its way; found again at the next
        start, it is doubtful. Not synced: a power cut may forget it."""
        with self._lock:
            if self._state is not None and self._state.offered != seq:
                self._state = replace(self._state, offered=seq)
                self._mark.write(self._state)

    def relax(self) -> None:
        """There is room: the ballast is kept again, where it fits."""
        with self._lock:
            self._ballast.keep()

    def probe(self) -> None:
        """Raises OutboxFull unless a commit of some size succeeds now."""
        self.write(lambda sql: books.put_note(sql, *_PROBE), draining=True)
        self.is_tight = False

    def used_bytes(self) -> int:
        """What stands in the file, without its unused pages."""
        with self.reading() as sql:
            return (_number(sql, "page_count") - _number(sql, "freelist_count")) * _number(sql, "page_size")

    def unused_bytes(self) -> int:
        """What can be stored without the file becoming longer."""
        with self.reading() as sql:
            return _number(sql, "freelist_count") * _number(sql, "page_size")

    def free_bytes(self) -> tuple[int, int]:
        """Bytes free on the disk for us, and its size."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError as error:
            raise OutboxInaccessible(f"{self.path.parent} ({error.strerror})") from error
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize

    def keep_aside(self, seq: int, body: bytes) -> None:
        """Keeps what is left of a damaged envelope beside the file, where there is room for it."""
        stamp = datetime.fromtimestamp(self._now(), UTC).strftime("%Y%m%dT%H%M%SZ")
        with suppress(OSError):
            aside = self.path.with_name(f"outbox.damaged-{stamp}-envelope-{seq}")
            make_private(aside)
            aside.write_bytes(body)

    def close(self) -> None:
        """Closes the file; what was committed is on the disk whether or not this is called."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._is_closed = True
            self._mark.close()

    # -- opening -----------------------------------------------------------------------------------------------

    def _open(self, wrong: str | None = None) -> sqlite3.Connection:
        """`wrong`: why it has to be rebuilt, when that is known already."""
        if self._is_closed:
            raise OutboxBroken(f"{self.path} was closed")
        try:
            return self._open_or_rebuild(wrong)
        except OutboxFull:
            # Even opening needs a little: SQLite makes an index of its WAL.
            if not self._ballast.release():
                raise
            connection = self._open_or_rebuild(wrong if self._may_rebuild() else None)
            widen(self.path, self._checkpoint_pages)  # from now on it has the room that a drain needs
            return connection

    def _open_or_rebuild(self, wrong: str | None) -> sqlite3.Connection:
        try:
            if finish_swap(self.path):
                self._on_loss("The outbox had been rebuilt before the last end; its gaps say what was lost")
            reason = wrong or diagnose(self.path, self._state, self._describe)
            if reason is None:
                write_through(self.path)
                try:
                    return self._connect()
                except OutboxDamaged:
                    reason = DAMAGED
            self._rebuild(reason)
            return self._connect()
        except STATEMENT_ERRORS as error:
            raise self._or_full(explain(error)) from error
        except OSError as error:
            raise self._or_full(OutboxInaccessible(f"{self.path.parent} ({error.strerror})")) from error
        except OutboxError as error:
            raise self._or_full(error) from error

    def _rebuild(self, reason: str) -> None:
        if not self._may_rebuild():
            raise OutboxDamaged(f"it was rebuilt less than {_HEAL_PAUSE_S:g} s ago")
        needed, (free, _) = bytes_with_wal(self.path), self.free_bytes()
        if free < needed:
            raise OutboxFull(f"to rebuild a damaged outbox {needed:,} bytes are needed, {free:,} are free")
        report = salvage(self.path, reason, self._state, self._describe, self._now())
        self._healed_at = self._now()
        self._on_loss(str(report))

    def _may_rebuild(self) -> bool:
        return abs(self._now() - self._healed_at) >= _HEAL_PAUSE_S

    def _connect(self) -> sqlite3.Connection:
        make_private(self.path)
        connection = connect(self.path)
        try:
            version = identify(connection, self.path)
            make_durable(connection)
            # What is not in the file yet when the disk becomes full has to fit into half of the ballast: only what is
            # checkpointed makes room in the WAL for the deletes.
            connection.execute(f"PRAGMA wal_autocheckpoint={self._checkpoint_pages}").fetchall()
            migrate(connection, version)
            self.is_tight = not self._ballast.keep()
            self._commit(connection, self._begin)
        except STATEMENT_ERRORS as error:
            close_as_it_is(connection, self.path)
            if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY" and forbids_writing(self.path):
                raise OutboxDamaged(f"{self.path} ({error})") from error
            raise explain(error) from error
        except BaseException:
            close_as_it_is(connection, self.path)
            raise
        self._connection, self._inode = connection, self.path.stat().st_ino
        return connection

    def _begin(self, sql: sqlite3.Connection) -> None:
        """What each start settles: books for every topic, and doubt about what was on its way at the end."""
        known = books.read_all(sql)
        for topic in self._topics:
            if topic not in known:
                books.change(sql, topic)
        if self._ballast.is_kept and sql.execute(_PROBED).fetchone() is None:
            books.put_note(sql, *_PROBE)
        if self._state is not None and self._state.installation == installation_of(sql) and self._state.offered:
            books.doubt(sql, self._state.offered)

    # -- writing -----------------------------------------------------------------------------------------------

    def _insist(self, act: Callable[[], T], *, draining: bool) -> T:
        for make_room in (self._checkpoint, self._give_up_ballast) if draining else (self._checkpoint,):
            try:
                return act()
            except OutboxFull:
                make_room()
        return act()

    def _guarded(self, act: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return act(self._connection or self._open())
        except STATEMENT_ERRORS as error:
            raise self._judged(explain(error)) from error
        except OutboxDamaged as error:
            raise self._judged(error) from error

    def _give_chunk_back(self, sql: sqlite3.Connection) -> bool:
        if _number(sql, "freelist_count") < self._checkpoint_pages:
            return False
        # execute() would free a single page; executescript runs the pragma to its end.
        sql.executescript(f"PRAGMA incremental_vacuum({self._checkpoint_pages}); PRAGMA wal_checkpoint(PASSIVE)")
        return True

    def _commit(self, sql: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        # IMMEDIATE: a deferred transaction that turns into a writer gets SQLITE_BUSY despite the timeout.
        sql.execute("BEGIN IMMEDIATE")
        try:
            result = work(sql)
            # Read before the commit: after it nothing may fail any more, or the caller believes that nothing was
            # changed.
            tallies = books.read_all(sql)
            state = self._state_of(sql, tallies)
            sql.execute("COMMIT")
        except BaseException:
            with suppress(*STATEMENT_ERRORS):
                sql.execute("ROLLBACK")
            raise
        self._state = state
        self._mark.write(state)
        for topic, tally in tallies.items():
            self._on_books(topic, tally)
        return result

    def _state_of(self, sql: sqlite3.Connection, tallies: dict[str, Tally]) -> HighWater:
        high = books.last_seq(sql)
        ((low,),) = sql.execute(_LOW).fetchall()
        return HighWater(
            VERSION,
            installation_of(sql),
            high=high,
            low=high + 1 if low is None else low,
            offered=self._state.offered if self._state is not None and self._connection is not None else 0,
            books={topic: tuple(getattr(tally, name) for name in books.FIELDS) for topic, tally in tallies.items()},
            bookmarks={name: at for name, at in sql.execute(_BOOKMARKS).fetchall() if at is not None},
            first={topic: high + 1 if at is None else at for topic, at in sql.execute(_FIRST).fetchall()},
        )

    def _checkpoint(self) -> None:
        if self._connection is not None:
            with suppress(*STATEMENT_ERRORS):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _give_up_ballast(self) -> None:
        if self._ballast.release():
            self._checkpoint()
            widen(self.path, self._checkpoint_pages)

    @property
    def _checkpoint_pages(self) -> int:
        return max(_FEWEST_PAGES, min(WAL_AUTOCHECKPOINT_PAGES, self._ballast.bytes // 2 // PAGE_BYTES))

    # -- failures ----------------------------------------------------------------------------------------------

    def _judged(self, error: OutboxError) -> OutboxError:
        """The error to raise; the file was rebuilt when that was what it needed."""
        self.is_tight = True
        if isinstance(error, OutboxDamaged) and self._may_rebuild():
            if self._connection is not None:
                close_as_it_is(self._connection, self.path)
                self._connection = None
            self._open(DAMAGED)
        return self._or_full(error)

    def _or_full(self, error: OutboxError) -> OutboxError:
        """SQLite has many names for a disk without room or inodes."""
        if type(error).code not in {"OB-04", "OB-07"}:
            return error
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return error
        return OutboxFull(error.detail) if not disk.f_bavail or (disk.f_files and not disk.f_favail) else error


def _number(sql: sqlite3.Connection, pragma: str) -> int:
    ((number,),) = sql.execute(f"PRAGMA {pragma}").fetchall()
    return int(number)


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutboxInaccessible(f"{directory} ({error.strerror})") from error
