"""What could go wrong: a command for several watches gets several results or none, or success is told although one
watch failed; it has its effect twice in a watch (handed out again, after a restart, in the moment in which another
watch makes the result); parts of a command that one watch never does stay for ever, or drive out those that are still
waited for; one that hangs keeps the others from their commands; a watch that is new or gone blocks a result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.command_book import PARTS_KEPT, PARTS_KEPT_S, PARTS_NOTE
from agent.commands import Command, Result
from storage.errors import OutboxFull
from tests.fakes.several import Several

STOP = Command(1, "stop", {}, "noon")
WAIT_S = 20.0


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Several]:
    made = Several(tmp_path, ["orders", "billing", "stock"])
    yield made
    made.close()


def test_the_last_watch_to_do_its_part_tells_of_all(many: Several) -> None:
    for name in ("billing", "orders"):
        many.desks[name].carry_out(STOP)
        assert many.results() == []
    assert many.paused() == ["orders", "billing"]
    many.desks["stock"].carry_out(STOP)
    part = {"message": "collecting is paused", "success": True}
    assert many.results() == [
        {"command_id": 1, "success": True, "result": {"watches": dict.fromkeys(("orders", "billing", "stock"), part)}}
    ]
    assert many.outbox.notes(PARTS_NOTE) == {}


def test_it_succeeds_only_when_all_do(many: Several) -> None:
    many.give(Command(1, "collect", {}, "noon"))
    many.look("orders", records=5)
    many.look("billing", success=False, error="[DB-01] away")
    assert many.results() == []
    many.look("stock", records=0)
    assert many.results() == [
        {
            "command_id": 1,
            "success": False,
            "result": {
                "watches": {
                    "orders": {"records": 5, "success": True},
                    "billing": {"error": "[DB-01] away", "success": False},
                    "stock": {"records": 0, "success": True},
                }
            },
        }
    ]


def test_with_a_target_only_that_watch_does_it_and_answers_as_a_single_one(many: Several) -> None:
    many.give(Command(1, "stop", {"target": "billing"}, "noon"))
    assert (many.paused(), many.results()) == (
        ["billing"],
        [{"command_id": 1, "success": True, "result": {"message": "collecting is paused"}}],
    )


@pytest.mark.parametrize(
    ("word", "params", "error"),
    [
        ("stop", {"target": "order"}, "unknown target order"),
        ("dance", {}, "unknown command dance"),
        ("dance", {"target": ["orders"]}, "unknown target ['orders']"),
        (
            "update_config",
            {"db_config": {"password": "x"}},
            "db_config needs a target, one of orders, billing, stock",
        ),
    ],
)
def test_what_nobody_can_carry_out_is_answered_by_the_first_alone(
    many: Several, word: str, params: dict[str, object], error: str
) -> None:
    command = Command(1, word, params, "noon")
    assert many.book.concerns(command) == ("orders",)
    many.give(command)
    many.give(command)
    (result,) = many.results()
    assert (result["success"], result["result"]["error"]) == (False, error)
    assert (many.paused(), many.made) == ([], {})


def test_a_command_that_comes_again_is_done_again_in_no_watch(many: Several) -> None:
    for _ in range(3):
        many.desks["orders"].carry_out(STOP)
    many.desks["orders"].carry_out(Command(2, "start", {"target": "orders"}, "one"))
    for _ in range(3):
        many.give(STOP)
    assert ([result["command_id"] for result in many.results()], many.paused()) == ([2, 1], ["billing", "stock"])


def test_parts_survive_a_restart_and_the_rest_is_done_then(tmp_path: Path) -> None:
    first = Several(tmp_path, ["orders", "billing"])
    first.desks["orders"].carry_out(STOP)
    first.close()
    second = Several(tmp_path, ["orders", "billing"])
    second.desks["orders"].carry_out(Command(2, "start", {"target": "orders"}, "one"))
    second.give(STOP)
    assert ([result["command_id"] for result in second.results()], second.paused()) == ([2, 1], ["billing"])
    second.close()


def test_a_watch_that_is_there_no_more_after_a_restart_is_not_waited_for(tmp_path: Path) -> None:
    first = Several(tmp_path, ["orders", "billing", "stock"])
    for name in ("orders", "stock"):
        first.desks[name].carry_out(STOP)
    first.close()
    second = Several(tmp_path, ["orders", "stock"])
    second.give(STOP)
    (result,) = second.results()
    assert (result["success"], list(result["result"]["watches"])) == (True, ["orders", "stock"])
    assert second.outbox.notes(PARTS_NOTE) == {}
    second.close()


def test_a_watch_that_is_new_after_a_restart_does_its_part_too(tmp_path: Path) -> None:
    first = Several(tmp_path, ["orders", "billing"])
    first.desks["orders"].carry_out(STOP)
    first.close()
    second = Several(tmp_path, ["orders", "billing", "stock"])
    second.give(STOP)
    (result,) = second.results()
    assert (second.paused(), len(result["result"]["watches"])) == (["orders", "billing", "stock"], 3)
    second.close()


def test_a_part_that_cannot_be_stored_has_no_effect_and_is_done_when_it_comes_again(many: Several) -> None:
    many.desks["orders"].carry_out(STOP)
    many.outbox.disk_full = 1
    with pytest.raises(OutboxFull):
        many.desks["billing"].carry_out(STOP)
    assert (many.paused(), many.watches["billing"].state) == (["orders"], "idle")
    many.give(STOP)
    assert (len(many.results()), many.paused()) == (1, ["orders", "billing", "stock"])


def test_an_interval_without_a_target_goes_to_all_watches_and_one_with_a_target_to_that_one(many: Several) -> None:
    many.give(Command(1, "update_config", {"collection_interval": 15, "heartbeat_interval": 9}, "noon"))
    many.give(Command(2, "update_config", {"collection_interval": 17, "target": "stock"}, "one"))
    config = many.reconfiguration.config
    assert (config.heartbeat_interval, [each.collection_interval for each in config.watches]) == (9, [15, 15, 17])
    assert [watch.interval_s for watch in many.watches.values()] == [15, 15, 17]
    assert [result["success"] for result in many.results()] == [True, True]


def test_one_that_hangs_keeps_nobody_from_another_command(many: Several) -> None:
    """It hangs at its database, where no lock is held: its desk is simply not called."""
    for number in range(2, 12):
        command = Command(number, "stop" if number % 2 else "start", {}, "noon")
        many.desks["orders"].carry_out(command)
        many.desks["billing"].carry_out(command)
        many.desks["orders"].carry_out(Command(100 + number, "start", {"target": "orders"}, "noon"))
    assert [result["command_id"] for result in many.results()] == [100 + number for number in range(2, 12)]
    assert len(many.outbox.notes(PARTS_NOTE)) == 10


def test_the_moment_in_which_another_watch_makes_the_result_does_it_no_second_time(many: Several) -> None:
    """Between the look for the mark and the look for the part the result may be made: both are one look."""
    for name in ("orders", "billing"):
        many.desks[name].carry_out(STOP)
    answered = list[bool]()
    asking = threading.Thread(target=lambda: answered.append(many.book.is_done(STOP, "orders")))
    with many.book.entered("stock", [Result(STOP, success=True, details={})]) as change:
        asking.start()
        many.outbox.commit(change)
        assert (many.book._lock.locked(), answered) == (True, [])  # it waits for the end of the block
    asking.join(WAIT_S)
    assert (answered, len(many.results())) == ([True], 1)


def test_threads_that_carry_out_the_same_commands_at_the_same_time_make_one_result_of_each(many: Several) -> None:
    commands = [Command(number, ("stop", "start")[number % 2], {}, "noon") for number in range(30)]
    start = threading.Barrier(len(many.names))
    wrong = list[BaseException]()

    def work(name: str) -> None:
        try:
            start.wait()
            for number in range(len(commands)):
                for each in commands[max(0, number - 2) : number + 1]:
                    many.desks[name].carry_out(each)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in many.names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert wrong == []
    assert sorted(result["command_id"] for result in many.results()) == list(range(30))
    assert (many.outbox.notes(PARTS_NOTE), many.paused()) == ({}, [])


def test_what_is_never_completed_is_forgotten_after_a_day_or_when_too_much_is_newer(many: Several) -> None:
    many.desks["orders"].carry_out(STOP)
    many.clock.turn(PARTS_KEPT_S + 1)
    many.desks["orders"].carry_out(Command(2, "stop", {}, "later"))
    assert list(many.outbox.notes(PARTS_NOTE)) == [f"{PARTS_NOTE}command/7/2/later"]
    for number in range(3, 3 + PARTS_KEPT + 20):
        many.clock.turn(60)
        many.desks["orders"].carry_out(Command(number, "start", {}, "later"))
    kept = many.outbox.notes(PARTS_NOTE)
    assert len(kept) == PARTS_KEPT
    assert f"{PARTS_NOTE}command/7/{2 + PARTS_KEPT + 20}/later" in kept
    assert f"{PARTS_NOTE}command/7/2/later" not in kept


def test_a_command_of_a_single_watch_leaves_no_parts(tmp_path: Path) -> None:
    alone = Several(tmp_path, ["orders"])
    alone.give(STOP)
    assert (alone.results()[0]["result"], alone.outbox.notes(PARTS_NOTE)) == ({"message": "collecting is paused"}, {})
    alone.close()
