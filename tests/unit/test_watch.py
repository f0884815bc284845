"""What could go wrong: the schedule drifts by the length of looks, missed looks are made up for, a failure spins,
a pause is lost or keeps its reason, a backoff never ends or never grows, a new interval waits for the old one; costly
looks come as often as cheap ones, a budget keeps looks away for ever, leaves the grid, or delays what was asked for.
"""

from __future__ import annotations

import pytest

from agent.backoff import Backoff
from agent.commands import Command
from agent.watch import REST_CAP_S, ROOM_CHECK_S, Watch
from tests.fakes.manual import Midway

COLLECT = Command(1, "collect")


def make(
    *, interval_s: float = 100.0, paused: bool = False, now_s: float = 0.0, max_load: float | None = None
) -> Watch:
    backoff = Backoff(1.0, 60.0, Midway())  # type: ignore[arg-type]
    return Watch(
        interval_s=interval_s, paused=paused, now_s=now_s, backoff=backoff, max_load=max_load, on_enter=lambda _: None
    )


def look(watch: Watch, cost_s: float, began_s: float, ended_s: float) -> None:
    watch.begin()
    watch.has_cost(cost_s, began_s)
    watch.has_finished("", ended_s)


def test_the_first_look_is_due_at_the_start() -> None:
    assert make(now_s=7).wait_s(7) == 0


@pytest.mark.parametrize(
    ("ended_s", "next_s"), [(3, 100), (99, 100), (100, 200), (101, 200), (250, 300), (1_000, 1_100)]
)
def test_looks_stay_on_the_grid_however_long_one_took(ended_s: float, next_s: float) -> None:
    watch = make()
    watch.begin()
    watch.has_finished("", ended_s)
    assert watch.wait_s(ended_s) == next_s - ended_s


def test_a_look_that_was_asked_for_early_leaves_the_schedule_as_it_is() -> None:
    watch = make()
    watch.begin()
    watch.has_finished("", 1)
    watch.asked.append(COLLECT)
    assert watch.wait_s(50) == 0
    watch.begin()
    watch.has_finished("", 51)
    assert watch.wait_s(51) == 49


def test_reconnecting_waits_longer_each_time_up_to_a_minute_and_starts_anew_after_success() -> None:
    watch = make()
    waits = []
    for _ in range(9):
        watch.has_lost_connection("away", 0)
        waits.append(watch.wait_s(0))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    watch.begin()
    watch.has_finished("", 1)
    watch.has_lost_connection("away", 100)
    assert watch.wait_s(100) == 0.5


def test_a_refusal_met_while_reconnecting_is_contact_and_waits_for_the_next_look() -> None:
    watch = make()
    watch.has_lost_connection("away", 0)
    watch.has_finished("wrong password", 1)
    assert (watch.state, watch.reason, watch.wait_s(1)) == ("idle", "wrong password", 99)


def test_without_room_the_next_try_is_soon_and_never_at_once() -> None:
    watch = make()
    watch.asked.append(COLLECT)
    watch.has_no_room("full", 0)
    assert (watch.state, watch.asked, watch.wait_s(0)) == ("idle", [], ROOM_CHECK_S)


def test_a_running_look_that_meets_a_full_outbox_ends() -> None:
    watch = make()
    watch.begin()
    watch.has_no_room("full", 0)
    assert (watch.state, watch.reason) == ("idle", "full")


def test_a_collect_that_finds_no_room_while_paused_stays_paused_and_does_not_spin() -> None:
    watch = make(paused=True)
    watch.asked.append(COLLECT)
    assert watch.wait_s(0) == 0
    watch.has_no_room("full", 0)
    assert (watch.state, watch.wait_s(0)) == ("paused", None)


def test_pause_waits_for_a_command_and_resume_for_the_schedule() -> None:
    watch = make()
    watch.begin()
    watch.has_finished("", 1)
    watch.set_pause(True)
    assert (watch.state, watch.wait_s(500)) == ("paused", None)
    watch.set_pause(False)
    assert (watch.state, watch.wait_s(500)) == ("idle", 0)


def test_a_pause_while_collecting_only_sets_the_flag() -> None:
    watch = make()
    watch.begin()
    watch.set_pause(True)
    assert watch.state == "collecting"
    watch.has_finished("", 1)
    assert watch.state == "paused"


def test_a_start_while_collecting_on_request_ends_in_idle() -> None:
    watch = make(paused=True)
    watch.asked.append(COLLECT)
    watch.begin()
    watch.set_pause(False)
    watch.has_finished("", 1)
    assert watch.state == "idle"


def test_a_collect_while_paused_that_loses_the_database_stays_paused() -> None:
    watch = make(paused=True)
    watch.asked.append(COLLECT)
    watch.begin()
    watch.has_lost_connection("away", 1)
    assert (watch.state, watch.asked, watch.wait_s(1)) == ("paused", [], None)


def test_a_pause_ends_the_reconnecting_and_its_reason() -> None:
    watch = make()
    watch.has_lost_connection("away", 0)
    watch.set_pause(True)
    assert (watch.state, watch.reason, watch.wait_s(100)) == ("paused", "", None)


def test_setting_the_same_flag_twice_changes_nothing() -> None:
    watch = make()
    watch.set_pause(False)
    assert watch.state == "idle"
    watch.set_pause(True)
    watch.set_pause(True)
    assert watch.state == "paused"


def test_a_shorter_interval_brings_the_next_look_forward_and_a_longer_one_leaves_it() -> None:
    watch = make()
    watch.begin()
    watch.has_finished("", 1)
    watch.set_interval(10, 1)
    assert watch.wait_s(1) == 10
    watch.set_interval(1_000, 1)
    assert watch.wait_s(1) == 10


def test_a_new_source_is_tried_at_once_when_something_was_wrong() -> None:
    away, refused, well = make(), make(), make()
    for _ in range(9):
        away.has_lost_connection("away", 0)
    refused.begin()
    refused.has_finished("wrong password", 1)
    well.begin()
    well.has_finished("", 1)
    for watch in (away, refused, well):
        watch.has_new_source(2)
    assert [watch.wait_s(2) for watch in (away, refused, well)] == [0, 0, 98]


# -- the budget ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost_s", "next_s", "pace_s"), [(0, 100, 100), (1, 100, 100), (1.5, 200, 200), (5, 500, 500), (5.5, 600, 600)]
)
def test_the_next_look_comes_when_the_last_one_is_the_share_of_the_time_and_on_the_grid(
    cost_s: float, next_s: float, pace_s: float
) -> None:
    watch = make(max_load=0.01)
    look(watch, cost_s, 0, 6)
    assert (watch.wait_s(6), watch.pace_s) == (next_s - 6, pace_s)
    look(watch, 0, next_s, next_s + 1)
    assert (watch.wait_s(next_s + 1), watch.pace_s) == (99, 100)


@pytest.mark.parametrize("max_load", [None, 0, 0.0])
def test_without_a_budget_no_cost_counts(max_load: float | None) -> None:
    watch = make(max_load=max_load)
    look(watch, 50, 0, 60)
    assert (watch.wait_s(60), watch.pace_s) == (40, 100)


def test_no_look_waits_longer_than_an_hour_for_the_budget() -> None:
    watch = make(max_load=1e-300)
    look(watch, 500, 0, 500)
    assert watch.wait_s(500) == REST_CAP_S - 500
    slow = make(interval_s=7_000, max_load=0.01)
    look(slow, 500, 0, 500)
    assert (slow.wait_s(500), slow.pace_s) == (6_500, 7_000)


def test_a_look_that_was_asked_for_does_not_wait_and_counts_from_its_own_start() -> None:
    watch = make(max_load=0.01)
    look(watch, 5, 0, 5)
    watch.asked.append(COLLECT)
    assert watch.wait_s(50) == 0
    look(watch, 4.6, 50, 55)
    assert watch.wait_s(55) == 600 - 55  # 50 + 460 is no point of the grid


def test_a_new_interval_does_not_break_the_budget() -> None:
    watch = make(max_load=0.01)
    look(watch, 5, 0, 5)
    watch.set_interval(10, 5)
    assert watch.wait_s(5) == 495


def test_a_new_budget_holds_for_the_rest_that_runs() -> None:
    watch = make(max_load=0.01)
    look(watch, 5, 0, 5)
    watch.set_max_load(0.02)
    watch.set_interval(100, 5)
    assert (watch.wait_s(5), watch.pace_s) == (245, 300)
    watch.set_max_load(None)
    assert (watch.wait_s(5), watch.pace_s) == (100, 100)


def test_room_that_came_back_does_not_break_the_budget() -> None:
    watch = make(max_load=0.01)
    watch.begin()
    watch.has_cost(3, 0)
    watch.has_no_room("full", 4)
    assert watch.wait_s(4) == 296


def test_another_database_does_not_wait_for_what_the_last_one_cost() -> None:
    watch = make(max_load=0.01)
    watch.begin()
    watch.has_cost(5, 0)
    watch.has_finished("no grant", 5)
    watch.has_new_source(6)
    assert (watch.wait_s(6), watch.pace_s) == (0, 100)


def test_a_database_that_was_lost_is_tried_again_whatever_the_last_look_cost() -> None:
    watch = make(max_load=0.01)
    look(watch, 5, 0, 5)
    watch.asked.append(COLLECT)
    watch.begin()
    watch.has_lost_connection("away", 20)
    assert watch.wait_s(20) == 0.5
