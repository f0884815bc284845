"""What an answer of the backend means and what follows from it. Pure: sends, stores, waits for nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto

import orjson

from agent.backoff import DELIVERY_BASE_S, DELIVERY_CAP_S, Backoff, Ramp
from agent.errors import BackendBusy, BodyRefused, KeyRefused, NotTheBackend
from agent.transport import Answer
from storage.envelope import Envelope
from storage.errors import CodedError

SERVER_ERRORS_TO_SUSPECT = 5
TRIES, MAX_TRIES = 32, 4_096
PROBES = 8
MAX_SKIPPED = 8_192
RETRY_AFTER_CAP_S = 86_400.0  # what asks for more is taken for a mistake, or for a clock that is wrong
_KEY_COMPLAINTS = frozenset(
    {
        "Missing X-Collector-API-Key header",
        "Invalid collector API key format",
        "Invalid collector API key",
        "Collector ID mismatch",
    }
)
_RETRY_STATUSES = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The backend has taken `count` records of the body and left out the rest, for `reason`."""

    count: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now. `floor_s`: the backend asked to wait so long; `blames_body`: the body itself may be the cause;
    `is_failure`: not even contact was had."""

    error: CodedError
    floor_s: float = 0.0
    blames_body: bool = False
    is_failure: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Something is wrong that no retry of this body mends; try again at the heartbeat's pace."""

    error: CodedError


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The body has to be smaller."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The backend will not take this body, for `reason`."""

    reason: str


Verdict = Delivered | Retry | Hold | TooLarge | Refused


def judge_bulk(answer: Answer, records: int, now: datetime) -> Verdict:
    """The meaning of an answer to a bulk call that carried so many records."""
    if not 200 <= answer.status < 300:
        return _judge_failure(answer, now)
    try:
        contract = orjson.loads(answer.body)
        count, skipped = contract["count"], contract.get("skipped", 0)
        accepted = contract["status"] == "success" and type(count) is int and type(skipped) is int
    except (ValueError, TypeError, KeyError, AttributeError):
        accepted, count, skipped, contract = False, 0, 0, {}
    if not accepted or count < 0 or skipped < 0 or count + skipped != records:
        return Hold(NotTheBackend(f"status {answer.status} without the answer of a bulk call"))
    return Delivered(count, _why_skipped(contract) if skipped else "")


def judge_execute(answer: Answer, now: datetime) -> Verdict:
    """The meaning of an answer to the result of a command."""
    if answer.status == 404:
        return Delivered(1, "the command has expired")
    if not 200 <= answer.status < 300:
        return _judge_failure(answer, now)
    try:
        accepted = orjson.loads(answer.body)["status"] == "ok"
    except (ValueError, TypeError, KeyError):
        accepted = False
    return (
        Delivered(1)
        if accepted
        else Hold(NotTheBackend(f"status {answer.status} without the answer of an execute call"))
    )


def heartbeat_error(answer: Answer) -> CodedError | None:
    """What an answer to a heartbeat says is wrong; None when it was taken."""
    status = answer.status
    if status in {401, 403}:
        return KeyRefused(f"status {status}{_said(answer)}")
    if status >= 500 or status in _RETRY_STATUSES:
        return BackendBusy(f"status {status}")
    try:
        taken = 200 <= status < 300 and orjson.loads(answer.body)["status"] == "ok"
    except (ValueError, TypeError, KeyError):
        taken = False
    return None if taken else NotTheBackend(f"status {status} without the answer of a heartbeat")


def _judge_failure(answer: Answer, now: datetime) -> Verdict:
    status = answer.status
    if status >= 500 or status in _RETRY_STATUSES:
        # Their date is measured by their clock when they tell it.
        theirs = answer.unix_time
        floor_s = retry_after_s(
            answer.headers.get("retry-after"), now if theirs is None else datetime.fromtimestamp(theirs, UTC)
        )
        failed = status >= 500
        return Retry(BackendBusy(f"status {status}"), floor_s, blames_body=failed, is_failure=failed)
    if status == 413:
        return TooLarge()
    if status in {400, 422}:
        return Refused(f"status {status}")
    if status in {401, 403}:
        return Hold(KeyRefused(f"status {status}{_said(answer)}"))
    return Hold(NotTheBackend(f"status {status}"))


def retry_after_s(header: str | None, now: datetime) -> float:
    """The seconds of a Retry-After header, given as such or as a date; 0 when there is none that makes sense.

    At most RETRY_AFTER_CAP_S.
    """
    if not header:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdecimal():
        return min(RETRY_AFTER_CAP_S, float(text))
    try:
        at = parsedate_to_datetime(text)
        wait_s = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(RETRY_AFTER_CAP_S, max(0.0, wait_s))


def _said(answer: Answer) -> str:
    try:
        detail = orjson.loads(answer.body)["detail"]
    except (ValueError, TypeError, KeyError):
        return ""
    return f", {detail}" if isinstance(detail, str) and detail in _KEY_COMPLAINTS else ""


def _why_skipped(contract: dict[str, object]) -> str:
    errors = contract.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    said = first.get("error") if isinstance(first, dict) else None
    return f"partial: {str(said)[:200]}" if said else "partial: the backend gave no reason"


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

    def __init__(self, *, hold_s: float, rng: random.Random) -> None:
        self.hold_s = hold_s
        self.ready_at_s = 0.0
        self._suspects: set[int] = set()
        self._passed: set[int] = set()
        self._second_chance: set[int] = set()
        self._tries_given = self._tries = TRIES
        self._probes = 0
        self._accepted_last = False
        self._backoff = Backoff(DELIVERY_BASE_S, DELIVERY_CAP_S, rng)
        self._ramp = Ramp()
        self._server_errors: tuple[int, int, float] = (0, 0, 0.0)  # seq, how many, since

    @property
    def skipped(self) -> set[int]:
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

    def nothing_but_skipped(self, now_s: float) -> CodedError | None:
        """Every envelope that is left was refused and none accepted since: the fault may not be the records'."""
        if not self.skipped:
            return None
        if self._passed:
            self._tries = max(self._tries, 1)
        self._suspects.clear()
        self._passed.clear()
        return self._alarm(now_s)

    def _delivered(self, verdict: Delivered, now_s: float) -> Decision:
        self._backoff.reset()
        self.ready_at_s = now_s + self._ramp.accepted(now_s)
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
        if len(self.skipped) >= MAX_SKIPPED:
            return Decision(Act.KEEP, reason, self.nothing_but_skipped(now_s))
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
