"""What one watch does next and why. Decides only: no thread, no clock of its own, no database, no file."""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.backoff import Backoff
from agent.commands import Command
from agent.machine import COLLECTING, IDLE, PAUSED, RECONNECTING, attach

ROOM_CHECK_S = 5.0
REST_CAP_S = 3_600.0


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
        max_load: float | None = None,
        on_enter: Callable[[str], None],
    ) -> None:
        self.interval_s = interval_s
        self.max_load = max_load
        self.paused = paused
        self.reason = ""
        self.asked: list[Command] = []
        self._backoff = backoff
        self._on_enter = on_enter
        self._due_s = now_s
        self._try_s = now_s
        self._began_s, self._cost_s = now_s, 0.0
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
        due_s = self._try_s if self.state == RECONNECTING else max(self._due_s, self._began_s + self._rest_s)
        return max(0.0, due_s - now_s)

    def has_cost(self, cost_s: float, began_s: float) -> None:
        """The look that began then has cost the database so much; to be told before it is over.

        The budget: the next one begins after the time of which that is the share `max_load` (0 or None: no budget), but
        waits no longer than an hour for it. A look that was asked for does not wait.
        """
        self._cost_s, self._began_s = cost_s, began_s

    @property
    def pace_s(self) -> float:
        """Seconds from look to look as the budget has it: the interval or a multiple of it."""
        return self.interval_s * max(1, math.ceil(self._rest_s / self.interval_s))

    @property
    def _rest_s(self) -> float:
        return min(self._cost_s / self.max_load, REST_CAP_S) if self.max_load else 0.0

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
        self._cost_s = 0.0

    def set_interval(self, interval_s: float, now_s: float) -> None:
        """Takes another interval; the next look comes after it at the latest."""
        self.interval_s = interval_s
        self._due_s = min(self._due_s, now_s + interval_s)

    def set_max_load(self, max_load: float | None) -> None:
        """Takes another budget, for the rest that runs too."""
        self.max_load = max_load

    def _schedule_next(self, now_s: float) -> None:
        # On the grid of the interval, so that the length of a look does not shift the schedule; missed ones are not
        # made up for, because the next look reads all there is.
        if now_s >= self._due_s:
            missed = math.floor((now_s - self._due_s) / self.interval_s)
            self._due_s += (missed + 1) * self.interval_s
        early_s = self._began_s + self._rest_s - self._due_s
        if early_s > 0:
            self._due_s += math.ceil(early_s / self.interval_s) * self.interval_s
