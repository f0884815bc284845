"""TLS to real databases: MariaDB, MySQL and PostgreSQL, with real certificates.

What could go wrong: a mode is not what the server sees; a server that shows the certificate of somebody else, of
another name or of last year is believed; one that offers no TLS is spoken to although it was demanded;
PGSSLMODE=verify-full, which held before, does not hold any more; a client certificate is not shown; what is wrong is an
outage in the log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.source_errors import DatabaseUntrusted, LoginRefused, SourceError
from agent.sources import SourceSettings, _mysql_session, _postgres_session
from tests.servers.authority import Authorities, Pair
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate
from tests.servers.mysql import MySQLServer, MySQLTemplate
from tests.servers.postgres import WatchedPostgres
from tests.servers.slow_log_server import SlowLogServer, Template
from tests.servers.tls import PostgresTls, SlowLogTls


class Shows(Protocol):
    def show(self, pair: Pair) -> None: ...


class NoTls:
    def show(self, pair: Pair) -> None:
        raise AssertionError("it has none")


@dataclass(frozen=True)
class Spoken:
    """A server with TLS, and how the agent's user speaks to it."""

    known: Authorities
    server: SlowLogServer | WatchedPostgres
    tls: Shows
    db: dict[str, Any]
    speak: Callable[[DbConfig], str]

    def version(self, **tls: Any) -> str:
        """Opens a session as the agent does; the version of TLS that the server sees, empty without."""
        keys = {"host": "localhost", "connect_timeout": 30, "read_timeout": 30}
        return self.speak(DbConfig.model_validate({**self.db, **keys, **tls.pop("more", {}), "tls": tls}))

    def refusal(self, **tls: Any) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.version(**tls)
        assert self.db["password"] not in str(caught.value)
        return caught.value


def speak_mysql(db: DbConfig) -> str:
    assert db.port is not None
    session = _mysql_session.Session(SourceSettings("default", db, db.port))
    try:
        ((_, version),) = session.rows("SHOW SESSION STATUS LIKE 'Ssl_version'")
    finally:
        session.drop()
    assert isinstance(version, bytes)
    return version.decode()


def speak_postgres(db: DbConfig) -> str:
    assert db.port is not None
    session = _postgres_session.Session(SourceSettings("default", db, db.port), Clock())
    try:
        ((version,),) = session.rows("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    finally:
        session.drop()
    return version or ""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """libpq looks for certificates in the home directory and for wishes in PGSSL*."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("PGSSL")]:
        monkeypatch.delenv(name)


def _slow_log(make: type[SlowLogServer], template: Template, known: Authorities) -> Iterator[Spoken]:
    server = make(template, long_query_time=10.0)
    tls = SlowLogTls(server, known.good, known.both_cas if make is MySQLServer else known.theirs.ca)
    with server:
        yield Spoken(known, server, tls, server.monitor(), speak_mysql)


def _postgres(bin_dir: Path, known: Authorities) -> Iterator[Spoken]:
    with WatchedPostgres(bin_dir) as server:
        tls = PostgresTls(server, known.good, known.theirs.ca)
        yield Spoken(known, server, tls, server.monitor(), speak_postgres)


@pytest.fixture(scope="module")
def mariadb_tls(mariadb_template: MariaDBTemplate, authorities: Authorities) -> Iterator[Spoken]:
    yield from _slow_log(MariaDBServer, mariadb_template, authorities)


@pytest.fixture(scope="module")
def mysql_tls(mysql_template: MySQLTemplate, authorities: Authorities) -> Iterator[Spoken]:
    yield from _slow_log(MySQLServer, mysql_template, authorities)


@pytest.fixture(scope="module")
def postgres15_tls(postgres15: WatchedPostgres, authorities: Authorities) -> Iterator[Spoken]:
    yield from _postgres(postgres15.bin_dir, authorities)


@pytest.fixture(scope="module")
def postgres17_tls(postgres17: WatchedPostgres, authorities: Authorities) -> Iterator[Spoken]:
    yield from _postgres(postgres17.bin_dir, authorities)


def _in_turn(request: pytest.FixtureRequest) -> Spoken:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Spoken)
    found.tls.show(found.known.good)
    return found


SLOW_LOGS, POSTGRES = ["mariadb_tls", "mysql_tls"], ["postgres15_tls", "postgres17_tls"]


@pytest.fixture(params=[*SLOW_LOGS, *POSTGRES])
def spoken(request: pytest.FixtureRequest) -> Spoken:
    """Each of the four in turn, with a certificate for localhost that `ours` has signed."""
    return _in_turn(request)


@pytest.fixture(params=SLOW_LOGS)
def slow_log_tls(request: pytest.FixtureRequest) -> Spoken:
    return _in_turn(request)


@pytest.fixture(params=POSTGRES)
def postgres_tls(request: pytest.FixtureRequest) -> Spoken:
    return _in_turn(request)


# -- what is said is what happens --------------------------------------------------------------------------------------


def test_each_mode_is_what_the_server_sees(spoken: Spoken) -> None:
    ca = str(spoken.known.ours.ca)
    encrypted = [
        spoken.version(),
        spoken.version(mode="prefer"),
        spoken.version(mode="require"),
        spoken.version(ca=ca),
        spoken.version(ca=ca, verify="ca"),
        spoken.version(ca=ca, more={"host": "127.0.0.1"}),
    ]
    assert [each in {"TLSv1.2", "TLSv1.3"} for each in encrypted] == [True] * 6, encrypted
    # Behind the others: MySQL takes a password without TLS only from whom it has seen with TLS.
    assert spoken.version(mode="disable") == ""


@pytest.mark.parametrize("shown", ["foreign", "expired"])
def test_a_certificate_that_is_not_to_be_trusted_is_refused_unless_nothing_is_checked(
    spoken: Spoken, shown: str
) -> None:
    spoken.tls.show(getattr(spoken.known, shown))
    ca = str(spoken.known.ours.ca)
    assert [type(spoken.refusal(ca=ca, verify=verify)) for verify in (True, "ca")] == [DatabaseUntrusted] * 2
    assert spoken.version(mode="require") != ""


def test_the_name_is_looked_at_or_not_as_it_was_said(spoken: Spoken) -> None:
    spoken.tls.show(spoken.known.of_another_name)
    ca = str(spoken.known.ours.ca)
    error = spoken.refusal(ca=ca)
    assert (type(error), "localhost" in error.detail) == (DatabaseUntrusted, True)
    assert spoken.version(ca=ca, verify="ca") != ""


def test_without_authorities_of_its_own_those_of_the_system_decide(
    spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(spoken.known.theirs.ca))
    assert type(spoken.refusal(verify=True)) is DatabaseUntrusted
    monkeypatch.setenv("SSL_CERT_FILE", str(spoken.known.ours.ca))
    assert spoken.version(verify=True) != ""


def test_a_file_that_has_gone_since_the_start_is_told(spoken: Spoken) -> None:
    error = spoken.refusal(ca="/nonexistent/ca.pem")
    assert (type(error), "ca" in error.detail) == (DatabaseUntrusted, True)


# -- servers that have no TLS, or demand more --------------------------------------------------------------------------


def test_a_mariadb_without_tls_is_refused_where_it_is_demanded(
    mariadb_template: MariaDBTemplate, authorities: Authorities
) -> None:
    with MariaDBServer(mariadb_template, long_query_time=10.0) as server:  # without a certificate it speaks none
        plain = Spoken(authorities, server, NoTls(), server.monitor(), speak_mysql)
        refused_without_tls(plain)


def test_a_mysql_without_tls_is_refused_where_it_is_demanded(mysql_tls: Spoken) -> None:
    tls = mysql_tls.tls
    assert isinstance(tls, SlowLogTls)
    assert mysql_tls.version() != ""  # without TLS it takes the password only from whom it has seen with TLS
    tls.lose()
    try:
        refused_without_tls(mysql_tls)
    finally:
        tls.show(mysql_tls.known.good)


def test_a_postgres_that_was_built_without_tls_is_refused_where_it_is_demanded(
    postgres18: WatchedPostgres, authorities: Authorities
) -> None:
    """That of the wheel."""
    plain = Spoken(authorities, postgres18, NoTls(), postgres18.monitor(), speak_postgres)
    refused_without_tls(plain)


def refused_without_tls(spoken: Spoken) -> None:
    assert spoken.version() == ""  # control: it is there
    for tls in ({"mode": "require"}, {"ca": str(spoken.known.ours.ca)}):
        error = spoken.refusal(**tls)
        told = re.search("offers no TLS|server does not support SSL", error.detail) is not None
        assert (type(error), told) == (DatabaseUntrusted, True)


def test_a_postgres_without_tls_is_refused_where_it_is_demanded(postgres_tls: Spoken) -> None:
    tls = postgres_tls.tls
    assert isinstance(tls, PostgresTls)
    tls.switch(on=False)
    try:
        refused_without_tls(postgres_tls)
    finally:
        tls.switch(on=True)


def test_a_server_that_demands_tls_is_told_as_such(slow_log_tls: Spoken) -> None:
    assert slow_log_tls.version() != ""
    slow_log_tls.server.execute("SET GLOBAL require_secure_transport=ON")
    try:
        error = slow_log_tls.refusal(mode="disable")
        if isinstance(slow_log_tls.server, MySQLServer):
            assert (type(error), "demands TLS" in error.detail) == (DatabaseUntrusted, True), error
        else:
            assert type(error) is LoginRefused, "MariaDB does not say why"
    finally:
        slow_log_tls.server.execute("SET GLOBAL require_secure_transport=OFF")


def test_a_client_certificate_is_shown_to_a_slow_log_server(slow_log_tls: Spoken) -> None:
    server = slow_log_tls.server
    pair = slow_log_tls.known.foreign
    server.execute("ALTER USER 'monitoring'@'%' REQUIRE X509")
    try:
        assert type(slow_log_tls.refusal(mode="require")) is LoginRefused
        assert slow_log_tls.version(mode="require", cert=str(pair.cert), key=str(pair.key)) != ""
        assert slow_log_tls.version(cert=str(pair.cert), key=str(pair.key)) != ""
        if not isinstance(server, MySQLServer):
            stranger = slow_log_tls.known.good  # MariaDB does not know who has signed it
            assert isinstance(slow_log_tls.refusal(cert=str(stranger.cert), key=str(stranger.key)), SourceError)
    finally:
        server.execute("ALTER USER 'monitoring'@'%' REQUIRE NONE")


def test_a_client_certificate_is_shown_to_postgres(postgres_tls: Spoken, tmp_path: Path) -> None:
    tls = postgres_tls.tls
    assert isinstance(tls, PostgresTls)
    postgres_tls.server.execute("DROP ROLE IF EXISTS strict")
    postgres_tls.server.execute("CREATE ROLE strict LOGIN PASSWORD 'strict-password'")
    tls.demand_certificates("strict")
    pair, who = postgres_tls.known.foreign, {"user": "strict", "password": "strict-password"}
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(pair.cert.read_bytes())
    key.touch(0o600)
    key.write_bytes(pair.key.read_bytes())
    error = postgres_tls.refusal(mode="require", more=who)
    assert (type(error), "client certificate" in error.detail) == (DatabaseUntrusted, True), error
    assert postgres_tls.version(mode="require", cert=str(cert), key=str(key), more=who) != ""
    both = tmp_path / "both.pem"
    both.touch(0o600)
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    assert postgres_tls.version(mode="require", cert=str(both), more=who) != ""
    key.chmod(0o644)
    error = postgres_tls.refusal(mode="require", cert=str(cert), key=str(key), more=who)
    assert (type(error), "group or world access" in error.detail) == (DatabaseUntrusted, True), error


def test_a_postgres_of_tls_1_1_is_refused(postgres_tls: Spoken) -> None:
    tls = postgres_tls.tls
    assert isinstance(tls, PostgresTls)
    tls.limit("TLSv1.1")
    try:
        error = postgres_tls.refusal(mode="require")
        assert (type(error), "speaks no TLS 1.2" in error.detail) == (DatabaseUntrusted, True), error
        assert postgres_tls.version() == "", "preferred is what falls back to no TLS at all"
    finally:
        tls.limit("")


# -- what libpq was told before ----------------------------------------------------------------------------------------


def test_what_the_environment_demanded_of_postgres_before_still_holds(
    postgres_tls: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = postgres_tls.known

    def with_environment(**tls: Any) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("PGSSLMODE", "verify-full")
            patch.setenv("PGSSLROOTCERT", str(known.ours.ca))
            return postgres_tls.version(**tls)

    assert with_environment() != ""
    postgres_tls.tls.show(known.of_another_name)
    with pytest.raises(DatabaseUntrusted, match="does not match host name"):
        with_environment()
    assert with_environment(mode="prefer") != "", "what is said in the configuration wins"
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert "root certificate file" in postgres_tls.refusal().detail
