"""`doctor` and `doctor --canary` as words, beside real servers: with an agent that runs, and without one.

What could go wrong: the exit code says the contrary of the lines; a secret is shown; a configuration that cannot be
used ends it before it has said so; the canary needs more grants than a login; it does not arrive although all is well,
or seems to arrive although nothing does; the agent is disturbed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.dev.server_process import free_port
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, Json, run_agent, settings, write
from tests.servers.postgres import WatchedPostgres
from tests.servers.slow_log_server import SlowLogServer

WAIT_S = 30.0
HOPS = ["canary", "canary in the source", "canary in the outbox", "canary accepted"]


def doctor(path: Path, expected_code: int, *words: str) -> list[Json]:
    """What it found as JSON; without secrets."""
    done = run_agent("doctor", "--json", "--config", path, *words)
    assert (done.returncode, done.stderr) == (expected_code, ""), done.stdout
    config = json.loads(path.read_text())
    assert config["db_config"]["password"] not in done.stdout
    assert config["api_key"] not in done.stdout
    told: Json = json.loads(done.stdout)
    assert told["well"] == (expected_code == 0)
    findings: list[Json] = told["findings"]
    return findings


def wrong(findings: list[Json]) -> dict[str, str]:
    return {each["subject"]: each["code"] for each in findings if each["verdict"] == "wrong"}


def hops(findings: list[Json]) -> list[str]:
    return [each["subject"] for each in findings if each["subject"].startswith("canary") and each["verdict"] == "right"]


def private(path: Path) -> Path:
    path.chmod(0o600)
    return path


def test_a_canary_flies_without_an_agent_from_the_slow_log(
    clean_slow_log: SlowLogServer, stub: StubBackend, tmp_path: Path
) -> None:
    clean_slow_log.slow(3)
    path = private(write(tmp_path, settings(stub, "mysql", clean_slow_log.monitor())))
    findings = doctor(path, 0, "--canary")
    assert hops(findings) == HOPS
    [canary] = [record for record in stub.records if "dbpower_canary_" in record["sql_text"]]
    assert len(stub.records) == 4
    assert canary["query_time"] >= 0.2
    assert run_agent("audit", "--config", path).returncode == 0


def test_a_canary_flies_without_an_agent_from_pg_stat_statements(
    clean_postgres: WatchedPostgres, stub: StubBackend, tmp_path: Path
) -> None:
    db_config = {**clean_postgres.monitor(), "min_exec_time_ms": 100}
    path = private(write(tmp_path, settings(stub, "postgres", db_config)))
    for times in (1, 2):
        assert hops(doctor(path, 0, "--canary")) == HOPS
        flown = [record for record in stub.records if "dbpower_canary" in record["sql_text"]]
        assert sum(record["calls"] for record in flown) == times


@pytest.mark.parametrize("redact", ["secrets", "literals", "fingerprint"])
def test_a_canary_is_followed_through_an_agent_that_runs(
    clean_slow_log: SlowLogServer, stub: StubBackend, tmp_path: Path, redact: str
) -> None:
    path = private(write(tmp_path, settings(stub, "mysql", clean_slow_log.monitor(), redact=redact)))
    with AgentProcess(path) as agent:
        assert agent.heard("collection.first")
        for _ in range(2):
            assert hops(doctor(path, 0, "--canary")) == HOPS
        assert agent.end() == 0
    assert len([record for record in stub.records if "dbpower_canary_" in record["sql_text"]]) == 2


def test_a_canary_needs_no_grant_but_a_login_to_run_and_tells_where_it_is_lost(
    clean_slow_log: SlowLogServer, stub: StubBackend, tmp_path: Path
) -> None:
    db_config = clean_slow_log.monitor(grants=())
    path = private(write(tmp_path, settings(stub, "mysql", db_config)))
    findings = doctor(path, 1, "--canary")
    assert wrong(findings) == {"mysql.slow_log": "MY-01", "canary": "MY-01"}
    clean_slow_log.monitor()
    clean_slow_log.execute("SET GLOBAL slow_query_log=OFF")
    try:
        findings = doctor(private(write(tmp_path, settings(stub, "mysql", clean_slow_log.monitor()))), 1, "--canary")
    finally:
        clean_slow_log.execute("SET GLOBAL slow_query_log=ON")
    assert wrong(findings)["slow_query_log"] == "MY-05"
    assert "canary" in wrong(findings)


def test_a_canary_whose_backend_is_away_is_told_and_waits_in_the_outbox(
    clean_slow_log: SlowLogServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = private(write(tmp_path, settings(stub, "mysql", clean_slow_log.monitor())))
    stub.break_down("refused")
    findings = doctor(path, 1, "--canary")
    assert wrong(findings) == {"reached": "BE-01", "canary": "BE-01"}
    stub.recover()
    assert run_agent("once", "--config", path).returncode == 0
    assert len([record for record in stub.records if "dbpower_canary_" in record["sql_text"]]) == 1


def test_a_configuration_that_cannot_be_used_is_a_finding(stub: StubBackend, tmp_path: Path) -> None:
    path = private(
        write(tmp_path, settings(stub, "mysql", {"host": "h", "user": "u", "password": "secret-1", "prot": 1}))
    )
    assert wrong(doctor(path, 1)) == {"configuration": "CF-01"}


def test_a_data_dir_that_cannot_be_used_is_a_finding(stub: StubBackend, tmp_path: Path) -> None:
    path = private(write(tmp_path, settings(stub, "mysql", {"host": "h", "user": "u", "password": "secret-1"})))
    (tmp_path / "data").write_text("in the way")
    assert wrong(doctor(path, 1)) == {"configuration": "OB-04"}


def test_the_lines_for_a_person(stub: StubBackend, tmp_path: Path) -> None:
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "u", "password": "secret-1"}
    path = private(write(tmp_path, settings(stub, "mysql", db_config)))
    done = run_agent("doctor", "--config", path, PYTHONIOENCODING="utf-8")
    assert done.returncode == 1
    assert "this host" in done.stdout.splitlines()
    assert "  ✓ key                  is taken for collector 1" in done.stdout
    assert "  ✗ login                [DB-01] The database cannot be reached" in done.stdout
    plain = run_agent("doctor", "--config", path, PYTHONIOENCODING="ascii")
    assert (plain.returncode, "  NO login" in plain.stdout) == (1, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root meets directories of others that it could write to")
def test_no_canary_leaves_files_of_root_in_the_directory_of_another_user(stub: StubBackend, tmp_path: Path) -> None:
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "u", "password": "secret-1"}
    path = private(write(tmp_path, settings(stub, "mysql", db_config)))
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65_534, 65_534)
    assert wrong(doctor(path, 1, "--canary"))["canary"] == "CA-02"
    assert list(directory.iterdir()) == []
