"""Reads pg_stat_statements of PostgreSQL: what each statement did between two looks, from counters and a baseline.

Counters and texts are read apart: the texts are needed for what is sent only, and one that cannot be decoded makes the
server refuse all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import datetime

from agent import canary
from agent.clock import Clock
from agent.finding import Finding
from agent.redact import Redactor
from agent.source_errors import SetupError, SourceError
from agent.sources import BOOKMARK_LOST, Reading, SourceSettings, Strain, _statement_canary
from agent.sources._postgres_session import MARKER, Session
from agent.sources._statement_bookmark import Bookmark, Opening, decode
from agent.sources._statement_counters import (
    Baseline,
    Comparison,
    Forgotten,
    Key,
    Row,
    by_key,
    without_levels,
)
from agent.sources._statement_examination import examine
from agent.sources._statement_gaps import Gaps, gaps_of
from agent.sources._statement_queries import Link, link
from agent.sources._statement_records import Look
from agent.sources._statement_servers import Sight
from agent.sources._statement_texts import TextReader
from agent.sources._understood import understood
from storage.envelope import Gap

KIND = "pg_stat_statements"
STATEMENTS_A_READING = 100
RESETS_IN_A_ROW = 5


class StatementStatistics:
    """Source `pg_stat_statements`; needs the extension in its database and pg_read_all_stats, nothing else."""

    kind = KIND
    db_type = "postgres"

    def __init__(
        self,
        settings: SourceSettings,
        clock: Clock,
        connect: Callable[[SourceSettings, Clock], Session] = Session,
    ) -> None:
        self._settings = settings
        self.meter = settings.meter
        self._clock = clock
        self._connect = connect
        self._link: Link | None = None
        self._texts = TextReader(settings, clock, connect)
        self._canary_calls = 0
        self._last: tuple[bytes, Bookmark] = (b"", Bookmark())
        self._redactor = Redactor(settings.redact, self.db_type)

    def check(self) -> None:
        """Connects and asks for the extension and the grant; reads no counters, which would be half a look."""
        try:
            self._linked().demand_loaded()
        except SourceError:
            self.close()
            raise

    def strain(self) -> Strain:
        """From the sessions that pg_read_all_stats shows and the limits that everyone may read."""
        try:
            return self._linked().strain()
        except SourceError:
            self.close()
            raise

    def examine(self) -> Iterator[Finding]:
        """From the server's settings, the extension and its counters."""
        return examine(self._settings, lambda: self._connect(self._settings, self._clock), self._clock)

    def version(self) -> str:
        """On a connection of its own."""
        try:
            session = self._connect(self._settings, self._clock)
        except SourceError:
            return ""
        try:
            return session.version
        finally:
            session.drop()

    def run_canary(self, token: str) -> str:  # noqa: ARG002 - the server keeps the text of the first one
        """On a connection of its own; counts its calls before, so that the new one can be told."""
        session = self._connect(self._settings, self._clock)
        try:
            self._canary_calls = _statement_canary.calls(session)
            limit_s = self._settings.db.read_timeout / 2
            _statement_canary.run(session, self._settings.db.min_exec_time_ms, limit_s)
        finally:
            session.drop()
        return canary.NAME

    def shows_canary(self, name: str) -> bool:  # noqa: ARG002
        """By its calls."""
        session = self._connect(self._settings, self._clock)
        try:
            return _statement_canary.calls(session) > self._canary_calls
        finally:
            session.drop()

    def close(self) -> None:
        """Ends the connection."""
        if self._link is not None:
            self._link.session.drop()
            self._link = None

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        """One look, in readings of at most 100 statements; only the last one moves the whole baseline."""
        finished = False
        try:
            known = self._decoded(bookmark)
            rows, began, ended = self._counted()
            with understood():
                after = self._taken(rows, began)
                opening = known.open(began, merged=after.merged).comparable(merged=after.merged)
                found = _compared(opening, after, ended, self._settings.db.min_exec_time_ms)
                gaps = gaps_of(self._settings.watch, opening, found.forgotten, after.taken_at)
            yield from self._readings(found, opening, after, gaps)
            finished = True
        finally:
            if not finished:
                self.close()

    def skip(self) -> Reading:
        """The counters as they are now, as the baseline."""
        try:
            rows, began, _ = self._counted()
            after = self._taken(rows, began)
        except SourceError:
            self.close()
            raise
        detail = "it is not known what was read"
        gap = Gap(self._settings.watch, BOOKMARK_LOST, None, after.taken_at, None, detail)
        return Reading((), self._encoded(Bookmark(after, forgot_at=began.began_before)), (gap,))

    # -- one look ----------------------------------------------------------------------------------------------

    def _taken(self, rows: dict[Key, Row], began: Sight) -> Baseline:
        is_merged = not self._linked().shape.has_levels
        return Baseline(rows=rows, taken_at=self._clock.now().isoformat(), sight=began, merged=is_merged)

    def _decoded(self, bookmark: bytes | None) -> Bookmark:
        # What was encoded last is mostly what comes back: then thousands of rows need not be decoded again.
        encoded, known = self._last
        if bookmark is None or bookmark != encoded:
            known = decode(bookmark) if bookmark else Bookmark()
        return known

    @understood()
    def _encoded(self, bookmark: Bookmark) -> bytes:
        self._last = (bookmark.encode(), bookmark)
        return self._last[0]

    def _readings(self, found: Comparison, opening: Opening, after: Baseline, gaps: Gaps) -> Iterator[Reading]:
        """The bookmark of the first says already which server it is; only that of the last has the whole baseline."""
        slow, whole = found.slow, opening.bookmark.at(after)
        told = gaps.of_the_server
        if not slow:
            yield Reading((), self._encoded(whole), told + gaps.of_statements, found.coverage)
            return
        of_the_server = self._linked()
        look = Look(
            kind=KIND,
            watch=self._settings.watch,
            at=datetime.fromisoformat(after.taken_at or ""),
            counting=f"{after.sight.system} {after.sight.reset or after.sight.run_at}",
            databases=of_the_server.databases(),
            roles=of_the_server.roles(),
            marker=MARKER,
            redactor=self._redactor,
        )
        ahead = dict(opening.before.ahead)
        for start in range(0, len(slow), STATEMENTS_A_READING):
            part = slow[start : start + STATEMENTS_A_READING]
            self.meter.read(max(0, len(after.rows) - len(part)))  # each text is searched among all of them
            texts = self._texts.read(of_the_server, part)
            with understood():
                records = look.records(part, texts)
            ahead.update({delta.key: delta.row for delta in part})
            is_last = start + STATEMENTS_A_READING >= len(slow)
            part_way = opening.bookmark.at(replace(opening.before, ahead=dict(ahead), ahead_at=after.taken_at))
            told += gaps.of_statements if is_last else ()
            yield Reading(records, self._encoded(whole if is_last else part_way), told, found.coverage)
            told = ()

    # -- reads -------------------------------------------------------------------------------------------------

    def _counted(self) -> tuple[dict[Key, Row], Sight, Sight]:
        """The counters, all of one counting, and the server as it was before and behind them."""
        of_the_server = self._linked()
        began = of_the_server.sight()
        for _ in range(RESETS_IN_A_ROW):
            rows = of_the_server.counters()
            ended = of_the_server.sight()
            if ended.reset == began.reset:  # then it was so all the while
                with understood():
                    return by_key(rows), began, ended
            began = ended
        raise SetupError("the counters were reset again and again while they were read")

    def _linked(self) -> Link:
        if self._link is None or not self._link.session.is_open:
            self.close()
            session = self._connect(self._settings, self._clock)
            try:
                self._link = link(session)
            except SourceError:
                session.drop()
                raise
        return self._link


def _compared(opening: Opening, after: Baseline, ended: Sight, min_ms: float) -> Comparison:
    if not opening.recognised.is_unread:
        return Comparison([], Forgotten(), None)
    rows = without_levels(after.rows) if opening.before.merged and not after.merged else after.rows
    return opening.before.compare(rows, ended, min_ms)


SOURCE = StatementStatistics
