"""A real agent, `python -m agent`, as a child of the tests: its files, its words, its end.

It runs as a service would, without the terminal that the tests may have.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.dev.server_process import wait_until

ROOT = Path(__file__).parents[2]
END_S = 20.0
PROGRAM = "agent"
Json = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """Ours without what would configure an agent; coverage reaches the child by it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DBPOWER_")}
    plain.pop("STATE_DIRECTORY", None)
    return {**plain, **more}


def run_agent(
    *words: object, cwd: Path = ROOT, timeout_s: float = 60, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m agent` with these words to its end."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *map(str, words)],
        cwd=cwd,
        env=environment(PYTHONPATH=str(ROOT), **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def settings(backend: Any, db_type: str, db_config: Json, **more: Any) -> Json:
    """A quick agent for this database and this backend (a StubBackend, or anything with its three names).

    It has no budget: looking three times a second is more than any database should bear for it.
    """
    return {
        "collector_id": backend.collector_id,
        "api_key": backend.api_key,
        "backend_url": backend.url,
        "db_type": db_type,
        "db_config": {"connect_timeout": 2, "read_timeout": 5, "max_load": 0, **db_config},
        "heartbeat_interval": 0.3,
        "collection_interval": 0.3,
        **more,
    }


def write(directory: Path, config: Json) -> Path:
    """The configuration as a file in `directory`; the agent keeps its data beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


class AgentProcess:
    """`with AgentProcess(path) as agent:` runs it; leaving kills what still runs. What it says is kept.

    `words`: what Python runs instead of the agent itself; `program`: another module that takes the same words as the
    agent; `standard_error`: where it speaks to instead of the log; `variables`: of its environment.
    """

    def __init__(
        self,
        config: Path,
        *words: str,
        program: str = PROGRAM,
        standard_error: int | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.config = config
        self._words = words or ("-m", program, "--config", str(config), "--log-format", "json")
        self._standard_error, self._variables = standard_error, variables or {}
        self.data_dir = config.parent / "data"
        self.log = config.parent / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **variables: str) -> Self:
        """Starts it, again after an end, with `variables` in its environment; what it says is appended to one log."""
        words = [sys.executable, *self._words]
        with self.log.open("ab") as log:
            stderr = log if self._standard_error is None else self._standard_error
            self._process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment(**{**self._variables, **variables}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=stderr,
                start_new_session=True,
            )
        return self

    def send(self, number: signal.Signals) -> None:
        """A signal that does not end it."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def end(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = END_S) -> int:
        """Asks for the end and waits for it; the exit code. Raises TimeoutExpired."""
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL: nothing of it runs on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(END_S)

    def events(self) -> list[Json]:
        """What it has said, in order; lines that are no JSON as {"raw": line}."""
        return [_entry(line) for line in self.said().splitlines()]

    def said(self) -> str:
        """Everything it wrote to standard output and standard error."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def heard(self, event: str, code: str | None = None, timeout_s: float = 20.0) -> bool:
        """Waits until it says that `event` (with that code)."""
        return wait_until(lambda: self.count(event, code) > 0, timeout_s)

    def count(self, event: str, code: str | None = None) -> int:
        """How often it has said that `event` (with that code)."""
        return sum(each.get("event") == event and code in {None, each.get("code")} for each in self.events())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()


def _entry(line: str) -> Json:
    try:
        found: Json = json.loads(line)
    except ValueError:
        return {"raw": line}
    return found
