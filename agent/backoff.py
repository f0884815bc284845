"""How long to wait before the next try. Pure: no thread, no clock; randomness is handed in."""

from __future__ import annotations

import random

RECONNECT_BASE_S, RECONNECT_CAP_S = 1.0, 60.0
DELIVERY_BASE_S, DELIVERY_CAP_S = 1.0, 300.0
FLOOR_JITTER = 1 / 12

RAMP_AFTER_S = 60.0
RAMP_START_S = 4.0
RAMP_FACTOR = 0.7
RAMP_FLOOR_S = 0.05


def ceiling_s(attempt: int, base_s: float, cap_s: float) -> float:
    """The longest wait after so many failures before this one: base doubled `attempt` times, at most `cap_s`."""
    return min(cap_s, base_s * 2.0 ** min(attempt, 60))


class Backoff:
    """Counts failures in a row and says how long to wait after each: full jitter, anything up to the ceiling."""

    def __init__(self, base_s: float, cap_s: float, rng: random.Random) -> None:
        self.failures = 0
        self._base_s, self._cap_s, self._rng = base_s, cap_s, rng
        self._unspent_s = 0.0

    def failed(self, floor_s: float = 0.0) -> float:
        """Seconds to wait now; `floor_s` is what the other side asked for, the jitter goes on top of it."""
        # A floor may end for everyone in the same instant (a date): the longer they wait, the wider apart.
        highest_s = max(ceiling_s(self.failures, self._base_s, self._cap_s), min(self._cap_s, floor_s * FLOOR_JITTER))
        wait_s = floor_s + self._rng.uniform(0.0, highest_s)
        self.failures += 1
        self._unspent_s = max(0.0, highest_s - wait_s)
        return wait_s

    def reset(self) -> float:
        """It worked. Seconds that the last wait had left of its ceiling; 0 when there was none."""
        unspent_s, self._unspent_s = self._unspent_s, 0.0
        self.failures = 0
        return unspent_s


class Ramp:
    """The pauses between the deliveries after a long outage, so that a fleet does not throw its backlogs at a backend
    that just came back.

    The first is anything up to what the backoff had left of its ceiling: so all agents begin within the ceiling, evenly
    spread, also those whose tries hung and were answered in the same instant. Those that follow are anything up to 4 s,
    then less at each acceptance, then none.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failing_since_s: float | None = None
        self._pause_s = 0.0

    def failed(self, at_s: float) -> None:
        """A try failed at `at_s` (monotonic seconds)."""
        if self._failing_since_s is None:
            self._failing_since_s = at_s

    def accepted(self, at_s: float, unspent_s: float) -> float:
        """A body was accepted at `at_s`: seconds to wait before the next one. `unspent_s`: what Backoff.reset gave."""
        since_s, self._failing_since_s = self._failing_since_s, None
        if since_s is not None and at_s - since_s >= RAMP_AFTER_S:
            self._pause_s = RAMP_START_S
            return self._rng.uniform(0.0, max(unspent_s, RAMP_START_S))
        pause_s = self._pause_s
        self._pause_s = pause_s * RAMP_FACTOR if pause_s * RAMP_FACTOR >= RAMP_FLOOR_S else 0.0
        return self._rng.uniform(0.0, pause_s)
