"""How known losses are told: bounded, whatever was lost how often. Pure: the numbers come from the outbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from storage.envelope import Gap, Losses, LossSum

KINDS_TOLD = 10
NAME_CHARS, DETAIL_CHARS = 100, 300
_OF_A_GAP = ("source", "reason", "since", "until", "estimate", "detail", "times")
_OF_A_SUM = ("source", "reason", "times", "estimate", "uncounted")
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


def from_stats(stats: Mapping[str, Any]) -> Losses:
    """The losses as `as_stats` told them."""
    newest = [{name: each[name] for name in _OF_A_GAP} for each in stats["gaps_newest"]]
    sums = [[each[name] for name in _OF_A_SUM] for each in stats["gaps_by_reason"]]
    return Losses(tuple(Gap(**each) for each in newest), tuple(LossSum(*each) for each in sums))


def lines(losses: Losses, shown: int) -> Iterator[str]:
    """What a person reads: the sums by source and reason, and the last `shown` ones."""
    yield f"gaps: {sum(each.times for each in losses.sums):,}"
    for each in losses.sums:
        yield f"  {each.source}: {each.reason}, {_often(each.times)}, {_number(each)}"
    if losses.newest:
        yield f"the last {len(losses.newest[:shown])} of them:"
    yield from (f"  {_sentence(gap)}" for gap in losses.newest[:shown])


def _often(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _number(each: LossSum) -> str:
    unknown = f"an unknown number {_often(each.unknown)}" if each.unknown else ""
    known = f"about {each.estimate:,}" if each.unknown < each.times else ""
    return " and ".join(filter(None, (known, unknown)))


def _sentence(gap: Gap) -> str:
    count = "an unknown number" if gap.estimate is None else f"about {gap.estimate:,}"
    between = f", {gap.since or 'ever'} to {gap.until or 'now'}" if gap.since or gap.until else ""
    often = f", {_often(gap.times)}" if gap.times > 1 else ""
    return f"{gap.source}: {count} ({gap.reason}: {gap.detail}){between}{often}"


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
