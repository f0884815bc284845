"""What looks cost real servers, and servers that are full.

What could go wrong: the user that an agent should have may not ask how strained the server is, or is told another
number; the agent counts itself, or workers that take nobody's place; a look at a large table is told as cheap because
it gave few rows; bytes are counted twice, or not behind a dropped connection; a full server is looked at; the rows that
waited are lost; the agent takes one more connection to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import sources
from agent.breaker import FULL, Breaker
from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.sources import Source, SourceSettings
from agent.sources._wire import Wire
from tests.fakes.manual import Rig
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres

ALLOWED = 20  # of the MariaDB


@dataclass(frozen=True)
class Bench:
    """A server: `others`: connections of others that may be there, `busy`: makes that many slow queries,
    `connections`: how many the agent has."""

    db_type: str
    db_config: dict[str, Any]
    others: int
    connect: Callable[[], Any]
    busy: Callable[[int], object]
    connections: Callable[[], int]


@pytest.fixture
def small_mariadb(clean_mariadb: MariaDBServer) -> Iterator[MariaDBServer]:
    """The shared one, with few places."""
    ((before,),) = clean_mariadb.execute("SELECT @@global.max_connections")
    clean_mariadb.execute(f"SET GLOBAL max_connections={ALLOWED}")
    yield clean_mariadb
    clean_mariadb.execute(f"SET GLOBAL max_connections={before}")


@pytest.fixture(params=["mariadb", "postgres15", "postgres18"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "mariadb":
        return mariadb_bench(request.getfixturevalue("small_mariadb"))
    server: WatchedPostgres = request.getfixturevalue(request.param)
    server.reset()

    def busy(count: int) -> None:
        for number in range(count):
            server.slow_workload(f"burden{number}", sleep_s=0.02)

    of_agent = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpower-agent'"
    db_config = {**server.monitor(), "min_exec_time_ms": 15}
    # 50 places less 3 for superusers and ours.
    return Bench("postgres", db_config, 46, server.admin, busy, lambda: server.execute(of_agent)[0][0])


def mariadb_bench(server: MariaDBServer) -> Bench:
    of_agent = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'monitoring'"
    return Bench(
        "mysql",
        server.monitor(),
        ALLOWED - 1,
        server.root,
        server.slow,
        lambda: int(server.execute(of_agent)[0][0]),
    )


@pytest.fixture
def source(bench: Bench) -> Iterator[Source]:
    db = DbConfig(**{"connect_timeout": 3, "read_timeout": 20, **bench.db_config})
    with closing(sources.find(bench.db_type)(SourceSettings("default", db, db.port or 0), Clock())) as made:
        yield made


@contextmanager
def idle(bench: Bench, count: int) -> Iterator[None]:
    """So many connections that do nothing."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(closing(bench.connect()))
        yield


def look(source: Source, bookmark: bytes | None = None) -> tuple[int, bytes | None]:
    source.meter.begin()
    records = 0
    for reading in source.read(bookmark):
        records += len(reading.records)
        bookmark = reading.bookmark
    return records, bookmark


# -- measured ----------------------------------------------------------------------------------------------------------


def test_the_strain_is_the_connections_of_others_on_the_connection_that_is_there(bench: Bench, source: Source) -> None:
    source.check()
    strains = [source.strain()]
    with idle(bench, 7):
        strains.append(source.strain())
    assert [strain.allowed for strain in strains] == [bench.others] * 2
    assert strains[1].used - strains[0].used == 7
    assert 0 <= strains[0].used <= 1  # a connection that the test has just closed
    assert bench.connections() == 1


def test_a_large_slow_log_costs_its_size_however_little_is_new(clean_mariadb: MariaDBServer) -> None:
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 20, **clean_mariadb.monitor()})
    with closing(sources.find("mysql")(SourceSettings("default", db, db.port or 0), Clock())) as source:
        clean_mariadb.fill(20_000)
        records, bookmark = look(source)
        first = source.meter.cost()
        clean_mariadb.slow(3, first=20_000)
        few, _ = look(source, bookmark)
        second = source.meter.cost()
    assert (records, few) == (20_000, 3)
    assert 20_000 <= first.rows < 20_000 * 5
    assert 20_003 <= second.rows < 20_200
    assert first.bytes > 20_000 * 60 > 10_000 > second.bytes > 3 * 60
    assert 0 < second.repeated_s <= second.seconds < first.seconds
    assert 0 < first.repeated_s < first.seconds  # most of it was the flow of what is new


def test_a_statement_that_is_cut_off_is_counted_too(clean_mariadb: MariaDBServer) -> None:
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 20, **clean_mariadb.monitor()})
    with closing(sources.find("mysql")(SourceSettings("default", db, db.port or 0), Clock())) as source:
        clean_mariadb.fill(5_000)
        readings = source.read(None)
        next(readings)
        readings.close()
        cost = source.meter.cost()
    assert cost.rows >= 100
    assert cost.bytes > 100 * 60


def test_all_counters_are_the_rows_of_a_look_at_postgres(postgres18: WatchedPostgres) -> None:
    postgres18.reset()
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 20, **postgres18.monitor()})
    with closing(sources.find("postgres")(SourceSettings("default", db, db.port or 0), Clock())) as source:
        _, bookmark = look(source)
        for number in range(300):
            postgres18.slow_workload(f"cost{number}", sleep_s=0)
        postgres18.slow_workload("slow", sleep_s=0.6)
        records, _ = look(source, bookmark)
        cost = source.meter.cost()
    assert records == 1
    assert 600 <= cost.rows < 1_000  # the counters, and once more for the one text
    assert cost.bytes > 300 * 30
    assert 0 < cost.repeated_s == cost.seconds


def test_bytes_that_nobody_can_count_are_none() -> None:
    assert Wire().since_last(0) == 0


# -- full --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rig(bench: Bench, source: Source, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, source=source)  # type: ignore[arg-type]
    yield made
    made.outbox.close()


def just_too_many(bench: Bench) -> int:
    """Idle connections that make the server full for us; the test itself may have one in reserve."""
    return int(FULL * bench.others) + 1


def records(rig: Rig) -> int:
    return rig.outbox.tally("queries").captured


def test_a_full_server_is_left_alone_and_its_rows_come_when_it_is_well(bench: Bench, rig: Rig) -> None:
    assert rig.loop.look() is None
    before = records(rig)
    bench.busy(3)
    with idle(bench, just_too_many(bench)):
        error = rig.loop.look()
        status = rig.board.status(now_s=0, now_unix=0)
        assert (str(error)[:7], str(status.error)[:7]) == ("[DB-05]", "[DB-05]")
        assert f"of {bench.others} connections are used" in str(status.stats()["state_reason"])
        assert records(rig) == before
        assert bench.connections() == 1  # the one that was there
    assert rig.loop.look() is None
    assert records(rig) - before >= 3
    assert rig.board.status(now_s=0, now_unix=0).error is None


def test_control_without_the_breaker_a_full_server_is_looked_at(
    bench: Bench, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaker, "against_strain", lambda *_: None)
    assert rig.loop.look() is None
    before = records(rig)
    bench.busy(3)
    with idle(bench, just_too_many(bench)):
        assert rig.loop.look() is None
    assert records(rig) - before >= 3


def told(stub: StubBackend, name: str) -> Sequence[Any]:
    return [beat["stats"][name] for beat in stub.heartbeats]


def test_the_backend_sees_that_it_is_full_and_what_looks_cost(small_mariadb: MariaDBServer, tmp_path: Path) -> None:
    bench = mariadb_bench(small_mariadb)
    stub = StubBackend()
    path = write(tmp_path, settings(stub, "mysql", {**bench.db_config, "max_load": 0.000_001}))
    small_mariadb.slow(4)
    with closing(stub), AgentProcess(path) as agent:
        assert stub.wait_for(lambda _: len(stub.records) == 4, 20)
        assert stub.wait_for(lambda _: told(stub, "collection_interval_effective")[-1] > 3_599, 20)
        assert "and max_load is 1e-06" in told(stub, "state_reason")[-1]
        assert (told(stub, "look_rows")[-1] > 4, told(stub, "look_bytes")[-1] > 400) == (True, True)
        assert 0 < told(stub, "look_seconds")[-1] < 10
        assert 0 < told(stub, "database_load")[-1] < 0.01
        assert agent.count("budget.stretched") == 1
        small_mariadb.slow(2, first=4)
        with idle(bench, ALLOWED - 1):
            number = stub.queue("collect")
            assert stub.wait_for(lambda _: any(beat["error"] for beat in stub.heartbeats), 20)
            assert stub.wait_for(lambda _: any(result["command_id"] == number for result in stub.results), 20)
        (refused,) = [result for result in stub.results if result["command_id"] == number]
        assert (refused["success"], "[DB-05]" in refused["result"]["error"]) == (False, True)
        assert len(stub.records) == 4
        stub.queue("collect")
        assert stub.wait_for(lambda _: len(stub.records) == 6, 20)
        assert stub.wait_for(lambda _: stub.heartbeats[-1]["error"] is None, 20)
        assert agent.end() == 0
