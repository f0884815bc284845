"""Says an event that may come again and again a few times, then counts it and says now and then how often it came.

For what happens. What lasts and is over some time has `news`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.logs import tell
from agent.reminder import Reminder

SAID = 3  # so often in a row an event is said as it comes
QUIET_S = 21_600.0  # what has not come for so long is new again
KINDS = 256  # of which is known when they came last


@dataclass(slots=True)
class _Seen:
    """One kind of event. `counted`: how often it came since it was said; `last`: what would have been said then."""

    last_s: float
    reminder: Reminder
    said: int = 0
    counted: int = 0
    last: Callable[[int], None] | None = None

    def taken(self) -> int:
        """How many the line stands for that is said now."""
        times, self.counted, self.last = self.counted, 0, None
        self.said += 1
        return times


class Repeats:
    """Any thread may use it. `now_s`: monotonic seconds."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._lock = threading.Lock()

    def tell(self, level: int, event: str, sentence: str, /, *, kind: str = "", **fields: object) -> None:
        """As `logs.tell`, or it is only counted. `kind`: what makes two of one word different news."""

        def say(times: int) -> None:
            if times == 1:
                tell(level, event, sentence, **fields)
            else:
                text = f"{sentence} (the last of {times:,} since this was said)"
                tell(level, event, text, **fields, times=times)

        times = self.times(event, kind, say)
        if times:
            say(times)

    def times(self, event: str, kind: str, later: Callable[[int], None] | None = None) -> int:
        """It has come once more: for how many of it a line stands that is said now; 0: none should be said.

        `later`: says that line when it is time and none has come since.
        """
        with self._lock:
            now_s = self._now_s()
            seen = self._known(event, kind, now_s)
            seen.last_s, seen.last = now_s, later
            seen.counted += 1
            return seen.taken() if seen.said < SAID or seen.reminder.is_due(now_s) else 0

    def remind(self) -> None:
        """Says what was counted and not said yet, where it is time."""
        with self._lock:
            now_s = self._now_s()
            for seen in self._seen.values():
                if seen.last is not None and seen.counted and seen.reminder.is_due(now_s):
                    say = seen.last
                    say(seen.taken())

    def _known(self, event: str, kind: str, now_s: float) -> _Seen:
        seen = self._seen.pop((event, kind), None)  # and to the end, so that the first is the one that is longest ago
        if seen is None or (now_s - seen.last_s >= QUIET_S and not seen.counted):
            seen = _Seen(now_s, Reminder(now_s))
        if len(self._seen) >= KINDS:
            del self._seen[next(iter(self._seen))]
        return self._seen.setdefault((event, kind), seen)
