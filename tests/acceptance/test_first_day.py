"""The first five minutes: a person who knows nothing, a fresh server, a user without any grant.

Everything that has to be done at the database is taken from what `init` says, and done as it says it.

What could go wrong: a step that is missing is not told, or what is told does not do; a password or a token is shown;
the configuration can be read by others; what was answered is not what is written; at the end nothing arrives.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.dev.postgres import wheel_bin_dir
from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port, wait_until
from tests.servers.agent_process import AgentProcess, run_agent
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate
from tests.servers.postgres import WatchedPostgres
from tests.servers.terminal import Terminal

TOKEN, PASSWORD = "token-of-a-person", "password-of-the-agent"
WAIT_S = 60.0


@pytest.fixture
def backend() -> Iterator[RunningBackend]:
    with RunningBackend(token=TOKEN) as running:
        yield running


def to_be_done(said: str) -> list[str]:
    """The lines that are to be copied."""
    return [line[4:] for line in said.splitlines() if line.startswith("    ") and line.strip()]


def answer_all(person: Terminal, backend: RunningBackend, db_type: str, port: int) -> None:
    """Everything that `init` asks for, up to its first look."""
    person.answer("Address of the backend", backend.url)
    person.answer("postgres", db_type)
    person.answer("Host of the database", "127.0.0.1")
    person.answer("Port", str(port))
    person.answer("User of the agent there")  # as it is proposed
    person.answer("Password", PASSWORD)
    if db_type == "postgres":
        person.answer("Database that has pg_stat_statements")
    person.answer("have you its API key?", "n")
    person.answer("Name of this collector", "first")
    person.answer("Number of its team")
    person.answer("Your token (JWT)", TOKEN)
    person.expect("Registered as collector 1.")


def look_is_fine(path: Path, person: Terminal) -> None:
    person.expect("Written to config.json")
    assert person.end() == 0, person.said
    assert (PASSWORD in person.said, TOKEN in person.said) == (False, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "✗" not in person.said.rpartition("or write them as they are?")[2]


def arrives(backend: RunningBackend, path: Path, run_slow: str) -> None:
    """The agent runs, and what is slow from now on comes to the backend."""
    with AgentProcess(path) as agent:
        assert wait_until(lambda: any(run_slow in record["sql_text"] for record in backend.store.records()), WAIT_S), (
            agent.said()
        )
        assert agent.end() == 0


def test_mariadb(mariadb_template: MariaDBTemplate, backend: RunningBackend, tmp_path: Path) -> None:
    with MariaDBServer(mariadb_template, options=["--slow-query-log=OFF", "--log-output=FILE"]) as server:
        server.execute(f"CREATE USER monitoring@'%' IDENTIFIED BY '{PASSWORD}'")
        path = tmp_path / "config.json"
        with Terminal("init", cwd=tmp_path) as person:
            answer_all(person, backend, "mysql", server.port)
            shown = person.expect("or write them as they are?")
            for subject, code in (("slow_query_log", "MY-05"), ("log_output", "MY-05"), ("mysql.slow_log", "MY-01")):
                assert re.search(rf"✗ {subject} +\[{code}\]", shown), shown
            assert "✓ key" in shown
            server.execute(*(line for line in to_be_done(shown) if not line.startswith("--")))
            person.answer("", "")  # look again
            look_is_fine(path, person)
        assert json.loads(path.read_text())["db_config"] == {
            "host": "127.0.0.1",
            "port": server.port,
            "user": "monitoring",
            "password": PASSWORD,
        }
        tried = run_agent("doctor", "--canary", cwd=tmp_path, PYTHONIOENCODING="utf-8")
        assert (tried.returncode, "✓ canary accepted" in tried.stdout) == (0, True), tried.stdout
        server.execute("SET SESSION long_query_time=0.1", "SELECT SLEEP(0.2) AS first_of_all")
        arrives(backend, path, "first_of_all")


def test_postgresql(backend: RunningBackend, tmp_path: Path) -> None:
    bare = {"shared_preload_libraries": ""}
    with WatchedPostgres(wheel_bin_dir(), settings=bare) as server:
        server.execute("CREATE ROLE monitoring LOGIN PASSWORD %s", (PASSWORD,))
        path = tmp_path / "config.json"
        with Terminal("init", cwd=tmp_path) as person:
            answer_all(person, backend, "postgres", server.port)
            shown = person.expect("or write them as they are?")
            for subject, code in (("loaded", "PG-02"), ("created", "PG-01"), ("grant", "PG-03")):
                assert re.search(rf"✗ {subject} +\[{code}\]", shown), shown
            carry_out(server, to_be_done(shown))
            person.answer("", "")
            look_is_fine(path, person)
        tried = run_agent("doctor", "--canary", cwd=tmp_path, PYTHONIOENCODING="utf-8")
        assert (tried.returncode, "✓ canary accepted" in tried.stdout) == (0, True), tried.stdout
        server.slow_workload("first_of_all", sleep_s=0.6)
        arrives(backend, path, "first_of_all")


def test_a_mistyped_address_and_token_do_not_take_the_answers_along(backend: RunningBackend, tmp_path: Path) -> None:
    with Terminal("init", "--db-type", "mysql", "--db-port", str(free_port()), cwd=tmp_path) as person:
        person.answer("Address of the backend", f"http://127.0.0.1:{free_port()}")
        person.answer("Host of the database", "127.0.0.1")
        person.answer("User of the agent there", b"\xff\n")
        person.expect("That is no UTF-8")
        person.answer("User of the agent there", "somebody")
        person.answer("Password", PASSWORD)
        for token, url, said in (
            ("x", backend.url, "[BE-01]"),
            ("mistyped", "", "[RG-01]"),
            (TOKEN, None, "as collector 1"),
        ):
            person.answer("have you its API key?", "n")
            person.answer("Name of this collector", "first")
            person.answer("Number of its team")
            person.answer("Your token (JWT)", token)
            person.expect(said)
            if url:
                person.answer("Address of the backend", url)
        person.expect("or write them as they are?")
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["api_key"] == backend.registry.collectors()[0].api_key, "saved before anything else can go wrong"
        person.answer("", "write")
        assert person.end() == 1, "no database answers"
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["backend_url"], written["db_config"]["user"]) == (backend.url, "somebody")
    assert ("mistyped" in person.said, TOKEN in person.said) == (False, False)


def carry_out(server: WatchedPostgres, lines: list[str]) -> None:
    """What is meant for postgresql.conf goes there, with a restart; statements are run where `connect` says."""
    settings = [line for line in lines if re.match(r"[a-z_.]+ = ", line)]
    if settings:
        with (server.directory / "data" / "postgresql.conf").open("a") as conf:
            conf.write("\n".join([*settings, ""]))
        server.restart()
    database = "postgres"
    for line in lines:
        if line.startswith("\\connect "):
            database = line.split()[1].strip('"')
        elif line.endswith(";"):
            server.execute(line, database=database)
