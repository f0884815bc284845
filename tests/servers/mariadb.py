"""A real MariaDB with a slow log table, and ways to put known rows into it. Nothing here reads like the agent does."""

import contextlib
import secrets
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pymysql
from pymysql.constants import CLIENT

from agent.dev.server_process import HOST, DevServerError, ServerProcess, free_port

if TYPE_CHECKING:  # the class takes a parameter only in its stubs
    Connection = pymysql.connections.Connection[pymysql.cursors.Cursor]

# The install must know the size of the log file, or the first start makes a new one.
SMALL = (
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=4M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
)
NEVER_S = 31_536_000
BATCH = 1_000

# Bootstrap runs with --skip-grant-tables; FLUSH ends that. What remains is root over TCP with a password.
SECURE_SQL = """FLUSH PRIVILEGES;
ALTER USER root@127.0.0.1 IDENTIFIED BY '{password}';
DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> '127.0.0.1');
"""
# This keeps a statement itself out of the log, and out of the server's count: with slow_query_log=OFF it is counted.
UNSEEN = "SET STATEMENT min_examined_row_limit=18446744073709551615 FOR"
LOG_ALL_SQL = f"{UNSEEN} SET SESSION long_query_time=0"
LOG_NOTHING_SQL = f"SET SESSION long_query_time={NEVER_S}"
CSV_ROW = (
    '"{start}","filler[filler] @ localhost []","00:00:01.{micros:06d}","00:00:00.000000",1,0,"",0,0,1,'
    '"SELECT /* {tag} */ 1",77,0\n'
)


def tag(number: int) -> str:
    """The mark of the statement with that number, as it appears in its text: `SELECT /* tag-000007 */ 1`."""
    return f"tag-{number:06d}"


def tool(name: str) -> str:
    """The path of a MariaDB program; Debian keeps the server where the PATH of a user does not look."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/libexec")
    if found is None:
        raise DevServerError(f"{name} is missing (Debian: apt-get install mariadb-server-core mariadb-client-core)")
    return found


class MariaDBTemplate:
    """A data directory made once and copied for every server: the install takes 1.3 s, the copy 0.1 s."""

    def __init__(self) -> None:
        install = tool("mariadb-install-db")
        tool("mariadbd")
        self.password = secrets.token_hex(12)
        self._place = ServerProcess("dbpower-mariadb-template")
        self.data = self._place.directory / "data"
        try:
            self._install(install)
        except BaseException:
            self.close()
            raise

    def _install(self, install: str) -> None:
        self.data.mkdir()
        self._place.own(self.data, 0o700)
        sql = self._place.directory / "secure.sql"
        sql.write_text(SECURE_SQL.format(password=self.password))
        self._place.own(sql, 0o600)
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        self._place.run([install, "--no-defaults", f"--datadir={self.data}", *options, *SMALL, f"--extra-file={sql}"])
        sql.unlink()

    def close(self) -> None:
        self._place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class MariaDBServer:
    """A MariaDB on 127.0.0.1 that logs to mysql.slow_log: `with MariaDBServer(template) as server:`."""

    def __init__(self, template: MariaDBTemplate, *, long_query_time: float = 0.0, options: Sequence[str] = ()) -> None:
        self.host, self.port = HOST, free_port()
        self.user, self.password = "root", template.password
        self._template = template
        self._server = ServerProcess("dbpower-mariadb")
        self.directory = self._server.directory
        self.data = self.directory / "data"
        self._options = [f"--long-query-time={long_query_time}", *options]
        self._monitor_password = secrets.token_hex(12)

    def start(self) -> None:
        """Returns when it answers; copies the template the first time."""
        if not self.data.exists():
            self._server.run([tool("cp"), "-a", self._template.data, self.data])
        argv = [
            tool("mariadbd"), "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.data}",
            f"--bind-address={self.host}", f"--port={self.port}", f"--socket={self.directory}/socket",
            f"--pid-file={self.data}/pid", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF",
            "--key-buffer-size=1M", "--aria-pagecache-buffer-size=8M", "--slow-query-log=ON",
            "--log-output=TABLE", *SMALL, *self._options,
        ]  # fmt: skip
        self._server.start(argv, self._answers)

    def stop(self) -> None:
        self._server.stop(signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        self._server.kill()

    def freeze(self) -> None:
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()

    @property
    def pid(self) -> int | None:
        """Of the running server; None when it does not run."""
        return self._server.pid

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def root(self) -> "Connection":
        """As the administrator, with autocommit; several statements at once are allowed."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            autocommit=True,
            connect_timeout=5,
            read_timeout=60,
            client_flag=CLIENT.MULTI_STATEMENTS,
        )

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """As the administrator, outside of the slow log; gives the rows of the last statement."""
        with self._session() as cursor:
            cursor.execute(f"{UNSEEN} {LOG_NOTHING_SQL}")
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def create_user(self, name: str, password: str, grants: Iterable[str]) -> None:
        """Anew, from any host; a grant is written like `SELECT ON mysql.slow_log`."""
        self.execute(
            f"CREATE OR REPLACE USER '{name}'@'%' IDENTIFIED BY '{password}'",
            *(f"GRANT {grant} TO '{name}'@'%'" for grant in grants),
        )

    def monitor(self) -> dict[str, Any]:
        """The user an agent should have, with the one grant it needs; gives its db_config."""
        self.create_user("monitoring", self._monitor_password, ["SELECT ON mysql.slow_log"])
        return {
            "host": self.host,
            "port": self.port,
            "user": "monitoring",
            "password": self._monitor_password,
        }

    def slow(self, count: int, *, first: int = 0, sleep_s: float = 0.0, time_zone: str | None = None) -> list[str]:
        """Runs `count` statements, each of which becomes one row; gives their texts in order.

        Takes 25 us a row. `time_zone` is that of the client, which stamps the rows with it.
        """
        result = f"SLEEP({sleep_s})" if sleep_s else "1"
        texts = [f"SELECT /* {tag(number)} */ {result}" for number in range(first, first + count)]
        with self._session() as cursor:
            if time_zone is not None:
                cursor.execute(f"{UNSEEN} SET SESSION time_zone='{time_zone}'")
            cursor.execute(LOG_ALL_SQL)
            for at in range(0, count, BATCH):
                cursor.execute(";".join(texts[at : at + BATCH]))
                while cursor.nextset():
                    pass
            cursor.execute(LOG_NOTHING_SQL)
        return texts

    def fill(self, count: int, *, first: int = 0) -> None:
        """Appends rows to the file of the table while nothing is logged: 1,000,000 in a few seconds."""
        on = self.execute("SELECT @@GLOBAL.slow_query_log")[0][0]
        self.execute("SET GLOBAL slow_query_log=OFF", "FLUSH TABLES mysql.slow_log")
        began = datetime(2026, 1, 1)  # noqa: DTZ001 - the table knows no zones
        with (self.data / "mysql" / "slow_log.CSV").open("a") as rows:
            for number in range(first, first + count):
                start = (began + timedelta(milliseconds=number)).strftime("%Y-%m-%d %H:%M:%S.%f")
                rows.write(CSV_ROW.format(start=start, micros=number % 1_000_000, tag=tag(number)))
        self.execute("FLUSH TABLES mysql.slow_log", f"SET GLOBAL slow_query_log={on}")

    def count(self) -> int:
        """Rows in the slow log now."""
        return int(self.execute("SELECT COUNT(*) FROM mysql.slow_log")[0][0])

    def texts(self) -> list[str]:
        """The statements in the slow log, in the order of the table."""
        return [str(row[0]) for row in self.execute("SELECT sql_text FROM mysql.slow_log")]

    def truncate(self) -> None:
        """Empties the slow log; mends it first when a crash marked it so."""
        try:
            self.execute("TRUNCATE TABLE mysql.slow_log")
        except pymysql.Error:
            self.execute("REPAIR TABLE mysql.slow_log", "TRUNCATE TABLE mysql.slow_log")

    @contextlib.contextmanager
    def _session(self) -> Iterator[pymysql.cursors.Cursor]:
        with contextlib.closing(self.root()) as connection, connection.cursor() as cursor:
            yield cursor

    def _answers(self) -> bool:
        with contextlib.suppress(pymysql.OperationalError):
            self.root().close()
            return True
        return False
