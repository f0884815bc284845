"""No core of the agent: it would hold every password.

What could go wrong: a crash leaves one all the same; another process of the same user reads the memory; what the agent
reads of itself in /proc cannot be read any more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, resource, sys
from agent.core_dumps import forbid_core_dumps
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
if sys.argv[1] == "forbid":
    assert forbid_core_dumps()
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
os.listdir("/proc/self/fd")
os.abort()
"""


def crash(directory: Path, word: str) -> tuple[int, bool]:
    """The signal that ended it, and whether the kernel dumped it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, word], cwd=directory, env=environment)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -os.WTERMSIG(status)
    return os.WTERMSIG(status), os.WCOREDUMP(status)


def test_a_crash_leaves_no_core_and_control_without_it_it_may(tmp_path: Path) -> None:
    assert crash(tmp_path, "forbid") == (signal.SIGABRT, False)
    assert list(tmp_path.iterdir()) == []
    number, is_dumped = crash(tmp_path, "allow")
    assert number == signal.SIGABRT
    if not is_dumped:
        pytest.skip("this machine makes no cores at all")


NEIGHBOUR = """
import ctypes, os, sys
from agent.core_dumps import forbid_core_dumps
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # to become somebody else has taken it away
if sys.argv[1] == "forbid":
    assert forbid_core_dumps()
if os.fork() == 0:
    try:
        os._exit(0 if open(f"/proc/{os.getppid()}/environ", "rb").read() else 1)
    except PermissionError:
        os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody who can be kept away")
@pytest.mark.parametrize(("word", "answer"), [("forbid", 2), ("allow", 0)])
def test_another_process_of_the_same_user_does_not_read_what_it_was_given(word: str, answer: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", NEIGHBOUR, word], env=environment, check=False).returncode == answer
