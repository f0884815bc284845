"""What one watch does next and why. Decides only: no thread, no clock of its own, no database, no file."""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.backoff import Backoff
from agent.commands import Command
from agent.machine import COLLECTING, IDLE, PAUSED, RECONNECTING, attach

ROOM_CHECK_S = 5.0


class Watch:
    """The model of one watch: its state, its pause flag, its schedule. Times are monotonic seconds.

    The triggers (begin, finish, ...) answer True when the state changed; a trigger that the table does not have
    for the present state raises transitions.MachineError.
    """

    def __init__(
        self,
        *,
        interval_s: float,
        paused: bool,
        now_s: float,
        backoff: Backoff,
        on_enter: Callable[[str], None],
    ) -> None:
        self.interval_s = interval_s
        self.paused = paused
        self.reason = ""
        self.asked: list[Command] = []
        self._backoff = backoff
        self._on_enter = on_enter
        self._due_s = now_s
        self._try_s = now_s
        self.state = PAUSED if paused else IDLE
        attach(self, self.state)

    # -- the machine's side: triggers are bound by it, conditions and bookkeeping are asked by it ----------------

    def begin(self) -> bool:
        """A look starts."""
        raise NotImplementedError

    def finish(self) -> bool:
        """The look is over, well or with a reason."""
        raise NotImplementedError

    def lose_connection(self) -> bool:
        """The database is away."""
        raise NotImplementedError

    def pause(self) -> bool:
        """No look until a command."""
        raise NotImplementedError

    def resume(self) -> bool:
        """Looks again."""
        raise NotImplementedError

    def is_collecting(self) -> bool:
        """Whether a look runs."""
        raise NotImplementedError

    def collect_wanted(self) -> bool:
        """A look was asked for, which goes ahead of the pause."""
        return bool(self.asked)

    def pause_wanted(self) -> bool:
        """The pause flag is set."""
        return self.paused

    def entered(self) -> None:
        """The machine reports the state it has reached."""
        self._on_enter(self.state)

    # -- the schedule ------------------------------------------------------------------------------------------

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until a look should be tried; 0: now; None: only a command can start one."""
        if self.asked:
            return 0.0
        if self.state == PAUSED:
            return None
        return max(0.0, (self._try_s if self.state == RECONNECTING else self._due_s) - now_s)

    def has_no_room(self, reason: str, now_s: float) -> None:
        """The outbox takes no more: a look that runs ends, and the next is tried soon."""
        self.reason = reason
        self.asked.clear()
        self._due_s = self._try_s = now_s + ROOM_CHECK_S
        if self.state == COLLECTING:
            self._backoff.reset()
            self.finish()

    def has_finished(self, reason: str, now_s: float) -> None:
        """The look is over; `reason` says why it could not be done, or is empty."""
        self.reason = reason
        self.asked.clear()
        self._backoff.reset()
        self._schedule_next(now_s)
        if self.state == RECONNECTING:
            self.begin()  # the try reached the database; what it met there is no lost connection
        self.finish()

    def has_lost_connection(self, reason: str, now_s: float) -> None:
        """The database went away, or still is; the next try comes after a full-jitter backoff."""
        self.reason = reason
        self.asked.clear()
        self._try_s = now_s + self._backoff.failed()
        self.lose_connection()

    def set_pause(self, paused: bool) -> None:
        """Sets or clears the flag, in any state; the state follows where the table has a way."""
        self.paused = paused
        if paused and self.state in {IDLE, RECONNECTING}:
            self.reason = ""
            self.pause()
        elif not paused and self.state == PAUSED:
            self._backoff.reset()
            self.resume()

    def has_new_source(self, now_s: float) -> None:
        """The database is another one, or is reached in another way: what was wrong may be over."""
        if self.reason:
            self._backoff.reset()
            self._due_s, self._try_s = min(self._due_s, now_s), now_s

    def set_interval(self, interval_s: float, now_s: float) -> None:
        """Takes another interval; the next look comes after it at the latest."""
        self.interval_s = interval_s
        self._due_s = min(self._due_s, now_s + interval_s)

    def _schedule_next(self, now_s: float) -> None:
        # On the grid of the interval, so that the length of a look does not shift the schedule; missed ones are not
        # made up for, because the next look reads all there is.
        if now_s >= self._due_s:
            missed = math.floor((now_s - self._due_s) / self.interval_s)
            self._due_s += (missed + 1) * self.interval_s
