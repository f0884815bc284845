"""Whether a runner gets on.

What could go wrong: a runner that stands still looks healthy because its thread lives; one that only works long, or
waits for a word, looks stuck; time in which the whole process stood still is taken for its; a jump of the wall clock
makes everybody stuck, or nobody; after it went on it is still called stuck, or its next stop goes unnoticed; one that
was left behind goes on with what is another's by then, or a handler of errors keeps it going.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.pulse import PACE_S, SLACK_S, LeftBehind, Pulse, Rounds, Stuck, thread_of
from tests.fakes.clock import NOON, ManualClock

SLACK, PACE = 60.0, 5.0


class Bench:
    """Somebody looks every five seconds."""

    def __init__(self, *threads: str) -> None:
        self.clock = ManualClock()
        self.pulses = {name: Pulse(name, self.clock) for name in threads}
        self.rounds = Rounds(list(self.pulses.values()), slack_s=SLACK, pace_s=PACE)

    def after(self, seconds: float) -> list[str]:
        """Who is stuck when so much time has gone by under the eyes of somebody."""
        found: tuple[Stuck, ...] = ()
        for _ in range(round(seconds / PACE)):
            self.clock.turn(PACE)
            found = self.rounds.overdue(self.clock.monotonic())
        return [each.thread for each in found]


@pytest.fixture
def bench() -> Bench:
    return Bench("watch default", "flusher")


def test_a_step_may_take_what_its_timeouts_say_and_some_slack(bench: Bench) -> None:
    bench.pulses["flusher"].beat("sending", 120)
    assert bench.after(180) == []
    assert bench.after(5) == ["flusher"]


def test_a_step_without_a_timeout_has_the_slack_alone(bench: Bench) -> None:
    bench.pulses["flusher"].beat("writing the outbox")
    assert bench.after(60) == []
    assert bench.after(5) == ["flusher"]


def test_it_is_told_since_when_and_at_what(bench: Bench) -> None:
    began_s = bench.clock.monotonic()
    bench.pulses["watch default"].beat("reading the database", 30)
    bench.after(412.0 // PACE * PACE)
    bench.clock.turn(2)
    (stuck,) = bench.rounds.overdue(bench.clock.monotonic())
    assert stuck == Stuck("watch default", "reading the database", began_s)
    assert stuck.lasting(bench.clock.monotonic()) == "reading the database for 412 s"


def test_each_beat_is_progress_also_when_it_says_the_same(bench: Bench) -> None:
    for _ in range(100):
        bench.pulses["flusher"].beat("sending", 0)
        assert bench.after(55) == []
    assert bench.after(10) == ["flusher"]


def test_who_goes_on_is_stuck_no_more_and_may_be_so_again(bench: Bench) -> None:
    pulse = bench.pulses["flusher"]
    pulse.beat("sending", 10)
    assert bench.after(100) == ["flusher"]
    pulse.beat("sending", 10)
    assert bench.after(65) == []
    assert bench.after(10) == ["flusher"]


def test_a_wait_for_a_word_lasts_as_long_as_it_likes_and_one_with_an_end_does_not(bench: Bench) -> None:
    bench.pulses["watch default"].beat("waiting", None)
    bench.pulses["flusher"].beat("waiting", 3_600)
    assert bench.after(3_600 + SLACK) == []
    assert bench.after(5) == ["flusher"]
    assert bench.after(86_400) == ["flusher"]


def test_one_who_is_stuck_hides_no_other(bench: Bench) -> None:
    bench.pulses["watch default"].beat("reading", 30)
    bench.pulses["flusher"].beat("sending", 120)
    assert bench.after(95) == ["watch default"]
    assert bench.after(90) == ["watch default", "flusher"]


def test_who_has_not_begun_or_is_no_more_is_not_stuck(bench: Bench) -> None:
    bench.pulses["flusher"].beat("sending", 10)
    assert bench.after(1_000) == ["flusher"]
    bench.pulses["flusher"].end()
    assert bench.after(1_000) == []


def test_a_jump_of_the_wall_clock_changes_nothing(bench: Bench) -> None:
    bench.pulses["flusher"].beat("sending", 0)
    bench.clock.set_wall(NOON + timedelta(days=365))
    assert bench.after(60) == []
    bench.clock.set_wall(NOON - timedelta(days=365))
    assert bench.after(5) == ["flusher"]


@pytest.mark.parametrize("paused_s", [3_600.0, 86_400.0])
def test_nobody_is_stuck_because_the_whole_process_stood_still(bench: Bench, paused_s: float) -> None:
    bench.pulses["flusher"].beat("sending", 10)
    assert bench.after(20) == []
    bench.clock.turn(paused_s)  # stopped, or its machine was: nobody looked either
    assert bench.rounds.overdue(bench.clock.monotonic()) == ()
    assert bench.after(35) == []
    assert bench.after(10) == ["flusher"]  # it was at it all the while


def test_a_step_that_began_just_before_the_standstill_is_not_stuck_by_it(bench: Bench) -> None:
    assert bench.after(20) == []
    bench.pulses["flusher"].beat("sending", 10)
    bench.clock.turn(86_400)
    assert bench.rounds.overdue(bench.clock.monotonic()) == ()


def test_control_who_believes_the_clock_alone_takes_a_standstill_for_a_hang() -> None:
    clock = ManualClock()
    pulse = Pulse("flusher", clock)
    believing = Rounds([pulse], slack_s=SLACK, pace_s=float("inf"))
    pulse.beat("sending", 10)
    believing.overdue(clock.monotonic())
    clock.turn(3_600)
    assert [each.thread for each in believing.overdue(clock.monotonic())] == ["flusher"]


def test_looking_more_often_than_agreed_makes_nobody_stuck_sooner(bench: Bench) -> None:
    bench.pulses["flusher"].beat("sending", 0)
    looks = [bench.rounds.overdue(bench.clock.monotonic() + 0.1 * number) for number in range(600)]
    assert looks == [()] * 600


def test_a_watch_called_like_another_thread_is_told_apart() -> None:
    assert thread_of("flusher") != "flusher"


def test_the_usual_slack_is_many_looks_long() -> None:
    assert SLACK_S >= 10 * PACE_S


def test_who_was_left_behind_begins_nothing_more(bench: Bench) -> None:
    pulse = bench.pulses["flusher"]
    pulse.beat("sending", 120)
    before = pulse.step
    pulse.cut()
    for _ in range(2):
        with pytest.raises(LeftBehind):
            pulse.beat("writing the outbox")
    assert pulse.step is before
    assert not issubclass(LeftBehind, Exception)
