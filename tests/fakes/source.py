"""A source whose rows are numbers: they are read in readings of `chunk` rows, and it fails on request."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime

from agent.clock import Clock
from agent.cost import Meter
from agent.finding import Finding, right, wrong
from agent.record import Record
from agent.source_errors import DatabaseAway, SourceError
from agent.sources import BOOKMARK_LOST, Reading, SourceSettings, Strain
from storage.envelope import Gap

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


def record(number: int, text: str = "SELECT 1") -> Record:
    """The row of that number."""
    return Record(f"r{number}", "fake", text, 1.0, 0.0, 0, 0, "db", "user@host", AT, AT, "fp")


class FakeSource:
    """`rows` may grow at any time. `away`: every call raises DatabaseAway. `refusal`: what every call raises instead.

    `before_read` and `between` (after each reading, with the rows read so far) are the places for a test to do
    something in the middle of a look, to raise included; the time that they take is the database's.
    """

    kind = "fake"
    db_type = "mysql"

    def __init__(self, settings: SourceSettings | None = None, clock: Clock | None = None) -> None:
        self.meter = Meter(clock or Clock())
        self.used, self.allowed = 1, 100
        self.rows = 0
        self.chunk = 10
        self.away = False
        self.refusal: SourceError | None = None
        self.coverage: float | None = None
        self.before_read: Callable[[], None] = lambda: None
        self.between: Callable[[int], None] = lambda _: None
        self.reads = self.checks = self.strains = self.closes = 0
        self.reading_now = 0

    def examine(self) -> Iterator[Finding]:
        """Nothing is wrong but what every call meets."""
        try:
            self._answer()
            yield right("login", "fine")
        except SourceError as error:
            yield wrong("login", error)

    def version(self) -> str:
        """None."""
        return ""

    def run_canary(self, token: str) -> str:
        """One more row, whose text has no name in it."""
        self._answer()
        self.rows += 1
        return token

    def shows_canary(self, name: str) -> bool:
        """Always."""
        return True

    def check(self) -> None:
        """Fails as `read` would."""
        self.checks += 1
        self._answer()

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        """Everything behind the bookmark, which is a number."""
        self.reads += 1
        self.reading_now += 1
        try:
            with self.meter.answering():
                self.before_read()
                self._answer()
            at = int(bookmark or b"0")
            while at < self.rows:
                end = min(self.rows, at + self.chunk)
                records = tuple(record(number) for number in range(at, end))
                yield Reading(records, str(end).encode(), coverage=self.coverage)
                at = end
                with self.meter.receiving():
                    self.between(at)
                    self._answer()
        finally:
            self.reading_now -= 1

    def skip(self) -> Reading:
        """Behind the last row."""
        self._answer()
        return Reading((), str(self.rows).encode(), (Gap("fake", BOOKMARK_LOST),))

    def strain(self) -> Strain:
        """What the test says."""
        self.strains += 1
        self._answer()
        return Strain(self.used, self.allowed)

    def close(self) -> None:
        """Counted."""
        self.closes += 1

    def _answer(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self.away:
            raise DatabaseAway("gone")
