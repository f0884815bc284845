"""Reads pg_stat_statements of PostgreSQL: what each statement did between two looks, from counters and a baseline.

Counters and texts are read apart: one text that is invalid in its encoding makes every read of texts fail, and the
texts are needed for what is sent only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from agent.clock import Clock
from agent.errors import SetupError, SourceError, StatementsNotCreated, StatementsNotGranted
from agent.sources import BOOKMARK_LOST, Reading, SourceSettings, Strain
from agent.sources._postgres_session import MARKER, Session
from agent.sources._statement_counters import KEY_LENGTH, Baseline, Delta, Key, Row, by_key, decode, merged
from agent.sources._statement_records import Look, Texts
from storage.envelope import Gap

KIND = "pg_stat_statements"
STATEMENTS_A_READING = 100
RESETS_IN_A_ROW = 5

_EXTENSION = f"""
    SELECT {MARKER} quote_ident(n.nspname), pg_has_role('pg_read_all_stats', 'USAGE'),
        has_schema_privilege(n.oid, 'USAGE')
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'
"""
_COLUMNS = f"SELECT {MARKER} * FROM {{schema}}.pg_stat_statements(false) LIMIT 0"
_COUNTERS = f"""
    SELECT {MARKER} userid, dbid, queryid, {{toplevel}}, calls, {{total}}, {{maximum}}, rows, {{since}}
    FROM {{schema}}.pg_stat_statements(false) WHERE queryid IS NOT NULL AND calls > 0
"""
# Before 1.9 a statement has a row for its calls by clients and one for those by functions, and nothing to tell which.
_COUNTERS_BEFORE_1_9 = f"""
    SELECT {MARKER} userid, dbid, queryid, true, sum(calls)::bigint, sum({{total}}), max({{maximum}}),
        sum(rows)::bigint, NULL::float8
    FROM {{schema}}.pg_stat_statements(false) WHERE queryid IS NOT NULL AND calls > 0 GROUP BY 1, 2, 3
"""
_HAS_INFO = f"SELECT {MARKER} to_regclass('{{schema}}.pg_stat_statements_info') IS NOT NULL"
# Asked behind the counters: a grant that is gone hides rows, a reset in between changes what they mean. As
# seconds, because as text the same moment looks different in another time zone.
_GRANTED = f"SELECT {MARKER} pg_has_role('pg_read_all_stats', 'USAGE'), NULL"
_GRANTED_AND_RESET = f"""
    SELECT {MARKER} pg_has_role('pg_read_all_stats', 'USAGE'), extract(epoch FROM stats_reset)::text
    FROM {{schema}}.pg_stat_statements_info
"""
_TEXTS = f"""
    SELECT {MARKER} userid, dbid, queryid, {{toplevel}}, left(query, %s),
        CASE WHEN octet_length(convert_to(query, 'UTF8')) > %s THEN encode(sha256(convert_to(query, 'UTF8')), 'hex') END
    FROM {{schema}}.pg_stat_statements(true) WHERE queryid = ANY (%s)
"""
# Only clients take the places that max_connections counts; autovacuum and parallel workers have places of their own.
_STRAIN = f"""
    SELECT {MARKER} (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int
"""
_DATABASES = f"SELECT {MARKER} oid, datname FROM pg_database"
_ROLES = f"SELECT {MARKER} oid, rolname FROM pg_roles"


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the installed version of the extension (not of the server) offers."""

    schema: str
    toplevel: str
    total: str
    maximum: str
    since: str
    has_info: bool

    @property
    def has_levels(self) -> bool:
        """Whether calls by clients and calls by functions are told apart."""
        return self.toplevel == "toplevel"

    def fill(self, sql: str) -> str:
        names = {"schema": self.schema, "toplevel": self.toplevel, "since": self.since}
        return sql.format(**names, total=self.total, maximum=self.maximum)


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
        self._session: Session | None = None
        self._shape: _Shape | None = None
        self._last: tuple[bytes, Baseline] = (b"", Baseline())
        self._statements = 0  # that the server counted when it was asked last

    def check(self) -> None:
        """Connects and asks for the extension and the grant."""
        try:
            self._counters(*self._connected())
        except SourceError:
            self.close()
            raise

    def strain(self) -> Strain:
        """From the sessions that pg_read_all_stats shows and the limits that everyone may read."""
        try:
            ((connected, allowed),) = self._connected()[0].rows(_STRAIN)
        except SourceError:
            self.close()
            raise
        return Strain(connected - 1, allowed - 1)

    def close(self) -> None:
        """Ends the connection."""
        if self._session is not None:
            self._session.drop()
            self._session = None

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        """One look, in readings of at most 100 statements; only the last one moves the whole baseline."""
        finished = False
        try:
            before = self._baseline(bookmark)
            rows, reset = self._counted(before.stats_reset)
            after = self._taken(rows, reset)
            if before.merged != after.merged and before.taken_at is not None:
                # The extension was updated in between: what both looks can tell is compared.
                rows = merged(rows)
                before = replace(before, rows=merged(before.rows), ahead=merged(before.ahead))
            found = before.compare(rows, reset, self._settings.db.min_exec_time_ms)
            gaps = self._gaps(before, after, found.forgotten)
            yield from self._readings(found.slow, before, after, gaps)
            finished = True
        finally:
            if not finished:
                self.close()

    def skip(self) -> Reading:
        """The counters as they are now, as the baseline."""
        try:
            rows, reset = self._counted(None)
            after = self._taken(rows, reset)
        except SourceError:
            self.close()
            raise
        detail = "it is not known what was read"
        gap = Gap(self._settings.watch, BOOKMARK_LOST, None, after.taken_at, None, detail)
        return Reading((), self._encode(after), (gap,))

    # -- one look ----------------------------------------------------------------------------------------------

    def _taken(self, rows: dict[Key, Row], reset: str | None) -> Baseline:
        is_merged = not self._connected()[1].has_levels
        return Baseline(rows=rows, taken_at=self._clock.now().isoformat(), stats_reset=reset, merged=is_merged)

    def _baseline(self, bookmark: bytes | None) -> Baseline:
        # What was encoded last is mostly what comes back: then thousands of rows need not be decoded again.
        encoded, baseline = self._last
        if bookmark is None or bookmark != encoded:
            baseline = decode(bookmark) if bookmark else Baseline()
        return baseline

    def _encode(self, baseline: Baseline) -> bytes:
        self._last = (baseline.encode(), baseline)
        return self._last[0]

    def _gaps(self, before: Baseline, after: Baseline, lost: int) -> tuple[Gap, ...]:
        """What was counted between the last look and the moment the server forgot it."""
        if before.was_reset(after.stats_reset):
            reason, detail = "reset", "the counters were reset between two looks"
        elif lost:
            reason, detail = "evicted", f"the server dropped the counters of {lost} statements between two looks"
        else:
            return ()
        return (Gap(self._settings.watch, reason, before.taken_at, after.taken_at, None, detail),)

    def _readings(
        self, slow: Sequence[Delta], before: Baseline, after: Baseline, gaps: tuple[Gap, ...]
    ) -> Iterator[Reading]:
        if not slow:
            yield Reading((), self._encode(after), gaps)
            return
        session, shape = self._connected()
        look = Look(
            kind=KIND,
            watch=self._settings.watch,
            at=datetime.fromisoformat(after.taken_at or ""),
            databases=self._names(session, _DATABASES),
            roles=self._names(session, _ROLES),
            marker=MARKER,
        )
        ahead = dict(before.ahead) if before.ahead_reset == after.stats_reset else {}
        for start in range(0, len(slow), STATEMENTS_A_READING):
            part = slow[start : start + STATEMENTS_A_READING]
            records = look.records(part, self._texts(session, shape, part))
            ahead.update({delta.key: delta.row for delta in part})
            is_last = start + STATEMENTS_A_READING >= len(slow)
            bookmark = after if is_last else _part_way(before, after, ahead)
            yield Reading(records, self._encode(bookmark), gaps if is_last else ())

    # -- reads -------------------------------------------------------------------------------------------------

    def _counted(self, known: str | None) -> tuple[dict[Key, Row], str | None]:
        """The counters, and since when all of them count, of the same time; `known`: as it was at the last look."""
        session, shape = self._connected()
        for _ in range(RESETS_IN_A_ROW):
            rows = self._counters(session, shape)
            reset = self._reset_time(session, shape)
            if reset == known:  # then it was so all the while
                return by_key(rows), reset
            known = reset
        raise SetupError("the counters were reset again and again while they were read")

    def _counters(self, session: Session, shape: _Shape) -> list[Row]:
        sql = _COUNTERS if shape.has_levels else _COUNTERS_BEFORE_1_9
        rows = cast("list[Row]", session.rows(shape.fill(sql)))
        self._statements = len(rows)
        return rows

    def _reset_time(self, session: Session, shape: _Shape) -> str | None:
        ((granted, reset),) = session.rows(shape.fill(_GRANTED_AND_RESET if shape.has_info else _GRANTED))
        if not granted:
            raise StatementsNotGranted
        return None if reset is None else str(reset)

    def _names(self, session: Session, sql: str) -> dict[int, str]:
        try:
            return dict(session.rows(sql))
        except SetupError:  # one name that is not valid in its encoding makes all unreadable
            return {}

    def _texts(self, session: Session, shape: _Shape, deltas: Sequence[Delta]) -> Texts | str:
        """The text of each statement with the sha256 of the whole when it was cut; or why there are none."""
        limit = self._settings.db.max_sql_text_bytes
        queryids = list({delta.key[2] for delta in deltas})
        try:
            rows = session.rows(shape.fill(_TEXTS), (limit, limit, queryids))
        except SetupError as error:
            return error.detail[:100] or error.sentence
        self.meter.read(max(0, self._statements - len(rows)))  # each text is searched among all of them
        return {cast("Key", row[:KEY_LENGTH]): (_cut(row[4], limit), row[5]) for row in rows if row[4] is not None}

    def _connected(self) -> tuple[Session, _Shape]:
        if self._session is None or self._shape is None or not self._session.is_open:
            self._session = self._connect(self._settings, self._clock)
            self._shape = _shape_of(self._session)
        return self._session, self._shape


def _cut(text: str, limit_bytes: int) -> str:
    return text if len(text) * 4 <= limit_bytes else text.encode()[:limit_bytes].decode("utf-8", "ignore")


def _part_way(before: Baseline, after: Baseline, ahead: dict[Key, Row]) -> Baseline:
    # A first look that is cut off has no reset time of its own; without one nobody would notice a reset before its end.
    reset = before.stats_reset if before.stats_reset is not None else after.stats_reset
    return replace(before, stats_reset=reset, ahead=dict(ahead), ahead_at=after.taken_at, ahead_reset=after.stats_reset)


def _shape_of(session: Session) -> _Shape:
    found = session.rows(_EXTENSION)
    if not found:
        raise StatementsNotCreated
    ((schema, granted, is_open),) = found
    if not granted:
        raise StatementsNotGranted
    if not is_open:
        raise SetupError(f"the extension lives in a schema of its own: GRANT USAGE ON SCHEMA {schema} TO the user")
    columns = session.columns(_COLUMNS.format(schema=schema))
    ((has_info,),) = session.rows(_HAS_INFO.format(schema=schema.replace("'", "''")))
    return _Shape(
        schema=schema,
        toplevel="toplevel" if "toplevel" in columns else "true",
        total="total_exec_time" if "total_exec_time" in columns else "total_time",
        maximum="max_exec_time" if "max_exec_time" in columns else "max_time",
        since="extract(epoch FROM stats_since)::float8" if "stats_since" in columns else "NULL::float8",
        has_info=bool(has_info),
    )


SOURCE = StatementStatistics
