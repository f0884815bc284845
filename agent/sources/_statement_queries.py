"""What is asked of PostgreSQL, by the shape of the installed extension. Decides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

from agent.source_errors import AnswerSenseless, SetupError, StatementsNotCreated, StatementsNotGranted
from agent.sources import Strain
from agent.sources._postgres_session import MARKER, Session
from agent.sources._statement_counters import Row
from agent.sources._statement_servers import Sight
from agent.sources._understood import understood

_EXTENSION = f"""
    SELECT {MARKER} quote_ident(n.nspname), pg_has_role('pg_read_all_stats', 'USAGE'),
        has_schema_privilege(n.oid, 'USAGE'), has_function_privilege('pg_control_system()', 'EXECUTE')
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
_OID, _BOOL, _INT8, _FLOAT8 = 26, 16, 20, 701
_COUNTER_TYPES = (_OID, _OID, _INT8, _BOOL, _INT8, _FLOAT8, _FLOAT8, _INT8, _FLOAT8)
_ANY = f"SELECT {MARKER} 1 FROM {{schema}}.pg_stat_statements(false) LIMIT 1"
_HAS_INFO = f"SELECT {MARKER} to_regclass('{{schema}}.pg_stat_statements_info') IS NOT NULL"
# A backend that crashes takes the other processes along, but not the postmaster: its start time would not tell.
_IDENTITY = f"""
    SELECT {MARKER} {{system}}, extract(epoch FROM coalesce(
            (SELECT min(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'),
            pg_postmaster_start_time()))::float8,
        coalesce(host(inet_server_addr()) || ' ' || inet_server_port(), '')
"""
_SYSTEM = "(SELECT system_identifier FROM pg_control_system())"
# Asked before and behind the counters: a grant that is gone hides rows, a reset in between changes what they mean. As
# seconds, because as text the same moment looks different in another time zone.
_STATE = f"""
    SELECT {MARKER} pg_has_role('pg_read_all_stats', 'USAGE'), extract(epoch FROM clock_timestamp())::float8,
        NULL, NULL, NULL
"""
_STATE_AND_INFO = f"""
    SELECT {MARKER} pg_has_role('pg_read_all_stats', 'USAGE'), extract(epoch FROM clock_timestamp())::float8,
        extract(epoch FROM stats_reset)::text, dealloc, (SELECT sum(active_time) FROM pg_stat_database)
    FROM {{schema}}.pg_stat_statements_info
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
class Shape:
    """What the installed version of the extension (not of the server) offers."""

    schema: str
    toplevel: str
    total: str
    maximum: str
    since: str
    system: str
    has_info: bool

    @property
    def has_levels(self) -> bool:
        """Whether calls by clients and calls by functions are told apart."""
        return self.toplevel == "toplevel"

    def fill(self, sql: str) -> str:
        """The statement for this shape."""
        names = {"schema": self.schema, "toplevel": self.toplevel, "since": self.since, "system": self.system}
        return sql.format(**names, total=self.total, maximum=self.maximum)


@dataclass(frozen=True, slots=True)
class Link:
    """A connection, the shape that it found, and what does not change as long as it lasts."""

    session: Session
    shape: Shape
    identity: Sight

    @understood()
    def counters(self) -> list[Row]:
        """Every statement that was called; only those of the own user without pg_read_all_stats."""
        sql = _COUNTERS if self.shape.has_levels else _COUNTERS_BEFORE_1_9
        rows = cast("list[Row]", self.session.rows(self.shape.fill(sql), types=_COUNTER_TYPES))
        # One that is no number spoils the baseline, and every look after that.
        if not math.isfinite(sum(row[4] + row[5] + row[6] + row[7] for row in rows)):
            raise AnswerSenseless("its counters are not finite")
        return rows

    def demand_loaded(self) -> None:
        """Raises what `counters` and `sight` would meet."""
        if self.shape.has_info:
            self.sight()
        else:
            self.session.rows(self.shape.fill(_ANY))

    @understood()
    def sight(self) -> Sight:
        """What the server says of itself now. Raises StatementsNotGranted when it would not say all."""
        sql = _STATE_AND_INFO if self.shape.has_info else _STATE
        ((granted, at, reset, dealloc, active_ms),) = self.session.rows(self.shape.fill(sql))
        if not granted:
            raise StatementsNotGranted
        reset = None if reset is None else str(reset)
        dealloc = None if dealloc is None else int(dealloc)
        active_ms = None if active_ms is None else float(active_ms)
        found = replace(self.identity, at=float(at), reset=reset, dealloc=dealloc, active_ms=active_ms)
        if not math.isfinite(found.at + found.run_at + float(reset or 0) + (active_ms or 0)):
            raise AnswerSenseless("its moments are not finite")
        return found

    @understood()
    def strain(self) -> Strain:
        """The connections that other clients use, and may use."""
        ((connected, allowed),) = self.session.rows(_STRAIN)
        return Strain(connected - 1, allowed - 1)

    def is_granted(self) -> bool:
        """Whether the server still shows what others do."""
        try:
            self.sight()
        except StatementsNotGranted:
            return False
        return True

    def databases(self) -> dict[int, str]:
        """Names by oid."""
        return self._names(_DATABASES)

    def roles(self) -> dict[int, str]:
        """Names by oid."""
        return self._names(_ROLES)

    @understood()
    def _names(self, sql: str) -> dict[int, str]:
        try:
            return {oid: str(name) for oid, name in self.session.rows(sql)}
        except SetupError:  # one name that is not valid in its encoding makes all unreadable
            return {}


@understood()
def link(session: Session) -> Link:
    """Asks for the extension, the grants and the server. Raises a SetupError that names what is missing."""
    shape = shape_of(session)
    ((system, run_at, address),) = session.rows(shape.fill(_IDENTITY))
    return Link(session, shape, Sight(system=int(system), run_at=float(run_at), address=str(address)))


@understood()
def shape_of(session: Session) -> Shape:
    """What the extension offers in the database of the session. Raises a SetupError that names what is missing."""
    found = session.rows(_EXTENSION)
    if not found:
        raise StatementsNotCreated
    ((schema, granted, is_open, names_system),) = found
    if not granted:
        raise StatementsNotGranted
    if not is_open:
        raise SetupError(f"the extension lives in a schema of its own: GRANT USAGE ON SCHEMA {schema} TO the user")
    columns = session.columns(_COLUMNS.format(schema=schema))
    ((has_info,),) = session.rows(_HAS_INFO.format(schema=schema.replace("'", "''")))
    return Shape(
        schema=schema,
        toplevel="toplevel" if "toplevel" in columns else "true",
        total="total_exec_time" if "total_exec_time" in columns else "total_time",
        maximum="max_exec_time" if "max_exec_time" in columns else "max_time",
        since="extract(epoch FROM stats_since)::float8" if "stats_since" in columns else "NULL::float8",
        system=_SYSTEM if names_system else "0",
        has_info=bool(has_info),
    )
