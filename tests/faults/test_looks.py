"""What is said of an outbox after a power cut, on looks made by hand.

What could go wrong: the judge lets something pass, and every other test of power cuts proves nothing.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.looks import TOPICS, Look, Verdict, judge, numbers


def look(*waiting: int, delivered: int = 0, bookmark: int | None = None, installation: str = "i") -> Look:
    captured = len(waiting) + delivered
    books = [captured, delivered, 0, 0, 0, len(waiting), 100 * len(waiting), len(waiting), 0]
    return Look(
        installation=installation,
        envelopes=[["queries", f"key-{number}", 1, [number], f"hash-{number}"] for number in waiting],
        parked=[],
        bookmark=str(captured if bookmark is None else bookmark),
        note=None,
        marks=[],
        gaps=[],
        books={TOPICS[0]: books, TOPICS[1]: [0] * 9},
        is_sound=True,
    )


NEW = replace(look(), bookmark=None)
BEFORE, AFTER = look(1, 2), look(1, 2, 3)


@pytest.mark.parametrize("found", [BEFORE, AFTER])
def test_what_was_there_before_or_is_there_after_the_call_is_fine(found: Look) -> None:
    assert judge(found, BEFORE, AFTER) == "fine"


def test_when_no_call_was_under_way_only_what_was_there_is_fine() -> None:
    assert [judge(found, BEFORE, None) for found in (BEFORE, AFTER)] == ["fine", "invented"]


def test_before_the_outbox_was_made_it_is_new_or_not_there_at_all() -> None:
    assert [judge(found, None, NEW) for found in (NEW, replace(NEW, installation="j"))] == ["fine", "fine"]
    assert judge(look(1), None, NEW) == "invented"
    assert judge(replace(NEW, installation=""), None, NEW) == "torn"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (look(1), "lost"),
        (look(2, 3), "lost"),
        (look(1, 3, delivered=1), "lost"),
        (replace(BEFORE, installation="j"), "lost"),
        (look(1, 2, 3, 4), "invented"),
        (look(1, 1, 2), "invented"),
        (look(1, 2, bookmark=3), "torn"),
        (look(1, 2, 3, bookmark=2), "torn"),
        (replace(BEFORE, is_sound=False), "torn"),
        (replace(BEFORE, note="since 1"), "torn"),
        (replace(BEFORE, marks=["command-1"]), "torn"),
        (replace(BEFORE, gaps=[["watch", "truncated"]]), "torn"),
        (replace(BEFORE, parked=[[1, 1, "refused"]]), "torn"),
        (replace(BEFORE, envelopes=[*BEFORE.envelopes[:1], ["queries", "another", 1, [2], "hash-2"]]), "torn"),
        (replace(BEFORE, envelopes=[*BEFORE.envelopes[:1], ["queries", "key-2", 1, [2], "another"]]), "torn"),
        (replace(BEFORE, envelopes=BEFORE.envelopes[::-1]), "torn"),
    ],
)
def test_everything_else_is_a_fault(found: Look, expected: Verdict) -> None:
    assert judge(found, BEFORE, AFTER) == expected


def test_what_was_delivered_does_not_come_back() -> None:
    assert judge(look(1, 2), look(2, delivered=1), look(delivered=2)) == "invented"


def test_only_what_names_records_has_any() -> None:
    assert [numbers(each) for each in (b"1 2\nx", b"", b"\xb2\n", b"nonsense\n")] == [[1, 2], [], [], []]
