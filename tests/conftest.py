"""The servers and the habits all tests share.

The servers are started once for all tests, so a test that takes one must leave it usable: `clean_mariadb`,
`clean_mysql` and `clean_postgres` start from an empty log and mend what an earlier test broke (frozen, killed).
What is not there skips its tests; in CI that is allowed only to what scripts/servers may fail to get.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from agent.dev.postgres import system_bin_dirs, wheel_bin_dir
from agent.dev.server_process import DevServerError
from agent.logs import LOGGER
from tests.fakes.pipe import Pipe
from tests.fakes.stub_backend import StubBackend
from tests.servers import beside
from tests.servers.authority import Authorities
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate
from tests.servers.mysql import MySQLServer, MySQLTemplate
from tests.servers.postgres import WatchedPostgres
from tests.servers.slow_log_server import SlowLogServer

THREAD_GRACE_S = 2.0

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        # As a shell or nohup does to what it starts in the background; the programs of the tests would inherit it.
        signal.signal(number, usual)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, max_examples=100)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


def _cannot_be_had(reason: object) -> None:
    """Fails where all servers must be there (CI=true); elsewhere the tests that need this one are skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every server: {reason}", pytrace=False)
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def mariadb_template() -> Iterator[MariaDBTemplate]:
    """For tests that need a MariaDB of their own: `MariaDBServer(mariadb_template, ...)` starts in 0.3 s."""
    try:
        template = MariaDBTemplate()
    except DevServerError as missing:
        _cannot_be_had(missing)
        raise
    with template:
        yield template


@pytest.fixture(scope="session")
def mariadb(mariadb_template: MariaDBTemplate) -> Iterator[MariaDBServer]:
    """Logs only what asks for it (long_query_time 10 s): `slow` and `fill` give exactly their rows."""
    with MariaDBServer(mariadb_template, long_query_time=10.0) as server:
        yield server


@pytest.fixture
def clean_mariadb(mariadb: MariaDBServer) -> MariaDBServer:
    """The shared MariaDB, running, with an empty slow log."""
    _clean(mariadb)
    return mariadb


@pytest.fixture(scope="session")
def mysql_template() -> Iterator[MySQLTemplate]:
    """Oracle's. It is skipped, in CI too, when scripts/servers could not get it."""
    try:
        template = MySQLTemplate()
    except DevServerError as missing:
        pytest.skip(str(missing))
    with template:
        yield template


@pytest.fixture(scope="session")
def mysql(mysql_template: MySQLTemplate) -> Iterator[MySQLServer]:
    """As `mariadb`."""
    with MySQLServer(mysql_template, long_query_time=10.0) as server:
        yield server


@pytest.fixture
def clean_mysql(mysql: MySQLServer) -> MySQLServer:
    """The shared MySQL, running, with an empty slow log."""
    _clean(mysql)
    return mysql


@pytest.fixture(params=["clean_mariadb", "clean_mysql"])
def clean_slow_log(request: pytest.FixtureRequest) -> SlowLogServer:
    """Each of the two in turn, running, with an empty slow log."""
    server = request.getfixturevalue(request.param)
    assert isinstance(server, SlowLogServer)
    return server


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """Certificates of all kinds, real ones."""
    return Authorities(tmp_path_factory.mktemp("authorities"))


def _clean(server: SlowLogServer) -> None:
    server.thaw()
    if server.pid is None:
        server.start()
    server.truncate()


def _postgres(bin_dir: Path) -> Iterator[WatchedPostgres]:
    try:
        server = WatchedPostgres(bin_dir)
        server.__enter__()
    except DevServerError as missing:
        _cannot_be_had(missing)
        raise
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres15() -> Iterator[WatchedPostgres]:
    """The distribution's 15, or the one beside, or the distribution's oldest. Without one it is skipped, in CI too."""
    found = [path for path in system_bin_dirs() if path.parent.name == "15"]
    if beside.POSTGRES15.is_there:
        found.append(beside.POSTGRES15.bin_dir)
    found += system_bin_dirs()
    if not found:
        pytest.skip("there is no PostgreSQL 15 (scripts/servers gets it, or says why not)")
    yield from _postgres(found[0])


@pytest.fixture(scope="session")
def postgres17() -> Iterator[WatchedPostgres]:
    """The one beside. It is skipped, in CI too, when scripts/servers could not get it."""
    if not beside.POSTGRES17.is_there:
        pytest.skip("there is no PostgreSQL 17 (scripts/servers gets it, or says why not)")
    yield from _postgres(beside.POSTGRES17.bin_dir)


@pytest.fixture(scope="session")
def postgres18() -> Iterator[WatchedPostgres]:
    """The one from the wheel."""
    try:
        bin_dir = wheel_bin_dir()
    except DevServerError as missing:
        _cannot_be_had(missing)
        raise
    yield from _postgres(bin_dir)


@pytest.fixture(scope="session", params=["postgres15", "postgres17", "postgres18"])
def postgres(request: pytest.FixtureRequest) -> WatchedPostgres:
    """Each of the three in turn."""
    server = request.getfixturevalue(request.param)
    assert isinstance(server, WatchedPostgres)
    return server


@pytest.fixture
def clean_postgres(postgres: WatchedPostgres) -> WatchedPostgres:
    """Each of the three in turn, running, with all counters at zero."""
    postgres.thaw()
    if postgres.pid is None:
        postgres.start()
    postgres.reset()
    return postgres


@pytest.fixture
def second_mariadb(mariadb_template: MariaDBTemplate) -> Iterator[MariaDBServer]:
    """One more, of this test alone."""
    with MariaDBServer(mariadb_template, long_query_time=10.0) as server:
        yield server


@pytest.fixture
def stub() -> Iterator[StubBackend]:
    """A backend that does what the test tells it, and remembers what it got."""
    with StubBackend() as backend:
        yield backend


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe of the smallest size, as somebody's standard error."""
    made = Pipe()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A thread that is no daemon keeps the process alive; the test that left it is the one that fails."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(THREAD_GRACE_S)
    still = [thread.name for thread in left if thread.is_alive()]
    assert still == [], f"threads left behind: {still}"


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """Whatever a test says through the log ends with it: the log is as it was before, and no thread of it is left."""
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    last_resort = logging.lastResort
    yield
    for handler in LOGGER.handlers:
        if handler not in handlers:
            handler.close()
    LOGGER.handlers[:], LOGGER.propagate, logging.lastResort = handlers, propagate, last_resort
    LOGGER.setLevel(level)
    logging.captureWarnings(capture=False)
