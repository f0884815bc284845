"""What `doctor` says of this host.

What could go wrong: the look makes a file or disturbs a running agent; an outbox that does not balance passes; files
that others can read pass; a directory that is not there yet is complained of; another user's ends with a traceback; a
file that a running agent deletes meanwhile is complained of.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.clock import Clock
from agent.config.layers import load
from agent.doctor.host import examine, program
from agent.finding import Finding
from agent.sinks import QUERIES
from agent.status import Scoreboard
from agent.status_door import StatusDoor, ask
from storage.connection import SQLITE
from storage.envelope import Change, Draft
from storage.lock import DirectoryLock
from storage.outbox import FILE_NAME, Outbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(tmp_path: Path, **more: Any) -> Path:
    path = tmp_path / "config.json"
    tree = {
        "collector_id": 1,
        "api_key": "k",
        "backend_url": "http://localhost",
        "db_type": "mysql",
        "db_config": {"host": "h", "user": "u"},
        **more,
    }
    path.write_bytes(orjson.dumps(tree))
    path.chmod(0o600)
    return path


def found(path: Path) -> dict[str, Finding]:
    config, layers = load(path, {}, {})
    return {finding.subject: finding for finding in examine(config, layers, path, Clock())}


def codes(findings: dict[str, Finding]) -> dict[str, str]:
    return {subject: each.code for subject, each in findings.items() if each.verdict != "right"}


def filled(path: Path, records: int = 2) -> Path:
    directory = path.parent / "data"
    with closing(Outbox(directory, topics=(QUERIES,))) as outbox:
        outbox.commit(Change((Draft(QUERIES, records, b"body"),)))
    with DirectoryLock(directory):
        pass
    return directory


@contextmanager
def running(directory: Path) -> Iterator[Scoreboard]:
    """An agent that says how it is."""
    board = Scoreboard(Clock().monotonic())
    board.report("default", state="idle")
    door = StatusDoor(directory, board, Clock())
    thread = threading.Thread(target=door.run)
    thread.start()
    try:
        while ask(directory) is None:
            pass
        yield board
    finally:
        door.stop()
        thread.join()
        door.close()


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(path: Path) -> None:
    findings = found(path)
    assert codes(findings) == {}
    assert "will be made" in findings["data directory"].sentence
    assert [each.name for each in path.parent.iterdir()] == ["config.json"]


def test_with_an_outbox_and_without_an_agent(path: Path) -> None:
    filled(path)
    findings = found(path)
    assert codes(findings) == {"agent": "AG-02"}
    assert findings["agent"].verdict == "hint"
    assert "balances; 2 records wait" in findings["outbox"].sentence


def test_an_agent_that_runs_and_one_that_complains(path: Path) -> None:
    with running(filled(path)) as board:
        assert codes(found(path)) == {}
        board.report("default", error="[DB-01] away")
        findings = found(path)
        assert findings["agent"].verdict == "wrong"
        assert "[DB-01] away" in findings["agent"].sentence


@pytest.mark.parametrize(("mode", "code"), [(0o600, None), (0o640, None), (0o644, "HO-02"), (0o662, "HO-02")])
def test_a_configuration_that_others_can_read_or_change(path: Path, mode: int, code: str | None) -> None:
    path.chmod(mode)
    assert codes(found(path)).get("configuration") == code


@pytest.mark.parametrize("name", [".", FILE_NAME])
def test_a_data_directory_that_others_can_look_into(path: Path, name: str) -> None:
    directory = filled(path)
    (directory / name).chmod(0o750)
    findings = found(path)
    assert findings["data directory"].code == "HO-02"
    assert "0750" in findings["data directory"].sentence


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    path = written(tmp_path, outbox={"min_free_bytes": 2**62})
    (tmp_path / "data").mkdir(mode=0o700)
    findings = found(path)
    assert "room" not in codes(findings), "a tenth of the disk is the most that stays reserved"


def test_an_outbox_that_does_not_balance(path: Path) -> None:
    directory = filled(path)
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql, sql:
        sql.execute("UPDATE envelope SET body = x'00'")
    findings = found(path)
    assert (findings["outbox"].verdict, findings["outbox"].code) == ("wrong", "OB-14")


def test_a_file_of_another_program(path: Path) -> None:
    directory = path.parent / "data"
    directory.mkdir(mode=0o700)
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql, sql:
        sql.execute("CREATE TABLE theirs (x)")
    assert codes(found(path))["outbox"] == "OB-01"


@contextmanager
def closed(directory: Path) -> Iterator[None]:
    """Who looks now may not look into it, also when that is root otherwise."""
    directory.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65_534)
    try:
        with pytest.raises(PermissionError):
            (directory / "data").stat()
        yield
    finally:
        os.seteuid(user)
        directory.chmod(0o700)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_data_directory_below_one_that_is_closed_is_a_finding(tmp_path: Path, is_there: bool) -> None:
    above = tmp_path / "closed"
    directory = above / "data"
    directory.mkdir(mode=0o700, parents=True)
    if not is_there:
        directory.rmdir()
    config, layers = load(written(tmp_path, data_dir=str(directory)), {}, {})
    with closed(above):
        findings = {each.subject: each for each in examine(config, layers, tmp_path / "config.json", Clock())}
    assert codes(findings) == {"data directory": "HO-02"}
    assert "Permission denied" in findings["data directory"].sentence
    assert list(findings) == ["configuration", "data directory"]


def test_a_file_that_a_running_agent_deletes_meanwhile_is_no_finding(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = filled(path)
    listed = [*directory.iterdir(), directory / "remote.json.new"]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))
    with pytest.raises(FileNotFoundError):
        listed[-1].lstat()
    assert found(path)["data directory"].verdict == "right"
    (directory / FILE_NAME).chmod(0o640)
    assert found(path)["data directory"].code == "HO-02", "the others are looked at all the same"


def test_the_program_names_its_versions() -> None:
    assert SQLITE in program().sentence
