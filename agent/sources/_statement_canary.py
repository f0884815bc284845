"""One slow statement of our own that shall be counted: marked by its name, in need of no grant but a login.

Without the marker of our other statements, and always the same: the server keeps the text of the first one, and a
place for each kind of statement.
"""

from __future__ import annotations

from agent import canary
from agent.source_errors import CanaryTooSlow
from agent.sources._postgres_session import MARKER, Session
from agent.sources._statement_queries import shape_of

MORE_S, AT_MOST_S = 0.1, 10.0
_STATEMENT = f"SELECT pg_sleep(%s) AS {canary.NAME}"
_CALLS = f"""
    SELECT {MARKER} coalesce(sum(calls), 0)::bigint FROM {{schema}}.pg_stat_statements
    WHERE query LIKE 'SELECT pg\\_sleep(%) AS {canary.NAME}'
        AND userid = (SELECT oid FROM pg_roles WHERE rolname = current_user)
"""


def run(session: Session, min_exec_time_ms: float, limit_s: float) -> None:
    """Runs it for a little longer than what counts as slow.

    Raises CanaryTooSlow when that is more than `limit_s` or 10 s, else what the session does.
    """
    lasts_s = min_exec_time_ms / 1_000 + MORE_S
    if lasts_s > min(limit_s, AT_MOST_S):
        raise CanaryTooSlow(f"min_exec_time_ms is {min_exec_time_ms:g}")
    session.rows(_STATEMENT, (lasts_s,))


def calls(session: Session) -> int:
    """How often the server has counted it. Raises what the session does, or a SetupError that names what is missing."""
    ((count,),) = session.rows(shape_of(session).fill(_CALLS))
    return int(count)
