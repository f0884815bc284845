"""How many commands a backend may give, over time: many at once, few for ever. Pure: it is told the time."""

from __future__ import annotations

AT_ONCE = 60
REFILL_S = 10.0


class Ration:
    """`at_once` portions, and another one each `refill_s` seconds while some are missing. One thread uses it."""

    def __init__(self, now_s: float, *, at_once: int = AT_ONCE, refill_s: float = REFILL_S) -> None:
        self._at_once, self._refill_s = at_once, refill_s
        self._left = float(at_once)
        self._seen_s = now_s

    def takes(self, now_s: float) -> bool:
        """Takes a portion, if one is left."""
        self._left = min(float(self._at_once), self._left + max(0.0, now_s - self._seen_s) / self._refill_s)
        self._seen_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
