"""What could go wrong: a command is executed twice (handed out again, after a restart, with another wording), two
commands with the same id are taken for one, a foreign or malformed target is obeyed, success is told before it is
durable, an unknown word is left without an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.body import unpack
from agent.commands import Command
from agent.sinks import COMMAND_RESULT
from storage.errors import OutboxFull
from tests.fakes.manual import Rig


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
    rig.desk.carry_out(Command(1, "x" * 5_000))
    assert results(rig) == [{"command_id": 1, "success": False, "result": {"error": f"unknown command {'x' * 100}"}}]


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
    rig.desk.carry_out(Command(1, "update_config", {"collection_interval": 5, "heartbeat_interval": 9}))
    assert told(rig) == [(1, True)]
    assert ([config.heartbeat_interval for config in rig.configs], rig.watch.wait_s(rig.clock.monotonic())) == ([9], 5)


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
