"""What follows from the answers to one topic's envelopes: when to go on, what to split, whom to suspect. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum, auto

from agent.backoff import DELIVERY_BASE_S, DELIVERY_CAP_S, Backoff, Ramp
from agent.delivery import Delivered, Hold, Refused, TooLarge, Verdict
from agent.errors import BodyRefused
from storage.envelope import Envelope
from storage.errors import CodedError

SERVER_ERRORS_TO_SUSPECT = 5
TRIES, MAX_TRIES = 32, 4_096
PROBES = 8
MAX_PASSED_OVER = 8_192


class Act(Enum):
    """What is to be done with the envelope."""

    ACCEPT = auto()
    PARK = auto()
    SPLIT = auto()
    KEEP = auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a verdict. `error`: what is wrong now, None when delivery works."""

    act: Act
    reason: str = ""
    error: CodedError | None = None


class Lane:
    """The retry clock and the suspicions of one topic. Times are monotonic seconds.

    A single record that is refused becomes a suspect and is passed over until another one is accepted: only then is
    it known that the backend takes records at all. Refused once more, it is parked. So is the half of a refused body
    that is refused directly after an acceptance: it was refused before as a part, and another one accepted since.

    Each refusal costs a try. Without tries left nothing is split any more: bodies are passed over whole in search of
    one that is accepted, PROBES of them at each hold. An acceptance gives the tries back, twice as many when they had
    run out, so a long run of bad records is got through; a backend that refuses everything is met with one further
    split for each round through all that waits.
    """

    def __init__(self, *, hold_s: float, rng: random.Random, cap_s: float = DELIVERY_CAP_S) -> None:
        self.hold_s = hold_s
        self.ready_at_s = 0.0
        self._suspects: set[int] = set()
        self._passed: set[int] = set()
        self._second_chance: set[int] = set()
        self._tries_given = self._tries = TRIES
        self._probes = 0
        self._accepted_last = False
        self._backoff = Backoff(DELIVERY_BASE_S, cap_s, rng)
        self._ramp = Ramp(rng)
        self._server_errors: tuple[int, int, float] = (0, 0, 0.0)  # seq, how many, since

    @property
    def passed_over(self) -> set[int]:
        """What is not to be offered for the time being: seq of envelopes."""
        return self._suspects | self._passed

    def decide(
        self, envelope: Envelope, verdict: Verdict, *, now_s: float, heartbeat_ok_at_s: float | None
    ) -> Decision:
        """What follows from `verdict`. `heartbeat_ok_at_s`: when the backend last took a heartbeat, None when it
        does not take them now."""
        after_acceptance = self._accepted_last
        self._accepted_last = isinstance(verdict, Delivered) and verdict.count > 0
        if isinstance(verdict, Delivered):
            return self._delivered(verdict, now_s)
        if isinstance(verdict, TooLarge):
            self._backoff.reset()
            return Decision(Act.SPLIT if envelope.records > 1 else Act.PARK, "too large for the backend (413)")
        if isinstance(verdict, Refused):
            reason = f"refused by the backend ({verdict.reason})"
            return self._refused(envelope, reason, now_s, proven=after_acceptance)
        if isinstance(verdict, Hold):
            self.ready_at_s = now_s + self.hold_s
            return Decision(Act.KEEP, error=verdict.error)
        if verdict.blames_body and self._is_suspect(envelope, now_s, heartbeat_ok_at_s):
            reason = f"refused by the backend ({verdict.error.detail}, {SERVER_ERRORS_TO_SUSPECT} times)"
            return self._refused(envelope, reason, now_s)
        if verdict.is_failure:
            self._ramp.failed(now_s)
        self.ready_at_s = now_s + self._backoff.failed(verdict.floor_s)
        return Decision(Act.KEEP, error=verdict.error)

    def end_round(self, now_s: float) -> CodedError | None:
        """Every envelope that is left was refused and none accepted since: the fault may not be the records'."""
        if not self.passed_over:
            return None
        if self._passed:
            self._tries = max(self._tries, 1)
        self._suspects.clear()
        self._passed.clear()
        return self._alarm(now_s)

    def _delivered(self, verdict: Delivered, now_s: float) -> Decision:
        self.ready_at_s = now_s + self._ramp.accepted(now_s, self._backoff.reset())
        if verdict.count > 0:
            self._second_chance |= self._suspects
            self._suspects.clear()
            self._passed.clear()
            self._tries_given = min(MAX_TRIES, 2 * self._tries_given) if self._tries == 0 else TRIES
            self._tries, self._probes = self._tries_given, 0
        return Decision(Act.ACCEPT, verdict.reason)

    def _refused(self, envelope: Envelope, reason: str, now_s: float, *, proven: bool = False) -> Decision:
        if self._tries > 0:  # a refusal is contact; a backend that refuses everything is not to be hurried
            self._backoff.reset()
        is_half = "." in envelope.key
        if envelope.seq in self._second_chance or (proven and is_half and envelope.records == 1):
            self._second_chance.discard(envelope.seq)
            return Decision(Act.PARK, reason)
        if self._tries > 0:
            self._tries -= 1
            if envelope.records > 1:
                return Decision(Act.SPLIT, reason)
            self._suspects.add(envelope.seq)
            return Decision(Act.KEEP, reason)
        (self._passed if envelope.records > 1 else self._suspects).add(envelope.seq)
        self._probes += 1
        if len(self.passed_over) >= MAX_PASSED_OVER:
            return Decision(Act.KEEP, reason, self.end_round(now_s))
        return Decision(Act.KEEP, reason, self._alarm(now_s) if self._probes >= PROBES else None)

    def _alarm(self, now_s: float) -> CodedError:
        self._probes = 0
        self.ready_at_s = now_s + self.hold_s
        return BodyRefused()

    def _is_suspect(self, envelope: Envelope, now_s: float, heartbeat_ok_at_s: float | None) -> bool:
        seq, times, since_s = self._server_errors
        if seq != envelope.seq:
            times, since_s = 0, now_s
        heard = heartbeat_ok_at_s is not None and heartbeat_ok_at_s >= since_s
        blamed = times + 1 >= SERVER_ERRORS_TO_SUSPECT and heard
        self._server_errors = (0, 0, 0.0) if blamed else (envelope.seq, times + 1, since_s)
        return blamed
