"""A whole day of an agent in virtual time: the real watch, flusher, heartbeat and outbox in one thread, and what they
would write into the log. Nothing here waits for real.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from agent.delivery import Hold, Retry, Verdict
from agent.errors import BackendAway, KeyRefused
from agent.flusher import LOOK_S, Flusher
from agent.heartbeat import Heartbeat
from agent.logs import LOGGER, _Text
from agent.source_errors import SourceError
from agent.sources import Reading
from agent.transport import Answer, Transport
from storage.envelope import Envelope, Gap
from storage.errors import CodedError, OutboxFull
from tests.fakes.clock import ManualClock
from tests.fakes.manual import FaultyOutbox, Rig
from tests.fakes.sink import FakeSink
from tests.fakes.source import FakeSource

DAY_S = 86_400.0
INTERVAL_S, BEAT_S, LOOK_EVERY_S = 300.0, 30.0, 577.0  # no multiple of the others: sometimes in the middle of it
ROWS = 3  # that each look finds

Backend = Callable[[float], CodedError | None]  # what is wrong with it, by the seconds of the day
Database = Callable[[float], SourceError | None]


class Lines(logging.Handler):
    """What would stand in the log: how many lines, and of which events."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Text())
        self.text: list[str] = []
        self.events: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record).splitlines()
        self.events[record.__dict__["event"]] += 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hears what is told from INFO on."""
        level = LOGGER.level
        LOGGER.addHandler(self)
        LOGGER.setLevel(logging.INFO)
        try:
            yield
        finally:
            LOGGER.removeHandler(self)
            LOGGER.setLevel(level)


class DaysOutbox(FaultyOutbox):
    """`is_full`: nothing can be stored, and no acceptance either."""

    is_full = False
    refusals = 0

    def shortage(self, *, max_bytes: int, min_free_bytes: int) -> str | None:
        self.no_room = self.is_full
        return super().shortage(max_bytes=max_bytes, min_free_bytes=min_free_bytes)

    def commit(self, change: Any) -> None:
        self.disk_full = int(self.is_full)
        super().commit(change)

    def demand_recordable(self) -> None:
        if self.is_full:
            self.refusals += 1
            raise OutboxFull("disk full, says the test")
        super().demand_recordable()


class DaysSource(FakeSource):
    """A few rows more at each look; `gap`: each look finds that something was lost."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self._clock, self._midnight_s = clock, clock.monotonic()
        self.wrong: Database = lambda _: None
        self.gap: Gap | None = None
        self.failures = 0

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        self.rows += ROWS
        yield from super().read(bookmark)
        if self.gap is not None:
            yield Reading((), str(self.rows).encode(), (self.gap,))

    def _answer(self) -> None:
        error = self.wrong(self._clock.monotonic() - self._midnight_s)
        if error is not None:
            self.failures += 1
            raise error


class Line(Transport):
    """The heartbeat's way to the backend; keeps what was said to it."""

    def __init__(self, day: Day) -> None:
        super().__init__("http://127.0.0.1:1", "collector_7_x")
        self._day = day
        self.errors: Counter[str | None] = Counter()
        self.commands: list[dict[str, Any]] = []

    def post(self, path: str, body: bytes, headers: object = None) -> Answer:
        """As the backend is at this hour."""
        self.errors[orjson.loads(body)["error"]] += 1
        error = self._day.backend(self._day.seconds)
        if isinstance(error, BackendAway):
            raise error
        if error is not None:
            return Answer(401 if isinstance(error, KeyRefused) else 503, {}, b"")
        return Answer(200, {}, orjson.dumps({"status": "ok", "commands": self.commands}))


class Day(Rig):
    """`backend` and `source.wrong`: what is wrong with them, by the second of the day; `outbox.is_full`. `shown`: what
    the status said was wrong, every ten minutes or so."""

    def __init__(self, directory: Path) -> None:
        clock = ManualClock()
        self.days_source = DaysSource(clock)
        self.days_outbox = DaysOutbox(directory, now=clock.unix)
        super().__init__(
            directory, clock=clock, source=self.days_source, outbox=self.days_outbox, interval_s=INTERVAL_S
        )
        self._midnight_s = clock.monotonic()
        self.backend: Backend = lambda _: None
        self.sink = FakeSink()
        self.sink.verdict = self._verdict
        self.refused = 0
        rng = random.Random(7)
        self.flusher = Flusher(self.outbox, self.sink, self.board, clock=clock, rng=rng, hold_s=BEAT_S)
        self.line = Line(self)
        self.heartbeat = Heartbeat(
            self.line, 7, self.board, interval_s=BEAT_S, clock=clock, rng=rng, give=self.inbox.put
        )
        self.shown: Counter[str | None] = Counter()
        self.lines = Lines()

    @property
    def seconds(self) -> float:
        """Of this day."""
        return self.clock.monotonic() - self._midnight_s

    def live(self, seconds: float = DAY_S) -> Lines:
        """Lets it go by; what was written."""
        for step in (self._beat, self._drain_again, self._look):
            self.at(0.0, step)
        with self.lines.listening():
            self.run_for(seconds)
        self.outbox.close()
        return self.lines

    def _beat(self) -> None:
        self.heartbeat.beat()
        self.at(BEAT_S, self._beat)

    def _drain(self) -> float:
        while (wait_s := self.flusher.step()) == 0:
            pass
        return LOOK_S if wait_s is None else wait_s

    def _drain_again(self) -> None:
        self.at(self._drain(), self._drain_again)

    def _on_saved(self) -> None:
        super()._on_saved()
        self.at(0.0, self._drain)

    def _look(self) -> None:
        status = self.board.status(now_s=self.clock.monotonic(), now_unix=self.clock.unix())
        link = status.heartbeat.error
        self.shown[status.error or (f"heartbeat: {link}" if link else None)] += 1
        self.at(LOOK_EVERY_S, self._look)

    def _verdict(self, _: Envelope) -> Verdict | None:
        error = self.backend(self.seconds)
        if error is None:
            return None
        self.refused += 1
        return Hold(error) if isinstance(error, KeyRefused) else Retry(error)
