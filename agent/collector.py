"""From readings to envelopes: fills bodies, and saves them together with the bookmark behind their last record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent import body, canary
from agent.commands import Result
from agent.record import to_wire
from agent.repeats import Repeats
from agent.sinks import COMMAND_RESULT, QUERIES
from agent.sources import Reading
from storage.envelope import Change, Draft, Gap
from storage.outbox import Outbox

TURN_RECORDS, TURN_BYTES = 5_000, 8 * 1_048_576


@dataclass(slots=True)
class _Turn:
    """What was taken since the last save. `open`: the envelope-to-be that still has room."""

    open: body.Bulk = field(default_factory=body.Bulk)
    drafts: list[Draft] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    bookmark: bytes | None = None
    canary: canary.Sighting | None = None
    records: int = 0
    bytes: int = 0

    def seal(self) -> None:
        """Closes the envelope-to-be."""
        if self.open.records:
            self.drafts.append(Draft(QUERIES, self.open.records, self.open.packed()))
            self.open = body.Bulk()


class Collector:
    """Gathers one turn of one watch and saves it in one transaction. One thread uses it."""

    def __init__(
        self,
        outbox: Outbox,
        watch: str,
        *,
        batch_max_records: int,
        batch_max_bytes: int,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now_s`: monotonic seconds, by which gaps that come again and again are told less often."""
        self._outbox = outbox
        self._repeats = Repeats(now_s)
        self._watch = watch
        self._max_records, self._max_bytes = batch_max_records, batch_max_bytes
        self._turn = _Turn()

    @property
    def bookmark(self) -> bytes | None:
        """How far the watch's source has been read and saved."""
        return self._outbox.bookmark(self._watch)

    @property
    def must_skip(self) -> bool:
        """Whether the bookmark was lost with a damaged outbox, so that nobody knows what was read."""
        return self._outbox.has_lost_bookmark(self._watch)

    def take(self, reading: Reading) -> None:
        """Adds a reading to the turn; nothing is durable yet."""
        turn = self._turn
        for record in reading.records:
            wire = to_wire(record)
            if (name := canary.name_in(record.sql_text)) is not None:
                turn.canary = canary.Sighting(name, record.collected_at)
            is_full = turn.open.records >= self._max_records or turn.open.size_with(wire) > self._max_bytes
            if is_full and turn.open.records:
                turn.seal()
            turn.open.add(wire)
            turn.bytes += len(wire)
        turn.records += len(reading.records)
        turn.gaps.extend(reading.gaps)
        turn.bookmark = reading.bookmark

    @property
    def canary(self) -> canary.Sighting | None:
        """The marked statement of `doctor --canary` that is in the turn, if one is."""
        return self._turn.canary

    @property
    def is_full(self) -> bool:
        """Whether the turn should be saved before more is taken."""
        return self._turn.records >= TURN_RECORDS or self._turn.bytes >= TURN_BYTES

    def save(self, extra: Change) -> None:
        """Makes the turn durable, with `extra` in the same transaction.

        On any error nothing of both is, and the turn is dropped: the source is read again from the saved bookmark.
        """
        turn, self._turn = self._turn, _Turn()
        turn.seal()
        drafts = (*turn.drafts, *extra.drafts)
        bookmarks = {self._watch: turn.bookmark} if turn.bookmark is not None else {}
        if drafts or bookmarks or extra.marks:
            self._outbox.commit(replace(extra, drafts=drafts, bookmarks=bookmarks, gaps=tuple(turn.gaps)))
        for gap in turn.gaps:
            count = "an unknown number of" if gap.estimate is None else f"about {gap.estimate:,}"
            sentence = f"A gap: {count} slow queries were lost at the database ({gap.reason}: {gap.detail})"
            fields = {"watch": gap.source, "since": gap.since, "until": gap.until}
            self._repeats.tell(logging.WARNING, "gap.recorded", sentence, kind=f"{gap.source} {gap.reason}", **fields)
        self._repeats.remind()

    def drop(self) -> None:
        """Forgets the turn; the source is read again from the saved bookmark."""
        self._turn = _Turn()


def result_draft(result: Result) -> Draft:
    """The envelope-to-be of a command's result."""
    return Draft(COMMAND_RESULT, 1, body.pack(result.to_wire()))
