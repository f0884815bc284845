"""The file of an outbox: written so that a commit is on the disk, healed when it is damaged, usable on a full disk.

One connection, one lock; whoever gets the connection holds the lock as long. Knows no envelope's meaning.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from storage import books, envelopes, gaps, notes
from storage.ballast import Ballast
from storage.connection import STATEMENT_ERRORS, close_as_it_is, explain, give_back, number, or_full
from storage.directory import free_bytes, make_directory, make_private
from storage.envelope import Losses, Tally
from storage.errors import OutboxBroken, OutboxDamaged, OutboxError, OutboxFull, OutboxGone
from storage.findings import Describe
from storage.high_water import HighWaterFile, state_of
from storage.opening import Opening
from storage.salvage import DAMAGED
from storage.schema import PROBE, installation_of
from storage.wal import widen

FILE_NAME = "outbox.sqlite3"
_PLENTY_BYTES = 64 * 1_048_576
# About what the delete of a large envelope writes. Replaced in its place each time: a full disk lets no file grow.
_PROBE = (PROBE, "0" * 40_960)
_PROBED = f"SELECT 1 FROM note WHERE name = '{PROBE}'"

T = TypeVar("T")
OnBooks = Callable[[str, Tally], None]
OnGaps = Callable[[Losses], None]


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
        on_gaps: OnGaps,
        on_loss: Callable[[str], None],
    ) -> None:
        """Opens or creates it. `now` gives Unix seconds; `on_books` hears each topic's books at the start and after
        every change, in order, `on_gaps` what is known to be lost, at the start and after each new gap; `on_loss` hears
        a sentence when a damaged file had to be rebuilt."""
        self.path = directory / FILE_NAME
        self.is_tight = False  # a commit failed, and no probe has shown yet that one succeeds again
        self._topics, self._now = tuple(topics), now
        self._on_books, self._on_gaps = on_books, on_gaps
        self._gaps_told = -1
        self._lock = threading.Lock()
        self._ballast = Ballast(directory)
        self._opening = Opening(self.path, self._ballast, now=now, describe=describe, on_loss=on_loss)
        make_directory(directory)
        self._mark = HighWaterFile(directory)
        self._state = self._mark.found
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
        """The connection, for what needs no transaction of its own."""
        with self._lock:
            try:
                yield self._connection or self._open()
            except STATEMENT_ERRORS as error:
                raise self._judged(explain(error)) from error
            except OutboxDamaged as error:
                raise self._judged(error) from error

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """The connection, for several reads that have to fit together: another process may change the file as well."""
        with self.reading() as sql:
            sql.execute("BEGIN")
            try:
                yield sql
            finally:
                with suppress(*STATEMENT_ERRORS):
                    sql.execute("ROLLBACK")

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
            self._demand_open()  # once it is closed the mark may be another's
            if self._state is not None and self._state.offered != seq:
                self._state = replace(self._state, offered=seq)
                self._mark.write(self._state)

    def relax(self) -> None:
        """There is room: the ballast is kept again, where it fits."""
        with self._lock:
            self._ballast.keep()

    def probe(self) -> None:
        """Raises OutboxFull unless a commit of some size succeeds now."""
        self.write(lambda sql: notes.put(sql, *_PROBE), draining=True)
        self.is_tight = False

    def used_bytes(self) -> int:
        """What stands in the file, without its unused pages."""
        with self.reading() as sql:
            return (number(sql, "page_count") - number(sql, "freelist_count")) * number(sql, "page_size")

    def unused_bytes(self) -> int:
        """What can be stored without the file becoming longer."""
        with self.reading() as sql:
            return number(sql, "freelist_count") * number(sql, "page_size")

    def free_bytes(self) -> tuple[int, int]:
        """Bytes free on the disk for us, and its size."""
        return free_bytes(self.path.parent)

    def keep_aside(self, seq: int, body: bytes) -> None:
        """Keeps what is left of a damaged envelope beside the file, where there is room for it."""
        stamp = datetime.fromtimestamp(self._now(), UTC).strftime("%Y%m%dT%H%M%SZ")
        with suppress(OSError):
            aside = self.path.with_name(f"damaged-envelope-{seq}-{stamp}")
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

    def _demand_open(self) -> None:
        if self._is_closed:
            raise OutboxBroken(f"{self.path} was closed")

    def _open(self, wrong: str | None = None) -> sqlite3.Connection:
        self._demand_open()
        self._gaps_told = -1  # those of a rebuilt file are others, though they may be as many
        connection = self._opening.open(self._state, lambda sql: self._commit(sql, self._begin), wrong)
        self._inode, self._connection = self.path.stat().st_ino, connection
        return connection

    def _begin(self, sql: sqlite3.Connection) -> None:
        """What each opening does: books for every topic, and doubt about what was on its way at the end."""
        self.is_tight = not self._ballast.keep()
        known = books.read_all(sql)
        for topic in self._topics:
            if topic not in known:
                books.change(sql, topic)
        gaps.fold(sql)  # an agent before this one may have left any number
        if not self.is_tight and sql.execute(_PROBED).fetchone() is None:
            notes.put(sql, *_PROBE)
        if self._state is not None and self._state.installation == installation_of(sql) and self._state.offered:
            envelopes.doubt(sql, self._state.offered)

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

    @property
    def _offered(self) -> int:
        # What was offered before the opening is settled by it.
        return self._state.offered if self._state is not None and self._connection is not None else 0

    def _give_chunk_back(self, sql: sqlite3.Connection) -> bool:
        chunk = self._opening.checkpoint_pages
        if number(sql, "freelist_count") < chunk:
            return False
        give_back(sql, chunk)
        return True

    def _commit(self, sql: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        # IMMEDIATE: a deferred transaction that turns into a writer gets SQLITE_BUSY despite the timeout.
        sql.execute("BEGIN IMMEDIATE")
        try:
            result = work(sql)
            # Read before the commit: after it nothing may fail any more, or the caller believes that nothing was
            # changed.
            tallies = books.read_all(sql)
            count = next((tally.gaps for tally in tallies.values()), None)
            count = gaps.so_far(sql) if count is None else count
            losses = _intact_losses(sql) if count != self._gaps_told else None
            state = state_of(sql, tallies, self._offered)
            sql.execute("COMMIT")
        except BaseException:
            with suppress(*STATEMENT_ERRORS):
                sql.execute("ROLLBACK")
            raise
        self._state = state
        self._mark.write(state)
        for topic, tally in tallies.items():
            self._on_books(topic, tally)
        if losses is not None:
            self._gaps_told = count
            self._on_gaps(losses)
        return result

    def _checkpoint(self) -> None:
        if self._connection is not None:
            with suppress(*STATEMENT_ERRORS):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _give_up_ballast(self) -> None:
        if self._ballast.release():
            self._checkpoint()
            widen(self.path, self._opening.checkpoint_pages)

    def _has_plenty(self) -> bool:
        """Whether there is room: a number of a page that is far too large looks to SQLite like a full disk."""
        free, _ = self.free_bytes()
        return free >= _PLENTY_BYTES and self._ballast.keep()

    # -- failures ----------------------------------------------------------------------------------------------

    def _judged(self, error: OutboxError) -> OutboxError:
        """The error to raise; the file was rebuilt when that was what it needed."""
        self.is_tight = True
        if isinstance(error, OutboxDamaged) and self._opening.may_rebuild:
            if self._connection is not None:
                close_as_it_is(self._connection, self.path)
                self._connection = None
            self._open(DAMAGED)
        return or_full(error, self.path.parent)


def _intact_losses(sql: sqlite3.Connection) -> Losses:
    gaps.demand_intact(sql)
    return gaps.losses(sql)
