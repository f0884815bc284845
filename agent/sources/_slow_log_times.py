"""When a statement ran. Pure: no clock, no connection.

The table has the time in the zone of the client that ran the statement, and does not say which zone that was. But a row
is written when its statement ends, and between which moments of the server's clock it was written is known. All zones
in use lie a multiple of 15 minutes from UTC, so a shorter window lets at most one of them be true.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

EXACT = "exact"  # read in the server's own zone, the end lies in a window shorter than 15 minutes
INFERRED = "inferred"  # so it does in another zone, the only one for which it does
BOUNDED = "bounded"  # no zone fits (the client had set its time), or the window is too long to tell: the likeliest

ZONE_STEP_S = 900.0
FARTHEST_ZONE_S = 14 * 3_600.0
SLACK_S = 15.0  # a row is written a little after its statement ended, or later when somebody holds the table


@dataclass(frozen=True, slots=True)
class Window:
    """Between which moments rows were written: Unix seconds by the server's clock. `since` None: nobody knows."""

    since: float | None
    until: float

    @property
    def low(self) -> float:
        """No end lies before it. A clock that was set back in between says nothing about that."""
        return -math.inf if self.since is None or self.since > self.until + SLACK_S else self.since - SLACK_S

    @property
    def high(self) -> float:
        """No end lies behind it."""
        return self.until + SLACK_S


@dataclass(frozen=True, slots=True)
class Zone:
    """How the server stamps: `utc_offset_s` is its own zone now; `stamps_start`: MariaDB, the start; MySQL, the end."""

    utc_offset_s: int
    stamps_start: bool


def starts(stamps: Sequence[tuple[bytes | None, float]], window: Window, zone: Zone) -> list[tuple[datetime, str]]:
    """Start (aware UTC) and confidence of each row, in the order of the table; (start_time, query_time in seconds)."""
    read = [_read(stamp, query_time_s if zone.stamps_start else 0.0) for stamp, query_time_s in stamps]
    if window.high - window.low < ZONE_STEP_S:
        ends = [_judged(end, window, zone.utc_offset_s) for end in read]
    else:
        ends = [(end, BOUNDED) for end in _in_order(read, window, zone.utc_offset_s)]
    return [
        (datetime.fromtimestamp(end - query_time_s, UTC), confidence)
        for (end, confidence), (_, query_time_s) in zip(ends, stamps, strict=True)
    ]


def _read(stamp: bytes | None, behind_s: float) -> float:
    """The end as if the client had lived in UTC; NaN, which fits nowhere, for '0000-00-00 ...' of an altered table."""
    try:
        return datetime.fromisoformat((stamp or b"").decode("ascii")).replace(tzinfo=UTC).timestamp() + behind_s
    except ValueError:
        return math.nan


def _judged(read: float, window: Window, utc_offset_s: int) -> tuple[float, str]:
    own = read - utc_offset_s
    if window.low <= own <= window.high:
        return own, EXACT
    other = _in_another_zone(read, window.low, window.high)
    return (window.until, BOUNDED) if other is None else (other, INFERRED)


def _in_another_zone(read: float, low: float, high: float) -> float | None:
    """The last end not behind `high` that some zone gives, unless it lies before `low`."""
    if math.isnan(read):
        return None
    offset_s = math.ceil((read - high) / ZONE_STEP_S) * ZONE_STEP_S
    return read - offset_s if read - offset_s >= low and abs(offset_s) <= FARTHEST_ZONE_S else None


def _in_order(read: list[float], window: Window, utc_offset_s: int) -> list[float]:
    """The likeliest ends where no window tells: ends do not decrease, and most clients live in the server's zone.

    The longest run of rows that are in order when read so is believed; the others stand between their neighbours.
    """
    own = [end - utc_offset_s for end in read]
    believed = _longest_in_order([number for number, end in enumerate(own) if window.low <= end <= window.high], own)
    ends = list(own)
    for before, after in pairwise([-1, *believed, len(own)]):
        low = own[before] if before >= 0 else window.low
        high = own[after] if after < len(own) else window.until
        for number in range(before + 1, after):
            ends[number] = _between(read[number], low, high, utc_offset_s)
    return ends


def _between(read: float, low: float, high: float, utc_offset_s: int) -> float:
    low, latest = low - SLACK_S, high + SLACK_S
    own = read - utc_offset_s
    if low <= own <= latest:
        return own
    other = _in_another_zone(read, low, latest) if latest - low < ZONE_STEP_S else None
    return high if other is None else other


def _longest_in_order(numbers: list[int], values: list[float]) -> list[int]:
    """The longest part of `numbers`, in their order, whose values do not decrease."""
    tails: list[float] = []  # the lowest last value of a run of each length
    lasts: list[int] = []
    before: dict[int, int | None] = {}
    for number in numbers:
        length = bisect_right(tails, values[number])
        before[number] = lasts[length - 1] if length else None
        tails[length : length + 1] = [values[number]]
        lasts[length : length + 1] = [number]
    run: list[int] = []
    last = lasts[-1] if lasts else None
    while last is not None:
        run.append(last)
        last = before[last]
    return run[::-1]
