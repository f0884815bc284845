"""Which records of a bulk body the backend takes, and what makes it fail. Pure: no clock, no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.dev.store import Json

ERRORS_SHOWN = 10
_QUERY_SHOWN = 100
_INTEGER_LIMIT = 2**31
_USER_HOST_LIMIT = 255


class CommitFailedError(Exception):
    """PostgreSQL would refuse one of the records, and with it the whole body. Says which and why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`accepted`: records as sent. `skipped`: the others. `errors`: the first ten, {query, error}."""

    accepted: list[Json]
    skipped: int
    errors: list[Json]

    def answer(self) -> Json:
        """The body of the 200."""
        count = len(self.accepted)
        return {"status": "success", "count": count, "skipped": self.skipped, "errors": self.errors}


def judge(queries: Sequence[Json]) -> Verdict:
    """Read every record as the backend does.

    Without a text it is skipped silently; with a number that float() or int() refuse it is skipped and told.
    Raises CommitFailedError when a record that was read could not be stored: then nothing of the body is.
    """
    accepted: list[Json] = []
    errors: list[Json] = []
    for place, record in enumerate(queries):
        if not record.get("sql_text"):
            continue
        try:
            whole = _read(record)
        except (TypeError, ValueError, OverflowError) as complaint:
            errors.append({"query": str(record["sql_text"])[:_QUERY_SHOWN], "error": str(complaint)})
            continue
        reason = _refusal(record, whole)
        if reason is not None:
            raise CommitFailedError(f"queries[{place}]: {reason}")
        accepted.append(record)
    return Verdict(accepted, len(queries) - len(accepted), errors[:ERRORS_SHOWN])


def _read(record: Json) -> tuple[int, int]:
    for name in ("sql_text", "db", "user_host"):
        if not isinstance(record.get(name, ""), str | None):
            raise TypeError(f"{name} is no text")
    for name in ("query_time", "lock_time"):
        float(record.get(name, 0))
    return int(record.get("rows_sent", 0)), int(record.get("rows_examined", 0))


def _refusal(record: Json, whole: tuple[int, int]) -> str | None:
    if any("\0" in (record.get(name) or "") for name in ("sql_text", "db", "user_host")):
        return "a text contains NUL"
    if not all(-_INTEGER_LIMIT <= number < _INTEGER_LIMIT for number in whole):
        return "integer out of range"
    if len(record.get("user_host") or "") > _USER_HOST_LIMIT:
        return f"user_host is longer than {_USER_HOST_LIMIT}"
    return None


def start_time(value: Any, now: datetime) -> datetime:
    """When the statement began; `now` when the value cannot be parsed, as the backend does."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return now
