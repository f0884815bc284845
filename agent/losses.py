"""How known losses are told: bounded, whatever was lost how often. Pure: the numbers come from the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate

from storage.envelope import Gap, Losses, LossSum

KINDS_TOLD = 10
NAME_CHARS, DETAIL_CHARS = 100, 300
OTHERS = "others"  # in place of source and reason of those that are not told one by one


def as_stats(losses: Losses) -> dict[str, object]:
    """What a heartbeat tells beside the number of gaps: 8 KB at most."""
    return {
        "gaps_estimate": sum(each.estimate for each in losses.sums),
        "gaps_uncounted": sum(each.unknown for each in losses.sums),
        "gaps_by_reason": [_sum(each) for each in told(losses.sums)],
        "gaps_newest": [as_json(gap) for gap in losses.newest],
    }


def told(sums: Sequence[LossSum]) -> tuple[LossSum, ...]:
    """At most KINDS_TOLD: the most frequent ones, and all others as one."""
    ranked = sorted(sums, key=lambda each: each.times, reverse=True)
    if len(ranked) <= KINDS_TOLD:
        return tuple(ranked)
    *_, others = accumulate(ranked[KINDS_TOLD - 1 :], _with)
    return (*ranked[: KINDS_TOLD - 1], others)


def as_json(gap: Gap) -> dict[str, object]:
    """One gap; texts are cut, and `recorded_at` is ISO text."""
    return {
        "source": gap.source[:NAME_CHARS],
        "reason": gap.reason[:NAME_CHARS],
        "since": gap.since and gap.since[:NAME_CHARS],
        "until": gap.until and gap.until[:NAME_CHARS],
        "estimate": gap.estimate,
        "times": gap.times,
        "detail": gap.detail[:DETAIL_CHARS],
        "recorded_at": None if gap.at is None else datetime.fromtimestamp(gap.at, UTC).isoformat(timespec="seconds"),
    }


def _with(one: LossSum, other: LossSum) -> LossSum:
    numbers = (one.times + other.times, one.estimate + other.estimate, one.unknown + other.unknown)
    return LossSum(OTHERS, OTHERS, *numbers)


def _sum(each: LossSum) -> dict[str, object]:
    return {
        "source": each.source[:NAME_CHARS],
        "reason": each.reason[:NAME_CHARS],
        "times": each.times,
        "estimate": each.estimate,
        "uncounted": each.unknown,
    }
