"""Each cause of missing statements in pg_stat_statements on real servers, as `doctor` names it.

What could go wrong: a cause is not seen, or is told with the wrong code; a healthy server is complained of; the look
counts as a workload of its own; a broken server ends it with a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.dev.postgres import wheel_bin_dir
from agent.dev.server_process import free_port
from agent.sources._postgres_session import MARKER
from tests.integration.examined import examined, verdicts
from tests.servers.postgres import WatchedPostgres, shape

OURS = """
    SELECT query FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
    WHERE r.rolname = 'monitoring' AND query NOT LIKE 'SET %'
"""


@pytest.fixture
def server(clean_postgres: WatchedPostgres) -> WatchedPostgres:
    return clean_postgres


@pytest.fixture
def own() -> Iterator[WatchedPostgres]:
    """One whose settings may be spoiled."""
    with WatchedPostgres(wheel_bin_dir(), settings={"pg_stat_statements.max": "100"}) as server:
        yield server


def test_a_server_that_is_fine_is_not_complained_of(server: WatchedPostgres) -> None:
    server.slow_workload("apple", calls=2, sleep_s=0.02)
    found = examined("postgres", server.monitor(), min_exec_time_ms=10)
    assert verdicts(found) == {}
    assert "takes monitoring in database postgres" in found["login"].sentence
    assert found["encryption"].sentence.startswith("none, ")
    assert found["track"].sentence == "all"
    slow, _, counted = found["slow statements"].sentence.split()[:3]
    assert int(slow) >= 1
    assert int(counted) >= int(slow)
    ours = [row[0] for row in server.execute(OURS)]
    assert ours
    assert [text for text in ours if MARKER not in text] == []


def test_a_server_that_is_away(server: WatchedPostgres) -> None:
    found = examined("postgres", {**server.monitor(), "port": free_port()})
    assert verdicts(found) == {"login": "DB-01", "pg_stat_statements": ""}


def test_a_wrong_password(server: WatchedPostgres) -> None:
    found = examined("postgres", {**server.monitor(), "password": "wrong-secret"})
    assert verdicts(found) == {"login": "DB-03", "pg_stat_statements": ""}
    assert "wrong-secret" not in str(found)


def test_the_extension_is_not_created_in_this_database(server: WatchedPostgres) -> None:
    db_config = server.monitor()
    server.execute("CREATE DATABASE bare")
    try:
        found = examined("postgres", {**db_config, "database": "bare"})
    finally:
        server.execute("DROP DATABASE bare")
    assert verdicts(found) == {"created": "PG-01"}
    assert found["loaded"].verdict == "right"


def test_no_grant(server: WatchedPostgres) -> None:
    db_config = server.monitor()
    server.execute("REVOKE pg_read_all_stats FROM monitoring")
    found = examined("postgres", db_config)
    assert verdicts(found) == {"grant": "PG-03"}


def test_it_is_not_loaded_although_it_was_created(own: WatchedPostgres) -> None:
    db_config = own.monitor()
    with (own.directory / "data" / "postgresql.conf").open("a") as conf:
        conf.write("shared_preload_libraries = ''\n")
    own.restart()
    found = examined("postgres", db_config)
    assert verdicts(found) == {"loaded": "PG-02"}, "what is only written in the configuration is not taken for loaded"


@pytest.mark.parametrize(
    ("setting", "subject"),
    [("pg_stat_statements.track = 'none'", "track"), ("compute_query_id = 'off'", "compute_query_id")],
)
def test_nothing_is_counted(own: WatchedPostgres, setting: str, subject: str) -> None:
    db_config = own.monitor()
    own.execute(f"ALTER SYSTEM SET {setting}")
    own.restart()
    found = examined("postgres", db_config)
    assert verdicts(found) == {subject: "PG-05"}


def test_there_are_too_few_places(own: WatchedPostgres) -> None:
    db_config = own.monitor()
    for number in range(150):
        own.execute(shape(f"kind_{number}"))
    found = examined("postgres", db_config)
    assert verdicts(found) == {"places": "PG-06"}
    assert "were thrown out" in found["places"].sentence


def test_texts_that_cannot_be_decoded(server: WatchedPostgres) -> None:
    db_config = server.monitor()
    server.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        connection = server.admin("bytes")
        with connection.cursor() as cursor:
            connection.set_client_encoding("SQL_ASCII")
            cursor.execute(b'SELECT 1 AS "\xe9"')
        connection.close()
        found = examined("postgres", db_config)
    finally:
        server.execute("DROP DATABASE bytes")
        server.reset()
    assert verdicts(found) == {"texts": "PG-04"}
