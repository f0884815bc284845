"""A real agent that is told to read its configuration again while a database, the disk or its outbox hangs.

What could go wrong: a thread that cannot be interrupted keeps the old configuration in force, or ends the process; when
it goes on it collects a second time, or writes into the outbox of who came after; a database that is well stands still
as long as the other one; it cannot be ended while the thread still hangs; a disk that hangs leaves a process that does
nothing; a full disk ends the process, or a reload is forgotten while it waits for room.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from agent.dev.server_process import free_port, wait_until
from tests.fakes.deaf_backend import DeafBackend
from tests.fakes.stub_backend import StubBackend
from tests.faults.endless import Endless
from tests.faults.small_disk import tmpfs
from tests.faults.strace import injected
from tests.servers.agent_process import AgentProcess, Json, run_agent, settings, write
from tests.servers.mariadb import MariaDBServer

SOON_S, END_S = 60.0, 10.0
HANGS_S = 600.0  # longer than the test
LONG_SYNC_S = 20  # longer than a reload waits; shorter than the test, because who delays it also delays the end


def changed(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def texts(stub: StubBackend) -> Counter[str]:
    return Counter(each["sql_text"] for each in stub.records if "/* tag-" in each["sql_text"])


def arrive(stub: StubBackend, expected: list[str]) -> bool:
    return stub.wait_for(lambda _: set(expected) <= set(texts(stub)), SOON_S)


def hang(stub: StubBackend, server: MariaDBServer, name: str) -> None:
    """The server stands still, and the watch waits for it in the middle of a statement."""

    def waits(each: StubBackend) -> bool:
        watches = [beat["stats"]["watches"] for beat in each.heartbeats[-3:]]
        return [watch[name]["state"] for watch in watches] == ["collecting"] * 3

    server.freeze()
    assert stub.wait_for(waits, SOON_S)


def left_behind(agent: AgentProcess) -> list[list[str]]:
    return [each["threads"] for each in agent.events() if each.get("event") == "agent.abandoned"]


def hung(server: MariaDBServer) -> Json:
    return {"connect_timeout": 2, "max_load": 0, **server.monitor(), "read_timeout": HANGS_S}


def test_a_database_that_hangs_is_left_behind_and_its_thread_does_nothing_more_when_it_goes_on(
    clean_mariadb: MariaDBServer, second_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    orders, billing = clean_mariadb, second_mariadb
    config = settings(stub, "mysql", {})
    pair = [
        {"name": name, "db_type": "mysql", "db_config": hung(server)}
        for name, server in (("orders", orders), ("billing", billing))
    ]
    path = write(tmp_path, {**{key: config[key] for key in config if not key.startswith("db_")}, "databases": pair})
    expected = [*orders.slow(30), *billing.slow(30, first=1_000)]
    with AgentProcess(path) as agent:
        assert arrive(stub, expected)
        process = psutil.Process(agent.pid)
        usual = process.num_threads()
        hang(stub, orders, "orders")
        changed(path, heartbeat_interval=0.2)
        agent.send(signal.SIGHUP)
        assert agent.heard("agent.reloaded", timeout_s=SOON_S)
        assert left_behind(agent) == [["watch orders"]]
        assert wait_until(lambda: process.num_threads() == usual + 1, SOON_S)
        expected += billing.slow(30, first=2_000)  # who is well goes on
        assert arrive(stub, expected)
        orders.thaw()
        assert wait_until(lambda: process.num_threads() == usual, SOON_S)
        expected += [*orders.slow(30, first=3_000), *billing.slow(30, first=4_000)]
        assert arrive(stub, expected)
        assert stub.wait_for(lambda each: each.heartbeats[-1]["error"] is None, SOON_S)
        assert agent.end(timeout_s=END_S) == 0
    assert texts(stub) == Counter(expected)
    assert len({record["id"] for record in stub.records}) == len(stub.records)
    audit = run_agent("audit", "--config", path)
    assert (audit.returncode, audit.stdout.splitlines()[-1]) == (0, "It balances.")
    told = [each["event"] for each in agent.events() if each.get("level") in {"WARNING", "ERROR"}]
    assert told == ["agent.abandoned"]
    assert left_behind(agent) == [["watch orders"]]


def test_a_database_that_moved_while_it_hangs_is_read_where_it_is_now_and_the_process_can_be_ended(
    clean_mariadb: MariaDBServer, second_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    old, new = clean_mariadb, second_mariadb
    path = write(tmp_path, settings(stub, "mysql", hung(old)))
    expected = old.slow(10)
    with AgentProcess(path) as agent:
        assert arrive(stub, expected)
        hang(stub, old, "default")
        expected += new.slow(10, first=1_000)
        changed(path, db_config=hung(new))
        for count in (1, 2):
            agent.send(signal.SIGHUP)
            assert wait_until(lambda: agent.count("agent.reloaded") == count, SOON_S)  # noqa: B023
            assert arrive(stub, expected)
            expected += new.slow(10, first=1_000 + 100 * count)
            assert arrive(stub, expected)
            changed(path, heartbeat_interval=0.2)
        assert left_behind(agent) == [["watch default"]]
        assert agent.end(timeout_s=END_S) == 0  # although that thread hangs as before
        old.thaw()
    assert texts(stub) == Counter(expected)


def test_a_backend_that_hangs_keeps_no_reload_and_what_it_had_taken_is_counted(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    expected = clean_mariadb.slow(10)
    path = write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))
    with AgentProcess(path) as agent, StubBackend() as other:
        assert arrive(stub, expected)
        stub.break_down("hanging")
        expected += (waiting := clean_mariadb.slow(10, first=100))
        asked = stub.requests
        assert stub.wait_for(lambda each: each.requests >= asked + 2, SOON_S)  # the heartbeat and the delivery
        changed(path, backend_url=other.url, api_key=other.api_key, collector_id=other.collector_id)
        agent.send(signal.SIGHUP)
        assert agent.heard("agent.reloaded", timeout_s=SOON_S)
        assert left_behind(agent) == [["flusher", "heartbeat"]]
        assert arrive(other, waiting)
        threads = psutil.Process(agent.pid).num_threads()
        beats = len(stub.heartbeats)
        stub.recover()
        assert wait_until(lambda: psutil.Process(agent.pid).num_threads() == threads - 2, SOON_S)
        assert other.wait_for(lambda each: each.heartbeats[-1]["stats"]["possible_duplicates"] == len(waiting), SOON_S)
        assert len(stub.heartbeats) <= beats + 1  # that one had hung, and no other followed it
        assert agent.end(timeout_s=END_S) == 0
    assert texts(other) == Counter(waiting)


def test_an_outbox_that_cannot_be_closed_ends_the_process_for_who_starts_it_again(
    stub: StubBackend, tmp_path: Path
) -> None:
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}
    path = write(tmp_path, settings(stub, "mysql", db_config))
    with AgentProcess(path) as agent:
        assert agent.heard("agent.started")
        assert stub.wait_for(lambda each: len(each.heartbeats) >= 3, SOON_S)
        changed(path, heartbeat_interval=0.2)
        trace = tmp_path / "trace"
        with injected(agent.pid, "fsync,fdatasync", f"delay_enter={LONG_SYNC_S}s", trace):
            agent.send(signal.SIGHUP)
            assert wait_until(lambda: not agent.is_running, SOON_S)
        assert "sync(" in trace.read_text()  # it had begun, and did not come to its end
        assert agent.end() == 1  # it has
        assert agent.count("agent.abandoned") == 1
        agent.start()
        assert wait_until(lambda: agent.count("agent.started") == 2, SOON_S)
        assert agent.end(timeout_s=END_S) == 0


def test_a_hangup_while_it_waits_for_room_ends_nothing_and_counts_when_there_is_room(tmp_path: Path) -> None:
    with DeafBackend() as backend:
        endless = Endless(tmp_path, backend)
        with tmpfs(endless.data_dir) as disk:
            hog = disk.take_inodes()
            with endless.agent as agent:
                endless.demand_told("OB-06")
                changed(agent.config, heartbeat_interval=0.2)
                agent.send(signal.SIGHUP)
                endless.demand_told("OB-06")
                assert agent.count("agent.started") == 0
                hog.go()
                assert agent.heard("agent.reloaded", timeout_s=SOON_S), agent.said()
                endless.demand_goes_on()
                endless.demand_each_record_once()


def test_a_reload_on_a_full_disk_ends_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with DeafBackend() as backend:
        backend.takes_bodies = False
        endless = Endless(tmp_path, backend)
        with tmpfs(endless.data_dir) as disk, endless.agent as agent:
            assert agent.heard("collection.wrong", "OB-06", SOON_S), agent.said()
            hog = disk.hog()
            waiting = endless.books.captured
            for number in range(3):
                changed(agent.config, heartbeat_interval=0.2 + number / 100)
                hog.take()
                assert disk.free_bytes == 0
                agent.send(signal.SIGHUP)
                assert wait_until(lambda: agent.count("collection.wrong", "OB-06") == number + 2, SOON_S)  # noqa: B023
                endless.demand_told("OB-06")
            assert endless.books.captured >= waiting > 0
            backend.takes_bodies = True
            hog.go()
            endless.demand_goes_on()
            endless.demand_each_record_once()
        assert agent.count("agent.reloaded") == 3
