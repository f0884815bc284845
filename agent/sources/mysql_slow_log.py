"""Reads mysql.slow_log of MySQL and MariaDB: every appended row once, by position and anchor, never by start_time.

Rows are appended when their statement ends, so the position in the table is the only order without holes; the
anchor (row 0 and the row before the position) tells whether it is still the same table. A table that was rotated away
is read to its end where it went to, if that is known. Nothing is ever re-read on a guess: where the anchor is gone, a
gap says so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from agent import canary
from agent.clock import Clock
from agent.finding import Finding
from agent.record import Record
from agent.redact import Redactor
from agent.source_errors import SlowLogMissing, SlowLogNotGranted, SourceError
from agent.sources import BOOKMARK_LOST, Reading, SourceSettings, Strain, _slow_log_canary
from agent.sources._mysql_session import Row, Session, WritingSession
from agent.sources._slow_log_examination import examine
from agent.sources._slow_log_place import LIVE, OLD, Counters, Place, decode, digest
from agent.sources._slow_log_rotation import Rotation
from agent.sources._slow_log_rows import Mapper
from agent.sources._slow_log_tables import Tables
from agent.sources._slow_log_times import Window, Zone
from agent.sources._understood import understood
from storage.envelope import Gap

STATEMENT_S = 2.0  # how long one statement may keep an administrator from rotating the table
CUT_S = 3 * STATEMENT_S  # then it is cut off: the disk or the network is slower than it was
START_ROWS, MAX_ROWS = 5_000, 100_000  # fewer at once would only repeat the scan over what is read already


class _AnchorGoneError(Exception):
    """The row before the position is not the one that was read."""


class SlowLogTable:
    """Source `mysql_slow_log`; needs SELECT ON mysql.slow_log and nothing else, unless it shall rotate."""

    kind = "mysql_slow_log"
    db_type = "mysql"

    def __init__(
        self,
        settings: SourceSettings,
        clock: Clock,
        connect: Callable[[SourceSettings], Session] = Session,
        connect_to_write: Callable[[SourceSettings], Session] = WritingSession,
    ) -> None:
        self._settings = settings
        self.meter = settings.meter
        self._clock, self._connect = clock, connect
        self._tables = Tables(settings, connect)
        self._rotation = Rotation(settings, self._tables, connect_to_write)
        self._redactor = Redactor(settings.redact, self.db_type)
        self._rows_a_statement = START_ROWS
        self._scan_s = 0.0  # how long the last statement took to come to its first row

    def check(self) -> None:
        """Connects and reads one row."""
        try:
            self._tables.row(0)
        except SourceError:
            self.close()
            raise

    def strain(self) -> Strain:
        """From one status counter and one variable, which every user may read."""
        try:
            return self._tables.strain()
        except SourceError:
            self.close()
            raise

    def examine(self) -> Iterator[Finding]:
        """From the server's variables and the table itself."""
        try:
            yield from examine(self._settings, self._tables, self._clock)
        finally:
            self.close()

    def version(self) -> str:
        """On a connection of its own."""
        try:
            session = self._connect(self._settings)
        except SourceError:
            return ""
        try:
            return session.version
        finally:
            session.drop()

    def run_canary(self, token: str) -> str:
        """On a connection of its own, whose long_query_time is short."""
        name = f"{canary.NAME}_{token}"
        session = self._connect(self._settings)
        try:
            _slow_log_canary.run(session, name)
        finally:
            session.drop()
        return name

    def shows_canary(self, name: str) -> bool:
        """By one scan of the table."""
        try:
            return _slow_log_canary.is_logged(self._tables.connected(), name)
        except SourceError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection."""
        self._tables.close()

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
            place = self._end()
        except SourceError:
            self.close()
            raise
        return Reading((), place.encode(), (self._gap(BOOKMARK_LOST, place, None, "it is not known what was read"),))

    # -- one look ----------------------------------------------------------------------------------------------

    def _look(self, place: Place) -> Iterator[Reading]:
        self._tables.connected().measure_offset()
        spent, place = place.spent, self._rotation.begin(place)
        if spent:
            yield Reading((), place.encode())
        at_top: Counters | None = None
        while True:
            before = self._tables.counters()
            if place.position == 0 or (place.from_top and at_top is None):
                at_top = before  # from here on an anchor tells of a rotation
            try:
                place, at_end = yield from self._one_statement(place, before)
            except _AnchorGoneError:
                place, gaps = self._find_again(place)
                yield Reading((), place.encode(), gaps)
                continue
            if at_end and place.table != LIVE:
                is_ours = self._rotation.is_on and place.table == OLD
                place = place.behind_old() if is_ours else place.at_next_generation(unread=0)
                yield Reading((), place.encode())
            elif at_end:
                gaps, at_top = self._vanished(place, at_top) if at_top else (), None
                place = place.balanced(before, self._tables.counters())
                yield Reading((), place.encode(), gaps)
                if not self._rotation.swap(place, self._scan_s):
                    break
        self._tables.demand_log()
        self._rotation.demand_success()

    def _one_statement(self, place: Place, before: Counters) -> Generator[Reading, None, tuple[Place, bool]]:
        """Reads on from `place`; gives the place behind what was read, and whether that is the end of the table."""
        position, count, began_s, first_s = place.position, self._rows_a_statement, self._clock.monotonic(), None
        at_end = True
        with closing(self._chunks(place, count)) as chunks:
            for chunk in chunks:
                now_s = self._clock.monotonic()
                # From the first row on: the scan that leads to it costs the same for one row as for all.
                first_s = first_s or now_s
                records, place = self._take(place, chunk, Window(place.seen_at, before.now + 1 + now_s - began_s))
                yield Reading(records, place.encode())
                if self._clock.monotonic() - first_s > CUT_S:
                    at_end = False
                    break
        self._adapt(place.position - position, self._clock.monotonic() - (first_s or 0.0))
        return place, at_end and place.position - position < count

    def _chunks(self, place: Place, count: int) -> Generator[list[Row]]:
        """The next `count` rows. The row before them is read again: it must be the anchor."""
        anchors = 1 if place.position else 0
        began_s = self._clock.monotonic()
        with closing(self._tables.stream(place.position - anchors, count + anchors, place.table)) as chunks:
            if anchors:
                try:
                    head = next(chunks, [])
                except (SlowLogMissing, SlowLogNotGranted):
                    if place.table == LIVE:
                        raise
                    head = []  # the next rotation has dropped it
                self._scan_s = self._clock.monotonic() - began_s
                if not head or digest(head[0]) != place.last:
                    raise _AnchorGoneError
                if head[1:]:
                    yield head[1:]
            yield from chunks

    @understood()
    def _take(self, place: Place, chunk: list[Row], window: Window) -> tuple[tuple[Record, ...], Place]:
        now, session = self._clock.now(), self._tables.connected()
        first = place.first or digest(chunk[0])
        mapper = Mapper(
            watch=self._settings.watch,
            generation=first,
            collected_at=now,
            window=window,
            zone=Zone(session.utc_offset_s, session.is_mariadb),
            max_text_bytes=self._settings.db.max_sql_text_bytes,
            redactor=self._redactor,
            cutoff=place.cutoff or 0.0,
            cutoff_until=place.cutoff_until,
        )
        read_at = now.isoformat(timespec="seconds")
        return mapper.records(chunk, place.position), place.behind(len(chunk), first, digest(chunk[-1]), read_at)

    def _adapt(self, rows: int, elapsed_s: float) -> None:
        if rows >= self._rows_a_statement or elapsed_s > STATEMENT_S:
            wanted = round(rows / max(elapsed_s, 0.001) * STATEMENT_S)
            self._rows_a_statement = min(MAX_ROWS, max(START_ROWS, wanted))

    # -- when the table is not the one that was read -------------------------------------------------------------

    def _find_again(self, place: Place) -> tuple[Place, tuple[Gap, ...]]:
        """Where to go on, and what was lost."""
        if place.table == LIVE and (found := self._found_in_the_log(place)):
            return found
        for table in (*self._settings.db.slow_log_backups, OLD):
            if self._tables.hold(place, table):
                return place.in_table(table), ()
        present, now = self._tables.count(), self._tables.counters()
        unread = place.unread(now, present)
        lost = "rows were not read before the rotation, and no backup holds them"
        gaps = () if unread == 0 else (self._gap("rotated", place, unread, lost),)
        return place.at_next_generation(unread), gaps

    def _found_in_the_log(self, place: Place) -> tuple[Place, tuple[Gap, ...]] | None:
        """It is the same table, from which rows were removed; None when it is another one."""
        first, present = self._tables.row(0), self._tables.count()
        if first is None:
            return None
        if digest(first) == place.first:
            last = self._tables.row(present - 1) if present else None
            if last is None:
                return None
            gap = self._gap("rows_removed", place, None, f"row {place.position - 1} is not there any more")
            return place.moved_to(present, place.first, digest(last)), (gap,)
        if behind := self._tables.position_behind(place.last or "", present):
            # Only its oldest rows were removed: what was read last is still there, and nothing is lost.
            return place.moved_to(behind, digest(first), place.last), ()
        return None

    def _vanished(self, place: Place, at_top: Counters) -> tuple[Gap, ...]:
        """Nothing of the table had been read: rows that came and went until then are known by the counter only."""
        unread = place.surely_unread(at_top)
        if unread == 0 or not self._tables.have_all_that_is_counted():
            return ()
        return (self._gap("rotated", place, unread, "rows came and went before they were read"),)

    def _gap(self, reason: str, place: Place, estimate: int | None, detail: str) -> Gap:
        until = self._clock.now().isoformat(timespec="seconds")
        return Gap(self._settings.watch, reason, place.read_at, until, estimate, detail)

    # -- the first look ----------------------------------------------------------------------------------------

    def _first_place(self) -> Place:
        start = self._settings.db.start
        if start == "beginning":
            return Place()
        if start == "now":
            return self._end()
        return Place(cutoff=self._tables.counters().now - start, cutoff_until=self._tables.count())

    def _end(self) -> Place:
        seen_at, present = self._tables.counters().now, self._tables.count()
        first, last = self._tables.row(0), self._tables.row(present - 1) if present else None
        if first is None or last is None:
            return Place(seen_at=seen_at)
        return Place(position=present, first=digest(first), last=digest(last), seen_at=seen_at)


SOURCE = SlowLogTable
