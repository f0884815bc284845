"""The main job with a real agent process, real database servers and a backend that keeps exactly the protocol.

What could go wrong: a record is lost or doubled by an outage of the backend, by a kill of the agent, by a restart, a
rotation or killed sessions of the database; a field is wrong at the far end; a loss is silent; the heartbeat stops
while much is collected.
"""

import random
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pymysql
import pytest

from agent.dev.faults import Fault
from agent.dev.serve import RunningBackend
from agent.dev.server_process import wait_until
from storage.outbox import FILE_NAME
from tests.fakes.stub_backend import Outage, StubBackend
from tests.servers.agent_process import AgentProcess, Json, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres, shape
from tests.servers.slow_log_server import tag

ARRIVE_S = 60.0
OUTAGE_S = 5.0
KILLS = 20
MANY = 1_000_000


def text(number: int) -> str:
    return f"SELECT /* {tag(number)} */ 1"


def arrived(stub: StubBackend) -> list[str]:
    """The statements at the backend, without the bookkeeping of the clients that made them."""
    return [record["sql_text"] for record in stub.records if "/* tag-" in record["sql_text"]]


def is_drained(stub: StubBackend) -> bool:
    """The agent itself says that nothing waits: it has seen every answer."""
    return bool(stub.heartbeats) and stub.heartbeats[-1]["stats"]["outbox_records"] == 0


def settle(stub: StubBackend, count: int) -> None:
    """Waits until so many records are there and the agent knows that they are."""
    assert stub.wait_for(lambda each: len(arrived(each)) >= count, ARRIVE_S), f"{len(arrived(stub))} of {count}"
    beats = len(stub.heartbeats)
    assert stub.wait_for(lambda each: len(each.heartbeats) > beats + 1 and is_drained(each), ARRIVE_S)


def gaps(agent: AgentProcess) -> list[tuple[str, int | None]]:
    """The known losses in the outbox of an agent that has ended."""
    with closing(sqlite3.connect(agent.data_dir / FILE_NAME)) as outbox:
        return outbox.execute("SELECT reason, estimate FROM gap ORDER BY id").fetchall()


def books(agent: AgentProcess) -> dict[str, int]:
    with closing(sqlite3.connect(agent.data_dir / FILE_NAME)) as outbox:
        names = ("captured", "delivered", "pending", "parked", "lost", "discarded")
        row = outbox.execute(f"SELECT {', '.join(names)} FROM tally WHERE topic = 'queries'").fetchone()
        return dict(zip(names, row, strict=True))


@dataclass
class Traffic:
    """A customer of MariaDB that runs one slow statement after the other until it is stopped; each becomes a row.

    `done`: the numbers of the statements that the server has answered; one whose answer was lost may be there or not.
    """

    server: MariaDBServer
    pause_s: float = 0.01

    def __post_init__(self) -> None:
        self.done: list[int] = []
        self._next = 0
        self._stopping, self._resting, self._may_go = Event(), Event(), Event()
        self._may_go.set()
        self._thread = Thread(target=self._run, name="traffic")

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._may_go.set()
        self._thread.join()

    def grow(self, count: int) -> None:
        """Waits until so many more statements are done."""
        goal = len(self.done) + count
        assert wait_until(lambda: len(self.done) >= goal, ARRIVE_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with closing(self.server.root()) as connection, connection.cursor() as cursor:
                    cursor.execute(self.server.log_all_sql)
                    self._work(cursor)
            except (pymysql.Error, OSError):
                self._stopping.wait(0.05)

    def _work(self, cursor: pymysql.cursors.Cursor) -> None:
        while not self._stopping.wait(self.pause_s):
            number, self._next = self._next, self._next + 1
            cursor.execute(text(number))
            self.done.append(number)


# -- MariaDB -------------------------------------------------------------------------------------------------------


def test_a_thousand_slow_statements_arrive_once_each_with_their_fields(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    clean_mariadb.slow(300)
    with AgentProcess(write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))) as agent:
        settle(stub, 300)
        clean_mariadb.slow(699, first=300)
        with closing(clean_mariadb.root()) as connection, connection.cursor() as cursor:
            cursor.execute("USE mysql")
            cursor.execute(clean_mariadb.log_all_sql)
            cursor.execute(f"SELECT /* {tag(999)} */ SLEEP(0.2) FROM mysql.plugin LIMIT 0")
            cursor.execute(f"SELECT /* {tag(999)} */ SLEEP(0.3)")
        settle(stub, 1_001)
        assert agent.end() == 0
    assert arrived(stub)[:999] == [text(number) for number in range(999)]
    assert len({record["id"] for record in stub.records}) == len(stub.records)
    slept = stub.records[-1]
    assert slept["sql_text"] == f"SELECT /* {tag(999)} */ SLEEP(0.3)"
    assert 0.3 <= slept["query_time"] < 10
    assert (slept["rows_sent"], slept["rows_examined"], slept["db"], slept["lock_time"]) == (1, 0, "mysql", 0.0)
    assert slept["user_host"].startswith("root[root] @ ")
    assert began.timestamp() - 1 <= datetime.fromisoformat(slept["start_time"]).timestamp() <= began.timestamp() + 60
    assert slept["source"] == "mysql_slow_log"
    assert gaps(agent) == []


@pytest.mark.parametrize("outage", ["refused", "500", "hanging", "429", "401"])
def test_an_outage_of_the_backend_loses_and_doubles_nothing(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path, outage: Outage
) -> None:
    with (
        AgentProcess(write(tmp_path, settings(stub, "mysql", clean_mariadb.monitor()))) as agent,
        Traffic(clean_mariadb) as traffic,
    ):
        traffic.grow(50)
        settle(stub, 50)
        before = stub.requests
        stub.break_down(outage)
        known = len(stub.records)
        Event().wait(OUTAGE_S)  # the length of the outage is the case itself
        assert len(stub.records) == known
        assert outage == "refused" or stub.requests > before
        assert agent.is_running
        traffic.grow(20)
        stub.recover()
        traffic.grow(20)
        traffic.__exit__()
        settle(stub, len(traffic.done))
        assert agent.end() == 0
    assert Counter(arrived(stub)) == Counter(text(number) for number in traffic.done)
    assert books(agent)["captured"] == books(agent)["delivered"]


@dataclass(frozen=True)
class KeyedBackend:
    """The development backend under the names that `settings` knows."""

    backend: RunningBackend
    collector_id: int
    api_key: str

    @property
    def url(self) -> str:
        return self.backend.url


def test_twenty_kills_under_traffic_with_lost_answers_lose_and_double_nothing(
    clean_mariadb: MariaDBServer, tmp_path: Path
) -> None:
    rng = random.Random(20)
    with RunningBackend() as backend, Traffic(clean_mariadb, pause_s=0.02) as traffic:
        own = backend.registry.register("kills")
        keyed = KeyedBackend(backend, own.id, own.api_key)
        agent = AgentProcess(
            write(
                tmp_path,
                settings(
                    keyed, "mysql", clean_mariadb.monitor(), collection_interval=0.1, outbox={"batch_max_records": 7}
                ),
            )
        )
        lost_answers = 0
        with agent:
            for _ in range(KILLS):
                backend.faults.add(Fault(kind="drop", path="bulk", times=1))
                assert grows(backend)
                Event().wait(rng.uniform(0, 0.4))  # a random moment is the case itself
                agent.kill()
                agent.start()
            lost_answers = backend.faults.hits["drop"]
            traffic.__exit__()
            backend.faults.clear()
            expected = {text(number) for number in traffic.done}
            assert wait_until(lambda: expected <= set(texts(backend)), ARRIVE_S)
            assert agent.heard("agent.started")
            assert agent.end() == 0
        found = Counter(texts(backend))
    assert agent.count("agent.started") > KILLS // 2  # a kill may come before the word
    assert lost_answers >= KILLS // 2
    assert {name: count for name, count in found.items() if count != 1} == {}
    assert set(found) == expected
    assert gaps(agent) == []


def rows(backend: RunningBackend) -> list[Json]:
    return [record for record in backend.store.records() if "/* tag-" in record["sql_text"]]


def grows(backend: RunningBackend) -> bool:
    """Waits for one more record."""
    seen = len(rows(backend))
    return wait_until(lambda: len(rows(backend)) > seen, ARRIVE_S)


def texts(backend: RunningBackend) -> list[str]:
    return [record["sql_text"] for record in rows(backend)]


def kill_sessions(server: MariaDBServer) -> int:
    """Kills what the agent runs now; how many there were."""
    found = [row[0] for row in server.execute("SHOW PROCESSLIST") if row[1] == "monitoring"]
    for number, session in enumerate(found):
        word = ("KILL CONNECTION", "KILL QUERY")[number % 2]
        try:
            server.execute(f"{word} {session}")
        except pymysql.OperationalError as gone:
            assert gone.args[0] == 1094  # noqa: PT017 - it may have ended meanwhile
    return len(found)


def without_row(server: MariaDBServer, traffic: Traffic) -> list[int]:
    """What was answered before the last statement and is not in the slow log.

    A server that is shut down in that very moment has answered a statement, but writes no row of it any more.
    """
    answered = traffic.done[:-1]
    rows = set(server.texts())
    return [number for number in answered if text(number) not in rows]


def collects(stub: StubBackend) -> bool:
    """Orders a look and waits for its result."""
    known = len(stub.results)
    stub.queue("collect")
    return stub.wait_for(lambda each: len(each.results) > known, ARRIVE_S)


def truncate(server: MariaDBServer) -> None:
    server.execute("TRUNCATE TABLE mysql.slow_log")


def rename(server: MariaDBServer) -> None:
    server.execute(
        "DROP TABLE IF EXISTS mysql.slow_log_new, mysql.slow_log_old",
        "CREATE TABLE mysql.slow_log_new LIKE mysql.slow_log",
        "RENAME TABLE mysql.slow_log TO mysql.slow_log_old, mysql.slow_log_new TO mysql.slow_log",
    )


def test_restarts_rotations_and_killed_sessions_under_traffic_cost_only_what_a_gap_tells(
    clean_mariadb: MariaDBServer, stub: StubBackend, tmp_path: Path
) -> None:
    server = clean_mariadb
    with (
        AgentProcess(write(tmp_path, settings(stub, "mysql", server.monitor()))) as agent,
        Traffic(server) as traffic,
    ):
        traffic.grow(30)
        assert stub.wait_for(lambda each: len(arrived(each)) >= 30, ARRIVE_S)
        killed = 0
        while killed < 3:
            killed += kill_sessions(server)
        pid = server.pid
        server.restart()
        assert server.pid != pid
        traffic.grow(30)
        unwritten = without_row(server, traffic)
        goal = len(traffic.done) - len(unwritten)
        assert stub.wait_for(lambda each: len(arrived(each)) >= goal, ARRIVE_S)
        stub.queue("stop")
        assert stub.wait_for(lambda each: each.heartbeats[-1]["stats"]["state"] == "paused", ARRIVE_S)
        for rotate in (truncate, rename):
            traffic.grow(20)
            rotate(server)
            traffic.grow(20)
            assert collects(stub)
        stub.queue("start")
        traffic.grow(20)
        traffic.__exit__()
        last = text(traffic.done[-1])
        assert stub.wait_for(lambda each: last in arrived(each), ARRIVE_S)
        assert agent.end() == 0
    counted = Counter(arrived(stub))
    missing = [number for number in traffic.done if text(number) not in counted and number not in unwritten]
    told = gaps(agent)
    assert len(unwritten) <= 1
    assert {name: count for name, count in counted.items() if count != 1} == {}
    assert len(missing) >= 40
    assert [reason for reason, _ in told] == ["rotated", "rotated"]
    assert sum(estimate or 0 for _, estimate in told) >= len(missing)


@pytest.mark.timeout(1_000)
def test_the_heartbeat_keeps_its_pace_while_much_is_collected(
    clean_mariadb: MariaDBServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The agent at its own speed: measured line by line it takes so long for a row that it asks for few at a time, and
    # each time the server scans up to the last row known.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    beats: list[datetime] = []

    def now() -> datetime:
        beats.append(datetime.now(UTC))
        return beats[-1]

    clean_mariadb.fill(MANY)
    with StubBackend(now=now) as stub:
        beats.clear()
        # Each statement scans up to the last row known; with a million of them a busy machine takes its time for that.
        db_config = {**clean_mariadb.monitor(), "read_timeout": 120}
        config = settings(stub, "mysql", db_config, heartbeat_interval=0.5)
        with AgentProcess(write(tmp_path, config)) as agent:
            assert stub.wait_for(
                lambda each: bool(each.heartbeats) and each.heartbeats[-1]["stats"]["queries_collected"] >= MANY, 900
            )
            times = list(beats)
            during = [beat["stats"]["queries_collected"] for beat in stub.heartbeats]
            agent.kill()
    pauses = [(after - before).total_seconds() for before, after in pairwise(times)]
    print(f"{MANY} rows, {len(during)} beats, longest pause {max(pauses):.2f} s")  # noqa: T201
    assert sum(0 < collected < MANY for collected in during) >= 10
    assert max(pauses) < 3  # six intervals: on a busy machine still far from the backend's two minutes


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


def delivered_calls(stub: StubBackend, name: str) -> int:
    return sum(record["calls"] for record in stub.records if record["sql_text"].startswith(f"WITH {name} AS "))


def test_the_sums_of_postgres_match_over_kills_restarts_and_an_outage(
    clean_postgres: WatchedPostgres, stub: StubBackend, tmp_path: Path
) -> None:
    server = clean_postgres
    server.slow_workload("before", calls=5)
    config: Any = {**server.monitor(), "min_exec_time_ms": 5}
    with AgentProcess(write(tmp_path, settings(stub, "postgres", config))) as agent:
        assert stub.wait_for(lambda each: delivered_calls(each, "before") == 5, ARRIVE_S)
        stub.break_down("500")
        server.slow_workload("during", calls=4)
        server.restart()
        server.slow_workload("during", calls=3)
        agent.kill()
        server.slow_workload("during", calls=2)
        agent.start()
        stub.recover()
        assert stub.wait_for(lambda each: delivered_calls(each, "during") >= 9, ARRIVE_S)
        with closing(server.admin()) as connection, connection.cursor() as cursor:
            for _ in range(200):
                cursor.execute(shape("steady", 0.006))
        assert stub.wait_for(lambda each: delivered_calls(each, "steady") >= 200, ARRIVE_S)
        assert agent.end() == 0
    sums = {name: delivered_calls(stub, name) for name in ("before", "during", "steady")}
    assert sums == {name: server.counters(name)[0].calls for name in sums} == {"before": 5, "during": 9, "steady": 200}
    [record] = [record for record in stub.records if record["sql_text"].startswith("WITH before AS ")]
    assert (record["db"], record["user_host"], record["window_reason"]) == ("postgres", "postgres", "first_look")
    assert (record["rows_sent"], record["rows_examined"], record["lock_time"]) == (1, 0, 0.0)
    assert gaps(agent) == []
