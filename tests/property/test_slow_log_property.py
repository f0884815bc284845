"""Random lives of a slow log table against a model of it; the source's own code runs, only its connection is a fake.

What could go wrong: some order of appends, turns cut short, crashes before a commit, rotations, purges and restarts
makes the source skip a row, take one twice, keep silent about a loss, or tell of one that did not happen.
"""

import re
from collections import Counter
from collections.abc import Generator
from contextlib import closing

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.sources import SourceSettings
from agent.sources._mysql_session import Row, Session
from agent.sources._slow_log_place import Place, decode
from agent.sources.mysql_slow_log import SlowLogTable
from storage.envelope import Gap

_LIMITS = re.compile(r"LIMIT (\d+), (\d+)")
CHUNK = 3  # small, so that a look has many places to be cut short at
SECONDS_DOWN = 100


class TurnedClock(Clock):
    """Turned by hand; the server's start is told by it."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def unix(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Table:
    """The log as the server has it: its rows and its own count of slow statements."""

    def __init__(self, clock: TurnedClock) -> None:
        self.clock = clock
        self.rows: list[Row] = []
        self.counted: list[Row] = []  # by the server, which has not written them yet
        self.slow_queries = 0
        self.started = clock.unix()

    def append(self, row: Row) -> None:
        self.rows.append(row)
        self.slow_queries += 1

    def count(self, row: Row) -> None:
        self.counted.append(row)
        self.slow_queries += 1

    def write(self) -> list[Row]:
        written, self.counted = self.counted, []
        self.rows += written
        return written

    def answer(self, sql: str) -> list[Row]:
        if "COUNT(*)" in sql:
            return [(b"%d" % len(self.rows),)]
        if "SHOW GLOBAL STATUS" in sql:
            uptime = round(self.clock.unix() - self.started)
            values = {b"Slow_queries": self.slow_queries, b"Threads_running": 1 + len(self.counted), b"Uptime": uptime}
            return [(name, b"%d" % value) for name, value in values.items()]
        if "SELECT @@global.slow_query_log, @@global.log_output" in sql:
            return [(b"1", b"TABLE")]
        if "UNIX_TIMESTAMP" in sql:
            return [(b"%d" % round(self.clock.unix()),)]
        limits = _LIMITS.search(sql)
        if limits is None:
            return [(b"1",)]  # yes, the server logs to the table
        start, count = map(int, limits.groups())
        return self.rows[start : start + count]


class FakeSession(Session):
    """A connection to that table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.is_mariadb, self.utc_offset_s = True, 0
        self.open = True

    @property
    def is_open(self) -> bool:
        return self.open

    def rows(self, sql: str) -> list[Row]:
        return self.table.answer(sql)

    def stream(self, sql: str, *, chunk_rows: int, chunk_bytes: int, is_new: bool = True) -> Generator[list[Row]]:
        finished = False
        found = self.table.answer(sql)
        try:
            for start in range(0, len(found), CHUNK):
                yield found[start : start + CHUNK]
            finished = True
        finally:
            if not finished:
                self.drop()

    def drop(self) -> None:
        self.open = False

    def measure_offset(self) -> None:
        """Always UTC."""


def make_row(serial: int) -> Row:
    stamp = b"2026-01-01 00:00:00.%06d" % (serial % 1_000_000)
    return (stamp, b"u", b"00:00:01", b"00:00:00", b"1", b"0", b"", b"%d" % serial, b"SELECT %d" % serial, None)


class SlowLogLife(RuleBasedStateMachine):
    """`owed`: what must have been delivered at the end of a whole look; `lost`: what no reader could have had."""

    @initialize()
    def begin(self) -> None:
        self.clock = TurnedClock()
        self.table = Table(self.clock)
        self.serial = 0
        self.bookmark: bytes | None = None
        self.appended: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.gaps: list[Gap] = []
        self.unread_lost = 0  # since the last whole look
        self.restarted = self.purged = self.rotated = self.twins = self.uncounted = self.late = False
        self.source = self._source()

    def _source(self) -> SlowLogTable:
        db = DbConfig(host="h", user="u")
        return SlowLogTable(SourceSettings("default", db, 3306), self.clock, lambda _: FakeSession(self.table))

    def _unread(self) -> Counter[str]:
        return Counter(self.appended) - self.delivered - self.lost

    def _lose(self) -> None:
        """Before the first whole look the source has no count of the server's to compare with."""
        gone = self._unread()
        if self.bookmark is not None and decode(self.bookmark).spare is not None:
            self.unread_lost += gone.total()
        else:
            self.uncounted = True
        self.lost += gone

    @rule(count=st.integers(1, 8))
    def append(self, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            self.table.append(make_row(self.serial))
            self.appended[f"SELECT {self.serial}"] += 1

    @rule(count=st.integers(1, 3))
    def count_before_writing(self, count: int) -> None:
        """As a busy server does: rows that look and rotation do not see, although it has counted them."""
        for _ in range(count):
            self.serial += 1
            self.table.count(make_row(self.serial))
        self.late = True

    @rule()
    def write_what_is_counted(self) -> None:
        for row in self.table.write():
            self.appended[row[8].decode()] += 1

    @precondition(lambda self: self.table.rows and not self.purged)  # a twin in a purged place cannot be told apart
    @rule()
    def append_a_twin(self) -> None:
        self.table.append(self.table.rows[-1])
        self.appended[self.table.rows[-1][8].decode()] += 1
        self.twins = True

    @rule()
    def rotate(self) -> None:
        self._lose()
        self.table.rows = []
        self.rotated, self.twins = True, False

    @precondition(lambda self: len(self.table.rows) > 2 and not self.twins and not self.rotated)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """Rows that were read are deleted, row 0 stays; what is unread at the next look cannot be told apart."""
        read = [at for at, row in enumerate(self.table.rows) if self.delivered[row[8].decode()]]
        if len(read) < 2 or self.purged:
            return
        gone = data.draw(st.integers(1, len(read) - 1))
        del self.table.rows[1 : 1 + gone]
        self.purged = True

    @rule()
    def restart_the_server(self) -> None:
        self.clock.seconds += SECONDS_DOWN
        self.table.slow_queries, self.table.started = 0, self.clock.unix()
        self.table.counted = []  # never written
        self.restarted = True

    @rule(life=st.integers(2, 5))
    def restart_the_server_within_seconds(self, life: int) -> None:
        """It is looked at shortly before and after; when it was started, hardly tells the two runs apart."""
        self.restart_the_server()
        self.clock.seconds += life
        self.look(0)
        self.table.slow_queries, self.table.started = 0, self.clock.unix()
        self.table.counted = []
        self.restarted = True
        self.append(1)
        self.look(0)

    @rule()
    def restart_the_agent(self) -> None:
        self.source.close()
        self.source = self._source()

    @rule(take=st.integers(0, 5), commit=st.integers(0, 5))
    def look_cut_short(self, take: int, commit: int) -> None:
        """Some readings are taken, fewer are committed, and the connection or the agent goes."""
        with closing(self.source.read(self.bookmark)) as readings:
            taken = [reading for reading, _ in zip(readings, range(take), strict=False)]
        for reading in taken[:commit]:
            self._keep(reading.records, reading.bookmark, reading.gaps)

    @rule(during=st.integers(0, 3))
    def look(self, during: int) -> None:
        """A whole look; at most `during` rows are appended after its first reading."""
        position_was_0 = self._was_empty()
        for number, reading in enumerate(self.source.read(self.bookmark)):
            self._keep(reading.records, reading.bookmark, reading.gaps)
            if number == 0 and during:
                self.append(during)
        for reading in self.source.read(self.bookmark):  # the quiet end of it
            self._keep(reading.records, reading.bookmark, reading.gaps)
        self._check_books(position_was_0)

    def _keep(self, records: tuple[object, ...], bookmark: bytes, gaps: tuple[Gap, ...]) -> None:
        if any(gap.reason == "rows_removed" for gap in gaps):
            self._lose()
        for record in records:
            self.delivered[record.sql_text] += 1  # type: ignore[attr-defined]
        self.gaps += gaps
        self.bookmark = bookmark

    def _was_empty(self) -> bool:
        """Whether the table was so at the last look to its end: what vanished since is known by the counter only."""
        place = decode(self.bookmark) if self.bookmark else Place()
        return place.position == 0 or place.from_top

    def _check_books(self, position_was_0: bool) -> None:
        assert self.delivered + self.lost == self.appended
        told = [gap.estimate for gap in self.gaps]
        unknowable = self.restarted or position_was_0
        if self.unread_lost and not unknowable:
            assert told != []
        if not self.unread_lost and not self.restarted and not self.purged and not self.uncounted and not self.late:
            assert told == []
        if self.late and not unknowable and not self.purged and None not in told:
            assert sum(estimate or 0 for estimate in told) >= self.unread_lost
        elif not self.late and not self.restarted and not self.purged and not self.uncounted and None not in told:
            assert sum(estimate or 0 for estimate in told) in (
                {0, self.unread_lost} if position_was_0 else {self.unread_lost}
            )
        self.gaps, self.unread_lost = [], 0
        self.restarted = self.purged = self.rotated = self.uncounted = False
        self.late = bool(self.table.counted)

    @invariant()
    def nothing_comes_twice(self) -> None:
        assert self.delivered <= self.appended


SlowLogLife.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSlowLogLife = SlowLogLife.TestCase
