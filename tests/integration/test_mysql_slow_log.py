"""The slow log table of a real MariaDB and a real MySQL, read by a user who has SELECT on it and nothing else.

What could go wrong: a row is skipped or read twice (identical rows, other time zones, SET timestamp, late rows, killed
sessions, restarts); a rotation or a purge doubles everything or loses in silence, or is told when nothing was lost; a
huge or a strange text stops the look; the reader logs itself, leaves statements running, keeps an administrator
waiting, or grows with the table; a broken server hangs the reader or gives the wrong error.
"""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor, SSCursor

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.dev.server_process import free_port, wait_until
from agent.record import Record
from agent.source_errors import (
    DatabaseAway,
    LoginRefused,
    SlowLogCrashed,
    SlowLogMissing,
    SlowLogNotGranted,
    SlowLogOff,
    SourceError,
)
from agent.sources import Reading, SourceSettings
from agent.sources._mysql_session import Session
from agent.sources.mysql_slow_log import START_ROWS, SlowLogTable
from storage.envelope import Gap
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate
from tests.servers.mysql import MySQLServer, MySQLTemplate
from tests.servers.slow_log_server import SlowLogServer, tag

FATE_S = 20.0
CLOCKS = timedelta(milliseconds=50)  # so far apart may client and server be; query_time is rounded
RSS_GROWTH_KIB = 60 * 1024


class Look:
    """All of one look, or as many readings of it as were asked for."""

    def __init__(self, readings: Sequence[Reading], before: bytes | None) -> None:
        self.records: list[Record] = [record for reading in readings for record in reading.records]
        self.gaps: list[Gap] = [gap for reading in readings for gap in reading.gaps]
        self.bookmark = readings[-1].bookmark if readings else before

    @property
    def texts(self) -> list[str]:
        return [record.sql_text for record in self.records]

    @property
    def told(self) -> list[tuple[str, int | None]]:
        return [(gap.reason, gap.estimate) for gap in self.gaps]


def make(db_config: dict[str, Any], **more: Any) -> SlowLogTable:
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 20, **db_config, **more})
    return SlowLogTable(SourceSettings("default", db, db.port or 0), Clock())


def look(source: SlowLogTable, bookmark: bytes | None = None) -> Look:
    return Look(list(source.read(bookmark)), bookmark)


@pytest.fixture
def server(clean_slow_log: SlowLogServer) -> SlowLogServer:
    return clean_slow_log


def test_the_connection_is_encrypted_where_the_server_offers_it(server: SlowLogServer) -> None:
    db = DbConfig(**server.monitor())
    session = Session(SourceSettings("default", db, db.port or 0))
    ((_, cipher),) = session.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    session.drop()
    assert bool(cipher) == (server.flavour == "mysql")  # MariaDB 10.11 has no certificate of its own


@pytest.fixture
def source(server: SlowLogServer) -> Iterator[SlowLogTable]:
    with closing(make(server.monitor())) as found:
        yield found


@contextmanager
def client(server: SlowLogServer) -> Iterator[Cursor]:
    """A customer each of whose SELECTs becomes a row. Its first statement is counted by the server, not logged."""
    with closing(server.root()) as connection, connection.cursor() as cursor:
        cursor.execute(server.quiet_sql)
        cursor.execute(server.log_all_sql)
        yield cursor
        cursor.execute(server.quiet_sql)  # MySQL logs how a session ends, too


def run(cursor: Cursor, first: int, count: int = 1) -> list[str]:
    texts = [f"SELECT /* {tag(number)} */ 1" for number in range(first, first + count)]
    for text in texts:
        cursor.execute(text)
    return texts


def running(server: SlowLogServer) -> list[tuple[Any, ...]]:
    """The sessions of the agent: id, command."""
    return [row[:1] + row[4:5] for row in server.execute("SHOW PROCESSLIST") if row[1] == "monitoring"]


def fill_with_long_texts(server: SlowLogServer, count: int = 2_000) -> None:
    """20 MB: more than the sockets between server and reader hold."""
    with client(server) as cursor:
        for start in range(0, count, 100):
            batch = (f"SELECT /* {tag(number)} {'x' * 10_000} */ 1" for number in range(start, start + 100))
            cursor.execute(";".join(batch))
            while cursor.nextset():
                pass


# -- every row once ------------------------------------------------------------------------------------------------


def test_rows_come_once_each_whether_the_reader_was_up_or_down(server: SlowLogServer, source: SlowLogTable) -> None:
    before = server.slow(700)
    first = look(source)
    during = server.slow(3, first=700)
    second = look(source, first.bookmark)
    source.close()
    down = server.slow(1_200, first=703)
    with closing(make(server.monitor())) as other:
        third = look(other, second.bookmark)
        fourth = look(other, third.bookmark)
    assert (first.texts, second.texts, third.texts, fourth.texts) == (before, during, down, [])
    assert first.gaps + second.gaps + third.gaps + fourth.gaps == []


def test_a_record_carries_what_the_row_says(server: SlowLogServer, source: SlowLogTable) -> None:
    began = datetime.now(UTC)
    server.slow(1, sleep_s=0.2)
    [record] = look(source).records
    assert record.sql_text == f"SELECT /* {tag(0)} */ SLEEP(0.2)"
    assert 0.2 <= record.query_time_s < 5
    assert abs(record.start_time - began) < timedelta(seconds=5)
    assert (record.rows_sent, record.rows_examined, record.db) == (1, 0 if server.stamps_start else 1, "")
    assert record.user_host.startswith("root[root] @ ")
    assert (record.source, record.text_sha256) == ("mysql_slow_log", None)


def test_identical_rows_are_separate_rows(clean_mariadb: MariaDBServer) -> None:
    server = clean_mariadb  # MySQL stamps each with the microsecond of its end
    with closing(make(server.monitor())) as source, client(server) as cursor:
        cursor.execute("SET timestamp=1700000000")
        cursor.execute(";".join(["SELECT 1"] * 50))
        while cursor.nextset():
            pass
        found = look(source)
    columns = "start_time, user_host, lock_time, rows_sent, rows_examined, db, thread_id, sql_text"
    [(distinct,)] = server.execute(f"SELECT COUNT(*) FROM (SELECT DISTINCT {columns} FROM mysql.slow_log) AS d")
    assert distinct < 5
    assert (found.texts.count("SELECT 1"), len({record.id for record in found.records})) == (50, server.count())


def test_a_record_keeps_its_id_when_it_is_read_again(server: SlowLogServer, source: SlowLogTable) -> None:
    server.slow(20)
    first, again = look(source), look(source)
    assert [record.id for record in again.records] == [record.id for record in first.records]


def test_clients_in_other_time_zones_hide_nothing(server: SlowLogServer, source: SlowLogTable) -> None:
    texts: list[str] = []
    found: list[str] = []
    bookmark = None
    for number, zone in enumerate(["+10:30", "-11:00", "+00:00", "+13:00", "-03:00"]):
        texts += server.slow(2, first=2 * number, time_zone=zone)
        seen = look(source, bookmark)
        bookmark, found = seen.bookmark, found + seen.texts
    assert found == texts


def test_set_timestamp_hides_nothing(clean_mariadb: MariaDBServer) -> None:
    server = clean_mariadb  # MySQL stamps the true end
    texts: list[str] = []
    found: list[str] = []
    bookmark = None
    with closing(make(server.monitor())) as source, client(server) as cursor:
        for number, stamp in enumerate([2_000_000_000, 1_000_000_000, 1]):
            cursor.execute(f"SET timestamp={stamp}")
            texts += [f"SET timestamp={stamp}", *run(cursor, number)]
            seen = look(source, bookmark)
            bookmark, found = seen.bookmark, found + seen.texts
    years = {row[0] for row in server.execute("SELECT DISTINCT YEAR(start_time) FROM mysql.slow_log")}
    assert {2001, 2033} <= years
    assert found == texts


def test_a_row_that_finishes_late_is_read_late(server: SlowLogServer, source: SlowLogTable) -> None:
    late = threading.Thread(target=server.slow, args=(1,), kwargs={"first": 99, "sleep_s": 2.0})
    late.start()
    asleep = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'"
    assert wait_until(lambda: server.execute(asleep) == [(1,)], FATE_S)
    early = server.slow(3)
    first = look(source)
    late.join(FATE_S)
    second = look(source, first.bookmark)
    assert first.texts == early
    assert second.texts == [f"SELECT /* {tag(99)} */ SLEEP(2.0)"]
    assert second.records[0].start_time <= first.records[0].start_time


def test_a_restarted_server_changes_nothing(server: SlowLogServer, source: SlowLogTable) -> None:
    before = server.slow(10)
    first = look(source)
    unread = server.slow(5, first=10)
    pid = server.pid
    server.restart()
    assert server.pid != pid
    with pytest.raises(DatabaseAway):
        look(source, first.bookmark)
    after = server.slow(5, first=15)
    second = look(source, first.bookmark)
    assert (first.texts, second.texts, second.gaps) == (before, unread + after, [])


@pytest.mark.parametrize("kill", ["KILL CONNECTION", "KILL QUERY"])
def test_a_session_killed_in_mid_stream_goes_on_where_it_was(
    server: SlowLogServer, source: SlowLogTable, kill: str
) -> None:
    fill_with_long_texts(server)
    readings = source.read(None)
    taken = [next(readings)]
    [(session, _)] = running(server)
    server.execute(f"{kill} {session}")
    with pytest.raises(DatabaseAway):
        taken.extend(readings)
    part = Look(taken, None)
    assert 0 < len(part.records) < 2_000
    rest = look(source, part.bookmark)
    assert [text[:21] for text in part.texts + rest.texts] == [f"SELECT /* {tag(number)} " for number in range(2_000)]
    assert part.gaps + rest.gaps == []


def test_rows_appended_in_the_middle_of_a_look_come_once(server: SlowLogServer, source: SlowLogTable) -> None:
    server.fill(12_000)
    readings = source.read(None)
    taken = [next(readings)]
    server.slow(50, first=12_000)
    taken.extend(readings)
    part = Look(taken, None)
    rest = look(source, part.bookmark)
    assert part.texts + rest.texts == [f"SELECT /* {tag(number)} */ 1" for number in range(12_050)]


# -- when a statement ran -------------------------------------------------------------------------------------------


def times(records: list[Record], began: datetime) -> list[tuple[float, str | None]]:
    """Seconds after `began`, rounded to quarters of a minute, and how sure they are."""
    return [(round((r.start_time - began).total_seconds() / 15) * 15, r.start_time_confidence) for r in records]


@pytest.mark.parametrize("zone", ["SYSTEM", "+02:00"])
def test_the_start_of_every_client_is_found_whatever_its_zone(server: SlowLogServer, zone: str) -> None:
    server.execute(f"SET GLOBAL time_zone='{zone}'")
    try:
        with closing(make(server.monitor())) as source:
            first = look(source)
        began = datetime.now(UTC)
        own = server.slow(1, sleep_s=0.3)
        ended = datetime.now(UTC)
        others = [server.slow(1, first=n, time_zone=at)[0] for n, at in enumerate(["+10:30", "-11:00", "+13:00"], 1)]
        with closing(make(server.monitor())) as source:  # after a restart of the agent
            found = look(source, first.bookmark)
    finally:
        server.execute("SET GLOBAL time_zone='SYSTEM'")
    assert found.texts == own + others
    assert times(found.records, began) == [(0, "exact"), *[(0, "inferred")] * 3]
    # Its start and not its end, on a server that stamps the one and on one that stamps the other.
    assert began - CLOCKS <= found.records[0].start_time <= ended - timedelta(seconds=0.3) + CLOCKS


def test_a_time_that_the_client_has_set_is_replaced_by_that_of_the_look(clean_mariadb: MariaDBServer) -> None:
    with closing(make(clean_mariadb.monitor())) as source, client(clean_mariadb) as cursor:
        first = look(source)
        began = datetime.now(UTC)
        cursor.execute("SET timestamp=1000000000")
        run(cursor, 0, 2)
        found = look(source, first.bookmark)
        again = look(source, first.bookmark)
    years = {row[0] for row in clean_mariadb.execute("SELECT YEAR(start_time) FROM mysql.slow_log")}
    assert 2001 in years
    assert set(times(found.records, began)) == {(0, "bounded")}
    assert [record.id for record in again.records] == [record.id for record in found.records]


def test_rows_from_before_the_first_look_are_read_in_the_servers_zone(server: SlowLogServer) -> None:
    began = datetime.now(UTC)
    server.slow(3)
    server.slow(1, first=3, time_zone="+10:30")
    server.slow(3, first=4)
    with closing(make(server.monitor())) as source:
        assert times(look(source).records, began) == [(0, "bounded")] * 7


# -- rotation and purge --------------------------------------------------------------------------------------------


def truncate(server: SlowLogServer) -> None:
    server.execute("TRUNCATE TABLE mysql.slow_log")


def rename(server: SlowLogServer) -> None:
    server.execute(
        "DROP TABLE IF EXISTS mysql.slow_log_new, mysql.slow_log_old",
        "CREATE TABLE mysql.slow_log_new LIKE mysql.slow_log",
        "RENAME TABLE mysql.slow_log TO mysql.slow_log_old, mysql.slow_log_new TO mysql.slow_log",
    )


Rotation = Callable[[SlowLogServer], None]
ROTATIONS = pytest.mark.parametrize("rotate", [truncate, rename])


@ROTATIONS
def test_a_rotation_with_unread_rows_is_one_gap_with_their_number(
    server: SlowLogServer, source: SlowLogTable, rotate: Rotation
) -> None:
    with client(server) as cursor:
        run(cursor, 0, 20)
        first = look(source)
        run(cursor, 20, 7)
        rotate(server)
        fresh = run(cursor, 27, 3)
        second = look(source, first.bookmark)
        third = look(source, second.bookmark)
    assert (second.texts, second.told) == (fresh, [("rotated", 7)])
    assert (third.texts, third.told) == ([], [])


@ROTATIONS
def test_a_rotation_when_all_was_read_is_no_gap(server: SlowLogServer, source: SlowLogTable, rotate: Rotation) -> None:
    with client(server) as cursor:
        run(cursor, 0, 20)
        first = look(source)
        rotate(server)
        empty = look(source, first.bookmark)
        fresh = run(cursor, 20, 3)
        second = look(source, empty.bookmark)
    assert (empty.texts, second.texts) == ([], fresh)
    assert empty.gaps + second.gaps == []


@ROTATIONS
def test_a_rotation_beyond_a_restart_is_a_gap_of_unknown_size(
    server: SlowLogServer, source: SlowLogTable, rotate: Rotation
) -> None:
    server.slow(20)
    first = look(source)
    server.slow(7, first=20)
    server.restart()
    rotate(server)
    fresh = server.slow(2, first=27)
    source.close()
    second = look(source, first.bookmark)
    assert (second.texts, second.told) == (fresh, [("rotated", None)])


def test_rows_that_came_and_went_between_two_looks_at_an_empty_table_are_a_gap(
    server: SlowLogServer, source: SlowLogTable
) -> None:
    with client(server) as cursor:
        first = look(source)
        run(cursor, 0, 4)
        truncate(server)
        second = look(source, first.bookmark)
        third = look(source, second.bookmark)
    # At least so many: a connection that is just ending may be about to count one.
    assert second.told in ([("rotated", 4)], [("rotated", 3)])
    assert (first.told, third.told) == ([], [])


def test_a_table_shorter_than_it_was_is_never_read_again(server: SlowLogServer, source: SlowLogTable) -> None:
    server.slow(20)
    first = look(source)
    path = server.data / "mysql" / "slow_log.CSV"
    server.execute("SET GLOBAL slow_query_log=OFF", "FLUSH TABLES mysql.slow_log")
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:1] + rows[5:]))
    server.execute("FLUSH TABLES mysql.slow_log", "SET GLOBAL slow_query_log=ON")
    assert server.count() == 16
    second = look(source, first.bookmark)
    fresh = server.slow(3, first=20)
    third = look(source, second.bookmark)
    assert (second.texts, second.told) == ([], [("rows_removed", None)])
    assert (third.texts, third.told) == (fresh, [])


@pytest.mark.parametrize("engine", ["MyISAM", "Aria TRANSACTIONAL=0"])
def test_rows_deleted_from_an_altered_table_are_a_gap_and_nothing_is_read_again(
    server: SlowLogServer, source: SlowLogTable, engine: str
) -> None:
    if engine.startswith("Aria") and server.flavour == "mysql":
        pytest.skip("MySQL has no Aria")
    try:
        server.execute(
            "SET GLOBAL slow_query_log=OFF",
            f"ALTER TABLE mysql.slow_log ENGINE={engine}",
            "SET GLOBAL slow_query_log=ON",
        )
        texts = server.slow(20)
        first = look(source)
        server.execute(
            "SET GLOBAL slow_query_log=OFF",
            "RENAME TABLE mysql.slow_log TO mysql.slow_log_purge",
            f"DELETE FROM mysql.slow_log_purge WHERE sql_text LIKE '%{tag(3)}%' OR sql_text LIKE '%{tag(4)}%'",
            "RENAME TABLE mysql.slow_log_purge TO mysql.slow_log",
            "SET GLOBAL slow_query_log=ON",
        )
        assert server.count() == 18
        second = look(source, first.bookmark)
        fresh = server.slow(3, first=20)
        third = look(source, second.bookmark)
    finally:
        server.execute(
            "SET GLOBAL slow_query_log=OFF",
            "TRUNCATE TABLE mysql.slow_log",
            "ALTER TABLE mysql.slow_log ENGINE=CSV",
            "SET GLOBAL slow_query_log=ON",
        )
    assert (first.texts, second.texts, second.told) == (texts, [], [("rows_removed", None)])
    # Deleted places may be filled again in these engines, so only what stands behind the end is promised.
    assert set(third.texts) <= set(fresh)
    assert not set(third.texts) & set(texts)


# -- texts ---------------------------------------------------------------------------------------------------------


def test_a_statement_of_16_megabytes_is_cut_and_carries_the_digest_of_the_whole(
    mariadb_template: MariaDBTemplate,
) -> None:
    text = "SELECT LENGTH('" + "aé" * 5_300_000 + "')"
    with MariaDBServer(mariadb_template, long_query_time=10, options=["--max-allowed-packet=64M"]) as server:
        with client(server) as cursor:
            cursor.execute("SET NAMES utf8mb4")
            cursor.execute(text)
            run(cursor, 1)
        config = server.monitor()
        with closing(make(config)) as usual, closing(make(config, max_sql_text_bytes=4_096)) as narrow:
            found, short = look(usual), look(narrow)
    for records, limit in ((found.records, 1_048_576), (short.records, 4_096)):
        huge = records[1]
        assert text.startswith(huge.sql_text)
        assert limit - 1 <= len(huge.sql_text.encode()) <= limit
        assert huge.text_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert found.texts[2] == f"SELECT /* {tag(1)} */ 1"
    assert [record.id for record in short.records] == [record.id for record in found.records]


def test_strange_texts_arrive_as_they_are(server: SlowLogServer, source: SlowLogTable) -> None:
    plain = [
        "SELECT 'it''s', \"double\", `a` FROM (SELECT 1 AS a) AS t",
        "SELECT 'back\\\\slash', 'comma,comma'",
        "SELECT\n1\r\n,\t2",
        "SELECT 'ünïcödé', '日本語'",
    ]
    with client(server) as cursor:
        cursor.execute("SET NAMES utf8mb4")
        for text in plain:
            cursor.execute(text)
        cursor.execute("SELECT 'nul\0nul'")
        cursor.execute("SELECT 'emoji 🙂'")
        raw: Any = cursor
        raw.execute(b"SELECT _binary'\xff\xfe'")
        run(cursor, 1)
    texts = look(source).texts
    texts = texts[texts.index(plain[0]) :]  # MariaDB logs the SET, too
    assert texts[:4] == plain
    assert texts[4] == "SELECT 'nul\0nul'"
    assert texts[5] in {"SELECT 'emoji ?'", "SELECT 'emoji 🙂'"}
    assert texts[6].startswith("SELECT _binary'")
    assert texts[7:] == [f"SELECT /* {tag(1)} */ 1"]


def test_passwords_are_masked(clean_mariadb: MariaDBServer) -> None:
    server = clean_mariadb
    with client(server) as cursor:
        cursor.execute("CREATE OR REPLACE USER tester IDENTIFIED BY 'hunter2'")
        cursor.execute("DROP USER tester")
    assert "hunter2" in server.texts()[0]
    with closing(make(server.monitor())) as source:
        assert look(source).texts[:2] == ["CREATE OR REPLACE USER tester IDENTIFIED BY '***'", "DROP USER tester"]


def test_passwords_that_mysql_itself_does_not_mask_are_masked(clean_mysql: MySQLServer) -> None:
    text = "SELECT 'CREATE USER tester IDENTIFIED BY hunter2'"
    with client(clean_mysql) as cursor:
        cursor.execute(text)
    assert clean_mysql.texts() == [text]
    with closing(make(clean_mysql.monitor())) as source:
        assert "hunter2" not in look(source).texts[0]


# -- a good guest --------------------------------------------------------------------------------------------------


READER_OPTIONS = ["--log-queries-not-using-indexes=ON", "--log-slow-admin-statements=ON"]
MINE = "SELECT COUNT(*) FROM mysql.slow_log WHERE user_host LIKE 'monitoring%'"


def three_looks(server: SlowLogServer, config: dict[str, Any]) -> tuple[list[Look], int]:
    """With a rotation before the last; and how many rows the reader's own statements have left."""
    with closing(make(config)) as source:
        source.check()
        first = look(source)
        server.slow(3)
        second = look(source, first.bookmark)
        by_the_agent = server.execute(MINE)[0][0]
        truncate(server)
        third = look(source, second.bookmark)
        by_the_agent += server.execute(MINE)[0][0]
    return [first, second, third], int(by_the_agent)


def test_the_reader_never_logs_itself_whatever_the_server_logs(mariadb_template: MariaDBTemplate) -> None:
    with MariaDBServer(mariadb_template, long_query_time=0, options=READER_OPTIONS) as server:
        config = server.monitor()
        looks, by_the_agent = three_looks(server, config)
        with closing(pymysql.connect(**config)) as plain, plain.cursor() as cursor:
            cursor.execute("SELECT 1")
        by_a_plain_client = server.execute(MINE)
    assert any("tag-000002" in text for text in looks[1].texts)
    assert not any("mysql.slow_log LIMIT" in text for each in looks for text in each.texts)
    assert by_the_agent == 0
    assert by_a_plain_client[0][0] >= 1


@pytest.mark.parametrize("more", [(), ("SESSION_VARIABLES_ADMIN ON *.*",)], ids=["no more grant", "with the grant"])
def test_where_mysql_logs_the_reader_it_is_not_delivered(mysql_template: MySQLTemplate, more: tuple[str, ...]) -> None:
    with MySQLServer(mysql_template, long_query_time=0, options=READER_OPTIONS) as server:
        looks, by_the_agent = three_looks(server, server.monitor(["SELECT ON mysql.slow_log", *more]))
    assert any("tag-000002" in text for text in looks[1].texts)
    assert not any("mysql.slow_log LIMIT" in text for each in looks for text in each.texts)
    assert (by_the_agent == 0) == bool(more)  # without the grant the server does log it


def test_closing_a_look_early_leaves_no_running_statement(server: SlowLogServer, source: SlowLogTable) -> None:
    fill_with_long_texts(server)
    readings = source.read(None)
    next(readings)
    assert [command for _, command in running(server)] == ["Query"]
    readings.close()
    assert wait_until(lambda: running(server) == [], FATE_S)


def lock_is_free(server: SlowLogServer, wait_s: int) -> bool:
    """Whether a TRUNCATE gets through within that time."""
    try:
        server.execute(f"SET SESSION lock_wait_timeout={wait_s}", "TRUNCATE TABLE mysql.slow_log")
    except pymysql.OperationalError as error:
        if error.args[0] != 1205:
            raise
        return False
    return True


def test_a_paused_reader_lets_a_rotation_through(server: SlowLogServer, source: SlowLogTable) -> None:
    fill_with_long_texts(server)
    config = server.monitor()
    plain: Any = pymysql.connect(**config)
    cursor = plain.cursor(SSCursor)
    cursor.execute("SELECT * FROM mysql.slow_log")
    control = lock_is_free(server, 7)
    cursor._result.unbuffered_active = False  # else the driver would read the rest
    plain._force_close()
    readings = source.read(None)
    next(readings)
    assert (control, lock_is_free(server, 20)) == (False, True)
    readings.close()


def test_statements_grow_to_about_two_seconds_of_work(server: SlowLogServer, source: SlowLogTable) -> None:
    server.fill(60_000)
    assert source._rows_a_statement == START_ROWS
    assert len(look(source).records) == 60_000
    assert source._rows_a_statement > START_ROWS


MEMORY = """
import sys, orjson
from contextlib import closing
from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.sources import SourceSettings
from agent.sources.mysql_slow_log import SlowLogTable
from tests.servers.memory import peak_kib
db = DbConfig(**orjson.loads(sys.argv[1]))
total, base = 0, None
with closing(SlowLogTable(SourceSettings("default", db, db.port), Clock())) as source:
    for reading in source.read(None):
        total += len(reading.records)
        if base is None and total >= 5_000:
            base = peak_kib()
print(total, base, peak_kib())
"""


def test_memory_does_not_grow_with_the_table(server: SlowLogServer) -> None:
    import orjson  # noqa: PLC0415 - as the program above does

    server.fill(200_000)
    config = orjson.dumps(server.monitor()).decode()
    done = subprocess.run([sys.executable, "-c", MEMORY, config], capture_output=True, text=True, check=True)
    total, base_kib, peak_kib = map(int, done.stdout.split())
    print(f"RSS after 5,000 rows {base_kib // 1024} MB, after 200,000 rows {peak_kib // 1024} MB")  # noqa: T201
    assert total == 200_000
    assert peak_kib - base_kib < RSS_GROWTH_KIB


# -- the first look ------------------------------------------------------------------------------------------------


def test_start_now_leaves_out_what_is_there(server: SlowLogServer) -> None:
    server.slow(10)
    with closing(make(server.monitor(), start="now")) as source:
        first = look(source)
        fresh = server.slow(3, first=10)
        second = look(source, first.bookmark)
    assert (first.texts, second.texts, first.gaps + second.gaps) == ([], fresh, [])


def test_start_now_on_an_empty_table_takes_what_comes(server: SlowLogServer) -> None:
    with closing(make(server.monitor(), start="now")) as source:
        first = look(source)
        fresh = server.slow(3)
        assert (first.texts, look(source, first.bookmark).texts) == ([], fresh)


def test_start_seconds_back_leaves_out_older_rows_only_once(clean_mariadb: MariaDBServer) -> None:
    server = clean_mariadb
    with client(server) as cursor:
        cursor.execute("SET timestamp=1000000000")
        run(cursor, 0, 5)
        cursor.execute("SET timestamp=DEFAULT")
        young = run(cursor, 5, 5)
        with closing(make(server.monitor(), start=3_600)) as source:
            first = look(source)
            cursor.execute("SET timestamp=1000000000")
            late = run(cursor, 10, 2)
            second = look(source, first.bookmark)
    assert first.texts[-5:] == young
    assert not any(tag(number) in text for number in range(5) for text in first.texts)
    assert second.texts[-2:] == late


def test_start_seconds_back_takes_what_is_young(server: SlowLogServer) -> None:
    server.fill(5)
    young = server.slow(5, first=5)
    with closing(make(server.monitor(), start=3_600)) as source:
        first = look(source)
        late = server.slow(2, first=10)
        assert (first.texts, look(source, first.bookmark).texts) == (young, late)


# -- what goes wrong -----------------------------------------------------------------------------------------------


def error_of(source: SlowLogTable, *, check_too: bool = True) -> SourceError:
    """What a look says; a check, which reads less, must say the same unless told otherwise."""
    with pytest.raises(SourceError) as found:
        look(source)
    if check_too:
        with pytest.raises(type(found.value)):
            source.check()
    source.close()
    return found.value


def test_a_crashed_table_is_named(server: SlowLogServer, source: SlowLogTable) -> None:
    server.slow(3)
    server.execute("SET GLOBAL slow_query_log=OFF", "FLUSH TABLES mysql.slow_log")
    with (server.data / "mysql" / "slow_log.CSV").open("ab") as rows:
        rows.write(b'"no row at all\n')
    server.execute("FLUSH TABLES mysql.slow_log")
    try:
        assert isinstance(error_of(source, check_too=False), SlowLogCrashed)
    finally:
        server.execute(*SlowLogCrashed.remedy.partition(": ")[2].strip("; ").split(";"))
    assert len(look(source).texts) == 3


def test_a_missing_grant_is_named(server: SlowLogServer) -> None:
    config = server.monitor()
    server.execute("REVOKE SELECT ON mysql.slow_log FROM monitoring")
    error = error_of(make(config))
    assert isinstance(error, SlowLogNotGranted)
    assert config["password"] not in str(error)


def test_a_missing_table_is_named(server: SlowLogServer, source: SlowLogTable) -> None:
    off, on = "SET GLOBAL slow_query_log=OFF", "SET GLOBAL slow_query_log=ON"
    server.execute(off, "RENAME TABLE mysql.slow_log TO mysql.slow_log_away")
    try:
        assert isinstance(error_of(source), SlowLogMissing)
    finally:
        server.execute("RENAME TABLE mysql.slow_log_away TO mysql.slow_log", on)


def test_a_wrong_password_is_named_without_it(server: SlowLogServer) -> None:
    error = error_of(make({**server.monitor(), "password": "wrong-secret"}))
    assert isinstance(error, LoginRefused)
    assert "wrong-secret" not in str(error)


def test_a_server_that_is_not_there_is_away(server: SlowLogServer) -> None:
    assert isinstance(error_of(make({**server.monitor(), "port": free_port()})), DatabaseAway)


def test_a_frozen_server_is_away_for_a_new_connection_and_in_mid_stream(server: SlowLogServer) -> None:
    fill_with_long_texts(server)
    source = make(server.monitor(), connect_timeout=1, read_timeout=1)
    readings = source.read(None)
    taken = [next(readings)]
    server.freeze()
    with pytest.raises(DatabaseAway):
        taken.extend(readings)
    assert 0 < len(Look(taken, None).records) < 2_000
    assert isinstance(error_of(source), DatabaseAway)
    source.close()
    server.thaw()
    with closing(make(server.monitor())) as patient:
        assert len(look(patient, taken[-1].bookmark).records) == 2_000 - len(Look(taken, None).records)


def test_a_table_whose_oldest_rows_were_removed_goes_on_where_it_was(
    server: SlowLogServer, source: SlowLogTable
) -> None:
    texts = server.slow(10)
    first = look(source)
    server.execute(
        "SET GLOBAL slow_query_log=OFF",
        "RENAME TABLE mysql.slow_log TO mysql.slow_log_purge",
        f"DELETE FROM mysql.slow_log_purge WHERE sql_text LIKE '%{tag(0)}%' OR sql_text LIKE '%{tag(1)}%'",
        "RENAME TABLE mysql.slow_log_purge TO mysql.slow_log",
        "SET GLOBAL slow_query_log=ON",
    )
    assert server.count() == 8
    fresh = server.slow(3, first=10)
    second = look(source, first.bookmark)
    third = look(source, second.bookmark)
    assert (first.texts, second.texts, second.told, third.texts) == (texts, fresh, [], [])


def readings_before(error: type[SourceError], source: SlowLogTable) -> list[Reading]:
    found: list[Reading] = []
    with closing(source.read(None)) as readings, suppress(error):
        while True:
            found.append(next(readings))
    return found


@pytest.mark.parametrize(
    ("off", "on"),
    [
        ("SET GLOBAL log_output='FILE'", "SET GLOBAL log_output='TABLE'"),
        ("SET GLOBAL slow_query_log=OFF", "SET GLOBAL slow_query_log=ON"),
    ],
)
def test_a_log_that_is_off_is_told_after_what_is_there_was_read(
    server: SlowLogServer, source: SlowLogTable, off: str, on: str
) -> None:
    texts = server.slow(3)
    server.execute(off)
    try:
        found = readings_before(SlowLogOff, source)
        with pytest.raises(SlowLogOff, match=off.rsplit(maxsplit=1)[-1].split("=", maxsplit=1)[0]):
            look(source)
    finally:
        server.execute(on)
    assert [record.sql_text for reading in found for record in reading.records] == texts
    assert look(source).texts == texts  # control: with the log on nothing is told
