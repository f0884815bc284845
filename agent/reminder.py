"""When it is time to say once more what goes on. Pure: no clock of its own, says nothing."""

from __future__ import annotations

FIRST_S, LONGEST_S = 3_600.0, 21_600.0


class Reminder:
    """Due an hour after it was made, then after twice as long each time, up to six hours. Times: monotonic seconds."""

    def __init__(self, now_s: float) -> None:
        self._pause_s = FIRST_S
        self._due_s = now_s + FIRST_S

    def is_due(self, now_s: float) -> bool:
        """Whether it is time; the next wait begins when it is."""
        if now_s < self._due_s:
            return False
        self._pause_s = min(LONGEST_S, 2 * self._pause_s)
        self._due_s = now_s + self._pause_s
        return True
