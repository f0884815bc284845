"""A server's slow log as a model: tables with rows, a counter, a clock that can be set, clients in other zones.

`FakeSession` stands in for the connection of the source; everything above it is the source's own code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from datetime import UTC, datetime

from agent.clock import Clock
from agent.source_errors import DatabaseAway, SetupError, SlowLogMissing, SlowLogNotGranted
from agent.sources._mysql_session import Row, Session
from agent.sources._slow_log_place import LIVE

BACKUP = "slow_log_backup"
CHUNK = 3  # small, so that a look has many places to be cut short at
QUERY_S = 1.0
_RENAME = re.compile(r"mysql\.(\w+) TO mysql\.(\w+)")
_TABLE = re.compile(r"(?:TABLE|FROM) mysql\.(\w+)")
_FROM = re.compile(r"FROM mysql\.`(\w+)` LIMIT (\d+), (\d+)")


class TurnedClock(Clock):
    """The agent's, turned by hand."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def unix(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class FakeServer:
    """`zone_s`: of the server and of clients that say nothing else; `clock_s`: its clock; `ran_s`: true seconds."""

    def __init__(self, clock: TurnedClock) -> None:
        self.clock = clock
        self.tables: dict[str, list[Row]] = {LIVE: []}
        self.unreadable: set[str] = set()
        self.waiting: list[tuple[int, int, bool]] = []  # counted, not written yet
        self.started_at: dict[str, float] = {}  # text to the true start, by the server's clock
        self.slow_queries = self.zone_s = 0
        self.read_only = False
        self.lost_at: tuple[int, bool] | None = None  # the how manieth change loses the connection; if it is done
        self.changes = 0
        self.on_drop: Callable[[list[Row]], None] = lambda _: None
        self.clock_s = clock.unix()
        self.since_s = self.clock_s - 604_800

    @property
    def log(self) -> list[Row]:
        return self.tables[LIVE]

    def advance(self, seconds: int) -> None:
        self.clock_s += seconds
        self.clock.seconds += seconds

    def restart(self, down_s: int) -> None:
        self.advance(down_s)
        self.slow_queries, self.since_s, self.waiting = 0, self.clock_s, []

    def append(self, serial: int, zone_s: int = 0, *, made_up: bool = False) -> str:
        """A statement ends now, in a client that is so far from the server's zone; gives its text."""
        self.slow_queries += 1
        return self._write(serial, zone_s, made_up=made_up)

    def count(self, serial: int, zone_s: int = 0, *, made_up: bool = False) -> None:
        """As a busy server does: it is counted, and a moment later written."""
        self.slow_queries += 1
        self.waiting.append((serial, zone_s, made_up))

    def write(self) -> list[str]:
        waiting, self.waiting = self.waiting, []
        return [self._write(serial, zone_s, made_up=made_up) for serial, zone_s, made_up in waiting]

    def repeat(self) -> str:
        """The last row once more."""
        self.slow_queries += 1
        self.log.append(self.log[-1])
        return str(self.log[-1][8].decode())

    def rename(self, table: str) -> None:
        """A rotation: the log goes to that name, what was there is dropped, an empty one takes its place."""
        self.tables[table] = self.log
        self.tables[LIVE] = []

    def _write(self, serial: int, zone_s: int, *, made_up: bool) -> str:
        text = f"SELECT {serial}"
        start = self.clock_s - QUERY_S
        stamp = 1_000_000_000.0 if made_up else start + self.zone_s + zone_s
        written = datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d %H:%M:%S.%f").encode()
        number = b"%d" % serial
        self.log.append((written, b"u", b"00:00:01", b"00:00:00", b"1", b"0", b"", number, text.encode(), None))
        self.started_at[text] = start
        return text

    def answer(self, sql: str) -> list[Row]:
        if sql.startswith(("CREATE", "RENAME", "DROP")):
            return self._change(sql)
        if found := _FROM.search(sql):
            return self._rows(found[1], int(found[2]), int(found[3]))
        if "COUNT(*)" in sql:
            return [(b"%d" % len(self.log),)]
        if sql.startswith("SELECT 1 FROM"):
            return self._rows(_name(sql), 0, 1)
        return self._status(sql)

    def _rows(self, table: str, start: int, count: int) -> list[Row]:
        if table in self.unreadable:
            raise SlowLogNotGranted(table)
        if table not in self.tables:
            raise SlowLogMissing(table)
        return self.tables[table][start : start + count]

    def _status(self, sql: str) -> list[Row]:
        if "read_only" in sql:
            return [(b"read_only", b"ON")] if self.read_only else []
        if "SHOW GLOBAL STATUS" in sql:
            uptime = round(self.clock_s - self.since_s)
            values = {b"Slow_queries": self.slow_queries, b"Threads_running": 1 + len(self.waiting), b"Uptime": uptime}
            return [(name, b"%d" % value) for name, value in values.items()]
        if "SELECT @@global.slow_query_log, @@global.log_output" in sql:
            return [(b"1", b"TABLE")]
        if "UNIX_TIMESTAMP" in sql:
            return [(b"%d" % round(self.clock_s), b"0")]
        return [(b"1",)]  # yes, the server logs to the table

    def _change(self, sql: str) -> list[Row]:
        self.changes += 1
        number, is_done = self.lost_at or (0, True)
        if self.changes != number or is_done:
            self._carry_out(sql)
        if self.changes == number:
            raise DatabaseAway("lost in the middle of a change")
        return []

    def _carry_out(self, sql: str) -> None:
        if sql.startswith("RENAME"):
            for old, new in _RENAME.findall(sql):
                if new in self.tables:
                    raise SetupError(f"{new} exists")
                self.tables[new] = self.tables.pop(old)
        elif sql.startswith("DROP"):
            self.on_drop(self.tables.pop(_name(sql)))
        elif _name(sql) in self.tables:
            raise SetupError("it exists")
        else:
            self.tables[_name(sql)] = []


def _name(sql: str) -> str:
    found = _TABLE.search(sql)
    assert found is not None
    return found[1]


class FakeSession(Session):
    """A connection to that server."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.is_mariadb, self.utc_offset_s = True, 0
        self.open = True

    @property
    def is_open(self) -> bool:
        return self.open

    def rows(self, sql: str) -> list[Row]:
        return self.server.answer(sql)

    def stream(self, sql: str, *, chunk_rows: int, chunk_bytes: int, is_new: bool = True) -> Generator[list[Row]]:
        finished = False
        try:
            found = self.server.answer(sql)
            for start in range(0, len(found), CHUNK):
                yield found[start : start + CHUNK]
            finished = True
        finally:
            if not finished:
                self.drop()

    def drop(self) -> None:
        self.open = False

    def measure_offset(self) -> None:
        self.utc_offset_s = self.server.zone_s
