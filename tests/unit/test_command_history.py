"""What the command log tells a person.

What could go wrong: a line that a crash has cut off, or that somebody has written into the file, ends in a traceback or
hides the others; an answer is shown beside another command; a mistyped directory reads as one without commands; a file
of gigabytes takes the memory; what is shown obeys the backend and not the person.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from agent.command_history import History, newest, read, table
from agent.command_log import FILE_NAME, MAX_BYTES, OLDER_NAME, CommandLog
from agent.commands import Command, Result
from storage.errors import OutboxInaccessible
from tests.fakes.clock import ManualClock
from tests.unit.conftest import Say


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log(tmp_path: Path, clock: ManualClock) -> CommandLog:
    return CommandLog(tmp_path, clock.now, max_bytes=2_000)


@pytest.fixture
def say(dbpower_agent: Say) -> Say:
    return lambda *words: dbpower_agent("commands", *words)


def played(log: CommandLog, clock: ManualClock) -> None:
    change = Command(5, "update_config", {"db_config": {"host": "h", "password": "x"}}, "noon")
    log.received(change, "orders")
    clock.turn(60)
    log.received(Command(6, "stop", {}, "one"), "orders")
    log.answered(Result(change, False, {"error": "refused", "code": "CM-01"}), "orders")
    log.received(Command(6, "stop", {}, "one"), "billing")
    log.answered(Result(Command(6, "stop", {}, "one"), True, {"message": "paused"}), "billing")
    log.left(Command(7, "dance"), "orders", "too many")


def test_one_line_for_each_command_in_each_watch(log: CommandLog, clock: ManualClock, tmp_path: Path) -> None:
    played(log, clock)
    entries = read(tmp_path).entries
    rows = [line.split("  ") for line in table(entries)]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["received", "database", "id", "command", "params", "what became of it"],
        ["2024-05-01T12:01:00+00:00", "orders", "6", "stop", "no answer yet"],
        [
            *("2024-05-01T12:00:00+00:00", "orders", "5", "update_config"),
            '{"db_config":{"host":"h","password":"***"}}',
            'refused: {"error":"refused","code":"CM-01"}',
        ],
        ["2024-05-01T12:01:00+00:00", "billing", "6", "stop", 'done: {"message":"paused"}'],
        ["2024-05-01T12:01:00+00:00", "orders", "7", "dance", 'left: {"error":"too many"}'],
    ]


def test_the_newest_commands_come_with_all_their_lines(log: CommandLog, clock: ManualClock, tmp_path: Path) -> None:
    played(log, clock)
    entries = read(tmp_path).entries
    steps = [(entry["id"], entry["step"]) for entry in newest(entries, 2)]
    assert steps == [(6, "received"), (6, "answered"), (7, "left")]
    assert [len(list(table(newest(entries, limit)))) for limit in (1, 2, 4, 100)] == [2, 3, 5, 5]
    assert newest(entries, 100) == list(entries)


def test_both_files_are_read_the_older_one_first(log: CommandLog, tmp_path: Path) -> None:
    for number in range(20):
        log.received(Command(number, "stop"), "orders")
    assert (tmp_path / OLDER_NAME).exists()
    numbers = [entry["id"] for entry in read(tmp_path).entries]
    assert numbers == list(range(20))[-len(numbers) :]


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"5", b'{"step": 5}', b"{}", b"\xff", b"[" * 10_000, b"\x00" * 100, b"null", b'{"at": "2024-']
)
def test_a_line_that_is_none_is_counted_and_the_others_are_read(log: CommandLog, tmp_path: Path, line: bytes) -> None:
    log.received(Command(1, "stop"), "orders")
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(line)
    log.received(Command(2, "stop"), "orders")
    history = read(tmp_path)
    assert ([entry["id"] for entry in history.entries], history.unreadable) == ([1, 2], 1)


@pytest.mark.parametrize("value", [None, 5, "x\x1b[2J", [], {"a": {"b": [1]}}, True, 1e300, "x" * 10_000])
@pytest.mark.parametrize("name", ["at", "watch", "id", "command", "created_at", "params", "success", "result"])
def test_whatever_stands_in_a_line_can_be_shown(tmp_path: Path, name: str, value: object) -> None:
    for step in ("received", "answered", "left", "danced"):
        (tmp_path / FILE_NAME).write_bytes(orjson.dumps({"step": step, name: value}))
        lines = list(table(read(tmp_path).entries))
        assert (len(lines), all(line.isprintable() for line in lines)) == (2, True)
        assert len(lines[1]) < 1_000


def test_of_a_file_that_somebody_has_filled_the_end_is_read(tmp_path: Path) -> None:
    with (tmp_path / FILE_NAME).open("wb") as file:
        file.seek(64 * MAX_BYTES)
        file.write(b'\n{"step": "received", "id": 5}\n')
    assert [entry["id"] for entry in read(tmp_path).entries] == [5]


def test_without_a_log_there_was_nothing_and_what_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    assert read(tmp_path) == History((), 0)
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(OutboxInaccessible, match=FILE_NAME):
        read(tmp_path)


def test_a_directory_that_is_none_is_told_and_is_not_taken_for_one_without_commands(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(OutboxInaccessible, match=name):
            read(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutboxInaccessible, match="loop"):
        read(tmp_path / "loop")


# -- the word --------------------------------------------------------------------------------------------------------


def test_a_person_sees_a_table_and_a_script_gets_json(
    say: Say, log: CommandLog, clock: ManualClock, tmp_path: Path
) -> None:
    assert say(tmp_path) == (0, "nothing\n", "")
    played(log, clock)
    code, shown, _ = say(tmp_path)
    assert (code, len(shown.splitlines()), "billing" in shown) == (0, 5, True)
    code, shown, _ = say(tmp_path, "--limit", 1)
    assert (code, len(shown.splitlines()), "too many" in shown) == (0, 2, True)
    code, text, _ = say(tmp_path, "--json", "--limit", 2)
    assert (code, [entry["step"] for entry in orjson.loads(text)]) == (0, ["received", "answered", "left"])


def test_what_cannot_be_read_is_said(say: Say, log: CommandLog, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"{")
    log.received(Command(1, "stop"), "orders")
    code, shown, wrong = say(tmp_path)
    assert (code, len(shown.splitlines()), wrong) == (1, 2, "1 line of the command log cannot be read\n")


def test_it_needs_a_directory_or_a_configuration(say: Say, tmp_path: Path) -> None:
    code, shown, wrong = say(tmp_path / "mistyped")
    assert (code, shown, "[OB-04]" in wrong, "mistyped" in wrong) == (2, "", True, True)
    code, _, wrong = say("--config", tmp_path / "missing.json")
    assert (code, "[CF-02]" in wrong) == (2, True)
