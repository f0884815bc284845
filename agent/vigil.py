"""Watches over the runners: who is stuck is told once, shown in the heartbeat, and takes systemd's ticks away, but for
one database of several.

The conductor's thread uses it, so that a dead conductor ends the ticks as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agent.clock import Clock
from agent.pulse import PACE_S, SLACK_S, Pulse, Rounds, Stuck, is_watch
from agent.repeats import Repeats
from agent.sd_notify import SdNotify
from agent.status import Scoreboard

WATCHDOG_PART = 1 / 3


class Vigil:
    """`look` is to be called as soon as everything runs, and then every `pace_s` seconds or more often."""

    def __init__(
        self,
        pulses: Sequence[Pulse],
        board: Scoreboard,
        systemd: SdNotify,
        clock: Clock,
        *,
        slack_s: float = SLACK_S,
        pace_s: float = PACE_S,
    ) -> None:
        self._board, self._systemd, self._clock = board, systemd, clock
        self._tick_s = None if systemd.watchdog_s is None else systemd.watchdog_s * WATCHDOG_PART
        self.pace_s = pace_s if self._tick_s is None else min(pace_s, self._tick_s)
        self._rounds = Rounds(pulses, slack_s=slack_s, pace_s=self.pace_s)
        self._watches = {pulse.thread for pulse in pulses if is_watch(pulse.thread)}
        self._told: dict[str, Stuck] = {}
        self._repeats = Repeats(clock.monotonic)
        self._is_ready = False
        self._tick_due_s = float("-inf")

    def look(self, dying: Sequence[Stuck] = ()) -> None:
        """Who is stuck now, and whom that concerns. `dying`: threads that are told in the log already."""
        now_s = self._clock.monotonic()
        stuck = self._rounds.overdue(now_s)
        self._board.stuck = (*stuck, *dying)
        self._tell(stuck, now_s)
        self._is_ready = self._is_ready or self._systemd.ready()
        if self._tick_s is not None and now_s >= self._tick_due_s and not self._must_end() and self._systemd.alive():
            self._tick_due_s = now_s + self._tick_s
        status = self._board.status(now_s=now_s, now_unix=self._clock.unix())
        self._systemd.status(status.error or f"{status.state}, {status.books.pending:,} records waiting")

    def end(self) -> None:
        """The end has begun; it has deadlines of its own."""
        self._systemd.stopping()
        self._systemd.close()

    def hand_over(self) -> None:
        """The same, and another vigil follows, which will say that it is ready."""
        self._systemd.reloading(self._clock.monotonic())
        self._systemd.close()

    def _must_end(self) -> bool:
        """Whether who is stuck is worth an end of all. One database of several that hangs is not: the others go on."""
        stuck = {each.thread for each in self._board.stuck}
        return bool(stuck - self._watches) or (bool(stuck) and stuck >= self._watches)

    def _tell(self, stuck: Sequence[Stuck], now_s: float) -> None:
        now = {each.thread: each for each in stuck}
        for thread, before in self._told.items():
            if now.get(thread) != before:
                seconds = round(now_s - before.since_s)
                sentence = f"The thread {thread} goes on after {seconds} s of {before.doing}"
                told = {"thread": thread, "doing": before.doing, "seconds": seconds}
                self._repeats.tell(logging.INFO, "thread.unstuck", sentence, kind=thread, **told)
        for thread, each in now.items():
            if self._told.get(thread) != each:
                sentence = f"The thread {thread} is stuck: {each.lasting(now_s)}"
                seconds = round(now_s - each.since_s)
                told = {"thread": thread, "doing": each.doing, "seconds": seconds}
                self._repeats.tell(logging.ERROR, "thread.stuck", sentence, kind=f"{thread} {each.doing}", **told)
        self._told = now
