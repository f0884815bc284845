"""The arithmetic of pg_stat_statements: what happened between two looks. Pure: no connection, no clock.

It runs over every statement the server counts, slow or not, so rows stay the tuples that the driver gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import orjson

from agent.errors import BookmarkUnreadable

Key = tuple[int, int, int, bool]  # userid, dbid, queryid, toplevel
# The key, then: calls, total ms, max ms since the reset, rows, and when counting began (Unix seconds, None before
# extension 1.11).
Row = tuple[int, int, int, bool, int, float, float, int, float | None]
KEY_LENGTH: Final = 4
_CALLS: Final = 4
_TOTAL: Final = 5
_MAX: Final = 6
_ROWS: Final = 7
_SINCE: Final = 8
_NOTHING: Row = (0, 0, 0, False, 0, 0.0, 0.0, 0, None)

FIRST_LOOK, NEW, NORMAL, RESET = "first_look", "new", "normal", "reset"


@dataclass(frozen=True, slots=True)
class Delta:
    """What one statement did since it was last looked at; `since`: when that was (None: never). Times in ms."""

    row: Row
    reason: str
    since: datetime | None
    calls: int
    total_ms: float
    rows: int

    @property
    def key(self) -> Key:
        """Which statement."""
        return self.row[:KEY_LENGTH]

    @property
    def mean_ms(self) -> float:
        """Milliseconds a call."""
        return self.total_ms / self.calls

    @property
    def max_ms(self) -> float:
        """The longest call since the server's reset, not of the window."""
        return self.row[_MAX]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a look found: the slow statements, and how many had counters that the server forgot in between."""

    slow: list[Delta]
    forgotten: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """The counters as they were at the last look, `taken_at`, with the server's own reset time as text.

    A look is saved in parts. `ahead` holds the rows of the statements that are already sent for the look that began
    at `ahead_at`; for all others `rows` still holds. A finished look has nothing ahead. `merged`: calls by clients and
    calls by functions are one row, as extensions before 1.9 count them.
    """

    rows: Mapping[Key, Row] = field(default_factory=dict)
    taken_at: str | None = None
    stats_reset: str | None = None
    ahead: Mapping[Key, Row] = field(default_factory=dict)
    ahead_at: str | None = None
    ahead_reset: str | None = None
    merged: bool = False

    def encode(self) -> bytes:
        """The bookmark."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return orjson.dumps({"v": 1, **fields, "rows": [*self.rows.values()], "ahead": [*self.ahead.values()]})

    def compare(self, present: Mapping[Key, Row], stats_reset: str | None, min_ms: float) -> Comparison:
        """What the statements did since that were slow in this window: on the average, or slower than ever before."""
        unseen = FIRST_LOOK if self.taken_at is None else NEW
        old, ahead, was_reset = self.rows, self.ahead, self.was_reset(stats_reset)
        slow = []
        forgotten = self._evicted(present, min_ms)
        for key, now in present.items():
            before, reset, at = old.get(key), was_reset, self.taken_at
            if ahead and key in ahead:
                before, reset, at = ahead[key], _is_other(self.ahead_reset, stats_reset), self.ahead_at
            if before is None:
                reason, before = unseen, _NOTHING
            elif now == before and not reset:
                continue
            elif reset or _is_counted_anew(before, now):
                reason, before = RESET, _NOTHING
                forgotten += 1
            else:
                reason = NORMAL
            calls, total_ms = now[_CALLS] - before[_CALLS], now[_TOTAL] - before[_TOTAL]
            is_slow = total_ms >= min_ms * calls or (now[_MAX] >= min_ms and now[_MAX] > before[_MAX])
            if is_slow and calls:
                slow.append(Delta(now, reason, _time(at), calls, total_ms, max(0, now[_ROWS] - before[_ROWS])))
        return Comparison(slow, forgotten)

    def was_reset(self, stats_reset: str | None) -> bool:
        """Whether the server has forgotten all counters since the last look."""
        return _is_other(self.stats_reset, stats_reset)

    def _evicted(self, present: Mapping[Key, Row], min_ms: float) -> int:
        """How many statements that had been slow are not counted any more: what they did last is not known."""
        known = {**self.rows, **self.ahead} if self.ahead else self.rows
        return sum(known[key][_MAX] >= min_ms for key in known.keys() - present.keys())


def by_key(rows: list[Row]) -> dict[Key, Row]:
    """The rows of a look under their keys."""
    return {row[:KEY_LENGTH]: row for row in rows}


def merged(rows: Mapping[Key, Row]) -> dict[Key, Row]:
    """The same counters without the difference between calls by clients and calls by functions."""
    found: dict[Key, Row] = {}
    for (userid, dbid, queryid, _), row in rows.items():
        key = (userid, dbid, queryid, True)
        other = found.get(key, (*key, *_NOTHING[KEY_LENGTH:]))
        sums = (row[_CALLS] + other[_CALLS], row[_TOTAL] + other[_TOTAL], max(row[_MAX], other[_MAX]))
        found[key] = (*key, *sums, row[_ROWS] + other[_ROWS], None)
    return found


def decode(bookmark: bytes) -> Baseline:
    """The baseline of a bookmark. Raises BookmarkUnreadable."""
    try:
        fields = orjson.loads(bookmark)
        if fields.pop("v") != 1:
            raise BookmarkUnreadable("pg_stat_statements")
        for name in ("rows", "ahead"):
            fields[name] = {tuple(row[:KEY_LENGTH]): tuple(row) for row in fields[name]}
        return Baseline(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BookmarkUnreadable("pg_stat_statements") from None


def _is_counted_anew(before: Row, now: Row) -> bool:
    # An older version of the extension does not tell since when it counts; an update of it resets nothing.
    told = now[_SINCE] is not None and before[_SINCE] is not None
    return (told and now[_SINCE] != before[_SINCE]) or now[_CALLS] < before[_CALLS] or now[_TOTAL] < before[_TOTAL]


def _is_other(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and before != now


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
