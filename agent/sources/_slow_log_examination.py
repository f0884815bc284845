"""Why mysql.slow_log gives what it gives: everything that keeps rows out of it, or the agent from reading them.

Asks and says; changes nothing, not even a bookmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.clock import Clock
from agent.errors import RotationRefused, SlowLogLarge, SlowLogNarrow, SlowLogOff, SourceError
from agent.finding import Finding, hint, right, skipped, wrong
from agent.sources import SourceSettings
from agent.sources._examination import compared_clock, encryption, tried
from agent.sources._mysql_session import Session
from agent.sources._slow_log_place import OLD
from agent.sources._slow_log_rotation import holds_rows
from agent.sources._slow_log_tables import Tables

_VARIABLES = """
    SHOW GLOBAL VARIABLES WHERE Variable_name IN (
        'version', 'version_comment', 'slow_query_log', 'log_output', 'long_query_time', 'min_examined_row_limit',
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
        variables = {name.decode(): value.decode("utf-8", "replace") for name, value in session.rows(_VARIABLES)}
        ((who,),) = session.rows(_WHO)
        tls = session.rows(_TLS)
    except SourceError as error:
        yield wrong("login", error)
        yield skipped("slow log", "the database has to be reached first")
        return
    took_ms = (clock.monotonic() - began_s) * 1_000
    yield right("login", f"{_name(variables)} takes {who.decode()}, in {took_ms:.0f} ms")
    yield encryption(settings.db.host, _text(tls))
    yield from tried("clock", lambda: compared_clock(lambda: float(session.rows(_NOW)[0][0]), clock))
    yield from _switches(variables)
    yield from _filters(session, variables)
    yield from tried("mysql.slow_log", lambda: _table(tables, clock))
    if settings.db.rotate:
        yield from tried("rotation", lambda: _rotation(session))


def _name(variables: Mapping[str, str]) -> str:
    version = variables["version"]
    return f"{'MariaDB' if 'mariadb' in version.lower() else 'MySQL'} {version.split('-')[0]}"


def _text(rows: list[tuple[bytes, bytes]]) -> str | None:
    return rows[0][1].decode() if rows and rows[0][1] else None


def _switches(variables: Mapping[str, str]) -> Iterator[Finding]:
    if variables["slow_query_log"] in _OFF:
        yield wrong("slow_query_log", SlowLogOff("slow_query_log=OFF"))
    else:
        yield right("slow_query_log", "ON")
    outputs = variables["log_output"].split(",")
    if "TABLE" in outputs and "NONE" not in outputs:
        yield right("log_output", variables["log_output"])
    else:
        yield wrong("log_output", SlowLogOff(f"log_output={variables['log_output']}"))


def _filters(session: Session, variables: Mapping[str, str]) -> Iterator[Finding]:
    """What keeps statements out of the log although they take long."""
    long_s = float(variables["long_query_time"])
    if long_s > LONG_S:
        yield hint(
            "long_query_time", SlowLogNarrow(f"long_query_time={long_s:g}: only what takes {long_s:g} s or more")
        )
    else:
        yield right(
            "long_query_time", f"statements of {long_s:g} s or more; open connections keep what they began with"
        )
    rows = int(variables["min_examined_row_limit"])
    if rows:
        sentence = f"min_examined_row_limit={rows}: nothing that examined fewer rows"
        yield hint("min_examined_row_limit", SlowLogNarrow(sentence))
    throttle = int(variables.get("log_throttle_queries_not_using_indexes", "0"))
    if throttle and variables["log_queries_not_using_indexes"] not in _OFF:
        sentence = f"log_throttle_queries_not_using_indexes={throttle}: of those without an index so many a minute"
        yield hint("log_throttle_queries_not_using_indexes", SlowLogNarrow(sentence))
    every = int(variables.get("log_slow_rate_limit", "1"))
    if every > 1:
        yield hint("log_slow_rate_limit", SlowLogNarrow(f"log_slow_rate_limit={every}: one statement of {every}"))
    yield from tried("log_slow_filter", lambda: _filter(session))
    yield right("left out", _left_out(variables))


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
