"""What a watch is to its database, through the real loop on a clock that the test turns.

What could go wrong: the time that the outbox or the agent takes is charged to the database; a backlog is taken for a
burden, so that catching up stops; a look is charged twice or never; a costly look is not told, or told again and again,
or as an error; a sick server is looked at, or never again; rows that waited are lost; a `collect` is not refused, or
refused for ever; the connection is given up and opened again; what another database cost keeps looks away from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.body import unpack
from agent.breaker import Breaker
from agent.commands import Command
from agent.logs import LOGGER
from agent.sinks import COMMAND_RESULT
from agent.source_errors import DatabaseAway, LoginRefused
from storage.envelope import Change
from tests.fakes.manual import Rig
from tests.fakes.source import FakeSource

BUDGET: dict[str, Any] = {"db_config": {"max_load": 0.01}}


class Heard(logging.Handler):
    """Keeps what was said: event and sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.__dict__["event"], record.getMessage()))

    def about(self, *events: str) -> list[str]:
        """The sentences of these events."""
        return [sentence for event, sentence in self.said if event in events]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, level = Heard(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield handler
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, **BUDGET)
    yield made
    made.outbox.close()


def takes(rig: Rig, seconds: float) -> None:
    """From now on the database answers after so long."""
    rig.source.before_read = lambda: rig.clock.turn(seconds)


def collect(rig: Rig, number: int) -> None:
    rig.inbox.put(Command(number, "collect", {}, f"at {number}"))


def results(rig: Rig) -> list[tuple[int, bool, str]]:
    found, seen = [], set[int]()
    while (envelope := rig.outbox.head(COMMAND_RESULT, seen)) is not None:
        seen.add(envelope.seq)
        body = orjson.loads(unpack(envelope.body))
        found.append((body["command_id"], body["success"], body["result"].get("error", "")))
    return found


def stats(rig: Rig) -> Any:
    return rig.board.status(now_s=rig.clock.monotonic(), now_unix=rig.clock.unix()).stats()


# -- measured, and the budget ------------------------------------------------------------------------------------------


def test_a_look_is_told_as_the_time_that_the_database_took_and_nothing_else(rig: Rig) -> None:
    takes(rig, 0.5)
    rig.source.rows = 20
    rig.source.between = lambda _: rig.clock.turn(0.25)
    rig.source.meter.received(999)  # of nobody's look
    original = rig.collector.save

    def save(extra: Change) -> None:
        rig.clock.turn(7)
        original(extra)

    rig.collector.save = save  # type: ignore[method-assign]
    rig.run_for(50)
    told = stats(rig)
    assert (told["look_seconds"], told["look_bytes"], told["collection_interval_effective"]) == (1.0, 0, 100.0)
    assert told["database_load"] == pytest.approx(1.0 / 3_600, rel=0.05)
    assert told["watches"]["default"]["look_seconds"] == 1.0


def test_costly_looks_come_later_which_is_told_once_when_it_begins_and_once_when_it_ends(
    rig: Rig, heard: Heard
) -> None:
    takes(rig, 2.5)
    rig.at(650, lambda: takes(rig, 0.5))
    reasons: list[tuple[str, Any]] = []
    rig.at(400, lambda: reasons.append((stats(rig)["state_reason"], stats(rig)["collection_interval_effective"])))
    rig.at(401, lambda: reasons.append((str(rig.board.watch("default").error), rig.source.reads)))
    rig.run_for(1_150)
    note = "looks come every 300 s instead of 100 s: one costs the database 2.5 s and max_load is 0.01"
    assert reasons == [(note, 300.0), ("None", 2)]
    assert heard.about("budget.stretched", "budget.kept") == [f"From now on {note}", "Looks come every 100 s again"]
    assert rig.source.reads == 6  # 0, 300, 600; 900 costs little; 1,000, 1,100
    assert (stats(rig)["state_reason"], stats(rig)["collection_interval_effective"]) == ("", 100.0)


def test_a_long_backlog_is_no_burden_and_the_next_look_comes_in_time(rig: Rig, heard: Heard) -> None:
    rig.source.rows, rig.source.chunk = 20_000, 500
    rig.source.between = lambda _: rig.clock.turn(1.0)
    rig.run_for(150)
    assert (rig.source.reads, heard.about("budget.stretched")) == (2, [])
    assert rig.outbox.tally("queries").captured == 20_000


def test_control_were_new_rows_a_burden_the_next_look_would_come_an_hour_later(rig: Rig) -> None:
    rig.source.rows, rig.source.chunk = 20_000, 500
    rig.source.between = lambda _: rig.clock.turn(1.0)
    rig.source.meter.receiving = rig.source.meter.answering  # type: ignore[method-assign]
    rig.run_for(3_500)
    assert rig.source.reads == 1


def test_a_refusal_counts_and_a_database_that_is_away_does_not(rig: Rig) -> None:
    def fail(error: Exception) -> None:
        rig.clock.turn(4.0)
        raise error

    rig.source.before_read = lambda: fail(LoginRefused("user u"))
    rig.at(300, lambda: rig.source.reads == 1 or pytest.fail("the refusal cost nothing"))
    rig.at(350, lambda: setattr(rig.source, "before_read", lambda: fail(DatabaseAway("gone"))))
    rig.run_for(420)
    assert (rig.source.reads > 3, rig.watch.state) == (True, "reconnecting")


def test_a_look_that_ends_for_want_of_room_counts_once(rig: Rig) -> None:
    takes(rig, 3.0)
    rig.source.rows, rig.source.chunk = 10_000, 500
    rig.source.between = lambda at: setattr(rig.outbox, "no_room", True) if at == 4_500 else None
    rig.at(20, lambda: rig.source.reads == 1 or pytest.fail("it read without room"))
    rig.at(50, lambda: setattr(rig.outbox, "no_room", False))
    rig.run_for(290)
    assert (rig.source.reads, round(stats(rig)["database_load"] * 3_600)) == (1, 3)


def test_a_new_budget_is_told_at_once(rig: Rig) -> None:
    takes(rig, 2.5)
    change = Command(1, "update_config", {"collection_interval": 1_000}, "noon")
    rig.at(10, lambda: rig.inbox.put(change))
    rig.run_for(11)
    assert (stats(rig)["collection_interval_effective"], stats(rig)["state_reason"]) == (1_000.0, "")


# -- the breaker -------------------------------------------------------------------------------------------------------


def test_a_full_server_is_not_looked_at_and_its_rows_wait(rig: Rig, heard: Heard) -> None:
    rig.source.rows, rig.source.used = 10, 96
    rig.at(350, lambda: setattr(rig.source, "used", 95))
    seen: list[tuple[Any, ...]] = []
    rig.at(340, lambda: seen.append((rig.source.reads, rig.source.closes, rig.board.watch("default").error)))
    rig.run_for(450)
    assert [(reads, closes, str(error)[:7]) for reads, closes, error in seen] == [(0, 0, "[DB-05]")]
    assert "96 of 100 connections are used" in str(seen[0][2])
    assert len(heard.about("collection.wrong")) == len(heard.about("collection.right")) == 1
    assert (rig.outbox.tally("queries").captured, rig.board.watch("default").error, rig.source.strains) == (10, None, 5)


def test_control_without_the_breaker_the_full_server_is_looked_at(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaker, "against_strain", lambda *_: None)
    rig.source.used = 100
    rig.run_for(350)
    assert rig.source.reads == 4


@pytest.mark.parametrize("max_load", [0, 0.02])
def test_after_a_slow_look_one_is_left_out_and_a_usual_one_closes(
    tmp_path: Path, heard: Heard, max_load: float
) -> None:
    rig = Rig(tmp_path, db_config={"max_load": max_load})
    takes(rig, 0.01)
    rig.at(450, lambda: takes(rig, 2.0))
    rig.at(550, lambda: takes(rig, 0.01))
    seen: list[tuple[int, str | None]] = []
    for at_s in (495, 510, 610, 710, 810):
        rig.at(at_s, lambda: seen.append((rig.source.reads, rig.board.watch("default").error)))
    rig.run_for(850)
    assert [reads for reads, _ in seen] == [5, 6, 6, 7, 8]
    assert [error is None for _, error in seen] == [True, False, False, True, True]
    assert "an answer took 2.0 s instead of about 0.01 s; no look for 100 s" in str(seen[1][1])
    assert len(heard.about("collection.wrong")) == len(heard.about("collection.right")) == 1
    rig.outbox.close()


def test_the_slow_look_itself_is_kept_and_its_collect_succeeded(rig: Rig) -> None:
    takes(rig, 0.01)
    for at_s, seconds, rows in ((550, 2.0, 5), (560, 0.01, 8)):
        rig.at(at_s, partial(takes, rig, seconds))
        rig.at(at_s, partial(setattr, rig.source, "rows", rows))
    rig.at(551, lambda: collect(rig, 1))
    rig.at(561, lambda: collect(rig, 2))
    rig.at(640, lambda: collect(rig, 3))
    rig.at(670, lambda: collect(rig, 4))
    rig.run_for(690)
    assert [(number, success) for number, success, _ in results(rig)] == [(1, True), (2, False), (3, False), (4, True)]
    assert [error[:7] for _, success, error in results(rig) if not success] == ["[DB-05]", "[DB-05]"]
    assert rig.outbox.tally("queries").captured == 8
    assert rig.board.watch("default").last_error is not None


def test_a_collect_of_a_full_server_is_refused_with_the_reason_also_while_paused(rig: Rig) -> None:
    rig.source.used = 100
    rig.inbox.put(Command(1, "stop", {}, "noon"))
    rig.at(10, lambda: collect(rig, 2))
    rig.at(20, lambda: setattr(rig.source, "used", 5))
    rig.at(30, lambda: collect(rig, 3))
    rig.run_for(40)
    assert [(number, success) for number, success, _ in results(rig)] == [(1, True), (2, False), (3, True)]
    assert "100 of 100 connections are used" in results(rig)[1][2]
    assert (rig.watch.state, rig.source.reads) == ("paused", 1)


def test_another_database_is_looked_at_whatever_was_wrong_with_the_last_one(rig: Rig) -> None:
    takes(rig, 0.01)
    rig.at(550, lambda: takes(rig, 2.0))
    rig.next_source = lambda: FakeSource(clock=rig.clock)
    change = {"db_config": {"host": "other.example", "password": "new"}}
    rig.at(610, lambda: rig.board.watch("default").error or pytest.fail("the fault did not happen"))
    rig.at(620, lambda: rig.inbox.put(Command(1, "update_config", change, "noon")))
    rig.run_for(630)
    assert (rig.made[0].reads, rig.board.watch("default").error) == (1, None)


def test_a_database_that_goes_away_when_it_is_asked_is_away(rig: Rig) -> None:
    rig.at(50, lambda: setattr(rig.source, "away", True))
    rig.run_for(150)
    assert (rig.watch.state, rig.source.reads, rig.source.closes > 0) == ("reconnecting", 1, True)
