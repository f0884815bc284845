"""What one slow query looks like on its way out. Pure data: no clock, no database, no network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import orjson

MAX_INTEGER = 2**31 - 1
MAX_NAME_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Window:
    """What PostgreSQL counted for one statement between two looks. Times in milliseconds, as its own columns are.

    `reason`: one of agent/sources/_statement_servers.py. `max_exec_time_ms` is since the server's reset, not of the
    window.
    """

    start: datetime | None
    end: datetime
    reason: str
    queryid: int
    calls: int
    rows: int
    total_exec_time_ms: float
    max_exec_time_ms: float


@dataclass(frozen=True, slots=True)
class Record:
    """One slow query: an execution (MySQL) or a statement over a window (PostgreSQL). Datetimes are aware UTC.

    `fingerprint`: the same for the same statement with other values; a digest of the text as agent/redact normalises
    it, or of the queryid when there is no text. `text_sha256`: of the whole, when the text was cut; empty when it was
    redacted too, as the little that is missing could be guessed by the digest.
    """

    id: str
    source: str
    sql_text: str
    query_time_s: float
    lock_time_s: float
    rows_sent: int
    rows_examined: int
    db: str
    user_host: str
    start_time: datetime
    collected_at: datetime
    fingerprint: str
    text_sha256: str | None = None
    window: Window | None = None
    start_time_confidence: str | None = None


def to_wire(record: Record) -> bytes:
    """The record as the JSON object the backend reads, made safe for its database.

    NUL becomes U+FFFD, integers end at 2^31-1, names at 255 characters: one value beyond these would make the
    backend refuse the whole body. `text_truncated` goes with the sha256 of the whole text, where that may leave.
    """
    fields: dict[str, object] = {
        "id": record.id,
        "source": record.source,
        "sql_text": _clean(record.sql_text) or _no_text(record),
        "query_time": _number(record.query_time_s),
        "lock_time": _number(record.lock_time_s),
        "rows_sent": _bounded(record.rows_sent),
        "rows_examined": _bounded(record.rows_examined),
        "db": _name(record.db),
        "user_host": _name(record.user_host),
        "start_time": record.start_time,
        "collected_at": record.collected_at,
        "fingerprint": record.fingerprint,
    }
    if record.text_sha256 is not None:
        fields["text_truncated"] = True
        fields |= {"text_sha256": record.text_sha256} if record.text_sha256 else {}
    if record.start_time_confidence is not None:
        fields["start_time_confidence"] = record.start_time_confidence
    if record.window is not None:
        fields.update(_window_fields(record.window))
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:
        # Text that is no Unicode (a lone surrogate): it must cost a character and not the thread that reads it.
        return orjson.dumps({name: _unicode(value) for name, value in fields.items()})


def _window_fields(window: Window) -> dict[str, object]:
    return {
        "calls": _bounded(window.calls),
        "rows": _bounded(window.rows),
        "total_exec_time_ms": _number(window.total_exec_time_ms),
        "max_exec_time_ms": _number(window.max_exec_time_ms),
        # As text: a queryid uses all 64 bits, and JSON numbers lose them beyond 53.
        "queryid": str(window.queryid),
        "window_start": window.start,
        "window_end": window.end,
        "window_reason": window.reason,
    }


def _bounded(value: int) -> int:
    if value > MAX_INTEGER:
        return MAX_INTEGER
    return value if value >= -MAX_INTEGER else -MAX_INTEGER


def _number(value: float) -> float:
    # JSON has neither NaN nor infinity, and null makes the backend refuse the whole body.
    return value if math.isfinite(value) else 0.0


def _no_text(record: Record) -> str:
    name = f" queryid {record.window.queryid}" if record.window is not None else ""
    return f"<text unavailable: empty>{name}"


def _unicode(value: object) -> object:
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _name(text: str) -> str:
    return _clean(text)[:MAX_NAME_CHARACTERS]
