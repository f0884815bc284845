"""Every command of the backend is written down with what became of it.

What could go wrong: a secret stands there; others can read it; it grows without end, or a rotation loses the last
lines; a crash leaves half a line that spoils the next one; a full disk keeps a command from being carried out or leaves
no trace of it; a hostile command writes escape sequences, a forged line, or megabytes; it is not durable.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.command_log import FILE_NAME, MASK, OLDER_NAME, CommandLog, masked
from agent.commands import Command, Result
from tests.fakes.clock import ManualClock

CHANGE = Command(5, "update_config", {"collection_interval": 60, "db_config": {"password": "S3CR3T"}}, "noon")


@pytest.fixture
def log(tmp_path: Path) -> CommandLog:
    return CommandLog(tmp_path, ManualClock().now)


def lines(directory: Path, name: str = FILE_NAME) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (directory / name).read_bytes().splitlines()]


def test_what_came_and_what_became_of_it(log: CommandLog, tmp_path: Path) -> None:
    log.received(CHANGE, "orders")
    log.answered(Result(CHANGE, False, {"error": "no\nway", "code": "CM-01"}), "orders")
    log.left(CHANGE, "orders", "too many")
    common = {"at": "2024-05-01T12:00:00+00:00", "watch": "orders", "id": 5, "command": "update_config"}
    common |= {"created_at": "noon"}
    assert lines(tmp_path) == [
        {**common, "step": "received", "params": {"collection_interval": 60, "db_config": {"password": MASK}}},
        {**common, "step": "answered", "success": False, "result": {"error": "no way", "code": "CM-01"}},
        {**common, "step": "left", "result": {"error": "too many"}},
    ]


def test_only_the_owner_may_read_it(log: CommandLog, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        log.received(CHANGE, "orders")
        (tmp_path / FILE_NAME).chmod(0o644)
        log.received(CHANGE, "orders")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_each_line_is_synced_and_the_name_of_a_new_file_too(
    log: CommandLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", seen)
    log.received(CHANGE, "orders")
    log.received(CHANGE, "orders")
    assert synced == [FILE_NAME, tmp_path.name, FILE_NAME]


# -- its size --------------------------------------------------------------------------------------------------------


def test_at_its_limit_it_becomes_the_older_one_and_no_line_is_lost(tmp_path: Path) -> None:
    log = CommandLog(tmp_path, ManualClock().now, max_bytes=1_000)
    for number in range(30):
        log.received(Command(number, "stop"), "orders")
    kept = [line["id"] for name in (OLDER_NAME, FILE_NAME) for line in lines(tmp_path, name)]
    assert kept == list(range(30))[-len(kept) :]
    assert 6 < len(kept) < 30, "one rotation has driven out the oldest"
    assert max((tmp_path / name).stat().st_size for name in (OLDER_NAME, FILE_NAME)) <= 1_000
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, OLDER_NAME]


def test_a_crash_between_rename_and_first_line_loses_nothing(tmp_path: Path) -> None:
    log = CommandLog(tmp_path, ManualClock().now, max_bytes=1_000)
    log.received(Command(1, "stop"), "orders")
    (tmp_path / FILE_NAME).rename(tmp_path / OLDER_NAME)
    CommandLog(tmp_path, ManualClock().now).received(Command(2, "stop"), "orders")
    assert [lines(tmp_path, name)[0]["id"] for name in (OLDER_NAME, FILE_NAME)] == [1, 2]


def test_half_a_line_of_a_crash_spoils_no_other_one(log: CommandLog, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b'{"at": "2024-')
    log.received(CHANGE, "orders")
    torn, whole = (tmp_path / FILE_NAME).read_bytes().splitlines()
    assert (torn, orjson.loads(whole)["id"]) == (b'{"at": "2024-', 5)


def test_a_hostile_command_writes_one_short_line_of_plain_signs(log: CommandLog, tmp_path: Path) -> None:
    evil = "\x1b[2J\n" + "x" * 10_000
    params = {f"{number}{evil}": evil for number in range(1_000)}
    command = Command(1, "dance", {**params, "target": evil, "db_config": {**params, "host": evil}})
    log.received(command, "orders")
    log.answered(Result(command, False, {"error": evil}), "orders")
    raw = (tmp_path / FILE_NAME).read_bytes()
    assert (len(raw.splitlines()), len(raw) < 6_000, b"\x1b" in raw) == (2, True, False)
    assert lines(tmp_path)[0]["params"]["..."] == "981 more keys"


# -- when it cannot be written ---------------------------------------------------------------------------------------


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_room_the_same_is_said_in_the_log_of_the_agent(
    log: CommandLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        log.received(CHANGE, "orders")
    (record,) = caplog.records
    assert (record.levelname, record.event, record.fields["params"]["db_config"]) == (  # type: ignore[attr-defined]
        "WARNING",
        "command.unlogged",
        {"password": MASK},
    )
    assert {"id", "command", "watch", "created_at", "at"} <= {*record.fields}  # type: ignore[attr-defined]
    assert "S3CR3T" not in caplog.text
    log.received(CHANGE, "orders")
    assert [line["id"] for line in lines(tmp_path)] == [5]


def test_a_line_of_which_a_part_found_room_is_taken_back(
    log: CommandLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log.received(CHANGE, "orders")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("os.write", lambda descriptor, text: write(descriptor, text[:10]))
        log.received(CHANGE, "orders")
    assert "No space left" in caplog.text
    log.received(CHANGE, "orders")
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize("obstacle", ["a directory", "no directory"])
def test_whatever_stands_in_its_way_nobody_is_kept_from_a_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    if obstacle == "a directory":
        (tmp_path / FILE_NAME).mkdir()
    log = CommandLog(tmp_path / ("" if obstacle == "a directory" else "missing"), ManualClock().now)
    log.received(CHANGE, "orders")
    assert "cannot be written" in caplog.text


def test_lines_of_several_watches_do_not_mix(log: CommandLog, tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def work(name: str) -> None:
        start.wait()
        for number in range(25):
            log.received(Command(number, "stop"), name)

    threads = [threading.Thread(target=work, args=(f"db-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = sorted((line["watch"], line["id"]) for line in lines(tmp_path))
    assert found == [(f"db-{watch}", number) for watch in range(4) for number in range(25)]


# -- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({}, {}),
        ({"collection_interval": 5, "target": "orders"}, {"collection_interval": 5, "target": "orders"}),
        ({"db_config": {"host": "h", "port": 1}}, {"db_config": {"host": "h", "port": 1}}),
        ({"db_config": {"password": "x"}}, {"db_config": {"password": MASK}}),
        ({"db_config": {"Password": "x", "pasword": "x"}}, {"db_config": {"Password": MASK, "pasword": MASK}}),
        ({"db_config": {"tls": {"key": "x"}, "brand_new": 1}}, {"db_config": {"tls": MASK, "brand_new": MASK}}),
        ({"db_config": {"host": {"password": "x"}, "user": ["x"]}}, {"db_config": {"host": MASK, "user": MASK}}),
        ({"db_config": "password=x"}, {"db_config": MASK}),
        ({"db_config": ["x"]}, {"db_config": MASK}),
        ({"db_config": {"database": "postgres://u:x@h/d"}}, {"db_config": {"database": MASK}}),
        ({"db_config": {"database": "dbname=d PASSWORD=x"}}, {"db_config": {"database": MASK}}),
        ({"api_key": "x", "password": "x"}, {"api_key": MASK, "password": MASK}),
        ({"target": {"password": "x"}}, {"target": MASK}),
        ({"target": "S3CR3T", "db_config": {"password": "S3CR3T"}}, {"target": MASK, "db_config": {"password": MASK}}),
        ({"db_config": {"password": "S3CR3T", "host": "xS3CR3T"}}, {"db_config": {"password": MASK, "host": MASK}}),
    ],
)
def test_only_values_that_are_known_to_be_harmless_are_shown(params: dict[str, object], shown: object) -> None:
    assert masked(params) == shown
