"""The arithmetic between two looks at statement counters.

What could go wrong: a reset is subtracted from; a statement that did nothing is sent; slowness is judged by the wrong
window; a look that was saved in part is counted twice or forgotten; a loss is called by a name that the extension
cannot vouch for; more of a window is said to be known than is.
"""

from dataclasses import replace

import pytest

from agent.sources._statement_counters import Baseline, Delta, Forgotten, Key, Row, by_key, without_levels
from agent.sources._statement_servers import FIRST_LOOK, Sight

Counts = tuple[int, float, float, int, float | None]

KEY: Key = (10, 5, -77, True)
AT, LATER = "2026-01-01T00:00:00+00:00", "2026-01-01T00:05:00+00:00"
BEFORE: Counts = (4, 400.0, 150.0, 8, 1.0)
SIGHT = Sight(at=100.0, run_at=50.0, reset="51.0", dealloc=3)
CROWDED = replace(SIGHT, dealloc=5)
OLD = replace(SIGHT, reset=None, dealloc=None)


def row(counts: Counts) -> Row:
    return (*KEY, *counts)


BASE = Baseline(rows={KEY: row(BEFORE)}, taken_at=AT, sight=SIGHT)


def one(base: Baseline, now: Counts, sight: Sight = SIGHT, min_ms: float = 0.0) -> Delta | None:
    found = base.compare(by_key([row(now)]), sight, min_ms).slow
    return found[0] if found else None


def facts(delta: Delta | None) -> tuple[str, int, float, int] | None:
    return (delta.reason, delta.calls, delta.total_ms, delta.rows) if delta else None


@pytest.mark.parametrize(
    ("base", "now", "sight", "expected"),
    [
        (Baseline(unseen=FIRST_LOOK), (4, 400.0, 150.0, 8, 1.0), SIGHT, ("first_look", 4, 400.0, 8)),
        (replace(BASE, rows={}), (4, 400.0, 150.0, 8, 1.0), SIGHT, ("new", 4, 400.0, 8)),
        (BASE, (7, 900.0, 150.0, 9, 1.0), SIGHT, ("normal", 3, 500.0, 1)),
        (BASE, BEFORE, SIGHT, None),
        (BASE, (7, 900.0, 150.0, 9, 2.0), SIGHT, ("partial_reset", 7, 900.0, 9)),
        (BASE, (4, 400.0, 150.0, 8, 2.0), SIGHT, ("partial_reset", 4, 400.0, 8)),
        (BASE, (7, 900.0, 150.0, 9, 2.0), CROWDED, ("evicted_reentered", 7, 900.0, 9)),
        (BASE, (7, 900.0, 150.0, 9, 2.0), OLD, ("reset", 7, 900.0, 9)),
    ],
    ids=["first", "new", "more", "nothing", "anew", "anew alike", "anew, evictions", "anew, not told"],
)
def test_what_happened_since(
    base: Baseline, now: Counts, sight: Sight, expected: tuple[str, int, float, int] | None
) -> None:
    assert facts(one(base, now, sight)) == expected


@pytest.mark.parametrize(
    "now",
    [(2, 900.0, 150.0, 9, None), (7, 100.0, 150.0, 9, None), (7, 900.0, 149.0, 9, None), (7, 900.0, 150.0, 7, None)],
    ids=["fewer calls", "less time", "smaller maximum", "fewer rows"],
)
def test_without_the_time_of_the_count_what_fell_was_counted_anew(now: Counts) -> None:
    base = replace(BASE, rows={KEY: row((*BEFORE[:4], None))})
    assert facts(one(base, now)) == ("partial_reset", now[0], now[1], now[3])


def test_the_maximum_alone_can_be_reset_and_nothing_else_is_by_that() -> None:
    assert facts(one(BASE, (7, 900.0, 149.0, 9, 1.0))) == ("normal", 3, 500.0, 1)
    updated = replace(BASE, rows={KEY: row((*BEFORE[:4], None))})
    assert facts(one(updated, (7, 900.0, 149.0, 9, 1.0))) == ("normal", 3, 500.0, 1)


def test_a_part_that_was_sent_ahead_is_taken_from_there() -> None:
    base = replace(BASE, ahead={KEY: row((6, 800.0, 150.0, 9, 1.0))}, ahead_at=LATER)
    delta = one(base, (7, 900.0, 150.0, 9, 1.0))
    assert (facts(delta), str(delta.since.isoformat()) if delta and delta.since else "") == (
        ("normal", 1, 100.0, 0),
        LATER,
    )
    assert facts(one(base, (6, 800.0, 150.0, 9, 1.0))) is None
    assert facts(one(base, (7, 900.0, 150.0, 9, 2.0))) == ("partial_reset", 7, 900.0, 9)


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


def test_a_slow_call_after_a_reset_of_the_maximum_makes_a_window_slow() -> None:
    base = replace(BASE, rows={KEY: row((4, 4_000.0, 900.0, 8, 1.0))})
    assert one(base, (14, 4_100.0, 700.0, 9, 1.0), min_ms=500) is not None


def test_statements_that_are_gone_are_forgotten() -> None:
    here = by_key([row(BEFORE)])
    found = [BASE.compare({}, SIGHT, 150), BASE.compare({}, SIGHT, 151), BASE.compare(here, SIGHT, 0)]
    expected = [Forgotten(1, 1, 0), Forgotten(1, 0, 0), Forgotten(0, 0, 0)]
    assert [comparison.forgotten for comparison in found] == expected
    assert [bool(forgotten) for forgotten in expected] == [True, True, False]


def test_a_statement_that_is_counted_anew_was_forgotten() -> None:
    assert BASE.compare(by_key([row((7, 900.0, 150.0, 9, 2.0))]), SIGHT, 0).forgotten == Forgotten(1, 1, 0)


def test_evictions_alone_are_a_loss_because_what_came_and_went_is_not_known() -> None:
    forgotten = BASE.compare(by_key([row(BEFORE)]), CROWDED, 0).forgotten
    assert (forgotten, bool(forgotten), forgotten.reason) == (Forgotten(0, 0, 2), True, "evicted_reentered")


BUSY, LATER_BUSY = replace(SIGHT, active_ms=1_000.0), replace(SIGHT, active_ms=3_000.0)
MORE = (7, 900.0, 150.0, 9, 1.0)


@pytest.mark.parametrize(
    ("base", "now", "counts", "expected"),
    [
        pytest.param(BASE, SIGHT, MORE, 1.0, id="nothing was forgotten"),
        pytest.param(replace(BASE, sight=BUSY), replace(LATER_BUSY, dealloc=4), MORE, 0.25, id="evictions"),
        pytest.param(replace(BASE, sight=BUSY), LATER_BUSY, (*MORE[:4], 2.0), 0.45, id="counted anew"),
        pytest.param(replace(BASE, sight=BUSY), replace(BUSY, dealloc=4, active_ms=1_100.0), MORE, 1.0, id="late"),
        pytest.param(replace(BASE, sight=BUSY), replace(BUSY, dealloc=4), MORE, None, id="not busy"),
        pytest.param(replace(BASE, sight=BUSY), replace(BUSY, dealloc=4, active_ms=9.0), MORE, None, id="crashed"),
        pytest.param(
            replace(BASE, sight=BUSY),
            replace(LATER_BUSY, dealloc=4, run_at=60.0),
            MORE,
            None,
            id="evictions, restarted",
        ),
        pytest.param(Baseline(unseen="reset", sight=BUSY), LATER_BUSY, MORE, 0.45, id="reset"),
        pytest.param(Baseline(unseen="first_look", sight=BUSY), LATER_BUSY, MORE, None, id="first look"),
        pytest.param(Baseline(unseen="other_server", sight=BUSY), LATER_BUSY, MORE, None, id="another server"),
        pytest.param(Baseline(unseen="crash_reset", sight=BUSY), LATER_BUSY, MORE, None, id="crash"),
        pytest.param(BASE, OLD, MORE, None, id="before 1.9"),
        pytest.param(BASE, CROWDED, MORE, None, id="evictions, and nobody knows how busy it was"),
    ],
)
def test_how_much_of_the_window_the_counters_show(
    base: Baseline, now: Sight, counts: Counts, expected: float | None
) -> None:
    assert base.compare(by_key([row(counts)]), now, 0).coverage == expected


def test_what_functions_call_is_not_added_to_what_clients_do() -> None:
    nested: Row = (*KEY[:3], False, 9, 500.0, 150.0, 9, 1.0)
    base = replace(BASE, sight=BUSY)
    assert base.compare(by_key([row(MORE), nested]), replace(LATER_BUSY, dealloc=4), 0).coverage == 0.25


def test_rows_without_levels_are_the_sums_of_both() -> None:
    nested: Row = (*KEY[:3], False, 2, 50.0, 200.0, 1, 3.0)
    assert without_levels(by_key([row(BEFORE), nested])) == {KEY: (*KEY, 6, 450.0, 200.0, 9, None)}
    assert without_levels({}) == {}
