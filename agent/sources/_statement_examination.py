"""Why pg_stat_statements gives what it gives: what keeps statements out of it, or the agent from them.

Asks and says; changes nothing, not even a bookmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from agent.clock import Clock
from agent.finding import Finding, hint, right, skipped, wrong
from agent.source_errors import (
    SourceError,
    StatementsCrowded,
    StatementsNotCounted,
    StatementsNotCreated,
    StatementsNotGranted,
    StatementsNotLoaded,
)
from agent.sources import SourceSettings
from agent.sources._examination import compared_clock, encryption, tried
from agent.sources._postgres_session import MARKER, Session
from agent.sources._statement_queries import Shape, shape_of
from agent.sources._understood import understood

_WHO = f"""
    SELECT {MARKER} current_setting('server_version'), current_user, current_database()
"""
_TLS = f"SELECT {MARKER} (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
_NOW = f"SELECT {MARKER} extract(epoch FROM clock_timestamp())::float8"
# Not current_setting(): what is only written in the configuration of a server that has not loaded it is found there.
_SETTINGS = f"""
    SELECT {MARKER} name, setting FROM pg_settings
    WHERE name IN ('pg_stat_statements.max', 'pg_stat_statements.track', 'compute_query_id')
"""
_INSTALLED = f"""
    SELECT {MARKER} (SELECT extversion FROM pg_extension WHERE extname = 'pg_stat_statements'),
        (SELECT default_version FROM pg_available_extensions WHERE name = 'pg_stat_statements'),
        pg_has_role('pg_read_all_stats', 'USAGE')
"""
_PLACES = f"SELECT {MARKER} count(*) FROM {{schema}}.pg_stat_statements(false)"
_DEALLOC = f"SELECT {MARKER} dealloc, stats_reset::text FROM {{schema}}.pg_stat_statements_info"
_SLOW = f"""
    SELECT {MARKER} count(*), count(*) FILTER (WHERE {{maximum}} >= %s) FROM {{schema}}.pg_stat_statements(false)
    WHERE queryid IS NOT NULL
"""
_TEXTS = f"SELECT {MARKER} count(query) FROM {{schema}}.pg_stat_statements"

NEAR_FULL = 0.95


def examine(settings: SourceSettings, connect: Callable[[], Session], clock: Clock) -> Iterator[Finding]:
    """Each thing that matters, in the order in which a person would mend it. Raises nothing; leaves no connection."""
    began_s = clock.monotonic()
    try:
        session = connect()
    except SourceError as error:
        yield wrong("login", error)
        yield skipped("pg_stat_statements", "the database has to be reached first")
        return
    try:
        took_ms = (clock.monotonic() - began_s) * 1_000
        yield from tried("login", lambda: _login(session, took_ms))
        yield from tried("encryption", lambda: encryption(settings.db.host, session.rows(_TLS)[0][0]))
        yield from tried("clock", lambda: compared_clock(lambda: float(session.rows(_NOW)[0][0]), clock))
        yield from _statements(session, settings)
    finally:
        session.drop()


def _login(session: Session, took_ms: float) -> Finding:
    ((version, user, database),) = session.rows(_WHO)
    return right("login", f"PostgreSQL {version.split()[0]} takes {user} in database {database}, in {took_ms:.0f} ms")


def _statements(session: Session, settings: SourceSettings) -> Iterator[Finding]:
    try:
        with understood():
            known = {str(name): str(value) for name, value in session.rows(_SETTINGS) if value is not None}
            ((created, available, granted),) = session.rows(_INSTALLED)
    except SourceError as error:
        yield wrong("pg_stat_statements", error)
        return
    is_loaded = "pg_stat_statements.max" in known
    yield right("loaded", "by the server") if is_loaded else wrong("loaded", StatementsNotLoaded())
    if created:
        yield right("created", f"version {created}")
    else:
        why = "" if available else "its files are not on the server; install the package postgresql-contrib first"
        yield wrong("created", StatementsNotCreated(why))
    yield right("grant", "pg_read_all_stats") if granted else wrong("grant", StatementsNotGranted())
    if is_loaded:
        yield from _counting(known)
    if is_loaded and created and granted:
        yield from _contents(session, settings, known["pg_stat_statements.max"])


def _counting(known: Mapping[str, str]) -> Iterator[Finding]:
    yield from tried("track", lambda: _track(known["pg_stat_statements.track"]))
    if known.get("compute_query_id") == "off":
        yield wrong("compute_query_id", StatementsNotCounted("compute_query_id=off"))


def _track(track: str) -> Finding:
    if track == "none":
        return wrong("track", StatementsNotCounted("pg_stat_statements.track=none"))
    if track == "top":
        return right("track", "top: statements of clients, not those in functions (all counts both)")
    return right("track", track)


def _contents(session: Session, settings: SourceSettings, most: str) -> Iterator[Finding]:
    try:
        with understood():
            shape = shape_of(session)
    except SourceError as error:
        yield wrong("readable", error)
        return
    yield from tried("places", lambda: _places(session, shape, int(most)))
    yield from tried("slow statements", lambda: _slow(session, shape, settings.db.min_exec_time_ms))
    try:
        session.rows(shape.fill(_TEXTS))
        yield right("texts", "can be read")
    except SourceError as error:
        yield hint("texts", error)


def _places(session: Session, shape: Shape, most: int) -> Finding:
    ((taken,),) = session.rows(shape.fill(_PLACES))
    said = f"{taken:,} of {most:,} are taken"
    dealloc, since = session.rows(shape.fill(_DEALLOC))[0] if shape.has_info else (0, "")
    if dealloc:
        said += f"; the least used were thrown out {dealloc:,} times since {since}"
    if dealloc or taken >= NEAR_FULL * most:
        return hint("places", StatementsCrowded(said))
    return right("places", said)


def _slow(session: Session, shape: Shape, min_ms: float) -> Finding:
    ((counted, slow),) = session.rows(shape.fill(_SLOW), (min_ms,))
    return right("slow statements", f"{slow:,} of {counted:,} have taken {min_ms:g} ms or more once")
