"""The word `migrate`.

What could go wrong: a script cannot tell "would migrate" from "fine" and from "cannot"; --check migrates; the numbers
are not those of the file; the configuration is wanted where a directory was named; a running agent is a traceback.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.lock import DirectoryLock
from storage.migration import look
from storage.outbox import FILE_NAME, Outbox
from storage.schema import VERSION
from tests.faults.old_format import outbox_of_format
from tests.unit.conftest import Say


@pytest.fixture
def say(dbpower_agent: Say) -> Say:
    return lambda *words: dbpower_agent("migrate", *words)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    for name, content in outbox_of_format(2, is_closed=True)[0].items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def format_of(directory: Path) -> int:
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql:
        return int(sql.execute("PRAGMA user_version").fetchone()[0])


def test_it_is_checked_with_1_then_made_with_0_and_then_there_is_nothing_to_do(say: Say, old: Path) -> None:
    found = look(old)
    code, out, err = say(old, "--check")
    assert (code, format_of(old), err) == (1, 2, "")
    outbox, program, agent, told = out.splitlines()
    assert (outbox, program) == (f"outbox: {old / FILE_NAME} has format 2", f"program: writes format {VERSION}")
    assert agent == "agent: none runs here"
    assert told.startswith(
        f"migration: would write {found.rows:,} rows with {found.bytes:,} bytes anew, needs at most "
    )
    code, out, _ = say(old)
    assert (code, format_of(old)) == (0, VERSION)
    assert out.splitlines()[-1].startswith(f"migration: done, {found.rows:,} rows")
    for words in (["--check"], []):
        code, out, _ = say(old, *words)
        assert (code, out.splitlines()[-1]) == (0, "migration: nothing to do")


def test_a_script_reads_it_as_json(say: Say, old: Path) -> None:
    _, out, _ = say(old, "--check", "--json")
    told = json.loads(out)
    found = look(old)
    expected = {"outbox": str(old / FILE_NAME), "format": 2, "writes": VERSION, "process": None, "is_due": True}
    expected |= {"migrated": False, "rows": found.rows, "bytes": found.bytes, "needed_bytes": found.needed_bytes}
    assert {**told, "free_bytes": 0} == {**expected, "free_bytes": 0, "seconds": 1}
    assert told["free_bytes"] > 0
    _, out, _ = say(old, "--json")
    assert (json.loads(out)["migrated"], json.loads(out)["format"]) == (True, 2)


def test_where_there_is_no_outbox_yet_all_is_fine(say: Say, tmp_path: Path) -> None:
    code, out, _ = say(tmp_path, "--check")
    assert (code, out.splitlines()[0]) == (0, f"outbox: {tmp_path / FILE_NAME} does not exist yet")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_migrated_ends_with_2_and_its_code(say: Say, old: Path) -> None:
    with closing(sqlite3.connect(old / FILE_NAME)) as sql:
        sql.execute("ALTER TABLE envelope ADD COLUMN zone TEXT")
        sql.execute("PRAGMA user_version=99")
    for words in (["--check"], []):
        code, out, err = say(old, *words)
        assert (code, out, err[:8]) == (2, "", "[OB-02] ")


def test_no_room_ends_with_2(say: Say, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.migration.free_bytes", lambda _: (7, 1_000))
    for words in (["--check"], []):
        code, _, err = say(old, *words)
        assert (code, err[:8], format_of(old)) == (2, "[OB-06] ", 2)


def test_while_an_agent_runs_it_can_be_checked_and_not_made(say: Say, tmp_path: Path) -> None:
    with DirectoryLock(tmp_path) as lock, closing(Outbox(tmp_path)):
        pid = lock.path.read_text().strip()
        code, out, _ = say(tmp_path, "--check")
        assert (code, f"agent: process {pid} works on it" in out) == (0, True)
        code, _, err = say(tmp_path)
        assert (code, err[:8]) == (3, "[OB-03] ")


def test_without_a_directory_it_is_that_of_the_configuration(say: Say, old: Path) -> None:
    config = old / "config.json"
    tree = {"collector_id": 1, "api_key": "k", "backend_url": "http://127.0.0.1:1", "db_type": "mysql"}
    config.write_text(json.dumps({**tree, "db_config": {"host": "h", "user": "u"}, "data_dir": str(old)}))
    assert say("--config", config, "--check")[0] == 1
    assert say("--config", old / "none.json", "--check")[0] == 2
