"""A real MySQL, Oracle's, unpacked beside the system by scripts/servers."""

from __future__ import annotations

from pathlib import Path

from agent.dev.server_process import DevServerError
from tests.servers.beside import MYSQL
from tests.servers.slow_log_server import LOG_NOTHING_SQL, SlowLogServer, Template

SMALL = (
    "--innodb-buffer-pool-size=32M",
    "--innodb-redo-log-capacity=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=OFF",
    "--secure-file-priv=NULL",  # the packaged default is a directory of the installed server
)
SECURE_SQL = """CREATE USER root@127.0.0.1 IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO root@127.0.0.1 WITH GRANT OPTION;
DROP USER root@localhost;
"""


def program() -> list[str | Path]:
    """mysqld and where it finds what belongs to it."""
    root = MYSQL.root
    if not MYSQL.is_there:
        raise DevServerError("MySQL was not unpacked beside the system (scripts/servers does it, or says why not)")
    share = root / "usr/share/mysql"
    places = [f"--basedir={root}/usr", f"--lc-messages-dir={share}", f"--character-sets-dir={share}/charsets"]
    return [MYSQL.bin_dir / "mysqld", "--no-defaults", *places, *SMALL]


class MySQLTemplate(Template):
    """The install takes 5 s, a copy 0.2 s."""

    def __init__(self) -> None:
        self._program = program()
        super().__init__("dbpower-mysql")

    def _install(self) -> None:
        if not self.place.within_reach(MYSQL.root):
            raise DevServerError(f"the account of the test servers cannot enter {MYSQL.root}")
        sql = self._script(SECURE_SQL.format(password=self.password))
        self.place.run([*self._program, "--initialize-insecure", f"--datadir={self.data}", f"--init-file={sql}"])
        sql.unlink()


class MySQLServer(SlowLogServer):
    """A MySQL; starts in 1.3 s. Statements that examine no row (SET, DDL) are not logged by `log_all_sql`."""

    flavour = "mysql"
    stamps_start = False
    quiet_sql = LOG_NOTHING_SQL
    # There is no SET STATEMENT: a limit that a SET does not reach, and `SELECT 1` does, keeps it out of the log.
    log_all_sql = "SET SESSION long_query_time=0, min_examined_row_limit=1"
    csv_row = (
        '"{start}","filler[filler] @ localhost []","00:00:01.{micros:06d}","00:00:00.000000",1,0,"",0,0,1,'
        '"SELECT /* {tag} */ 1",77\n'
    )

    def _program(self) -> list[str | Path]:
        return [*program(), "--mysqlx=OFF"]
