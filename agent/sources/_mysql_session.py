"""A quiet connection to MySQL or MariaDB: it reads only, is bounded by the server too, and never logs itself.

What fails comes out as one of our errors; the driver is known to this file and the sources only.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from pymysql import err
from pymysql.constants import CLIENT, CR, ER
from pymysql.cursors import Cursor, SSCursor

from agent.source_errors import (
    AnswerSenseless,
    DatabaseAway,
    LoginRefused,
    SetupError,
    SlowLogCrashed,
    SlowLogMissing,
    SlowLogNotGranted,
    SlowLogTooLarge,
    SourceError,
)
from agent.sources import READING, SourceSettings
from agent.sources._mysql_bounds import Allowance
from agent.sources._mysql_connection import QuietConnection, mistrust
from agent.sources._understood import understood
from agent.sources._wire import Wire

# No statement of ours may show up in the log we read: not for its time, and not for using no index either. MySQL
# allows the second only with SESSION_VARIABLES_ADMIN.
_QUIET = """
    SET SESSION long_query_time=31536000, net_write_timeout=5, lock_wait_timeout=5, wait_timeout=31536000
"""
_QUIET_WITHOUT_INDEX = "SET SESSION min_examined_row_limit=18446744073709551615"
_VERSION = "SELECT VERSION()"
_SERVERS_ZONE = "SET SESSION time_zone=@@global.time_zone"
_OFFSET = "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())"
# The texts of the CSV table pass unchanged; a column of a real TIMESTAMP (an altered table) is read as UTC.
_UTC = "SET SESSION time_zone='+00:00'"
_READ_ONLY = "SET SESSION TRANSACTION READ ONLY"
_NOT_REPLICATED = "SET SESSION sql_log_bin=0"
_LIMIT_MARIADB = "SET SESSION max_statement_time={seconds}"
_LIMIT_MYSQL = "SET SESSION max_execution_time={milliseconds}"

_CONNECTION_KILLED = 1927  # MariaDB only
_TOO_LONG = frozenset({1969, 3024})
_CRASHED = frozenset({126, 127, 144, 145, 1034, 1035, 1194, 1195})
_LOGIN = frozenset({ER.DBACCESS_DENIED_ERROR, ER.ACCESS_DENIED_ERROR, ER.HOST_NOT_PRIVILEGED, 1698, 1129, 1862, 4151})
_AWAY = frozenset(
    {
        CR.CR_CONNECTION_ERROR,
        CR.CR_CONN_HOST_ERROR,
        CR.CR_UNKNOWN_HOST,
        CR.CR_SERVER_GONE_ERROR,
        CR.CR_SERVER_LOST,
        CR.CR_SERVER_LOST_EXTENDED,
        ER.CON_COUNT_ERROR,
        ER.SERVER_SHUTDOWN,
        ER.NORMAL_SHUTDOWN,
        ER.QUERY_INTERRUPTED,
        ER.ABORTING_CONNECTION,
        ER.NEW_ABORTING_CONNECTION,
        ER.NET_READ_ERROR,
        ER.NET_READ_INTERRUPTED,
        ER.NET_ERROR_ON_WRITE,
        ER.NET_WRITE_INTERRUPTED,
        _CONNECTION_KILLED,
        0,
    }
)


# A text is cut by the server, in characters of at most so many bytes.
_SIGN_BYTES = 4
_BESIDE_BYTES = 1_048_576  # everything but that text: the other columns, the descriptions of columns, small answers

Row = tuple[Any, ...]


class Session:
    """One connection. Rows come as tuples of raw bytes (None for NULL)."""

    _manner = _READ_ONLY

    def __init__(self, settings: SourceSettings) -> None:
        """Connects. Raises DatabaseAway, LoginRefused, DatabaseUntrusted or another SetupError."""
        db = settings.db
        self._step, self._read_timeout_s = settings.step, db.read_timeout
        self._meter, self._wire = settings.meter, Wire()
        self._row_bytes = _SIGN_BYTES * db.max_sql_text_bytes + _BESIDE_BYTES
        self._allowance = Allowance(_BESIDE_BYTES, 2 * db.read_timeout)
        self._step("connecting to the database", db.connect_timeout + 2 * db.read_timeout)
        with explained(), self._meter.connecting():
            self._connection = QuietConnection(
                db.tls,
                host=db.host,
                port=settings.port,
                user=db.user,
                password=db.password.get_secret_value(),
                charset="utf8mb4",
                use_unicode=False,
                conv={},
                autocommit=None,
                connect_timeout=max(1, round(db.connect_timeout)),
                read_timeout=db.read_timeout,
                write_timeout=db.read_timeout,
                client_flag=CLIENT.MULTI_RESULTS,
                program_name="dbpower-agent",
                allowance=self._allowance,
            )
        try:
            self._be_quiet(db.read_timeout)
        except BaseException:
            self.drop()
            raise

    @understood()
    def _be_quiet(self, limit_s: float) -> None:
        self.rows(_QUIET)
        with suppress(SetupError):
            self.rows(_QUIET_WITHOUT_INDEX)
        ((version,),) = self.rows(_VERSION)
        self.version: str = version.decode("utf-8", "replace")
        self.is_mariadb = "mariadb" in self.version.lower()
        self.measure_offset()
        self.rows(self._manner)
        limit = _LIMIT_MARIADB if self.is_mariadb else _LIMIT_MYSQL
        # Below our own patience, so that the server says what it was instead of a socket that times out.
        server_s = limit_s * 0.9
        self.rows(limit.format(seconds=server_s, milliseconds=round(server_s * 1000)))

    @understood()
    def measure_offset(self) -> None:
        """Asks for the server's own time zone again: it has a summer."""
        self.rows(_SERVERS_ZONE)
        ((offset,),) = self.rows(_OFFSET)
        self.utc_offset_s = int(offset)
        self.rows(_UTC)

    @property
    def is_open(self) -> bool:
        """Whether the connection was not dropped."""
        return bool(self._connection.open)

    def rows(self, sql: str) -> list[Row]:
        """All rows of a small result."""
        self._step(READING, self._read_timeout_s)
        self._allow(_BESIDE_BYTES)
        with explained(), self._waiting(), self._connection.cursor(Cursor) as cursor:
            cursor.execute(sql)
            found = list(cursor.fetchall())
        self._count(len(found))
        return found

    def stream(self, sql: str, *, chunk_rows: int, chunk_bytes: int, is_new: bool = True) -> Generator[list[Row]]:
        """The rows of a large result in chunks as they arrive.

        A chunk ends at `chunk_rows` rows or when its second last column (the text) reaches `chunk_bytes`. When the
        iterator is closed early the connection is dropped: the rest of the result would have to be read otherwise.
        `is_new`: these rows were not read before.
        """
        finished, waiting = False, self._meter.answering
        try:
            self._step(READING, self._read_timeout_s)
            self._allow(_BESIDE_BYTES)
            with explained(), waiting():
                cursor = self._connection.cursor(SSCursor)
                cursor.execute(sql)
            while not finished:
                self._step(READING, self._read_timeout_s)
                self._allow(chunk_bytes + _BESIDE_BYTES)
                with explained(), waiting():
                    chunk, finished = _next_chunk(cursor, chunk_rows, chunk_bytes)
                self._count(len(chunk))
                waiting = self._meter.receiving if is_new else waiting
                if chunk:
                    yield chunk
        finally:
            if not finished:
                self.drop()

    def _allow(self, beside_bytes: int) -> None:
        """The next answer may hold one row, however long its text may be, and so much beside it."""
        self._allowance.renew(self._row_bytes + beside_bytes, self._read_timeout_s)

    def _waiting(self) -> AbstractContextManager[None]:
        return self._meter.answering()

    def _count(self, rows: int) -> None:
        self._meter.read(rows)
        connection: Any = self._connection
        self._meter.received(self._wire.since_last(connection._sock.fileno()))  # noqa: SLF001 - it has no name for it

    def drop(self) -> None:
        """Ends the connection at once, without reading what is still on its way."""
        # Private parts of the driver: its own close() would first read the rest of the result, however large.
        connection: Any = self._connection
        if connection._result is not None:  # noqa: SLF001
            connection._result.unbuffered_active = False  # noqa: SLF001
            connection._result = None  # noqa: SLF001
        connection._force_close()  # noqa: SLF001


class WritingSession(Session):
    """One that may write; what it does stays on this server and is not replicated."""

    _manner = _NOT_REPLICATED

    def _waiting(self) -> AbstractContextManager[None]:
        return self._meter.changing()


def _next_chunk(cursor: SSCursor, chunk_rows: int, chunk_bytes: int) -> tuple[list[Row], bool]:
    fetch = cursor.fetchone
    chunk: list[Row] = []
    size = 0
    while len(chunk) < chunk_rows and size < chunk_bytes:
        row = fetch()
        if row is None:
            cursor.close()
            return chunk, True
        chunk.append(row)
        size += len(row[-2] or b"")
    return chunk, False


@contextmanager
def explained() -> Iterator[None]:
    """Turns what the driver raises into our errors."""
    try:
        yield
    except err.MySQLError as error:
        raise explain(error) from None
    except OSError as error:
        raise DatabaseAway(str(error)) from None
    except (RuntimeError, ValueError, AssertionError, LookupError, AttributeError, struct.error) as error:
        # The driver's own ways to say that the answer makes no sense, or that it was closed in the middle; and that
        # MySQL's caching_sha2_password without TLS needs a package that costs 8 MB of memory everywhere.
        if "LOAD_LOCAL" in str(error):
            raise AnswerSenseless("it asked for a file of this host, and got nothing") from None
        if "cryptography" in str(error):
            raise LoginRefused("its password exchange needs TLS on the server, or: pip install cryptography") from None
        raise DatabaseAway(f"the connection broke ({type(error).__name__})") from None


def explain(error: err.MySQLError) -> SourceError:
    """The error of ours for what server or driver reported."""
    untrusted = mistrust(error)
    if untrusted is not None:
        return untrusted
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    message = str(error.args[1]) if len(error.args) > 1 else str(error)
    detail = f"{message} ({code})" if code else message or "the connection was closed"
    if code in _LOGIN:
        return LoginRefused(detail)
    if code in {ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR}:
        return SlowLogNotGranted(detail)
    if code == ER.NO_SUCH_TABLE:
        return SlowLogMissing(detail)
    if code in _CRASHED:
        return SlowLogCrashed(detail)
    if code in _TOO_LONG:
        return SlowLogTooLarge(detail)
    return DatabaseAway(detail) if code in _AWAY else SetupError(detail)
