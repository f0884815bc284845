"""How long to wait before the next try.

What could go wrong: the wait grows without end, or overflows after many failures, or is shorter than what the other
side asked for; many agents try in step; a backend that just came back gets the whole backlog at once; the slow start
stays for ever, or comes after a short hiccup.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import RAMP_AFTER_S, RAMP_FLOOR_S, RAMP_START_S, Backoff, Ramp, next_delay


class Highest(random.Random):
    """Always draws the highest number there is."""

    def uniform(self, a: float, b: float) -> float:
        return b


@given(attempt=st.integers(0, 10_000), seed=st.integers())
def test_a_wait_is_between_nothing_and_the_doubled_base_or_the_cap(attempt: int, seed: int) -> None:
    delay = next_delay(attempt, 1.0, 60.0, random.Random(seed))
    assert 0 <= delay <= min(60.0, 2.0 ** min(attempt, 10))


def test_waits_double_up_to_the_cap() -> None:
    backoff = Backoff(1.0, 60.0, Highest())
    assert [backoff.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_success_begins_anew() -> None:
    backoff = Backoff(1.0, 60.0, Highest())
    backoff.failed()
    backoff.failed()
    backoff.reset()
    assert (backoff.failures, backoff.failed()) == (0, 1)


@given(floor_s=st.floats(0, 10_000), seed=st.integers())
def test_what_the_other_side_asked_for_is_a_floor_with_jitter_on_top(floor_s: float, seed: int) -> None:
    assert floor_s <= Backoff(1.0, 300.0, random.Random(seed)).failed(floor_s) <= floor_s + 1.0


def test_two_agents_do_not_try_in_step() -> None:
    waits = {Backoff(1.0, 60.0, random.Random(seed)).failed() for seed in range(20)}
    assert len(waits) == 20


# -- the slow start --------------------------------------------------------------------------------------------------


def after_outage(seconds: float) -> Ramp:
    ramp = Ramp()
    ramp.failed(1_000.0)
    ramp.failed(1_000.0 + seconds)  # not the last failure counts but the first
    return ramp


def pauses(ramp: Ramp, at_s: float, count: int) -> list[float]:
    return [ramp.accepted(at_s) for _ in range(count)]


def test_after_a_long_outage_the_pauses_halve_and_end() -> None:
    ramp = after_outage(RAMP_AFTER_S)
    assert pauses(ramp, 1_000.0 + RAMP_AFTER_S, 8) == [2, 1, 0.5, 0.25, 0.125, 0.0625, 0, 0]
    assert min(RAMP_START_S, 0.0625) >= RAMP_FLOOR_S


@pytest.mark.parametrize("seconds", [0.0, 1.0, RAMP_AFTER_S - 0.001])
def test_after_a_short_one_there_is_no_pause(seconds: float) -> None:
    assert pauses(after_outage(seconds), 1_000.0 + seconds, 3) == [0, 0, 0]


def test_without_an_outage_there_is_no_pause() -> None:
    assert pauses(Ramp(), 1_000_000.0, 2) == [0, 0]


def test_a_hiccup_in_the_slow_start_does_not_end_it() -> None:
    ramp = after_outage(100)
    assert pauses(ramp, 1_100.0, 2) == [2, 1]
    ramp.failed(1_101.0)
    assert pauses(ramp, 1_102.0, 2) == [0.5, 0.25]


def test_a_second_outage_begins_anew() -> None:
    ramp = after_outage(100)
    pauses(ramp, 1_100.0, 8)
    ramp.failed(2_000.0)
    assert pauses(ramp, 2_100.0, 2) == [2, 1]


@given(events=st.lists(st.tuples(st.booleans(), st.floats(0, 200)), max_size=40))
def test_a_pause_is_none_or_between_its_bounds(events: list[tuple[bool, float]]) -> None:
    ramp, now_s = Ramp(), 0.0
    for accepted, seconds in events:
        now_s += seconds
        if accepted:
            pause_s = ramp.accepted(now_s)
            assert pause_s == 0 or RAMP_FLOOR_S <= pause_s <= RAMP_START_S
        else:
            ramp.failed(now_s)
