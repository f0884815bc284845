"""A real MariaDB, that of the distribution."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.dev.server_process import DevServerError
from tests.servers.slow_log_server import LOG_NOTHING_SQL, SlowLogServer, Template

# The install must know the size of the log file, or the first start makes a new one.
SMALL = (
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=4M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
)

# Bootstrap runs with --skip-grant-tables; FLUSH ends that. What remains is root over TCP with a password.
SECURE_SQL = """FLUSH PRIVILEGES;
ALTER USER root@127.0.0.1 IDENTIFIED BY '{password}';
DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> '127.0.0.1');
"""
# This keeps a statement itself out of the log, and out of the server's count: with slow_query_log=OFF it is counted.
UNSEEN = "SET STATEMENT min_examined_row_limit=18446744073709551615 FOR"


def tool(name: str) -> str:
    """The path of a MariaDB program; Debian keeps the server where the PATH of a user does not look."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/libexec")
    if found is None:
        raise DevServerError(f"{name} is missing (Debian: apt-get install mariadb-server-core mariadb-client-core)")
    return found


class MariaDBTemplate(Template):
    """The install takes 1.3 s, a copy 0.1 s."""

    def __init__(self) -> None:
        self._installer = tool("mariadb-install-db")
        tool("mariadbd")
        super().__init__("dbpower-mariadb")

    def _install(self) -> None:
        sql = self._script(SECURE_SQL.format(password=self.password))
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        argv = [self._installer, "--no-defaults", f"--datadir={self.data}", *options, *SMALL, f"--extra-file={sql}"]
        self.place.run(argv)
        sql.unlink()


class MariaDBServer(SlowLogServer):
    """A MariaDB; starts in 0.3 s."""

    flavour = "mariadb"
    stamps_start = True
    quiet_sql = f"{UNSEEN} {LOG_NOTHING_SQL}"
    log_all_sql = f"{UNSEEN} SET SESSION long_query_time=0"
    csv_row = (
        '"{start}","filler[filler] @ localhost []","00:00:01.{micros:06d}","00:00:00.000000",1,0,"",0,0,1,'
        '"SELECT /* {tag} */ 1",77,0\n'
    )

    def _program(self) -> list[str | Path]:
        return [tool("mariadbd"), "--no-defaults", "--aria-pagecache-buffer-size=8M", *SMALL]
