"""A thousand agents after an hour without a backend, in virtual time (`fleet` says what is simulated and measured).

What could go wrong: the agents try in step while the backend is away; at its return they come all at once, most of all
those whose requests hung, or who were all told the same date; each throws its backlog at it; the slow start spreads
the first requests but not the backlogs; the heartbeats fall into step. The controls take away the jitter, the slow
start or the spread of a date, and break the same bounds.
"""

from __future__ import annotations

import random

import pytest

from agent.backoff import DELIVERY_BASE_S, DELIVERY_CAP_S, RAMP_START_S, Backoff, Ramp
from agent.lane import Lane
from tests.faults.fleet import (
    BEAT_S,
    LOOK_S,
    OUTAGE_S,
    PEAK_BOUND,
    SPREAD_BOUND,
    Drain,
    Fleet,
    Outage,
    beats,
    busiest_second,
    make_lane,
    torture,
    unevenness,
)

AGENTS = 1_000


class Highest(random.Random):
    """No jitter: always the highest number there is."""

    def uniform(self, a: float, b: float) -> float:
        return b


class NoRamp(Ramp):
    """No slow start."""

    def accepted(self, at_s: float, unspent_s: float) -> float:
        return 0.0


class TwoSeconds(Ramp):
    """A slow start that is the same for everyone and begins at once."""

    def accepted(self, at_s: float, unspent_s: float) -> float:
        pause_s = super().accepted(at_s, 0.0)
        return RAMP_START_S / 2 if pause_s else 0.0


class PlainFloor(Backoff):
    """A jitter that knows nothing of the floor."""

    def failed(self, floor_s: float = 0.0) -> float:
        return floor_s + super().failed()


def without_a_ramp(rng: random.Random) -> Lane:
    lane = make_lane(rng)
    lane._ramp = NoRamp(rng)
    return lane


def in_step(rng: random.Random) -> Lane:
    lane = make_lane(rng)
    lane._ramp = TwoSeconds(rng)
    return lane


def with_a_plain_floor(rng: random.Random) -> Lane:
    lane = make_lane(rng)
    lane._backoff = PlainFloor(DELIVERY_BASE_S, DELIVERY_CAP_S, rng)
    return lane


def ratio(drain: Drain) -> float:
    return drain.peak / drain.mean


def spread(drain: Drain) -> float:
    return unevenness(drain.tries_at_the_cap, -DELIVERY_CAP_S, DELIVERY_CAP_S)


@pytest.fixture(scope="module", params=list(Outage), ids=lambda outage: outage.name.lower())
def case(request: pytest.FixtureRequest) -> tuple[Outage, Drain]:
    return request.param, Fleet(AGENTS, 1, request.param).drain()


def test_each_agent_failed_for_an_hour_and_then_delivered_everything(case: tuple[Outage, Drain]) -> None:
    outage, drain = case
    failed = sum(at_s < -(30 if outage is Outage.HANGING else 0) for at_s in drain.sent)
    assert failed == AGENTS if outage is Outage.MAINTENANCE else failed > 20 * AGENTS
    assert (len(drain.done), min(drain.done) > 0) == (AGENTS, True)
    assert len(drain.sent) - failed >= AGENTS * (1 + OUTAGE_S / LOOK_S)


def test_the_peak_after_the_return_is_under_three_times_the_mean(case: tuple[Outage, Drain]) -> None:
    assert ratio(case[1]) < PEAK_BOUND


def test_nobody_waits_longer_than_the_cap_and_the_slow_start(case: tuple[Outage, Drain]) -> None:
    bodies = 1 + OUTAGE_S / LOOK_S + 1
    assert max(case[1].done) < DELIVERY_CAP_S + RAMP_START_S * bodies


def test_large_backlogs_are_spread_too() -> None:
    drain = Fleet(AGENTS, 2, Outage.HANGING, per_look=10).drain()
    assert len(drain.requests) > 100 * AGENTS
    assert ratio(drain) < PEAK_BOUND


@pytest.mark.parametrize("outage", [Outage.REFUSED, Outage.HANGING])
def test_tries_at_the_cap_are_spread_evenly_though_all_began_in_one_instant(outage: Outage) -> None:
    drain = Fleet(AGENTS, 4, outage).drain()
    assert drain.sent[:AGENTS] == [-OUTAGE_S] * AGENTS
    assert len(drain.tries_at_the_cap) > AGENTS
    assert spread(drain) < SPREAD_BOUND


def test_heartbeats_keep_their_even_pace_though_all_began_in_one_instant() -> None:
    times = beats(AGENTS // 2, 1)
    pace = AGENTS / 2 / BEAT_S
    assert len(times) / LOOK_S == pytest.approx(pace, rel=0.02)
    assert busiest_second(times) < PEAK_BOUND * pace


# -- controls --------------------------------------------------------------------------------------------------------


def test_control_without_jitter_all_try_and_come_in_step() -> None:
    drain = Fleet(AGENTS, 1, Outage.REFUSED, rng=lambda _: Highest()).drain()
    assert spread(drain) > 10 * SPREAD_BOUND
    assert ratio(drain) > 10 * PEAK_BOUND
    assert busiest_second(beats(50, 1, rng=lambda _: Highest())) == 50


@pytest.mark.parametrize(
    ("lane", "outage"),
    [
        (without_a_ramp, Outage.REFUSED),
        (without_a_ramp, Outage.HANGING),
        (in_step, Outage.HANGING),
        (with_a_plain_floor, Outage.MAINTENANCE),
    ],
)
def test_control_without_its_protection_the_bound_is_broken(lane: object, outage: Outage) -> None:
    assert callable(lane)
    assert ratio(Fleet(AGENTS, 1, outage, lane=lane).drain()) > 1.2 * PEAK_BOUND


def test_control_torture_complains_with_all_its_figures() -> None:
    heard: list[int] = []
    with pytest.raises(AssertionError, match="hanging x10: peak/mean") as complaint:
        torture(20, 1, heard.append)  # so few that chance alone breaks the bound
    assert (heard[-1], heard) == (20, sorted(heard))
    assert len(str(complaint.value).splitlines()) > 40
