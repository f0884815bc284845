"""What could go wrong: a row is skipped or doubled by a failure in mid-look, a command is lost, answered twice or
before its effect is durable, a pause is forgotten, a look begins while the database is away, an error is told for
ever, the thread spins, a new source is put under a look that runs, a word to stop is heard late, a step that hangs is
none of its pulse.
"""

from __future__ import annotations

import queue
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.body import unpack
from agent.collector import TURN_RECORDS, Collector
from agent.commands import Command
from agent.pulse import Step
from agent.sinks import COMMAND_RESULT, QUERIES
from agent.source_errors import DatabaseAway, LoginRefused
from agent.sources import READING
from agent.watch_loop import Stop
from tests.fakes.clock import ManualClock
from tests.fakes.manual import Rig, ScriptedInbox, Spinning
from tests.fakes.source import FakeSource


def bodies(rig: Rig, topic: str) -> list[Any]:
    found, seen = [], set[int]()
    while (envelope := rig.outbox.head(topic, seen)) is not None:
        seen.add(envelope.seq)
        found.append(orjson.loads(unpack(envelope.body)))
    return found


def rows(rig: Rig) -> list[str]:
    return [record["id"] for body in bodies(rig, QUERIES) for record in body["queries"]]


def results(rig: Rig) -> list[tuple[int, bool]]:
    return [(body["command_id"], body["success"]) for body in bodies(rig, COMMAND_RESULT)]


def numbered(count: int) -> list[str]:
    return [f"r{number}" for number in range(count)]


def grow(rig: Rig, to: int, number: int) -> None:
    rig.source.rows = to
    give(rig, number, "collect")


def give(rig: Rig, number: int, word: str, **params: object) -> None:
    rig.inbox.put(Command(number, word, params, f"at {number}"))


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    made = Rig(tmp_path)
    yield made
    made.outbox.close()


# -- looks ---------------------------------------------------------------------------------------------------------


def test_it_looks_at_the_start_and_then_every_interval_and_each_row_comes_once(rig: Rig) -> None:
    rig.source.rows = 25
    rig.at(150, lambda: setattr(rig.source, "rows", 60))
    rig.run_for(350)
    assert (rig.source.reads, rows(rig)) == (4, numbered(60))
    assert rig.states == ["collecting", "idle"] * 4


def test_the_coverage_of_the_last_whole_look_is_told(rig: Rig) -> None:
    told: list[float | None] = []
    rig.source.rows, rig.source.coverage = 5, 0.5
    rig.at(50, lambda: told.append(rig.board.watch("default").coverage))
    rig.at(60, lambda: setattr(rig.source, "away", True))
    rig.at(190, lambda: told.append(rig.board.watch("default").coverage))
    rig.at(195, lambda: setattr(rig.source, "away", False))
    rig.run_for(350)
    assert (told, rig.board.watch("default").coverage) == ([0.5, 0.5], None)  # the last looks met no rows


def test_nothing_is_read_twice_after_a_restart(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.source.rows = 25
    first.run_for(1)
    first.outbox.close()
    second = Rig(tmp_path, source=first.source)
    second.source.rows = 40
    second.run_for(1)
    assert rows(second) == numbered(40)
    second.outbox.close()


def test_a_long_look_is_saved_in_turns_and_hears_words_between_readings(rig: Rig) -> None:
    rig.source.rows, rig.source.chunk = 2 * TURN_RECORDS + 7, 500
    pending: list[int] = []
    rig.source.between = lambda _: pending.append(len(rows(rig)))
    rig.run_for(1)
    assert sorted(set(pending)) == [0, TURN_RECORDS, 2 * TURN_RECORDS]
    assert len(rows(rig)) == 2 * TURN_RECORDS + 7


def test_rows_read_before_the_database_went_away_are_kept_and_the_rest_comes_later(rig: Rig) -> None:
    rig.source.rows = 30
    rig.source.between = lambda at: setattr(rig.source, "away", at == 20)
    rig.at(10, lambda: _is_away_with(rig, 20))
    rig.run_for(100)
    assert (rows(rig), rig.watch.state, rig.board.watch("default").error) == (numbered(30), "idle", None)


def _is_away_with(rig: Rig, count: int) -> None:
    assert (rows(rig), rig.watch.state) == (numbered(count), "reconnecting")
    assert rig.board.watch("default").error is not None
    rig.source.away, rig.source.between = False, lambda _: None


def test_it_stays_reconnecting_until_a_try_succeeds(rig: Rig) -> None:
    rig.source.away = True
    rig.at(200, lambda: setattr(rig.source, "away", False))
    rig.run_for(299)
    back = rig.states.index("collecting", 1)
    assert rig.states[:2] == ["collecting", "reconnecting"]
    assert set(rig.states[1:back]) == {"reconnecting"}
    assert rig.states[back:][:2] == ["collecting", "idle"]
    assert rig.source.checks > 5


def test_tries_grow_rarer_while_the_database_is_away(rig: Rig) -> None:
    rig.source.away = True
    rig.run_for(3_600)
    assert 100 < rig.source.checks < 140  # a minute's jitter halves to 30 s each


def test_a_wrong_password_is_tried_again_at_the_next_due_time_only(rig: Rig) -> None:
    rig.source.refusal = LoginRefused("user u")
    rig.run_for(350)
    assert (rig.source.strains, rig.watch.state, rig.board.watch("default").errors_count) == (4, "idle", 4)
    assert "DB-03" in str(rig.board.watch("default").error)


def test_an_error_is_null_when_it_is_over_and_stays_the_last_one(rig: Rig) -> None:
    rig.source.refusal = LoginRefused("user u")
    rig.at(150, lambda: setattr(rig.source, "refusal", None))
    rig.run_for(250)
    status = rig.board.watch("default")
    assert (status.error, status.reason, "DB-03" in str(status.last_error)) == (None, "", True)


# -- a full outbox -------------------------------------------------------------------------------------------------


def test_without_room_nothing_is_read_and_it_goes_on_by_itself(rig: Rig) -> None:
    rig.source.rows, rig.outbox.no_room = 10, True
    rig.at(52, lambda: setattr(rig.outbox, "no_room", False))
    rig.at(51, lambda: None if rig.source.reads == 0 else pytest.fail("it read without room"))
    rig.run_for(60)
    assert (rows(rig), rig.states) == (numbered(10), ["collecting", "idle"])


def test_a_disk_that_fills_in_mid_look_neither_skips_nor_doubles(rig: Rig) -> None:
    rig.source.rows, rig.source.chunk = TURN_RECORDS + 100, 500
    rig.source.before_read = lambda: setattr(rig.outbox, "disk_full", int(rig.outbox.failures == 0))
    rig.run_for(50)
    assert (rig.outbox.failures, rig.source.reads) == (1, 2)
    assert rows(rig) == numbered(TURN_RECORDS + 100)


def test_the_outbox_that_reaches_its_limit_in_mid_look_keeps_the_turn_and_waits(rig: Rig) -> None:
    rig.source.rows, rig.source.chunk = 2 * TURN_RECORDS, 500
    rig.source.between = lambda at: setattr(rig.outbox, "no_room", True) if at == TURN_RECORDS - 500 else None
    rig.at(4, lambda: (len(rows(rig)) == TURN_RECORDS) or pytest.fail("the fault did not happen"))
    rig.at(4.5, lambda: setattr(rig.outbox, "no_room", False))
    rig.run_for(50)
    assert (len(rows(rig)), rows(rig), rig.source.reads) == (2 * TURN_RECORDS, numbered(2 * TURN_RECORDS), 2)


# -- commands ------------------------------------------------------------------------------------------------------


def test_collect_looks_at_once_and_answers_with_its_last_turn(rig: Rig) -> None:
    rig.at(50, lambda: grow(rig, 5, 1))
    rig.at(51, lambda: results(rig) == [(1, True)] or pytest.fail("no answer"))
    rig.run_for(52)
    assert (results(rig), rows(rig)) == ([(1, True)], numbered(5))


def test_the_answer_of_collect_and_its_last_turn_are_one_transaction(rig: Rig) -> None:
    rig.source.rows = 5
    rig.source.before_read = lambda: setattr(rig.outbox, "disk_full", 2 if rig.outbox.failures == 0 else 0)
    give(rig, 1, "collect")
    rig.run_for(1)
    assert (rig.outbox.failures, rows(rig), results(rig)) == (2, [], [])  # both failed, so neither is there


def test_a_collect_that_arrives_during_a_look_joins_it(rig: Rig) -> None:
    rig.source.rows = 30
    rig.source.between = lambda at: give(rig, at, "collect") if at < 30 else None
    rig.run_for(1)
    assert (rig.source.reads, results(rig)) == (1, [(10, True), (20, True)])


def test_a_collect_handed_out_again_during_its_own_look_is_answered_once(rig: Rig) -> None:
    rig.source.rows = 30
    rig.source.between = lambda _: give(rig, 1, "collect")
    give(rig, 1, "collect")
    rig.run_for(1)
    assert (rig.source.reads, results(rig)) == (1, [(1, True)])


def test_collect_while_paused_runs_and_returns_to_paused(rig: Rig) -> None:
    give(rig, 1, "stop")
    rig.at(10, lambda: grow(rig, 5, 2))
    rig.run_for(500)
    assert (results(rig), rows(rig), rig.states) == (
        [(1, True), (2, True)],
        numbered(5),
        ["paused", "collecting", "paused"],
    )


def test_collect_while_paused_that_loses_the_database_fails_and_stays_paused(rig: Rig) -> None:
    rig.source.away = True
    give(rig, 1, "stop")
    rig.at(10, lambda: give(rig, 2, "collect"))
    rig.run_for(500)
    assert (results(rig), rig.states) == ([(1, True), (2, False)], ["paused", "collecting", "paused"])
    status = rig.board.watch("default")
    assert (status.error, "DB-01" in str(status.last_error)) == (None, True)


def test_a_collect_without_room_is_answered_with_the_reason(rig: Rig) -> None:
    rig.outbox.no_room = True
    give(rig, 1, "collect")
    rig.run_for(1)
    assert results(rig) == [(1, False)]


def test_a_stop_during_a_look_ends_in_paused_and_the_look_is_whole(rig: Rig) -> None:
    rig.source.rows = 30
    rig.source.between = lambda at: give(rig, 1, "stop") if at == 10 else None
    rig.run_for(500)
    assert (rows(rig), rig.states, results(rig)) == (numbered(30), ["collecting", "paused"], [(1, True)])


def test_pause_survives_a_restart_and_start_ends_it(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    give(first, 1, "stop")
    first.run_for(1)
    first.outbox.close()
    second = Rig(tmp_path)
    second.at(300, lambda: give(second, 2, "start"))
    second.run_for(301)
    assert (second.states, second.source.reads) == (["idle", "collecting", "idle"], 1)
    second.outbox.close()
    third = Rig(tmp_path)
    assert third.watch.state == "idle"
    third.outbox.close()


def test_a_pause_that_cannot_be_stored_is_neither_in_force_nor_answered(rig: Rig) -> None:
    rig.outbox.disk_full = 1
    give(rig, 1, "stop")
    rig.run_for(1)
    assert (rig.outbox.failures, rig.watch.state, rig.outbox.note("paused/default"), results(rig)) == (
        1,
        "idle",
        None,
        [],
    )


def test_a_start_does_not_overtake_a_stop_that_could_not_be_stored(rig: Rig) -> None:
    rig.outbox.disk_full = 1
    for seconds in (0, 5):  # two heartbeats
        rig.at(seconds, lambda: give(rig, 1, "stop"))
        rig.at(seconds, lambda: give(rig, 2, "start"))
    rig.run_for(10)
    assert (rig.outbox.failures, results(rig), rig.watch.state) == (1, [(1, True), (2, True)], "idle")


def test_a_pause_ends_the_error_of_a_database_that_nobody_tries_any_more(rig: Rig) -> None:
    rig.source.away = True
    rig.at(10, lambda: rig.board.watch("default").error or pytest.fail("the fault did not happen"))
    rig.at(11, lambda: give(rig, 1, "stop"))
    rig.run_for(12)
    assert (rig.watch.state, rig.board.watch("default").error) == ("paused", None)


def test_update_config_waits_for_the_end_of_the_look_and_is_done_once(rig: Rig) -> None:
    rig.source.rows = 30
    params = {"db_config": {"host": "other.example", "password": "new"}}
    busy: list[int] = []

    def made() -> FakeSource:
        busy.append(rig.source.reading_now)
        return FakeSource()

    rig.next_source = made
    rig.source.between = lambda _: give(rig, 1, "update_config", **params)
    rig.run_for(150)
    assert (busy, len(rig.made), rig.made[0].reads, rig.source.reads) == ([0], 1, 1, 1)
    assert (results(rig), rows(rig)) == ([(1, True)], numbered(30))


def test_a_changed_source_is_used_even_when_the_answer_could_not_be_stored(rig: Rig) -> None:
    params = {"db_config": {"host": "other.example", "password": "new"}}
    rig.at(10, lambda: setattr(rig.outbox, "disk_full", 1))
    rig.at(10, lambda: give(rig, 1, "update_config", **params))
    rig.at(20, lambda: give(rig, 1, "update_config", **params))
    rig.run_for(150)
    assert (rig.outbox.failures, len(rig.made), rig.made[0].reads, results(rig)) == (1, 1, 1, [(1, True)])


def test_a_postponed_change_does_not_undo_a_later_one(rig: Rig) -> None:
    rig.source.rows = 30

    def between(at: int) -> None:
        if at == 10:
            give(rig, 1, "update_config", collection_interval=50)
            rig.outbox.disk_full = 2

    rig.source.between = between
    rig.at(1, lambda: give(rig, 2, "update_config", collection_interval=70))
    rig.run_for(5)
    assert (rig.outbox.failures, results(rig)) == (2, [(2, True)])
    assert rig.reconfiguration.config.collection_interval == 70
    assert rig.watch.interval_s == 70


def test_words_are_heard_before_a_look_that_is_always_due(tmp_path: Path) -> None:
    rig = Rig(tmp_path, interval_s=0.1)
    rig.source.before_read = lambda: rig.clock.turn(1.0)
    for number in range(50):
        give(rig, number, "nonsense")
    rig.inbox.put(Stop())
    rig.loop.run()
    assert (rig.source.reads, len(results(rig))) == (0, 50)
    rig.outbox.close()


# -- the end, and defects --------------------------------------------------------------------------------------------


class Hanging(FakeSource):
    """A host that does not answer for a minute."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(clock=rig.clock)
        self._rig = rig

    def check(self) -> None:
        """In vain."""
        self.checks += 1
        self._rig.clock.turn(60)
        raise DatabaseAway("no answer")


@pytest.mark.parametrize("when", ["in between", "during each look"])
def test_a_backend_that_lets_hosts_be_tried_without_end_keeps_no_look_from_its_time(tmp_path: Path, when: str) -> None:
    rig = Rig(tmp_path, interval_s=100.0)
    rig.source.rows = 10
    rig.next_source = lambda: Hanging(rig)

    def flood() -> None:
        for number in range(50 if rig.inbox.empty() else 0):  # each heartbeat hands all of them out
            give(rig, number, "update_config", db_config={"host": "theirs", "password": "new"})

    if when == "during each look":
        rig.source.between = lambda _: flood()
        rig.source.before_read = lambda: setattr(rig.source, "rows", rig.source.rows + 10)
    else:
        for beat in range(1, 100):
            rig.at(30 * beat, flood)
    rig.run_for(3_000)
    tries = sum(source.checks for source in rig.made)
    assert tries >= 20, "the fault happened"
    assert rig.source.reads >= 3_000 / (2 * 60 + 100)
    assert rig.source.reads >= tries / 2


def test_stop_in_mid_look_saves_what_was_read_and_leaves_collect_to_be_asked_again(rig: Rig) -> None:
    rig.source.rows = 30
    rig.source.between = lambda at: rig.inbox.put(Stop()) if at == 10 else None
    give(rig, 1, "collect")
    rig.run_for(1)
    assert (rows(rig), results(rig), rig.source.reading_now) == (numbered(20), [], 0)
    assert rig.board.watch("default").last_collection_at is None


def test_stop_does_not_try_a_postponed_configuration_first(rig: Rig) -> None:
    rig.source.rows = 30

    def between(at: int) -> None:
        if at == 10:
            give(rig, 1, "update_config", db_config={"host": "other.example", "password": "new"})
            rig.inbox.put(Stop())

    rig.source.between = between
    rig.run_for(1)
    assert rig.made == []


def test_after_a_defect_in_mid_look_it_goes_on_from_the_saved_bookmark(rig: Rig) -> None:
    rig.source.rows, rig.source.chunk = TURN_RECORDS + 1_000, 500

    def defect(at: int) -> None:
        if at == TURN_RECORDS + 500:
            raise ZeroDivisionError

    rig.source.between = defect
    with pytest.raises(ZeroDivisionError):
        rig.run_for(150)
    assert (len(rows(rig)), rig.watch.state, rig.source.closes) == (TURN_RECORDS, "collecting", 1)
    rig.source.between = lambda _: None
    assert rig.board.watch("default").error is None
    rig.at(1, lambda: rig.board.watch("default").error or pytest.fail("nobody was told"))
    rig.loop.run()
    assert (rows(rig), rig.watch.state) == (numbered(TURN_RECORDS + 1_000), "idle")
    assert rig.board.watch("default").error is None


def test_each_reading_save_and_wait_is_a_step_with_the_time_that_it_may_take(rig: Rig) -> None:
    steps: list[Step | None] = []

    def note(*_: object) -> None:
        steps.append(rig.loop.pulse.step)

    rig.source.rows, rig.source.before_read, rig.source.between = 20, note, note
    object.__setattr__(rig.loop._parts, "on_saved", note)
    rig.at(50, note)
    rig.run_for(60)
    assert [step and (step.doing, step.at_most_s) for step in steps] == [
        (READING, 0.0),
        (READING, 0.0),
        (READING, 0.0),
        ("writing the outbox", 0.0),
        ("waiting", 100.0),
    ]
    assert len({id(step) for step in steps}) == 5  # each is progress


def test_while_paused_it_waits_for_a_word_however_long(rig: Rig) -> None:
    steps: list[Step | None] = []
    rig.at(1, lambda: give(rig, 1, "stop"))
    rig.at(100_000, lambda: steps.append(rig.loop.pulse.step))
    rig.run_for(100_001)
    assert [step and (step.doing, step.at_most_s) for step in steps] == [("waiting", None)]


def test_control_the_inbox_notices_a_loop_that_spins() -> None:
    inbox = ScriptedInbox(ManualClock())
    inbox.plan(2_000, lambda: None)
    with pytest.raises(Spinning):
        _poll_for_ever(inbox)


def _poll_for_ever(inbox: ScriptedInbox) -> None:
    while True:
        with suppress(queue.Empty):
            inbox.get_nowait()


# -- a bookmark that was lost with a damaged outbox -------------------------------------------------------------------


def test_after_a_lost_bookmark_it_skips_tells_the_gap_and_goes_on_from_there(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.source.rows = 25
    first.run_for(1)
    assert rows(first) == numbered(25)
    first.outbox.close()
    first.outbox.path.unlink()  # the mark beside it still knows that there was one

    again = Rig(tmp_path)
    again.source.rows = 40
    assert again.outbox.has_lost_bookmark("default")
    again.at(150, lambda: setattr(again.source, "rows", 43))
    again.run_for(250)
    assert rows(again) == ["r40", "r41", "r42"]
    assert again.outbox.bookmark("default") == b"43"
    assert not again.outbox.has_lost_bookmark("default")
    assert [(gap.source, gap.reason) for gap in again.outbox.gaps()] == [
        ("outbox", "missing"),
        ("fake", "bookmark_lost"),
    ]
    again.outbox.close()


def test_were_nothing_skipped_all_of_it_would_come_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Rig(tmp_path)
    first.source.rows = 25
    first.run_for(1)
    first.outbox.close()
    first.outbox.path.unlink()

    monkeypatch.setattr(Collector, "must_skip", False)
    again = Rig(tmp_path, source=first.source)
    again.run_for(1)
    assert rows(again) == numbered(25)
    again.outbox.close()


def test_while_the_database_is_away_a_lost_bookmark_stays_lost(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.source.rows = 5
    first.run_for(1)
    first.outbox.close()
    first.outbox.path.unlink()

    again = Rig(tmp_path)
    again.source.rows, again.source.away = 9, True
    again.run_for(1)
    assert again.outbox.has_lost_bookmark("default")
    assert again.outbox.bookmark("default") is None
    again.outbox.close()
