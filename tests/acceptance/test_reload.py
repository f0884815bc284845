"""A real agent that is told to read its configuration again, beside a real MariaDB and the development backend.

What could go wrong: a record is lost or doubled; a part of the agent goes on with what was before; a wrong
configuration ends the agent, or is taken over by half; threads, files or memory are left over each time; somebody else
takes the outbox in between; an end that is asked for in the middle is not heard; systemd takes it for an end.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest

from agent.dev.faults import Fault
from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port, wait_until
from agent.status_door import ask
from storage.errors import OutboxLocked
from storage.lock import DirectoryLock
from storage.outbox import FILE_NAME
from tests.fakes.notify_socket import NotifySocket
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, Json, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.traffic import MariaDBCustomer, Traffic

SOON_S = 60.0
END_S = 10.0
RELOADS = 50


class Keyed:
    """The development backend under the names that `settings` knows; what it has stored, by text."""

    def __init__(self, backend: RunningBackend, name: str) -> None:
        own = backend.registry.register(name)
        self.backend, self.url = backend, backend.url
        self.collector_id, self.api_key = own.id, own.api_key

    def texts(self) -> Counter[str]:
        return Counter(each["sql_text"] for each in self.backend.store.records() if "/* tag-" in each["sql_text"])


def changed(path: Path, **changes: Any) -> None:
    """The file, replaced in one step as an editor does it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    fresh.chmod(0o600)
    fresh.replace(path)


def reload(agent: AgentProcess, event: str = "agent.reloaded") -> None:
    """Returns when it has said that `event` once more."""
    before = agent.count(event)
    agent.send(signal.SIGHUP)
    assert wait_until(lambda: agent.count(event) > before, SOON_S), agent.said()


def warnings(agent: AgentProcess) -> list[Json]:
    return [each for each in agent.events() if each.get("level") not in {"DEBUG", "INFO"}]


def nobody(stub: StubBackend, **more: Any) -> Json:
    """An agent whose database does not exist."""
    return settings(stub, "mysql", {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}, **more)


def test_fifty_reloads_under_traffic_lose_and_double_nothing_and_leave_nothing_behind(
    clean_mariadb: MariaDBServer, tmp_path: Path
) -> None:
    server = clean_mariadb
    customer = MariaDBCustomer(server)
    with RunningBackend() as backend, Traffic(customer, pause_s=0.02) as traffic:
        keyed = Keyed(backend, "reloads")
        small = {"batch_max_records": 7}
        path = write(tmp_path, settings(keyed, "mysql", server.monitor(), collection_interval=0.1, outbox=small))
        with AgentProcess(path) as agent:
            assert agent.heard("collection.first")
            process, open_files, threads = psutil.Process(agent.pid), list[int](), list[int]()
            for number in range(RELOADS):
                if number % 10 == 5:
                    backend.faults.add(Fault(kind="drop", path="bulk", times=1))
                changed(path, heartbeat_interval=0.301 + number / 1000)
                reload(agent)
                assert wait_until(lambda: process.num_threads() >= 6, SOON_S)
                open_files.append(process.num_fds())
                threads.append(process.num_threads())
            lost_answers = backend.faults.hits["drop"]
            done = traffic.done
            assert wait_until(lambda: traffic.done > done, SOON_S)
            traffic.stop()
            expected = customer.executions()
            assert wait_until(lambda: set(expected) <= set(keyed.texts()), SOON_S)
            assert agent.end() == 0
        assert keyed.texts() == expected
    assert len(expected) > 100
    assert lost_answers >= 3
    assert agent.count("agent.reloaded") == RELOADS
    assert (agent.count("agent.started"), agent.count("agent.abandoned")) == (1, 0)
    assert max(threads) <= max(threads[:5]) + 2  # one that is just ending may be counted
    assert max(open_files) <= max(open_files[:5]) + 6  # and a connection that is just closed
    with closing(sqlite3.connect(agent.data_dir / FILE_NAME)) as outbox:
        books = outbox.execute("SELECT captured, delivered, pending FROM tally WHERE topic = 'queries'").fetchone()
        assert outbox.execute("SELECT count(*) FROM gap").fetchone() == (0,)
    assert (books[0], books[2]) == (books[1], 0)


def test_what_the_file_says_now_is_in_force(clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path) -> None:
    server = clean_mariadb
    server.slow(3)
    path = write(tmp_path, settings(stub, "mysql", {**server.monitor(), "password": "wrong"}))
    with AgentProcess(path, "-m", "agent", "--config", str(path)) as agent, StubBackend() as other:
        assert wait_until(lambda: "[DB-03]" in agent.said(), SOON_S)
        assert " DEBUG " not in agent.said()
        db_config = {**json.loads(path.read_text())["db_config"], **server.monitor()}
        changed(path, db_config=db_config, log={"level": "DEBUG", "format": "json"}, redact="fingerprint")
        agent.send(signal.SIGHUP)
        assert stub.wait_for(lambda each: len(each.records) == 3, SOON_S)
        assert {record["sql_text"] for record in stub.records} == {"select ?"}
        assert agent.heard("watch.entered")  # a word of the level DEBUG, as JSON
        changed(path, backend_url=other.url, api_key=other.api_key, collector_id=other.collector_id)
        beats = len(stub.heartbeats)
        reload(agent)
        told = [each for each in agent.events() if each.get("event") == "agent.reloaded"][-1]
        assert other.url in told["message"]
        assert other.wait_for(lambda each: len(each.heartbeats) >= 3, SOON_S)
        assert len(stub.heartbeats) <= beats + 3  # and a farewell
        server.slow(2, first=3)
        assert other.wait_for(lambda each: len(each.records) == 2, SOON_S)
        assert agent.end() == 0
    assert json.loads(path.read_text())["api_key"] not in agent.said()
    assert json.loads(path.read_text())["db_config"]["password"] not in agent.said()


def test_a_wrong_configuration_is_refused_whole_and_one_that_says_the_same_does_nothing(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    right = path.read_text()
    with AgentProcess(path) as agent:
        assert agent.heard("collection.first")
        for spoilt in (
            {"heartbeat_interval": 0, "collektion_interval": 3, "backend_url": "nowhere"},
            {"data_dir": "elsewhere", "heartbeat_interval": 9},
        ):
            changed(path, **spoilt)
            reload(agent, "config.refused")
            path.write_text(right)
        path.write_text(right[: len(right) // 2])
        reload(agent, "config.refused")
        path.unlink()
        reload(agent, "config.refused")
        path.write_text(json.dumps(json.loads(right), indent=4))
        reload(agent, "config.unchanged")
        clean_mariadb.slow(3)
        assert stub.wait_for(lambda each: len(each.records) == 3, SOON_S)
        told = ask(agent.data_dir)
        assert told is not None
        assert told["pid"] == agent.pid
        assert agent.end() == 0
    first, second, third, fourth = [each for each in agent.events() if each.get("event") == "config.refused"]
    assert [part in first["message"] for part in ("heartbeat_interval:", "collektion_interval:", "backend_url:")] == [
        True
    ] * 3
    assert "data_dir: is another one now; restart the agent for that" in second["message"]
    assert [each["code"] for each in (first, second, third, fourth)] == ["CF-01", "CF-01", "CF-03", "CF-02"]
    assert agent.count("agent.reloaded") == 0
    assert warnings(agent) == [first, second, third, fourth]


def test_what_the_backend_has_changed_stays_and_a_pause_too(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    with AgentProcess(path) as agent:
        for word, params in (("update_config", {"collection_interval": 0.4}), ("stop", {})):
            stub.queue(word, params)
        assert stub.wait_for(lambda each: [result["success"] for result in each.results] == [True, True], SOON_S)
        changed(path, heartbeat_interval=0.2)
        reload(agent)
        beats = len(stub.heartbeats)
        assert stub.wait_for(lambda each: len(each.heartbeats) > beats + 3, SOON_S)
        stats = stub.heartbeats[-1]["stats"]
        assert (stats["state"], stats["collection_interval_effective"]) == ("paused", 0.4)
        reload(agent, "config.unchanged")
        assert agent.end() == 0


def test_nobody_else_can_take_the_outbox_in_between(stub: StubBackend, tmp_path: Path) -> None:
    path = write(tmp_path, nobody(stub))
    with AgentProcess(path) as agent:
        assert agent.heard("agent.started")
        for number in range(10):
            changed(path, heartbeat_interval=0.2 + number / 100)
            before = agent.count("agent.reloaded")
            agent.send(signal.SIGHUP)
            tries = 0
            while agent.count("agent.reloaded") == before:
                with pytest.raises(OutboxLocked):
                    DirectoryLock(agent.data_dir)
                tries += 1
            assert agent.is_running
            assert tries > 0
        assert agent.end() == 0


def test_systemd_hears_of_a_reload_and_that_it_is_over(stub: StubBackend, tmp_path: Path) -> None:
    path = write(tmp_path, nobody(stub))
    with NotifySocket(tmp_path / "notify") as systemd:
        variables = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "900000"}
        with AgentProcess(path, variables=variables) as agent:
            assert systemd.wait_for(lambda heard: "READY=1" in heard, SOON_S)
            changed(path, heartbeat_interval=0.2)
            reload(agent)
            ticks = systemd.count("WATCHDOG=1")
            assert systemd.wait_for(lambda heard: heard.count("WATCHDOG=1") >= ticks + 3, SOON_S)
            assert agent.end() == 0
        states = [said.splitlines()[0] for said in systemd.heard if said.startswith(("READY", "RELOADING", "STOPPING"))]
    assert states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_an_end_that_is_asked_for_in_the_middle_of_a_reload_is_one(stub: StubBackend, tmp_path: Path) -> None:
    for number in range(12):
        path = write(tmp_path / str(number), nobody(stub))
        with AgentProcess(path) as agent:
            assert agent.heard("agent.started")
            changed(path, heartbeat_interval=0.2)
            agent.send(signal.SIGHUP)
            Event().wait(number * 0.02)  # a random moment is the case itself
            assert agent.end(timeout_s=END_S) == 0
        assert [each for each in agent.events() if "raw" in each] == []


def test_many_hangups_at_once_are_no_end_and_the_last_file_counts(stub: StubBackend, tmp_path: Path) -> None:
    path = write(tmp_path, nobody(stub))
    with AgentProcess(path) as agent:
        assert agent.heard("agent.started")
        for number in range(300):
            if number % 30 == 0:
                changed(path, heartbeat_interval=0.2 + number / 10_000)
            os.kill(agent.pid, signal.SIGHUP)
        changed(path, heartbeat_interval=0.111)
        os.kill(agent.pid, signal.SIGHUP)
        # What the last hangup has to find is what one more finds already.
        assert wait_until(lambda: _is_settled(agent), SOON_S)
        assert agent.count("agent.reloaded") >= 1
        assert agent.end() == 0
    assert warnings(agent) == [each for each in warnings(agent) if each["event"] in {"collection.wrong"}]


def _is_settled(agent: AgentProcess) -> bool:
    reload(agent, "config.unchanged")
    return True
