"""A foreign server as a child of ours: own directory, own account, gone without a trace. Knows no database.

Nothing outlives this program, even when it dies by SIGKILL: a small shell (the guard) holds the other end
of a pipe of ours; when the pipe closes it stops the server and removes the directory. So no signal handler
and no atexit hook is taken from anyone.
"""

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

HOST = "127.0.0.1"
POLL_S = 0.02
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0

# Reads the pid of the running server (an empty line: none runs) until the pipe closes, then cleans up.
GUARD = """
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
  kill -CONT "$pid"; kill -QUIT "$pid"; n=0
  while kill -0 "$pid" && [ "$n" -lt 100 ]; do sleep 0.1; n=$((n+1)); done
  kill -KILL "$pid"
fi
rm -rf -- "$1"
"""


class DevServerError(RuntimeError):
    """A server for the demo or the tests cannot be had."""


def free_port() -> int:
    """Below the ports that the kernel gives to outgoing connections, so that a restart finds it free."""
    for _ in range(200):
        port = random.randint(18_000, 32_000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise DevServerError("no free port between 18000 and 32000 on 127.0.0.1")


class ServerProcess:
    """One server: a temporary directory and a process tree. For root it runs as `nobody`, else as us."""

    def __init__(self, label: str) -> None:
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.directory = Path(tempfile.mkdtemp(prefix=f"{label}-", dir=self._temporary_root()))
        self.own(self.directory, 0o711)
        self.log = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        guard = ["/bin/sh", "-c", GUARD, f"{label}-guard", str(self.directory)]
        self._guard = subprocess.Popen(
            guard,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    @property
    def pid(self) -> int | None:
        """Of the running server; None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def within_reach(self, path: Path) -> bool:
        """Whether the account of the server can read and enter it."""
        ways = [path, *path.parents]
        return not self._account or (path.stat().st_mode & 0o5 == 0o5 and all(way.stat().st_mode & 1 for way in ways))

    def own(self, path: Path, mode: int) -> Path:
        """Gives a file or directory to the account of the server."""
        path.chmod(mode)
        if self._account:
            os.chown(path, self._account["user"], self._account["group"])
        return path

    def run(self, argv: Sequence[str | Path]) -> None:
        """Runs a tool of the server to its end."""
        done = subprocess.run(argv, **self._surroundings(), capture_output=True, check=False, timeout=120)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
            raise DevServerError(f"{argv[0]} failed with {done.returncode}: {said}")

    def start(self, argv: Sequence[str | Path], ready: Callable[[], bool]) -> None:
        """Starts the server and waits until `ready()`; leaves nothing running when that never comes."""
        if self.pid is not None:
            raise DevServerError(f"{argv[0]} runs already")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, **self._surroundings(), stdout=log, stderr=log, start_new_session=True
            )
        self._tell_guard(str(self._process.pid))
        up = False
        try:
            up = wait_until(lambda: self.pid is None or ready(), READY_TIMEOUT_S) and self.pid is not None
        finally:
            if not up:
                self.kill()
        if not up:
            raise DevServerError(f"{argv[0]} did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def stop(self, how: signal.Signals) -> None:
        """Ends the server in order; one that does not end within the deadline is killed."""
        self.thaw()
        if self._process is not None and self.pid is not None:
            self._process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """A crash: SIGKILL for the server and its children at once. Returns when they are gone."""
        pids = self._signal_tree(signal.SIGSTOP)  # first, so that no child is born while we count them
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)
            wait_until(lambda: all(_state(pid) in "ZX" for pid in pids), STOP_TIMEOUT_S)
            self._process = None
            self._tell_guard("")

    def freeze(self) -> None:
        """SIGSTOP: connections are still accepted by the kernel, but nothing answers any more."""
        pids = self._signal_tree(signal.SIGSTOP)
        if not pids or not wait_until(lambda: all(_state(pid) in "TZX" for pid in pids), STOP_TIMEOUT_S):
            raise DevServerError("there is no running server to freeze")

    def thaw(self) -> None:
        """SIGCONT; harmless for a server that is not frozen."""
        self._signal_tree(signal.SIGCONT)

    def close(self) -> None:
        """Leaves no process and no directory. Can be called twice."""
        self.kill()
        if self._guard.stdin is not None:
            self._guard.stdin.close()  # the guard removes the directory
        self._guard.wait(STOP_TIMEOUT_S)

    def _signal_tree(self, what: signal.Signals) -> list[int]:
        """To the server first, then to its children, which are in sessions of their own; gives their pids."""
        server = self.pid
        if server is None:
            return []
        os.kill(server, what)
        if what == signal.SIGSTOP:
            wait_until(lambda: _state(server) in "TZX", STOP_TIMEOUT_S)
        children = _children(server)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)
        return [server, *children]

    def _surroundings(self) -> dict[str, Any]:
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        return {"env": env, "cwd": self.directory, "stdin": subprocess.DEVNULL, **self._account}

    def _tell_guard(self, pid: str) -> None:
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.write(f"{pid}\n".encode())

    def _temporary_root(self) -> Path:
        roots = [Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")]  # noqa: S108
        return next((root for root in roots if root.is_dir() and self.within_reach(root)), roots[0])


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Looks until it holds or the time is over; tells which."""
    deadline, pause = monotonic() + timeout_s, Event()
    while not holds():
        if monotonic() > deadline:
            return False
        pause.wait(POLL_S)
    return True


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _children(pid: int) -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _stat(path.name)[1] == str(pid)]
