"""The arithmetic between two looks at statement counters.

What could go wrong: a reset is subtracted from; a statement that did nothing is sent; slowness is judged by the wrong
window; a look that was saved in part is counted twice or forgotten.
"""

from dataclasses import replace

import pytest

from agent.errors import BookmarkUnreadable
from agent.sources._statement_counters import Baseline, Delta, Key, Row, by_key, decode, merged

Counts = tuple[int, float, float, int, float | None]

KEY: Key = (10, 5, -77, True)
AT, LATER = "2026-01-01T00:00:00+00:00", "2026-01-01T00:05:00+00:00"
BEFORE: Counts = (4, 400.0, 150.0, 8, 1.0)


def row(counts: Counts) -> Row:
    return (*KEY, *counts)


BASE = Baseline(rows={KEY: row(BEFORE)}, taken_at=AT, stats_reset="r1")


def one(base: Baseline, now: Counts, reset: str | None = "r1", min_ms: float = 0.0) -> Delta | None:
    found = base.compare(by_key([row(now)]), reset, min_ms).slow
    return found[0] if found else None


def facts(delta: Delta | None) -> tuple[str, int, float, int] | None:
    return (delta.reason, delta.calls, delta.total_ms, delta.rows) if delta else None


@pytest.mark.parametrize(
    ("base", "now", "reset", "expected"),
    [
        (Baseline(), (4, 400.0, 150.0, 8, 1.0), "r1", ("first_look", 4, 400.0, 8)),
        (replace(BASE, rows={}), (4, 400.0, 150.0, 8, 1.0), "r1", ("new", 4, 400.0, 8)),
        (BASE, (7, 900.0, 150.0, 9, 1.0), "r1", ("normal", 3, 500.0, 1)),
        (BASE, BEFORE, "r1", None),
        (BASE, (7, 900.0, 150.0, 9, 1.0), "r2", ("reset", 7, 900.0, 9)),
        (BASE, (7, 900.0, 150.0, 9, 2.0), "r1", ("reset", 7, 900.0, 9)),
        (BASE, (2, 900.0, 150.0, 9, 1.0), "r1", ("reset", 2, 900.0, 9)),
        (BASE, (7, 100.0, 150.0, 9, 1.0), "r1", ("reset", 7, 100.0, 9)),
    ],
    ids=["first", "new", "more", "nothing", "all reset", "counted anew", "fewer calls", "less time"],
)
def test_what_happened_since(
    base: Baseline, now: Counts, reset: str, expected: tuple[str, int, float, int] | None
) -> None:
    assert facts(one(base, now, reset)) == expected


def test_a_part_that_was_sent_ahead_is_taken_from_there() -> None:
    base = replace(BASE, ahead={KEY: row((6, 800.0, 150.0, 9, 1.0))}, ahead_at=LATER, ahead_reset="r1")
    delta = one(base, (7, 900.0, 150.0, 9, 1.0))
    assert (facts(delta), str(delta.since.isoformat()) if delta and delta.since else "") == (
        ("normal", 1, 100.0, 0),
        LATER,
    )
    assert facts(one(base, (6, 800.0, 150.0, 9, 1.0))) is None
    assert facts(one(base, (7, 900.0, 150.0, 9, 1.0), "r2")) == ("reset", 7, 900.0, 9)


@pytest.mark.parametrize(
    ("now", "is_slow"),
    [
        pytest.param((5, 900.0, 150.0, 9, 1.0), True, id="mean"),
        pytest.param((14, 410.0, 150.0, 9, 1.0), False, id="quick"),
        pytest.param((14, 900.0, 501.0, 9, 1.0), True, id="new maximum"),
        pytest.param((14, 900.0, 499.0, 9, 1.0), False, id="new maximum that is none"),
    ],
)
def test_slow_is_the_mean_of_the_window_or_a_new_maximum(now: Counts, is_slow: bool) -> None:
    assert (one(BASE, now, min_ms=500) is not None) == is_slow


def test_an_old_maximum_does_not_make_a_window_slow() -> None:
    base = replace(BASE, rows={KEY: row((4, 4_000.0, 900.0, 8, 1.0))})
    assert one(base, (14, 4_100.0, 900.0, 9, 1.0), min_ms=500) is None
    assert one(base, (14, 4_100.0, 901.0, 9, 1.0), min_ms=500) is not None


def test_statements_that_had_been_slow_and_are_gone_are_forgotten() -> None:
    here = by_key([row(BEFORE)])
    found = [BASE.compare({}, "r1", 150), BASE.compare({}, "r1", 151), BASE.compare(here, "r1", 0)]
    assert [comparison.forgotten for comparison in found] == [1, 0, 0]


def test_a_statement_that_is_counted_anew_was_forgotten() -> None:
    assert BASE.compare(by_key([row((7, 900.0, 150.0, 9, 2.0))]), "r1", 0).forgotten == 1


def test_a_first_look_knows_of_no_reset() -> None:
    assert (Baseline().was_reset("r1"), BASE.was_reset("r1"), BASE.was_reset("r2")) == (False, False, True)


def test_a_bookmark_comes_back_with_the_same_meaning() -> None:
    again = decode(BASE.encode())
    assert facts(one(again, (7, 900.0, 150.0, 9, 1.0))) == ("normal", 3, 500.0, 1)
    assert (again.taken_at, again.stats_reset) == (AT, "r1")


@pytest.mark.parametrize("nonsense", [b"", b"null", b"{}", b'{"v":2}', b'{"v":1,"foreign":1}'])
def test_nonsense_is_no_bookmark(nonsense: bytes) -> None:
    with pytest.raises(BookmarkUnreadable):
        decode(nonsense)


def test_merged_counters_are_the_sums_of_both_levels() -> None:
    nested: Row = (*KEY[:3], False, 2, 50.0, 200.0, 1, 3.0)
    assert merged(by_key([row(BEFORE), nested])) == {KEY: (*KEY, 6, 450.0, 200.0, 9, None)}
    assert merged({}) == {}
