"""A connection to MySQL, against servers that are none.

What could go wrong: a server that is not the one that was meant, or somebody in between, gets the password: by offering
no TLS, by a certificate of anybody, by asking for the password itself; TLS 1.1 is taken; what is wrong passes for an
outage and is tried every minute. The servers' side of it, with real servers: tests/integration/test_database_tls.py.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from pymysql import err

from agent.config.schema import DbConfig
from agent.source_errors import DatabaseAway, DatabaseUntrusted, SourceError
from agent.sources import SourceSettings
from agent.sources._mysql_session import Session
from tests.fakes.rogue_mysql import OK, RogueMysql, Script, Talk
from tests.servers.authority import Authorities, Pair
from tests.unit.transport.conftest import older, speaking

PASSWORD = "hunter2-hunter2"
CLEAR = [b"mysql_clear_password", b"dialog", b"mysql_old_password"]
Rogue = Callable[[Script], RogueMysql]


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    running: list[RogueMysql] = []

    def start(script: Script) -> RogueMysql:
        running.append(RogueMysql(script))
        return running[-1]

    yield start
    for each in running:
        each.close()


def failure(server: RogueMysql, host: str = "localhost", **tls: Any) -> SourceError:
    """Why no session comes about."""
    keys = {
        "host": host,
        "port": server.port,
        "user": "monitoring",
        "password": PASSWORD,
        "read_timeout": 10,
        "tls": tls,
    }
    db = DbConfig.model_validate(keys)
    with pytest.raises(SourceError) as caught:
        Session(SourceSettings("default", db, server.port))
    server.close()
    assert PASSWORD not in str(caught.value)
    return caught.value


def asking(plugin: bytes, context: ssl.SSLContext | None = None) -> Script:
    """Wants the password by that plugin."""

    def script(talk: Talk) -> None:
        talk.greet(context=context)
        data = b"\x04Password: " if plugin == b"dialog" else b"12345678"
        talk.ask_for(plugin, data)
        talk.say(OK)
        talk.listen()

    return script


def ordinary(context: ssl.SSLContext | None = None) -> Script:
    """Lets everybody in, and goes at the first statement."""

    def script(talk: Talk) -> None:
        talk.greet(context=context)
        talk.say(OK)
        talk.listen()

    return script


# -- the password itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [{}, {"mode": "prefer"}, {"mode": "disable"}])
@pytest.mark.parametrize("plugin", CLEAR)
def test_no_byte_of_the_password_goes_over_a_connection_without_tls(
    rogue: Rogue, plugin: bytes, tls: dict[str, str]
) -> None:
    server = rogue(asking(plugin))
    error = failure(server, **tls)
    assert (type(error), error.code) == (DatabaseUntrusted, "DB-06")
    assert "the password itself" in error.detail
    assert b"monitoring" in server.heard, "it came as far as the login"
    assert PASSWORD.encode() not in server.heard
    assert not any(PASSWORD.encode()[at : at + 4] in server.heard for at in range(len(PASSWORD) - 3))


@pytest.mark.parametrize("plugin", CLEAR[:2])
def test_a_greeting_that_asks_for_it_at_once_gets_none_of_it_either(rogue: Rogue, plugin: bytes) -> None:
    def script(talk: Talk) -> None:
        talk.greet(plugin)
        talk.say(b"\x01\x04Password: ")

    server = rogue(script)
    failure(server)
    assert b"monitoring" in server.heard
    assert b"hunter2" not in server.heard


@pytest.mark.parametrize("plugin", CLEAR[:2])
def test_the_control_the_driver_alone_would_send_it(rogue: Rogue, plugin: bytes) -> None:
    server = rogue(asking(plugin))
    with pytest.raises(err.MySQLError):  # after the login it answers nothing
        pymysql.connect(host="localhost", port=server.port, user="monitoring", password=PASSWORD, read_timeout=1)
    server.close()
    assert PASSWORD.encode() in server.heard


@pytest.mark.parametrize("plugin", CLEAR[:2])
def test_over_tls_a_server_may_ask_for_it(rogue: Rogue, authorities: Authorities, plugin: bytes) -> None:
    """As for PAM or LDAP behind it; who may see it is what `ca` decides."""
    server = rogue(asking(plugin, speaking(authorities.good)))
    failure(server, ca=str(authorities.ours.ca))
    assert (server.talks[0].is_secure, PASSWORD.encode() in server.heard) == (True, True)


# -- whom it speaks to -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [{"mode": "require"}, {"verify": True}])
def test_a_server_that_offers_no_tls_is_left_before_anything_is_said(rogue: Rogue, tls: dict[str, Any]) -> None:
    server = rogue(ordinary())
    error = failure(server, **tls)
    assert (type(error), error.detail) == (DatabaseUntrusted, "the server offers no TLS, and db_config tls demands it")
    assert (len(server.talks), server.heard) == (1, b"")


def test_the_control_where_tls_is_only_preferred_the_same_server_hears_the_user(rogue: Rogue) -> None:
    server = rogue(ordinary())
    assert isinstance(failure(server), DatabaseAway)  # the first statement is not answered
    assert b"monitoring" in server.heard


@pytest.mark.parametrize(
    ("shown", "verify", "told"),
    [
        ("foreign", True, "no authority that is trusted here has signed it"),
        ("foreign", "ca", "no authority that is trusted here has signed it"),
        ("of_another_name", True, "it is for other names (certificate is not valid for 'localhost')"),
        ("expired", True, "it has expired"),
        ("expired", "ca", "it has expired"),
    ],
)
def test_a_certificate_that_is_not_to_be_trusted_is_told_and_no_user_is_said(
    rogue: Rogue, authorities: Authorities, shown: str, verify: object, told: str
) -> None:
    pair: Pair = getattr(authorities, shown)
    server = rogue(ordinary(speaking(pair)))
    error = failure(server, ca=str(authorities.ours.ca), verify=verify)
    assert type(error) is DatabaseUntrusted
    assert error.detail.startswith(f"the server's certificate: {told}"), error.detail
    assert (b"monitoring" in server.heard, len(server.failures)) == (False, 1)


@pytest.mark.parametrize(
    ("shown", "tls"),
    [
        ("good", {"verify": True}),
        ("of_another_name", {"verify": "ca"}),
        ("nameless", {"verify": True}),  # a subject that is the name will do where there is no other name
        ("foreign", {"verify": False}),
        ("expired", {"verify": False, "mode": "require"}),
    ],
)
def test_what_is_not_asked_for_is_not_demanded(
    rogue: Rogue, authorities: Authorities, shown: str, tls: dict[str, Any]
) -> None:
    server = rogue(ordinary(speaking(getattr(authorities, shown))))
    assert isinstance(failure(server, ca=str(authorities.ours.ca), **tls), DatabaseAway)
    assert (server.talks[0].is_secure, b"monitoring" in server.heard) == (True, True)


@pytest.mark.parametrize("tls", [{}, {"mode": "require"}])
def test_a_server_of_tls_1_1_is_refused(rogue: Rogue, authorities: Authorities, tls: dict[str, Any]) -> None:
    server = rogue(ordinary(older(speaking(authorities.good), at_most=ssl.TLSVersion.TLSv1_1)))
    error = failure(server, **tls)
    assert (type(error), error.detail) == (DatabaseUntrusted, "the other side speaks no TLS 1.2 or newer")
    assert (b"monitoring" in server.heard, len(server.failures)) == (False, 1)


def test_the_control_of_tls_1_1_whoever_allows_it_gets_on(
    rogue: Rogue, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = rogue(ordinary(older(speaking(authorities.good), at_most=ssl.TLSVersion.TLSv1_1)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    monkeypatch.setattr("agent.sources._mysql_connection.client_context", lambda *_, **__: older(context))
    assert isinstance(failure(server), DatabaseAway)
    assert server.talks[0].is_secure


def test_a_file_that_has_gone_since_the_start_is_told(rogue: Rogue) -> None:
    server = rogue(ordinary())
    error = failure(server, ca="/nonexistent")
    assert type(error) is DatabaseUntrusted
    assert error.detail == "db_config tls.ca: the file cannot be read (No such file or directory)"
    assert server.talks == []


def test_a_handshake_that_is_cut_off_is_an_outage(rogue: Rogue, authorities: Authorities) -> None:
    class Cut(Exception):
        pass

    def script(talk: Talk) -> None:
        with pytest.raises(Cut):
            talk.greet(context=_Cutting(Cut))  # type: ignore[arg-type]
        talk.connection.close()

    error = failure(rogue(script), ca=str(authorities.ours.ca))
    assert type(error) is DatabaseAway


class _Cutting:
    """In the place of a context: begins no TLS."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def wrap_socket(self, *_: object, **__: object) -> None:
        raise self._error
