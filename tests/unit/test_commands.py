"""The backend's commands.

What could go wrong: an answer of any shape ends the heartbeat; a command is taken for another one, so that it is not
carried out or carried out twice, or reaches a watch that it is not for; a number where a text should be makes the same
command look new each time; params that are huge or deep end whatever prints, compares or stores them; a word or a
moment of megabytes fills the disk, or is obeyed by a terminal.
"""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.commands import (
    MAX_COMMANDS,
    MOMENT_CHARACTERS,
    PARAMS_BYTES,
    TOO_LARGE,
    WORD_CHARACTERS,
    WORDS,
    Command,
    Result,
    addressees,
    parse,
)

ENTRY = {"id": 5, "command": "update_config", "params": {"a": 1}, "created_at": "2024-05-01T12:00:00"}


def test_a_command_is_understood() -> None:
    assert parse([ENTRY]) == (Command(5, "update_config", {"a": 1}, "2024-05-01T12:00:00"),)


def test_several_keep_their_order() -> None:
    assert [command.id for command in parse([{**ENTRY, "id": number} for number in (3, 1, 2)])] == [3, 1, 2]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"id": 5, "command": "stop"}, Command(5, "stop")),
        ({"id": 5, "command": "stop", "params": None, "created_at": None}, Command(5, "stop")),
        ({"id": 5, "command": "stop", "params": [1]}, Command(5, "stop")),
        ({"id": 5, "command": "stop", "created_at": 1714564800}, Command(5, "stop", {}, "1714564800")),
        ({"id": 5, "command": "stop", "created_at": "any words"}, Command(5, "stop", {}, "any words")),
        ({"id": 5, "command": "stop", "created_at": {"a": 1}}, Command(5, "stop")),
        ({"id": 5, "command": "nobody knows this", "more": 1}, Command(5, "nobody knows this")),
        ({"id": -5, "command": ""}, Command(-5, "")),
    ],
)
def test_what_is_missing_or_odd_is_left_empty(entry: dict[str, object], expected: Command) -> None:
    assert parse([entry]) == (expected,)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"id": 5},
        {"command": "stop"},
        {"id": "5", "command": "stop"},
        {"id": True, "command": "stop"},
        {"id": 5.0, "command": "stop"},
        {"id": None, "command": "stop"},
        {"id": 5, "command": 5},
        {"id": 5, "command": None},
        [],
        "stop",
        None,
        5,
    ],
)
def test_what_is_no_command_is_left_out_and_its_neighbours_stay(entry: object) -> None:
    assert [command.id for command in parse([{**ENTRY, "id": 1}, entry, {**ENTRY, "id": 2}])] == [1, 2]


def test_a_flood_is_bounded() -> None:
    assert len(parse([ENTRY] * (MAX_COMMANDS + 1))) == MAX_COMMANDS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "command", "params", "created_at", "x"]), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(entries=_JSON)
def test_any_json_is_parsed_into_well_formed_commands(entries: object) -> None:
    for command in parse(entries):
        assert type(command.id) is int
        assert isinstance(command.word, str)
        assert isinstance(command.params, dict)
        assert isinstance(command.created_at, str)


@pytest.mark.parametrize("name", ["created_at", "params", "id", "command"])
def test_json_as_deep_as_it_can_be_parsed_does_no_harm(name: str) -> None:
    deep = orjson.loads("[" * 1_000 + "]" * 1_000)
    assert len(parse([{**ENTRY, name: deep}])) <= 1
    assert parse(deep) == ()


@pytest.mark.parametrize(
    "params",
    [
        {"target": orjson.loads("[" * 6 + "]" * 6)},
        {"db_config": {"host": "h" * PARAMS_BYTES}},
        {f"key {number}": number for number in range(10_000)},
        {"x" * PARAMS_BYTES: 1},
        {"target": orjson.loads("[" * 1_000 + "]" * 1_000)},
    ],
)
@pytest.mark.parametrize("word", [*WORDS, "dance"])
def test_params_that_nobody_should_look_into_are_left_out_and_the_command_can_be_answered(
    word: str, params: dict[str, object]
) -> None:
    (command,) = parse([{**ENTRY, "command": word, "params": params}])
    assert (command.params, command.complaint, command.created_at) == ({}, TOO_LARGE, ENTRY["created_at"])
    assert addressees(command, NAMES) == ("orders",)
    assert command == parse([{**ENTRY, "command": word, "params": params}])[0]


def test_params_of_the_usual_size_and_depth_are_not_complained_of() -> None:
    params = {"db_config": {"slow_log_backups": ["a"] * 100, "password": "p" * 1_000}, "target": "x"}
    (command,) = parse([{**ENTRY, "params": params}])
    assert (command.params, command.complaint) == (params, "")


def test_a_word_is_short_and_plain() -> None:
    (command,) = parse([{**ENTRY, "command": "\x1b[2Jstop\n" + "x" * 1_000_000}])
    assert (command.word[:10], len(command.word), command.word.isprintable()) == ("?[2Jstop x", WORD_CHARACTERS, True)
    assert [each.word for each in parse([{**ENTRY, "command": odd} for odd in ("stop\n", "st\0op", "\u200bstop")])] == [
        "stop ",
        "st?op",
        "?stop",
    ]


def test_a_moment_of_any_length_is_remembered_by_a_short_name_of_its_own() -> None:
    moments = ["x" * 65, "x" * 66, "x" * 1_000_000, "noon\0", "noon\n", "noon", "", "x" * MOMENT_CHARACTERS, 1e300, -1]
    commands = parse([{**ENTRY, "created_at": moment} for moment in moments])
    marks = [command.mark(7) for command in commands]
    assert (len({*marks}), max(map(len, marks)) < 100, all(mark.isprintable() for mark in marks)) == (10, True, True)
    assert [command.created_at for command in commands[5:8]] == ["noon", "", "x" * MOMENT_CHARACTERS]


def test_a_command_is_remembered_by_collector_id_and_time() -> None:
    marks = {
        Command(1, "stop", {}, "t").mark(7),
        Command(1, "start", {"a": 1}, "t").mark(7),  # the same one, whatever it says
        Command(2, "stop", {}, "t").mark(7),
        Command(1, "stop", {}, "u").mark(7),
        Command(1, "stop", {}, "t").mark(8),
    }
    assert len(marks) == 4


def test_a_result_is_what_the_execute_call_wants() -> None:
    result = Result(Command(5, "collect"), success=True, details={"records": 3})
    assert orjson.loads(result.to_wire()) == {"command_id": 5, "success": True, "result": {"records": 3}}


NAMES = ("orders", "billing")


@pytest.mark.parametrize("word", WORDS)
def test_a_command_without_a_target_is_for_all_watches(word: str) -> None:
    assert addressees(Command(1, word), NAMES) == NAMES
    assert addressees(Command(1, word, {"target": None}), NAMES) == NAMES


@pytest.mark.parametrize("word", [*WORDS, "dance"])
def test_a_command_with_a_target_is_for_that_watch(word: str) -> None:
    assert addressees(Command(1, word, {"target": "billing", "db_config": {}}), NAMES) == ("billing",)


@pytest.mark.parametrize(
    "command",
    [
        Command(1, "dance"),
        Command(1, "stop", {"target": "Orders"}),
        Command(1, "stop", {"target": ""}),
        Command(1, "stop", {"target": 5}),
        Command(1, "stop", {"target": ["orders", "billing"]}),
        Command(1, "stop", {"target": {"orders": 1}}),
        Command(1, "update_config", {"db_config": {"host": "h"}}),
        Command(1, "update_config", {"db_config": None, "collection_interval": 5}),
    ],
)
def test_what_nobody_can_carry_out_is_for_the_first_to_answer(command: Command) -> None:
    assert addressees(command, NAMES) == ("orders",)


def test_a_single_watch_gets_everything() -> None:
    for word in (*WORDS, "dance"):
        assert addressees(Command(1, word, {"target": "x", "db_config": {}}), ["default"]) == ("default",)
