"""Lets the system calls of a running process fail or take long, by strace, for as long as a `with` lasts.

Needs strace (Debian and Ubuntu: apt-get install strace) and the right to trace. Without them a test is skipped with the
reason, except where everything must be there (CI=true): there it fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.dev.server_process import wait_until

ATTACH_S = 10.0


class Injection:
    """What is done to the calls of a process; `log` is what strace writes."""

    def __init__(self, log: Path) -> None:
        self._log = log

    @property
    def hits(self) -> int:
        """How many calls have met it."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return sum("(INJECTED)" in line or "(DELAYED)" in line for line in lines)


@contextmanager
def injected(pid: int, calls: str, fault: str, log: Path) -> Iterator[Injection]:
    """`calls`: names with commas between; `fault`: as strace's option `inject` takes it, without the calls."""
    if shutil.which("strace") is None:
        _cannot("there is no strace here")
    log.unlink(missing_ok=True)
    words = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
    with subprocess.Popen([*words, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
        try:
            wait_until(lambda: _is_traced(pid) or tracer.poll() is not None, ATTACH_S)
            if tracer.poll() is not None and tracer.stderr is not None:
                _cannot(f"strace: {tracer.stderr.read().decode().strip()}")
            assert _is_traced(pid)
            yield Injection(log)
        finally:
            _let_go(tracer)


def _let_go(tracer: subprocess.Popen[bytes]) -> None:
    tracer.send_signal(signal.SIGINT)  # it lets go of the process, which runs on
    try:
        tracer.wait(ATTACH_S)
    except subprocess.TimeoutExpired:  # while it makes a call wait it hears nothing
        tracer.kill()
        tracer.wait()


def _is_traced(pid: int) -> bool:
    """Whether each of its threads is."""
    try:
        status = [task.joinpath("status").read_text(encoding="ascii") for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # one ended meanwhile
        return False
    return all("TracerPid:\t0\n" not in each for each in status)


def _cannot(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must be able to trace: {why}", pytrace=False)
    pytest.skip(why)
