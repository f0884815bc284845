"""The servers of the tests do what they say.

What could go wrong: a helper that puts in another number of rows than it tells, so that every test built on it proves
nothing; a "crash" that shuts down in order; a "hang" that answers; a user with more grants than the agent will have;
processes and directories that outlive the tests.
"""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pymysql
import pytest

from agent.dev.postgres import PostgresServer, wheel_bin_dir
from agent.dev.server_process import DevServerError, ServerProcess, wait_until
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate
from tests.servers.postgres import WatchedPostgres, shape
from tests.servers.slow_log_server import tag

HANG_S = 0.5


def lives(pid: int | None) -> bool:
    """A zombie is dead: nobody may be there to bury the orphans of a crash."""
    try:
        return psutil.Process(pid or 0).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_slow_gives_exactly_its_rows_in_order(clean_mariadb: MariaDBServer) -> None:
    texts = clean_mariadb.slow(2_500)
    assert clean_mariadb.texts() == texts
    assert texts[7] == "SELECT /* tag-000007 */ 1"


def test_slow_can_take_time_and_come_from_another_time_zone(clean_mariadb: MariaDBServer) -> None:
    clean_mariadb.slow(1, sleep_s=0.05)
    clean_mariadb.slow(1, first=1, time_zone="+10:30")
    [(query_s, ahead_s)] = clean_mariadb.execute(
        "SELECT MAX(TIME_TO_SEC(query_time)), TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), MAX(start_time))"
        " FROM mysql.slow_log"
    )
    assert query_s >= 0.05
    assert abs(ahead_s - 10.5 * 3600) < 60


def test_fill_is_read_back_and_the_log_goes_on_behind_it(clean_mariadb: MariaDBServer) -> None:
    clean_mariadb.slow(1)
    clean_mariadb.fill(20_000, first=1)
    clean_mariadb.slow(1, first=20_001)
    texts = clean_mariadb.texts()
    assert texts == [f"SELECT /* {tag(number)} */ 1" for number in range(20_002)]


def test_the_helpers_themselves_are_not_logged(clean_mariadb: MariaDBServer) -> None:
    clean_mariadb.monitor()
    clean_mariadb.count()
    assert clean_mariadb.count() == 0


def test_the_monitor_of_mariadb_may_read_the_slow_log_and_nothing_else(clean_mariadb: MariaDBServer) -> None:
    clean_mariadb.slow(1)
    with closing(pymysql.connect(**clean_mariadb.monitor())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM mysql.slow_log")
        assert cursor.fetchall() == ((1,),)
        cursor.execute("SHOW GRANTS")
        grants = [str(row[0]).partition(" IDENTIFIED")[0] for row in cursor.fetchall()]
        with pytest.raises(pymysql.OperationalError, match="denied"):
            cursor.execute("SELECT * FROM mysql.global_priv")
    assert grants == [
        "GRANT USAGE ON *.* TO `monitoring`@`%`",
        "GRANT SELECT ON `mysql`.`slow_log` TO `monitoring`@`%`",
    ]


def test_a_frozen_mariadb_hangs_a_query_and_thaws(clean_mariadb: MariaDBServer) -> None:
    db_config = clean_mariadb.monitor()
    with closing(pymysql.connect(**db_config, read_timeout=HANG_S)) as connection, connection.cursor() as cursor:
        clean_mariadb.freeze()
        with pytest.raises(pymysql.OperationalError, match="timed out"):
            cursor.execute("SELECT 1")
    clean_mariadb.thaw()
    assert clean_mariadb.count() == 0


def test_a_killed_mariadb_crashed_and_comes_back_with_its_rows(clean_mariadb: MariaDBServer) -> None:
    clean_mariadb.slow(3)
    pid = clean_mariadb.pid
    clean_mariadb.kill()
    assert (clean_mariadb.pid, lives(pid)) == (None, False)
    with pytest.raises(pymysql.OperationalError, match="refused"):
        clean_mariadb.root()
    clean_mariadb.start()
    assert clean_mariadb.count() == 3


def test_a_restarted_mariadb_keeps_its_rows_and_its_port(clean_mariadb: MariaDBServer) -> None:
    clean_mariadb.slow(3)
    before = (clean_mariadb.port, clean_mariadb.pid)
    clean_mariadb.restart()
    assert clean_mariadb.count() == 3
    assert (clean_mariadb.port, clean_mariadb.pid != before[1]) == (before[0], True)


def test_a_mariadb_of_ones_own_logs_everything_and_leaves_nothing(mariadb_template: MariaDBTemplate) -> None:
    with MariaDBServer(mariadb_template) as server:
        pid, directory = server.pid, server.directory
        with closing(server.root()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT /* mine */ 1")
        assert "SELECT /* mine */ 1" in server.texts()
        if os.geteuid() == 0:
            assert psutil.Process(pid).username() == "nobody"
    assert (directory.exists(), lives(pid)) == (False, False)


def test_calls_are_counted_by_shape(clean_postgres: WatchedPostgres) -> None:
    text = clean_postgres.slow_workload("apple", calls=3, sleep_s=0.02)
    clean_postgres.slow_workload("apple", calls=2, sleep_s=0.01)
    clean_postgres.slow_workload("pear", sleep_s=0.0)
    [apple] = clean_postgres.counters("apple")
    [pear] = clean_postgres.counters("pear")
    assert (apple.query, apple.calls, apple.rows, apple.database) == (text, 5, 5, "postgres")
    assert apple.total_time_ms >= 80
    assert pear.calls == 1


def test_reset_forgets(clean_postgres: WatchedPostgres) -> None:
    clean_postgres.slow_workload("plum", sleep_s=0.0)
    clean_postgres.reset()
    assert clean_postgres.counters("plum") == []


def test_the_monitor_of_postgres_reads_the_texts_of_others_and_nothing_else(clean_postgres: WatchedPostgres) -> None:
    clean_postgres.slow_workload("fig", sleep_s=0.0)
    db_config = clean_postgres.monitor()
    db_config = clean_postgres.monitor()  # a second time: anew
    login = {**db_config, "dbname": db_config["database"]}
    del login["database"]
    with closing(psycopg2.connect(**login)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_statements WHERE query LIKE %s", ("WITH fig AS%",))
        assert cursor.fetchall() == [(1,)]
        cursor.execute("SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'member') AND rolname <> current_user")
        assert {row[0] for row in cursor.fetchall()} == {"pg_read_all_stats"}
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("SELECT * FROM pg_authid")


def test_a_wrong_password_is_refused(postgres: WatchedPostgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host=postgres.host, port=postgres.port, user="postgres", password="wrong")


def test_a_frozen_postgres_hangs_a_new_connection_and_an_old_one(clean_postgres: WatchedPostgres) -> None:
    with closing(clean_postgres.admin()) as connection, connection.cursor() as cursor:
        clean_postgres.freeze()
        with pytest.raises(psycopg2.OperationalError, match="timeout"):
            psycopg2.connect(host=clean_postgres.host, port=clean_postgres.port, user="postgres", connect_timeout=1)
        backend = connection.info.backend_pid
        assert psutil.Process(backend).status() == psutil.STATUS_STOPPED
        clean_postgres.thaw()
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]


def test_a_killed_postgres_loses_its_counters_a_restarted_one_keeps_them(clean_postgres: WatchedPostgres) -> None:
    clean_postgres.slow_workload("kiwi", calls=2, sleep_s=0.0)
    clean_postgres.restart()
    [kept] = clean_postgres.counters("kiwi")
    children = [child.pid for child in psutil.Process(clean_postgres.pid).children()]
    clean_postgres.kill()
    alive = [pid for pid in children if lives(pid)]
    assert (kept.calls, clean_postgres.pid, alive) == (2, None, [])
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        clean_postgres.admin()
    clean_postgres.start()
    assert clean_postgres.counters("kiwi") == []


def test_a_program_nobody_can_reach_is_copied(postgres18: WatchedPostgres, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    package = wheel_bin_dir().parent.parent
    for found in package.parent.glob(f"{package.name}*"):
        shutil.copytree(found, hidden / found.name, ignore=shutil.ignore_patterns("include", "*.py"))
    hidden.chmod(0o700)
    with PostgresServer(hidden / package.name / "pginstall" / "bin") as server:
        directory, pid = server.directory, server.pid
        assert (directory / "site").exists() == (os.geteuid() == 0)
        server.connect().close()
    assert (directory.exists(), lives(pid)) == (False, False)


def test_a_start_that_fails_says_why_and_leaves_nothing(postgres18: WatchedPostgres) -> None:
    server = PostgresServer(wheel_bin_dir(), settings={"no_such_setting": "1"})
    with pytest.raises(DevServerError, match="no_such_setting"), server:
        pass
    assert not server.directory.exists()


def test_a_killed_program_leaves_no_server(postgres18: WatchedPostgres) -> None:
    program = (
        "import sys; from agent.dev.postgres import PostgresServer, wheel_bin_dir\n"
        "server = PostgresServer(wheel_bin_dir()); server.start()\n"
        "sys.stdout.write(f'{server.pid} {server.directory}\\n'); sys.stdout.flush(); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pid, directory = child.stdout.readline().split()
        assert lives(int(pid))
        child.kill()
    assert wait_until(lambda: not Path(directory).exists() and not lives(int(pid)), 10)


def test_closing_twice_is_fine() -> None:
    place = ServerProcess("dbpower-test")
    place.close()
    place.close()
    assert not place.directory.exists()
    with pytest.raises(DevServerError):
        place.freeze()


def test_a_shape_carries_its_name() -> None:
    assert shape("kiwi", 0.5) == "WITH kiwi AS (SELECT pg_sleep(0.5)) SELECT * FROM kiwi"
