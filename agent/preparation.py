"""What an administrator has to say to a database server so that the agent can read it: exact statements and settings,
by kind, version and provider. Pure text: runs nothing, and holds no password."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from agent import source_errors

Provider = Literal["own", "rds", "aurora", "cloudsql"]
PASSWORD = "<the password>"  # noqa: S105 - stands where a person fills it in
LONG_QUERY_TIME_S = 0.5

_ENDINGS: tuple[tuple[str, Provider], ...] = ((".rds.amazonaws.com", "rds"), (".rds.amazonaws.com.cn", "rds"))
_PLACES: dict[Provider, str] = {
    "rds": "the parameter group of the instance (Amazon RDS)",
    "aurora": "the parameter group of the cluster (Amazon Aurora)",
    "cloudsql": "the database flags of the instance (Cloud SQL)",
}
_LOGIN = {source_errors.LoginRefused.code}


@dataclass(frozen=True, slots=True)
class Server:
    """What is to be prepared. `version`: as it names itself, empty while nobody knows; `database`: of PostgreSQL."""

    db_type: str
    version: str
    user: str
    database: str
    provider: Provider = "own"

    @property
    def is_mariadb(self) -> bool:
        """Whether it calls itself so."""
        return "mariadb" in self.version.lower()

    @property
    def major(self) -> int:
        """The first number of the version, 0 while nobody knows."""
        digits = self.version.split(".", maxsplit=1)[0]
        return int(digits) if digits.isdecimal() else 0

    @property
    def keeps_variables(self) -> bool:
        """Whether SET PERSIST exists: in MySQL from 8.0 on."""
        return not self.is_mariadb and self.major >= 8


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to be done. `why`: a heading; `text`: lines to be copied; `restarts`: whether the server has to."""

    why: str
    text: str
    restarts: bool = False


def provider_of(host: str, version: str) -> Provider:
    """Whose server that is, as far as its name or version tells."""
    name = host.lower().rstrip(".")
    found = next((provider for ending, provider in _ENDINGS if name.endswith(ending)), None)
    if found == "rds" and ".cluster-" in name:
        return "aurora"
    return found or ("cloudsql" if "-google" in version.lower() else "own")


def steps(server: Server, codes: Collection[str]) -> tuple[Step, ...]:
    """What is to be done when the agent meets the errors with these codes; nothing when none of them is of its kind."""
    make = _mysql if server.db_type == "mysql" else _postgres
    return tuple(make(server, set(codes)))


# -- MySQL and MariaDB -------------------------------------------------------------------------------------------------


def _mysql(server: Server, codes: set[str]) -> Iterator[Step]:
    who = f"{_quoted(server.user)}@'%'"
    lacks_user = bool(codes & _LOGIN)
    if lacks_user or source_errors.SlowLogNotGranted.code in codes:
        lines = [f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY '{PASSWORD}';"] if lacks_user else []
        yield Step("Let the agent read the slow log", "\n".join([*lines, f"GRANT SELECT ON mysql.slow_log TO {who};"]))
    if lacks_user or codes & {source_errors.SlowLogOff.code, source_errors.SlowLogNarrow.code}:
        yield _switch_on(server)
    if source_errors.SlowLogCrashed.code in codes:
        text = "SET GLOBAL slow_query_log = OFF;\nREPAIR TABLE mysql.slow_log;\nSET GLOBAL slow_query_log = ON;"
        yield Step("Repair the slow log", text)


def _switch_on(server: Server) -> Step:
    values = {"slow_query_log": "ON", "log_output": "TABLE", "long_query_time": f"{LONG_QUERY_TIME_S:g}"}
    if server.provider in _PLACES:
        values["slow_query_log"] = "on" if server.provider == "cloudsql" else "1"
        return Step("Let the server write the slow log to its table", _in_place(server.provider, values))
    word = "PERSIST" if server.keeps_variables else "GLOBAL"
    quoted = {**values, "log_output": "'TABLE'"}
    lines = [f"SET {word} {name} = {value};" for name, value in quoted.items()]
    if not server.keeps_variables:
        lines.append("-- and in my.cnf below [mysqld], for the next restart:")
        lines += [f"--   {name} = {value}" for name, value in values.items()]
    return Step("Let the server write the slow log to its table", "\n".join(lines))


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def _postgres(server: Server, codes: set[str]) -> Iterator[Step]:
    role, lacks_user = _identifier(server.user), bool(codes & _LOGIN)
    if lacks_user or source_errors.StatementsNotLoaded.code in codes:
        yield _load(server)
    if lacks_user or source_errors.StatementsNotCreated.code in codes:
        text = f"\\connect {_identifier(server.database)}\nCREATE EXTENSION IF NOT EXISTS pg_stat_statements;"
        yield Step(f"Create the extension in the database {server.database}", text)
    if lacks_user or source_errors.StatementsNotGranted.code in codes:
        lines = [f"CREATE USER {role} WITH PASSWORD '{PASSWORD}';"] if lacks_user else []
        lines += [f"-- or, if it is there: ALTER USER {role} WITH PASSWORD '{PASSWORD}';"] if lacks_user else []
        yield Step("Let the agent read the statistics", "\n".join([*lines, f"GRANT pg_read_all_stats TO {role};"]))
    if source_errors.StatementsNotCounted.code in codes:
        yield _count(server)


def _load(server: Server) -> Step:
    why = "Load pg_stat_statements, which needs a restart of the server"
    if server.provider == "cloudsql":
        return Step("pg_stat_statements is loaded by Cloud SQL itself", _in_place("cloudsql", _TRACK), restarts=True)
    if server.provider in _PLACES:
        values = {"shared_preload_libraries": "pg_stat_statements", **_TRACK}
        return Step(why, _in_place(server.provider, values), restarts=True)
    text = (
        "-- in postgresql.conf; what shared_preload_libraries names already stays in front, with commas between:\n"
        "shared_preload_libraries = 'pg_stat_statements'\n"
        "pg_stat_statements.track = all"
    )
    return Step(why, text, restarts=True)


_TRACK = {"pg_stat_statements.track": "all"}


def _count(server: Server) -> Step:
    why = "Let the server count statements"
    if server.provider in _PLACES:
        return Step(why, _in_place(server.provider, _TRACK))
    lines = ["ALTER SYSTEM SET pg_stat_statements.track = 'all';"]
    if server.major >= 14:
        lines.append("ALTER SYSTEM SET compute_query_id = 'auto';")
    return Step(why, "\n".join([*lines, "SELECT pg_reload_conf();"]))


def _identifier(name: str) -> str:
    # Always quoted: that `user` has to be, only a list of all reserved words would tell.
    return '"' + name.replace('"', '""') + '"'


def _in_place(provider: Provider, values: dict[str, str]) -> str:
    return "\n".join([f"-- in {_PLACES[provider]}:", *(f"{name} = {value}" for name, value in values.items())])
