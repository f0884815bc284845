"""The outbox: what was collected waits here, durable, until the backend has it. Never decides what to send or when."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.connection import connect, connect_readonly, explain, make_durable
from storage.envelope import Change, Draft, Envelope, Gap, Tally
from storage.errors import EnvelopeGone, OutboxGone, OutboxInaccessible
from storage.schema import identify, migrate

FILE_NAME = "outbox.sqlite3"
MARKS_KEPT = 1_000
SHRINK_CHUNK_PAGES, SHRINK_CHUNKS = 256, 64

_HEAD = """
    SELECT seq, topic, place, key, records, body, sha256, created_at FROM envelope
    WHERE topic = ? AND seq NOT IN ({skipped}) ORDER BY place, key LIMIT 1
"""
_INSERT = """
    INSERT INTO envelope (seq, topic, place, key, records, body, sha256, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_PARK = "INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ENTER = """
    INSERT INTO tally (topic, captured, pending, pending_bytes, envelopes) VALUES (?1, ?2, ?2, ?3, ?4)
    ON CONFLICT (topic) DO UPDATE SET captured = captured + ?2, pending = pending + ?2,
        pending_bytes = pending_bytes + ?3, envelopes = envelopes + ?4
"""
_LEAVE = """
    UPDATE tally SET delivered = delivered + ?2, parked = parked + ?3, pending = pending - ?4,
        pending_bytes = pending_bytes - ?5, envelopes = envelopes - 1 WHERE topic = ?1
"""
_HALVE = "UPDATE tally SET pending_bytes = pending_bytes + ?2, envelopes = envelopes + 1 WHERE topic = ?1"
_TALLIES = """
    SELECT topic, captured, delivered, discarded, lost, parked, pending, pending_bytes, envelopes,
        (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'gap'),
        (SELECT created_at FROM envelope WHERE topic = tally.topic ORDER BY place, key LIMIT 1)
    FROM tally
"""
TALLY = _TALLIES + " WHERE topic = ?"
# By rank and not by id: a mark that is set again burns an id without making a row.
_PRUNE_MARKS = "DELETE FROM mark WHERE id <= (SELECT id FROM mark ORDER BY id DESC LIMIT 1 OFFSET ?)"


class Outbox:
    """One file, one writing connection behind one lock around short methods; any thread may call it.

    Each changing method is one transaction that is on the disk when it returns. Errors: OutboxFull when there was
    no room (nothing was changed), OutboxBroken or OutboxInaccessible for everything else SQLite reports.
    """

    def __init__(
        self,
        directory: Path,
        *,
        topics: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        on_books: Callable[[str, Tally], None] | None = None,
    ) -> None:
        """Opens or creates the outbox in `directory`. `topics` have books from the start; `now` gives Unix seconds.

        `on_books` hears each topic's books at the start and after every change, in order; it must be quick.

        Raises OutboxForeign, OutboxNewer (the file is left as it is), OutboxInaccessible, OutboxNotDurable.
        """
        self.path = directory / FILE_NAME
        self._now = now
        self._on_books = on_books
        self._lock = threading.Lock()
        _make_private(self.path)
        _demand_ours(self.path)
        self._connection = connect(self.path)
        try:
            version = identify(self._connection, self.path)
            make_durable(self._connection)
            migrate(self._connection, version)
            self.installation = self._note("installation") or ""
            self._open_books(topics)
            self._inode = self.path.stat().st_ino
            self._tell(self._books())
        except sqlite3.Error as error:
            self._connection.close()
            raise explain(error) from error
        except BaseException:
            self._connection.close()
            raise

    # -- what goes in ------------------------------------------------------------------------------------------

    def commit(self, change: Change) -> None:
        """Makes the whole change durable, or raises and has changed nothing."""
        self._demand_file()
        with self._transaction() as sql:
            seq = _last_seq(sql)
            for draft in change.drafts:
                seq += 1
                self._insert(sql, draft, seq)
            for name, value in change.bookmarks.items():
                sql.execute("INSERT OR REPLACE INTO bookmark VALUES (?, ?)", (name, value))
            for gap in change.gaps:
                _insert_gap(sql, gap, self._now())
            for name, text in change.notes.items():
                if text is None:
                    sql.execute("DELETE FROM note WHERE name = ?", (name,))
                else:
                    sql.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, text))
            for name in change.marks:
                sql.execute("INSERT OR IGNORE INTO mark (name) VALUES (?)", (name,))
            if change.marks:
                sql.execute(_PRUNE_MARKS, (MARKS_KEPT,))

    def _insert(self, sql: sqlite3.Connection, draft: Draft, seq: int) -> None:
        digest = hashlib.sha256(draft.body)
        key = f"{self.installation}-{seq}-{digest.hexdigest()[:16]}"
        row = (seq, draft.topic, seq, key, draft.records, draft.body, digest.digest(), self._now())
        sql.execute(_INSERT, row)
        sql.execute(_ENTER, (draft.topic, draft.records, len(draft.body), 1))

    # -- what goes out -----------------------------------------------------------------------------------------

    def head(self, topic: str, skip: Collection[int] = ()) -> Envelope | None:
        """The oldest envelope of `topic` whose seq is not in `skip`; None when there is none."""
        with self._reading() as sql:
            statement = _HEAD.format(skipped=", ".join("?" * len(skip)))
            row = sql.execute(statement, (topic, *skip)).fetchone()
        return Envelope(*row) if row else None

    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        """The backend has taken `delivered` records of it; the rest, if any, is kept aside with `reason`."""
        skipped = envelope.records - delivered
        if delivered < 0 or skipped < 0:
            raise ValueError(f"{delivered} of {envelope.records} records cannot be delivered")
        with self._transaction() as sql:
            if skipped:
                sql.execute(_PARK, _parked_row(envelope, skipped, self._now(), reason))
            self._leave(sql, envelope, delivered=delivered, parked=skipped)

    def park(self, envelope: Envelope, reason: str) -> None:
        """Keeps an envelope aside that the backend will not take."""
        with self._transaction() as sql:
            sql.execute(_PARK, _parked_row(envelope, envelope.records, self._now(), reason))
            self._leave(sql, envelope, delivered=0, parked=envelope.records)

    def split(self, envelope: Envelope, first: Draft, second: Draft) -> None:
        """Replaces an envelope by its two halves, at its place, with its key and .0 and .1 behind it."""
        if first.records + second.records != envelope.records or {first.topic, second.topic} != {envelope.topic}:
            raise ValueError("the halves do not hold what the envelope holds")
        with self._transaction() as sql:
            seq = _last_seq(sql)
            _delete(sql, envelope)
            for number, draft in enumerate((first, second)):
                digest = hashlib.sha256(draft.body).digest()
                key = f"{envelope.key}.{number}"
                head = (seq + 1 + number, draft.topic, envelope.place, key)
                sql.execute(_INSERT, (*head, draft.records, draft.body, digest, envelope.created_at))
            growth = len(first.body) + len(second.body) - len(envelope.body)
            sql.execute(_HALVE, (envelope.topic, growth))

    def _leave(self, sql: sqlite3.Connection, envelope: Envelope, *, delivered: int, parked: int) -> None:
        _delete(sql, envelope)
        sql.execute(_LEAVE, (envelope.topic, delivered, parked, envelope.records, len(envelope.body)))

    # -- what is known -----------------------------------------------------------------------------------------

    def bookmark(self, name: str) -> bytes | None:
        """The bookmark of that name; None when there is none yet."""
        with self._reading() as sql:
            row = sql.execute("SELECT value FROM bookmark WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def note(self, name: str) -> str | None:
        """The note of that name; None when there is none."""
        with self._reading():
            return self._note(name)

    def has_mark(self, name: str) -> bool:
        """Whether that mark was set, among the newest MARKS_KEPT."""
        with self._reading() as sql:
            return sql.execute("SELECT 1 FROM mark WHERE name = ?", (name,)).fetchone() is not None

    def tally(self, topic: str) -> Tally:
        """The books of one topic; costs the same at any backlog."""
        with self._reading() as sql:
            row = sql.execute(TALLY, (topic,)).fetchone()
            return Tally(*row[1:]) if row else Tally(gaps=int(sql.execute("SELECT count(*) FROM gap").fetchone()[0]))

    def gaps(self) -> list[Gap]:
        """Every known loss, oldest first."""
        with self._reading() as sql:
            rows = sql.execute("SELECT source, reason, since, until, estimate, detail FROM gap ORDER BY id")
            return [Gap(*row) for row in rows.fetchall()]

    def parked(self) -> list[tuple[int, int, str]]:
        """What was kept aside: seq, records, reason; oldest first."""
        with self._reading() as sql:
            return sql.execute("SELECT seq, records, reason FROM parked ORDER BY seq").fetchall()

    def shortage(self, *, max_bytes: int, min_free_bytes: int) -> str | None:
        """Why nothing more may be stored now, or None while there is room."""
        with self._reading() as sql:
            (page_size,) = sql.execute("PRAGMA page_size").fetchone()
            (pages,) = sql.execute("PRAGMA page_count").fetchone()
            (unused,) = sql.execute("PRAGMA freelist_count").fetchone()
        used = (pages - unused) * page_size
        if used >= max_bytes:
            return f"the outbox holds {used:,} of {max_bytes:,} bytes"
        try:
            disk = os.statvfs(self.path.parent)
        except OSError as error:
            raise OutboxInaccessible(f"{self.path.parent} ({error.strerror})") from error
        free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        floor = min(min_free_bytes, whole // 10)
        return f"the disk has {free:,} bytes free, {floor:,} stay reserved" if free < floor else None

    # -- care --------------------------------------------------------------------------------------------------

    def shrink(self) -> bool:
        """Gives unused pages back to the file system, 64 MiB at most; whether there is more to give back.

        Less than a MiB is kept for the next envelopes. In chunks, because SQLite writes what it frees to the WAL
        first: at once it would need the space a second time, and keep everyone waiting.
        """
        for _ in range(SHRINK_CHUNKS):
            with self._reading() as sql:
                (unused,) = sql.execute("PRAGMA freelist_count").fetchone()
                if unused < SHRINK_CHUNK_PAGES:
                    return False
                # execute() would free a single page; executescript runs the pragma to its end.
                sql.executescript(f"PRAGMA incremental_vacuum({SHRINK_CHUNK_PAGES}); PRAGMA wal_checkpoint(PASSIVE)")
        return True

    def close(self) -> None:
        """Closes the file; what was committed is on the disk whether or not this is called."""
        with self._lock:
            self._connection.close()

    # -- how ---------------------------------------------------------------------------------------------------

    def _demand_file(self) -> None:
        # SQLite goes on writing into a deleted file; nobody would find there what is put into it.
        try:
            found = self.path.stat().st_ino
        except OSError:
            found = None
        if found != self._inode:
            raise OutboxGone(str(self.path))

    def _open_books(self, topics: Sequence[str]) -> None:
        known = {row[0] for row in self._connection.execute("SELECT topic FROM tally").fetchall()}
        for topic in topics:
            if topic not in known:
                self._connection.execute("INSERT INTO tally (topic) VALUES (?)", (topic,))

    def _note(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise explain(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as sql:
            # IMMEDIATE: a deferred transaction that turns into a writer gets SQLITE_BUSY despite the timeout.
            sql.execute("BEGIN IMMEDIATE")
            try:
                yield sql
                books = self._books()
                sql.execute("COMMIT")
            except BaseException:
                if sql.in_transaction:
                    sql.execute("ROLLBACK")
                raise
            self._tell(books)

    def _books(self) -> list[tuple[Any, ...]]:
        # Read before the commit: after it nothing may fail any more, or the caller believes that nothing was changed.
        return [] if self._on_books is None else self._connection.execute(_TALLIES).fetchall()

    def _tell(self, books: list[tuple[Any, ...]]) -> None:
        # Under the lock, so that the books are heard in the order in which they were written.
        for topic, *numbers in books:
            if self._on_books is not None:
                self._on_books(topic, Tally(*numbers))


def _make_private(path: Path) -> None:
    # Created by us, so that SQLite's umask never decides who may read it; -wal and -shm take over the mode.
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise OutboxInaccessible(f"{path.parent} ({error.strerror})") from error


def _demand_ours(path: Path) -> None:
    # A file with a WAL beside it is looked at through a connection that cannot write: a writing one would merge the
    # WAL when it is closed, and so change a file that may be another program's.
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists() and wal.stat().st_size:
        connection = connect_readonly(path)
        try:
            identify(connection, path)
        finally:
            connection.close()


def _last_seq(sql: sqlite3.Connection) -> int:
    row = sql.execute("SELECT seq FROM sqlite_sequence WHERE name = 'envelope'").fetchone()
    return int(row[0]) if row else 0


def _insert_gap(sql: sqlite3.Connection, gap: Gap, at: float) -> None:
    row = (gap.source, gap.reason, gap.since, gap.until, gap.estimate, gap.detail, at)
    sql.execute(
        "INSERT INTO gap (source, reason, since, until, estimate, detail, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def _delete(sql: sqlite3.Connection, envelope: Envelope) -> None:
    cursor = sql.execute("DELETE FROM envelope WHERE seq = ?", (envelope.seq,))
    if cursor.rowcount != 1:
        raise EnvelopeGone(f"seq {envelope.seq}")


def _parked_row(envelope: Envelope, records: int, at: float, reason: str) -> tuple[object, ...]:
    head = (envelope.seq, envelope.topic, envelope.key, records, envelope.body, envelope.sha256)
    return (*head, envelope.created_at, at, reason)
