"""What MariaDB and MySQL have in common as servers with a slow log table, and ways to put known rows into it.

Nothing here reads like the agent does.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pymysql
from pymysql.constants import CLIENT

from agent.dev.server_process import HOST, ServerProcess, free_port

if TYPE_CHECKING:  # the class takes a parameter only in its stubs
    Connection = pymysql.connections.Connection[pymysql.cursors.Cursor]

NEVER_S = 31_536_000
LOG_NOTHING_SQL = f"SET SESSION long_query_time={NEVER_S}"
BATCH = 1_000


def tag(number: int) -> str:
    """The mark of the statement with that number, as it appears in its text: `SELECT /* tag-000007 */ 1`."""
    return f"tag-{number:06d}"


class Template:
    """A data directory made once and copied for every server. `user`, `password`: its administrator."""

    user = "root"

    def __init__(self, label: str) -> None:
        self.password = secrets.token_hex(12)
        self.place = ServerProcess(f"{label}-template")
        self.data = self.place.directory / "data"
        try:
            self.data.mkdir()
            self.place.own(self.data, 0o700)
            self._install()
        except BaseException:
            self.close()
            raise

    def _install(self) -> None:
        raise NotImplementedError

    def _script(self, sql: str) -> Path:
        """A file with these statements for the server alone."""
        path = self.place.directory / "secure.sql"
        path.write_text(sql)
        return self.place.own(path, 0o600)

    def close(self) -> None:
        self.place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class SlowLogServer:
    """A server on 127.0.0.1 that logs to mysql.slow_log: `with MariaDBServer(template) as server:`."""

    flavour: ClassVar[str]
    stamps_start: ClassVar[bool]  # start_time is the start of the statement, not its end
    quiet_sql: ClassVar[str]  # what this session runs from here on is not logged; nor is this itself
    log_all_sql: ClassVar[str]  # from here on each SELECT is; this itself is not
    csv_row: ClassVar[str]

    def __init__(self, template: Template, *, long_query_time: float = 0.0, options: Sequence[str] = ()) -> None:
        self.host, self.port = HOST, free_port()
        self.user, self.password = template.user, template.password
        self._template = template
        self._server = ServerProcess(f"dbpower-{self.flavour}")
        self.directory = self._server.directory
        self.data = self.directory / "data"
        self._options = [f"--long-query-time={long_query_time}", *options]
        self._monitor_password = secrets.token_hex(12)

    def start(self) -> None:
        """Returns when it answers; copies the template the first time."""
        if not self.data.exists():
            self._server.run(["cp", "-a", self._template.data, self.data])
        common = [
            f"--datadir={self.data}", f"--tmpdir={self.data}", f"--bind-address={self.host}", f"--port={self.port}",
            f"--socket={self.directory}/socket", f"--pid-file={self.data}/pid", "--skip-name-resolve",
            "--skip-log-bin", "--performance-schema=OFF", "--key-buffer-size=1M", "--slow-query-log=ON",
            "--log-output=TABLE",
        ]  # fmt: skip
        self._server.start([*self._program(), *common, *self._options], self._answers)

    def _program(self) -> list[str | Path]:
        """The server's program and the options of its kind."""
        raise NotImplementedError

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

    def root(self) -> Connection:
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
            cursor.execute(self.quiet_sql)
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def create_user(self, name: str, password: str, grants: Iterable[str]) -> None:
        """Anew, from any host; a grant is written like `SELECT ON mysql.slow_log`."""
        self.execute(
            f"DROP USER IF EXISTS '{name}'@'%'",
            f"CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'",
            *(f"GRANT {grant} TO '{name}'@'%'" for grant in grants),
        )

    def monitor(self, grants: Iterable[str] = ("SELECT ON mysql.slow_log",)) -> dict[str, Any]:
        """The user an agent should have, with the one grant it needs (or with `grants`); gives its db_config."""
        self.create_user("monitoring", self._monitor_password, grants)
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
            cursor.execute(self.quiet_sql)
            if time_zone is not None:
                cursor.execute(f"SET SESSION time_zone='{time_zone}'")
            cursor.execute(self.log_all_sql)
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
                rows.write(self.csv_row.format(start=start, micros=number % 1_000_000, tag=tag(number)))
        self.execute("FLUSH TABLES mysql.slow_log", f"SET GLOBAL slow_query_log={on}")

    def count(self) -> int:
        """Rows in the slow log now."""
        return int(self.execute("SELECT COUNT(*) FROM mysql.slow_log")[0][0])

    def texts(self) -> list[str]:
        """The statements in the slow log, in the order of the table."""
        return [str(row[0]) for row in self.execute("SELECT CONVERT(sql_text USING utf8mb4) FROM mysql.slow_log")]

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
