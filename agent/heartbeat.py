"""Tells the backend every interval that the agent lives, and brings back its commands. Touches no database and no
outbox, and shares no lock with what does: it must go on whatever the others are stuck in."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from agent.body import dumps
from agent.clock import Clock
from agent.commands import Command, parse
from agent.delivery import heartbeat_error
from agent.errors import BackendAway
from agent.foreign_json import loads
from agent.logs import tell
from agent.news import News
from agent.pulse import Pulse
from agent.status import LinkStatus, Scoreboard
from agent.transport import TOTAL_TIMEOUT_S, Answer, Transport
from storage.errors import CodedError

JITTER = 0.1
BEAT_S = TOTAL_TIMEOUT_S


class Heartbeat:
    """Runs in its own thread; `stop` and `set_interval` may be called from any."""

    def __init__(
        self,
        transport: Transport,
        collector_id: int,
        board: Scoreboard,
        *,
        interval_s: float,
        clock: Clock,
        rng: random.Random,
        give: Callable[[Command], None],
    ) -> None:
        self.pulse = Pulse("heartbeat", clock)
        self._transport = transport
        self._path = f"/api/v1/collectors/{collector_id}/heartbeat"
        self._board, self._clock, self._rng = board, clock, rng
        self._interval_s = interval_s
        self._give = give
        self._news = News("heartbeat", clock)
        self._error: CodedError | None = None
        self._stopping = False
        self._woken = threading.Event()

    def set_interval(self, interval_s: float) -> None:
        """Takes another interval, for the pause that runs too."""
        self._interval_s = interval_s
        self._woken.set()

    def stop(self) -> None:
        """Ends after a farewell beat."""
        self._stopping = True
        self._woken.set()

    def run(self) -> None:
        """Beats until it is stopped; the length of a beat does not delay the next one. May be called again."""
        try:
            while not self._stopping:
                began_s = self._clock.monotonic()
                self.beat()
                self._pause(began_s)
            self.beat()
        finally:
            self._transport.close()

    def _pause(self, began_s: float) -> None:
        part = self._rng.uniform(1 - JITTER, 1 + JITTER)
        while not self._stopping:
            left_s = began_s + self._interval_s * part - self._clock.monotonic()
            if left_s <= 0:
                return
            self.pulse.beat("waiting", left_s)
            self._woken.wait(left_s)
            self._woken.clear()

    def beat(self) -> None:
        """One beat: the status goes out, commands come in."""
        self.pulse.beat("speaking to the backend", BEAT_S)
        status = self._board.status(now_s=self._clock.monotonic(), now_unix=self._clock.unix())
        beat = dumps({"stats": status.stats(), "error": status.error})
        try:
            answer = self._transport.post(self._path, beat)
        except BackendAway as error:
            self._failed(error)
            return
        wrong = heartbeat_error(answer)
        if wrong is None:
            self._succeeded(answer)
        else:
            self._failed(wrong)

    def _failed(self, error: CodedError) -> None:
        self._error = error.bare()
        self._news.wrong(error)
        before = self._board.heartbeat
        self._board.heartbeat = LinkStatus(str(error), before.accepted_at_s, before.clock_skew_s)

    @property
    def error(self) -> CodedError | None:
        """What is wrong with the heartbeat now."""
        return self._error

    def _succeeded(self, answer: Answer) -> None:
        if self._board.heartbeat.accepted_at_s is None:
            tell(logging.INFO, "heartbeat.first", "The backend has taken the first heartbeat")
        self._error = None
        self._news.right()
        theirs = answer.unix_time
        skew_s = round(self._clock.unix() - theirs, 1) if theirs is not None else None
        self._board.heartbeat = LinkStatus(None, self._clock.monotonic(), skew_s)
        for command in parse(loads(answer.body).get("commands")):
            self._give(command)
