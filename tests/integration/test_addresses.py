"""Where a database is found whose name stands for several addresses, or for another one than yesterday.

What could go wrong: one address is dead (an IPv6 that leads nowhere), and the server at the other is never reached; a
new session goes where the name led when the agent was started. A whole agent: tests/acceptance/test_tls.py.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2 import extensions

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.source_errors import DatabaseAway
from agent.sources import SourceSettings, _mysql_session, _postgres_session
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres

NAME, OTHER = "db.test", "127.0.0.2"
LOOKS = 20


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the names of this process stand for; others as ever."""
    real, known = socket.getaddrinfo, dict[str, list[str]]()

    def answer(host: Any, *rest: Any, **named: Any) -> list[Any]:
        return [each for address in known.get(host, [host]) for each in real(address, *rest, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


@pytest.fixture
def silent(postgres18: WatchedPostgres) -> Iterator[socket.socket]:
    """At the server's port and another address: takes connections and says nothing."""
    with socket.create_server((OTHER, postgres18.port)) as listener:
        yield listener


def postgres_at(db_config: dict[str, Any], **more: Any) -> _postgres_session.Session:
    db = DbConfig.model_validate({**db_config, "host": NAME, **more})
    return _postgres_session.Session(SourceSettings("default", db, db.port or 0), Clock())


def test_a_silent_address_does_not_hide_the_server_at_the_other(
    postgres18: WatchedPostgres, names: dict[str, list[str]], silent: socket.socket
) -> None:
    names[NAME] = [OTHER, postgres18.host]
    session = postgres_at(postgres18.monitor(), connect_timeout=1)
    assert session.rows("SELECT 1") == [(1,)]
    session.drop()
    silent.settimeout(5)
    silent.accept()[0].close()  # it was tried first


def test_the_control_libpq_alone_waits_for_the_silent_one(postgres18: WatchedPostgres, silent: socket.socket) -> None:
    db = postgres18.monitor()
    words = {"host": f"{OTHER},{postgres18.host}", "user": db["user"], "password": db["password"]}
    connection = psycopg2.connect(**words, port=db["port"], dbname="postgres", connect_timeout=2, async_=True)
    states = []
    for _ in range(LOOKS):
        states.append(connection.poll())
        select.select([connection.fileno()], [], [], 0.2)  # in all twice the timeout that it was told
    connection.close()
    assert set(states) <= {extensions.POLL_READ, extensions.POLL_WRITE}


def test_when_all_are_silent_it_is_an_outage(
    postgres18: WatchedPostgres, names: dict[str, list[str]], silent: socket.socket
) -> None:
    names[NAME] = [OTHER, OTHER]
    with pytest.raises(DatabaseAway, match="no answer within"):
        postgres_at(postgres18.monitor(), connect_timeout=0.5)


def test_a_new_session_goes_where_the_name_leads_now(
    postgres18: WatchedPostgres, clean_mariadb: MariaDBServer, names: dict[str, list[str]]
) -> None:
    db = DbConfig.model_validate({**clean_mariadb.monitor(), "host": NAME, "connect_timeout": 5})
    settings = SourceSettings("default", db, clean_mariadb.port)
    names[NAME] = [OTHER]  # nobody is there
    with pytest.raises(DatabaseAway):
        _mysql_session.Session(settings)
    with pytest.raises(DatabaseAway):
        postgres_at(postgres18.monitor())
    names[NAME] = [clean_mariadb.host]
    _mysql_session.Session(settings).drop()
    postgres_at(postgres18.monitor()).drop()
