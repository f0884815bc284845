"""How known losses are told.

What could go wrong: a heartbeat grows with what was lost; sums leave out what is not told one by one; a text of any
length travels each time; a number that nobody knows is told as none.
"""

from __future__ import annotations

import json

from agent.body import dumps
from agent.losses import KINDS_TOLD, OTHERS, as_stats, told
from storage.envelope import Gap, Losses, LossSum
from storage.gaps import NEWEST


def test_nothing_lost_is_told_as_that() -> None:
    assert as_stats(Losses()) == {"gaps_estimate": 0, "gaps_uncounted": 0, "gaps_by_reason": [], "gaps_newest": []}


def test_the_most_frequent_are_told_one_by_one_and_the_others_as_one() -> None:
    sums = [LossSum(f"w{number}", "rotated", number, 10 * number, 1) for number in range(1, 31)]
    shown = told(sums)
    assert [each.source for each in shown] == [*(f"w{number}" for number in range(30, 21, -1)), OTHERS]
    assert shown[-1] == LossSum(OTHERS, OTHERS, sum(range(1, 22)), 10 * sum(range(1, 22)), 21)
    assert (sum(each.times for each in shown), len(shown)) == (sum(range(1, 31)), KINDS_TOLD)
    assert len(told(sums[:KINDS_TOLD])) == KINDS_TOLD
    assert OTHERS not in {each.source for each in told(sums[:KINDS_TOLD])}


def test_a_heartbeat_stays_small_whatever_was_lost() -> None:
    long = "x" * 1_000_000
    newest = tuple(Gap(long, long, long, long, 2**62, long, 2**62, at=1_700_000_000.0) for _ in range(NEWEST))
    sums = tuple(LossSum(f"{number}{long}", long, 2**40, 2**40, 2**40) for number in range(1_000))
    stats = as_stats(Losses(newest, sums))
    assert len(dumps(stats)) < 8_192
    assert stats["gaps_estimate"] == 1_000 * 2**40
    assert json.loads(dumps(stats))["gaps_newest"][0]["recorded_at"] == "2023-11-14T22:13:20+00:00"
