"""Why mysql.slow_log gives what it gives: everything that keeps rows out of it, or the agent from reading them.

Asks and says; changes nothing, not even a bookmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.clock import Clock
from agent.finding import Finding, hint, right, skipped, wrong
from agent.source_errors import RotationRefused, SlowLogLarge, SlowLogNarrow, SlowLogOff, SourceError
from agent.sources import SourceSettings
from agent.sources._examination import compared_clock, encryption, tried
from agent.sources._mysql_session import Session
from agent.sources._slow_log_place import OLD
from agent.sources._slow_log_rotation import holds_rows
from agent.sources._slow_log_tables import Tables
from agent.sources._understood import understood

_VARIABLES = """
    SHOW GLOBAL VARIABLES WHERE Variable_name IN (
        'slow_query_log', 'log_output', 'long_query_time', 'min_examined_row_limit',
        'log_throttle_queries_not_using_indexes', 'log_queries_not_using_indexes', 'log_slow_admin_statements',
        'log_slow_replica_statements', 'log_slow_slave_statements', 'log_slow_rate_limit',
        'log_slow_disabled_statements')
"""
_FILTER = """
    SELECT GLOBAL_VALUE, DEFAULT_VALUE FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'LOG_SLOW_FILTER'
"""
_TLS = "SHOW SESSION STATUS LIKE 'Ssl_version'"
_NOW = "SELECT UNIX_TIMESTAMP(NOW(6))"
_WHO = "SELECT CURRENT_USER()"

# What takes longer is what few call slow; the server's own default is 10 s.
LONG_S = 5.0
LONG_SCAN_S = 0.5
_OFF = {"OFF", "0", ""}


def examine(settings: SourceSettings, tables: Tables, clock: Clock) -> Iterator[Finding]:
    """Each thing that matters, in the order in which a person would mend it. Raises nothing; leaves a connection."""
    began_s = clock.monotonic()
    try:
        session = tables.connected()
        variables = _variables(session)
        who = _who(session)
    except SourceError as error:
        yield wrong("login", error)
        yield skipped("slow log", "the database has to be reached first")
        return
    took_ms = (clock.monotonic() - began_s) * 1_000
    yield right("login", f"{_name(session)} takes {who}, in {took_ms:.0f} ms")
    yield from tried("encryption", lambda: encryption(settings.db.host, _tls(session)))
    yield from tried("clock", lambda: compared_clock(lambda: float(session.rows(_NOW)[0][0]), clock))
    yield from tried("slow_query_log", lambda: _switch(variables))
    yield from tried("log_output", lambda: _output(variables))
    yield from _filters(session, variables)
    yield from tried("mysql.slow_log", lambda: _table(tables, clock))
    if settings.db.rotate:
        yield from tried("rotation", lambda: _rotation(session))


@understood()
def _variables(session: Session) -> dict[str, str]:
    """Those that the server has; NULL is as good as none."""
    found = session.rows(_VARIABLES)
    return {name.decode(): value.decode("utf-8", "replace") for name, value in found if value is not None}


@understood()
def _who(session: Session) -> str:
    ((who,),) = session.rows(_WHO)
    return str(who.decode("utf-8", "replace"))


def _name(session: Session) -> str:
    return f"{'MariaDB' if session.is_mariadb else 'MySQL'} {session.version.split('-')[0]}"


def _tls(session: Session) -> str | None:
    rows = session.rows(_TLS)
    return rows[0][1].decode() if rows and rows[0][1] else None


def _switch(variables: Mapping[str, str]) -> Finding:
    if variables["slow_query_log"] in _OFF:
        return wrong("slow_query_log", SlowLogOff("slow_query_log=OFF"))
    return right("slow_query_log", "ON")


def _output(variables: Mapping[str, str]) -> Finding:
    outputs = variables["log_output"].split(",")
    if "TABLE" in outputs and "NONE" not in outputs:
        return right("log_output", variables["log_output"])
    return wrong("log_output", SlowLogOff(f"log_output={variables['log_output']}"))


def _filters(session: Session, variables: Mapping[str, str]) -> Iterator[Finding]:
    """What keeps statements out of the log although they take long."""
    yield from tried("long_query_time", lambda: _long(variables))
    yield from tried("min_examined_row_limit", lambda: _few_rows(variables))
    yield from tried("log_throttle_queries_not_using_indexes", lambda: _throttle(variables))
    yield from tried("log_slow_rate_limit", lambda: _rate(variables))
    yield from tried("log_slow_filter", lambda: _filter(session))
    yield right("left out", _left_out(variables))


def _long(variables: Mapping[str, str]) -> Finding:
    long_s = float(variables["long_query_time"])
    if long_s > LONG_S:
        sentence = f"long_query_time={long_s:g}: only what takes {long_s:g} s or more"
        return hint("long_query_time", SlowLogNarrow(sentence))
    return right("long_query_time", f"statements of {long_s:g} s or more; open connections keep what they began with")


def _few_rows(variables: Mapping[str, str]) -> Finding | None:
    rows = int(variables["min_examined_row_limit"])
    sentence = f"min_examined_row_limit={rows}: nothing that examined fewer rows"
    return hint("min_examined_row_limit", SlowLogNarrow(sentence)) if rows else None


def _throttle(variables: Mapping[str, str]) -> Finding | None:
    name = "log_throttle_queries_not_using_indexes"
    throttle = int(variables.get(name, "0"))
    if not throttle or variables["log_queries_not_using_indexes"] in _OFF:
        return None
    return hint(name, SlowLogNarrow(f"{name}={throttle}: of those without an index so many a minute"))


def _rate(variables: Mapping[str, str]) -> Finding | None:
    every = int(variables.get("log_slow_rate_limit", "1"))
    sentence = f"log_slow_rate_limit={every}: one statement of {every}"
    return hint("log_slow_rate_limit", SlowLogNarrow(sentence)) if every > 1 else None


def _filter(session: Session) -> Finding:
    found = session.rows(_FILTER) if session.is_mariadb else []
    if found and found[0][0] != found[0][1]:
        kinds = found[0][0].decode() or "none"
        return hint("log_slow_filter", SlowLogNarrow(f"log_slow_filter={kinds}: statements of these kinds only"))
    return right("log_slow_filter", "all kinds of statements")


def _left_out(variables: Mapping[str, str]) -> str:
    """Two kinds of statements that both servers may leave out; the second variable has had two names."""
    replication = variables.get("log_slow_replica_statements", variables.get("log_slow_slave_statements", "ON"))
    disabled = set(variables.get("log_slow_disabled_statements", "").split(","))
    left = [
        what
        for what, is_left in (
            (
                "administrative statements",
                variables.get("log_slow_admin_statements", "ON") in _OFF or "admin" in disabled,
            ),
            ("statements of replication", replication in _OFF or "slave" in disabled),
            ("calls of procedures", "call" in disabled),
            ("statements in procedures", "sp" in disabled),
        )
        if is_left
    ]
    return f"{', '.join(left)}: not logged, as the server is set" if left else "nothing"


def _table(tables: Tables, clock: Clock) -> Finding:
    """Whether it may be read, and what a look costs."""
    began_s = clock.monotonic()
    rows = tables.count()
    tables.row(max(0, rows - 1))
    scan_s = (clock.monotonic() - began_s) / 2  # each of the two is a scan of all of it
    said = f"{rows:,} rows, {scan_s:.2f} s for each look" if rows else "may be read, and is empty"
    if scan_s > LONG_SCAN_S:
        return hint("mysql.slow_log", SlowLogLarge(said))
    return right("mysql.slow_log", said)


def _rotation(session: Session) -> Finding:
    try:
        holds_rows(session, OLD)
    except SourceError as error:
        return wrong("rotation", RotationRefused(error.detail))
    return right("rotation", f"the agent may read mysql.{OLD}; what it may not do shows at the first rotation (MY-06)")
