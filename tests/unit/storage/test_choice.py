"""Which envelopes are meant.

What could go wrong: a border belongs to neither side or to both; an envelope is cut; a limit takes nothing because the
first envelope is larger; a time without a zone is taken for local time; since behind until passes for "nothing there".
"""

from __future__ import annotations

import pytest

from storage.choice import NEWEST, OLDEST, Choice, Moment, chosen, moment
from storage.errors import ChoiceUnclear
from storage.reader import Head

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


def head(seq: int, records: int = 10, topic: str = "queries") -> Head:
    return Head(seq, topic, seq, f"k{seq}", records, 100, NOON + seq, 0, None)


HEADS = [head(seq) for seq in range(1, 6)]


def seqs(choice: Choice) -> list[int]:
    return [each.seq for each in chosen(HEADS, choice)]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, [1, 2, 3, 4, 5]),
        ("2", None, [2, 3, 4, 5]),
        (None, "4", [1, 2, 3, 4]),
        ("2", "4", [2, 3, 4]),
        ("3", "3", [3]),
        ("9", None, []),
        ("2026-01-01T12:00:02", None, [2, 3, 4, 5]),
        ("2026-01-01T12:00:02Z", "2026-01-01T13:00:03+01:00", [2, 3]),
        ("2026-01-01", "2025-12-31T23:59:59-12:59", [1, 2, 3, 4, 5]),
        ("2", "2026-01-01T12:00:03", [2, 3]),
    ],
)
def test_both_borders_belong_to_what_is_meant(since: str | None, until: str | None, expected: list[int]) -> None:
    choice = Choice(since=moment(since) if since else None, until=moment(until) if until else None)
    assert seqs(choice) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [1]), (10, [1]), (19, [1]), (20, [1, 2]), (35, [1, 2, 3]), (99, [1, 2, 3, 4, 5])]
)
def test_a_limit_takes_whole_envelopes_and_never_nothing(limit: int, expected: list[int]) -> None:
    assert seqs(Choice(limit=limit)) == expected


@pytest.mark.parametrize(("order", "expected"), [(OLDEST, [1, 2]), (NEWEST, [5, 4])])
def test_the_order_decides_what_a_limit_takes(order: str, expected: list[int]) -> None:
    assert seqs(Choice(limit=20, order=order)) == expected  # type: ignore[arg-type]


def test_a_topic_alone() -> None:
    both = [head(1, 1, "command_result"), head(2)]
    assert [each.seq for each in chosen(both, Choice(topic="queries"))] == [2]


@pytest.mark.parametrize("text", ["yesterday", "", "-3", "1.5", "2026-13-01"])
def test_what_is_neither_a_number_nor_a_time_is_refused(text: str) -> None:
    with pytest.raises(ChoiceUnclear, match="neither"):
        moment(text)


@pytest.mark.parametrize(("since", "until"), [("4", "2"), ("2026-01-02", "2026-01-01")])
def test_since_behind_until_is_refused(since: str, until: str) -> None:
    with pytest.raises(ChoiceUnclear, match="behind"):
        Choice(since=moment(since), until=moment(until))


def test_numbers_and_times_cannot_be_compared_and_are_both_kept() -> None:
    assert Choice(since=Moment(seq=9), until=Moment(at=1.0)).limit is None
