"""Every version of the extension that a real server can make, and the reason it gives each window.

What could go wrong: a shape is not read; a version claims what it cannot tell, or says a weaker word than it could; a
loss has no gap, or thousands; a delta behind a reset, an eviction or a crash is not what the server counts now; a
coverage is told that nothing shows.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

import psycopg2
import pytest

from agent.dev.server_process import wait_until
from agent.source_errors import DatabaseAway
from agent.sources.pg_stat_statements import StatementStatistics
from tests.integration.statement_looks import Look, calls, database, look, make
from tests.servers.postgres import WatchedPostgres, shape

VERSIONS = ["1.4", "1.5", "1.6", "1.7", "1.8", "1.9", "1.10", "1.11", "1.12"]
RESET_ONE = """
    SELECT pg_stat_statements_reset(userid, dbid, queryid) FROM pg_stat_statements WHERE starts_with(query, %s)
"""
FULL = {"pg_stat_statements.max": "100"}  # the least there is


@pytest.fixture(scope="module", params=["postgres15", "postgres17", "postgres18"])
def full(request: pytest.FixtureRequest) -> Iterator[WatchedPostgres]:
    """A server that soon makes room by evictions."""
    shared = request.getfixturevalue(request.param)  # for its programs only
    with WatchedPostgres(shared.bin_dir, settings=FULL) as server:
        yield server


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest, full: WatchedPostgres) -> str:
    known = "SELECT 1 FROM pg_available_extension_versions WHERE name = 'pg_stat_statements' AND version = %s"
    if not full.execute(known, (request.param,)):
        pytest.skip(f"PostgreSQL {full.execute('SHOW server_version')[0][0]} has no extension {request.param}")
    return str(request.param)


@pytest.fixture
def source(full: WatchedPostgres, version: str) -> Iterator[StatementStatistics]:
    full.reset()
    with database(full, "shaped") as name:
        full.execute(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'", database=name)
        with closing(make(full.monitor(name))) as found:
            yield found


def number(version: str) -> int:
    return int(version.split(".")[1])


def reset_all(server: WatchedPostgres) -> None:
    server.reset()


def reset_one(server: WatchedPostgres) -> None:
    server.execute(RESET_ONE, ("WITH nut AS ",))


def evict(server: WatchedPostgres) -> None:
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        for round_ in range(40):
            for at in range(100):
                cursor.execute(shape(f"crowd{round_}x{at}"))
            if not server.counters("nut"):
                return
    raise AssertionError("it was not evicted")


def crash(server: WatchedPostgres) -> None:
    """One backend dies, and the server ends all others."""
    with closing(server.admin()) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)

    def answers() -> bool:
        try:
            return not server.counters("nut")
        except psycopg2.Error:
            return False

    assert wait_until(answers, 20)


def restart(server: WatchedPostgres) -> None:
    server.restart()


def nothing(server: WatchedPostgres) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """What happens, and what it is called before 1.9 and from 1.9 on: the reason of a window, and of the gap."""

    happens: Callable[[WatchedPostgres], None]
    before_1_9: tuple[str, str]
    from_1_9: tuple[str, str]


CASES = [
    Case(nothing, ("normal", ""), ("normal", "")),
    Case(restart, ("normal", ""), ("normal", "")),
    Case(reset_all, ("reset", "reset"), ("reset", "reset")),
    Case(reset_one, ("reset", "reset"), ("partial_reset", "partial_reset")),
    Case(evict, ("reset", "reset"), ("evicted_reentered", "evicted")),
    Case(crash, ("reset", "reset"), ("crash_reset", "crash_reset")),
]


def look_again(source: StatementStatistics, bookmark: bytes) -> Look:
    """As the agent does: a connection that went away is opened anew."""
    try:
        return look(source, bookmark)
    except DatabaseAway:
        return look(source, bookmark)


@pytest.mark.parametrize("case", CASES, ids=[case.happens.__name__ for case in CASES])
def test_each_reason_as_far_as_the_version_tells(
    full: WatchedPostgres, source: StatementStatistics, version: str, case: Case
) -> None:
    full.slow_workload("nut", calls=3)
    first = look(source)
    case.happens(full)
    full.slow_workload("nut", calls=2)
    full.slow_workload("pip", calls=1)
    second = look_again(source, first.bookmark)
    third = look(source, second.bookmark)
    expected, gap = case.from_1_9 if number(version) >= 9 else case.before_1_9
    assert (first.one("nut")[1].reason, first.gaps) == ("first_look", [])
    assert (second.one("nut")[1].reason, [each.reason for each in second.gaps]) == (expected, [gap] if gap else [])
    counted = full.counters("nut")[0].calls
    assert calls([first, second], "nut") == (counted if expected == "normal" else 3 + counted)
    is_whole = gap in {"reset", "crash_reset"} and number(version) >= 9
    assert second.one("pip")[1].reason == (expected if is_whole else "new")
    assert (third.of("nut"), third.of("pip")) == ([], [])
    assert first.coverage is None
    if number(version) < 9 or case.happens is crash:
        assert second.coverage is None
    elif expected == "normal":
        assert second.coverage == 1.0
    if case.happens is not evict:  # it is still full: the look itself may push something out
        assert third.gaps == []


@pytest.mark.parametrize("happens", [reset_one, evict])
def test_a_statement_that_came_back_larger_is_counted_whole_where_it_shows(
    full: WatchedPostgres, source: StatementStatistics, version: str, happens: Callable[[WatchedPostgres], None]
) -> None:
    full.slow_workload("nut", calls=2)
    first = look(source)
    happens(full)
    full.slow_workload("nut", calls=5, sleep_s=0.02)
    second = look(source, first.bookmark)
    assert calls([second], "nut") == (5 if number(version) >= 11 else 3)
    told = {True: "evicted" if happens is evict else "partial_reset", False: "reset"}[number(version) >= 9]
    # Of an eviction the others are missed that the crowd pushed out.
    assert [gap.reason for gap in second.gaps] == ([told] if happens is evict or number(version) >= 11 else [])


def test_many_that_are_reset_at_once_are_one_gap(full: WatchedPostgres) -> None:
    full.reset()
    with closing(full.admin()) as connection, connection.cursor() as cursor:
        for at in range(80):
            cursor.execute(shape(f"many{at}"))
    with closing(make(full.monitor())) as source:
        first = look(source)
        full.execute(RESET_ONE, ("WITH many",))
        second = look(source, first.bookmark)
    assert [(gap.reason, gap.estimate, " 80 statements" in gap.detail) for gap in second.gaps] == [
        ("partial_reset", None, True)
    ]


def test_a_reset_of_every_statement_by_itself_is_a_reset(full: WatchedPostgres) -> None:
    full.reset()
    full.slow_workload("nut", calls=3)
    with closing(make(full.monitor())) as source:
        first = look(source)
        full.execute("SELECT pg_stat_statements_reset(userid, dbid, queryid) FROM pg_stat_statements")
        second = look(source, first.bookmark)
    assert [gap.reason for gap in second.gaps] == ["reset"]


def test_the_coverage_falls_with_what_was_evicted(
    full: WatchedPostgres, source: StatementStatistics, version: str
) -> None:
    full.slow_workload("nut", calls=2, sleep_s=0.1)
    first = look(source)
    full.slow_workload("nut", calls=10, sleep_s=0.1)  # a second that will not be counted any more
    evict(full)
    full.slow_workload("pip", calls=5, sleep_s=0.1)
    second = look(source, first.bookmark)
    if number(version) < 9:
        assert second.coverage is None
        return
    assert calls([second], "pip") == 5
    assert second.coverage is not None
    assert 0 < second.coverage < 0.5


NOT_CALLS = """
    SELECT (SELECT sum(calls)::bigint FROM pg_stat_statements(false) s WHERE s.dbid = d.datid AND toplevel),
        xact_commit + xact_rollback, active_time FROM pg_stat_database d WHERE datname = %s
"""


@pytest.mark.parametrize(
    ("text", "times", "calls_of_one", "transactions_of_one"),
    [
        pytest.param("SELECT 1", 50, 1, 1, id="each alone"),
        pytest.param("BEGIN; SELECT 1; SELECT 2; SELECT 3; COMMIT", 10, 5, 1, id="five in one transaction"),
        pytest.param("SELECT 1 / 0", 20, 0, 1, id="failed"),
    ],
)
def test_the_server_counts_nothing_that_could_be_compared_with_calls(
    full: WatchedPostgres, text: str, times: int, calls_of_one: int, transactions_of_one: int
) -> None:
    full.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    with database(full, "compared") as name:
        with closing(full.admin(name)) as connection, connection.cursor() as cursor:
            for _ in range(times):
                with suppress(psycopg2.Error):
                    cursor.execute(text)
        assert wait_until(lambda: full.execute(NOT_CALLS, (name,))[0][1] >= times, 20)
        ((counted, transactions, busy_ms),) = full.execute(NOT_CALLS, (name,))
    assert (counted or 0) == times * calls_of_one
    assert times * transactions_of_one <= transactions <= times * transactions_of_one + 5  # the server's own
    assert busy_ms > 0
