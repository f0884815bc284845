"""The arithmetic of pg_stat_statements: what happened between two looks. Pure: no connection, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from agent.errors import BookmarkUnreadable

Key = tuple[int, int, int, bool]  # userid, dbid, queryid, toplevel
# Calls, total ms, max ms since the reset, rows, and when counting began (Unix seconds, None before extension 1.11).
Counts = tuple[int, float, float, int, float | None]
_NOTHING: Counts = (0, 0.0, 0.0, 0, None)

FIRST_LOOK, NEW, NORMAL, RESET = "first_look", "new", "normal", "reset"


@dataclass(frozen=True, slots=True)
class Delta:
    """What one statement did since it was last looked at; `since`: when that was (None: never)."""

    key: Key
    reason: str
    since: datetime | None
    calls: int
    total_ms: float
    max_ms: float
    max_rose: bool
    rows: int

    @property
    def mean_ms(self) -> float:
        """Milliseconds a call."""
        return self.total_ms / self.calls

    def is_slow(self, min_ms: float) -> bool:
        """Slow on the average of its window, or slower than ever before in it."""
        return self.mean_ms >= min_ms or (self.max_rose and self.max_ms >= min_ms)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The counters as they were at the last look, `taken_at`, with the server's own reset time as text.

    A look is saved in parts. `ahead` holds the counters of the statements that are already sent for the look that
    began at `ahead_at`; for all others `counts` still holds. A finished look has nothing ahead.
    """

    counts: Mapping[str, Counts] = field(default_factory=dict)
    taken_at: str | None = None
    stats_reset: str | None = None
    ahead: Mapping[str, Counts] = field(default_factory=dict)
    ahead_at: str | None = None
    ahead_reset: str | None = None

    def encode(self) -> bytes:
        """The bookmark."""
        return orjson.dumps({"v": 1, **{name: getattr(self, name) for name in self.__slots__}})

    def deltas(self, rows: Iterable[tuple[Key, Counts]], stats_reset: str | None) -> Iterable[Delta]:
        """What each statement did since; statements that did nothing are left out."""
        counts, ahead = self.counts, self.ahead
        was_reset = self.was_reset(stats_reset)
        ahead_was_reset = self.ahead_reset != stats_reset
        unseen = FIRST_LOOK if self.taken_at is None else NEW
        for key, now in rows:
            name = key_text(key)
            if name in ahead:
                before, at, reset = ahead[name], self.ahead_at, ahead_was_reset
            elif name in counts:
                before, at, reset = counts[name], self.taken_at, was_reset
            else:
                before, at, reset = _NOTHING, self.taken_at, False
                if now[0] > 0:
                    yield _delta(key, unseen, _time(at), _NOTHING, now)
                continue
            if reset or now[4] != before[4] or now[0] < before[0] or now[1] < before[1]:
                if now[0] > 0:
                    yield _delta(key, RESET, _time(at), _NOTHING, now)
            elif now[0] > before[0]:
                yield _delta(key, NORMAL, _time(at), before, now)

    def was_reset(self, stats_reset: str | None) -> bool:
        """Whether the server has forgotten all counters since the last look."""
        return self.taken_at is not None and self.stats_reset != stats_reset

    def evicted(self, present: Mapping[str, Counts], min_ms: float) -> int:
        """How many statements that had been slow are not counted any more: what they did last is not known."""
        return sum(was[2] >= min_ms for name, was in {**self.counts, **self.ahead}.items() if name not in present)


def decode(bookmark: bytes) -> Baseline:
    """The baseline of a bookmark. Raises BookmarkUnreadable."""
    try:
        fields = orjson.loads(bookmark)
        if fields.pop("v") != 1:
            raise BookmarkUnreadable("pg_stat_statements")
        return Baseline(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BookmarkUnreadable("pg_stat_statements") from None


def key_text(key: Key) -> str:
    """The key as it stands in a baseline."""
    return f"{key[0]} {key[1]} {key[2]} {key[3]:d}"


def _delta(key: Key, reason: str, since: datetime | None, before: Counts, now: Counts) -> Delta:
    return Delta(
        key=key,
        reason=reason,
        since=since,
        calls=now[0] - before[0],
        total_ms=max(0.0, now[1] - before[1]),
        max_ms=now[2],
        max_rose=now[2] > before[2],
        rows=max(0, now[3] - before[3]),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
