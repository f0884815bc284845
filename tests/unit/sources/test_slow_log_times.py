"""When a statement ran, from a time in an unknown zone and the moments between which its row was written.

What could go wrong: a row of another zone, or from before a change of summer time, is off by hours; a time that a
client made up is believed; a row is given a zone that nobody has; a window too long to tell is taken for one that
tells; a clock that was set shifts everything; one strange row in an old log drags its neighbours along; a nonsense
time stops the look.
"""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources._slow_log_times import BOUNDED, EXACT, INFERRED, SLACK_S, Window, Zone, starts

T = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
NOW = T.timestamp()
UTC_MARIADB, UTC_MYSQL = Zone(0, stamps_start=True), Zone(0, stamps_start=False)
NARROW = Window(NOW - 300, NOW)
OLD = Window(None, NOW)


def stamp(end_s: float, query_s: float, zone_h: float, server: Zone) -> tuple[bytes, float]:
    """What a server writes of a statement that ended so many seconds after T, for a client in that zone."""
    moment = T + timedelta(seconds=end_s - (query_s if server.stamps_start else 0), hours=zone_h)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f").encode(), query_s


def start(end_s: float, query_s: float) -> datetime:
    return T + timedelta(seconds=end_s - query_s)


@pytest.mark.parametrize("server", [UTC_MARIADB, UTC_MYSQL])
@pytest.mark.parametrize(
    ("zone_h", "confidence"), [(0, EXACT), (10.5, INFERRED), (-11, INFERRED), (14, INFERRED), (-14, INFERRED)]
)
def test_the_zone_whose_end_lies_in_the_window_is_the_true_one(server: Zone, zone_h: float, confidence: str) -> None:
    found = starts([stamp(-100, 7.25, zone_h, server)], NARROW, server)
    assert found == [(start(-100, 7.25), confidence)]


def test_the_servers_own_zone_is_exact_wherever_it_lies() -> None:
    tokyo = Zone(9 * 3_600, stamps_start=False)
    assert starts([stamp(-1, 0, 9, tokyo), stamp(-1, 0, 0, tokyo)], NARROW, tokyo) == [
        (start(-1, 0), EXACT),
        (start(-1, 0), INFERRED),
    ]


@pytest.mark.parametrize("end_s", [-300 - SLACK_S, SLACK_S])
def test_an_end_at_the_edge_of_the_window_and_its_slack_is_in_it(end_s: float) -> None:
    assert starts([stamp(end_s, 0, 0, UTC_MYSQL)], NARROW, UTC_MYSQL) == [(start(end_s, 0), EXACT)]


@pytest.mark.parametrize("end_s", [-300 - SLACK_S - 1, SLACK_S + 1])
def test_what_no_zone_explains_ended_when_it_was_seen(end_s: float) -> None:
    assert starts([stamp(end_s, 2, 0, UTC_MYSQL)], NARROW, UTC_MYSQL) == [(start(0, 2), BOUNDED)]


@pytest.mark.parametrize(
    "made_up", [b"2001-09-09 01:46:40.000000", b"2033-05-18 03:33:20", b"0000-00-00 00:00:00", b"", None]
)
def test_a_time_that_a_client_made_up_is_not_believed(made_up: bytes | None) -> None:
    for window in (NARROW, Window(NOW - 3_600, NOW)):
        assert starts([(made_up, 2.0)], window, UTC_MARIADB) == [(start(0, 2), BOUNDED)]


def test_no_zone_is_farther_than_fourteen_hours() -> None:
    assert starts([stamp(-1, 0, 14.25, UTC_MYSQL)], NARROW, UTC_MYSQL)[0][1] == BOUNDED


def test_a_window_of_fifteen_minutes_tells_no_zone_apart() -> None:
    wide = Window(NOW - 900, NOW)
    ends = [stamp(-700, 1, 0, UTC_MYSQL), stamp(-10, 1, 0, UTC_MYSQL)]
    assert starts(ends, wide, UTC_MYSQL) == [(start(-700, 1), BOUNDED), (start(-10, 1), BOUNDED)]


def test_in_a_wide_window_a_row_of_another_zone_stands_between_its_neighbours() -> None:
    wide = Window(NOW - 7_200, NOW)
    rows = [stamp(-3_000, 0, 0, UTC_MYSQL), stamp(-2_900, 0, 10.5, UTC_MYSQL), stamp(-2_800, 0, 0, UTC_MYSQL)]
    assert starts(rows, wide, UTC_MYSQL) == [(start(end, 0), BOUNDED) for end in (-3_000, -2_900, -2_800)]


def test_an_old_log_is_read_in_the_servers_zone_and_not_later_than_the_look() -> None:
    rows = [stamp(-9e6, 0, 0, UTC_MYSQL), stamp(-8e6, 0, 0, UTC_MYSQL), stamp(-5, 0, 10.5, UTC_MYSQL)]
    assert starts(rows, OLD, UTC_MYSQL) == [(start(end, 0), BOUNDED) for end in (-9e6, -8e6, 0)]


def test_one_strange_row_in_an_old_log_does_not_drag_the_others_along() -> None:
    rows = [stamp(end, 0, 0, UTC_MYSQL) for end in (-500, -400, -300, -200)]
    rows[1] = stamp(-50, 0, 0, UTC_MYSQL)  # as a client would write it that set its time
    assert [moment for moment, _ in starts(rows, OLD, UTC_MYSQL)] == [start(end, 0) for end in (-500, -300, -300, -200)]


def test_rows_that_passed_each_other_by_a_moment_keep_their_times() -> None:
    rows = [stamp(end, 0, 0, UTC_MYSQL) for end in (-500, -499.5, -499.8, -300)]
    assert [moment for moment, _ in starts(rows, OLD, UTC_MYSQL)] == [
        start(end, 0) for end in (-500, -499.5, -499.8, -300)
    ]


def test_a_server_clock_that_was_set_back_makes_the_window_say_less() -> None:
    back = Window(NOW + 3_600, NOW)
    before_it, after_it = stamp(3_590, 0, 0, UTC_MYSQL), stamp(-5, 0, 0, UTC_MYSQL)
    assert starts([before_it, after_it], back, UTC_MYSQL) == [(start(-5, 0), BOUNDED), (start(-5, 0), BOUNDED)]
    assert math.isinf(back.low)


@given(
    end_s=st.floats(-300, 0),
    query_s=st.floats(0, 100_000),
    quarters=st.integers(-56, 56),
    server=st.sampled_from([UTC_MARIADB, UTC_MYSQL, Zone(-3 * 3_600, stamps_start=True)]),
)
def test_every_zone_is_found_in_a_narrow_window(end_s: float, query_s: float, quarters: int, server: Zone) -> None:
    [(found, confidence)] = starts([stamp(end_s, query_s, quarters / 4, server)], NARROW, server)
    assert abs(found - start(end_s, query_s)) < timedelta(microseconds=3)
    assert confidence in {EXACT, INFERRED}


@given(ends=st.lists(st.floats(-1e7, 1e5), max_size=30), since=st.none() | st.floats(-1e5, 1e3))
def test_whatever_is_read_no_time_lies_outside_of_the_window(ends: list[float], since: float | None) -> None:
    window = Window(None if since is None else NOW + since, NOW)
    for moment, _ in starts([stamp(end, 0, 0, UTC_MYSQL) for end in ends], window, UTC_MYSQL):
        assert window.low - 2 * SLACK_S <= moment.timestamp() <= window.high + 2 * SLACK_S
