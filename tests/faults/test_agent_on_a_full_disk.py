"""A real agent whose disk is full: it lives and says so, collecting pauses and resumes by itself, everything arrives.

What could go wrong: the process ends; the heartbeat stops or does not tell; what was acknowledged cannot leave a disk
with no byte free; collecting does not resume when there is room; a start on a full disk is an end; what was given while
there was no room is lost or comes twice. The source never ends and needs no server, and each test proves that the disk
was full. The records are numbered: all of them up to the bookmark must arrive, each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.dev.server_process import wait_until
from storage.ballast import NAMES
from storage.outbox import FILE_NAME
from storage.view import OutboxView
from tests.fakes.deaf_backend import DeafBackend
from tests.faults.small_disk import Disk, ext4, tmpfs
from tests.servers.agent_process import AgentProcess, settings, write
from tests.servers.endless_agent import ENOUGH

PROGRAM = "tests.servers.endless_agent"
SOON_S, ARRIVE_S, END_S = 15.0, 90.0, 10.0
BEATS = 4
QUOTA = 1_048_576
NO_SERVER = {"host": "nowhere", "user": "nobody", "password": ""}


@pytest.fixture
def backend() -> Iterator[DeafBackend]:
    with DeafBackend() as stub:
        yield stub


def agent_of(tmp_path: Path, backend: DeafBackend, **outbox: int) -> AgentProcess:
    config = settings(backend, "mysql", NO_SERVER, outbox={"min_free_bytes": 0, **outbox})
    return AgentProcess(write(tmp_path, config), program=PROGRAM)


def captured(agent: AgentProcess) -> int:
    with OutboxView(agent.data_dir) as outbox:
        return outbox.tally("queries").captured


def demand_told(agent: AgentProcess, backend: DeafBackend, code: str = "OB-06") -> dict[str, Any]:
    """Heartbeats go on and tell it, every one of them; gives what the last one says."""
    known = len(backend.heartbeats)

    def tells(each: DeafBackend) -> bool:
        return len(each.heartbeats) > known and code in str(each.heartbeats[-1]["error"])

    assert backend.wait_for(tells, SOON_S), (agent.said(), backend.heartbeats[-1:])
    first = len(backend.heartbeats)
    assert backend.wait_for(lambda each: len(each.heartbeats) >= first + BEATS, SOON_S)
    said = backend.heartbeats[first : first + BEATS]
    assert [code in str(beat["error"]) for beat in said] == [True] * BEATS, said
    assert agent.is_running
    stats: dict[str, Any] = said[-1]["stats"]
    return stats


def demand_goes_on(agent: AgentProcess, backend: DeafBackend) -> None:
    """Collecting has resumed, and nothing is wrong any more."""
    before = captured(agent)
    assert wait_until(lambda: captured(agent) > before, SOON_S), agent.said()
    assert backend.wait_for(lambda each: each.heartbeats[-1]["error"] is None, SOON_S), backend.heartbeats[-1]


def demand_each_record_once(agent: AgentProcess, backend: DeafBackend, tmp_path: Path) -> None:
    """The source ends; everything that it ever gave has arrived, each record once; a clean end."""
    (tmp_path / ENOUGH).touch()

    def is_empty() -> bool:
        with OutboxView(agent.data_dir) as outbox:
            tally = outbox.tally("queries")
        return tally.pending == 0 and tally.captured == tally.delivered == last() == len(backend.records)

    def last() -> int:
        with OutboxView(agent.data_dir) as outbox:
            return int(outbox.bookmark("default") or b"0")

    assert wait_until(is_empty, ARRIVE_S), (agent.said(), backend.heartbeats[-1])
    assert agent.end(timeout_s=END_S) == 0
    assert last() > 0
    found = Counter(record["id"] for record in backend.records)
    assert found == Counter(f"r{number}" for number in range(last()))


def fill(agent: AgentProcess, disk: Disk) -> Any:
    """The agent's own growth, then somebody else who takes the rest."""
    assert agent.heard("collection.wrong", "OB-06", SOON_S), agent.said()
    hog = disk.hog()
    assert disk.free_bytes == 0
    return hog


def test_a_full_disk_pauses_collecting_and_nothing_else(tmp_path: Path, backend: DeafBackend) -> None:
    backend.takes_bodies = False
    with tmpfs(tmp_path / "data") as disk, agent_of(tmp_path, backend) as agent:
        hog = fill(agent, disk)
        waiting = captured(agent)
        assert waiting > 0
        stats = demand_told(agent, backend)
        assert "OB-06" in stats["state_reason"]
        assert captured(agent) == waiting == stats["outbox_records"]
        assert backend.records == []
        backend.takes_bodies = True

        def has_arrived() -> bool:
            hog.take()
            return len(backend.records) >= waiting

        assert wait_until(has_arrived, ARRIVE_S), agent.said()
        assert backend.wait_for(lambda each: each.heartbeats[-1]["stats"]["outbox_records"] == 0, SOON_S)
        assert captured(agent) == waiting, "nothing was collected meanwhile"
        assert disk.free_bytes == 0
        hog.go()
        demand_goes_on(agent, backend)
        demand_each_record_once(agent, backend, tmp_path)
    assert agent.count("worker.replaced") == 0


def test_killed_on_a_full_disk_it_starts_again_and_delivers(tmp_path: Path, backend: DeafBackend) -> None:
    backend.takes_bodies = False
    with tmpfs(tmp_path / "data") as disk, agent_of(tmp_path, backend) as agent:
        hog = fill(agent, disk)
        waiting = captured(agent)
        agent.kill()
        (agent.data_dir / f"{FILE_NAME}-shm").unlink()
        hog.take()
        assert all((agent.data_dir / name).exists() for name in NAMES)
        agent.start()
        demand_told(agent, backend)
        hog.take()
        backend.takes_bodies = True
        assert backend.wait_for(lambda each: len(each.records) >= waiting, ARRIVE_S), agent.said()
        hog.go()
        demand_goes_on(agent, backend)
        demand_each_record_once(agent, backend, tmp_path)


def test_a_start_without_any_room_waits_and_says_so(tmp_path: Path, backend: DeafBackend) -> None:
    backend.takes_bodies = False
    with tmpfs(tmp_path / "data") as disk, agent_of(tmp_path, backend) as agent:
        hog = fill(agent, disk)
        waiting = captured(agent)
        agent.kill()
        for name in (*NAMES, f"{FILE_NAME}-shm"):
            (agent.data_dir / name).unlink(missing_ok=True)
        hog.take()
        starts = agent.count("agent.started")
        agent.start()
        demand_told(agent, backend)
        assert agent.count("outbox.no_room") == 1
        assert agent.end(timeout_s=END_S) == 0
        agent.start()
        demand_told(agent, backend)
        assert agent.count("outbox.no_room") == 2
        assert agent.count("agent.started") == starts
        assert disk.free_bytes == 0
        hog.go()
        assert wait_until(lambda: agent.count("agent.started") == starts + 1, SOON_S), agent.said()
        backend.takes_bodies = True
        assert backend.wait_for(lambda each: len(each.records) >= waiting, ARRIVE_S), agent.said()
        demand_goes_on(agent, backend)
        demand_each_record_once(agent, backend, tmp_path)


def test_a_start_where_no_file_can_be_made_waits_and_says_so(tmp_path: Path, backend: DeafBackend) -> None:
    with tmpfs(tmp_path / "data") as disk:
        hog = disk.take_inodes()
        with agent_of(tmp_path, backend) as agent:
            demand_told(agent, backend)
            assert agent.count("agent.started") == 0
            hog.go()
            assert agent.heard("agent.started", timeout_s=SOON_S), agent.said()
            demand_goes_on(agent, backend)
            demand_each_record_once(agent, backend, tmp_path)


def test_a_quota_that_is_reached_pauses_collecting_and_nothing_else(tmp_path: Path, backend: DeafBackend) -> None:
    backend.takes_bodies = False
    with agent_of(tmp_path, backend, max_bytes=QUOTA) as agent:
        stats = demand_told(agent, backend)
        assert f"{QUOTA:,} bytes" in stats["state_reason"]
        waiting = captured(agent)
        assert QUOTA // 2 < stats["outbox_bytes"] < 2 * QUOTA
        demand_told(agent, backend)
        assert captured(agent) == waiting
        backend.takes_bodies = True
        demand_goes_on(agent, backend)
        demand_each_record_once(agent, backend, tmp_path)


def test_a_file_system_that_turned_read_only_is_told_and_the_next_start_delivers(
    tmp_path: Path, backend: DeafBackend
) -> None:
    backend.takes_bodies = False
    with agent_of(tmp_path, backend) as agent:
        agent.kill()
        with ext4(agent.data_dir) as disk:
            agent.start()
            assert wait_until(lambda: (agent.data_dir / FILE_NAME).exists() and captured(agent) > 0, SOON_S)
            disk.break_down()
            demand_told(agent, backend, "OB-07")
            waiting = captured(agent)
            backend.takes_bodies = True
            demand_told(agent, backend, "OB-07")
            assert agent.end(timeout_s=END_S) == 0
            disk.mend()
            agent.start()
            assert backend.wait_for(lambda each: len(each.records) >= waiting, ARRIVE_S), agent.said()
            demand_goes_on(agent, backend)
            demand_each_record_once(agent, backend, tmp_path)
