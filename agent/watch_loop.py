"""Runs one watch in its own thread: waits for its time or for a word, looks at its source in turns, saves each turn.

What is to be done is decided in `watch`; here it is done, and its failure chooses the trigger.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from agent.burden import Burden
from agent.clock import Clock
from agent.collector import Collector
from agent.command_desk import CommandDesk
from agent.commands import Command
from agent.logs import tell
from agent.machine import PAUSED, RECONNECTING
from agent.news import News
from agent.pulse import Pulse
from agent.repeats import Repeats
from agent.source_errors import DatabaseAway, ServerStrained, SourceError
from agent.sources import READING, Source
from agent.status import Scoreboard
from agent.watch import Watch
from storage.envelope import Change
from storage.errors import CodedError, OutboxError, OutboxFull
from storage.outbox import Outbox

# So long words are heard before a look that is due has its turn: one that tries a database which hangs takes its time,
# and a backend may give many.
HEARING_S = 10.0


class Stop:
    """The word that ends a watch."""


Word = Command | Stop


@dataclass(frozen=True, slots=True)
class Room:
    """How much the outbox may hold and how much of the disk stays free, in bytes."""

    max_bytes: int
    min_free_bytes: int


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What a watch works with; all of it belongs to the watch's thread, except outbox and board."""

    name: str
    inbox: queue.SimpleQueue[Word]
    watch: Watch
    source: Source
    collector: Collector
    desk: CommandDesk
    outbox: Outbox
    room: Room
    board: Scoreboard
    clock: Clock
    pulse: Pulse
    on_saved: Callable[[], None]


class WatchLoop:
    """One watch. `inbox` may be filled from any thread; everything else is its own."""

    def __init__(self, parts: WatchParts) -> None:
        self.name = parts.name
        self.inbox = parts.inbox
        self.pulse = parts.pulse
        self._parts = parts
        self._watch, self._collector, self._desk = parts.watch, parts.collector, parts.desk
        self._source = parts.source
        self._news = News("collection", parts.clock, watch=parts.name)
        self._repeats = Repeats(parts.clock.monotonic)
        self._burden = Burden(parts.name, parts.watch, parts.board, parts.clock)
        self._later: list[Command] = []
        self._stopping = False

    def run(self) -> None:
        """Watches until Stop. May be called again after it died of a defect: the saved bookmark is where it goes on."""
        self._recover()
        try:
            while not self._stopping:
                self._hear(self._wait_s())
                self._hear_all()
                if not self._stopping and self._watch.wait_s(self._parts.clock.monotonic()) == 0:
                    self._tell(self._look())
        finally:
            self.close()

    def _wait_s(self) -> float | None:
        wait_s = self._watch.wait_s(self._parts.clock.monotonic())
        due_at = None if wait_s is None else self._parts.clock.now() + timedelta(seconds=wait_s)
        self._parts.board.report(self.name, due_at=due_at)
        return wait_s

    def close(self) -> None:
        """Ends the connection to the database."""
        self._source.close()

    def _recover(self) -> None:
        self._collector.drop()
        self._later.clear()
        if self._watch.is_collecting():
            reason = "the last look was broken off by a defect"
            self._watch.has_finished(reason, self._parts.clock.monotonic())
            self._report_error(reason)

    # -- one look ----------------------------------------------------------------------------------------------

    def look(self) -> CodedError | None:
        """Looks at the source once, if there is room, and tells what went wrong, if anything. Not while paused."""
        return self._tell(self._look())

    def _tell(self, error: CodedError | None) -> CodedError | None:
        if error is not None:
            self._news.wrong(error)
            self._report_error(str(error))
        elif not self._stopping:
            self._news.right()
            self._parts.board.report(self.name, error=None, reason="")
        return error

    def _report_error(self, sentence: str) -> None:
        # While paused nobody tries, so nobody would notice that it is over: then it is only the last error.
        self._parts.board.report(
            self.name,
            error=None if self._watch.state == PAUSED else sentence,
            reason=self._watch.reason,
            last_error=sentence,
            last_error_at=self._parts.clock.now(),
            errors_count=self._parts.board.watch(self.name).errors_count + 1,
        )

    def _look(self) -> CodedError | None:
        try:
            self._demand_room()
            self.pulse.beat(READING)  # the source knows its timeouts and says more
            self._burden.begin(self._source)
            if self._watch.state == RECONNECTING:
                self._source.check()  # only a try that succeeds leaves this state
            self._watch.begin()
            self._burden.demand_ease(self._source)
            records = self._turns()
            self._save(None if self._stopping else self._desk.answers(success=True, details={"records": records}))
        except DatabaseAway as error:
            return self._broke_off(error, self._watch.has_lost_connection)
        except SourceError as error:
            return self._broke_off(error, self._watch.has_finished)
        except OutboxError as error:
            return self._no_room(error)
        strained = self._burden.has_looked(self._source)
        self._watch.has_finished(str(strained or ""), self._parts.clock.monotonic())
        if not self._stopping:
            self._has_collected()
        self._do_later()
        return strained

    def _has_collected(self) -> None:
        if self._parts.board.watch(self.name).last_collection_at is None:
            tell(logging.INFO, "collection.first", "The first collection is done", watch=self.name)
        self._parts.board.report(self.name, last_collection_at=self._parts.clock.now())

    def _turns(self) -> int:
        """Reads to the end of the source, or until Stop; the last turn is left unsaved. Gives the records read."""
        total = 0
        bookmark = self._collector.bookmark
        if bookmark is None and self._collector.must_skip:  # in this order: it may be lost in between
            self._collector.take(self._source.skip())
            return total
        coverage: float | None = None
        with closing(self._source.read(bookmark)) as readings:
            for reading in readings:
                total += len(reading.records)
                coverage = reading.coverage
                self._collector.take(reading)
                full = self._collector.is_full
                if full:
                    self._save()
                self._hear_all()
                if self._stopping:
                    break
                if full:
                    self._demand_room()
                self.pulse.beat(READING)
        self._parts.board.report(self.name, coverage=coverage)
        return total

    def _save(self, answers: AbstractContextManager[Change] | None = None) -> None:
        self.pulse.beat("writing the outbox")
        canary = self._collector.canary
        if canary is not None:  # before it is saved: from then on it may be delivered at any moment
            self._parts.board.report(self.name, canary=canary)
        with answers or nullcontext(Change()) as change:
            self._collector.save(change)
        if canary is not None:
            self._parts.board.report(self.name, canary=replace(canary, stored_at=self._parts.clock.now()))
        self._parts.on_saved()

    def _demand_room(self) -> None:
        self.pulse.beat("looking for room")
        room = self._parts.room
        shortage = self._parts.outbox.shortage(max_bytes=room.max_bytes, min_free_bytes=room.min_free_bytes)
        if shortage is not None:
            raise OutboxFull(shortage)

    def _broke_off(self, error: SourceError, trigger: Callable[[str, float], None]) -> CodedError:
        """What was read before the failure is whole and is saved; the bookmark stands behind it."""
        self._burden.has_failed(self._source, error)
        if not isinstance(error, ServerStrained):  # a connection that is there is no more work; a new one would be
            self._source.close()
        try:
            self._save(self._desk.answers(success=False, details={"error": str(error)}))
        except OutboxError as full:
            return self._no_room(full)
        trigger(str(error), self._parts.clock.monotonic())
        self._do_later()
        return error

    def _no_room(self, error: OutboxError) -> CodedError:
        """The rows stay in the database and are read again from the saved bookmark."""
        self._burden.has_ended(self._source)
        self._collector.drop()
        self._source.close()
        with suppress(OutboxError):  # a `collect` that gets no answer stays pending at the backend and comes again
            self._save(self._desk.answers(success=False, details={"error": str(error)}))
        self._watch.has_no_room(str(error), self._parts.clock.monotonic())
        self._do_later()
        return error

    # -- words -------------------------------------------------------------------------------------------------

    def _hear(self, wait_s: float | None) -> None:
        try:
            word = self._inbox_get(wait_s)
        except queue.Empty:
            return
        if isinstance(word, Stop):
            self._stopping = True
        elif self._watch.is_collecting() and word.word == "update_config":
            if word not in self._later:  # each heartbeat hands it out again
                self._later.append(word)  # it may replace the source that is being read
        else:
            self._obey(word)

    def _inbox_get(self, wait_s: float | None) -> Word:
        if wait_s == 0:
            return self.inbox.get_nowait()
        self.pulse.beat("waiting", wait_s)
        return self.inbox.get(timeout=wait_s)

    def _hear_all(self) -> None:
        until_s = self._parts.clock.monotonic() + HEARING_S
        while not self._stopping and not self.inbox.empty() and self._parts.clock.monotonic() <= until_s:
            self._hear(0)

    def _do_later(self) -> None:
        until_s = self._parts.clock.monotonic() + HEARING_S
        commands, self._later = self._later, []
        for command in commands:
            if self._stopping or self._parts.clock.monotonic() > until_s or not self._obey(command):
                return  # what is left comes again

    def _obey(self, command: Command) -> bool:
        self.pulse.beat("carrying out a command")
        try:
            source = self._desk.carry_out(command)
        except OutboxError as error:
            sentence = f"Command {command.word} waits: {error}"
            self._repeats.tell(
                logging.WARNING, "command.postponed", sentence, kind=command.word, id=command.id, watch=self.name
            )
            self._forget_commands()
            return False
        if source is not None:
            self._source.close()
            self._source = source
            self._watch.has_new_source(self._parts.clock.monotonic())
            self._burden.has_new_source()
        self._burden.report()
        if self._watch.state == PAUSED and self._parts.board.watch(self.name).error is not None:
            self._parts.board.report(self.name, error=None)
        self._parts.on_saved()
        return True

    def _forget_commands(self) -> None:
        # A later command must not overtake the one that failed; the backend hands out both again, in their order.
        self._later.clear()
        with suppress(queue.Empty):
            while not self._stopping:
                self._stopping = isinstance(self.inbox.get_nowait(), Stop)
