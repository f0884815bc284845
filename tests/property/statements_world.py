"""Servers that count statements, as PostgreSQL does, and the one address at which one of them answers.

They know besides what no agent can: how often each statement really ran. Nothing here is asserted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.source_errors import DatabaseAway
from agent.sources._postgres_session import ANSWER_BYTES, Row, Session

SLOW_MS = 500.0
EVENT_S = 10.0  # between two things that happen: more than what is taken for the same moment
PLANNING_MS = 1.0
BEFORE_RUN_S = 0.01
NAMES = "ABC"

Counts = tuple[int, float, float, int, float]  # calls, total, max, rows, since


@dataclass
class Server:
    """One server. `version`: of its extension, as (1, 8). `truth`: calls by statement. `hides_since`: a control."""

    name: str
    version: tuple[int, int]
    run_at: float
    hides_since: bool = False
    skew_s: float = 0.0
    dealloc: int = 0
    counted: dict[int, Counts] = field(default_factory=dict)
    truth: Counter[int] = field(default_factory=Counter)
    reset_at: float = 0.0
    active_ms: float = 0.0

    def __post_init__(self) -> None:
        self.reset_at = self.run_at - BEFORE_RUN_S

    def call(self, queryid: int, count: int, now_s: float) -> None:
        """It runs so often."""
        calls, total_ms, _, rows, since = self.counted.get(queryid, (0, 0.0, 0.0, 0, now_s + self.skew_s))
        self.counted[queryid] = (calls + count, total_ms + count * SLOW_MS, SLOW_MS, rows + count, since)
        self.truth[queryid] += count
        self.active_ms += count * (SLOW_MS + PLANNING_MS)

    def reset(self, now_s: float) -> None:
        """All counters are forgotten on request."""
        self.counted, self.dealloc, self.reset_at = {}, 0, now_s + self.skew_s

    def restart(self, now_s: float, *, saves: bool) -> None:
        """Other processes, with the counters or without."""
        self.run_at = now_s + self.skew_s
        if not saves:
            self.counted, self.dealloc, self.reset_at = {}, 0, self.run_at - BEFORE_RUN_S
            self.active_ms = 0.0

    def rows(self) -> list[Row]:
        """What the extension shows."""
        since = self.version >= (1, 11) and not self.hides_since
        return [(10, 5, queryid, True, *row[:4], row[4] if since else None) for queryid, row in self.counted.items()]

    def state(self, now_s: float) -> Row:
        """What it says of itself at a look."""
        at = now_s + self.skew_s
        info = (f"{self.reset_at!r}", self.dealloc, self.active_ms) if self.version >= (1, 9) else (None, None, None)
        return (True, at, *info)


@dataclass
class World:
    """The servers, the time, and who answers."""

    servers: dict[str, Server]
    now_s: float = 1_000.0
    answering: str = NAMES[0]

    @property
    def here(self) -> Server:
        """The server at the address."""
        return self.servers[self.answering]

    def tick(self) -> float:
        """Time goes by."""
        self.now_s += EVENT_S
        return self.now_s


class Wire(Session):
    """A connection to the server that answers now; it ends with that server's run, or when another one answers."""

    def __init__(self, world: World) -> None:
        self.world, self.server, self.run_at, self.dropped = world, world.here, world.here.run_at, False

    @property
    def is_open(self) -> bool:
        return not self.dropped and self.world.here is self.server and self.server.run_at == self.run_at

    def drop(self) -> None:
        self.dropped = True

    def columns(self, sql: str) -> list[str]:
        version = self.server.version
        since = version >= (1, 11)
        return ["total_exec_time", "max_exec_time", *["toplevel"] * (version >= (1, 9)), *["stats_since"] * since]

    def rows(
        self,
        sql: str,
        values: Sequence[object] = (),
        *,
        at_most_bytes: int = ANSWER_BYTES,
        types: Sequence[int] | None = None,
    ) -> list[Row]:
        if not self.is_open:
            raise DatabaseAway
        server = self.server
        if values:
            wanted = values[-1]
            assert isinstance(wanted, list)
            return [(10, 5, queryid, True, f"{server.name} {queryid}", None) for queryid in wanted]
        answers: dict[str, list[Row]] = {
            "pg_extension": [("public", True, True, True)],
            "to_regclass": [(server.version >= (1, 9),)],
            "system_identifier": [(7, server.run_at, "10.0.0.1 5432")],
            "pg_has_role": [server.state(self.world.now_s)],
            "pg_database": [(5, "shop")],
            "pg_roles": [(10, "customer")],
            "pg_stat_statements(false)": server.rows(),
        }
        return next(answer for words, answer in answers.items() if words in sql)
