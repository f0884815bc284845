"""One agent at a time on a data directory.

What could go wrong: a second one starts and sends everything twice; the lock outlives a killed agent, which then never
starts again; the refusal does not say who holds it; a directory of ours can be read by others.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.errors import OutboxInaccessible, OutboxLocked
from storage.lock import DirectoryLock

TIMEOUT_S = 20
_HOLDER = """
import sys
from pathlib import Path
from storage.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
            process.wait(TIMEOUT_S)


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as first, pytest.raises(OutboxLocked) as refused:
        DirectoryLock(tmp_path)
    assert refused.value.detail == f"{tmp_path} is held by process {first.pid}"


def test_a_killed_process_gives_the_lock_back(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(OutboxLocked):  # it was really held
            DirectoryLock(tmp_path)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(TIMEOUT_S)
        with DirectoryLock(tmp_path) as lock:
            assert lock.path.read_text().split() == [str(os.getpid())]


def test_one_process_does_not_get_it_twice_either(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(OutboxLocked, match=str(os.getpid())):
        DirectoryLock(tmp_path)


def test_a_refused_one_leaves_the_name_of_the_holder_alone(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path) as lock:
        for _ in range(2):
            with pytest.raises(OutboxLocked, match=str(os.getpid())):
                DirectoryLock(tmp_path)
        assert lock.path.read_text().split() == [str(os.getpid())]


def test_a_released_lock_can_be_taken_and_released_again(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.release()
    lock.release()
    with DirectoryLock(tmp_path):
        pass


def test_a_longer_pid_of_an_earlier_holder_does_not_shine_through(tmp_path: Path) -> None:
    (tmp_path / "agent.lock").write_text("4194303999\n")
    with DirectoryLock(tmp_path) as lock:
        assert lock.path.read_text().split() == [str(os.getpid())]


def test_the_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "data"
    with DirectoryLock(directory) as lock:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxInaccessible, match="file"):
        DirectoryLock(tmp_path / "file" / "data")


def test_a_lock_file_that_cannot_be_locked_is_no_other_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks_here(*_: object) -> None:
        raise OSError(37, "No locks available")  # what a network file system says

    monkeypatch.setattr("fcntl.flock", no_locks_here)
    with pytest.raises(OutboxInaccessible, match="No locks available"):
        DirectoryLock(tmp_path)


def test_a_deleted_lock_file_does_not_let_a_second_agent_in(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path) as lock:
        lock.path.unlink()
        with pytest.raises(OutboxLocked):
            DirectoryLock(tmp_path)
    DirectoryLock(tmp_path).release()
