"""What an answer of the backend means. Pure: sends, stores, waits for nothing; what follows from it is `lane`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agent.errors import BackendBusy, KeyRefused, NotTheBackend
from agent.foreign_json import loads
from agent.transport import Answer
from storage.envelope import PARTIAL
from storage.errors import CodedError
from storage.plain import plain

REASON_CHARACTERS = 200  # of what the backend says of a record that it skipped
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
_GATEWAY_STATUSES = frozenset({502, 504})  # said by somebody in between, who may have lost the answer


@dataclass(frozen=True, slots=True)
class Delivered:
    """The backend has taken `count` records of the body and left out the rest, for `reason`."""

    count: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now. `floor_s`: the backend asked to wait so long; `blames_body`: the body itself may be the cause;
    `is_failure`: not even contact was had; `in_doubt`: it may have been stored all the same."""

    error: CodedError
    floor_s: float = 0.0
    blames_body: bool = False
    is_failure: bool = True
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Something is wrong that no retry of this body mends; try again at the heartbeat's pace. `in_doubt`: it may have
    been stored all the same."""

    error: CodedError
    in_doubt: bool = False


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
        contract = loads(answer.body)
        count, skipped = contract["count"], contract.get("skipped", 0)
        accepted = contract["status"] == "success" and type(count) is int and type(skipped) is int
    except (ValueError, TypeError, KeyError, AttributeError):
        accepted, count, skipped, contract = False, 0, 0, {}
    if not accepted or count < 0 or skipped < 0 or count + skipped != records:
        return Hold(NotTheBackend(f"status {answer.status} without the answer of a bulk call"), in_doubt=True)
    return Delivered(count, _why_skipped(contract) if skipped else "")


def judge_execute(answer: Answer, now: datetime) -> Verdict:
    """The meaning of an answer to the result of a command."""
    if answer.status == 404:
        return Delivered(1, "the command has expired")
    if not 200 <= answer.status < 300:
        return _judge_failure(answer, now)
    try:
        accepted = loads(answer.body)["status"] == "ok"
    except (ValueError, TypeError, KeyError):
        accepted = False
    return (
        Delivered(1)
        if accepted
        else Hold(NotTheBackend(f"status {answer.status} without the answer of an execute call"), in_doubt=True)
    )


def heartbeat_error(answer: Answer) -> CodedError | None:
    """What an answer to a heartbeat says is wrong; None when it was taken."""
    status = answer.status
    if status in {401, 403}:
        return KeyRefused(f"status {status}{_said(answer)}")
    if status >= 500 or status in _RETRY_STATUSES:
        return BackendBusy(f"status {status}")
    try:
        taken = 200 <= status < 300 and loads(answer.body)["status"] == "ok"
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
        in_doubt = status in _GATEWAY_STATUSES
        return Retry(BackendBusy(f"status {status}"), floor_s, failed, failed, in_doubt)
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
        detail = loads(answer.body)["detail"]
    except (ValueError, TypeError, KeyError):
        return ""
    return f", {detail}" if isinstance(detail, str) and detail in _KEY_COMPLAINTS else ""


def _why_skipped(contract: dict[str, object]) -> str:
    errors = contract.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    said = first.get("error") if isinstance(first, dict) else None
    reason = plain(said, REASON_CHARACTERS) if isinstance(said, str) and said else "the backend gave no reason"
    return f"{PARTIAL}: {reason}"
