"""What a person gets wrong, and what goes wrong around a running agent.

What could go wrong: a traceback instead of a sentence; a sentence without code or remedy; a secret on the screen; the
wrong exit code; an agent that gives up where it could have recovered, or that cannot be ended while something hangs.
"""

import json
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.dev.server_process import free_port, wait_until
from storage.outbox import FILE_NAME
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, Json, run_agent, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres
from tests.servers.slow_log_server import tag

DB_SECRET, KEY_SECRET = "db-hunter2-secret", "collector_1_key-hunter2-secret"
SOON_S = 30.0
END_S = 10.0


def nothing_there() -> Json:
    """A configuration whose database and backend do not exist."""
    return {
        "collector_id": 1,
        "api_key": KEY_SECRET,
        "backend_url": f"http://127.0.0.1:{free_port()}",
        "db_type": "mysql",
        "db_config": {"host": "127.0.0.1", "port": free_port(), "user": "monitoring", "password": DB_SECRET},
    }


def without(config: Json, name: str) -> Json:
    return {key: value for key, value in config.items() if key != name}


def refused(*words: object) -> tuple[int, list[str]]:
    """Exit code and lines of standard error of an agent that ends by itself; never a traceback, never a secret."""
    done = run_agent(*words)
    everything = done.stdout + done.stderr
    assert "Traceback" not in everything
    assert DB_SECRET not in everything
    assert KEY_SECRET not in everything
    return done.returncode, done.stderr.splitlines()


# -- what ends it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["run", "once"])
def test_a_missing_config_is_one_sentence_with_a_remedy(tmp_path: Path, word: str) -> None:
    code, [line] = refused("--config", tmp_path / "none.json", word)
    assert (code, line.startswith("[CF-02] "), "config.example.json" in line) == (2, True, True)


@pytest.mark.parametrize("text", ["", "{", '{"collector_id": 1,}', "[]", '"x"', "\xff\xfe"])
def test_a_malformed_config_is_one_sentence_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    code, [line] = refused("--config", path)
    assert (code, line.startswith("[CF-03] "), str(path) in line) == (2, True, True)


def test_all_complaints_come_at_once_each_with_its_path(tmp_path: Path) -> None:
    config = {**without(nothing_there(), "collector_id"), "backend_url": "nowhere", "heartbeat_intervall": 3}
    config["db_config"] = {**config["db_config"], "prot": 1}
    code, [line] = refused("--config", write(tmp_path, config))
    assert (code, line.startswith("[CF-01] ")) == (2, True)
    for part in (
        "collector_id: is required and missing",
        "backend_url: should be an address",
        "heartbeat_intervall: unknown key; did you mean heartbeat_interval?",
        "db_config.prot: unknown key; did you mean port?",
    ):
        assert part in line


def test_a_secret_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    config = {**nothing_there(), "collector_id": KEY_SECRET, "db_config": DB_SECRET}
    code, [line] = refused("--config", write(tmp_path, config))
    assert (code, "collector_id" in line, "db_config" in line) == (2, True, True)


def test_an_outbox_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, nothing_there())
    data = tmp_path / "data"
    data.mkdir()
    with closing(sqlite3.connect(data / FILE_NAME)) as foreign:
        foreign.executescript("PRAGMA application_id=77; CREATE TABLE mine (x); INSERT INTO mine VALUES (1)")
    before = (data / FILE_NAME).read_bytes()
    for words in (["run"], ["once"], ["once", "--dry-run"]):
        code, [line] = refused("--config", path, *words)
        assert (code, line.startswith("[OB-01] ")) == (2, True)
    assert (data / FILE_NAME).read_bytes() == before


def replayed(*words: object) -> tuple[int, list[str]]:
    """As `refused`, of scripts/replay.py."""
    script = Path(__file__).parents[2] / "scripts" / "replay.py"
    done = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stderr.splitlines()


def test_an_outbox_of_a_newer_agent_is_refused_by_every_word_and_left_alone(tmp_path: Path) -> None:
    path, data = write(tmp_path, nothing_there()), tmp_path / "data"
    assert refused("--config", path, "once")[0] == 1
    with closing(sqlite3.connect(data / FILE_NAME)) as outbox:
        outbox.execute("ALTER TABLE envelope ADD COLUMN zone TEXT")  # as a newer agent does; else it were a damage
        outbox.execute("PRAGMA user_version=99")
    before = {each: each.read_bytes() for each in data.iterdir() if each.name != "agent.lock"}
    answers = {
        " ".join(words): refused("--config", path, *words)
        for words in (
            *(["run"], ["once"], ["once", "--dry-run"], ["status"], ["audit"], ["migrate"], ["migrate", "--check"]),
            *(["outbox", "ls"], ["outbox", "retry", "--all"], ["outbox", "vacuum"]),
        )
    }
    there = ("--backend-url", "http://127.0.0.1:1", "--api-key", KEY_SECRET, "--collector-id", 1)
    for words in (["--dry-run", *there], ["--export", tmp_path / "x.jsonl.gz"], ["--ack", *there], there):
        answers[f"replay {words[0]}"] = replayed(data, *words)
    assert {name: (code, [line[:8] for line in lines]) for name, (code, lines) in answers.items()} == dict.fromkeys(
        answers, (2, ["[OB-02] "])
    )
    assert {each: each.read_bytes() for each in before} == before


def test_a_data_dir_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, nothing_there())
    (tmp_path / "data").write_text("in the way")
    code, [line] = refused("--config", path)
    assert (code, line.startswith("[OB-04] "), "data" in line) == (2, True, True)


def test_an_unknown_word_or_option_is_a_usage_error(tmp_path: Path) -> None:
    assert refused("dance")[0] == 2
    assert refused("--dance")[0] == 2
    assert refused("--collector-id", "one")[0] == 2


def test_a_second_agent_is_refused_with_the_pid_of_the_first(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    with AgentProcess(path) as agent:
        assert stub.wait_for(lambda each: bool(each.heartbeats), SOON_S)
        for word in ("run", "once"):
            code, [line] = refused("--config", path, word)
            assert (code, line.startswith("[OB-03] "), f"process {agent.pid}" in line) == (3, True, True)
        assert agent.is_running
        agent.kill()
    code, _ = refused("--config", path, "once")
    assert code == 0


# -- once ----------------------------------------------------------------------------------------------------------


def test_once_collects_delivers_and_ends(clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    texts = clean_mariadb.slow(12)
    first, second = run_agent("once", "--config", path), run_agent("--config", path, "once")
    assert (first.returncode, first.stdout) == (0, "collected 12, delivered 12, waiting 0, parked 0\n")
    assert (second.returncode, second.stdout) == (0, "collected 0, delivered 0, waiting 0, parked 0\n")
    assert [record["sql_text"] for record in stub.records] == texts
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (tmp_path / "data").iterdir()}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}


def test_once_tells_what_was_not_reached(clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    clean_mariadb.slow(2)
    stub.break_down("500")
    code, lines = refused("once", "--config", path)
    assert (code, ["[BE-05]" in line for line in lines if line.startswith("[")]) == (1, [True])
    stub.recover()
    away = {**settings(stub, "mysql", clean_mariadb.monitor())}
    away["db_config"] = {**away["db_config"], "port": free_port()}
    code, lines = refused("once", "--config", write(tmp_path, away))
    assert (code, [line[:7] for line in lines if line.startswith("[")]) == (1, ["[DB-01]"])
    assert len(stub.records) == 2


def test_once_of_a_paused_agent_delivers_and_says_that_it_is_paused(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    with AgentProcess(path) as agent:
        stub.queue("stop")
        assert stub.wait_for(lambda each: bool(each.results), SOON_S)
        assert agent.end() == 0
    clean_mariadb.slow(2)
    done = run_agent("once", "--config", path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert done.stdout.startswith("collected 0, delivered 0,")
    assert "paused" in done.stdout


def test_a_dry_run_shows_what_would_leave_and_changes_nothing(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    texts = clean_mariadb.slow(3)
    done = run_agent("once", "--dry-run", "--config", path)
    assert (done.returncode, [json.loads(line)["sql_text"] for line in done.stdout.splitlines()]) == (0, texts)
    assert (stub.requests, (tmp_path / "data").exists()) == (0, False)
    real = run_agent("once", "--config", path)
    assert real.stdout.startswith("collected 3, delivered 3,")
    ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert [record["id"] for record in stub.records] == ids
    after = run_agent("once", "--dry-run", "--config", path)
    assert (after.returncode, after.stdout) == (0, "")


def test_a_dry_run_beside_a_running_agent_changes_nothing(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor(), collection_interval=600))
    clean_mariadb.slow(3)
    with AgentProcess(path) as agent:
        assert stub.wait_for(lambda each: len(each.records) == 3, SOON_S)
        fresh = clean_mariadb.slow(2, first=3)
        done = run_agent("--config", path, "once", "--dry-run")
        assert (done.returncode, [json.loads(line)["sql_text"] for line in done.stdout.splitlines()]) == (0, fresh)
        stub.queue("collect")
        assert stub.wait_for(lambda each: len(each.records) == 5, SOON_S)
        assert agent.end() == 0
    assert [record["sql_text"] for record in stub.records][3:] == fresh


def test_a_dry_run_says_why_the_database_was_not_read(tmp_path: Path) -> None:
    code, [line] = refused("--config", write(tmp_path, nothing_there()), "once", "--dry-run")
    assert (code, line.startswith("[DB-01] ")) == (1, True)


# -- what it survives ----------------------------------------------------------------------------------------------


def recovers(stub: StubBackend, agent: AgentProcess, code: str, heal: Callable[[], object], count: int) -> None:
    """The agent says what is wrong, once, runs on, and delivers `count` records in all after the healing."""
    known = len(stub.records)
    assert agent.heard("collection.wrong", code, SOON_S)
    assert stub.wait_for(lambda each: f"[{code}]" in (each.heartbeats[-1]["error"] or ""), SOON_S)
    beats = len(stub.heartbeats)
    assert stub.wait_for(lambda each: len(each.heartbeats) > beats + 3, SOON_S)
    assert (agent.is_running, len(stub.records), agent.count("collection.wrong", code)) == (True, known, 1)
    heal()
    assert stub.wait_for(lambda each: len(each.records) >= count, SOON_S)
    assert stub.wait_for(lambda each: each.heartbeats[-1]["error"] is None, SOON_S)
    assert agent.heard("collection.right", code, SOON_S)
    assert agent.end() == 0
    said = agent.said()
    assert (len(stub.records), "Traceback" in said) == (count, False)


def test_it_waits_for_a_database_that_is_away(clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path) -> None:
    clean_mariadb.slow(4)
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    clean_mariadb.stop()
    with AgentProcess(path) as agent:
        assert stub.wait_for(
            lambda each: bool(each.heartbeats) and each.heartbeats[-1]["stats"]["state"] == "reconnecting", SOON_S
        )
        recovers(stub, agent, "DB-01", clean_mariadb.start, 4)


def test_it_waits_for_a_password_to_become_right(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    clean_mariadb.slow(4)
    db_config = {**clean_mariadb.monitor(), "password": DB_SECRET}
    with AgentProcess(write(tmp_path, settings(stub, "mysql", db_config))) as agent:
        mended = f"ALTER USER monitoring IDENTIFIED BY '{DB_SECRET}'"
        recovers(stub, agent, "DB-03", lambda: clean_mariadb.execute(mended), 4)
    assert DB_SECRET not in agent.said() + json.dumps(stub.heartbeats)


def test_it_waits_for_a_missing_grant(clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path) -> None:
    clean_mariadb.slow(4)
    db_config = clean_mariadb.monitor()
    clean_mariadb.execute("REVOKE SELECT ON mysql.slow_log FROM monitoring")
    grant = "GRANT SELECT ON mysql.slow_log TO monitoring"
    with AgentProcess(write(tmp_path, settings(stub, "mysql", db_config))) as agent:
        recovers(stub, agent, "MY-01", lambda: clean_mariadb.execute(grant), 4)


def test_it_waits_for_a_missing_extension(postgres18: WatchedPostgres, stub: StubBackend, tmp_path: Path) -> None:
    db_config: Any = {**postgres18.monitor(), "min_exec_time_ms": 100}
    postgres18.reset()
    postgres18.slow_workload("walnut", sleep_s=0.2)
    postgres18.execute("DROP EXTENSION pg_stat_statements")
    create = "CREATE EXTENSION pg_stat_statements"
    with AgentProcess(write(tmp_path, settings(stub, "postgres", db_config))) as agent:
        recovers(stub, agent, "PG-01", lambda: postgres18.execute(create), 1)
    assert stub.records[0]["sql_text"].startswith("WITH walnut AS ")


@pytest.mark.parametrize(("outage", "code"), [("refused", "BE-01"), ("401", "BE-02")])
def test_it_waits_for_the_backend(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path, outage: Any, code: str
) -> None:
    clean_mariadb.slow(4)
    stub.break_down(outage)
    with AgentProcess(write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))) as agent:
        assert agent.heard("delivery.wrong", code, SOON_S)
        assert agent.heard("heartbeat.wrong", code, SOON_S)
        assert (agent.is_running, stub.records) == (True, [])
        stub.recover()
        assert stub.wait_for(lambda each: len(each.records) == 4 and bool(each.heartbeats), SOON_S)
        assert agent.heard("heartbeat.right", code, SOON_S)
        assert agent.end() == 0
    assert stub.api_key not in agent.said()
    assert "Traceback" not in agent.said()


# -- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hangs", "how"),
    [
        ("nothing", signal.SIGTERM),
        ("nothing", signal.SIGINT),
        ("database", signal.SIGTERM),
        ("backend", signal.SIGTERM),
        ("both", signal.SIGTERM),
        ("both", signal.SIGINT),
    ],
)
def test_a_signal_ends_it_within_ten_seconds_whatever_hangs(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path, hangs: str, how: signal.Signals
) -> None:
    path = write(tmp_path, settings(stub, "mysql", {**clean_mariadb.monitor(), "read_timeout": 60}))
    clean_mariadb.slow(2)
    with AgentProcess(path) as agent:
        assert stub.wait_for(lambda each: len(each.records) == 2 and bool(each.heartbeats), SOON_S)
        if hangs in {"backend", "both"}:
            stub.break_down("hanging")
            before = stub.requests
            clean_mariadb.slow(1, first=2)
            assert stub.wait_for(lambda each: each.requests >= before + 2, SOON_S)
        if hangs in {"database", "both"}:
            stuck = len(stub.heartbeats)
            clean_mariadb.freeze()
            if hangs == "database":
                assert stub.wait_for(
                    lambda each: (
                        [beat["stats"]["state"] for beat in each.heartbeats[-2:]] == ["collecting"] * 2
                        and len(each.heartbeats) >= stuck + 2
                    ),
                    SOON_S,
                )
        assert agent.end(how, timeout_s=END_S) == 0
    stub.recover()
    clean_mariadb.thaw()
    assert agent.count("agent.stopped") == 1
    assert "Traceback" not in agent.said()
    assert refused("once", "--config", path)[0] == 0
    expected = [f"SELECT /* {tag(number)} */ 1" for number in range(3 if hangs in {"backend", "both"} else 2)]
    assert wait_until(lambda: {record["sql_text"] for record in stub.records} == set(expected), SOON_S)
