"""The counters of real PostgreSQL servers, 15 and 18, read by a user who has pg_read_all_stats and nothing else.

What could go wrong: the delivered calls do not add up to what the server counted (polls, restarts of either side, a
crash between partial commits, a reset, an evicted statement that came back larger); a statement that is slow only
sometimes is missed; one unreadable text costs counters; the extension has another shape or lives elsewhere; dropped
roles and databases take their statements along; the reader reports itself; a broken server gives the wrong error.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from agent.dev.postgres import wheel_bin_dir
from agent.dev.server_process import free_port
from agent.source_errors import (
    DatabaseAway,
    LoginRefused,
    SetupError,
    SourceError,
    StatementsNotCreated,
    StatementsNotGranted,
    StatementsNotLoaded,
)
from agent.sources._statement_counters import Row
from agent.sources._statement_queries import Link
from agent.sources.pg_stat_statements import STATEMENTS_A_READING, StatementStatistics
from tests.integration.statement_looks import SLOW_MS, Look, calls, database, look, make
from tests.servers.postgres import WatchedPostgres, shape


@pytest.fixture
def server(clean_postgres: WatchedPostgres) -> WatchedPostgres:
    return clean_postgres


@pytest.fixture
def source(server: WatchedPostgres) -> Iterator[StatementStatistics]:
    with closing(make(server.monitor())) as found:
        yield found


# -- sums ----------------------------------------------------------------------------------------------------------


def test_calls_add_up_over_polls_and_new_agents(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("apple", calls=3)
    looks = [look(source)]
    for count in (2, 1, 4):
        server.slow_workload("apple", calls=count)
        source.close()
        with closing(make(server.monitor())) as other:
            looks.append(look(other, looks[-1].bookmark))
    looks.append(look(source, looks[-1].bookmark))
    [counted] = server.counters("apple")
    assert [calls([each], "apple") for each in looks] == [3, 2, 1, 4, 0]
    assert calls(looks, "apple") == counted.calls == 10
    total_ms = sum(each.one("apple")[1].total_exec_time_ms for each in looks[:4])
    assert total_ms == pytest.approx(counted.total_time_ms)
    assert [each.gaps for each in looks] == [[]] * 5


def test_the_first_look_takes_what_was_counted_before(server: WatchedPostgres, source: StatementStatistics) -> None:
    text = server.slow_workload("pear", calls=2, sleep_s=0.02)
    first = look(source)
    record, window = first.one("pear")
    assert (record.sql_text, record.db, record.user_host, record.lock_time_s) == (text, "postgres", "postgres", 0.0)
    assert (window.reason, window.start, window.end) == ("first_look", None, record.start_time)
    assert (window.calls, window.rows, record.rows_sent, record.rows_examined) == (2, 2, 1, 0)
    assert record.query_time_s == pytest.approx(window.total_exec_time_ms / 2 / 1000)
    assert window.max_exec_time_ms >= 20
    server.slow_workload("pear")
    server.slow_workload("quince")
    second = look(source, first.bookmark)
    assert second.one("pear")[1].reason == "normal"
    assert second.one("pear")[1].start == window.end
    assert second.one("quince")[1].reason == "new"


def test_a_window_is_sent_only_when_it_was_slow(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("plum", calls=2, sleep_s=0.03)
    slow = look(source)
    server.slow_workload("plum", calls=5, sleep_s=0.0)
    quick = look(source, slow.bookmark)
    server.slow_workload("plum", calls=1, sleep_s=0.03)
    again = look(source, quick.bookmark)
    assert [calls([each], "plum") for each in (slow, quick, again)] == [2, 0, 1]


def test_a_window_is_sent_when_one_call_was_slower_than_ever(
    server: WatchedPostgres, source: StatementStatistics
) -> None:
    server.slow_workload("fig", calls=10, sleep_s=0.0)
    first = look(source)
    server.slow_workload("fig", calls=100, sleep_s=0.0)
    server.slow_workload("fig", calls=1, sleep_s=0.02)
    second = look(source, first.bookmark)
    record, window = second.one("fig")
    assert calls([first], "fig") == 0
    assert (window.calls, record.query_time_s < SLOW_MS / 1000) == (101, True)


def test_a_restarted_server_keeps_its_sums(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("kiwi", calls=2)
    first = look(source)
    server.slow_workload("kiwi", calls=3)
    server.restart()
    with pytest.raises(DatabaseAway):
        look(source, first.bookmark)
    server.slow_workload("kiwi", calls=1)
    second = look(source, first.bookmark)
    assert [calls([first], "kiwi"), calls([second], "kiwi")] == [2, 4]
    assert (server.counters("kiwi")[0].calls, second.gaps) == (6, [])


def test_a_reset_is_a_gap_and_the_new_counters_count_whole(
    server: WatchedPostgres, source: StatementStatistics
) -> None:
    server.slow_workload("lime", calls=2)
    first = look(source)
    server.reset()
    server.slow_workload("lime", calls=5)
    second = look(source, first.bookmark)
    third = look(source, second.bookmark)
    _, window = second.one("lime")
    assert (window.calls, window.reason) == (5, "reset")
    assert [gap.reason for gap in second.gaps] == ["reset"]
    assert (third.of("lime"), third.gaps) == ([], [])


def test_a_crashed_server_starts_its_sums_anew(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("date", calls=4)
    first = look(source)
    server.kill()
    server.start()
    server.slow_workload("date", calls=3)
    assert server.counters("date")[0].calls == 3
    with pytest.raises(DatabaseAway):
        look(source, first.bookmark)
    second = look(source, first.bookmark)
    assert (calls([second], "date"), [gap.reason for gap in second.gaps]) == (3, ["crash_reset"])
    assert second.one("date")[1].reason == "crash_reset"


def forget(server: WatchedPostgres, name: str) -> None:
    server.execute(
        "SELECT pg_stat_statements_reset(userid, dbid, queryid) FROM pg_stat_statements WHERE starts_with(query, %s)",
        (f"WITH {name} AS ",),
    )
    assert server.counters(name) == []


def test_a_statement_that_was_dropped_and_came_back_is_counted_from_zero(
    server: WatchedPostgres, source: StatementStatistics
) -> None:
    server.slow_workload("nut", calls=3)
    first = look(source)
    forget(server, "nut")
    server.slow_workload("nut", calls=2)
    second = look(source, first.bookmark)
    forget(server, "nut")
    third = look(source, second.bookmark)
    assert (calls([second], "nut"), [gap.reason for gap in second.gaps]) == (2, ["partial_reset"])
    assert (third.of("nut"), [gap.reason for gap in third.gaps]) == ([], ["partial_reset"])


def test_a_statement_that_came_back_larger_is_still_counted_from_zero(postgres18: WatchedPostgres) -> None:
    postgres18.reset()
    with closing(make(postgres18.monitor())) as source:
        postgres18.slow_workload("oak", calls=2)
        first = look(source)
        forget(postgres18, "oak")
        postgres18.slow_workload("oak", calls=5)
        second = look(source, first.bookmark)
    assert (calls([second], "oak"), [gap.reason for gap in second.gaps]) == (5, ["partial_reset"])


def test_a_crash_between_partial_commits_neither_skips_nor_doubles(
    server: WatchedPostgres, source: StatementStatistics
) -> None:
    names = [f"many{number}" for number in range(STATEMENTS_A_READING * 2 + 20)]
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        cursor.execute(";".join(shape(name) for name in names))
    with closing(make(server.monitor(), min_exec_time_ms=0)) as all_slow:
        readings = all_slow.read(None)
        part = Look([next(readings)])
        readings.close()
        sent = [name for name in names if part.of(name)]
        server.slow_workload(names[0], sleep_s=0.0)
        server.slow_workload(sent[0], sleep_s=0.0)
        rest = look(all_slow, part.bookmark)
        last = look(all_slow, rest.bookmark)
    extra = Counter([names[0], sent[0]])
    assert 0 < len(sent) <= STATEMENTS_A_READING
    assert {name: calls([part, rest], name) for name in names} == {name: 1 + extra[name] for name in names}
    assert [name for name in names if last.of(name)] == []


# -- whose and where -----------------------------------------------------------------------------------------------


def test_statements_of_other_databases_and_roles_are_named(
    server: WatchedPostgres, source: StatementStatistics
) -> None:
    server.execute("DROP ROLE IF EXISTS customer")
    server.execute("CREATE ROLE customer LOGIN PASSWORD 'customer'")
    try:
        with (
            database(server, "shop"),
            closing(server.connect("shop", user="customer", password="customer")) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(shape("elm", 0.01))
            record, _ = look(source).one("elm")
    finally:
        server.execute("DROP ROLE customer")
    assert (record.db, record.user_host) == ("shop", "customer")


def test_statements_of_dropped_databases_and_roles_are_still_sent(
    server: WatchedPostgres, source: StatementStatistics
) -> None:
    server.execute("DROP ROLE IF EXISTS guest")
    server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with (
        database(server, "gone"),
        closing(server.connect("gone", user="guest", password="guest")) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(shape("ash", 0.01))
        connection.close()
    server.execute("DROP ROLE guest")
    record, window = look(source).one("ash")
    assert (record.db.startswith("dropped database "), record.user_host.startswith("dropped role ")) == (True, True)
    assert window.calls == 1


def test_the_extension_may_live_in_any_schema(server: WatchedPostgres) -> None:
    with database(server, "elsewhere") as name:
        server.execute('CREATE SCHEMA "My Stats"', database=name)
        server.execute('CREATE EXTENSION pg_stat_statements SCHEMA "My Stats"', database=name)
        server.slow_workload("yew", database=name)
        with closing(make(server.monitor(name))) as source:
            error = error_of(source)
            server.execute('GRANT USAGE ON SCHEMA "My Stats" TO monitoring', database=name)
            found = look(source)
        server.execute('REVOKE USAGE ON SCHEMA "My Stats" FROM monitoring', database=name)
    assert (type(error), 'GRANT USAGE ON SCHEMA "My Stats"' in str(error)) == (SetupError, True)
    assert found.one("yew")[0].db == name


# -- texts ---------------------------------------------------------------------------------------------------------


def test_passwords_are_masked(server: WatchedPostgres) -> None:
    server.execute("CREATE ROLE tester PASSWORD 'hunter2'")
    server.execute("DROP ROLE tester")
    with closing(make(server.monitor(), min_exec_time_ms=0)) as source:
        texts = [record.sql_text for record in look(source).records]
    assert [text for text in texts if "CREATE ROLE tester" in text] == ["CREATE ROLE tester PASSWORD '***'"]


def test_the_reader_never_reports_itself(server: WatchedPostgres) -> None:
    config = server.monitor()
    with closing(make(config, min_exec_time_ms=0)) as source:
        source.check()
        first = look(source)
        second = look(source, first.bookmark)
        third = look(source, second.bookmark)
    with closing(server.connect(user="monitoring", password=config["password"])) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT 'control' AS control_of_the_reader")
    with closing(make(config, min_exec_time_ms=0)) as source:
        fourth = look(source, third.bookmark)
    own = server.execute("SELECT count(*) FROM pg_stat_statements WHERE query LIKE %s", ("%dbpower-agent%",))
    by_monitoring = [
        record.sql_text
        for each in (first, second, third)
        for record in each.records
        if record.user_host == "monitoring"
    ]
    assert own[0][0] >= 3
    assert [text for text in by_monitoring if not text.startswith(("BEGIN", "SET", "SHOW"))] == []
    assert any("control_of_the_reader" in record.sql_text for record in fourth.records)


# -- what goes wrong -----------------------------------------------------------------------------------------------


def error_of(source: StatementStatistics) -> SourceError:
    """What a look and a check say, which must be the same."""
    with pytest.raises(SourceError) as found:
        look(source)
    with pytest.raises(type(found.value)):
        source.check()
    source.close()
    return found.value


def test_a_missing_extension_is_named(server: WatchedPostgres) -> None:
    config = server.monitor()
    with database(server, "bare") as name:
        assert isinstance(error_of(make({**config, "database": name})), StatementsNotCreated)


def test_a_missing_grant_is_named(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.execute("REVOKE pg_read_all_stats FROM monitoring")
    assert isinstance(error_of(source), StatementsNotGranted)
    server.execute("GRANT pg_read_all_stats TO monitoring")
    look(source)


def test_an_extension_that_is_not_loaded_is_named(postgres18: WatchedPostgres) -> None:
    with WatchedPostgres(
        wheel_bin_dir(), settings={"shared_preload_libraries": "", "pg_stat_statements.track": "all"}
    ) as bare:
        error = error_of(make(bare.monitor()))
    assert isinstance(error, StatementsNotLoaded)


def test_a_wrong_password_is_named_without_it(server: WatchedPostgres) -> None:
    error = error_of(make({**server.monitor(), "password": "wrong-secret"}))
    assert isinstance(error, LoginRefused)
    assert "wrong-secret" not in str(error)


def test_a_missing_database_is_named(server: WatchedPostgres) -> None:
    error = error_of(make({**server.monitor(), "database": "nowhere"}))
    assert isinstance(error, SetupError)
    assert "nowhere" in str(error)


def test_a_server_that_is_not_there_is_away(server: WatchedPostgres) -> None:
    assert isinstance(error_of(make({**server.monitor(), "port": free_port()})), DatabaseAway)


def test_a_frozen_server_is_away_for_an_old_and_a_new_connection(server: WatchedPostgres) -> None:
    server.slow_workload("ice", calls=2)
    source = make(server.monitor(), connect_timeout=1, read_timeout=1)
    first = look(source)
    server.slow_workload("ice", calls=3)
    server.freeze()
    assert isinstance(error_of(source), DatabaseAway)
    assert isinstance(error_of(source), DatabaseAway)
    server.thaw()
    assert calls([look(source, first.bookmark)], "ice") == 3
    source.close()


def test_a_killed_session_goes_on_where_it_was(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("hit", calls=2)
    first = look(source)
    server.slow_workload("hit", calls=3)
    killed = server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'monitoring'")
    assert killed == [(True,)]
    with pytest.raises(DatabaseAway):
        look(source, first.bookmark)
    assert calls([look(source, first.bookmark)], "hit") == 3


# -- what must not be taken for a reset ---------------------------------------------------------------------------


def test_another_time_zone_of_the_role_is_no_reset(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("melon", calls=3)
    first = look(source)
    source.close()
    server.execute("ALTER ROLE monitoring SET timezone = 'Asia/Tokyo'")
    try:
        second = look(source, first.bookmark)
    finally:
        server.execute("ALTER ROLE monitoring RESET timezone")
    assert (calls([first], "melon"), calls([second], "melon"), second.gaps) == (3, 0, [])


def test_a_grant_that_is_gone_for_a_while_doubles_nothing(server: WatchedPostgres, source: StatementStatistics) -> None:
    server.slow_workload("olive", calls=3)
    first = look(source)
    server.execute("REVOKE pg_read_all_stats FROM monitoring")
    try:
        assert isinstance(error_of(source), StatementsNotGranted)
    finally:
        server.execute("GRANT pg_read_all_stats TO monitoring")
    second = look(source, first.bookmark)
    assert (calls([second], "olive"), second.gaps) == (0, [])


def test_a_reset_while_the_counters_are_read_doubles_nothing(
    server: WatchedPostgres, source: StatementStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.slow_workload("peach", calls=3)
    first = look(source)
    read = Link.counters
    resets: list[int] = []

    def reset_in_between(link: Link) -> list[Row]:
        if not resets:
            resets.append(1)
            server.reset()
            server.slow_workload("peach", calls=2)
        return read(link)

    monkeypatch.setattr(Link, "counters", reset_in_between)
    second = look(source, first.bookmark)
    third = look(source, second.bookmark)
    assert (resets, calls([second], "peach"), calls([third], "peach")) == ([1], 2, 0)


@pytest.mark.parametrize("version", ["1.8", "1.10"])
def test_an_update_of_the_extension_resets_nothing(postgres18: WatchedPostgres, version: str) -> None:
    server = postgres18
    server.reset()
    config = server.monitor()
    server.execute("DROP EXTENSION pg_stat_statements")
    server.execute(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'")
    try:
        server.slow_workload("quince", calls=5)
        server.execute("DO $$ BEGIN PERFORM pg_sleep(0.02); END $$")  # one that a function calls
        with closing(make(config)) as source:
            first = look(source)
            source.close()
            server.execute("ALTER EXTENSION pg_stat_statements UPDATE")
            server.slow_workload("quince", calls=1)
            second = look(source, first.bookmark)
    finally:
        server.execute("DROP EXTENSION pg_stat_statements")
        server.execute("CREATE EXTENSION pg_stat_statements")
    assert (calls([first], "quince"), calls([second], "quince"), second.gaps) == (5, 1, [])
    nested = [record for record in second.records if "pg_sleep" in record.sql_text and "quince" not in record.sql_text]
    assert nested == []
