"""What looks cost the database, measured where its answers are waited for. Speaks to none; a clock is handed in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from agent.clock import Clock

MEMORY_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one look. `seconds`: waited for the database.

    `repeated_s`: of these, what every look costs anew, such as the scan over rows that were read before. The rest is
    the flow of new rows, which costs the same whenever they are read. `longest_s`: the longest wait for one answer.
    `rows`: those that the server had to read, `bytes`: what it has sent; 0 where the connection is no TCP.
    """

    seconds: float = 0.0
    repeated_s: float = 0.0
    longest_s: float = 0.0
    rows: int = 0
    bytes: int = 0


class Meter:
    """Of one source, which says what it waits for and what it gets. One thread uses it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """A look begins: what was measured is forgotten."""
        self._seconds = self._new_s = self._longest_s = 0.0
        self._rows = self._bytes = 0

    def cost(self) -> Cost:
        """Of the look so far."""
        return Cost(self._seconds, self._seconds - self._new_s, self._longest_s, self._rows, self._bytes)

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Around the wait for a connection; one that fails burdens nobody."""
        began_s = self._clock.monotonic()
        yield
        self._seconds += self._clock.monotonic() - began_s

    def answering(self) -> AbstractContextManager[None]:
        """Around the wait for the answer to a statement, up to its first rows."""
        return self._waiting(is_answer=True)

    def receiving(self) -> AbstractContextManager[None]:
        """Around the wait for more rows of a statement, none of which was read before."""
        return self._waiting(is_new=True)

    def changing(self) -> AbstractContextManager[None]:
        """Around the wait for what is no look: a rotation, which makes the next looks cheaper."""
        return self._waiting(is_new=True)

    def read(self, rows: int) -> None:
        """So many rows more had to be read by the server, whether it sent them or not."""
        self._rows += rows

    def received(self, size: int) -> None:
        """So many bytes more have come."""
        self._bytes += size

    @contextmanager
    def _waiting(self, *, is_answer: bool = False, is_new: bool = False) -> Iterator[None]:
        began_s = self._clock.monotonic()
        try:
            yield
        finally:
            waited_s = self._clock.monotonic() - began_s
            self._seconds += waited_s
            if is_new:
                self._new_s += waited_s
            if is_answer:
                self._longest_s = max(self._longest_s, waited_s)


@dataclass(frozen=True, slots=True)
class Load:
    """Seconds of the database, fading: of what was spent an hour ago a third is left. `at_s`: monotonic."""

    seconds: float = 0.0
    at_s: float = 0.0

    def with_spent(self, seconds: float, now_s: float) -> Load:
        """What it is after so many more."""
        return Load(self._left_s(now_s) + seconds, now_s)

    def share(self, now_s: float) -> float:
        """The share of wall time over about the last hour, at most 1."""
        return min(1.0, self._left_s(now_s) / MEMORY_S)

    def _left_s(self, now_s: float) -> float:
        return self.seconds * math.exp(-max(0.0, now_s - self.at_s) / MEMORY_S)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a watch costs its database.

    `pace_s`: seconds from look to look as the budget has it; `note` says so while they are more than the interval.
    """

    look: Cost = field(default_factory=Cost)
    load: Load = field(default_factory=Load)
    pace_s: float = 0.0
    note: str = ""
