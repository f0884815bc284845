"""What is asked of the server: the rows of its log tables, its counters, its clock. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

from agent.source_errors import AnswerSenseless, SlowLogMissing, SlowLogNotGranted, SlowLogOff
from agent.sources import SourceSettings, Strain
from agent.sources._mysql_session import Row, Session
from agent.sources._slow_log_place import LIVE, Counters, Place, digest
from agent.sources._slow_log_rows import OURS
from agent.sources._understood import understood

_COLUMNS = """
    start_time, user_host, query_time, lock_time, rows_sent, rows_examined, db, thread_id,
    IF(LENGTH(sql_text) > {limit}, LEFT(sql_text, {head}), sql_text),
    IF(LENGTH(sql_text) > {limit}, CONCAT(LENGTH(sql_text), ' ', SHA2(sql_text, 256)), NULL)
"""
_ROWS = OURS.decode() + " {columns} FROM mysql.`{table}` LIMIT {start}, {count}"
_COUNT = "SELECT COUNT(*) FROM mysql.slow_log"
_COUNTERS = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slow_queries', 'Threads_running', 'Uptime')"
# The server's clock, because ours may be set meanwhile; and whether its scheduler counts as a running statement.
_NOW = "SELECT UNIX_TIMESTAMP(), @@global.event_scheduler = 'ON'"
_CONNECTED = "SHOW GLOBAL STATUS LIKE 'Threads_connected'"
_ALLOWED = "SELECT @@global.max_connections"
_SWITCHES = "SELECT @@global.slow_query_log, @@global.log_output"
_LOGS_TO_TABLE = """
    SELECT @@global.slow_query_log = 1 AND FIND_IN_SET('TABLE', @@global.log_output) > 0
        AND FIND_IN_SET('NONE', @@global.log_output) = 0 AND @@global.min_examined_row_limit = 0
        AND @@global.log_queries_not_using_indexes = 0
"""
_WIDTH = 10  # columns of `_COLUMNS`
CHUNK_ROWS, CHUNK_BYTES = 100, 1_048_576  # few rows at once: what is held of them is most of the memory


class Tables:
    """The log tables of one server; connects when it has to."""

    def __init__(self, settings: SourceSettings, connect: Callable[[SourceSettings], Session]) -> None:
        self._settings, self._connect, self._meter = settings, connect, settings.meter
        self._session: Session | None = None
        limit = settings.db.max_sql_text_bytes
        # Four bytes more, so that the last character can be seen to be whole.
        self._columns = _COLUMNS.format(limit=limit, head=limit + 4)

    def connected(self) -> Session:
        """The connection, opened when there is none."""
        if self._session is None or not self._session.is_open:
            self._session = self._connect(self._settings)
        return self._session

    def close(self) -> None:
        """Ends the connection."""
        if self._session is not None:
            self._session.drop()
            self._session = None

    def stream(self, start: int, count: int, table: str = LIVE, *, is_new: bool = True) -> Generator[list[Row]]:
        """At most `count` rows from position `start` on, in chunks of at most 100 rows or 1 MiB of text.

        `is_new`: they were not read before.
        """
        self._meter.read(start)
        sql = self._rows(start, count, table)
        rows = self.connected().stream(sql, chunk_rows=CHUNK_ROWS, chunk_bytes=CHUNK_BYTES, is_new=is_new)
        left = count
        with closing(rows) as chunks:
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    raise AnswerSenseless("it gives more rows than were asked for")
                yield _as_asked(chunk)

    def row(self, position: int, table: str = LIVE) -> Row | None:
        """The row there, None behind the end."""
        self._meter.read(position)
        rows = _as_asked(self.connected().rows(self._rows(position, 1, table)))
        return rows[0] if rows else None

    @understood()
    def count(self) -> int:
        """How many rows the log has."""
        present = int(self.connected().rows(_COUNT)[0][0])
        self._meter.read(present)
        return present

    def position_behind(self, last: str, present: int) -> int:
        """The position behind the row with that digest, wherever it stands among the first `present`; 0: nowhere."""
        behind = position = 0
        with closing(self.stream(0, present, is_new=False)) as chunks:
            for chunk in chunks:
                for row in chunk:
                    position += 1
                    if digest(row) == last:
                        behind = position
        return behind

    def hold(self, place: Place, table: str) -> bool:
        """Whether `table` is the generation of `place`: its row 0, and the row that was read last where it was read."""
        try:
            first = self.row(0, table)
            if first is None or digest(first) != place.first:
                return False
            last = self.row(place.position - 1, table)
        except (SlowLogMissing, SlowLogNotGranted):
            return False
        return last is not None and digest(last) == place.last

    @understood()
    def counters(self) -> Counters:
        """The server's count of slow statements, and its clock."""
        values = {name.decode(): int(value) for name, value in self.connected().rows(_COUNTERS)}
        ((now, has_scheduler),) = self.connected().rows(_NOW)
        others = max(0, values["Threads_running"] - 1 - int(has_scheduler))
        uptime_s = values["Uptime"]
        return Counters(values["Slow_queries"], int(now) - uptime_s, others, uptime_s)

    @understood()
    def strain(self) -> Strain:
        """The connections that others use and may use: one status counter and one variable that every user may read."""
        ((_, connected),) = self.connected().rows(_CONNECTED)
        ((allowed,),) = self.connected().rows(_ALLOWED)
        return Strain(int(connected) - 1, int(allowed) - 1)

    def have_all_that_is_counted(self) -> bool:
        """Whether the server writes each statement that it counts as slow into the log."""
        return self.connected().rows(_LOGS_TO_TABLE) == [(b"1",)]

    @understood()
    def demand_log(self) -> None:
        """Raises SlowLogOff when nothing is written into the log."""
        ((is_on, output),) = self.connected().rows(_SWITCHES)
        if is_on != b"1" or b"TABLE" not in output or b"NONE" in output:
            raise SlowLogOff(f"slow_query_log={is_on.decode()}, log_output={output.decode()}")

    def _rows(self, start: int, count: int, table: str) -> str:
        return _ROWS.format(columns=self._columns, table=table.replace("`", "``"), start=start, count=count)


def _as_asked(rows: list[Row]) -> list[Row]:
    if any(len(row) != _WIDTH for row in rows):
        raise AnswerSenseless("its rows have other columns than those that were asked for")
    return rows
