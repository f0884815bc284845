"""The outbox: what was collected waits here, durable, until the backend has it. Never decides what to send or when."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from storage import books, envelopes, gaps, notes, parking
from storage.envelope import Change, Draft, Envelope, Gap, Tally
from storage.errors import OutboxDamaged, OutboxFull
from storage.findings import Describe, mended
from storage.outbox_file import FILE_NAME, OnBooks, OnGaps, OutboxFile
from storage.salvage import DAMAGED

__all__ = ["FILE_NAME", "Outbox"]
SHRINK_CHUNKS = 64


def _nothing_known(_: bytes) -> None:
    return None


class Outbox:
    """What is in the file, by its meaning; any thread may call it.

    Each changing method is one transaction that is on the disk when it returns. Errors: OutboxFull when there was
    no room, OutboxDamaged when the file had to be rebuilt (in both nothing was changed: try again), OutboxBroken or
    OutboxInaccessible for everything else SQLite reports.
    """

    def __init__(
        self,
        directory: Path,
        *,
        topics: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        describe: Describe = _nothing_known,
        on_books: OnBooks = lambda _topic, _books: None,
        on_gaps: OnGaps = lambda _losses: None,
        on_loss: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        """Opens or creates the outbox in `directory`. `topics` have books from the start; `now` gives Unix seconds.

        `describe` gives topic and number of records of a body, or None: what is known of it when its row is damaged.
        `on_books` hears each topic's books at the start and after every change, in order; `on_gaps` hears what is known
        to be lost at the start and after each new gap; both must be quick.
        `on_loss` hears a sentence when a damaged file was rebuilt or an envelope in it was lost.

        Raises OutboxForeign, OutboxNewer (the file is left as it is), OutboxInaccessible, OutboxNotDurable, OutboxFull.
        """
        self._now, self._describe, self._on_loss = now, describe, on_loss
        self._file = OutboxFile(
            directory, topics=topics, now=now, describe=describe, on_books=on_books, on_gaps=on_gaps, on_loss=on_loss
        )
        self.path = self._file.path

    @property
    def installation(self) -> str:
        """The name of this installation, part of every key."""
        return self._file.installation

    # -- what goes in ------------------------------------------------------------------------------------------

    def commit(self, change: Change) -> None:
        """Makes the whole change durable, or raises and has changed nothing."""
        self._file.demand_there()
        self._demand_room(sum(len(draft.body) for draft in change.drafts))
        self._file.write(lambda sql: self._commit(sql, change), draining=not change.drafts)

    def _demand_room(self, size: int) -> None:
        free, _ = self._file.free_bytes()
        # In the WAL first, then in the file. Before the last of it is taken: the drain needs some as well.
        if free < 2 * size and free < (wanted := size + max(0, size - self._file.unused_bytes())):
            raise OutboxFull(f"{free:,} bytes free, {wanted:,} needed")

    def _commit(self, sql: sqlite3.Connection, change: Change) -> None:
        seq, entered = envelopes.last_seq(sql), defaultdict[str, Counter[str]](Counter)
        for draft in change.drafts:
            seq += 1
            envelopes.store(sql, envelopes.made_of(draft, seq, self.installation, self._now()))
            entered[draft.topic].update(captured=draft.records, pending=draft.records, pending_bytes=len(draft.body))
            entered[draft.topic]["envelopes"] += 1
        for topic, numbers in entered.items():
            books.change(sql, topic, **numbers)
        for name, value in change.bookmarks.items():
            notes.put_bookmark(sql, name, value, seq)
        for gap in change.gaps:
            gaps.enter(sql, gap, self._now())
        for name, text in change.notes.items():
            if text is None:
                notes.remove(sql, name)
            else:
                notes.put(sql, name, text)
        notes.put_marks(sql, change.marks)

    # -- what goes out -----------------------------------------------------------------------------------------

    def head(self, topic: str, skip: Collection[int] = ()) -> Envelope | None:
        """The oldest envelope of `topic` whose seq is not in `skip`; None when there is none.

        One that was damaged on the disk is mended when its body is whole, else lost: told, and named by a gap.
        """
        while (envelope := self._head(topic, skip)) is not None and not envelope.is_intact:
            self._mend_or_lose(envelope)
        return envelope

    def _head(self, topic: str, skip: Collection[int]) -> Envelope | None:
        with self._file.snapshot() as sql:  # a person may put something back at this moment
            envelope = envelopes.oldest(sql, topic, skip)
            if envelope is None and books.numbers_of(sql, topic)["envelopes"] > len(skip):
                raise OutboxDamaged("the order of the envelopes does not show all of them")
            return envelope

    def offer(self, envelope: Envelope) -> None:
        """It may be on its way from now on, until it is settled, doubted or withdrawn."""
        self._file.offer(envelope.seq)

    def withdraw(self) -> None:
        """What was offered last has surely not arrived."""
        self._file.offer(0)

    def doubt(self, envelope: Envelope) -> None:
        """Nobody knows whether what was offered has arrived: when it is accepted later, it may be the second time."""
        if not envelope.doubtful:
            self._file.write(lambda sql: envelopes.doubt(sql, envelope.seq), draining=True)
        self.withdraw()

    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        """The backend has taken `delivered` records of it; the rest, if any, is kept aside with `reason`."""
        skipped = envelope.records - delivered
        if delivered < 0 or skipped < 0:
            raise ValueError(f"{delivered} of {envelope.records} records cannot be delivered")

        def settle(sql: sqlite3.Connection) -> None:
            if skipped:
                envelopes.park(sql, envelope, skipped, self._now(), reason)
            doubtful = delivered if envelope.doubtful else 0
            _leave(sql, envelope, delivered=delivered, parked=skipped, possible_duplicates=doubtful)

        self._settle(settle)

    def park(self, envelope: Envelope, reason: str) -> None:
        """Keeps an envelope aside that the backend will not take."""

        def settle(sql: sqlite3.Connection) -> None:
            envelopes.park(sql, envelope, envelope.records, self._now(), reason)
            _leave(sql, envelope, parked=envelope.records)

        self._settle(settle)

    def split(self, envelope: Envelope, first: Draft, second: Draft) -> None:
        """Replaces an envelope by its two halves, at its place, with its key and .0 and .1 behind it."""
        if first.records + second.records != envelope.records or {first.topic, second.topic} != {envelope.topic}:
            raise ValueError("the halves do not hold what the envelope holds")

        def settle(sql: sqlite3.Connection) -> None:
            envelopes.remove(sql, envelope)
            for half in envelopes.halves(envelope, (first, second), envelopes.last_seq(sql) + 1):
                envelopes.store(sql, half)
            growth = len(first.body) + len(second.body) - len(envelope.body)
            books.change(sql, envelope.topic, pending_bytes=growth, envelopes=1)

        self._settle(settle)

    def _settle(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self._file.write(work, draining=True)
        self.withdraw()

    def _mend_or_lose(self, envelope: Envelope) -> None:
        whole = mended(envelope, self._describe, self.installation)
        if whole is None:
            self._file.keep_aside(envelope.seq, envelope.body)

        def put_right(sql: sqlite3.Connection) -> int:
            if whole is not None and whole.seq != envelope.seq:
                raise OutboxDamaged(f"envelope {whole.seq} stands under the number {envelope.seq}")
            envelopes.remove(sql, envelope)
            if whole is not None:
                envelopes.store(sql, whole)
            lost = books.recount(sql, envelope.topic)
            if lost:
                detail = f"envelope {envelope.seq} was damaged on the disk"
                gaps.enter(sql, Gap(books.SOURCE, DAMAGED, None, None, lost, detail), self._now())
            return lost

        lost = self._file.write(put_right, draining=True)
        if lost:
            self._on_loss(f"Envelope {envelope.seq} was damaged on the disk: {lost:,} records lost")

    def retry(self, seq: int) -> None:
        """Lets what was kept aside wait again. Raises EnvelopeUnknown, PartlyDelivered."""
        self._file.write(lambda sql: parking.retry(sql, seq))

    def by_key(self, key: str) -> Envelope | None:
        """The envelope with that key; None when none waits that has it."""
        with self._file.reading() as sql:
            return envelopes.by_key(sql, key)

    # -- what is known -----------------------------------------------------------------------------------------

    def bookmark(self, name: str) -> bytes | None:
        """The bookmark of that name; None when there is none yet."""
        with self._file.reading() as sql:
            return notes.bookmark(sql, name)

    def has_lost_bookmark(self, name: str) -> bool:
        """Whether that bookmark was lost with a damaged file: its source must not be read from the beginning again."""
        with self._file.reading() as sql:
            return notes.is_given_up(sql, name)

    def note(self, name: str) -> str | None:
        """The note of that name; None when there is none."""
        with self._file.reading() as sql:
            return notes.note(sql, name)

    def notes(self, prefix: str) -> dict[str, str]:
        """The notes whose names begin like that."""
        with self._file.reading() as sql:
            return notes.beginning_with(sql, prefix)

    def has_mark(self, name: str) -> bool:
        """Whether that mark was set, among the newest `notes.MARKS_KEPT`."""
        with self._file.reading() as sql:
            return notes.has_mark(sql, name)

    def tally(self, topic: str) -> Tally:
        """The books of one topic; costs the same at any backlog."""
        with self._file.reading() as sql:
            return books.read(sql, topic)

    def gaps(self) -> list[Gap]:
        """Every known loss, oldest first; of those that are of a kind some may have become one."""
        with self._file.reading() as sql:
            return gaps.all_of(sql)

    def parked(self) -> list[tuple[int, int, str]]:
        """What was kept aside: seq, records, reason; oldest first."""
        with self._file.reading() as sql:
            return envelopes.parked(sql)

    # -- care --------------------------------------------------------------------------------------------------

    def shortage(self, *, max_bytes: int, min_free_bytes: int) -> str | None:
        """Why nothing more may be stored now, or None while there is room."""
        used = self._file.used_bytes()
        if used >= max_bytes:
            return f"the outbox holds {used:,} of {max_bytes:,} bytes"
        free, whole = self._file.free_bytes()
        floor = min(min_free_bytes, whole // 10)
        if free < floor:
            return f"the disk has {free:,} bytes free, {floor:,} stay reserved"
        self._file.relax()
        return None

    def demand_recordable(self) -> None:
        """Raises what a commit meets when an acceptance could not be recorded now. Costs nothing while all is well."""
        if self._file.is_tight:
            self._file.probe()

    def shrink(self) -> bool:
        """Gives unused pages back to the file system, 64 MiB at most; whether there is more to give back.

        Less than a MiB is kept for the next envelopes. In chunks, so that nobody has to wait.
        """
        return all(self._file.shrink() for _ in range(SHRINK_CHUNKS))

    def close(self) -> None:
        """Closes the file; what was committed is on the disk whether or not this is called."""
        self._file.close()


def _leave(sql: sqlite3.Connection, envelope: Envelope, **settled: int) -> None:
    envelopes.remove(sql, envelope)
    gone = {"pending": -envelope.records, "pending_bytes": -len(envelope.body), "envelopes": -1}
    books.change(sql, envelope.topic, **settled, **gone)
