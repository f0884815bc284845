"""Which server answers: the same, the same after a reset or crash, another, or nobody can say.

What could go wrong: the counters of two servers are subtracted from each other; a restart is taken for another server
and everything comes again; a server that answers again is taken for new; a reason is claimed that nothing shows.
"""

from dataclasses import replace

import pytest

from agent.sources._statement_servers import Recognised, Sight, recognise

A = Sight(at=1000.0, system=77, run_at=500.0, address="10.0.0.1 5432", reset="499.9", dealloc=0)
LATER = replace(A, at=2000.0)
RESTARTED = replace(LATER, run_at=1500.0)
REPLICA = replace(LATER, run_at=700.0, reset="699.9")
OLD, OLD_LATER = replace(A, reset=None, dealloc=None), replace(LATER, reset=None, dealloc=None)
AGAIN, OTHER, UNSURE = (
    Recognised(0, "normal"),
    Recognised(None, "other_server"),
    Recognised(None, "other_server", False),
)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(LATER, AGAIN, id="same"),
        pytest.param(RESTARTED, AGAIN, id="restarted, counters saved"),
        pytest.param(replace(RESTARTED, address="10.0.0.2 5432"), AGAIN, id="restarted elsewhere"),
        pytest.param(replace(LATER, reset="1500.0"), Recognised(0, "reset"), id="reset"),
        pytest.param(replace(LATER, at=900.0, reset="800.0"), Recognised(0, "reset"), id="reset, clock set back"),
        pytest.param(replace(RESTARTED, reset="1499.9"), Recognised(0, "crash_reset"), id="crashed"),
        pytest.param(replace(RESTARTED, reset="1494.9"), Recognised(0, "reset"), id="reset, then restarted"),
        pytest.param(replace(RESTARTED, reset="1600.0"), Recognised(0, "reset"), id="restarted, then reset"),
        pytest.param(REPLICA, OTHER, id="a replica that ran already"),
        pytest.param(replace(REPLICA, run_at=1500.0), OTHER, id="a replica that was restarted"),
        pytest.param(replace(REPLICA, run_at=1500.0, reset="1499.9", address="x"), OTHER, id="a new one elsewhere"),
        pytest.param(replace(LATER, system=78), OTHER, id="another cluster"),
        pytest.param(replace(LATER, run_at=700.0), UNSURE, id="a copy with its counters"),
        pytest.param(replace(LATER, system=0), AGAIN, id="the system is not told any more"),
    ],
)
def test_a_server_that_tells_its_resets(now: Sight, expected: Recognised) -> None:
    assert recognise([A], now, 0) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(OLD_LATER, AGAIN, id="same"),
        pytest.param(replace(OLD_LATER, run_at=1500.0), AGAIN, id="restarted"),
        pytest.param(replace(OLD_LATER, run_at=1500.0, address="x"), UNSURE, id="restarted elsewhere, or another"),
        pytest.param(replace(OLD_LATER, run_at=700.0), UNSURE, id="another that ran already"),
        pytest.param(replace(OLD_LATER, system=78), OTHER, id="another cluster"),
        pytest.param(LATER, AGAIN, id="the extension was updated"),
    ],
)
def test_a_server_that_does_not_tell_its_resets(now: Sight, expected: Recognised) -> None:
    assert recognise([OLD], now, 0) == expected


def test_a_server_that_answers_again_is_known() -> None:
    assert recognise([REPLICA, A], replace(A, at=3000.0), 0) == Recognised(1, "normal")
    assert recognise([REPLICA, A], replace(A, at=3000.0, run_at=2500.0), 0) == Recognised(1, "normal")
    assert recognise([REPLICA, A], replace(A, at=3000.0, reset="2500.0"), 0) == Recognised(1, "reset")
    old = [replace(OLD_LATER, run_at=700.0), OLD]
    assert recognise(old, replace(OLD, at=3000.0), 0) == Recognised(1, "normal")
    assert recognise(old, replace(OLD, at=3000.0, run_at=2500.0), 0) == UNSURE


def test_what_may_have_been_read_and_forgotten_is_not_taken_for_new() -> None:
    assert [recognise([A], REPLICA, at).is_unread for at in (699.8, 699.9, 700.0)] == [True, False, False]
    assert recognise([A], replace(RESTARTED, reset="1499.9"), 1600.0) == Recognised(0, "crash_reset", False)
    assert recognise([OLD], replace(OLD_LATER, system=78), 1.0) == UNSURE


def test_the_first_server_is_none_of_those() -> None:
    assert recognise([], A, 0) == Recognised(None, "first_look")


def test_what_version_1_knew_of_a_server_goes_on_when_the_reset_is_the_same() -> None:
    assert recognise([Sight(reset="499.9")], A, 0) == AGAIN
    assert recognise([Sight()], OLD, 0) == AGAIN
    assert recognise([Sight(reset="300.0")], A, 0).is_unread
