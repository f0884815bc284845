"""A real PostgreSQL that is watched: the user an agent gets, and statements with known numbers of calls."""

import secrets
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver's class has a small letter

from agent.dev.postgres import PostgresServer

COUNTERS_SQL = """
SELECT s.query, s.calls, s.total_exec_time, s.rows, d.datname
FROM pg_stat_statements s LEFT JOIN pg_database d ON d.oid = s.dbid
WHERE starts_with(s.query, %s) ORDER BY s.query, d.datname
"""


@dataclass(frozen=True, slots=True)
class Counter:
    """What the server itself counted for one statement."""

    query: str
    calls: int
    total_time_ms: float
    rows: int
    database: str | None


def shape(name: str, sleep_s: float = 0.0) -> str:
    """A statement that is counted apart from those of other names.

    Constants, comments and names of columns do not tell two statements apart; the name of a WITH item does.
    """
    return f"WITH {name} AS (SELECT pg_sleep({sleep_s})) SELECT * FROM {name}"


class WatchedPostgres(PostgresServer):
    """A PostgresServer with the user `monitoring` and ways to make it busy."""

    def __init__(self, bin_dir: Path, *, settings: dict[str, str] | None = None) -> None:
        super().__init__(bin_dir, settings=settings)
        self._monitor_password = secrets.token_hex(12)

    @property
    def bin_dir(self) -> Path:
        """The programs that it runs, where its account can reach them."""
        return self._bin_dir

    def move_to(self, port: int) -> None:
        """It listens there from its next start on."""
        self.port = port
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {port}\n")

    def admin(self, database: str = "postgres") -> Connection:
        """As the superuser, with autocommit. To be closed by the caller (contextlib.closing)."""
        return self.connect(database)

    def execute(
        self, statement: str, values: tuple[Any, ...] = (), *, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """One statement as the superuser; gives its rows, none for a statement without."""
        with closing(self.admin(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def monitor(self, database: str = "postgres") -> dict[str, Any]:
        """The user an agent should have, anew, and the extension in `database`; gives its db_config."""
        self.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", database=database)
        if self.execute("SELECT 1 FROM pg_roles WHERE rolname = 'monitoring'"):
            self.execute("DROP ROLE monitoring")
        self.execute("CREATE ROLE monitoring LOGIN PASSWORD %s", (self._monitor_password,))
        self.execute("GRANT pg_read_all_stats TO monitoring")
        return {
            "host": self.host,
            "port": self.port,
            "user": "monitoring",
            "password": self._monitor_password,
            "database": database,
        }

    def slow_workload(self, name: str, calls: int = 1, *, sleep_s: float = 0.01, database: str = "postgres") -> str:
        """Runs `shape(name)` that often in one session; gives the text as the server stores it."""
        with closing(self.admin(database)) as connection, connection.cursor() as cursor:
            for _ in range(calls):
                cursor.execute(shape(name, sleep_s))
        return shape(name).replace("0.0", "$1")

    def counters(self, name: str) -> list[Counter]:
        """What the server counted for `shape(name)`, one for each database in which it ran."""
        return [Counter(*row) for row in self.execute(COUNTERS_SQL, (f"WITH {name} AS ",))]

    def reset(self) -> None:
        """Forgets all counters."""
        self.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self.execute("SELECT pg_stat_statements_reset()")
