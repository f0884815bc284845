"""What can go wrong outside the stored files, each with a code, a sentence and a remedy. Raises nothing itself.

Three families, for whoever has to decide: ConfigError ends the program, DatabaseAway leads to reconnecting,
SetupError ends one look and is tried again at the next due time.
"""

from __future__ import annotations

from storage.errors import CodedError

SAID_CHARACTERS = 500  # of what a server or a backend says of its trouble


class ConfigError(CodedError):
    """The configuration cannot be used."""

    code = "CF-01"
    remedy = "The README lists every key."


class ConfigMissing(ConfigError):
    """The configuration file cannot be read."""

    code = "CF-02"
    remedy = "`python -m agent init` makes one; or copy config.example.json to config.json, or name it with --config."


class ConfigMalformed(ConfigError):
    """The configuration file is no valid JSON."""

    code = "CF-03"
    remedy = "Correct that place; every key and string stands in double quotes, and no comma follows the last entry."


class DemoMissing(CodedError):
    """The demonstration needs the extra package `demo`."""

    code = "CF-04"
    remedy = "Run scripts/demo, which installs it, or in the repository: pip install '.[demo]'"


class ConfigUnwritable(ConfigError):
    """The configuration file cannot be written."""

    code = "CF-05"
    remedy = "Name another one with --config, or run this as the owner of the file and its directory."


class ConfigThere(ConfigError):
    """There is a configuration file already."""

    code = "CF-06"
    remedy = "Say --force to put a new one in its place, or name another one with --config."


class RegistrationRefused(CodedError):
    """The backend does not register this collector."""

    code = "RG-01"
    remedy = "Check the token, the team and the name; the backend's administrator knows who may register."


class AgentSilent(CodedError):
    """The agent that holds this data directory does not say how it is."""

    code = "AG-01"
    remedy = "Ask as its user or root. When it stays silent, look at its log, and restart it: nothing is lost by that."


class SourceError(CodedError):
    """A source could not be read."""

    code = "DB-00"
    at_most = SAID_CHARACTERS


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


class BackendAway(CodedError):
    """The backend cannot be reached.

    `may_have_arrived`: something was sent before it failed, so nobody knows what the backend did with it.
    """

    code = "BE-01"
    remedy = "The agent keeps trying and everything waits in the outbox; check backend_url and the network."
    at_most = SAID_CHARACTERS

    def __init__(self, detail: str = "", *, may_have_arrived: bool = False) -> None:
        super().__init__(detail)
        self.may_have_arrived = may_have_arrived


class KeyRefused(CodedError):
    """The backend does not accept the API key."""

    code = "BE-02"
    remedy = "Check api_key and collector_id, or register the collector again; everything waits in the outbox."


class NotTheBackend(CodedError):
    """What answers at backend_url is not the DBPower backend."""

    code = "BE-03"
    remedy = "Check backend_url and proxies (a captive portal answers like this); everything waits in the outbox."


class BodyRefused(CodedError):
    """The backend refuses bodies, the good ones too."""

    code = "BE-04"
    remedy = "Check the versions of backend and agent; everything waits in the outbox."


class BackendBusy(CodedError):
    """The backend asks to wait or fails."""

    code = "BE-05"
    remedy = "The agent keeps trying and everything waits in the outbox; check the backend's logs."


class BackendUntrusted(BackendAway):
    """The backend's certificate is not trusted."""

    code = "BE-06"
    remedy = "Name its authority's PEM file in tls.ca, or correct the certificate; everything waits in the outbox."


class BackendWithoutTls(BackendAway):
    """No TLS connection to the backend comes about."""

    code = "BE-08"
    remedy = "Check backend_url, tls.ca, tls.cert and tls.key; everything waits in the outbox."


class CommandRefused(CodedError):
    """A command of the backend cannot be carried out."""

    code = "CM-01"
    remedy = "The result that goes back to the backend says why."
    at_most = 1_000


class RemoteChangesUnusable(CodedError):
    """What the backend had changed cannot be used any more, and is left out."""

    code = "CM-02"
    remedy = "The agent runs as its own configuration says; the file is kept beside. Let the backend send it again."
    at_most = 1_000


class LedgerUnusable(CodedError):
    """The ledger of a replay, which remembers what was accepted, cannot be used."""

    code = "RP-01"
    remedy = "Name a place for it with --ledger, on a disk with room; nothing was sent that is not in it."


class ReplayRefused(CodedError):
    """The replay cannot do that."""

    code = "RP-02"
    remedy = "Copy the data directory and replay the copy, or stop the agent; `--help` shows what else is needed."


class ReplayGivenUp(CodedError):
    """The backend takes nothing."""

    code = "RP-03"
    remedy = "Nothing was lost: when that is mended, the same command goes on from here."


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


class CanaryLost(CodedError):
    """The marked statement did not get on in time."""

    code = "CA-02"
    remedy = "The lines above say what may hold it up; run `doctor --canary` again when they are mended."


class ClockOff(CodedError):
    """This host's clock is not the other side's."""

    code = "HO-01"
    remedy = "Let a time service set both; ages and start times are wrong by so much, and nothing is lost by it."


class FilesExposed(CodedError):
    """Other users of this host can read or change what belongs to the agent."""

    code = "HO-02"
    remedy = "chmod 700 the directory and 600 the file; the owner should be the agent's user."


class AgentDown(CodedError):
    """No agent runs on this data directory."""

    code = "AG-02"
    remedy = "Start it: `systemctl start dbpower-collector`, or `python -m agent`."


class BackendPlain(CodedError):
    """What goes to the backend is not encrypted on its way, the API key neither."""

    code = "BE-07"
    remedy = "Use an https:// address in backend_url."


class BackendUnverified(CodedError):
    """Nobody knows whether it is the backend that is spoken to."""

    code = "BE-09"
    remedy = "Name its authority with tls.ca and leave tls.verify at true."
