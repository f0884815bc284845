"""A full outbox while the backend is away, with a real agent and real servers.

What could go wrong: what does not fit is dropped; the bookmark moves past it; the outbox grows over its limit; nobody
is told that capture waits; when the backend is back, capture does not resume, or reads twice what it had read. The
limit is the lowest that the configuration takes, and each test proves that it was reached and that the agent has met it
again and again while its source went on. The controls take one record from what arrived: the comparison must see it.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.dev.server_process import wait_until
from storage.connection import connect_readonly
from storage.envelope import Tally
from storage.outbox import FILE_NAME
from storage.view import OutboxView
from tests.fakes.stub_backend import Served, StubBackend
from tests.servers.agent_process import AgentProcess, Json, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres

MAX_BYTES = 1_048_576
TURN_BYTES = 1_048_576  # more than one turn of these tests puts in after the last look at the room
REACH_S, ARRIVE_S = 60.0, 200.0  # an outage of more than a minute on a slow machine is followed by a slow start
MET_AGAIN = 2
ROWS, MORE_ROWS = 5_000, 2_000
FAT_BYTES, FAT = 200_000, "fat"
CALLS = 7


class Bodiless(StubBackend):
    """Takes heartbeats but cuts every bulk call while `takes_bodies` is false, so that it hears how the agent fares."""

    takes_bodies = True

    def serve(self, method: str, path: str, headers: Any, body: bytes, gone: Callable[[], bool]) -> Served:
        """As the stub, or nothing."""
        if path.endswith("/bulk") and not self.takes_bodies:
            return None
        return super().serve(method, path, headers, body, gone)


@pytest.fixture
def stub() -> Iterator[Bodiless]:
    with Bodiless() as backend:
        yield backend


def config(stub: StubBackend, db_type: str, db_config: Json) -> Json:
    return settings(stub, db_type, db_config, outbox={"max_bytes": MAX_BYTES, "min_free_bytes": 0})


def books(agent: AgentProcess) -> Tally:
    with OutboxView(agent.data_dir) as outbox:
        return outbox.tally("queries")


def grow_until_full(agent: AgentProcess, grow: Callable[[], object]) -> None:
    """Lets the source grow until the agent says that the outbox is full."""
    assert agent.heard("agent.started")

    def is_full() -> bool:
        grow()
        return agent.count("collection.wrong", "OB-06") > 0

    assert wait_until(is_full, REACH_S), agent.said()


def held(agent: AgentProcess) -> int:
    """Bytes of the outbox, those that only the WAL has yet included."""
    with closing(connect_readonly(agent.data_dir / FILE_NAME)) as sql:
        ((pages,), (size,)) = (sql.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages) * int(size)


def meets_the_limit_again(stub: StubBackend) -> None:
    """Waits until heartbeats tell of it and of two further tries that found no room."""

    def failures(each: StubBackend) -> int:
        return int(each.heartbeats[-1]["stats"]["errors_count"]) if each.heartbeats else 0

    known = len(stub.heartbeats)
    assert stub.wait_for(lambda each: len(each.heartbeats) > known, REACH_S)
    before = failures(stub)
    assert stub.wait_for(lambda each: failures(each) >= before + MET_AGAIN, REACH_S)
    last = stub.heartbeats[-1]
    assert "OB-06" in last["error"]
    assert f"{MAX_BYTES:,} bytes" in last["stats"]["state_reason"]
    assert last["stats"]["state"] == "idle"


def settle(stub: StubBackend, is_done: Callable[[list[Json]], bool]) -> list[Json]:
    """Waits for the records and for a heartbeat that says that nothing waits and nothing is wrong."""
    assert stub.wait_for(lambda each: is_done(each.records), ARRIVE_S)

    def is_well(each: StubBackend) -> bool:
        last = each.heartbeats[-1]
        return last["stats"]["outbox_records"] == 0 and last["error"] is None

    known = len(stub.heartbeats)
    assert stub.wait_for(lambda each: len(each.heartbeats) > known + 1 and is_well(each), ARRIVE_S)
    return stub.records


def difference(expected: Counter[str], records: list[Json]) -> Counter[str]:
    """What is missing (positive) or too much (negative) of what carries a tag."""
    found = Counter(record["sql_text"] for record in records if "/* tag-" in record["sql_text"])
    found.subtract(expected)
    return Counter({text: -count for text, count in found.items() if count})


def test_rows_that_find_no_room_stay_in_the_slow_log_and_arrive_once(
    clean_mariadb: MariaDBServer, stub: Bodiless, tmp_path: Path
) -> None:
    server, texts = clean_mariadb, list[str]()

    def slow(count: int = ROWS) -> None:
        texts.extend(server.slow(count, first=len(texts)))

    stub.break_down("refused")
    with AgentProcess(write(tmp_path, config(stub, "mysql", server.monitor()))) as agent:
        grow_until_full(agent, slow)
        stub.takes_bodies = False
        stub.recover()
        captured = books(agent).captured
        slow(MORE_ROWS)
        meets_the_limit_again(stub)
        assert MAX_BYTES <= held(agent) < MAX_BYTES + TURN_BYTES
        assert books(agent).captured == captured < server.count() == len(texts)
        assert stub.records == []
        stub.takes_bodies = True
        records = settle(stub, lambda found: len(found) >= len(texts))
        assert agent.end() == 0
    expected = Counter(texts)
    assert difference(expected, records) == Counter()
    assert (books(agent).captured, books(agent).gaps, books(agent).balances) == (books(agent).delivered, 0, True)
    # Controls: a record that was dropped, and one that came twice.
    tagged = [record for record in records if "/* tag-" in record["sql_text"]]
    assert difference(expected, tagged[1:]) == Counter([tagged[0]["sql_text"]])
    assert difference(expected, [*tagged, tagged[5]]) == Counter({tagged[5]["sql_text"]: -1})


def calls(records: list[Json]) -> int:
    return sum(record["calls"] for record in records if record["sql_text"].startswith(f"WITH {FAT} AS "))


def test_calls_that_find_no_room_are_summed_into_the_next_window(
    postgres18: WatchedPostgres, stub: Bodiless, tmp_path: Path
) -> None:
    server = postgres18
    server.thaw()
    if server.pid is None:
        server.start()
    server.reset()
    filler = random.Random(3).randbytes(FAT_BYTES // 2).hex()
    statement = f"WITH {FAT} AS (SELECT pg_sleep(0.01)) /* {filler} */ SELECT * FROM {FAT}"
    stub.break_down("refused")
    with (
        AgentProcess(write(tmp_path, config(stub, "postgres", {**server.monitor(), "min_exec_time_ms": 5}))) as agent,
        closing(server.admin()) as customer,
        customer.cursor() as cursor,
    ):
        grow_until_full(agent, lambda: cursor.execute(statement))
        stub.takes_bodies = False
        stub.recover()
        captured = books(agent).captured
        before = server.counters(FAT)[0].calls
        for _ in range(CALLS):
            cursor.execute(statement)
        meets_the_limit_again(stub)
        assert books(agent).captured == captured
        assert MAX_BYTES <= held(agent) < MAX_BYTES + TURN_BYTES
        stub.takes_bodies = True
        records = settle(stub, lambda found: calls(found) >= before + CALLS)
        assert agent.end() == 0
    counted = server.counters(FAT)[0].calls
    assert counted == before + CALLS
    assert calls(records) == counted
    fat = [record for record in records if record["sql_text"].startswith(f"WITH {FAT} AS ")]
    assert max(record["calls"] for record in fat) >= CALLS, "what found no room came in one window"
    assert (books(agent).captured, books(agent).gaps) == (books(agent).delivered, 0)
    # Control: a window that was dropped.
    assert calls([record for record in records if record is not fat[0]]) < counted
