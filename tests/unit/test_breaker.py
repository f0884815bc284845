"""When a server is too sick to be looked at.

What could go wrong: jitter of milliseconds opens it; so does a long backlog; a sick server is asked on and on; it opens
before anyone knows what is usual; it never closes again, or not when the server stays slower than it was; the pause
grows without end or never; a full server is looked at, or one with a single connection never.
"""

from __future__ import annotations

import pytest

from agent.breaker import FLOOR_S, LOOKS_KEPT, LOOKS_NEEDED, PAUSE_CAP_S, Breaker
from agent.sources import Strain

INTERVAL_S = 300.0


def after(*longest_s: float) -> Breaker:
    """A breaker that has seen looks at second 0."""
    breaker = Breaker()
    for seconds in longest_s:
        breaker.has_looked(seconds, 0, INTERVAL_S)
    return breaker


@pytest.mark.parametrize(
    ("used", "allowed", "is_full"),
    [
        (0, 97, False),
        (92, 97, False),
        (93, 97, True),
        (97, 97, True),
        (151, 150, True),
        (95, 100, False),
        (0, 0, False),
    ],
)
def test_above_nineteen_of_twenty_connections_there_is_no_look(used: int, allowed: int, is_full: bool) -> None:
    reason = Breaker().against_strain(Strain(used, allowed))
    assert reason == (f"{used} of {allowed} connections are used" if is_full else None)


def test_a_look_ten_times_as_slow_as_usual_opens_it_for_one_interval() -> None:
    breaker = after(0.2, 0.3, 0.2, 0.1, 0.2, 9.0, 0.2)
    assert breaker.has_looked(2.0, 1_000, INTERVAL_S) is None
    assert breaker.against(1_000) is None
    reason = breaker.has_looked(2.1, 1_300, INTERVAL_S)
    assert reason == "an answer took 2.1 s instead of about 0.2 s; no look for 300 s"
    assert [breaker.against(at_s) for at_s in (1_300, 1_599.9, 1_600)] == [reason, reason, None]


def test_what_takes_less_than_a_second_never_opens_it() -> None:
    breaker = after(*[0.001] * LOOKS_KEPT)
    assert breaker.has_looked(FLOOR_S, 0, INTERVAL_S) is None
    assert breaker.has_looked(FLOOR_S + 0.01, 0, INTERVAL_S) is not None


def test_it_wants_to_have_seen_some_looks_first() -> None:
    assert after(*[0.1] * (LOOKS_NEEDED - 1)).has_looked(60, 0, INTERVAL_S) is None
    assert after(*[0.1] * LOOKS_NEEDED).has_looked(60, 0, INTERVAL_S) is not None


def test_the_pause_doubles_while_looks_stay_slow_up_to_an_hour_and_begins_anew_after_a_usual_one() -> None:
    breaker = after(*[0.1] * LOOKS_KEPT)
    pauses = []
    for _ in range(5):
        breaker.has_looked(60, 0, INTERVAL_S)
        pauses.append(next(at_s for at_s in range(0, 10_000, 100) if breaker.against(at_s) is None))
    assert pauses == [300, 600, 1_200, 2_400, PAUSE_CAP_S]
    assert breaker.has_looked(0.1, 10_000, INTERVAL_S) is None
    assert breaker.against(10_000) is None
    breaker.has_looked(60, 20_000, INTERVAL_S)
    assert (breaker.against(20_299) is None, breaker.against(20_300) is None) == (False, True)


def test_the_pause_is_one_interval_where_that_is_longer_than_an_hour() -> None:
    breaker = after(*[0.1] * LOOKS_KEPT)
    for _ in range(3):
        breaker.has_looked(60, 0, 7_200)
    assert (breaker.against(7_199) is None, breaker.against(7_200) is None) == (False, True)


def test_a_server_that_stays_slower_than_it_was_becomes_the_usual_one() -> None:
    breaker = after(*[0.2] * LOOKS_KEPT)
    opened = [breaker.has_looked(4.0, 0, INTERVAL_S) is not None for _ in range(LOOKS_KEPT)]
    assert (opened[0], opened[-1]) == (True, False)
    assert opened.index(False) <= LOOKS_KEPT // 2 + 1


@pytest.mark.parametrize(
    ("looks", "longest_s", "opens"), [(0, 9.9, False), (0, 10.1, True), (5, 1.9, False), (5, 2.1, True)]
)
def test_an_answer_that_was_waited_for_in_vain_opens_it_too(looks: int, longest_s: float, opens: bool) -> None:
    breaker = after(*[0.2] * looks)
    breaker.has_lost(longest_s, 1_000, INTERVAL_S)
    reason = f"no answer came within {longest_s:.1f} s; no look for 300 s" if opens else None
    assert [breaker.against(at_s) for at_s in (1_000, 1_299, 1_300)] == [reason, reason, None]


def test_waits_in_vain_are_not_what_is_usual_and_each_in_a_row_pauses_longer() -> None:
    breaker = after(*[0.2] * 5)
    pauses = []
    for _ in range(2 * LOOKS_KEPT):
        breaker.has_lost(30.0, 0, INTERVAL_S)
        pauses.append(next(at_s for at_s in range(0, 4_000, 100) if breaker.against(at_s) is None))
    assert (pauses[:4], pauses[-1]) == ([300, 600, 1_200, 2_400], PAUSE_CAP_S)
    assert breaker.has_looked(2.1, 10_000, INTERVAL_S) is not None
    assert breaker.has_looked(0.2, 20_000, INTERVAL_S) is None
    assert breaker.against(20_000) is None
