"""How long to wait before the next try. Pure: no thread, no clock; randomness is handed in."""

from __future__ import annotations

import random

RECONNECT_BASE_S, RECONNECT_CAP_S = 1.0, 60.0
DELIVERY_BASE_S, DELIVERY_CAP_S = 1.0, 300.0

RAMP_AFTER_S = 60.0
RAMP_START_S = 2.0
RAMP_FLOOR_S = 0.05


def next_delay(attempt: int, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Full jitter: anything between 0 and base doubled `attempt` times, at most `cap_s` seconds."""
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt, 60)))


class Backoff:
    """Counts failures in a row and says how long to wait after each."""

    def __init__(self, base_s: float, cap_s: float, rng: random.Random) -> None:
        self.failures = 0
        self._base_s, self._cap_s, self._rng = base_s, cap_s, rng

    def failed(self, floor_s: float = 0.0) -> float:
        """Seconds to wait now; `floor_s` is what the other side asked for, the jitter goes on top of it."""
        delay = next_delay(self.failures, self._base_s, self._cap_s, self._rng)
        self.failures += 1
        return floor_s + delay

    def reset(self) -> None:
        """It worked."""
        self.failures = 0


class Ramp:
    """The pause between two deliveries after a long outage: 2 s, halved at each acceptance, then none."""

    def __init__(self) -> None:
        self._failing_since_s: float | None = None
        self._pause_s = 0.0

    def failed(self, at_s: float) -> None:
        """A try failed at `at_s` (monotonic seconds)."""
        if self._failing_since_s is None:
            self._failing_since_s = at_s

    def accepted(self, at_s: float) -> float:
        """A body was accepted at `at_s`: seconds to wait before the next one, 0 when the ramp is over."""
        if self._failing_since_s is not None and at_s - self._failing_since_s >= RAMP_AFTER_S:
            self._pause_s = RAMP_START_S
        self._failing_since_s = None
        pause_s = self._pause_s
        self._pause_s = pause_s / 2 if pause_s / 2 >= RAMP_FLOOR_S else 0.0
        return pause_s
