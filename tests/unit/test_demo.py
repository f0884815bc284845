"""The demonstration's verdict.

What could go wrong: a loss that the line does not show; a double that hides a loss; calls of other people's
statements counted as doubles; an empty run called a success.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from agent.dev.demo import Balance, balance


def record(number: int, queryid: str, calls: int) -> dict[str, Any]:
    return {"id": f"r{number}", "queryid": queryid, "calls": calls}


def test_everything_that_was_counted_has_arrived_once() -> None:
    records = [record(1, "a", 3), record(2, "a", 4), record(3, "b", 1), record(4, "not the shop's", 9)]
    assert balance(records, Counter({"a": 7, "b": 1}), captured=4) == Balance(4, 4, lost=0, duplicated=0)


@pytest.mark.parametrize(
    ("records", "counted", "captured", "expected"),
    [
        pytest.param(
            [record(1, "a", 3)], {"a": 4}, 1, "collected 1, delivered 1, lost 1, duplicated 0", id="a lost call"
        ),
        pytest.param([], {"a": 4}, 1, "collected 1, delivered 0, lost 4, duplicated 0", id="nothing arrived"),
        pytest.param(
            [record(1, "a", 3), record(1, "a", 3)],
            {"a": 3},
            1,
            "collected 1, delivered 1, lost 0, duplicated 3",
            id="a record twice",
        ),
        pytest.param(
            [record(1, "a", 5)], {"a": 3, "b": 2}, 1, "collected 1, delivered 1, lost 2, duplicated 2", id="both"
        ),
        pytest.param([record(1, "x", 5)], {}, 2, "collected 2, delivered 1, lost 0, duplicated 0", id="one is missing"),
        pytest.param([], {}, 0, "collected 0, delivered 0, lost 0, duplicated 0", id="nothing happened at all"),
    ],
)
def test_it_does_not_hold_when_anything_is_missing_or_doubled(
    records: list[dict[str, Any]], counted: dict[str, int], captured: int, expected: str
) -> None:
    found = balance(records, Counter(counted), captured)
    assert (str(found), found.holds) == (expected, False)
