"""Delivers what waits in the outbox of an agent that is no more, through the agent's own flusher.

The file is only read; what was accepted is remembered in a ledger, so a replay that was stopped goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from agent.body import dumps
from agent.clock import Clock
from agent.delivery import Delivered, judge_bulk
from agent.errors import BackendAway, BackendBusy, BackendUntrusted, BackendWithoutTls, BodyRefused, ReplayGivenUp
from agent.flusher import Flusher
from agent.replay.cargo import Account, Cargo
from agent.sinks import Sink
from agent.sinks.http import BULK_PATH
from agent.status import LinkStatus, Scoreboard
from agent.transport import Transport
from storage.errors import CodedError

GIVE_UP_S = 30.0
BUSY_S = 300.0  # so long one body may be refused as too much, while the backend takes others
HOLD_S = CAP_S = 5.0  # somebody waits for it


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is, in records; `waiting`: those that are left."""

    account: Account
    waiting: int


class Replay:
    """Runs in the caller's thread; `stop` may be called from a signal handler.

    `rate`: records a second at most, None for as fast as the backend takes them; `probe`: whether the backend takes
    bulk calls at this moment.
    """

    def __init__(
        self,
        cargo: Cargo,
        sink: Sink,
        *,
        clock: Clock,
        rng: random.Random,
        probe: Callable[[], bool],
        rate: float | None = None,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._cargo, self._clock, self._probe, self._rate, self._tell = cargo, clock, probe, rate, tell
        self._board = Scoreboard(clock.monotonic())
        self._flusher = Flusher(cargo, sink, self._board, clock=clock, rng=rng, hold_s=HOLD_S, cap_s=CAP_S)
        self._sink = sink
        self.was_stopped = False
        self._inbox = SimpleQueue[None]()

    def stop(self) -> None:
        """Ends after the envelope that is on its way."""
        self.was_stopped = True
        self._inbox.put(None)  # may be called within a wait for it, as by a handler of a signal

    def _wait(self, seconds: float) -> None:
        with suppress(Empty):
            self._inbox.get(timeout=seconds)

    def run(self) -> bool:
        """Until everything is settled; False when it was stopped before.

        Raises ReplayGivenUp: when it cannot be reached or only fails for 30 s; at once where waiting will not help (a
        refused key, something else at the address, every body refused). And LedgerUnusable.
        """
        try:
            with closing(self._cargo):
                self._deliver()
        finally:
            self._sink.close()
        return not self._cargo.waiting

    def _deliver(self) -> None:
        wrong_since_s: float | None = None
        while self._cargo.waiting and not self.was_stopped:
            before, began_s = self._settled(), self._clock.monotonic()
            wait_s = self._flusher.step()
            settled = self._settled() - before
            self._tell(Progress(self._cargo.account, self._cargo.waiting))
            error = self._flusher.error
            if settled or error is None:
                wrong_since_s = None
            else:
                wrong_since_s = began_s if wrong_since_s is None else wrong_since_s
                self._demand_hope(error, wrong_since_s)
            pause_s = self._pause_s(settled, wait_s or 0.0, began_s)
            if wrong_since_s is not None and (left_s := wrong_since_s + GIVE_UP_S - self._clock.monotonic()) > 0:
                pause_s = min(pause_s, left_s)
            if pause_s > 0:
                self._wait(pause_s)

    def _settled(self) -> int:
        account = self._cargo.account
        return account.delivered + account.parked

    def _pause_s(self, settled: int, wait_s: float, began_s: float) -> float:
        due_s = began_s + settled / self._rate if self._rate else began_s
        return max(wait_s, due_s - self._clock.monotonic(), 0.0)

    def _demand_hope(self, error: CodedError, since_s: float) -> None:
        """Raises ReplayGivenUp when waiting will not mend it, or has not for so long."""
        why = f"[{error.code}] {error.sentence.rstrip('.')}"
        if isinstance(error, BodyRefused) and self._has_taken_some:
            self._give_up_the_rest(why, since_s)
            return
        if not isinstance(error, BackendAway | BackendBusy) or isinstance(error, BackendUntrusted | BackendWithoutTls):
            raise ReplayGivenUp(why) from error
        now_s = self._clock.monotonic()
        if isinstance(error, BackendBusy) and now_s - since_s < BUSY_S and self._probe():
            # It takes other bodies: the one that fails is at fault, and the flusher finds out what in it.
            self._board.heartbeat = LinkStatus(accepted_at_s=now_s)
        elif now_s - since_s >= GIVE_UP_S:
            raise ReplayGivenUp(why) from error

    @property
    def _has_taken_some(self) -> bool:
        account = self._cargo.account
        return account.delivered + account.before > 0

    def _give_up_the_rest(self, why: str, since_s: float) -> None:
        """What is left is refused, and nothing comes behind it that could show once more that the backend takes
        records: it has taken others of this outbox. Only the ledger says so; the outbox keeps them."""
        if not self._cargo.give_up_singles(why) and self._clock.monotonic() - since_s >= BUSY_S:
            raise ReplayGivenUp(why)


def takes_bulk_calls(transport: Transport, clock: Clock) -> bool:
    """Whether the backend takes a bulk call without a record."""
    try:
        answer = transport.post(BULK_PATH, dumps({"queries": []}))
    except BackendAway:
        return False
    return isinstance(judge_bulk(answer, 0, clock.now()), Delivered)


def ledger_beside(path: Path) -> Path:
    """Where the ledger of an outbox or an export is, unless another place is named."""
    return path.with_name(f"{path.name}.replayed")
