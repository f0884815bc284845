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
from pathlib import Path
from typing import TypeVar

from storage import books
from storage.ballast import Ballast
from storage.connection import connect, explain, make_durable
from storage.diagnosis import diagnose
from storage.envelope import Tally
from storage.errors import OutboxBroken, OutboxDamaged, OutboxError, OutboxFull, OutboxGone, OutboxInaccessible
from storage.findings import Describe
from storage.guard import guard
from storage.high_water import HighWater, HighWaterFile
from storage.salvage import DAMAGED, finish_swap, salvage, sync_directory
from storage.schema import VERSION, identify, installation_of, migrate

FILE_NAME = "outbox.sqlite3"
_HEAL_PAUSE_S = 60.0  # a disk that damages everything at once is not to be filled with damaged files
_CHUNK_BYTES = 1_048_576
PROBE = "probe"
_PROBE_BYTES = 65_536  # about what the delete of a large envelope writes

_LOW = "SELECT min(seq) FROM envelope"
_BOOKMARKS = "SELECT name, at_seq FROM bookmark"

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
        self.is_tight = False  # there was no room for a commit, and nobody has shown yet that there is again
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
            except sqlite3.Error as error:
                raise self._judged(explain(error)) from error
            except OutboxDamaged as error:
                raise self._judged(error) from error

    def write(self, work: Callable[[sqlite3.Connection], T], *, draining: bool = False) -> T:
        """What `work` gives, done in one transaction; it may be called again when there was no room at first.

        `draining`: room is made for it by all means, because it leads to more room.
        """
        with self._lock:
            for make_room in (self._checkpoint, self._give_up_ballast) if draining else (self._checkpoint,):
                try:
                    return self._transact(work)
                except OutboxFull:
                    self.is_tight = True
                    make_room()
            return self._transact(work)

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
            if self._ballast.keep():
                self.is_tight = False

    def probe(self) -> None:
        """Raises OutboxFull unless a commit of some size succeeds now."""
        note = (PROBE, "0" * _PROBE_BYTES)
        put, remove = "INSERT OR REPLACE INTO note VALUES (?, ?, ?)", "DELETE FROM note WHERE name = ?"
        self.write(lambda sql: sql.execute(put, (*note, guard("note", *note))).close(), draining=True)
        self.write(lambda sql: sql.execute(remove, (PROBE,)).close(), draining=True)
        self.is_tight = False

    def free_bytes(self) -> tuple[int, int]:
        """Bytes free on the disk for us, and its size."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError as error:
            raise OutboxInaccessible(f"{self.path.parent} ({error.strerror})") from error
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize

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
            return self._open_or_rebuild(wrong)

    def _open_or_rebuild(self, wrong: str | None) -> sqlite3.Connection:
        try:
            finish_swap(self.path)
            reason = wrong or diagnose(self.path, self._state, self._describe)
            if reason is None:
                _settle(self.path.with_name(f"{self.path.name}-wal"))
                try:
                    return self._connect()
                except OutboxDamaged:
                    reason = DAMAGED
            self._on_loss(str(salvage(self.path, reason, self._state, self._describe, self._now())))
            return self._connect()
        except sqlite3.Error as error:
            raise self._or_full(explain(error)) from error
        except OSError as error:
            raise self._or_full(OutboxInaccessible(f"{self.path.parent} ({error.strerror})")) from error
        except OutboxError as error:
            raise self._or_full(error) from error

    def _connect(self) -> sqlite3.Connection:
        _make_private(self.path)
        connection = connect(self.path)
        try:
            version = identify(connection, self.path)
            make_durable(connection)
            migrate(connection, version)
            self._ballast.keep()
            self._commit(connection, self._begin)
        except sqlite3.Error as error:
            connection.close()
            raise explain(error) from error
        except BaseException:
            connection.close()
            raise
        self._connection, self._inode = connection, self.path.stat().st_ino
        return connection

    def _begin(self, sql: sqlite3.Connection) -> None:
        """What each start settles: books for every topic, and doubt about what was on its way at the end."""
        known = books.read_all(sql)
        for topic in self._topics:
            if topic not in known:
                books.change(sql, topic)
        if self._state is not None and self._state.installation == installation_of(sql) and self._state.offered:
            books.doubt(sql, self._state.offered)

    # -- writing -----------------------------------------------------------------------------------------------

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._commit(self._connection or self._open(), work)
        except sqlite3.Error as error:
            raise self._judged(explain(error)) from error
        except OutboxDamaged as error:
            raise self._judged(error) from error

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
            with suppress(sqlite3.Error):
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
        )

    def _checkpoint(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _give_up_ballast(self) -> None:
        self._ballast.release()
        self._checkpoint()

    # -- failures ----------------------------------------------------------------------------------------------

    def _judged(self, error: OutboxError) -> OutboxError:
        """The error to raise; the file was rebuilt when that was what it needed."""
        if isinstance(error, OutboxDamaged) and abs(self._now() - self._healed_at) >= _HEAL_PAUSE_S:
            self._healed_at = self._now()
            if self._connection is not None:
                self._connection.close()
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


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutboxInaccessible(f"{directory} ({error.strerror})") from error


def _settle(wal: Path) -> None:
    # What a killed process wrote and never synced would be read as if the disk had it. Written once more, because after
    # a sync that failed the kernel takes it for clean. SQLite keeps no lock on this file that a close could drop.
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


def _make_private(path: Path) -> None:
    # Created by us, so that SQLite's umask never decides who may read it; -wal and -shm take over the mode.
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        sync_directory(path.parent)
