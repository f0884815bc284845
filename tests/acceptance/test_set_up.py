"""`init` and `register` without a person at a terminal, as scripts say them.

What could go wrong: they ask, and nobody is there; what is missing is told one by one; a configuration that is there is
overwritten, or a collector's key lost; a secret is shown that was not to be shown, or is written that came from the
environment; what went wrong leaves half a file; the exit code says the contrary.
"""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config.layers import load
from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port
from tests.servers.agent_process import run_agent
from tests.servers.slow_log_server import SlowLogServer

TOKEN = "token-of-a-person"
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def backend() -> Iterator[RunningBackend]:
    with RunningBackend(token=TOKEN) as running:
        yield running


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def register(place: Path, backend_url: str, *words: object, **variables: str) -> Done:
    all_words = ("register", "--backend-url", backend_url, "--name", "first", *words)
    done = run_agent(*all_words, cwd=place, timeout_s=60, **variables)
    assert (TOKEN in done.stdout + done.stderr, "Traceback" in done.stderr) == (False, False)
    return done


def known(place: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((place / "config.json").read_text())
    return found


def test_a_collector_is_registered_and_its_key_shown_once(backend: RunningBackend, token: Path, tmp_path: Path) -> None:
    done = register(tmp_path, backend.url, "--team-id", 1, "--jwt-file", token, "--db-type", "mysql")
    assert done.returncode == 0, done.stderr
    [own] = backend.registry.collectors()
    assert done.stdout.count(own.api_key) == 1
    assert known(tmp_path) == {
        "backend_url": backend.url,
        "db_type": "mysql",
        "collector_id": own.id,
        "api_key": own.api_key,
    }
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o600


def test_what_stands_in_the_file_stays_and_a_key_is_not_lost(
    backend: RunningBackend, token: Path, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    database = {"host": "db", "user": "u", "password": "${DB_SECRET}"}
    path.write_text(json.dumps({"db_type": "mysql", "db_config": database, "log": {"level": "DEBUG"}}))
    words = ("--team-id", 1, "--jwt-file", token)
    assert register(tmp_path, backend.url, *words).returncode == 0
    first = known(tmp_path)
    assert (first["db_config"], first["log"]) == (database, {"level": "DEBUG"})
    assert backend.registry.collectors()[0].config == {"host": "db", "user": "u"}, "no password goes to the backend"
    again = register(tmp_path, backend.url, *words)
    assert (again.returncode, "[CF-06]" in again.stderr, known(tmp_path)) == (2, True, first)
    forced = register(tmp_path, backend.url, *words, "--force", "--name", "second")
    assert (forced.returncode, known(tmp_path)["collector_id"]) == (0, 2)


@pytest.mark.parametrize(
    ("words", "variables", "code", "said"),
    [
        (("--team-id", 1), {"DBPOWER_JWT": "wrong-token"}, 1, "[RG-01]"),
        (("--team-id", 1), {"DBPOWER_JWT": "two\nlines"}, 2, "printable ASCII"),
        (("--team-id", 1), {}, 2, "Your token is needed"),
        ((), {"DBPOWER_JWT": TOKEN}, 2, "The team is needed"),
        (("--team-id", 1, "--jwt-file", "/nowhere"), {}, 2, "cannot be read"),
        (("--team-id", 0), {"DBPOWER_JWT": TOKEN}, 2, "--team-id"),
    ],
)
def test_what_is_refused_writes_nothing(
    backend: RunningBackend,
    tmp_path: Path,
    *,
    words: tuple[object, ...],
    variables: dict[str, str],
    code: int,
    said: str,
) -> None:
    done = register(tmp_path, backend.url, *words, **variables)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert (list(tmp_path.iterdir()), backend.registry.collectors()) == ([], [])


def test_a_backend_that_is_away_is_told(tmp_path: Path) -> None:
    done = register(tmp_path, f"http://127.0.0.1:{free_port()}", "--team-id", 1, DBPOWER_JWT=TOKEN)
    assert (done.returncode, "[BE-01]" in done.stderr, list(tmp_path.iterdir())) == (1, True, [])


def test_a_configuration_is_made_of_options_and_environment(
    clean_slow_log: SlowLogServer, backend: RunningBackend, tmp_path: Path
) -> None:
    database = clean_slow_log.monitor()
    own = backend.registry.register("own")
    (tmp_path / "secret").write_text(f"{database['password']}\n")
    words = ("--db-type", "mysql", "--db-host", database["host"], "--db-port", database["port"])
    done = run_agent(
        *("init", "--non-interactive", "--backend-url", backend.url, *words),
        *("--db-user", "monitoring", "--db-password-file", tmp_path / "secret", "--collector-id", own.id),
        cwd=tmp_path,
        DBPOWER_API_KEY=own.api_key,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (database["password"] in done.stdout, own.api_key in done.stdout) == (False, False)
    assert known(tmp_path) == {
        "backend_url": backend.url,
        "db_type": "mysql",
        "db_config": {name: database[name] for name in ("host", "port", "user", "password")},
        "collector_id": own.id,
    }, "what the environment says is not written"


def test_what_is_missing_is_told_at_once_and_nothing_is_written(backend: RunningBackend, tmp_path: Path) -> None:
    done = run_agent("init", "--non-interactive", "--backend-url", backend.url, cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert all(key in done.stderr for key in ("[CF-01]", "db_config.password", "api_key", "collector_id"))


def test_what_does_not_work_is_written_all_the_same_and_told(backend: RunningBackend, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret-of-the-database")
    words = ("--db-type", "postgres", "--db-port", free_port(), "--db-password-file", tmp_path / "secret")
    key = ("--api-key", "collector_7_wrong")
    done = run_agent("init", "--non-interactive", "--backend-url", backend.url, *words, *key, cwd=tmp_path)
    assert (done.returncode, "[DB-01]" in done.stdout, "[BE-02]" in done.stdout) == (1, True, True), done.stderr
    assert known(tmp_path)["collector_id"] == 7, "as the key itself says"
    before = (tmp_path / "config.json").read_bytes()
    again = run_agent("init", "--non-interactive", *words, cwd=tmp_path)
    assert (again.returncode, "[CF-06]" in again.stderr) == (2, True)
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_looks_like_a_variable_in_a_password_is_the_password(
    clean_slow_log: SlowLogServer, backend: RunningBackend, tmp_path: Path
) -> None:
    database, odd = clean_slow_log.monitor(), "a$${b${HOME}c$"
    own = backend.registry.register("own")
    (tmp_path / "secret").write_text(odd)
    address = ("--db-type", "mysql", "--db-host", database["host"], "--db-port", database["port"])
    clean_slow_log.execute(f"ALTER USER monitoring@'%' IDENTIFIED BY '{odd}'")
    try:
        done = run_agent(
            *("init", "--non-interactive", "--backend-url", backend.url, *address, "--api-key", own.api_key),
            *("--db-password-file", tmp_path / "secret"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert run_agent("once", cwd=tmp_path).returncode == 0, "and so it is read again"
    finally:
        clean_slow_log.execute(f"ALTER USER monitoring@'%' IDENTIFIED BY '{database['password']}'")


def test_a_collector_of_several_databases_is_registered_and_its_list_stays(
    backend: RunningBackend, token: Path, tmp_path: Path
) -> None:
    database = {"name": "orders", "db_type": "postgres", "db_config": {"host": "db", "user": "u", "password": "p"}}
    (tmp_path / "config.json").write_text(json.dumps({"databases": [database]}))
    words = ("--team-id", 1, "--jwt-file", token)
    refused = register(tmp_path, backend.url, *words)
    assert (refused.returncode, "--db-type is needed" in refused.stderr) == (2, True)
    done = register(tmp_path, backend.url, *words, "--db-type", "postgres")
    assert done.returncode == 0, done.stderr
    [own] = backend.registry.collectors()
    assert own.type == "postgres"
    assert known(tmp_path) == {
        "databases": [database],
        "backend_url": backend.url,
        "collector_id": own.id,
        "api_key": own.api_key,
    }
    config, _ = load(tmp_path / "config.json", {}, {})
    assert [watch.name for watch in config.watches] == ["orders"], "and it is a configuration"


def test_where_nothing_can_be_written_nothing_is_registered(
    backend: RunningBackend, token: Path, tmp_path: Path
) -> None:
    words = ("--team-id", 1, "--jwt-file", token, "--config", tmp_path / "nowhere" / "config.json")
    done = register(tmp_path, backend.url, *words)
    assert (done.returncode, "[CF-05]" in done.stderr, backend.registry.collectors()) == (2, True, [])


def test_a_wrong_environment_is_told_before_the_first_question(tmp_path: Path) -> None:
    done = run_agent("init", cwd=tmp_path, DBPOWER_OUTBOX_MAX_BYTE="5")
    assert (done.returncode, "DBPOWER_OUTBOX_MAX_BYTES" in done.stderr, done.stdout) == (2, True, "")
