"""The demonstration as a person runs it.

What could go wrong: it ends without its proof, or says so without having gone through an outage; Ctrl-C or a kill in
the middle leaves a PostgreSQL or an agent behind; `--keep` ends by itself.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 150


class Demo:
    """A running demonstration in a process group of its own; its output is read as it comes."""

    def __init__(self, tmp: Path, *options: str) -> None:
        self.lines: list[str] = []
        self._is_over = False
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", "demo", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp), "COLUMNS": "120"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait_for(self, words: str) -> None:
        def is_there() -> bool:
            return any(words in line for line in self.lines) or self._is_over

        with self._changed:
            self._changed.wait_for(is_there, DEADLINE_S)
        assert any(words in line for line in self.lines), "\n".join(self.lines)

    def end(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def tmp() -> Iterator[Path]:
    # PostgreSQL may run as another user. Not below pytest's own folder: another run of pytest, beginning in the middle
    # of this one, closes that to all others.
    with tempfile.TemporaryDirectory(prefix="dbpower-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def left_behind(tmp: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(tmp) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture
def demos(tmp: Path) -> Iterator[list[Demo]]:
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.close()


@pytest.mark.usefixtures("postgres18")
def test_the_story_ends_with_nothing_lost_and_nothing_doubled(tmp: Path, demos: list[Demo]) -> None:
    demos.append(demo := Demo(tmp))
    code, left = demo.end(), left_behind(tmp)
    told = "\n".join(demo.lines)
    assert (code, left) == (0, []), told
    depths = [int(depth) for depth in re.findall(r"outbox +(\d+)", told)]
    assert max(depths) > 10, "the outage did not fill the outbox"
    assert depths[-1] == 0
    for state in ("idle", "collecting", "reconnecting", "paused"):
        assert f"state {state}" in told
    collected, delivered, lost, doubled = map(
        int, re.findall(r"^collected (\d+), delivered (\d+), lost (\d+), duplicated (\d+)$", told, re.MULTILINE)[0]
    )
    assert (delivered, lost, doubled) == (collected, 0, 0)
    assert collected > 20


@pytest.mark.usefixtures("postgres18")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing_behind(tmp: Path, demos: list[Demo], number: signal.Signals) -> None:
    demos.append(demo := Demo(tmp))
    demo.wait_for("The backend is taken away")
    assert left_behind(tmp), "nothing ran that could be left behind"
    os.killpg(demo.process.pid, number)
    assert (demo.end(), left_behind(tmp)) == (130, []), "\n".join(demo.lines)
    assert not any("Traceback" in line for line in demo.lines)


@pytest.mark.usefixtures("postgres18")
def test_keep_runs_on_and_prints_the_addresses(tmp: Path, demos: list[Demo]) -> None:
    demos.append(demo := Demo(tmp, "--keep"))
    demo.wait_for("Everything goes on until Ctrl-C")
    assert demo.process.poll() is None
    assert len(re.findall(r"^(?:backend|postgres|agent) ", "\n".join(demo.lines), re.MULTILINE)) == 3
    os.killpg(demo.process.pid, signal.SIGINT)
    assert (demo.end(), left_behind(tmp)) == (130, [])
