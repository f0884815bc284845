"""What the agent knows of itself.

What could go wrong: the state that matters is hidden by another watch; an error is told after it is over, so that the
backend shows ERROR for ever; a snapshot changes while it is being sent; one watch's report overwrites another's.
"""

from __future__ import annotations

import sys
import threading
from datetime import timedelta
from itertools import permutations

import orjson
import pytest

from agent import machine
from agent.cost import Cost, Load, Spent
from agent.pulse import Stuck, thread_of
from agent.status import FIRST_PRESENT, LinkStatus, Scoreboard, Status
from storage.envelope import Gap, Losses, LossSum, Tally
from tests.fakes.clock import NOON

NO_COST = {
    "look_seconds": 0.0,
    "look_rows": 0,
    "look_bytes": 0,
    "database_load": 0.0,
    "collection_interval_effective": 0.0,
}


def snapshot(board: Scoreboard) -> Status:
    return board.status(now_s=1_060.4, now_unix=2_000.0)


def board_with(*states: str) -> Scoreboard:
    board = Scoreboard(1_000.0)
    for number, state in enumerate(states):
        board.report(f"watch {number}", state=state)
    return board


def test_every_state_of_the_machine_has_its_rank() -> None:
    assert set(FIRST_PRESENT) == set(machine.STATES)


@pytest.mark.parametrize("states", list(permutations(FIRST_PRESENT, 2)))
def test_the_state_is_the_first_present_of_the_ranks(states: tuple[str, str]) -> None:
    assert snapshot(board_with(*states)).state == min(states, key=FIRST_PRESENT.index)


def test_the_ranks_are_those_that_were_promised() -> None:
    assert FIRST_PRESENT == ("reconnecting", "paused", "collecting", "idle")


@pytest.mark.parametrize("states", [(), ("idle",), ("idle", "idle")])
def test_without_news_it_is_idle(states: tuple[str, ...]) -> None:
    assert snapshot(board_with(*states)).state == "idle"


def test_an_error_is_told_while_it_lasts() -> None:
    board = board_with("idle", "idle")
    assert snapshot(board).error is None
    board.report("watch 0", error="no grant", last_error="no grant", last_error_at=NOON, errors_count=1)
    board.delivery = LinkStatus(error="backend away")
    assert snapshot(board).error == "watch 0: no grant; backend away"
    board.delivery = LinkStatus()
    assert snapshot(board).error == "watch 0: no grant"
    board.report("watch 0", error=None)
    assert snapshot(board).error is None
    assert snapshot(board).stats()["last_error"] == "watch 0: no grant"


def test_a_heartbeat_that_failed_is_no_error_of_the_next_one() -> None:
    board = board_with("idle")
    board.heartbeat = LinkStatus(error="refused")
    assert snapshot(board).error is None


def test_the_numbers_of_a_heartbeat() -> None:
    board = board_with("idle")
    later = NOON + timedelta(seconds=1)
    board.report(
        *("watch 0",),
        errors_count=2,
        last_error="e",
        last_error_at=later,
        last_collection_at=NOON,
        reason="why",
        coverage=0.75,
    )
    board.report("other", state="paused", errors_count=1, last_error="f", last_error_at=NOON, last_collection_at=later)
    board.books = Tally(
        captured=10,
        delivered=4,
        parked=1,
        pending=5,
        pending_bytes=99,
        envelopes=2,
        possible_duplicates=2,
        gaps=3,
        oldest_at=1_990.4,
    )
    gap = Gap("w", "rotated", "a", None, 4, "why", at=1_700_000_000.0)
    board.has_lost(Losses((gap,), (LossSum("w", "rotated", 3, 7, 1),)))
    board.heartbeat = LinkStatus(clock_skew_s=-0.5)
    stats = snapshot(board).stats()
    version = stats.pop("version")
    assert isinstance(version, str)
    assert stats == {
        "queries_collected": 10,
        "errors_count": 3,
        "uptime_seconds": 60,
        "last_error": "watch 0: e",
        "state": "paused",
        "state_reason": "watch 0: why",
        "queries_delivered": 4,
        "outbox_records": 5,
        "outbox_bytes": 99,
        "outbox_oldest_seconds": 10,
        "parked": 1,
        "gaps": 3,
        "gaps_estimate": 7,
        "gaps_uncounted": 1,
        "gaps_by_reason": [{"source": "w", "reason": "rotated", "times": 3, "estimate": 7, "uncounted": 1}],
        "gaps_newest": [
            {
                "source": "w",
                "reason": "rotated",
                "since": "a",
                "until": None,
                "estimate": 4,
                "times": 1,
                "detail": "why",
                "recorded_at": "2023-11-14T22:13:20+00:00",
            }
        ],
        "possible_duplicates": 2,
        "last_collection_at": later,
        "backend_clock_skew_seconds": -0.5,
        "stuck": None,
        "remote_changes": None,
        "coverage": 0.75,
        **NO_COST,
        "watches": {
            "watch 0": {
                "state": "idle",
                "state_reason": "why",
                "errors_count": 2,
                "last_error": "e",
                "last_collection_at": NOON,
                "coverage": 0.75,
                **NO_COST,
            },
            "other": {
                "state": "paused",
                "state_reason": "",
                "errors_count": 1,
                "last_error": "f",
                "last_collection_at": later,
                "coverage": None,
                **NO_COST,
            },
        },
    }
    assert orjson.loads(orjson.dumps(stats))["last_collection_at"] == "2024-05-01T12:00:01+00:00"


def test_the_coverage_of_all_is_the_lowest_that_is_known() -> None:
    board = board_with("idle", "idle", "idle")
    assert snapshot(board).stats()["coverage"] is None
    board.report("watch 0", coverage=1.0)
    board.report("watch 1", coverage=0.0)
    assert snapshot(board).stats()["coverage"] == 0.0


def test_an_empty_outbox_has_no_age_and_a_clock_that_jumped_gives_no_negative_one() -> None:
    board = board_with("idle")
    assert snapshot(board).stats()["outbox_oldest_seconds"] == 0
    board.books = Tally(oldest_at=3_000.0)
    assert snapshot(board).stats()["outbox_oldest_seconds"] == 0


def test_a_snapshot_does_not_change_afterwards() -> None:
    board = board_with("idle")
    before = snapshot(board)
    board.report("watch 0", state="paused", error="e")
    board.report("watch 1", state="reconnecting")
    board.delivery = LinkStatus(error="away")
    assert (before.state, before.error, list(before.watches)) == ("idle", None, ["watch 0"])
    assert snapshot(board).state == "reconnecting"


def test_a_watch_keeps_what_it_did_not_report_anew() -> None:
    board = board_with("idle")
    board.report("watch 0", errors_count=1)
    board.report("watch 0", state="paused")
    assert (board.watch("watch 0").errors_count, board.watch("watch 0").state) == (1, "paused")
    assert board.watch("nobody").state == "idle"


def test_reports_of_several_threads_do_not_overwrite_each_other() -> None:
    board, rounds = Scoreboard(0.0), 1_000
    start = threading.Barrier(4)
    lost: list[str] = []

    def report(name: str) -> None:
        start.wait()
        for number in range(rounds):
            if board.watch(name).errors_count != number:
                lost.append(name)
            board.report(name, errors_count=number + 1)

    threads = [threading.Thread(target=report, args=(str(number),)) for number in range(4)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval_s)
    assert lost == []


def test_a_stuck_thread_is_an_error_and_the_reason_of_its_watch_only() -> None:
    board = board_with("collecting", "idle")
    board.report("watch 0", reason="the table is crashed")
    board.report("watch 1", error="no grant")
    board.stuck = (Stuck(thread_of("watch 0"), "reading the database", 1_000.0), Stuck("flusher", "sending", 1_050.0))
    status = snapshot(board)
    assert status.error == (
        "watch 1: no grant; watch watch 0 is stuck: reading the database for 60 s; flusher is stuck: sending for 10 s"
    )
    stats = status.stats()
    assert stats["stuck"] == "watch watch 0: reading the database for 60 s; flusher: sending for 10 s"
    assert stats["state_reason"] == "watch 0: the table is crashed; stuck: reading the database for 60 s"
    reasons = {name: watch["state_reason"] for name, watch in orjson.loads(orjson.dumps(stats["watches"])).items()}
    assert reasons == {"watch 0": "the table is crashed; stuck: reading the database for 60 s", "watch 1": ""}


def test_a_single_watch_needs_no_name_before_its_troubles() -> None:
    board = board_with("idle")
    board.report("watch 0", error="e", reason="r", last_error="l", last_error_at=NOON)
    status = snapshot(board)
    assert (status.error, status.stats()["state_reason"], status.stats()["last_error"]) == ("e", "r", "l")


def test_the_cost_of_looks_is_summed_up_and_the_worst_of_the_watches_is_that_of_the_agent() -> None:
    board = board_with("idle", "idle")
    board.report("watch 0", spent=Spent(Cost(1.5, 1.0, 0.5, 200, 3_000), Load(36.0, 1_060.4), 300.0))
    slow = Spent(Cost(4.0006, 4.0, 4.0, 50, 700), Load(72.0, 1_060.4), 600.0, "looks come every 600 s")
    board.report("watch 1", spent=slow, reason="why")
    stats = snapshot(board).stats()
    assert {name: stats[name] for name in NO_COST} == {
        "look_seconds": 5.501,
        "look_rows": 250,
        "look_bytes": 3_700,
        "database_load": 0.02,
        "collection_interval_effective": 600.0,
    }
    second = stats["watches"]["watch 1"]  # type: ignore[index]
    assert second["state_reason"] == "why; looks come every 600 s"
    assert {name: second[name] for name in NO_COST} == {
        "look_seconds": 4.001,
        "look_rows": 50,
        "look_bytes": 700,
        "database_load": 0.02,
        "collection_interval_effective": 600.0,
    }
    assert snapshot(board).error is None  # a budget that is kept is nothing wrong


def test_the_load_of_a_heartbeat_is_that_of_its_moment() -> None:
    board = board_with("idle")
    board.report("watch 0", spent=Spent(load=Load(36.0, 1_060.4)))
    later = board.status(now_s=1_060.4 + 3_600, now_unix=0.0).stats()
    assert (snapshot(board).stats()["database_load"], later["database_load"]) == (0.01, 0.0036788)
