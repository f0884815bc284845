"""Reads mysql.slow_log of MySQL and MariaDB: every appended row once, by position and anchor, never by start_time.

Rows are appended when their statement ends, so the position in the table is the only order without holes; the
anchor (row 0 and the row before the position) tells whether it is still the same table. Nothing is ever re-read on
a guess: where the anchor is gone, a gap says so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import datetime

from agent.clock import Clock
from agent.errors import SlowLogOff, SourceError
from agent.record import Record
from agent.sources import BOOKMARK_LOST, Reading, SourceSettings, Strain
from agent.sources._mysql_session import Row, Session
from agent.sources._slow_log_place import Counters, Place, decode, digest
from agent.sources._slow_log_rows import Mapper
from storage.envelope import Gap

_COLUMNS = """
    start_time, user_host, query_time, lock_time, rows_sent, rows_examined, db, thread_id,
    IF(LENGTH(sql_text) > {limit}, LEFT(sql_text, {head}), sql_text),
    IF(LENGTH(sql_text) > {limit}, CONCAT(LENGTH(sql_text), ' ', SHA2(sql_text, 256)), NULL)
"""
_ROWS = "SELECT {columns} FROM mysql.slow_log LIMIT {start}, {count}"
_COUNT = "SELECT COUNT(*) FROM mysql.slow_log"
_COUNTERS = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slow_queries', 'Threads_running', 'Uptime')"
_NOW = "SELECT UNIX_TIMESTAMP()"  # the server's clock: ours may be set meanwhile
_CONNECTED = "SHOW GLOBAL STATUS LIKE 'Threads_connected'"
_ALLOWED = "SELECT @@global.max_connections"
_SWITCHES = "SELECT @@global.slow_query_log, @@global.log_output"
_LOGS_TO_TABLE = """
    SELECT @@global.slow_query_log = 1 AND FIND_IN_SET('TABLE', @@global.log_output) > 0
        AND FIND_IN_SET('NONE', @@global.log_output) = 0 AND @@global.min_examined_row_limit = 0
        AND @@global.log_queries_not_using_indexes = 0
"""

STATEMENT_S = 2.0  # how long one statement may keep an administrator from rotating the table
CUT_S = 3 * STATEMENT_S  # then it is cut off: the disk or the network is slower than it was
START_ROWS, MAX_ROWS = 5_000, 100_000  # fewer at once would only repeat the scan over what is read already
CHUNK_ROWS, CHUNK_BYTES = 100, 1_048_576  # few rows at once: what is held of them is most of the memory


class _AnchorGoneError(Exception):
    """The row before the position is not the one that was read."""


class SlowLogTable:
    """Source `mysql_slow_log`; needs SELECT ON mysql.slow_log and nothing else."""

    kind = "mysql_slow_log"
    db_type = "mysql"

    def __init__(
        self, settings: SourceSettings, clock: Clock, connect: Callable[[SourceSettings], Session] = Session
    ) -> None:
        self._settings = settings
        self.meter = settings.meter
        self._clock = clock
        self._connect = connect
        self._session: Session | None = None
        self._rows_a_statement = START_ROWS
        limit = settings.db.max_sql_text_bytes
        # Four bytes more, so that the last character can be seen to be whole.
        self._columns = _COLUMNS.format(limit=limit, head=limit + 4)

    def check(self) -> None:
        """Connects and reads one row."""
        try:
            self._row(0)
        except SourceError:
            self.close()
            raise

    def strain(self) -> Strain:
        """From one status counter and one variable, which every user may read."""
        try:
            ((_, connected),) = self._connected().rows(_CONNECTED)
            ((allowed,),) = self._connected().rows(_ALLOWED)
        except SourceError:
            self.close()
            raise
        return Strain(int(connected) - 1, int(allowed) - 1)

    def close(self) -> None:
        """Ends the connection."""
        if self._session is not None:
            self._session.drop()
            self._session = None

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        """One look, in readings of at most 100 rows or 1 MiB of text; each ends where the next look may begin."""
        finished = False
        try:
            place = decode(bookmark) if bookmark else self._first_place()
            for reading in self._look(place):
                if reading.bookmark != bookmark or reading.gaps:
                    bookmark = reading.bookmark
                    yield reading
            finished = True
        finally:
            if not finished:
                self.close()

    def skip(self) -> Reading:
        """The end of the table as it is now."""
        try:
            place = self._end(self._count())
        except SourceError:
            self.close()
            raise
        return Reading((), place.encode(), (self._gap(BOOKMARK_LOST, place, None, "it is not known what was read"),))

    # -- one look ----------------------------------------------------------------------------------------------

    def _look(self, place: Place) -> Iterator[Reading]:
        self._connected().measure_offset()
        at_start = self._counters() if place.position == 0 or place.from_top else None
        at_end = False
        while not at_end:
            before = self._counters()
            position, count, first_s = place.position, self._rows_a_statement, None
            try:
                for chunk in self._statement(place, count):
                    # From the first row on: the scan that leads to it costs the same for one row as for all.
                    first_s = first_s or self._clock.monotonic()
                    records, place = self._take(place, chunk)
                    yield Reading(records, place.encode())
                    if self._clock.monotonic() - first_s > CUT_S:
                        break
                else:
                    at_end = place.position - position < count
            except _AnchorGoneError:
                place, gaps, at_start = self._find_again(place)
                yield Reading((), place.encode(), gaps)
                continue
            self._adapt(place.position - position, self._clock.monotonic() - (first_s or 0.0))
        gaps = self._vanished(place, at_start) if at_start else ()
        yield Reading((), place.balanced(before, self._counters()).encode(), gaps)
        ((is_on, output),) = self._connected().rows(_SWITCHES)
        if is_on != b"1" or b"TABLE" not in output or b"NONE" in output:
            raise SlowLogOff(f"slow_query_log={is_on.decode()}, log_output={output.decode()}")

    def _statement(self, place: Place, count: int) -> Generator[list[Row]]:
        """Chunks of the next `count` rows. The row before them is read again: it must be the anchor."""
        anchors = 1 if place.position else 0
        self.meter.read(place.position - anchors)
        sql = _ROWS.format(columns=self._columns, start=place.position - anchors, count=count + anchors)
        chunks = self._connected().stream(sql, chunk_rows=CHUNK_ROWS, chunk_bytes=CHUNK_BYTES)
        with closing(chunks):
            if anchors:
                head = next(chunks, [])
                if not head or digest(head[0]) != place.last:
                    raise _AnchorGoneError
                if head[1:]:
                    yield head[1:]
            yield from chunks

    def _take(self, place: Place, chunk: list[Row]) -> tuple[tuple[Record, ...], Place]:
        now = self._clock.now()
        first = place.first or digest(chunk[0])
        mapper = self._mapper(self._connected(), first, now)
        records = mapper.records(chunk, place.position)
        if place.cutoff is not None:
            records = _younger(records, place)
        return records, place.behind(len(chunk), first, digest(chunk[-1]), now.isoformat(timespec="seconds"))

    def _mapper(self, session: Session, generation: str, now: datetime) -> Mapper:
        return Mapper(
            watch=self._settings.watch,
            generation=generation,
            collected_at=now,
            utc_offset_s=session.utc_offset_s,
            stamps_start=session.is_mariadb,
            max_text_bytes=self._settings.db.max_sql_text_bytes,
        )

    def _adapt(self, rows: int, elapsed_s: float) -> None:
        if rows >= self._rows_a_statement or elapsed_s > STATEMENT_S:
            wanted = round(rows / max(elapsed_s, 0.001) * STATEMENT_S)
            self._rows_a_statement = min(MAX_ROWS, max(START_ROWS, wanted))

    # -- when the table is not the one that was read -------------------------------------------------------------

    def _find_again(self, place: Place) -> tuple[Place, tuple[Gap, ...], Counters | None]:
        """Where to go on, what was lost, and the server's counters when that is the top of another table."""
        first, present = self._row(0), self._count()
        if first is not None and digest(first) == place.first:
            last = self._row(present - 1) if present else None
            if last is not None:
                gap = self._gap("rows_removed", place, None, f"row {place.position - 1} is not there any more")
                return place.moved_to(present, place.first, digest(last)), (gap,), None
        elif first is not None and (behind := self._behind_anchor(place, present)):
            # Only its oldest rows were removed: what was read last is still there, and nothing is lost.
            return place.moved_to(behind, digest(first), place.last), (), None
        present, now = self._count(), self._counters()
        unread = place.unread(now, present)
        gaps = () if unread == 0 else (self._gap("rotated", place, unread, "rows were not read before the rotation"),)
        return place.at_next_generation(unread), gaps, now

    def _behind_anchor(self, place: Place, present: int) -> int:
        """The position behind the row that was read last, wherever it stands now; 0 when it is gone."""
        sql = _ROWS.format(columns=self._columns, start=0, count=present)
        behind = position = 0
        with closing(
            self._connected().stream(sql, chunk_rows=CHUNK_ROWS, chunk_bytes=CHUNK_BYTES, is_new=False)
        ) as chunks:
            for chunk in chunks:
                for row in chunk:
                    position += 1
                    if digest(row) == place.last:
                        behind = position
        return behind

    def _vanished(self, place: Place, at_start: Counters) -> tuple[Gap, ...]:
        """The table was empty at the last look: rows that came and went since are known by the counter only."""
        unread = place.surely_unread(at_start)
        if unread == 0 or self._connected().rows(_LOGS_TO_TABLE) != [(b"1",)]:
            return ()
        return (self._gap("rotated", place, unread, "rows came and went between two looks"),)

    def _gap(self, reason: str, place: Place, estimate: int | None, detail: str) -> Gap:
        until = self._clock.now().isoformat(timespec="seconds")
        return Gap(self._settings.watch, reason, place.read_at, until, estimate, detail)

    # -- small reads -------------------------------------------------------------------------------------------

    def _first_place(self) -> Place:
        start = self._settings.db.start
        if start == "beginning":
            return Place()
        present = self._count()
        if start != "now":
            return Place(cutoff=self._clock.unix() - start, cutoff_until=present)
        return self._end(present)

    def _end(self, present: int) -> Place:
        first, last = self._row(0), self._row(present - 1) if present else None
        if first is None or last is None:
            return Place()
        return Place(position=present, first=digest(first), last=digest(last))

    def _row(self, position: int) -> Row | None:
        self.meter.read(position)
        rows = self._connected().rows(_ROWS.format(columns=self._columns, start=position, count=1))
        return rows[0] if rows else None

    def _count(self) -> int:
        present = int(self._connected().rows(_COUNT)[0][0])
        self.meter.read(present)
        return present

    def _counters(self) -> Counters:
        values = {name.decode(): int(value) for name, value in self._connected().rows(_COUNTERS)}
        ((now,),) = self._connected().rows(_NOW)
        others = max(0, values["Threads_running"] - 1)
        uptime_s = values["Uptime"]
        return Counters(values["Slow_queries"], int(now) - uptime_s, others, uptime_s)

    def _connected(self) -> Session:
        if self._session is None or not self._session.is_open:
            self._session = self._connect(self._settings)
        return self._session


def _younger(records: tuple[Record, ...], place: Place) -> tuple[Record, ...]:
    old_rows = max(0, place.cutoff_until - place.position)
    cutoff = place.cutoff or 0.0
    return tuple(
        record for number, record in enumerate(records) if number >= old_rows or record.start_time.timestamp() >= cutoff
    )


SOURCE = SlowLogTable
