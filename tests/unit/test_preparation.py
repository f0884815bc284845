"""What an administrator is told to say to the server.

What could go wrong: a statement that the version does not know; a name that breaks out of its quotes; a password in the
text; a step that is not needed, or one that is missing; an instance in a cloud is told to write a my.cnf.
"""

from __future__ import annotations

import pytest

from agent.preparation import PASSWORD, Server, provider_of, steps

MARIADB = Server("mysql", "10.11.19-MariaDB-0+deb12u1", "monitoring", "postgres")
MYSQL = Server("mysql", "8.4.3", "monitoring", "postgres")
POSTGRES = Server("postgres", "15.14 (Debian 15.14-0+deb12u1)", "monitoring", "shop")


def text(server: Server, *codes: str) -> str:
    return "\n".join(step.text for step in steps(server, codes))


def test_nothing_is_said_where_nothing_is_missing() -> None:
    assert steps(MARIADB, []) == ()
    assert steps(POSTGRES, ["BE-01", "HO-01"]) == ()


def test_a_user_who_is_not_there_gets_everything() -> None:
    said = text(MARIADB, "DB-03")
    assert f"CREATE USER IF NOT EXISTS 'monitoring'@'%' IDENTIFIED BY '{PASSWORD}';" in said
    assert "GRANT SELECT ON mysql.slow_log TO 'monitoring'@'%';" in said
    assert "SET GLOBAL log_output = 'TABLE';" in said
    said = text(POSTGRES, "DB-03")
    assert f"CREATE USER \"monitoring\" WITH PASSWORD '{PASSWORD}';" in said
    assert 'GRANT pg_read_all_stats TO "monitoring";' in said
    assert "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;" in said
    assert '\\connect "shop"' in said


def test_only_what_is_missing_is_said() -> None:
    assert text(MARIADB, "MY-01") == "GRANT SELECT ON mysql.slow_log TO 'monitoring'@'%';"
    assert text(POSTGRES, "PG-03") == 'GRANT pg_read_all_stats TO "monitoring";'
    assert [step.restarts for step in steps(POSTGRES, ["PG-02"])] == [True]
    assert "REPAIR TABLE" in text(MYSQL, "MY-02")


def test_mysql_keeps_variables_by_itself_and_mariadb_in_its_configuration() -> None:
    assert "SET PERSIST slow_query_log = ON;" in text(MYSQL, "MY-05")
    assert "my.cnf" not in text(MYSQL, "MY-05")
    for older in (MARIADB, Server("mysql", "5.7.44", "m", ""), Server("mysql", "", "m", "")):
        assert "SET GLOBAL slow_query_log = ON;" in text(older, "MY-05")
        assert "--   slow_query_log = ON" in text(older, "MY-05")


@pytest.mark.parametrize("provider", ["rds", "aurora", "cloudsql"])
def test_a_cloud_is_told_its_own_parameters(provider: str) -> None:
    mysql = text(Server("mysql", "8.0.35", "m", "", provider), "MY-05")  # type: ignore[arg-type]
    assert "log_output = TABLE" in mysql
    assert "SET " not in mysql
    postgres = text(Server("postgres", "16.3", "m", "shop", provider), "PG-02")  # type: ignore[arg-type]
    assert "pg_stat_statements.track = all" in postgres
    assert "postgresql.conf" not in postgres
    assert ("shared_preload_libraries" in postgres) == (provider != "cloudsql")


def test_query_ids_are_spoken_of_where_they_exist() -> None:
    assert "compute_query_id" in text(POSTGRES, "PG-05")
    assert "compute_query_id" not in text(Server("postgres", "13.9", "m", "d"), "PG-05")


def test_names_stay_within_their_quotes() -> None:
    assert "'o''brien\\\\'@'%'" in text(Server("mysql", "8.0.1", "o'brien\\", ""), "MY-01")
    assert 'TO "O""Brien";' in text(Server("postgres", "15.1", 'O"Brien', "d"), "PG-03")
    assert 'TO "1st";' in text(Server("postgres", "15.1", "1st", "d"), "PG-03")


@pytest.mark.parametrize(
    ("host", "version", "expected"),
    [
        ("db.example.com", "8.0.1", "own"),
        ("shop.abc123.eu-west-1.rds.amazonaws.com", "", "rds"),
        ("shop.abc123.cn-north-1.rds.amazonaws.com.cn", "", "rds"),
        ("shop.cluster-abc123.eu-west-1.rds.amazonaws.com.", "", "aurora"),
        ("10.0.0.3", "8.0.31-google", "cloudsql"),
        ("rds.amazonaws.com.example.org", "", "own"),
    ],
)
def test_whose_server_it_is(host: str, version: str, expected: str) -> None:
    assert provider_of(host, version) == expected
