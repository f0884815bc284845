"""One agent, three databases: two MariaDB and a PostgreSQL, and a backend that keeps exactly the protocol.

What could go wrong: a record of one of them is lost, doubled or taken for one of another; one that hangs in the middle
of a statement holds up the collection of the others, their commands, the heartbeat or the end; a command for all is
answered before all have done it, or never; one that cannot be reached spoils `once` for the others.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.dev.server_process import free_port
from storage.outbox import FILE_NAME
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, Json, run_agent, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres

ARRIVE_S = 60.0
HANGS_S = 600.0  # longer than the test
NAMES = ("orders", "billing", "stock")


@pytest.fixture
def third(postgres18: WatchedPostgres) -> WatchedPostgres:
    postgres18.thaw()
    if postgres18.pid is None:
        postgres18.start()
    postgres18.reset()
    return postgres18


def database(name: str, db_type: str, db_config: Json) -> Json:
    return {
        "name": name,
        "db_type": db_type,
        "db_config": {"connect_timeout": 2, "read_timeout": 5, "max_load": 0, **db_config},
    }


def several(stub: StubBackend, *databases: Json) -> Json:
    """The settings of a quick agent with these databases."""
    known = settings(stub, "mysql", {})
    return {name: value for name, value in known.items() if name not in {"db_type", "db_config"}} | {
        "databases": list(databases)
    }


@dataclass
class Play:
    agent: AgentProcess
    stub: StubBackend

    def texts(self) -> Counter[str]:
        """The statements of both MariaDB that arrived, and how often."""
        return Counter(each["sql_text"] for each in self.stub.records if "/* tag-" in each["sql_text"])

    def calls(self, name: str) -> int:
        """How many calls of that statement of PostgreSQL were told."""
        return sum(each["calls"] for each in self.stub.records if each["sql_text"].startswith(f"WITH {name} AS "))

    def arrives(self, *texts: str) -> bool:
        return self.stub.wait_for(lambda _: all(self.texts()[text] for text in texts), ARRIVE_S)

    def states(self) -> dict[str, str]:
        """Of each watch, as the last heartbeat tells it."""
        return states(self.stub)

    def become(self, *wanted: str) -> bool:
        """Waits until the watches are in these states, three heartbeats long."""

        def holds(stub: StubBackend) -> bool:
            return [states(stub, number) for number in (-1, -2, -3)] == [dict(zip(NAMES, wanted, strict=True))] * 3

        return self.stub.wait_for(holds, ARRIVE_S)

    def result(self, command: int) -> Json | None:
        return next((each for each in self.stub.results if each["command_id"] == command), None)

    def told(self, word: str, **params: Any) -> Json:
        """The result of a command."""
        command = self.stub.queue(word, params)
        assert self.stub.wait_for(lambda _: self.result(command) is not None, ARRIVE_S), word
        result = self.result(command)
        assert result is not None
        return result


def states(stub: StubBackend, number: int = -1) -> dict[str, str]:
    return {name: watch["state"] for name, watch in stub.heartbeats[number]["stats"]["watches"].items()}


def bookmarks(agent: AgentProcess) -> dict[str, bytes]:
    with closing(sqlite3.connect(f"file:{agent.data_dir / FILE_NAME}?mode=ro", uri=True)) as outbox:
        return dict(outbox.execute("SELECT name, value FROM bookmark").fetchall())


def test_three_databases_are_collected_and_one_that_hangs_holds_up_none_of_the_others(
    clean_mariadb: MariaDBServer,
    second_mariadb: MariaDBServer,
    third: WatchedPostgres,
    stub: StubBackend,
    tmp_path: Path,
) -> None:
    orders, billing, stock = clean_mariadb, second_mariadb, third
    config = several(
        stub,
        database("orders", "mysql", orders.monitor()),
        database("billing", "mysql", {**billing.monitor(), "read_timeout": HANGS_S}),
        database("stock", "postgres", {**stock.monitor(), "min_exec_time_ms": 5}),
    )
    expected = [*orders.slow(30), *billing.slow(40, first=1_000)]
    stock.slow_workload("before", calls=5)
    with AgentProcess(write(tmp_path, config)) as agent:
        play = Play(agent, stub)
        assert play.arrives(*expected)
        assert stub.wait_for(lambda _: play.calls("before") == 5, ARRIVE_S)

        billing.freeze()
        assert stub.wait_for(lambda each: [states(each, n)["billing"] for n in (-1, -2, -3)] == ["collecting"] * 3, 60)
        hung = bookmarks(agent)
        expected += orders.slow(30, first=2_000)
        stock.slow_workload("during", calls=4)
        assert play.arrives(*expected)
        assert stub.wait_for(lambda _: play.calls("during") == 4, ARRIVE_S)
        assert play.told("collect", target="orders")["success"] is True
        assert play.told("collect", target="stock")["success"] is True
        assert play.told("stop", target="nobody") == {
            "command_id": 3,
            "success": False,
            "result": {"error": "unknown target nobody", "code": "CM-01"},
        }
        stop = stub.queue("stop")
        assert play.become("paused", "collecting", "paused")  # the two have done it, and the third hangs as before
        assert play.result(stop) is None
        now = bookmarks(agent)
        assert [now[name] != hung[name] for name in NAMES] == [True, False, True]

        billing.thaw()
        assert stub.wait_for(lambda _: play.result(stop) is not None, ARRIVE_S)
        told = play.result(stop)
        assert told is not None
        assert (told["success"], list(told["result"]["watches"])) == (True, list(NAMES))
        expected += [*billing.slow(20, first=3_000), *orders.slow(20, first=4_000)]
        assert play.told("start")["success"] is True
        assert play.arrives(*expected)

        billing.freeze()
        assert stub.wait_for(lambda each: [states(each, n)["billing"] for n in (-1, -2, -3)] == ["collecting"] * 3, 60)
        assert agent.end(timeout_s=10.0) == 0
        billing.thaw()
    assert play.texts() == Counter(expected)
    assert len({record["id"] for record in stub.records}) == len(stub.records)
    assert (play.calls("before"), play.calls("during")) == (5, 4)
    assert agent.count("agent.abandoned") == 1
    (started,) = [each for each in agent.events() if each.get("event") == "agent.started"]
    assert started["watches"] == list(NAMES)


def test_two_watches_on_one_server_tell_its_records_apart(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    texts = clean_mariadb.slow(5)
    own = clean_mariadb.monitor()
    path = write(tmp_path, several(stub, database("one", "mysql", own), database("two", "mysql", own)))
    ran = run_agent("once", "--config", path)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = [record for record in stub.records if record["sql_text"] in texts]
    assert Counter(record["sql_text"] for record in found) == dict.fromkeys(texts, 2)
    assert len({record["id"] for record in found}) == 10


def test_once_reads_what_can_be_reached_and_tells_what_cannot(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    texts = clean_mariadb.slow(5)
    own = clean_mariadb.monitor()
    config = several(
        stub,
        database("gone", "mysql", {**own, "port": free_port()}),
        database("here", "mysql", own),
        database("lost", "mysql", {**own, "port": free_port()}),
    )
    path = write(tmp_path, config)
    dry = run_agent("once", "--dry-run", "--config", path)
    assert (dry.returncode, [text in dry.stdout for text in texts]) == (1, [True] * 5)
    assert [line[:13] for line in dry.stderr.splitlines()] == ["gone: [DB-01]", "lost: [DB-01]"]
    ran = run_agent("once", "--config", path)
    assert (ran.returncode, [line[:13] for line in ran.stderr.splitlines()]) == (1, ["gone: [DB-01]", "lost: [DB-01]"])
    assert [record["sql_text"] for record in stub.records if record["sql_text"] in texts] == texts
    audit = run_agent("audit", "--config", path)
    assert (audit.returncode, audit.stdout.splitlines()[-1]) == (0, "It balances.")
