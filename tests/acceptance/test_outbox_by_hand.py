"""`python -m agent outbox` while a real agent works: looked at, put back, given up, exported.

What could go wrong: the agent is disturbed or ends; what a person puts back is not delivered until the agent is started
again; the books do not balance afterwards; a person sees another outbox than the agent has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.dev.faults import Fault
from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port, wait_until
from storage import parcel
from storage.view import OutboxView
from tests.servers.agent_process import AgentProcess, run_agent, settings, write

ROWS = 40
REFUSED = ("r7", "r23")
SOON_S = 60.0


class Backend:
    """The development backend as `settings` wants it; two records are too much for it."""

    def __init__(self) -> None:
        self.running = RunningBackend()
        mine = self.running.registry.register("by hand")
        self.url, self.api_key, self.collector_id = self.running.url, mine.api_key, mine.id
        for name in REFUSED:
            self.running.faults.add(Fault(kind="word", word=f'"{name}"', status=400))

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.running.store.records()]

    def close(self) -> None:
        self.running.close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with closing(Backend()) as made:
        yield made


def outbox(agent: AgentProcess, *words: object) -> Any:
    done = run_agent("outbox", *words, "--config", agent.config)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout) if "--json" in words else done.stdout


def test_a_person_looks_and_decides_while_the_agent_works(backend: Backend, tmp_path: Path) -> None:
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}
    config = write(tmp_path, settings(backend, "mysql", db_config, outbox={"batch_max_records": 10}))

    with AgentProcess(config, program="tests.servers.numbered_agent", variables={"ROWS": str(ROWS)}) as agent:

        def books() -> tuple[int, int, int]:
            with OutboxView(agent.data_dir) as view:
                tally = view.tally("queries")
            return tally.delivered, tally.parked, tally.discarded

        assert wait_until(lambda: books() == (ROWS - 2, 2, 0), SOON_S), agent.said()[-2_000:]
        parked = outbox(agent, "parked", "--json")
        shown = [outbox(agent, "show", each["seq"], "--raw") for each in parked]
        assert sorted(json.loads(text)["queries"][0]["id"] for text in shown) == sorted(REFUSED)
        assert outbox(agent, "ls", "--json") == []
        carried = tmp_path / "carried.jsonl.gz"
        assert "exported 2 records" in outbox(agent, "export", carried, "--parked")
        assert parcel.check(carried).records == 2

        backend.running.faults.clear()
        assert "1 records were discarded" in outbox(agent, "discard", parked[0]["seq"], "--yes")
        assert "1 records in 1 envelopes wait again" in outbox(agent, "retry", "--all")
        assert wait_until(lambda: books() == (ROWS - 1, 0, 1), SOON_S), (books(), agent.said()[-2_000:])
        outbox(agent, "vacuum")
        assert run_agent("audit", "--config", config).returncode == 0
        assert agent.is_running
        assert agent.end() == 0
    given_up = json.loads(shown[0])["queries"][0]["id"]
    assert sorted(backend.ids) == sorted({f"r{number}" for number in range(ROWS)} - {given_up})
