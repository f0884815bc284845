"""The arithmetic of pg_stat_statements: what happened between two looks. Pure: no connection, no clock.

It runs over every statement the server counts, slow or not, so rows stay the tuples that the driver gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agent.sources._statement_servers import EVICTED_REENTERED, NEW, NORMAL, PARTIAL_RESET, RESET, Sight

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
class Forgotten:
    """What the server forgot of single statements between two looks.

    `statements`: how many have no counters any more or such as begin anew, `slow`: how many of them had ever been slow.
    `evictions`: how often the server made room meanwhile; None: the extension does not tell.
    """

    statements: int = 0
    slow: int = 0
    evictions: int | None = None

    def __bool__(self) -> bool:
        return bool(self.statements or self.evictions)

    @property
    def reason(self) -> str:
        """Of a statement that is counted anew: what the extension can tell of it."""
        if self.evictions is None:
            return RESET
        return EVICTED_REENTERED if self.evictions else PARTIAL_RESET


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a look found: the slow statements, what the server forgot, and how much of the window that leaves."""

    slow: list[Delta]
    forgotten: Forgotten
    coverage: float | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """The counters of one counting of a server as they were at the last look, `taken_at`, and what it said of itself.

    A look is saved in parts. `ahead` holds the rows of the statements that are already sent for the look that began
    at `ahead_at`; for all others `rows` still holds. A finished look has nothing ahead. `unseen`: the reason of
    statements that are in neither. `merged`: calls by clients and calls by functions are one row, as extensions before
    1.9 count them.
    """

    rows: Mapping[Key, Row] = field(default_factory=dict)
    taken_at: str | None = None
    sight: Sight = Sight()  # noqa: RUF009 - it is frozen
    unseen: str = NEW
    ahead: Mapping[Key, Row] = field(default_factory=dict)
    ahead_at: str | None = None
    merged: bool = False

    def compare(self, present: Mapping[Key, Row], now: Sight, min_ms: float) -> Comparison:
        """What the statements did since that were slow in this window: on the average, or slower than ever before."""
        old, ahead, evictions = self.rows, self.ahead, self._evictions(now)
        counted_anew = Forgotten(evictions=evictions).reason
        slow, lost = [], self._gone(present)
        for key, row in present.items():
            before, at = old.get(key), self.taken_at
            if ahead and key in ahead:
                before, at = ahead[key], self.ahead_at
            if before is None:
                reason, before = self.unseen, _NOTHING
            elif row == before:
                continue
            elif _is_counted_anew(before, row):
                lost.append(before)
                reason, before = counted_anew, _NOTHING
            else:
                reason = NORMAL
            calls, total_ms = row[_CALLS] - before[_CALLS], row[_TOTAL] - before[_TOTAL]
            # The maximum can fall: the extension can reset it alone.
            is_slow = total_ms >= min_ms * calls or (row[_MAX] >= min_ms and row[_MAX] != before[_MAX])
            if is_slow and calls:
                slow.append(Delta(row, reason, _time(at), calls, total_ms, max(0, row[_ROWS] - before[_ROWS])))
        forgotten = Forgotten(len(lost), sum(row[_MAX] >= min_ms for row in lost), evictions)
        return Comparison(slow, forgotten, self._coverage(present, now, forgotten))

    def _coverage(self, present: Mapping[Key, Row], now: Sight, forgotten: Forgotten) -> float | None:
        """The part, 0 to 1, of what the server counted since the last look that its counters still show.

        1 when nothing was forgotten. Else how long the clients' statements took that they show, over how long sessions
        were busy: that part at least, because sessions are busy with more than what is counted. None: not known.
        """
        if forgotten.evictions is None or self.unseen not in {NEW, RESET}:
            return None
        if self.unseen == NEW and not forgotten:
            return 1.0
        if now.active_ms is None or self.sight.active_ms is None or now.run_at != self.sight.run_at:
            return None  # a run that ended may have taken along how busy it was
        busy_ms = now.active_ms - self.sight.active_ms
        return round(min(1.0, self._shown_ms(present) / busy_ms), 4) if busy_ms > 0 else None

    def _shown_ms(self, present: Mapping[Key, Row]) -> float:
        total_ms = 0.0
        for key, row in present.items():
            if key[-1]:  # what a function calls is part of what the client's statement took
                before = self.ahead.get(key) or self.rows.get(key) or _NOTHING
                since = _NOTHING if _is_counted_anew(before, row) else before
                total_ms += row[_TOTAL] - since[_TOTAL]
        return total_ms

    def _evictions(self, now: Sight) -> int | None:
        if now.dealloc is None or self.sight.dealloc is None:
            return None
        return max(0, now.dealloc - self.sight.dealloc)

    def _gone(self, present: Mapping[Key, Row]) -> list[Row]:
        """The statements that are not counted any more: what they did last is not known."""
        known = {**self.rows, **self.ahead} if self.ahead else self.rows
        return [known[key] for key in known.keys() - present.keys()]


def by_key(rows: list[Row]) -> dict[Key, Row]:
    """The rows of a look under their keys."""
    return {row[:KEY_LENGTH]: row for row in rows}


def without_levels(rows: Mapping[Key, Row]) -> dict[Key, Row]:
    """The same counters without the difference between calls by clients and calls by functions."""
    found: dict[Key, Row] = {}
    for (userid, dbid, queryid, _), row in rows.items():
        key = (userid, dbid, queryid, True)
        other = found.get(key, (*key, *_NOTHING[KEY_LENGTH:]))
        sums = (row[_CALLS] + other[_CALLS], row[_TOTAL] + other[_TOTAL], max(row[_MAX], other[_MAX]))
        found[key] = (*key, *sums, row[_ROWS] + other[_ROWS], None)
    return found


def _is_counted_anew(before: Row, now: Row) -> bool:
    if now[_SINCE] is not None and before[_SINCE] is not None:
        return now[_SINCE] != before[_SINCE]
    # An older version of the extension does not tell since when it counts; an update of it resets nothing. What it
    # counts never falls, except that a newer one can reset the maximum alone.
    fell = now[_CALLS] < before[_CALLS] or now[_TOTAL] < before[_TOTAL] or now[_ROWS] < before[_ROWS]
    return fell or (now[_SINCE] is None and now[_MAX] < before[_MAX])


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
