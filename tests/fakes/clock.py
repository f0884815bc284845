"""A clock that stands still until a test turns it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from agent.clock import Clock

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class ManualClock(Clock):
    """Starts at noon of 1 May 2024 with a monotonic time of 1,000 s. Any thread may turn it and read it."""

    def __init__(self, now: datetime = NOON, monotonic_s: float = 1_000.0) -> None:
        if now.tzinfo is None:
            raise ValueError("the clock wants an aware datetime")
        self._now = now
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Aware UTC."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Seconds; only `turn` moves them."""
        with self._lock:
            return self._monotonic_s

    def turn(self, seconds: float) -> None:
        """Time goes by, for both clocks."""
        if seconds < 0:
            raise ValueError("time does not go back; set_wall lets the wall clock jump")
        with self._lock:
            self._monotonic_s += seconds
            self._now += timedelta(seconds=seconds)

    def set_wall(self, now: datetime) -> None:
        """The wall clock jumps, as it does when somebody sets it; the monotonic one does not."""
        with self._lock:
            self._now = now
