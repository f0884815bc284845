"""No secret is written anywhere: every word and every failure, with marked secrets, and everything written is searched.

What could go wrong: a password or a key stands in a line of the log, in the sentence of an error, in a traceback, in
the list of processes, in a core, in the status, in a heartbeat or in a result, in the outbox or a file beside it, in an
export or the ledger of a replay; so does the password of a proxy, one that came by `update_config`, or one that a
statement sets which was slow. And: who searches finds nothing because it looks in the wrong way.
"""

from __future__ import annotations

import base64
import gzip
import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.config.remote import FILE_NAME as REMOTE
from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port, wait_until
from agent.status_door import ask
from storage.outbox import FILE_NAME
from tests.fakes.marked import Sweep, files
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import ROOT, AgentProcess, Json, environment, run_agent, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import WatchedPostgres, shape
from tests.servers.slow_log_server import LOG_NOTHING_SQL, SlowLogServer, tag

SOON_S = 60.0
WATCHED = ["clean_mariadb", "clean_mysql", "postgres18"]


def marked(name: str) -> str:
    return f"hunter2{name}{secrets.token_hex(8)}"


IN_STATEMENT, REMOTE_WRONG, REMOTE_RIGHT = marked("statement"), marked("remotewrong"), marked("remoteright")
PROXY, WRONG, KEY = marked("proxy"), marked("wrong"), f"collector_1_{marked('key')}"
TOKEN = marked("token")
NOBODY = "http://127.0.0.1:1"
PROXY_URL = f"http://proxyuser:{PROXY}@127.0.0.1:1"


def heard(stub: StubBackend) -> dict[str, str]:
    """Everything that the backend was sent, but for the header with the key."""
    return {
        "heartbeats": json.dumps(stub.heartbeats),
        "records": json.dumps(stub.records),
        "results": json.dumps(stub.results),
    }


def both(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def python(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end, with these variables in its environment."""
    argv, env = [sys.executable, *map(str, words)], environment(PYTHONPATH=str(ROOT), **variables)
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=170, check=False)


# -- who searches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write_it",
    [
        lambda secret: f"cannot log in with {secret}, sorry".encode(),
        lambda secret: base64.b64encode(f"proxyuser:{secret}".encode()),
        lambda secret: base64.b64encode(f"user:{secret}:".encode()),
        lambda secret: f"password={secret.encode().hex()}".encode(),
        lambda secret: f"a{secret}".encode("utf-16-le"),
        lambda secret: gzip.compress(json.dumps({"sql_text": f"SET PASSWORD = '{secret}'"}).encode()),
        lambda secret: b"header" + gzip.compress(secret.encode()) + b"trailer",
    ],
)
def test_control_a_secret_is_found_however_it_is_written(write_it: Callable[[str], bytes]) -> None:
    sweep = Sweep(one=WRONG, other=PROXY)
    assert sweep.leaks({"log": write_it(WRONG)}) == ["one in log"]
    assert sweep.leaks({"log": write_it(WRONG)}, {"log": {"one"}}) == []
    assert sweep.leaks({"log": write_it(WRONG[::-1])}) == []


# -- a life with a real server ---------------------------------------------------------------------------------------


class Watched:
    """A database server with a slow statement that sets a password."""

    def __init__(self, server: MariaDBServer | MySQLServer | WatchedPostgres) -> None:
        self.server = server
        self.db_type = "postgres" if isinstance(server, WatchedPostgres) else "mysql"
        self.db_config = server.monitor()

    @property
    def password(self) -> str:
        return str(self.db_config["password"])

    def be_slow(self) -> str:
        """A statement that sets a password is slow, and a harmless one behind it; gives a mark in the latter."""
        if isinstance(self.server, WatchedPostgres):
            self.db_config |= {"min_exec_time_ms": 0}
            self.server.reset()
            self.server.execute("DROP ROLE IF EXISTS tester")
            self.server.execute(f"CREATE ROLE tester PASSWORD '{IN_STATEMENT}'")
            self.server.execute(shape("harmless"))
            return "harmless"
        with closing(self.server.root()) as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION long_query_time=0")
            cursor.execute("DROP USER IF EXISTS tester")
            cursor.execute(f"CREATE USER tester IDENTIFIED BY '{IN_STATEMENT}'")
            cursor.execute(f"SELECT '{IN_STATEMENT}' AS password")
            cursor.execute(LOG_NOTHING_SQL)
        self.server.slow(1, first=7)
        return tag(7)

    def shows(self) -> str:
        """What the server itself has of its slow statements."""
        if isinstance(self.server, SlowLogServer):
            return "\n".join(self.server.texts())
        return str(self.server.execute("SELECT query FROM pg_stat_statements"))

    def set_password(self, password: str) -> None:
        if isinstance(self.server, WatchedPostgres):
            self.server.execute("ALTER ROLE monitoring PASSWORD %s", (password,))
        else:
            self.server.execute(f"ALTER USER 'monitoring'@'%' IDENTIFIED BY '{password}'")


@pytest.fixture(params=WATCHED)
def watched(request: pytest.FixtureRequest) -> Watched:
    return Watched(request.getfixturevalue(request.param))


class Life:
    """One agent from its start to its end; `written`: everything that came of it, by where it stood."""

    def __init__(self, watched: Watched, stub: StubBackend, place: Path) -> None:
        self.watched, self.stub, self.place = watched, stub, place
        self.sweep = Sweep(
            database=watched.password,
            key=stub.api_key,
            statement=IN_STATEMENT,
            remote_wrong=REMOTE_WRONG,
            remote_right=REMOTE_RIGHT,
            proxy=PROXY,
            wrong=WRONG,
        )
        self.written: dict[str, bytes | str] = {}
        self.mark = watched.be_slow()
        (place / "api_key").write_text(f"{stub.api_key}\n")
        database = {**watched.db_config, "password": "${DB_SECRET}"}
        tree = {**settings(stub, watched.db_type, database), "api_key": "", "log": {"level": "DEBUG"}}
        del tree["api_key"]
        self.config = write(place, tree)
        self.variables = {
            "DB_SECRET": watched.password,
            "DBPOWER_API_KEY_FILE": str(place / "api_key"),
            "HTTPS_PROXY": PROXY_URL,
            "https_proxy": PROXY_URL,
        }
        self.data = place / "data"

    def say(self, *words: object) -> None:
        """One word of the agent, to its end; what it said is kept."""
        done = python("-m", "agent", "--config", self.config, *words, **self.variables)
        self.written[f"output of {' '.join(map(str, words))}"] = both(done)

    def run(self, log_format: str) -> None:
        """It runs, is asked, is commanded, and dies of SIGABRT, as systemd's watchdog ends one that hangs."""
        words = ("-m", "agent", "--config", str(self.config), "--log-format", log_format)
        beats = len(self.stub.heartbeats)
        with AgentProcess(self.config, *words, variables=self.variables) as agent:
            self._records_have_come()
            assert self.stub.wait_for(lambda each: len(each.heartbeats) > beats, SOON_S)
            assert wait_until(lambda: ask(self.data) is not None, SOON_S)
            self._ask(agent)
            self._command()
            for file in ("cmdline", "environ"):
                self.written[f"{file} of the agent"] = Path(f"/proc/{agent.pid}/{file}").read_bytes()
            limits = Path(f"/proc/{agent.pid}/limits").read_text()
            assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core")] == ["0"]
            agent.end(signal.SIGABRT)
            said = agent.said()
            assert "Fatal Python error: Aborted" in said, "where each thread was is told"
            self.written[f"log in {log_format}"] = said

    def _records_have_come(self) -> None:
        def has_come(stub: StubBackend) -> bool:
            return any(self.mark in record["sql_text"] for record in stub.records)

        assert self.stub.wait_for(has_come, SOON_S)

    def _ask(self, agent: AgentProcess) -> None:
        assert wait_until(lambda: ask(self.data) is not None, SOON_S)  # also of the one before its name may be there
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self.data / "agent.sock"))
            answer = b""
            while piece := asking.recv(65_536):
                answer += piece
        assert json.loads(answer)["pid"] == agent.pid
        self.written["status from the socket"] = answer
        for words in (["status"], ["status", "--json"], ["audit", "--json"], ["outbox", "ls"], ["migrate", "--check"]):
            self.say(*words)
        for words in (["status", "--alive"], ["commands"], ["doctor"], ["doctor", "--json"], ["doctor", "--canary"]):
            self.say(*words)

    def _command(self) -> None:
        """The password is changed by commands of the backend: refused, wrong, right."""
        before = len(self.stub.results)
        self.stub.queue("update_config", {"db_config": {"host": "127.0.0.1", "rotate": True, "password": WRONG}})
        self.stub.queue("update_config", {"db_config": {"password": {"deep": REMOTE_WRONG}}})
        self.stub.queue("update_config", {"db_config": {"password": REMOTE_WRONG}})
        assert self.stub.wait_for(lambda each: len(each.results) >= before + 3, SOON_S)
        self.watched.set_password(REMOTE_RIGHT)
        self.stub.queue("update_config", {"db_config": {"password": REMOTE_RIGHT}})
        assert self.stub.wait_for(lambda each: len(each.results) >= before + 4, SOON_S)
        results = [result["success"] for result in self.stub.results[before:]]
        assert results == [False, False, False, True], self.stub.results

    def afterwards(self) -> None:
        """What a person does with what it left: an outage fills the outbox, which is looked at, exported, replayed."""
        self.stub.break_down("500")
        self.watched.be_slow()
        for words in (
            *(["once"], ["once", "--dry-run"], ["once", "--log-level", "DEBUG", "--log-format", "json"]),
            *(["outbox", "ls"], ["outbox", "ls", "--json"], ["outbox", "show", "1"], ["outbox", "parked"]),
            *(["outbox", "export", self.place / "export.jsonl.gz"], ["outbox", "export", self.place / "export.csv"]),
            *(["audit"], ["status"], ["migrate"], ["outbox", "vacuum"]),
        ):
            self.say(*words)
        self.stub.recover()
        self._replay("--export", str(self.place / "replayed.jsonl.gz"))
        self._replay("--dry-run", "--config", str(self.config))
        self._replay("--config", str(self.config), "--log-level", "DEBUG", "--ledger", str(self.place / "ledger"))

    def _replay(self, *words: str) -> None:
        done = python(ROOT / "scripts" / "replay.py", self.data, *words, **self.variables)
        self.written[f"output of replay {words[0]}"] = both(done)

    def leaks(self) -> list[str]:
        """Every secret that stands where it must not."""
        self.written |= {f"data/{name}": content for name, content in files(self.data).items()}
        for path in self.place.iterdir():
            if path.is_file() and path.name not in {self.config.name, "api_key"}:
                self.written[path.name] = path.read_bytes()
        self.written |= heard(self.stub)
        given = {"database", "proxy"}  # its environment is what this test has given it
        allowed = {f"data/{REMOTE}": {"remote_right"}, "environ of the agent": given}
        return self.sweep.leaks(self.written, allowed)


def test_no_secret_is_written_in_a_whole_life(watched: Watched, stub: StubBackend, tmp_path: Path) -> None:
    life = Life(watched, stub, tmp_path)
    assert IN_STATEMENT in watched.shows() or watched.db_type == "mysql", "the server itself shows it"
    life.run("json")
    watched.set_password(watched.password)
    (life.data / REMOTE).unlink()
    life.run("text")
    life.afterwards()
    assert life.leaks() == []
    # And that there was something to be found, each in its place.
    assert REMOTE_RIGHT in (life.data / REMOTE).read_text()
    records = json.dumps(stub.records)
    assert "tester" in records, "the statement that sets a password has arrived"
    shown = "\n".join(each if isinstance(each, str) else "" for each in life.written.values())
    assert all(word in shown for word in ("command.refused", "collected ", "pid", "exported "))
    assert {f"data/{FILE_NAME}", "export.csv", "export.jsonl.gz", "replayed.jsonl.gz", "ledger"} <= life.written.keys()
    assert any(name.startswith("data/envelope ") for name in life.written)


def test_a_password_that_the_server_refuses_is_not_written(watched: Watched, stub: StubBackend, tmp_path: Path) -> None:
    sweep = Sweep(wrong=WRONG, key=stub.api_key)
    database = {**watched.db_config, "password": WRONG}
    config = write(tmp_path, settings(stub, watched.db_type, database))
    written: dict[str, bytes | str] = {}
    for log_format in ("text", "json"):
        done = run_agent("--config", config, "once", "--log-level", "DEBUG", "--log-format", log_format)
        assert "DB-03" in done.stderr, "it was refused"
        written[f"output in {log_format}"] = both(done)
    written |= files(tmp_path / "data")
    assert sweep.leaks({**written, **heard(stub)}) == []


def test_setting_up_shows_the_key_once_and_nothing_else(watched: Watched, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("token", "wrong_token", "password", "wrong_password")}
    for name, secret in zip(files, (TOKEN, WRONG, watched.password, REMOTE_WRONG), strict=True):
        files[name].write_text(f"{secret}\n")
    config = tmp_path / "config.json"
    said: dict[str, bytes | str] = {}

    def say(name: str, *words: object) -> int:
        done = python("-m", "agent", "--config", config, *words, "--log-level", "DEBUG")
        said[name] = both(done)
        return done.returncode

    with RunningBackend(token=TOKEN) as backend:
        register = ("register", "--backend-url", backend.url, "--db-type", watched.db_type, "--team-id", "1")
        address = {name: watched.db_config[name] for name in ("host", "port", "user")}
        init = ("init", "--non-interactive", "--force", *(f"--db-{name}={value}" for name, value in address.items()))
        assert say("refused", *register, "--jwt-file", files["wrong_token"]) == 1
        assert say("away", *register[:1], *register[3:], "--jwt-file", files["token"], "--backend-url", NOBODY) == 1
        assert say("registered", *register, "--jwt-file", files["token"]) == 0
        [own] = backend.registry.collectors()
        assert say("wrong password", *init, "--db-password-file", files["wrong_password"]) == 1
        assert say("set up", *init, "--db-password-file", files["password"]) in {0, 1}
        heard = json.dumps([own.config, own.name])
    sweep = Sweep(key=own.api_key, token=TOKEN, wrong=WRONG, database=watched.password, other=REMOTE_WRONG)
    assert sweep.leaks({**said, "what the backend knows": heard}, {"registered": {"key"}}) == []
    assert str(said["registered"]).count(own.api_key) == 1
    assert sweep.found(config.read_text()) == {"key", "database"}, "they are in the file, and only there"
    assert {path.name for path in tmp_path.iterdir()} - set(files) == {config.name}


# -- failures without a server ---------------------------------------------------------------------------------------


def tree(stub: StubBackend, **more: Any) -> Json:
    database = {"host": "127.0.0.1", "port": free_port(), "user": "u", "password": WRONG, "connect_timeout": 1}
    return {**settings(stub, "mysql", database), "api_key": KEY, "log": {"level": "DEBUG"}, **more}


Case = tuple[str, Callable[[StubBackend], Json], dict[str, str]]
CASES: tuple[Case, ...] = (
    ("BE-02", tree, {}),
    ("BE-01", tree, {"http_proxy": PROXY_URL, "no_proxy": ""}),
    ("BE-01", tree, {"http_proxy": f"http://proxyuser:{PROXY}@[::1", "no_proxy": ""}),
    ("BE-01", tree, {"http_proxy": f"socks5://proxyuser:{PROXY}@127.0.0.1:1", "no_proxy": ""}),
    ("BE-01", lambda _: tree(_, backend_url="https://backend.invalid"), {"https_proxy": PROXY_URL, "no_proxy": ""}),
    ("BE-08", lambda stub: tree(stub, backend_url=stub.url.replace("http:", "https:")), {}),
    ("CF-01", lambda stub: tree(stub, backend_url=f"ftp://user:{PROXY}@h"), {}),
    ("CF-01", lambda stub: tree(stub, collector_id=KEY, api_key={"key": KEY}, db_config=WRONG), {}),
    ("CF-01", lambda stub: tree(stub, db_type=WRONG, api_kye=KEY, heartbeat_interval=PROXY), {}),
    ("CF-01", lambda stub: tree(stub, data_dir=["x", WRONG]), {}),
    ("CF-01", lambda stub: tree(stub, api_key="${NO_SUCH_VARIABLE}" + KEY), {}),
    ("CF-01", tree, {"DBPOWER_API_KEYS": KEY}),
    ("CF-01", tree, {"DBPOWER_DB_CONFIG_PORT": WRONG, "DBPOWER_DB_CONFIG_PASSWORD_FILE": "/none"}),
    ("CF-01", lambda stub: tree(stub, api_key=f"{KEY}\n\0"), {"DBPOWER_DB_CONFIG_PASSWORD": f"{WRONG}\0"[:-1]}),
)


@pytest.mark.parametrize(("code", "make", "variables"), CASES)
def test_no_failure_writes_a_secret(
    stub: StubBackend, tmp_path: Path, code: str, make: Callable[[StubBackend], Json], variables: dict[str, str]
) -> None:
    sweep = Sweep(wrong=WRONG, proxy=PROXY, key=KEY, token=TOKEN)
    config = write(tmp_path, make(stub))
    written: dict[str, bytes | str] = {}
    for words in (["once"], ["once", "--dry-run"], ["status"], ["audit"]):
        for log_format in ("text", "json"):
            how = ("--log-format", log_format, "--log-level", "DEBUG")
            done = python("-m", "agent", "--config", config, *words, *how, **variables)
            written[f"{words} in {log_format}"] = both(done)
    for word in (["doctor", "--canary"], ["register", "--team-id", "1"], ["init", "--non-interactive", "--force"]):
        done = python("-m", "agent", "--config", config, *word, **variables, DBPOWER_JWT=TOKEN)
        written[str(word)] = both(done)
    assert code in str(written["['once'] in text"]), "it has failed in this way"
    if (tmp_path / "data").exists():
        written |= files(tmp_path / "data")
    assert sweep.leaks({**written, **heard(stub)}) == []


def test_a_file_that_is_no_json_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"api_key": "{KEY}", "db_config": {{"password": "{WRONG}" "port": 1}}}}')
    done = run_agent("--config", path, "once")
    assert "CF-03" in done.stderr
    assert Sweep(wrong=WRONG, key=KEY).leaks({"output": both(done)}) == []


def test_an_open_configuration_is_told_without_what_is_in_it(stub: StubBackend, tmp_path: Path) -> None:
    config = write(tmp_path, tree(stub))
    config.chmod(0o644)
    with AgentProcess(config) as agent:
        assert agent.heard("config.exposed")
        agent.end()
        assert [each["level"] for each in agent.events() if each["event"] == "config.exposed"] == ["WARNING"]
        assert Sweep(wrong=WRONG, key=KEY).leaks({"log": agent.said()}) == []
    config.chmod(0o600)
    agent.log.unlink()
    with agent:
        assert agent.heard("collection.wrong")
        assert agent.count("config.exposed") == 0


# -- defects ---------------------------------------------------------------------------------------------------------


def broken(config: Path, how: str, log_format: str) -> AgentProcess:
    words = ("-m", "tests.servers.broken_agent", "--config", str(config), "--log-format", log_format)
    return AgentProcess(config, *words, variables={"BREAKS": how})


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(("how", "leaks"), [("raise", []), ("leak", ["wrong in log"])])
def test_a_thread_that_dies_of_a_defect_tells_where_and_no_secret_and_control_one_that_does(
    stub: StubBackend, tmp_path: Path, how: str, leaks: list[str], log_format: str
) -> None:
    config = write(tmp_path, tree(stub, api_key=stub.api_key))
    with broken(config, how, log_format) as agent:
        assert wait_until(lambda: "worker.died" in agent.said(), SOON_S)
        assert stub.wait_for(lambda each: len(each.heartbeats) > 2, SOON_S)
        agent.end()
        said = agent.said()
    assert "broken_agent.py" in said, "the traceback is told"
    written: dict[str, bytes | str] = {"log": said, **heard(stub), **files(tmp_path / "data")}
    assert Sweep(wrong=WRONG, key=stub.api_key).leaks(written) == leaks


def test_where_each_thread_hangs_is_told_without_what_it_holds(stub: StubBackend, tmp_path: Path) -> None:
    config = write(tmp_path, tree(stub, api_key=stub.api_key))
    with broken(config, "hang", "text") as agent:
        assert stub.wait_for(lambda each: len(each.heartbeats) > 1, SOON_S)
        agent.end(signal.SIGABRT)
        said = agent.said()
    assert "_connect" in said
    assert Sweep(wrong=WRONG, key=stub.api_key).leaks({"log": said}) == []


# -- the demonstration -----------------------------------------------------------------------------------------------


def test_the_demonstration_says_nothing_of_the_environment_it_runs_in() -> None:
    variables = {"HTTPS_PROXY": PROXY_URL, "DB_PASSWORD": WRONG, "DBPOWER_API_KEY": KEY}
    done = python("-m", "agent", "demo", "--log-level", "DEBUG", **variables)
    assert "collected" in done.stdout, done.stderr
    assert Sweep(proxy=PROXY, wrong=WRONG, key=KEY).leaks({"output": both(done)}) == []
