"""Servers that answer the agent with what no honest one sends.

What could go wrong: a server has a file of this host sent to it; it takes all memory of the machine with a packet, a
row or a result without end; it holds a watch for ever with a byte now and then; what it says ends the thread of the
watch with an error that nobody expects, again and again, or is obeyed by the terminal of whoever reads it; nonsense is
stored, so that the honest server cannot be read any more.

Memory is that of a process of its own, its peak less what it had before it looked. The controls look at the same
servers without bounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from pymysql import err
from pymysql.connections import Connection

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.record import Record
from agent.source_errors import AnswerSenseless, AnswerTooLarge, DatabaseAway, SetupError, SourceError
from agent.sources import Reading, Source, SourceSettings, find
from tests.fakes import endless_mysql, endless_postgres
from tests.fakes.endless_postgres import COUNTER_TYPES, COUNTERS, EndlessPostgres, Peer
from tests.fakes.rogue_mysql import OK, RogueMysql, Talk

MIB = 1_048_576
MYSQL_PEAK, POSTGRES_PEAK = 32 * MIB, 128 * MIB
LOOK = "LIMIT 0, 5000"  # the statement that reads the log, not the one that reads its first row


@dataclass(frozen=True)
class Ended:
    """How a process came off that looked."""

    error: str
    grown: int
    records: int


def looked(db_type: str, port: int, *more: str) -> Ended:
    words = [sys.executable, "-m", "tests.faults.rogue_client", db_type, str(port), *more]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=150)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    return Ended(str(told["error"] or ""), told["grown"], told["records"])


def source(db_type: str, port: int, **config: Any) -> Source:
    given = {"host": "127.0.0.1", "user": "u", "password": "pa55word", "read_timeout": 10, **config}
    return find(db_type)(SourceSettings("default", DbConfig(port=port, **given), port), Clock())


def read(looking: Source, bookmark: bytes | None = None) -> tuple[list[Record], bytes | None]:
    """All records, and the last bookmark, after a check as before each change."""
    looking.check()
    readings: list[Reading] = list(looking.read(bookmark))
    found = [record for reading in readings for record in reading.records]
    return found, readings[-1].bookmark if readings else bookmark


def name_of(each: object) -> str | None:
    return getattr(each, "__name__", None)


# -- MySQL -----------------------------------------------------------------------------------------------------------


def test_the_fake_is_taken_for_an_honest_server_as_long_as_it_is_one() -> None:
    with RogueMysql(endless_mysql.endless("nothing", endless_mysql.rows)) as server:
        ended = looked("mysql", server.port)
    assert (ended.error, ended.records, ended.grown < MYSQL_PEAK) == ("", 1, True)


@pytest.mark.parametrize(
    ("at", "flood"),
    [
        ("VERSION()", endless_mysql.continued),
        ("VERSION()", endless_mysql.rows),
        ("VERSION()", endless_mysql.small_rows),
        ("VERSION()", endless_mysql.columns),
        ("VERSION()", endless_mysql.results),
        ("LIMIT 0, 1", endless_mysql.long_row),
        ("LIMIT 0, 1", endless_mysql.wide_rows),
        (LOOK, endless_mysql.continued),
        (LOOK, endless_mysql.long_row),
        (LOOK, endless_mysql.wide_rows),
        (LOOK, endless_mysql.columns),
    ],
    ids=name_of,
)
def test_what_never_ends_is_not_heard_out(at: str, flood: Callable[[Talk], None]) -> None:
    with RogueMysql(endless_mysql.endless(at, flood)) as server:
        ended = looked("mysql", server.port)
    assert server.failures, "it would have sent more"
    assert ("[DB-08]" in ended.error, ended.grown < MYSQL_PEAK) == (True, True), ended


def test_rows_beyond_those_that_were_asked_for_are_not_taken() -> None:
    with RogueMysql(endless_mysql.endless(LOOK, endless_mysql.rows)) as server:
        ended = looked("mysql", server.port)
    assert ("[DB-09]" in ended.error, "more rows than" in ended.error, ended.records) == (True, True, 5_000)
    assert ended.grown < MYSQL_PEAK


@pytest.mark.parametrize(
    ("at", "flood"), [("VERSION()", endless_mysql.continued), (LOOK, endless_mysql.wide_rows)], ids=name_of
)
def test_without_bounds_all_of_it_is_taken(at: str, flood: Callable[[Talk], None]) -> None:
    """The control."""
    with RogueMysql(endless_mysql.endless(at, flood)) as server:
        ended = looked("mysql", server.port, "unbounded")
    assert ended.grown > 4 * MYSQL_PEAK, ended


@pytest.mark.parametrize("flood", [endless_mysql.drip, endless_mysql.drip_packets], ids=name_of)
def test_a_byte_now_and_then_holds_nobody(flood: Callable[[Talk], None]) -> None:
    """Each of them begins the timeout of the socket anew: without a bound this test would not end."""
    with RogueMysql(endless_mysql.endless("VERSION()", flood)) as server:
        with (
            closing(source("mysql", server.port, read_timeout=1)) as looking,
            pytest.raises(DatabaseAway, match="slowly"),
        ):
            looking.check()
        assert server.talks


def test_no_file_of_this_host_is_sent() -> None:
    with (
        RogueMysql(endless_mysql.endless("VERSION()", endless_mysql.local_file)) as server,
        closing(source("mysql", server.port)) as looking,
        pytest.raises(AnswerSenseless, match="asked for a file"),
    ):
        looking.check()
    assert b"VERSION()" in server.heard
    assert b"root:" not in server.heard


def test_a_connection_that_may_would_send_it() -> None:
    """The control."""

    def script(talk: Talk) -> None:
        talk.greet()
        talk.say(OK)
        talk.listen()
        talk.say(OK)
        talk.listen()
        endless_mysql.local_file(talk)

    with RogueMysql(script) as server:
        options: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": "u", "password": "p"}
        connection = Connection(**options, local_infile=True, ssl_disabled=True, autocommit=None, read_timeout=5)
        with closing(connection), pytest.raises(err.OperationalError):  # the server ends behind the file
            connection.query("SELECT 1")
    assert b"root:" in server.heard


@pytest.mark.parametrize("at", ["TIMESTAMPDIFF", "Slow_queries", "LIMIT 0, 1"])
def test_rows_of_another_shape_are_an_error_of_ours(at: str) -> None:
    with (
        RogueMysql(endless_mysql.endless(at, endless_mysql.other_columns)) as server,
        closing(source("mysql", server.port)) as looking,
        pytest.raises(AnswerSenseless),
    ):
        read(looking)
    assert at.encode() in server.heard


@pytest.mark.parametrize("at", ["VERSION()", LOOK])
def test_what_it_says_is_cut_and_moves_no_cursor(at: str) -> None:
    with (
        RogueMysql(endless_mysql.endless(at, endless_mysql.message)) as server,
        closing(source("mysql", server.port)) as looking,
        pytest.raises(SetupError) as raised,
    ):
        read(looking)
    assert (str(raised.value).isprintable(), 500 < len(str(raised.value)) < 1_000) == (True, True)


# -- PostgreSQL ------------------------------------------------------------------------------------------------------


def test_the_other_fake_is_taken_for_an_honest_server_too() -> None:
    with EndlessPostgres("nothing", endless_postgres.rows) as server:
        ended = looked("postgres", server.port)
    assert (ended.error, ended.records, ended.grown < POSTGRES_PEAK) == ("", 1, True)


@pytest.mark.parametrize("at", ["pg_extension", COUNTERS])
@pytest.mark.parametrize(
    "flood",
    [
        endless_postgres.rows,
        endless_postgres.wide_rows,
        endless_postgres.long_row,
        endless_postgres.notices,
        endless_postgres.notifications,
    ],
    ids=name_of,
)
def test_what_never_ends_is_not_heard_out_there_either(at: str, flood: Callable[[Peer], None]) -> None:
    with EndlessPostgres(at, flood) as server:
        ended = looked("postgres", server.port)
    assert server.floods == 1
    assert ("[DB-08]" in ended.error, ended.grown < POSTGRES_PEAK) == (True, True), ended


def test_texts_without_end_cost_the_texts_and_nothing_else() -> None:
    with EndlessPostgres("pg_stat_statements(true)", endless_postgres.rows) as server:
        ended = looked("postgres", server.port)
    assert (server.floods, ended.records, ended.grown < POSTGRES_PEAK) == (1, 1, True), ended


def test_without_bounds_all_of_that_is_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, with a little less of it: it takes six times as much memory."""
    monkeypatch.setattr(endless_postgres, "AT_MOST", 96 * MIB)
    with EndlessPostgres(COUNTERS, endless_postgres.rows) as server:
        ended = looked("postgres", server.port, "unbounded")
    assert (server.floods, ended.grown > 2 * POSTGRES_PEAK) == (1, True), ended


@pytest.mark.parametrize("flood", [endless_postgres.drip, endless_postgres.settings], ids=name_of)
def test_what_takes_too_long_is_not_waited_for(flood: Callable[[Peer], None]) -> None:
    with EndlessPostgres("pg_extension", flood) as server:
        with (
            closing(source("postgres", server.port, read_timeout=2)) as looking,
            pytest.raises((DatabaseAway, AnswerTooLarge)),
        ):
            looking.check()
        assert server.floods == 1


def test_nothing_of_this_host_is_copied_there() -> None:
    with (
        EndlessPostgres("pg_extension", endless_postgres.copy_in) as server,
        closing(source("postgres", server.port)) as looking,
        pytest.raises(SourceError, match="COPY"),
    ):
        looking.check()


@pytest.mark.parametrize("at", ["", "pg_extension"])
@pytest.mark.parametrize("flood", [endless_postgres.garbage, endless_postgres.notices], ids=name_of)
def test_what_is_no_protocol_is_an_error_of_ours(at: str, flood: Callable[[Peer], None]) -> None:
    with EndlessPostgres(at, flood) as server:
        with closing(source("postgres", server.port)) as looking, pytest.raises((DatabaseAway, AnswerTooLarge)):
            looking.check()
        assert server.floods >= 1


def test_what_a_postgres_says_is_cut_and_moves_no_cursor() -> None:
    with (
        EndlessPostgres("pg_extension", endless_postgres.message) as server,
        closing(source("postgres", server.port)) as looking,
        pytest.raises(SetupError) as raised,
    ):
        looking.check()
    assert (str(raised.value).isprintable(), 500 < len(str(raised.value)) < 1_000) == (True, True)


def test_values_that_the_driver_cannot_unfold_are_an_error_of_ours() -> None:
    with (
        EndlessPostgres("pg_extension", endless_postgres.deep_json) as server,
        closing(source("postgres", server.port)) as looking,
        pytest.raises(AnswerSenseless, match="RecursionError"),
    ):
        looking.check()


def with_value(at: int, value: bytes | None, oid: int) -> Callable[[Peer], None]:
    """The counters with one other value, of another type."""
    types, values = list(COUNTER_TYPES), list(endless_postgres.ROW)
    types[at], values[at] = oid, value
    return lambda peer: peer.answer(types, [values])


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", None, b"abc"])
@pytest.mark.parametrize("at", [4, 5, 6, 7])
def test_counters_that_are_no_numbers_are_not_stored(at: int, value: bytes | None) -> None:
    """A baseline with one of them could be compared with nothing, for ever."""
    with EndlessPostgres(COUNTERS, with_value(at, value, endless_postgres.FLOAT8)) as server:
        with closing(source("postgres", server.port)) as looking, pytest.raises(SetupError):
            read(looking)
        assert server.floods == 1


@pytest.mark.parametrize("at", range(9))
@pytest.mark.parametrize(
    ("oid", "value"),
    [(25, b"\x1b[2J"), (1_700, b"1.5"), (1_007, b"{1,2}"), (114, b'{"a":[1]}'), (16, b"t"), (1_114, b"infinity")],
)
def test_counters_of_another_type_end_in_no_other_error_now_or_later(at: int, oid: int, value: bytes) -> None:
    bookmark = None
    with (
        EndlessPostgres(COUNTERS, with_value(at, value, oid)) as server,
        closing(source("postgres", server.port)) as looking,
        suppress(SourceError),
    ):
        bookmark = read(looking)[1]
    assert server.floods == 1
    with (
        EndlessPostgres("nothing", endless_postgres.rows) as honest,
        closing(source("postgres", honest.port)) as looking,
    ):
        read(looking, bookmark)
