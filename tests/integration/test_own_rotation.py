"""The agent rotates the slow log itself, on a real MariaDB and a real MySQL, with exactly the grants the README names.

What could go wrong: a row is lost or comes twice, wherever the agent dies; the old table is dropped before all of it is
stored, or never; a table of somebody else is dropped; a grant is missing and nobody is told, or collecting stops; it
happens on a replica, or is written to the binary log; it happens although nobody asked for it.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent.config.layers import load
from agent.doctor import examination
from agent.finding import RIGHT
from agent.record import Record
from agent.single import preview
from agent.source_errors import RotationRefused
from agent.sources._slow_log_place import OLD
from agent.sources._slow_log_rotation import NEW
from agent.sources.mysql_slow_log import SlowLogTable
from agent.wiring import Parts
from tests.fakes.stub_backend import StubBackend
from tests.integration.test_mysql_slow_log import client, make, run
from tests.servers.agent_process import settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.mysql import MySQLServer
from tests.servers.slow_log_server import SlowLogServer

LARGE = 60
TABLE_GRANTS = {
    "slow_log": ["SELECT", "INSERT", "CREATE", "ALTER", "DROP"],
    NEW: ["SELECT", "CREATE", "ALTER", "DROP"],
    OLD: ["SELECT", "INSERT", "CREATE", "DROP"],
}
NOT_REPLICATED = {"mariadb": "BINLOG ADMIN", "mysql": "SESSION_VARIABLES_ADMIN"}
SELECT_LOG = ("slow_log", "SELECT")  # without which nothing is collected
SERVER_WIDE = ("*", "*")
SINGLE = [(table, grant) for table in TABLE_GRANTS for grant in TABLE_GRANTS[table] if (table, grant) != SELECT_LOG]
Bookmark = bytes | None


def monitor(server: SlowLogServer, without: tuple[str, str] | None = None) -> dict[str, Any]:
    """The user with exactly those grants, or all but one; its db_config."""
    clear(server)
    config = server.monitor([] if without == SERVER_WIDE else [f"{NOT_REPLICATED[server.flavour]} ON *.*"])
    for table, grants in TABLE_GRANTS.items():
        given = [grant for grant in grants if (table, grant) != without]
        if table != "slow_log":  # a table that is not there can be spoken of only together with CREATE
            server.execute(f"CREATE TABLE mysql.{table} LIKE mysql.slow_log")
        server.execute(f"GRANT {', '.join(given)} ON mysql.{table} TO monitoring")
    clear(server)
    return {**config, "rotate": True}


def clear(server: SlowLogServer) -> None:
    server.execute(f"DROP TABLE IF EXISTS mysql.{OLD}, mysql.{NEW}")


@pytest.fixture(autouse=True)
def small_tables_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.sources._slow_log_rotation.LARGE_ROWS", LARGE)


@pytest.fixture
def server(clean_slow_log: SlowLogServer) -> Iterator[SlowLogServer]:
    yield clean_slow_log
    clear(clean_slow_log)


def tables(server: SlowLogServer) -> dict[str, int]:
    """Rows of each of the three that there are."""
    names = [name for name in (OLD, NEW) if server.execute(f"SHOW TABLES FROM mysql LIKE '{name}'")]
    return {name: server.execute(f"SELECT COUNT(*) FROM mysql.{name}")[0][0] for name in ("slow_log", *names)}


def look(source: SlowLogTable, bookmark: Bookmark, found: list[Record], readings: int | None = None) -> Bookmark:
    """A look, all of which is stored, or so many readings; the bookmark behind them. There must be no gap."""
    with closing(source.read(bookmark)) as each:
        for reading in islice(each, readings):
            found += reading.records
            bookmark = reading.bookmark
            assert reading.gaps == ()
    return bookmark


def test_a_large_log_is_swapped_when_it_is_read_and_dropped_when_it_is_stored(server: SlowLogServer) -> None:
    found: list[Record] = []
    with closing(make(monitor(server))) as source, client(server) as cursor:
        small = run(cursor, 0, LARGE - 1)
        bookmark = look(source, None, found)
        before = tables(server)
        large = run(cursor, LARGE - 1)
        bookmark = look(source, bookmark, found)
        swapped = tables(server)
        fresh = run(cursor, LARGE, 5)
        stored = look(source, bookmark, found)
        dropped = tables(server)
    assert (before, swapped) == ({"slow_log": LARGE - 1}, {"slow_log": 0, OLD: LARGE})
    assert dropped == {"slow_log": 5}
    assert [record.sql_text for record in found] == small + large + fresh
    assert stored != bookmark


def test_wherever_the_agent_dies_each_row_comes_once_and_the_old_table_goes(server: SlowLogServer) -> None:
    config = monitor(server)
    for readings in range(1, 7):
        server.truncate()
        clear(server)
        found: list[Record] = []
        with client(server) as cursor:
            texts = run(cursor, 0, 2 * LARGE)
            with closing(make(config)) as source:
                bookmark = look(source, None, found, readings)  # what was read behind them is not stored
            texts += run(cursor, 2 * LARGE, 3)
            with closing(make(config)) as source:
                for _ in range(3):
                    bookmark = look(source, bookmark, found)
        assert [record.sql_text for record in found] == texts
        assert tables(server)["slow_log"] <= 3
        assert OLD not in tables(server)


def test_a_swap_that_ended_before_the_rename_is_taken_up(server: SlowLogServer) -> None:
    found: list[Record] = []
    config = monitor(server)
    server.execute(f"CREATE TABLE mysql.{NEW} LIKE mysql.slow_log")
    texts = server.slow(LARGE)
    with closing(make(config)) as source:
        look(source, None, found)
    assert ([record.sql_text for record in found], tables(server)) == (texts, {"slow_log": 0, OLD: LARGE})


@pytest.mark.parametrize("name", [OLD, NEW])
def test_a_table_of_somebody_else_under_its_names_is_left_alone_and_told(server: SlowLogServer, name: str) -> None:
    config = monitor(server)
    server.slow(2)
    server.execute(
        "SET GLOBAL slow_query_log=OFF",
        f"RENAME TABLE mysql.slow_log TO mysql.{name}",
        f"CREATE TABLE mysql.slow_log LIKE mysql.{name}",
        "SET GLOBAL slow_query_log=ON",
    )
    texts = server.slow(LARGE)
    found: list[Record] = []
    with closing(make(config)) as source, pytest.raises(RotationRefused, match=name):
        look(source, None, found)
    assert ([record.sql_text for record in found], tables(server)) == (texts, {"slow_log": LARGE, name: 2})


@pytest.mark.parametrize("without", [*SINGLE, SERVER_WIDE], ids=" ".join)
def test_each_grant_is_needed_and_without_it_all_is_collected_and_it_is_told(
    server: SlowLogServer, without: tuple[str, str]
) -> None:
    config = monitor(server, without)
    texts = server.slow(LARGE)
    found: list[Record] = []
    bookmark: Bookmark = None
    with closing(make(config)) as source:
        if without == (OLD, "DROP"):  # shows only when the table is to go
            bookmark = look(source, None, found)
        with pytest.raises(RotationRefused):
            look(source, bookmark, found)
    expected = {"slow_log": 0, OLD: LARGE} if without == (OLD, "DROP") else {"slow_log": LARGE}
    there = tables(server)
    assert [record.sql_text for record in found] == texts
    assert {name: rows for name, rows in there.items() if name != NEW} == expected
    assert there.get(NEW, 0) == 0


def test_a_server_that_is_read_only_is_left_as_it_is(server: SlowLogServer) -> None:
    config = monitor(server)
    texts = server.slow(LARGE)
    found: list[Record] = []
    server.execute("SET GLOBAL read_only=ON")
    try:
        with closing(make(config)) as source:
            bookmark = look(source, None, found)
            untouched = tables(server)
            server.execute("SET GLOBAL read_only=OFF")
            look(source, bookmark, found)
    finally:
        server.execute("SET GLOBAL read_only=OFF")
    assert [record.sql_text for record in found] == texts
    assert (untouched, tables(server)) == ({"slow_log": LARGE}, {"slow_log": 0, OLD: LARGE})


def test_nothing_is_changed_where_nobody_asked_for_it(server: SlowLogServer) -> None:
    config = {**monitor(server), "rotate": False}
    server.slow(2 * LARGE)
    with closing(make(config)) as source:
        look(source, look(source, None, []), [])
    assert tables(server) == {"slow_log": 2 * LARGE}


def test_a_preview_changes_nothing_on_the_server(server: SlowLogServer, tmp_path: Path) -> None:
    backend = {"collector_id": 1, "api_key": "k", "backend_url": "http://127.0.0.1:9"}
    path = write(tmp_path, {**backend, "db_type": "mysql", "db_config": monitor(server)})
    server.slow(LARGE)
    failed: list[str] = []
    assert len(list(preview(*load(path, {}, {}), failed.append))) == LARGE
    assert failed == []
    assert tables(server) == {"slow_log": LARGE}


@pytest.mark.parametrize("kind", [MariaDBServer, MySQLServer])
def test_nothing_of_it_is_replicated(request: pytest.FixtureRequest, kind: type[SlowLogServer]) -> None:
    template = request.getfixturevalue(f"{kind.flavour}_template")
    with kind(template, long_query_time=10, options=["--log-bin=binlog", "--server-id=1"]) as server:
        config = monitor(server)
        server.slow(LARGE)
        server.execute("FLUSH BINARY LOGS")
        [*_, (log, *_)] = server.execute("SHOW BINARY LOGS")
        with closing(make(config)) as source:
            look(source, look(source, None, []), [])
        written = str(server.execute(f"SHOW BINLOG EVENTS IN '{log}'"))
        server.execute("CREATE DATABASE control")
        control = str(server.execute(f"SHOW BINLOG EVENTS IN '{log}'"))
        assert tables(server) == {"slow_log": 0}
    assert ("slow_log" in written, "control" in control) == (False, True)


def test_a_canary_without_an_agent_rotates_nothing(server: SlowLogServer, stub: StubBackend, tmp_path: Path) -> None:
    config, layers = load(write(tmp_path, settings(stub, "mysql", monitor(server))), {}, {})
    server.slow(LARGE)
    said = [finding for _, finding in examination.try_canary(config, layers, Parts(), time.sleep)]
    assert [finding.verdict for finding in said] == [RIGHT] * 4, said
    assert tables(server) == {"slow_log": LARGE + 1}
