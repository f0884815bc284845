"""When a server is too sick to be looked at. Decides only: no thread, no clock of its own, no database."""

from __future__ import annotations

from collections import deque
from statistics import median

from agent.sources import Strain

FULL = 0.95  # of the connections that the server allows
TIMES = 10  # as slow as usual
FLOOR_S = 1.0  # what answers sooner is never slow
LOOKS_KEPT, LOOKS_NEEDED = 15, 5
PAUSE_CAP_S = 3_600.0


class Breaker:
    """Of one watch. Open, it has a reason against each look; a look of usual speed closes it. Times are monotonic.

    How slow a look was is the longest wait for one answer in it: a look at a long backlog has many, none of them long.
    """

    def __init__(self) -> None:
        self._longest = deque[float](maxlen=LOOKS_KEPT)
        self._reason = ""
        self._pause_s = 0.0
        self._until_s = float("-inf")

    def against(self, now_s: float) -> str | None:
        """Why there should be no look now, without asking the server; None: it may be tried."""
        return self._reason if now_s < self._until_s else None

    def against_strain(self, strain: Strain) -> str | None:
        """Why there should be no look at a server that is strained so; None when it is not."""
        if strain.used <= FULL * strain.allowed:
            return None
        return f"{strain.used:,} of {strain.allowed:,} connections are used"

    def has_looked(self, longest_s: float, now_s: float, interval_s: float) -> str | None:
        """After a whole look: why it opens now; None when it is closed.

        The first pause is one interval, each that follows in a row twice as long, up to an hour. Slow looks count for
        what is usual as well, so a server that stays slower than it was is looked at again.
        """
        usual_s = self._usual_s()
        self._longest.append(longest_s)
        if usual_s is None or longest_s <= max(FLOOR_S, TIMES * usual_s):
            self._pause_s, self._until_s = 0.0, float("-inf")
            return None
        return self._open(
            f"an answer took {longest_s:.1f} s instead of about {round(usual_s, 2):g} s", now_s, interval_s
        )

    def has_lost(self, longest_s: float, now_s: float, interval_s: float) -> None:
        """After a look that the database went away from: it opens when an answer was waited for so long that the
        server may only be sick. How long it was says nothing of what is usual."""
        usual_s = self._usual_s()
        limit_s = TIMES * FLOOR_S if usual_s is None else max(FLOOR_S, TIMES * usual_s)
        if longest_s > limit_s:
            self._open(f"no answer came within {longest_s:.1f} s", now_s, interval_s)

    def _usual_s(self) -> float | None:
        return median(self._longest) if len(self._longest) >= LOOKS_NEEDED else None

    def _open(self, why: str, now_s: float, interval_s: float) -> str:
        self._pause_s = min(max(interval_s, 2 * self._pause_s), max(interval_s, PAUSE_CAP_S))
        self._until_s = now_s + self._pause_s
        self._reason = f"{why}; no look for {self._pause_s:g} s"
        return self._reason
