"""What looks cost.

What could go wrong: time in which nobody waited for the database counts as its own, or the wait for one that is not
there; an error hides what was waited; the flow of new rows is taken for work that each look repeats; a long wait hides
among short ones, or many short ones look like a long one; a look is charged with an earlier one; the load never fades,
grows above all time there is, or jumps with the clock.
"""

from __future__ import annotations

import pytest

from agent.cost import MEMORY_S, Cost, Load, Meter
from tests.fakes.clock import ManualClock


def test_only_waits_for_the_database_count_and_new_rows_apart() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    with meter.connecting():
        clock.turn(8)
    clock.turn(100)
    with meter.answering():
        clock.turn(2)
    with meter.receiving():
        clock.turn(16)
    with meter.answering():
        clock.turn(1)
    meter.read(500)
    meter.read(7)
    meter.received(60)
    meter.received(4)
    assert meter.cost() == Cost(seconds=27, repeated_s=11, longest_s=2, rows=507, bytes=64)


def test_a_wait_that_ends_in_an_error_counts() -> None:
    clock = ManualClock()
    meter = Meter(clock)

    def fail() -> None:
        with meter.answering():
            clock.turn(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert meter.cost() == Cost(3, 3, 3)


def test_a_database_that_is_not_reached_is_not_burdened() -> None:
    clock = ManualClock()
    meter = Meter(clock)

    def fail() -> None:
        with meter.connecting():
            clock.turn(10)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert meter.cost() == Cost()


def test_a_look_begins_at_nothing() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    with meter.answering():
        clock.turn(3)
    meter.read(9)
    before = meter.cost()
    meter.begin()
    assert (before.rows, meter.cost()) == (9, Cost())


def test_a_steady_load_is_told_as_its_share() -> None:
    load = Load()
    for at_s in range(0, 100_000, 100):
        load = load.with_spent(2.0, at_s)
    assert load.share(100_000) == pytest.approx(0.02, rel=0.02)


def test_a_load_fades_and_leaves_no_more_than_a_third_after_an_hour() -> None:
    load = Load().with_spent(36.0, 0)
    assert [round(load.share(hours * MEMORY_S), 5) for hours in (0, 1, 100)] == [0.01, 0.00368, 0.0]


def test_a_load_is_at_most_all_of_the_time() -> None:
    assert Load().with_spent(10 * MEMORY_S, 5).share(5) == 1.0


def test_a_snapshot_that_is_older_than_the_load_does_not_raise_it() -> None:
    assert Load(36.0, 100.0).share(99.0) == 0.01
