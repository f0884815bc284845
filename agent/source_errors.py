"""What can go wrong with a database, each with a code, a sentence and a remedy. Raises nothing itself.

Two families, for whoever has to decide: DatabaseAway leads to reconnecting, SetupError ends one look and is tried again
at the next due time.
"""

from __future__ import annotations

from storage.errors import CodedError

_SAID_CHARACTERS = 500  # of what a server says of its trouble


class SourceError(CodedError):
    """A source could not be read."""

    code = "DB-00"
    at_most = _SAID_CHARACTERS


class DatabaseAway(SourceError):
    """The database cannot be reached."""

    code = "DB-01"
    remedy = "The agent keeps trying; check db_config host and port and that the server runs."


class SetupError(SourceError):
    """The database refuses what the agent needs."""

    code = "DB-02"
    remedy = "The agent tries again at the next collection; see the README's section on database set-up."


class LoginRefused(SetupError):
    """The database refuses the user or the password."""

    code = "DB-03"
    remedy = "Check db_config user and password; the agent tries again at the next collection."


class BookmarkUnreadable(SetupError):
    """The stored bookmark of this source cannot be understood."""

    code = "DB-04"
    remedy = "Another version wrote it, or db_type was changed: give the agent a data_dir of its own to begin anew."


class ServerStrained(SetupError):
    """The database is too busy to be looked at."""

    code = "DB-05"
    remedy = "The rows wait in the database, and the agent looks again by itself; see what keeps the server busy."


class DatabaseUntrusted(SetupError):
    """The connection to the database would not be safe."""

    code = "DB-06"
    remedy = "Check db_config tls (mode, ca, verify) and the server's certificate; the agent tries again by itself."


class DatabasePlain(SetupError):
    """What goes to the database and comes from it is not encrypted."""

    code = "DB-07"
    remedy = "Switch TLS on at the server, and demand it with db_config tls.mode require."


class AnswerTooLarge(SetupError):
    """The database sends more than an answer of it can hold."""

    code = "DB-08"
    remedy = (
        "Check db_config host and port: what answers there is no such server, or a hostile one; it was not heard out."
    )


class AnswerSenseless(SetupError):
    """The database says what no server of its kind does."""

    code = "DB-09"
    remedy = "Check db_config host, port and db_type: what answers there is no such server, or a hostile one."


class SlowLogNotGranted(SetupError):
    """The user may not read mysql.slow_log."""

    code = "MY-01"
    remedy = "As an administrator: GRANT SELECT ON mysql.slow_log TO 'monitoring'@'%';"


class SlowLogCrashed(SetupError):
    """The server has marked mysql.slow_log as crashed."""

    code = "MY-02"
    remedy = (
        "As an administrator: SET GLOBAL slow_query_log=OFF; REPAIR TABLE mysql.slow_log; SET GLOBAL slow_query_log=ON;"
    )


class SlowLogMissing(SetupError):
    """There is no table mysql.slow_log."""

    code = "MY-03"
    remedy = "Run mysql_upgrade (MariaDB: mariadb-upgrade), or end the rotation that has moved the table away."


class SlowLogTooLarge(SetupError):
    """Reading mysql.slow_log up to the last known row takes longer than read_timeout."""

    code = "MY-04"
    remedy = "Rotate the table (see the README), or raise db_config read_timeout until it has been read once."


class SlowLogOff(SetupError):
    """The server does not write slow queries to mysql.slow_log."""

    code = "MY-05"
    remedy = "As an administrator: SET GLOBAL slow_query_log=ON, log_output='TABLE'; and the same in its configuration."


class RotationRefused(SetupError):
    """The server does not let the agent rotate mysql.slow_log."""

    code = "MY-06"
    remedy = "Grant what the README names for db_config rotate, or switch that off; collecting goes on."


class StatementsNotCreated(SetupError):
    """The extension pg_stat_statements does not exist in this database."""

    code = "PG-01"
    remedy = "As a superuser, in the database of db_config: CREATE EXTENSION IF NOT EXISTS pg_stat_statements;"


class StatementsNotLoaded(SetupError):
    """The server has not loaded pg_stat_statements."""

    code = "PG-02"
    remedy = "Set shared_preload_libraries = 'pg_stat_statements' in postgresql.conf and restart PostgreSQL."


class StatementsNotGranted(SetupError):
    """The user may not read the statements of other users."""

    code = "PG-03"
    remedy = "As a superuser: GRANT pg_read_all_stats TO monitoring;"


class TextsUndecodable(SetupError):
    """The text of one statement cannot be shown in this database's encoding, so the server shows none at all here."""

    code = "PG-04"
    remedy = (
        "As a superuser, in a database with the encoding SQL_ASCII: CREATE EXTENSION IF NOT EXISTS pg_stat_statements; "
        "the agent then reads the texts there."
    )


class SlowLogNarrow(SetupError):
    """The server writes only a part of what is slow to mysql.slow_log."""

    code = "MY-07"
    remedy = "If more is wanted, as an administrator: SET GLOBAL that variable, and the same in its configuration."


class SlowLogLarge(SetupError):
    """Each look scans all of mysql.slow_log, which has become large."""

    code = "MY-08"
    remedy = "Rotate the table (see the README), or let the agent do it: db_config rotate."


class StatementsNotCounted(SetupError):
    """The server has pg_stat_statements and counts nothing."""

    code = "PG-05"
    remedy = "As a superuser: ALTER SYSTEM SET that to its usual value; SELECT pg_reload_conf();"


class StatementsCrowded(SetupError):
    """pg_stat_statements is full, and forgets statements before they can be read."""

    code = "PG-06"
    remedy = "As a superuser: ALTER SYSTEM SET pg_stat_statements.max = 20000; and restart PostgreSQL."


class CanaryTooSlow(SetupError):
    """A statement that counts as slow here would take too long to be run for a try."""

    code = "CA-01"
    remedy = "Lower min_exec_time_ms or raise read_timeout, or wait for a slow statement of your own."
