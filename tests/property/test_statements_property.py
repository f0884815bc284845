"""Random lives of statement counters against a model; the source's own code runs, only its connection is a fake.

What could go wrong: some order of calls, polls, crashes between partial commits, resets and evictions makes the sum of
delivered calls differ from what the server counted, or makes a delta negative.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.sources import Reading, SourceSettings
from agent.sources._postgres_session import Row, Session
from agent.sources.pg_stat_statements import StatementStatistics

SLOW_MS = 500.0
MANY = 130  # more than one reading holds


class Server:
    """Counters as an extension of version 1.11 or later has them (`tells_since`), or an older one."""

    def __init__(self, *, tells_since: bool) -> None:
        self.tells_since = tells_since
        self.moment = 0.0
        self.reset_at = "2026-01-01"
        self.counted: dict[int, list[float]] = {}  # calls, total, max, rows, since

    def call(self, queryid: int, count: int) -> None:
        self.moment += 1
        row = self.counted.setdefault(queryid, [0, 0.0, 0.0, 0, self.moment])
        row[0] += count
        row[1] += count * SLOW_MS
        row[2] = SLOW_MS
        row[3] += count

    def reset(self) -> None:
        self.moment += 1
        self.counted = {}
        self.reset_at = f"reset at {self.moment}"

    def answer(self, sql: str, values: Sequence[object]) -> list[Row]:
        if "pg_extension" in sql:
            return [("public", True, True)]
        if "to_regclass" in sql:
            return [(True,)]
        if "pg_stat_statements_info" in sql:
            return [(True, self.reset_at)]
        if "pg_has_role" in sql:
            return [(True, None)]
        if "pg_database" in sql:
            return [(5, "shop")]
        if "pg_roles" in sql:
            return [(10, "customer")]
        if values:
            wanted = values[-1]
            assert isinstance(wanted, list)
            return [(10, 5, queryid, True, f"SELECT {queryid}", None) for queryid in wanted]
        return [
            (10, 5, queryid, True, int(row[0]), row[1], row[2], int(row[3]), row[4] if self.tells_since else None)
            for queryid, row in self.counted.items()
        ]


class FakeSession(Session):
    """A connection to that server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.open = True

    @property
    def is_open(self) -> bool:
        return self.open

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        return self.server.answer(sql, values)

    def columns(self, sql: str) -> list[str]:
        return ["toplevel", "total_exec_time", "max_exec_time", *(["stats_since"] if self.server.tells_since else [])]

    def drop(self) -> None:
        self.open = False


class StatementsLife(RuleBasedStateMachine):
    """`owed`: calls that must have been delivered at the end of a whole look."""

    @initialize(tells_since=st.booleans())
    def begin(self, tells_since: bool) -> None:
        self.server = Server(tells_since=tells_since)
        self.bookmark: bytes | None = None
        self.owed: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.gaps = 0
        self.loses = False
        self.source = self._source()
        self.call_many()

    def _source(self) -> StatementStatistics:
        db = DbConfig(host="h", user="u", min_exec_time_ms=SLOW_MS)
        return StatementStatistics(SourceSettings("default", db, 5432), Clock(), lambda *_: FakeSession(self.server))

    @rule(queryid=st.integers(1, 5), count=st.integers(1, 4))
    def call(self, queryid: int, count: int) -> None:
        self.server.call(queryid, count)
        self.owed[f"SELECT {queryid}"] += count

    @rule()
    def call_many(self) -> None:
        for queryid in range(1, MANY + 1):
            self.call(queryid, 1)

    @rule()
    def reset(self) -> None:
        """What was not delivered by then is lost; a first look has nothing to lose."""
        self.loses |= self.bookmark is not None
        self.server.reset()
        self.owed = Counter(self.delivered)

    @precondition(lambda self: self.server.tells_since and self.server.counted)
    @rule(data=st.data(), calls_after=st.integers(0, 6))
    def evict(self, data: st.DataObject, calls_after: int) -> None:
        """One is dropped and may come back at once, with more calls than before or fewer."""
        queryid = data.draw(st.sampled_from(sorted(self.server.counted)))
        del self.server.counted[queryid]
        name = f"SELECT {queryid}"
        self.owed[name] = self.delivered[name]
        if calls_after:
            self.call(queryid, calls_after)

    @rule()
    def restart_the_agent(self) -> None:
        self.source.close()
        self.source = self._source()

    @rule(take=st.integers(1, 2), lost=st.integers(0, 2))
    def look_cut_short(self, take: int, lost: int) -> None:
        """Some readings are taken, the last `lost` of them are not committed, and the connection or the agent goes."""
        with closing(self.source.read(self.bookmark)) as readings:
            taken = list(islice(readings, take))
        for reading in taken[: max(0, take - lost)]:
            self._keep(reading)

    @rule()
    def look(self) -> None:
        for reading in self.source.read(self.bookmark):
            self._keep(reading)
        assert +self.delivered == +self.owed
        assert not self.loses or self.gaps > 0
        self.loses, self.gaps = False, 0

    def _keep(self, reading: Reading) -> None:
        for record in reading.records:
            assert record.window is not None
            assert record.window.calls > 0
            assert record.window.total_exec_time_ms >= 0
            assert record.window.rows >= 0
            self.delivered[record.sql_text] += record.window.calls
        self.gaps += len(reading.gaps)
        self.bookmark = reading.bookmark

    @invariant()
    def nothing_is_delivered_that_was_not_counted(self) -> None:
        assert self.delivered <= self.owed


StatementsLife.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestStatementsLife = StatementsLife.TestCase
