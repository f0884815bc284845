"""An agent with a source that never ends and a backend that hears it, and what must be true of both. Makes no fault."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from agent.dev.server_process import wait_until
from storage.envelope import Tally
from storage.view import OutboxView
from tests.fakes.deaf_backend import DeafBackend
from tests.servers.agent_process import AgentProcess, settings, write
from tests.servers.endless_agent import ENOUGH

PROGRAM = "tests.servers.endless_agent"
# After some seconds without the backend the pause before the next try may be as long again.
SOON_S, ARRIVE_S, END_S = 60.0, 60.0, 10.0
BEATS = 4
NO_SERVER = {"host": "nowhere", "user": "nobody", "password": ""}


class Endless:
    """The agent in `place`; its outbox is in `place`/data."""

    def __init__(self, place: Path, backend: DeafBackend, **outbox: int) -> None:
        self.place, self.backend = place, backend
        config = settings(backend, "mysql", NO_SERVER, outbox={"min_free_bytes": 0, **outbox})
        self.agent = AgentProcess(write(place, config), program=PROGRAM)
        self.data_dir = self.agent.data_dir

    @property
    def books(self) -> Tally:
        """Of the queries."""
        with OutboxView(self.data_dir) as outbox:
            return outbox.tally("queries")

    @property
    def last(self) -> int:
        """How many records the source has given, as the bookmark knows it."""
        with OutboxView(self.data_dir) as outbox:
            return int(outbox.bookmark("default") or b"0")

    def demand_collecting(self) -> None:
        """The outbox grows."""
        before = self.books.captured
        assert wait_until(lambda: self.books.captured > before, SOON_S), self.agent.said()

    def demand_told(self, code: str) -> dict[str, Any]:
        """Heartbeats go on and tell it, every one of them; gives what the last one says."""
        known = len(self.backend.heartbeats)

        def tells(each: DeafBackend) -> bool:
            return len(each.heartbeats) > known and code in str(each.heartbeats[-1]["error"])

        assert self.backend.wait_for(tells, SOON_S), (self.agent.said(), self.backend.heartbeats[-1:])
        first = len(self.backend.heartbeats)
        assert self.backend.wait_for(lambda each: len(each.heartbeats) >= first + BEATS, SOON_S)
        said = self.backend.heartbeats[first : first + BEATS]
        assert [code in str(beat["error"]) for beat in said] == [True] * BEATS, said
        assert self.agent.is_running
        stats: dict[str, Any] = said[-1]["stats"]
        return stats

    def demand_goes_on(self) -> None:
        """Collecting has resumed, and nothing is wrong any more."""
        self.demand_collecting()
        backend = self.backend
        assert backend.wait_for(lambda each: each.heartbeats[-1]["error"] is None, SOON_S), backend.heartbeats[-1]

    def demand_arrived(self, count: int) -> None:
        """So many records have reached the backend."""
        assert self.backend.wait_for(lambda each: len(each.records) >= count, ARRIVE_S), self.agent.said()

    def demand_each_record_once(self) -> None:
        """The source ends; everything that it ever gave has arrived, each record once; a clean end."""
        doubles = self.demand_all_arrived()
        assert doubles == 0
        assert self.books.gaps == 0

    def demand_all_arrived(self) -> int:
        """The same, but how many came twice is the answer; the books know of as many."""
        (self.place / ENOUGH).touch()

        def is_empty() -> bool:
            books = self.books
            return books.pending == 0 and books.captured == books.delivered == self.last

        assert wait_until(is_empty, ARRIVE_S), (self.agent.said(), self.backend.heartbeats[-1])
        assert self.agent.end(timeout_s=END_S) == 0
        assert self.agent.count("worker.replaced") == 0
        missing, doubled = compare(self.last, self.backend.records)
        assert self.last > 0
        assert missing == 0
        assert doubled <= self.books.possible_duplicates
        return doubled


def compare(last: int, records: list[dict[str, Any]]) -> tuple[int, int]:
    """How many of the records before number `last` are missing, and how many came once too often."""
    found = Counter(record["id"] for record in records)
    expected = Counter(f"r{number}" for number in range(last))
    return (expected - found).total(), (found - expected).total()
