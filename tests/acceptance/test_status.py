"""`status` beside real agents: one that runs, one whose database is away, one that hangs, one that was killed.

What could go wrong: it shows what was and not what is; it disturbs the agent; a secret is shown; a hanging agent makes
who asks hang; after a kill the old socket answers for it; a database that is away passes for an agent that does not
live, and has its container ended.
"""

import json
import os
import signal
from pathlib import Path

from agent.dev.server_process import wait_until
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, Json, run_agent, settings, write
from tests.servers.mariadb import MariaDBServer

WAIT_S = 30.0


def status(path: Path, expected_code: int) -> Json:
    """What it says as JSON; without secrets, also on standard error."""
    done = run_agent("status", "--json", "--config", path)
    assert (done.returncode, done.stderr) == (expected_code, ""), done.stdout
    config = path.read_text()
    assert json.loads(config)["db_config"]["password"] not in done.stdout
    assert json.loads(config)["api_key"] not in done.stdout
    told: Json = json.loads(done.stdout)
    return told


def test_it_shows_what_is_now_from_the_first_look_to_the_kill(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    clean_mariadb.slow(7)
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    with AgentProcess(path) as agent:
        assert stub.wait_for(lambda each: len(each.records) == 7, WAIT_S)
        assert stub.wait_for(lambda each: each.heartbeats[-1]["stats"]["outbox_records"] == 0, WAIT_S)
        found = status(path, 0)
        assert (found["pid"], found["queries_delivered"], found["error"]) == (agent.pid, 7, None)
        watch = found["watches"]["default"]
        assert (watch["state"] in {"idle", "collecting"}, watch["error"], bool(watch["since"])) == (True, None, True)
        shown = run_agent("status", "--config", path)
        assert (shown.returncode, f"runs as process {agent.pid}" in shown.stdout) == (0, True)

        clean_mariadb.stop()
        assert wait_until(lambda: status_of_watch(path) == "reconnecting", WAIT_S)
        assert "[DB-01]" in status(path, 1)["error"]
        clean_mariadb.start()
        assert wait_until(lambda: status_of_watch(path) == "idle", WAIT_S)

        os.kill(agent.pid, signal.SIGSTOP)
        done = run_agent("status", "--config", path)
        assert (done.returncode, "[AG-01]" in done.stdout, "delivered 7" in done.stdout) == (1, True, True)
        os.kill(agent.pid, signal.SIGCONT)
        assert wait_until(lambda: status_of_watch(path) is not None, WAIT_S)
        agent.kill()
    found = status(path, 1)
    assert (found["pid"], found["silent"], found["queries_delivered"]) == (None, None, 7)
    assert run_agent("audit", "--config", path).returncode == 0


def status_of_watch(path: Path) -> str | None:
    told: Json = json.loads(run_agent("status", "--json", "--config", path).stdout)
    watch = told["watches"].get("default") if told["pid"] is not None else None
    return None if watch is None else str(watch["state"])


def test_an_agent_lives_whatever_database_and_backend_do_and_not_when_it_is_stopped_or_gone(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    with AgentProcess(path) as agent:

        def alive() -> tuple[int, str]:
            done = run_agent("status", "--alive", agent.data_dir)
            assert done.stderr == ""
            return done.returncode, done.stdout

        lives = (0, f"Process {agent.pid} lives, and all its threads get on.\n")
        assert stub.wait_for(lambda each: bool(each.heartbeats), WAIT_S)
        assert alive() == lives
        clean_mariadb.stop()
        stub.break_down("refused")
        assert agent.heard("collection.wrong", "DB-01")
        assert agent.heard("heartbeat.wrong", "BE-01")
        assert (alive(), run_agent("status", "--config", path).returncode) == (lives, 1)
        path.write_text("{")  # nothing of it is asked of the configuration
        assert alive() == lives
        clean_mariadb.start()
        os.kill(agent.pid, signal.SIGSTOP)
        code, said = alive()
        assert (code, "[AG-01]" in said) == (1, True)
        os.kill(agent.pid, signal.SIGCONT)
        assert wait_until(lambda: alive() == lives, WAIT_S)
        agent.kill()
        assert alive() == (1, f"No agent answers in {agent.data_dir}.\n")
