"""A real agent whose disk is full: it lives and says so, collecting pauses and resumes by itself, everything arrives.

What could go wrong: the process ends; the heartbeat stops or does not tell; what was acknowledged cannot leave a disk
with no byte free; collecting does not resume when there is room; a start on a full disk is an end; what was given while
there was no room is lost or comes twice. The source never ends and needs no server, and each test proves that the disk
was full. The records are numbered: all of them up to the bookmark must arrive, each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.dev.server_process import wait_until
from agent.status_door import ask
from storage.ballast import NAMES
from storage.outbox import FILE_NAME
from tests.fakes.deaf_backend import DeafBackend
from tests.faults.endless import ARRIVE_S, END_S, SOON_S, Endless, compare
from tests.faults.small_disk import Disk, Hog, ext4, tmpfs

QUOTA = 1_048_576
FULL, BROKEN = "OB-06", "OB-07"


@pytest.fixture
def backend() -> Iterator[DeafBackend]:
    with DeafBackend() as stub:
        yield stub


@pytest.fixture
def endless(tmp_path: Path, backend: DeafBackend) -> Endless:
    backend.takes_bodies = False
    return Endless(tmp_path, backend)


def fill(endless: Endless, disk: Disk) -> Hog:
    """The agent's own growth, then somebody else who takes the rest."""
    assert endless.agent.heard("collection.wrong", FULL, SOON_S), endless.agent.said()
    hog = disk.hog()
    assert disk.free_bytes == 0
    return hog


def test_a_full_disk_pauses_collecting_and_nothing_else(endless: Endless, backend: DeafBackend) -> None:
    with tmpfs(endless.data_dir) as disk, endless.agent as agent:
        hog = fill(endless, disk)
        waiting = endless.books.captured
        assert waiting > 0
        stats = endless.demand_told(FULL)
        assert FULL in stats["state_reason"]
        assert endless.books.captured == waiting == stats["outbox_records"]
        assert backend.records == []
        backend.takes_bodies = True

        was_full: list[bool] = []

        def has_arrived() -> bool:
            hog.take()
            was_full.append(disk.free_bytes == 0)
            return len(backend.records) >= waiting

        assert wait_until(has_arrived, ARRIVE_S), agent.said()
        assert any(was_full)  # what is drained gives room back, until somebody else takes it
        hog.go()
        endless.demand_goes_on()
        endless.demand_each_record_once()
    assert agent.count("worker.replaced") == 0


def test_killed_on_a_full_disk_it_starts_again_and_delivers(endless: Endless, backend: DeafBackend) -> None:
    with tmpfs(endless.data_dir) as disk, endless.agent as agent:
        hog = fill(endless, disk)
        waiting = endless.books.captured
        agent.kill()
        (endless.data_dir / f"{FILE_NAME}-shm").unlink()
        hog.take()
        assert all((endless.data_dir / name).exists() for name in NAMES)
        agent.start()
        endless.demand_told(FULL)
        hog.take()
        backend.takes_bodies = True
        endless.demand_arrived(waiting)
        hog.go()
        endless.demand_goes_on()
        endless.demand_each_record_once()


def test_a_start_without_any_room_waits_and_says_so(endless: Endless, backend: DeafBackend) -> None:
    with tmpfs(endless.data_dir) as disk, endless.agent as agent:
        hog = fill(endless, disk)
        waiting = endless.books.captured
        agent.kill()
        for name in (*NAMES, f"{FILE_NAME}-shm"):
            (endless.data_dir / name).unlink(missing_ok=True)
        hog.take()
        starts = agent.count("agent.started")
        agent.start()
        endless.demand_told(FULL)
        assert agent.count("outbox.not_open") == 1
        assert agent.end(timeout_s=END_S) == 0
        agent.start()
        endless.demand_told(FULL)
        assert agent.count("outbox.not_open") == 2
        assert agent.count("agent.started") == starts
        told = ask(endless.data_dir)
        assert told is not None
        assert (told["pid"], FULL in told["error"]) == (agent.pid, True)
        assert disk.free_bytes == 0
        hog.go()
        assert wait_until(lambda: agent.count("agent.started") == starts + 1, SOON_S), agent.said()
        backend.takes_bodies = True
        endless.demand_arrived(waiting)
        endless.demand_goes_on()
        endless.demand_each_record_once()


def test_a_start_where_no_file_can_be_made_waits_and_says_so(endless: Endless, backend: DeafBackend) -> None:
    with tmpfs(endless.data_dir) as disk:
        hog = disk.take_inodes()
        backend.takes_bodies = True
        with endless.agent as agent:
            endless.demand_told(FULL)
            assert agent.count("agent.started") == 0
            hog.go()
            assert agent.heard("agent.started", timeout_s=SOON_S), agent.said()
            endless.demand_goes_on()
            endless.demand_each_record_once()


def test_a_quota_that_is_reached_pauses_collecting_and_nothing_else(tmp_path: Path, backend: DeafBackend) -> None:
    backend.takes_bodies = False
    endless = Endless(tmp_path, backend, max_bytes=QUOTA)
    with endless.agent:
        stats = endless.demand_told(FULL)
        assert f"{QUOTA:,} bytes" in stats["state_reason"]
        waiting = endless.books.captured
        assert QUOTA // 2 < stats["outbox_bytes"] < 2 * QUOTA
        endless.demand_told(FULL)
        assert endless.books.captured == waiting
        backend.takes_bodies = True
        endless.demand_goes_on()
        endless.demand_each_record_once()


def test_a_file_system_that_turned_read_only_is_told_and_the_next_start_delivers(
    endless: Endless, backend: DeafBackend
) -> None:
    with endless.agent as agent:
        agent.kill()
        with ext4(endless.data_dir) as disk:
            agent.start()
            assert wait_until(lambda: (endless.data_dir / FILE_NAME).exists() and endless.books.captured > 0, SOON_S)
            disk.break_down()
            endless.demand_told(BROKEN)
            waiting = endless.books.captured
            backend.takes_bodies = True
            endless.demand_told(BROKEN)
            assert agent.end(timeout_s=END_S) == 0
            disk.mend()
            agent.start()
            endless.demand_arrived(waiting)
            endless.demand_goes_on()
            endless.demand_each_record_once()


def test_the_comparison_sees_what_is_missing_and_what_came_twice() -> None:
    records = [{"id": f"r{number}"} for number in range(5)]
    assert compare(5, records) == (0, 0)
    assert compare(5, records[1:]) == (1, 0)
    assert compare(5, [*records, records[2]]) == (0, 1)
