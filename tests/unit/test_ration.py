"""What could go wrong: a flood gets through; a pause fills more than the measure; a ration that was used up stays so; a
clock that stands still or goes back gives portions or takes them.
"""

from hypothesis import given
from hypothesis import strategies as st

from agent.ration import Ration


def test_so_many_at_once_and_then_one_by_one() -> None:
    ration = Ration(100.0, at_once=3, refill_s=10)
    assert [ration.takes(100.0) for _ in range(4)] == [True, True, True, False]
    assert [ration.takes(at_s) for at_s in (105.0, 110.0, 111.0, 120.0, 129.0)] == [False, True, False, True, False]


def test_a_long_pause_fills_it_and_no_more() -> None:
    ration = Ration(0.0, at_once=2, refill_s=10)
    assert [ration.takes(10_000.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    ration = Ration(100.0, at_once=1, refill_s=10)
    assert [ration.takes(at_s) for at_s in (100.0, 50.0, 55.0, 60.0)] == [True, False, False, True]


@given(st.lists(st.floats(0, 50), max_size=60))
def test_in_any_stretch_there_are_no_more_than_the_measure_and_the_refill(pauses_s: list[float]) -> None:
    ration, now_s, taken = Ration(0.0, at_once=5, refill_s=10), 0.0, list[float]()
    for pause_s in pauses_s:
        now_s += pause_s
        if ration.takes(now_s):
            taken.append(now_s)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= 5 + (taken[last] - taken[first]) / 10 + 1e-9
