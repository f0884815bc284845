"""One slow statement of our own that shall be logged: short, marked by its name, in need of no grant but a login."""

from __future__ import annotations

from contextlib import suppress

from agent.source_errors import SetupError
from agent.sources._mysql_session import Session

LASTS_S = 0.2
_IS_SLOW = f"SET SESSION long_query_time={LASTS_S / 4}"
_EXAMINES_NOTHING = "SET SESSION min_examined_row_limit=0"
_STATEMENT = f"SELECT SLEEP({LASTS_S}) AS {{name}}"
_LOGGED = "SELECT COUNT(*) FROM mysql.slow_log WHERE LOCATE('{name}', sql_text) > 0"


def run(session: Session, name: str) -> None:
    """Runs it on a session that is used for nothing else. Raises what the session does."""
    session.rows(_IS_SLOW)
    with suppress(SetupError):  # MySQL allows it to few; where the server has no limit nothing is missed
        session.rows(_EXAMINES_NOTHING)
    session.rows(_STATEMENT.format(name=name))


def is_logged(session: Session, name: str) -> bool:
    """Whether it stands in mysql.slow_log. Raises what the session does."""
    ((rows,),) = session.rows(_LOGGED.format(name=name))
    return int(rows) > 0
