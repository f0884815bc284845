"""Drains the outbox: takes the oldest envelope, offers it to the sink, does what the answer asks for. Nothing else
deletes an envelope."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from agent import body
from agent.backoff import DELIVERY_CAP_S
from agent.clock import Clock
from agent.delivery import Delivered, Hold, Retry
from agent.lane import Act, Decision, Lane
from agent.logs import tell
from agent.news import News
from agent.pulse import Pulse
from agent.repeats import Repeats
from agent.sinks import COMMAND_RESULT, QUERIES, TOPICS, Sink
from agent.status import Scoreboard
from agent.transport import TOTAL_TIMEOUT_S
from storage.envelope import Draft, Envelope
from storage.errors import CodedError, EnvelopeGone, OutboxError

FAILED_OUTBOX_PAUSE_S = 5.0
LOOK_S = 30.0  # a person may have put back what was parked, and nobody wakes us then
SEND_S = 2 * TOTAL_TIMEOUT_S  # what is refused compressed is offered plain at once
_OUTBOX = "outbox"
_NEWS_ABOUT = {QUERIES: "delivery", COMMAND_RESULT: "results", _OUTBOX: "outbox"}


class Store(Protocol):
    """Where envelopes come from and are settled: the outbox, or what a replay reads. See Outbox for what each does."""

    def head(self, topic: str, skip: Collection[int] = ()) -> Envelope | None: ...
    def demand_recordable(self) -> None: ...
    def offer(self, envelope: Envelope) -> None: ...
    def withdraw(self) -> None: ...
    def doubt(self, envelope: Envelope) -> None: ...
    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None: ...
    def park(self, envelope: Envelope, reason: str) -> None: ...
    def split(self, envelope: Envelope, first: Draft, second: Draft) -> None: ...
    def shrink(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """What followed from an answer and is not in the outbox yet. `delivered`: records; `in_doubt`: nobody knows."""

    envelope: Envelope
    decision: Decision
    delivered: int
    in_doubt: bool


class Flusher:
    """Runs in its own thread; `wake`, `stop` and `set_hold` may be called from any."""

    def __init__(
        self,
        outbox: Store,
        sink: Sink,
        board: Scoreboard,
        *,
        clock: Clock,
        rng: random.Random,
        hold_s: float,
        cap_s: float = DELIVERY_CAP_S,
    ) -> None:
        """`hold_s`: the pace at which held envelopes are tried; `cap_s`: the longest pause after a failure."""
        self.pulse = Pulse("flusher", clock)
        self._outbox, self._sink, self._board, self._clock = outbox, sink, board, clock
        self._lanes = {topic: Lane(hold_s=hold_s, rng=rng, cap_s=cap_s) for topic in TOPICS}
        self._news = {key: News(about, clock) for key, about in _NEWS_ABOUT.items()}
        self._repeats = Repeats(clock.monotonic)
        self._woken = threading.Event()
        self._stop_at_s: float | None = None
        self._unsettled: _Unsettled | None = None
        self._errors: dict[str, CodedError] = {}  # what is wrong now, by topic

    @property
    def error(self) -> CodedError | None:
        """What is wrong with the delivery now."""
        return next(iter(self._errors.values()), None)

    def wake(self) -> None:
        """There is something new to send."""
        self._woken.set()

    def stop(self, deadline_s: float) -> None:
        """Ends after what can still be sent until `deadline_s` (monotonic)."""
        self._stop_at_s = deadline_s
        self._woken.set()

    def set_hold(self, hold_s: float) -> None:
        """Takes another pace for what is held: the heartbeat's."""
        for lane in self._lanes.values():
            lane.hold_s = hold_s

    def run(self) -> None:
        """Delivers until it is stopped. May be called again after it died of a defect."""
        try:
            while True:
                wait_s = self.step()
                if self._stop_at_s is not None and (wait_s != 0 or self._clock.monotonic() >= self._stop_at_s):
                    return
                if wait_s != 0:
                    wait_s = LOOK_S if wait_s is None else wait_s
                    self.pulse.beat("waiting", wait_s)
                    self._woken.wait(wait_s)
                    self._woken.clear()
        finally:
            self._sink.close()

    def step(self) -> float | None:
        """Offers at most one envelope. Seconds until the next step makes sense; None: when something new comes."""
        self.pulse.beat("reading the outbox")
        try:
            self._settle()
            wait_s = self._step()
        except OutboxError as error:
            self._report(_OUTBOX, error)
            return FAILED_OUTBOX_PAUSE_S
        self._report(_OUTBOX, None)
        self._repeats.remind()
        return wait_s

    def _step(self) -> float | None:
        now_s = self._clock.monotonic()
        waits: list[float] = []
        for topic, lane in self._lanes.items():
            if lane.ready_at_s > now_s:
                waits.append(lane.ready_at_s - now_s)
                continue
            envelope = self._outbox.head(topic, lane.passed_over)
            if envelope is not None:
                self._deliver(lane, envelope)
                return 0
            error = lane.end_round(now_s)
            self._report(topic, error)
            if error is not None:
                waits.append(lane.hold_s)
        if not waits and self._outbox.shrink():
            return 0  # there is more to give back, and perhaps something new to send before that
        return min(waits, default=None)

    def _deliver(self, lane: Lane, envelope: Envelope) -> None:
        self._outbox.demand_recordable()
        self._outbox.offer(envelope)
        self.pulse.beat("sending to the backend", SEND_S)
        verdict = self._sink.send(envelope)
        self.pulse.beat("writing the outbox")
        heartbeat = self._board.heartbeat
        decision = lane.decide(
            envelope,
            verdict,
            now_s=self._clock.monotonic(),
            heartbeat_ok_at_s=heartbeat.accepted_at_s if heartbeat.error is None else None,
        )
        delivered = verdict.count if isinstance(verdict, Delivered) else 0
        in_doubt = isinstance(verdict, Retry | Hold) and verdict.in_doubt
        self._unsettled = _Unsettled(envelope, decision, delivered, in_doubt)
        self._settle()

    def _settle(self) -> None:
        """What followed from the last answer. On a full disk it waits here, and nothing more is sent meanwhile."""
        if self._unsettled is None:
            return
        envelope, decision = self._unsettled.envelope, self._unsettled.decision
        try:
            if self._unsettled.in_doubt:
                self._outbox.doubt(envelope)
                envelope = replace(envelope, doubtful=True)
            self._carry_out(envelope, decision, delivered=self._unsettled.delivered)
        except EnvelopeGone as error:
            self._repeats.tell(logging.INFO, "delivery.gone", str(error), seq=envelope.seq)
        self._unsettled = None

    def _carry_out(self, envelope: Envelope, decision: Decision, *, delivered: int) -> None:
        if decision.act is Act.ACCEPT:
            self._outbox.accept(envelope, delivered=delivered, reason=decision.reason)
            self._has_accepted(envelope)
            self._report(envelope.topic, None)
            self._look_for_canaries(envelope)
            if delivered < envelope.records:
                skipped, sentence = envelope.records - delivered, "The backend left out records"
                self._repeats.tell(logging.WARNING, "delivery.partial", sentence, seq=envelope.seq, records=skipped)
        elif decision.act is Act.PARK:
            self._outbox.park(envelope, decision.reason)
            sentence = f"A record was parked: {decision.reason}"
            self._repeats.tell(logging.WARNING, "delivery.parked", sentence, kind=decision.reason, seq=envelope.seq)
        elif decision.act is Act.SPLIT:
            (first, first_body), (second, second_body) = body.halves(envelope.body)
            self._outbox.split(
                envelope, Draft(envelope.topic, first, first_body), Draft(envelope.topic, second, second_body)
            )
        else:
            self._outbox.withdraw()
            if decision.error is not None:
                self._report(envelope.topic, decision.error)

    def _has_accepted(self, envelope: Envelope) -> None:
        before = self._board.delivery
        self._board.delivery = replace(before, accepted_at_s=self._clock.monotonic())
        if before.accepted_at_s is None:
            tell(logging.INFO, "delivery.first", "The backend has taken the first envelope", records=envelope.records)

    def _look_for_canaries(self, envelope: Envelope) -> None:
        names = self._board.canaries_awaited(now := self._clock.now())
        if names:  # only while somebody tries the way out
            text = body.unpack(envelope.body)
            for name in names:
                if name.encode() in text:
                    self._board.has_accepted(name, now)

    def _report(self, about: str, error: CodedError | None) -> None:
        if error is not None:
            self._errors[about] = error.bare()
            self._news[about].wrong(error)
        elif self._errors.pop(about, None) is None:
            self._news[about].right()
            return
        now = self.error
        self._board.delivery = replace(self._board.delivery, error=str(now) if now else None)
        if error is None:
            self._news[about].right(f"{self._board.books.pending:,} records waiting")
