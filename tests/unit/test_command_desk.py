"""What could go wrong: a command is executed twice (handed out again, after a restart, with another wording), two
commands with the same id are taken for one, a foreign or malformed target is obeyed, success is told before it is
durable, an unknown word is left without an answer; a host that allows nothing obeys all the same, or stays paused by
what was said before; a backend that gives commands without end wears out database, disk and log, or its flood keeps a
`stop` from being heard; what was done is not written down, or a secret is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent import command_history
from agent.body import unpack
from agent.command_desk import PAUSED_NOTE, TOLD_AGAIN_S, is_paused
from agent.command_log import ANSWERED, LEFT, RECEIVED
from agent.commands import TOO_LARGE, Command, parse
from agent.ration import REFILL_S
from agent.sinks import COMMAND_RESULT
from agent.source_errors import LoginRefused
from storage.errors import OutboxFull
from tests.fakes.manual import Rig
from tests.fakes.source import FakeSource


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.outbox.close()


def results(rig: Rig) -> list[dict[str, Any]]:
    found, seen = [], set[int]()
    while (envelope := rig.outbox.head(COMMAND_RESULT, seen)) is not None:
        seen.add(envelope.seq)
        found.append(orjson.loads(unpack(envelope.body)))
    return found


def told(rig: Rig) -> list[tuple[int, bool]]:
    return [(result["command_id"], result["success"]) for result in results(rig)]


def test_stop_is_told_as_done_with_the_flag_on_the_disk(rig: Rig) -> None:
    rig.desk.carry_out(Command(1, "stop"))
    assert (told(rig), rig.outbox.note("paused/default"), rig.watch.state) == ([(1, True)], "1", "paused")


def test_start_removes_the_flag(rig: Rig) -> None:
    for number, word in enumerate(("stop", "start")):
        rig.desk.carry_out(Command(number, word))
    assert (told(rig), rig.outbox.note("paused/default"), rig.watch.state) == ([(0, True), (1, True)], None, "idle")


def test_a_stop_that_cannot_be_stored_changes_nothing_and_works_when_it_comes_again(rig: Rig) -> None:
    rig.outbox.disk_full = 1
    with pytest.raises(OutboxFull):
        rig.desk.carry_out(Command(1, "stop"))
    assert (told(rig), rig.outbox.note("paused/default"), rig.watch.state) == ([], None, "idle")
    rig.desk.carry_out(Command(1, "stop"))
    assert (told(rig), rig.watch.state) == ([(1, True)], "paused")


@pytest.mark.parametrize("word", ["stop", "nonsense", "update_config", ""])
def test_a_command_that_comes_again_is_not_done_again(rig: Rig, word: str) -> None:
    for _ in range(3):
        rig.desk.carry_out(Command(1, word, {"collection_interval": 5}, "noon"))
    assert len(results(rig)) == 1


def test_a_command_that_comes_again_after_a_restart_is_not_done_again(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.desk.carry_out(Command(1, "stop", {}, "noon"))
    first.desk.carry_out(Command(2, "start", {}, "one"))
    first.outbox.close()
    second = Rig(tmp_path)
    second.desk.carry_out(Command(1, "stop", {}, "noon"))
    assert (len(results(second)), second.watch.state) == (2, "idle")
    second.outbox.close()


def test_an_id_that_the_backend_uses_again_later_is_another_command(rig: Rig) -> None:
    rig.desk.carry_out(Command(1, "stop", {}, "noon"))
    rig.desk.carry_out(Command(1, "start", {}, "one"))
    assert (len(results(rig)), rig.watch.state) == (2, "idle")


def test_collect_is_noted_once_and_answered_by_the_look(rig: Rig) -> None:
    for _ in range(2):
        rig.desk.carry_out(Command(1, "collect", {}, "noon"))
    rig.desk.carry_out(Command(1, "collect", {"other": 1}, "noon"))
    assert (len(rig.watch.asked), results(rig)) == (1, [])
    with rig.desk.answers(success=True, details={"records": 3}) as change:
        pass
    assert [orjson.loads(unpack(draft.body)) for draft in change.drafts] == [
        {"command_id": 1, "success": True, "result": {"records": 3}}
    ]
    assert change.marks == ("command/7/1/noon",)


def test_an_unknown_word_is_answered_with_its_beginning(rig: Rig) -> None:
    rig.desk.carry_out(parse([{"id": 1, "command": "x" * 5_000}])[0])
    error = f"unknown command {'x' * 97}..."
    assert results(rig) == [{"command_id": 1, "success": False, "result": {"error": error, "code": "CM-01"}}]


@pytest.mark.parametrize("word", ["stop", "collect", "update_config"])
@pytest.mark.parametrize("target", ["other", 5, ["default"], ""])
def test_an_unknown_target_is_refused(rig: Rig, word: str, target: object) -> None:
    rig.desk.carry_out(Command(1, word, {"target": target, "collection_interval": 5}))
    assert (told(rig), rig.watch.state, rig.watch.asked, rig.configs) == ([(1, False)], "idle", [], [])


@pytest.mark.parametrize("params", [{}, {"target": "default"}, {"target": None}])
def test_without_a_target_or_with_its_own_name_the_watch_obeys(rig: Rig, params: dict[str, object]) -> None:
    rig.desk.carry_out(Command(1, "stop", params))
    assert (told(rig), rig.watch.state) == ([(1, True)], "paused")


def test_update_config_changes_the_schedule_and_tells_who_else_is_concerned(rig: Rig) -> None:
    rig.watch.begin()
    rig.watch.has_finished("", rig.clock.monotonic())
    rig.desk.carry_out(Command(1, "update_config", {"collection_interval": 15, "heartbeat_interval": 9}))
    assert told(rig) == [(1, True)]
    assert ([config.heartbeat_interval for config in rig.configs], rig.watch.wait_s(rig.clock.monotonic())) == ([9], 15)


def test_a_refused_change_is_answered_with_the_reason(rig: Rig) -> None:
    rig.desk.carry_out(Command(1, "update_config", {"collection_interval": -1}))
    (result,) = results(rig)
    assert (result["success"], result["result"]["code"], rig.configs) == (False, "CM-01", [])
    assert "collection_interval" in result["result"]["error"]


def test_a_change_whose_answer_cannot_be_stored_gives_its_source_all_the_same(rig: Rig) -> None:
    rig.outbox.disk_full = 1
    command = Command(1, "update_config", {"db_config": {"password": "new"}})
    assert rig.desk.carry_out(command) is rig.made[0]
    assert (rig.outbox.failures, results(rig)) == (1, [])
    assert rig.desk.carry_out(command) is None
    assert (told(rig), len(rig.made)) == ([(1, True)], 1)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.event for record in caplog.records if hasattr(record, "event") and record.levelname == "WARNING"]


# -- a host that allows nothing --------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, remote_config="off")
    yield made
    made.outbox.close()


@pytest.mark.parametrize("word", ["start", "stop", "collect", "update_config", "nonsense"])
def test_switched_off_every_word_is_refused_with_the_reason_and_has_no_effect(closed: Rig, word: str) -> None:
    closed.desk.carry_out(Command(1, word, {"collection_interval": 15}, "noon"))
    refused = {"error": "remote_config is off on this host", "code": "CM-01"}
    assert results(closed) == [{"command_id": 1, "success": False, "result": refused}]
    assert (closed.watch.state, closed.watch.asked, closed.configs) == ("idle", [], [])
    assert steps(closed) == [(RECEIVED, 1), (ANSWERED, 1)]


def test_a_pause_of_before_ends_when_the_host_allows_nothing_any_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Rig(tmp_path)
    first.desk.carry_out(Command(1, "stop"))
    first.outbox.close()
    second = Rig(tmp_path, remote_config="off")
    assert (second.watch.state, second.outbox.note(f"{PAUSED_NOTE}/default")) == ("idle", None)
    assert events(caplog) == ["pause.ended"]
    second.outbox.close()


def test_a_pause_ends_then_also_where_nothing_can_be_stored(rig: Rig) -> None:
    rig.desk.carry_out(Command(1, "stop"))
    assert is_paused(rig.outbox, "default", "safe")
    rig.outbox.disk_full = 1
    assert not is_paused(rig.outbox, "default", "off")
    assert rig.outbox.failures == 1


@pytest.mark.parametrize("mode", ["safe", "any"])
def test_elsewhere_a_pause_goes_on(rig: Rig, mode: str) -> None:
    assert not is_paused(rig.outbox, "default", mode)
    rig.desk.carry_out(Command(1, "stop"))
    assert is_paused(rig.outbox, "default", mode)


# -- too much --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["stop", "start", "collect", "update_config", "nonsense"])
def test_a_command_that_nobody_should_look_into_is_refused_whatever_it_says(rig: Rig, word: str) -> None:
    (command,) = parse([{"id": 1, "command": word, "params": {"target": [[[[[[[[]]]]]]]]}, "created_at": "noon"}])
    rig.desk.carry_out(command)
    assert results(rig) == [{"command_id": 1, "success": False, "result": {"error": TOO_LARGE, "code": "CM-01"}}]
    assert (rig.watch.state, rig.watch.asked) == ("idle", [])


def test_what_comes_beyond_the_ration_waits_and_comes_through_later(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    flood = [Command(number, "dance", {}, "noon") for number in range(100)]
    for _ in range(2):  # as each heartbeat hands them out
        for command in flood:
            rig.desk.carry_out(command)
    assert [number for number, _ in told(rig)] == list(range(60))
    assert events(caplog).count("command.flood") == 1
    assert steps(rig).count((LEFT, 60)) == 1
    rig.clock.turn(2 * REFILL_S)
    for command in flood:
        rig.desk.carry_out(command)
    assert [number for number, _ in told(rig)] == list(range(62))
    rig.clock.turn(TOLD_AGAIN_S)
    for command in flood:
        rig.desk.carry_out(command)
    assert len(told(rig)) == 100


def test_a_stop_is_heard_in_any_flood_and_once(rig: Rig) -> None:
    for number in range(100):
        rig.desk.carry_out(Command(number, "dance", {}, "noon"))
    for number in range(100, 110):
        rig.desk.carry_out(Command(number, "stop", {}, "noon"))
    assert ([number for number, success in told(rig) if success], rig.watch.state) == ([100], "paused")


def test_a_stop_that_is_refused_anyway_is_none_that_must_be_heard(closed: Rig) -> None:
    for number in range(100):
        closed.desk.carry_out(Command(number, "stop", {}, "noon"))
    assert len(results(closed)) == 60


# -- what is written down --------------------------------------------------------------------------------------------


def steps(rig: Rig) -> list[tuple[object, object]]:
    history = command_history.read(rig.layers.data_dir)
    assert history.unreadable == 0
    return [(entry["step"], entry["id"]) for entry in history.entries]


def test_a_command_is_written_down_before_its_effect_and_when_it_was_answered_and_never_again(rig: Rig) -> None:
    seen: list[object] = []
    commit = rig.outbox.commit

    def looking(change: Any) -> None:
        seen.append(steps(rig))
        commit(change)

    rig.outbox.commit = looking  # type: ignore[method-assign]
    for _ in range(3):
        rig.desk.carry_out(Command(1, "stop", {}, "noon"))
    assert (seen, steps(rig)) == ([[(RECEIVED, 1)]], [(RECEIVED, 1), (ANSWERED, 1)])


def test_one_that_has_to_come_again_is_written_down_once_and_answered_once(rig: Rig) -> None:
    for _ in range(3):
        rig.outbox.disk_full = 1
        with pytest.raises(OutboxFull):
            rig.desk.carry_out(Command(1, "stop", {}, "noon"))
    assert steps(rig) == [(RECEIVED, 1)]
    rig.desk.carry_out(Command(1, "stop", {}, "noon"))
    assert steps(rig) == [(RECEIVED, 1), (ANSWERED, 1)]


def test_the_answer_of_a_look_is_written_down_when_it_is_stored(rig: Rig) -> None:
    rig.desk.carry_out(Command(1, "collect", {}, "noon"))
    rig.desk.carry_out(Command(2, "collect", {}, "noon"))
    rig.outbox.disk_full = 1
    with pytest.raises(OutboxFull), rig.desk.answers(success=True, details={"records": 3}) as change:
        rig.outbox.commit(change)
    assert steps(rig) == [(RECEIVED, 1), (RECEIVED, 2)]
    with rig.desk.answers(success=True, details={"records": 3}) as change:
        rig.outbox.commit(change)
    assert steps(rig)[2:] == [(ANSWERED, 1), (ANSWERED, 2)]


def refused(rig: Rig, password: str, sentence: str) -> dict[str, Any]:
    """The result of a new password that a server refuses so."""
    refusing = FakeSource()
    refusing.refusal = LoginRefused(sentence)
    rig.next_source = lambda: refusing
    rig.desk.carry_out(Command(1, "update_config", {"db_config": {"password": password}}, "noon"))
    (result,) = results(rig)
    return result


def test_a_server_that_says_the_password_again_is_not_repeated(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    result = refused(rig, "hunter2", "who is hunter2?")
    assert "who is ***?" in result["result"]["error"]
    written = (rig.layers.data_dir / "commands.log").read_text() + caplog.text + repr(result)
    assert ("who is ***?" in written, "hunter2" in written) == (True, False)


def test_a_password_too_short_to_be_cut_out_hides_the_whole_sentence(rig: Rig) -> None:
    result = refused(rig, "xy", "who is (xy)?")
    assert "why is not shown here" in result["result"]["error"]
    assert "who is" not in (rig.layers.data_dir / "commands.log").read_text() + repr(result)
