"""`--log-level` and `--log-format` at every entrance.

What could go wrong: a word ignores them; with JSON a line on standard error is no JSON, the last one above all, which
says why the word ends; a word without a configuration speaks as it likes; the level lets through what it should not.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent import body
from agent.dev.server_process import free_port
from agent.sinks import QUERIES, TOPICS
from storage.envelope import Change, Draft
from storage.outbox import FILE_NAME, Outbox
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import ROOT, run_agent, write

WORDS = (
    ["run"],
    ["once"],
    ["once", "--dry-run"],
    ["status"],
    ["audit"],
    ["migrate"],
    ["migrate", "--check"],
    ["outbox", "ls"],
    ["outbox", "show", "7"],
    ["outbox", "retry", "--all"],
    ["outbox", "vacuum"],
)
JSON = ("--log-format", "json")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Nothing answers, neither database nor backend."""
    database = {"host": "127.0.0.1", "port": free_port(), "user": "u", "password": "p"}
    backend = f"http://127.0.0.1:{free_port()}"
    return write(
        tmp_path,
        {"collector_id": 1, "api_key": "k", "backend_url": backend, "db_type": "mysql", "db_config": database},
    )


def foreign(directory: Path) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql:
        sql.executescript("PRAGMA application_id=77; CREATE TABLE mine (x)")
    return directory


def entries(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_why_a_word_ends_is_json_where_that_was_asked_for(config: Path, words: list[str]) -> None:
    foreign(config.parent / "data")
    done = run_agent("--config", config, *words, *JSON)
    (entry,) = entries(done.stderr)
    assert (done.returncode, entry["level"], entry["event"], entry["code"]) == (2, "ERROR", "word.wrong", "OB-01")
    assert entry["message"].startswith("[OB-01] ")
    plain = run_agent("--config", config, *words)
    assert (plain.returncode, plain.stderr.splitlines()) == (2, [entry["message"]])


@pytest.mark.parametrize("words", [words for words in WORDS if words[0] not in {"run", "once"}], ids=" ".join)
def test_a_word_that_needs_no_configuration_hears_it_as_well(config: Path, words: list[str]) -> None:
    data = foreign(config.parent / "data")
    where = ("--directory", data) if words[0] == "outbox" else (data,)
    for early, late in ((JSON, ()), ((), JSON)):
        done = run_agent(*early, *words, *where, *late, cwd=config.parent)
        assert (done.returncode, entries(done.stderr)[0]["code"]) == (2, "OB-01")


def test_a_configuration_that_cannot_be_used_is_told_in_json_by_option_and_by_environment(config: Path) -> None:
    config.write_text("{")
    assert entries(run_agent("--config", config, *JSON).stderr)[0]["code"] == "CF-03"
    assert entries(run_agent("--config", config, DBPOWER_LOG_FORMAT="json").stderr)[0]["code"] == "CF-03"
    assert run_agent("--config", config, DBPOWER_LOG_FORMAT="xml").stderr.startswith("[CF-03] ")


def test_what_once_met_is_told_in_json_and_at_the_level_that_was_asked_for(config: Path) -> None:
    quiet = entries(run_agent("--config", config, "once", *JSON).stderr)
    assert {each["event"] for each in quiet} == {"word.wrong"}
    assert {each["message"][:7] for each in quiet} == {"[DB-01]", "[BE-01]"}
    told = entries(run_agent("--config", config, "once", *JSON, "--log-level", "debug").stderr)
    assert {"watch.entered", "collection.wrong", "heartbeat.wrong", "word.wrong"} <= {each["event"] for each in told}
    assert {"DEBUG", "WARNING", "ERROR"} == {each["level"] for each in told}
    text = run_agent("--config", config, "once", "--log-level", "WARNING").stderr
    assert (" WARNING collection.wrong [DB-01] " in text, "watch.entered" in text) == (True, False)


def test_a_replay_tells_what_it_meets_when_it_is_asked_to(tmp_path: Path) -> None:
    with StubBackend() as stub:

        def said(number: int, *words: str) -> list[str]:
            data = tmp_path / str(number)
            with closing(Outbox(data, topics=TOPICS)) as outbox:
                packed = body.queries([orjson.dumps({"id": f"r{number}", "sql_text": "SELECT 1"})])
                outbox.commit(Change((Draft(QUERIES, 1, packed),)))
            stub.drop_answers(3)
            to = ("--backend-url", stub.url, "--api-key", stub.api_key, "--collector-id", str(stub.collector_id))
            argv = [sys.executable, str(ROOT / "scripts" / "replay.py"), str(data), *to, *words]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, stub.dropped) == (0, 3 * (number + 1))
            return [line for line in done.stderr.splitlines() if "delivery." in line]

        told = [json.loads(line)["event"] for line in said(0, "--log-level", "INFO", *JSON)]
        assert told == ["delivery.wrong", "delivery.first", "delivery.right"]
        assert [line.split()[1:3] for line in said(1, "--log-level", "WARNING")] == [["WARNING", "delivery.wrong"]]
        assert said(2) == []
