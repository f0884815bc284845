"""Puts an empty table in the log's place, and drops the old one when all of it is stored. Only where `rotate` is on.

The old table goes to mysql.slow_log_dbpower_old, where the source finds it as it finds any backup, by its rows. So a
swap needs no memory: whenever the agent dies, the rows are in the log or under that name. That a table was read to its
end stands in the bookmark, and only a bookmark that came back from the outbox, with all records before it, lets it be
dropped. The two names are the agent's own; a table there that is not the one it read is left alone.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.source_errors import RotationRefused, SetupError, SlowLogMissing
from agent.sources import SourceSettings
from agent.sources._mysql_session import Session, WritingSession
from agent.sources._slow_log_place import OLD, Place
from agent.sources._slow_log_tables import Tables

NEW = "slow_log_dbpower_new"
_NOT_HERE = """
    SHOW GLOBAL VARIABLES
    WHERE Variable_name IN ('read_only', 'super_read_only', 'innodb_read_only', 'wsrep_on') AND Value <> 'OFF'
"""
_ANY_ROW = "SELECT 1 FROM mysql.{table} LIMIT 1"
_DROP_NEW = f"DROP TABLE mysql.{NEW}"
_CREATE_NEW = f"CREATE TABLE mysql.{NEW} LIKE mysql.slow_log"
_SWAP = f"RENAME TABLE mysql.slow_log TO mysql.{OLD}, mysql.{NEW} TO mysql.slow_log"
_DROP_OLD = f"DROP TABLE mysql.{OLD}"

# Each statement begins with a scan over all that is read already.
LARGE_ROWS = 100_000
LONG_SCAN_S, FEW_ROWS = 0.5, 1_000


class Rotation:
    """Opens a connection that may write for each thing it does, and ends it behind that.

    What the server refuses holds up nothing: it is told at the end of the look. Every method raises DatabaseAway.
    """

    def __init__(
        self, settings: SourceSettings, tables: Tables, connect: Callable[[SourceSettings], Session] = WritingSession
    ) -> None:
        self.is_on = settings.db.rotate
        self._settings, self._tables, self._connect = settings, tables, connect
        self._may_swap = False
        self._refused: RotationRefused | None = None

    def begin(self, place: Place) -> Place:
        """A look begins at `place`, which is stored: drops the table that was read to its end, if it is still that."""
        self._may_swap, self._refused = self.is_on, None
        spent = place.spent_place() if self.is_on else None
        if spent is None:
            return place
        if self._tables.hold(spent, OLD) and self._tables.row(spent.position, OLD) is None and not self._done(_drop):
            return place
        return place.without_spent()

    def swap(self, place: Place, scan_s: float) -> bool:
        """Moves the log, all of which is read, to OLD when it has become large; at most once in a look."""
        is_large = place.position >= LARGE_ROWS or (scan_s > LONG_SCAN_S and place.position >= FEW_ROWS)
        may_swap, self._may_swap = self._may_swap, False
        return may_swap and is_large and place.spent is None and self._done(_swap)

    def demand_success(self) -> None:
        """Raises RotationRefused with what the server said, if it refused something in this look."""
        if self._refused is not None:
            raise self._refused

    def _done(self, what: Callable[[Session], bool]) -> bool:
        session = None
        try:
            session = self._connect(self._settings)
            return what(session)
        except SetupError as error:
            self._refused = RotationRefused(error.detail)
            return False
        finally:
            if session is not None:
                session.drop()


def _swap(session: Session) -> bool:
    """False where that is another server's business: on one that is read only, or a node of a cluster."""
    if session.rows(_NOT_HERE):
        return False
    if holds_rows(session, OLD) is not None:  # and what is moved there can be read there: nothing else is asked
        raise RotationRefused(f"mysql.{OLD} is there and is not known; look at it and drop it")
    left_over = holds_rows(session, NEW)
    if left_over:
        raise RotationRefused(f"mysql.{NEW} is there and holds rows; look at it and drop it")
    if left_over is not None:  # of a swap that was broken off before the RENAME
        session.rows(_DROP_NEW)
    session.rows(_CREATE_NEW)
    session.rows(_SWAP)
    return True


def holds_rows(session: Session, table: str) -> bool | None:
    """None when there is no such table. Raises SlowLogNotGranted, also then."""
    try:
        return bool(session.rows(_ANY_ROW.format(table=table)))
    except SlowLogMissing:
        return None


def _drop(session: Session) -> bool:
    session.rows(_DROP_OLD)
    return True
