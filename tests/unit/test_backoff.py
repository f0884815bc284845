"""How long to wait before the next try.

What could go wrong: the wait grows without end, or overflows after many failures, or is shorter than what the other
side asked for; many agents try in step, or come back in step from a date that they were all told; a backend that just
came back gets the whole backlog at once; the slow start stays for ever, or comes after a short hiccup.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import (
    FLOOR_JITTER,
    RAMP_AFTER_S,
    RAMP_FACTOR,
    RAMP_FLOOR_S,
    RAMP_START_S,
    Backoff,
    Ramp,
    ceiling_s,
)


class Highest(random.Random):
    """Always draws the highest number there is."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Quarter(random.Random):
    """Always draws the end of the first quarter."""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 4


@given(attempt=st.integers(0, 10_000))
def test_the_ceiling_is_the_doubled_base_or_the_cap(attempt: int) -> None:
    assert ceiling_s(attempt, 1.0, 60.0) == min(60.0, 2.0 ** min(attempt, 10))


@given(failures=st.integers(0, 100), seed=st.integers())
def test_a_wait_is_between_nothing_and_the_ceiling(failures: int, seed: int) -> None:
    backoff = Backoff(1.0, 60.0, random.Random(seed))
    backoff.failures = failures
    assert 0 <= backoff.failed() <= ceiling_s(failures, 1.0, 60.0)


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
    wait_s = Backoff(1.0, 300.0, random.Random(seed)).failed(floor_s)
    assert floor_s <= wait_s <= floor_s + max(1.0, min(300.0, floor_s * FLOOR_JITTER))


def test_the_longer_somebody_was_sent_away_the_wider_is_the_jitter_up_to_the_cap() -> None:
    waits = [Backoff(1.0, 300.0, Highest()).failed(floor_s) - floor_s for floor_s in (0, 12, 120, 3_600, 86_400)]
    assert waits == [1, 1, 10, 300, 300]


def test_success_tells_what_the_last_wait_had_left_of_its_ceiling_once() -> None:
    backoff = Backoff(8.0, 60.0, Quarter())
    assert (backoff.reset(), backoff.failed(), backoff.failed()) == (0, 2, 4)
    assert (backoff.reset(), backoff.reset()) == (12, 0)


def test_of_a_wait_that_was_asked_for_nothing_is_left() -> None:
    backoff = Backoff(1.0, 300.0, Quarter())
    backoff.failed(3_600)
    assert backoff.reset() == 0


def test_two_agents_do_not_try_in_step() -> None:
    waits = {Backoff(1.0, 60.0, random.Random(seed)).failed() for seed in range(20)}
    assert len(waits) == 20


# -- the slow start --------------------------------------------------------------------------------------------------


def after_outage(seconds: float, rng: random.Random | None = None) -> Ramp:
    ramp = Ramp(rng or Highest())
    ramp.failed(1_000.0)
    ramp.failed(1_000.0 + seconds)  # not the last failure counts but the first
    return ramp


def pauses(ramp: Ramp, at_s: float, count: int, unspent_s: float = 0.0) -> list[float]:
    return [ramp.accepted(at_s, unspent_s) for _ in range(count)]


def test_after_a_long_outage_the_pauses_shrink_and_end() -> None:
    steps = [RAMP_START_S * RAMP_FACTOR**number for number in range(13)]
    assert (steps[-1] > RAMP_FLOOR_S, steps[-1] * RAMP_FACTOR < RAMP_FLOOR_S) == (True, True)
    found = pauses(after_outage(RAMP_AFTER_S), 1_000.0 + RAMP_AFTER_S, 16)
    assert found == pytest.approx([RAMP_START_S, *steps, 0, 0])


def test_the_first_pause_is_drawn_from_what_the_backoff_had_left() -> None:
    assert pauses(after_outage(100, Quarter()), 1_100.0, 2, unspent_s=200.0) == [50, RAMP_START_S / 4]
    assert pauses(after_outage(100, Quarter()), 1_100.0, 1, unspent_s=0.5) == [RAMP_START_S / 4]


@pytest.mark.parametrize("seconds", [0.0, 1.0, RAMP_AFTER_S - 0.001])
def test_after_a_short_one_there_is_no_pause(seconds: float) -> None:
    assert pauses(after_outage(seconds), 1_000.0 + seconds, 3, unspent_s=60.0) == [0, 0, 0]


def test_without_an_outage_there_is_no_pause() -> None:
    assert pauses(Ramp(Highest()), 1_000_000.0, 2) == [0, 0]


def test_a_hiccup_in_the_slow_start_does_not_end_it() -> None:
    ramp = after_outage(100)
    pauses(ramp, 1_100.0, 2)
    ramp.failed(1_101.0)
    assert pauses(ramp, 1_102.0, 1) == [RAMP_START_S * RAMP_FACTOR]


def test_a_second_outage_begins_anew() -> None:
    ramp = after_outage(100)
    pauses(ramp, 1_100.0, 20)
    ramp.failed(2_000.0)
    assert pauses(ramp, 2_100.0, 2, unspent_s=90.0) == [90, RAMP_START_S]


@given(
    events=st.lists(st.tuples(st.booleans(), st.floats(0, 200)), max_size=40),
    unspent_s=st.floats(0, 300),
    seed=st.integers(),
)
def test_a_pause_is_never_longer_than_the_start_or_what_was_left(
    events: list[tuple[bool, float]], unspent_s: float, seed: int
) -> None:
    ramp, now_s = Ramp(random.Random(seed)), 0.0
    for accepted, seconds in events:
        now_s += seconds
        if accepted:
            assert 0 <= ramp.accepted(now_s, unspent_s) <= max(RAMP_START_S, unspent_s)
        else:
            ramp.failed(now_s)
