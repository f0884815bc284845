"""Each cause of an empty or unreadable mysql.slow_log on real servers, as `doctor` names it.

What could go wrong: a cause is not seen, or is told with the wrong code; a healthy server is complained of; the look
changes something, is logged itself, or needs more grants than the agent; a broken server ends it with a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.dev.server_process import free_port
from agent.sources._slow_log_examination import LONG_SCAN_S
from agent.sources._slow_log_place import OLD
from tests.fakes.clock import ManualClock
from tests.integration.examined import examined, verdicts
from tests.servers.mariadb import MariaDBServer
from tests.servers.mysql import MySQLServer
from tests.servers.slow_log_server import SlowLogServer


@pytest.fixture
def server(clean_slow_log: SlowLogServer) -> SlowLogServer:
    return clean_slow_log


@contextmanager
def variables(server: SlowLogServer, **values: str) -> Iterator[None]:
    """Global variables as they are said, and then as they were."""
    before = {name: server.execute(f"SELECT @@GLOBAL.{name}")[0][0] for name in values}
    server.execute(*(f"SET GLOBAL {name}={value}" for name, value in values.items()))
    try:
        yield
    finally:
        server.execute(*(f"SET GLOBAL {name}={value!r}" for name, value in before.items()))


def test_a_server_that_is_fine_is_not_complained_of(server: SlowLogServer) -> None:
    db_config = server.monitor()
    with variables(server, long_query_time="0.5"):
        found = examined("mysql", db_config)
    assert verdicts(found) == {}
    assert ("MariaDB" in found["login"].sentence) == (server.flavour == "mariadb")
    assert "monitoring@%" in found["login"].sentence
    assert found["encryption"].sentence.startswith("TLS" if server.flavour == "mysql" else "none, "), "by default"
    assert found["mysql.slow_log"].sentence == "may be read, and is empty"
    assert found["long_query_time"].sentence.startswith("statements of 0.5 s or more")


def test_it_is_logged_nowhere(server: SlowLogServer) -> None:
    server.slow(3)
    db_config = server.monitor()
    with variables(server, long_query_time="0"):
        found = examined("mysql", db_config)
    ours = "SELECT COUNT(*) FROM mysql.slow_log WHERE user_host LIKE 'monitoring%'"
    assert server.execute(ours) == [(0,)]
    assert " rows, " in found["mysql.slow_log"].sentence


def test_a_server_that_is_away(server: SlowLogServer) -> None:
    found = examined("mysql", {**server.monitor(), "port": free_port()})
    assert verdicts(found) == {"login": "DB-01", "slow log": ""}
    assert found["slow log"].verdict == "skipped"


def test_a_wrong_password(server: SlowLogServer) -> None:
    found = examined("mysql", {**server.monitor(), "password": "wrong-secret"})
    assert verdicts(found) == {"login": "DB-03", "slow log": ""}
    assert "wrong-secret" not in str(found)


def test_no_grant_on_the_table(server: SlowLogServer) -> None:
    found = examined("mysql", server.monitor(grants=()))
    assert found["mysql.slow_log"].code == "MY-01"
    assert found["slow_query_log"].verdict == "right", "what every user may see is told all the same"


def test_the_log_is_switched_off(server: SlowLogServer) -> None:
    with variables(server, slow_query_log="OFF"):
        found = examined("mysql", server.monitor())
    assert (found["slow_query_log"].verdict, found["slow_query_log"].code) == ("wrong", "MY-05")
    assert found["log_output"].verdict == "right"


@pytest.mark.parametrize("output", ["'FILE'", "'NONE'", "'TABLE,NONE'"])
def test_the_log_goes_elsewhere(server: SlowLogServer, output: str) -> None:
    with variables(server, log_output=output):
        found = examined("mysql", server.monitor())
    assert (found["log_output"].verdict, found["log_output"].code) == ("wrong", "MY-05")
    assert found["slow_query_log"].verdict == "right"


def test_only_what_takes_very_long_is_logged(server: SlowLogServer) -> None:
    with variables(server, long_query_time="10"):
        found = examined("mysql", server.monitor())
    assert (found["long_query_time"].verdict, found["long_query_time"].code) == ("hint", "MY-07")
    assert "long_query_time=10" in found["long_query_time"].sentence


def test_only_what_examines_many_rows_is_logged(server: SlowLogServer) -> None:
    with variables(server, min_examined_row_limit="1000", long_query_time="0.5"):
        found = examined("mysql", server.monitor())
    assert verdicts(found) == {"min_examined_row_limit": "MY-07"}


def test_statements_of_replication_and_administration_are_named(server: SlowLogServer) -> None:
    with variables(server, log_slow_admin_statements="OFF"):
        found = examined("mysql", server.monitor())
    assert "administrative statements" in found["left out"].sentence


def test_of_statements_without_an_index_only_some_are_logged(clean_mysql: MySQLServer) -> None:
    with variables(
        clean_mysql,
        long_query_time="0.5",
        log_queries_not_using_indexes="ON",
        log_throttle_queries_not_using_indexes="10",
    ):
        found = examined("mysql", clean_mysql.monitor())
    assert verdicts(found) == {"log_throttle_queries_not_using_indexes": "MY-07"}


def test_one_statement_of_many_is_logged(clean_mariadb: MariaDBServer) -> None:
    with variables(clean_mariadb, log_slow_rate_limit="100", long_query_time="0.5"):
        found = examined("mysql", clean_mariadb.monitor())
    assert verdicts(found) == {"log_slow_rate_limit": "MY-07"}


def test_some_kinds_of_statements_are_logged(clean_mariadb: MariaDBServer) -> None:
    with variables(clean_mariadb, log_slow_filter="'full_scan'", long_query_time="0.5"):
        found = examined("mysql", clean_mariadb.monitor())
    assert verdicts(found) == {"log_slow_filter": "MY-07"}


def test_the_table_is_marked_as_crashed(server: SlowLogServer) -> None:
    db_config = server.monitor()
    server.slow(2)
    server.execute("SET GLOBAL slow_query_log=OFF", "FLUSH TABLES mysql.slow_log")
    with (server.data / "mysql" / "slow_log.CSV").open("ab") as rows:
        rows.write(b'"no row at all\n')
    server.execute("FLUSH TABLES mysql.slow_log")
    try:
        found = examined("mysql", db_config)
    finally:
        server.execute("REPAIR TABLE mysql.slow_log", "SET GLOBAL slow_query_log=ON")
    assert found["mysql.slow_log"].code == "MY-02"


def test_the_table_is_not_there(server: SlowLogServer) -> None:
    db_config = server.monitor()
    server.execute("SET GLOBAL slow_query_log=OFF", "RENAME TABLE mysql.slow_log TO mysql.slow_log_away")
    try:
        found = examined("mysql", db_config)
    finally:
        server.execute("RENAME TABLE mysql.slow_log_away TO mysql.slow_log", "SET GLOBAL slow_query_log=ON")
    assert found["mysql.slow_log"].code == "MY-03"


def test_a_large_table_costs_each_look(server: SlowLogServer) -> None:
    server.fill(1_000)
    steps = iter(range(1_000))

    class Slow(ManualClock):
        def monotonic(self) -> float:
            return LONG_SCAN_S * 4 * next(steps)

    found = examined("mysql", server.monitor(), Slow())
    assert found["mysql.slow_log"].code == "MY-08"
    assert found["mysql.slow_log"].sentence.startswith("Each look scans")
    assert "1,000 rows" in found["mysql.slow_log"].sentence


def test_the_clocks_differ(server: SlowLogServer) -> None:
    found = examined("mysql", server.monitor(), ManualClock())
    assert (found["clock"].verdict, found["clock"].code) == ("hint", "HO-01")
    assert "behind the other one" in found["clock"].sentence
    assert examined("mysql", server.monitor())["clock"].verdict == "right"


def test_the_grants_of_a_rotation(server: SlowLogServer) -> None:
    server.execute(f"DROP TABLE IF EXISTS mysql.{OLD}")
    found = examined("mysql", server.monitor(), rotate=True)
    assert (found["rotation"].verdict, found["rotation"].code) == ("wrong", "MY-06")
    granted = server.monitor(grants=["SELECT ON mysql.slow_log", "SELECT, CREATE ON mysql.slow_log_dbpower_old"])
    assert examined("mysql", granted, rotate=True)["rotation"].verdict == "right"
    assert "rotation" not in examined("mysql", server.monitor())
