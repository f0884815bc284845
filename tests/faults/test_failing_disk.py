"""A real agent whose disk answers with errors, refuses to be written, or takes seconds for each sync.

What could go wrong: an error ends the process or a thread; it is not told; after it the outbox works only after a new
start; what was not synced counts as captured, or what was accepted is sent again; a slow disk delays the heartbeat or
the end. The faults are made by strace, by slow_sync.c, and by a flag that forbids writing to files that are open; each
test proves that its fault happened.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.dev.server_process import wait_until
from storage.errors import OutboxBroken
from storage.outbox import FILE_NAME
from tests.fakes.deaf_backend import DeafBackend
from tests.faults.endless import END_S, SOON_S, Endless
from tests.faults.small_disk import cannot, ext4
from tests.faults.strace import injected

SYNCS = "fsync,fdatasync"
WRITES = "pwrite64"
NOW_AND_THEN = {SYNCS: "when=3+5", WRITES: "when=50+300"}  # a commit is one sync and a hundred writes
BEATS_A_SYNC = 3  # of ten


@pytest.fixture
def backend() -> Iterator[DeafBackend]:
    with DeafBackend() as stub:
        yield stub


@pytest.fixture
def endless(tmp_path: Path, backend: DeafBackend) -> Endless:
    return Endless(tmp_path, backend)


@pytest.mark.parametrize("calls", [SYNCS, WRITES])
def test_errors_of_the_disk_are_told_and_it_goes_on_when_they_are_over(
    endless: Endless, tmp_path: Path, calls: str
) -> None:
    with endless.agent as agent:
        endless.demand_collecting()
        with injected(agent.pid, calls, "error=EIO", tmp_path / "trace") as injection:
            endless.demand_told(OutboxBroken.code)
            captured = endless.books.captured
            endless.demand_told(OutboxBroken.code)
            assert endless.books.captured == captured, "nothing counts that is not on the disk"
            assert injection.hits > 1
        endless.demand_goes_on()
        endless.demand_each_record_once()


@pytest.mark.parametrize("calls", NOW_AND_THEN)
def test_errors_now_and_then_lose_nothing_and_double_nothing(endless: Endless, tmp_path: Path, calls: str) -> None:
    with endless.agent as agent:
        endless.demand_collecting()
        with injected(agent.pid, calls, f"error=EIO:{NOW_AND_THEN[calls]}", tmp_path / "trace") as injection:
            before = len(endless.backend.records)
            endless.demand_arrived(before + 2_000)
        assert injection.hits > 2
        endless.demand_goes_on()
        endless.demand_each_record_once()


def test_a_slow_disk_delays_neither_the_heartbeat_nor_the_end(
    backend: DeafBackend, tmp_path: Path, slow_sync_library: Path
) -> None:
    slow = tmp_path / "slow"
    endless = Endless(tmp_path, backend)
    with endless.agent as agent:
        agent.kill()
        agent.start(LD_PRELOAD=str(slow_sync_library), SLOW_SYNC=str(slow))
        endless.demand_collecting()
        slow.touch()
        assert wait_until(lambda: slow.stat().st_size > 0, SOON_S), "a sync has begun to take long"
        syncs, beats = slow.stat().st_size, len(backend.heartbeats)
        assert wait_until(lambda: slow.stat().st_size >= syncs + 2, SOON_S)
        assert len(backend.heartbeats) - beats >= 2 * BEATS_A_SYNC
        assert agent.end(timeout_s=END_S) == 0, agent.said()
        slow.unlink()
        agent.start()
        endless.demand_goes_on()
        endless.demand_all_arrived()


def test_files_that_may_not_be_written_for_a_while_are_told_and_it_goes_on_when_they_may(endless: Endless) -> None:
    with ext4(endless.data_dir), endless.agent:
        endless.demand_collecting()
        forbid(endless.data_dir, "+i")
        try:
            endless.demand_told(OutboxBroken.code)
            captured = endless.books.captured
            endless.demand_told(OutboxBroken.code)
            assert endless.books.captured == captured
        finally:
            forbid(endless.data_dir, "-i")
        endless.demand_goes_on()
        endless.demand_each_record_once()


def forbid(directory: Path, flag: str) -> None:
    """Takes the right to write to the outbox's files from everybody, also through what is open already."""
    files = [directory / FILE_NAME, directory / f"{FILE_NAME}-wal"]
    done = subprocess.run(["chattr", flag, *map(str, files)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        cannot(f"chattr: {done.stderr.strip()}")
