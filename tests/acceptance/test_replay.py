"""A machine dies during an outage, its outbox is carried away and replayed elsewhere.

What could go wrong: records that the agent had acknowledged are not in the copy; a replay that is interrupted again and
again sends something twice or forgets it, also where the backend ignores keys; the way through a file that is carried
loses or doubles; where the disk was rescued nothing is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port, wait_until
from storage.outbox import FILE_NAME
from storage.view import OutboxView
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import ROOT, AgentProcess, environment, settings, write

ROWS = 20_000
INTERRUPTIONS = 3
SOON_S = 60.0
REPLAY = ROOT / "scripts" / "replay.py"
EXPECTED = Counter({f"r{number}": 1 for number in range(ROWS)})


class Backend(Protocol):
    """Where a replay goes, and what has arrived there."""

    url: str
    api_key: str
    collector_id: int

    def ids(self) -> list[str]: ...


class Stub:
    """Knows PROTOCOL's table and nothing else."""

    def __init__(self) -> None:
        self._running = StubBackend()
        self.url, self.api_key, self.collector_id = self._running.url, self._running.api_key, self._running.collector_id

    def ids(self) -> list[str]:
        return [record["id"] for record in self._running.records]

    def close(self) -> None:
        self._running.close()


class Development:
    """The development backend, with its extensions."""

    def __init__(self) -> None:
        self._running = RunningBackend()
        mine = self._running.registry.register("dead")
        self.url, self.api_key, self.collector_id = self._running.url, mine.api_key, mine.id

    def ids(self) -> list[str]:
        return [record["id"] for record in self._running.store.records()]

    def close(self) -> None:
        self._running.close()


@pytest.fixture(params=[Stub, Development])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with contextlib.closing(request.param()) as running:
        yield running


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an agent that was killed for good while its backend was away and everything waited."""
    place = tmp_path_factory.mktemp("dead")
    with StubBackend() as away:
        away.break_down("refused")
        db_config = {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}
        config = write(place, settings(away, "mysql", db_config))
        with AgentProcess(config, program="tests.servers.numbered_agent", variables={"ROWS": str(ROWS)}) as agent:

            def waiting() -> int:
                with OutboxView(agent.data_dir) as view:
                    return view.tally("queries").pending

            assert wait_until(lambda: waiting() == ROWS, SOON_S), agent.said()[-2_000:]
            agent.kill()
        assert away.records == []
    copy = place / "carried"
    copy.mkdir()
    for path in agent.data_dir.glob("outbox.*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, copy / path.name)
    assert (copy / f"{FILE_NAME}-wal").stat().st_size > 0, "some of it stands in the WAL only"
    return copy


def words(backend: Backend, *more: object) -> list[str]:
    who = ("--backend-url", backend.url, "--api-key", backend.api_key, "--collector-id", backend.collector_id)
    return [sys.executable, str(REPLAY), *map(str, more), *map(str, who)]


def finished(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run to its end."""
    return subprocess.run(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
    )


def interrupted(command: Sequence[str], has_come: Callable[[], bool]) -> tuple[int, str]:
    """Ctrl-C as soon as that has come; exit code and what it said."""
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        came = wait_until(has_come, SOON_S)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SOON_S)
    assert came, said
    return process.returncode, said


def replayed_with_interruptions(backend: Backend, *what: object) -> None:
    for run in range(1, INTERRUPTIONS + 1):
        known = len(backend.ids())
        code, said = interrupted(words(backend, *what, "--rate", 4_000), partial(has_more, backend, known))
        assert (code, "goes on from here" in said) == (1, True), said
        assert known < len(backend.ids()) < ROWS, f"interruption {run} came in the middle"
    last = finished(words(backend, *what, "--json"))
    assert last.returncode == 0, last.stderr
    (told,) = json.loads(last.stdout)["outboxes"]
    assert (told["before"] + told["delivered"], told["possible_duplicates"]) == (ROWS, 0)
    assert Counter(backend.ids()) == EXPECTED


def has_more(backend: Backend, known: int) -> bool:
    return len(backend.ids()) > known


def test_a_dead_agents_outbox_arrives_once_in_spite_of_interruptions(
    carried: Path, backend: Backend, tmp_path: Path
) -> None:
    copy = shutil.copytree(carried, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    replayed_with_interruptions(backend, copy, "--ledger", tmp_path / "ledger")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_the_same_through_a_file_that_is_carried(carried: Path, backend: Backend, tmp_path: Path) -> None:
    copy, path = shutil.copytree(carried, tmp_path / "copy"), tmp_path / "carried.jsonl.gz"
    python = str(getattr(sys, "_base_executable", sys.executable))
    bare = [
        python,
        "-I",
        "-S",
        str(REPLAY),
        str(copy),
        "--export",
        str(path),
    ]
    exported = finished(bare)
    assert (exported.returncode, exported.stderr) == (0, "")
    assert f"exported {ROWS:,} records" in exported.stdout
    replayed_with_interruptions(backend, "--import", path)


def test_a_backend_that_is_away_ends_it_after_30_seconds_and_nothing_is_lost(carried: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(carried, tmp_path / "copy")
    with contextlib.closing(Stub()) as stub:
        stub._running.break_down("refused")
        away = finished(words(stub, copy))
        *progress, last = away.stderr.splitlines()
        assert (away.returncode, last[:7], "[BE-01]" in last) == (2, "[RP-03]", True), away.stderr
        assert all(f"0 of {ROWS:,} records" in line for line in progress)
        stub._running.recover()
        back = finished(words(stub, copy))
        assert (back.returncode, Counter(stub.ids())) == (0, EXPECTED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_export_that_is_ended_leaves_nothing(carried: Path, tmp_path: Path, number: signal.Signals) -> None:
    copy, room = shutil.copytree(carried, tmp_path / "copy"), tmp_path / "room"
    room.mkdir()
    # In place of the file that it writes: it goes no further than somebody reads.
    pipe = tmp_path / ".x.csv.part"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 1)  # one page: the export is larger
    command = [sys.executable, str(REPLAY), str(copy), "--export", str(tmp_path / "x.csv")]
    with (
        open(reading, "rb", buffering=0) as written,
        subprocess.Popen(command, env=environment(TMPDIR=str(room)), stderr=subprocess.PIPE, text=True) as process,
    ):
        poll = select.poll()
        poll.register(written, select.POLLIN)
        assert poll.poll(SOON_S * 1_000), "it is in the middle of it"
        process.send_signal(number)
        os.set_blocking(written.fileno(), True)
        while written.read(65_536):
            pass
        _, said = process.communicate(timeout=SOON_S)
    assert (process.returncode, "Stopped" in said, "Traceback" in said) == (1, True, False), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "room"]
    assert list(room.iterdir()) == []


def test_on_a_terminal_there_is_a_bar(carried: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(carried, tmp_path / "copy")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with contextlib.closing(Stub()) as stub:
        command = words(stub, copy, "--limit", 3_000, "--rate", 2_000)
        with subprocess.Popen(
            command, env=environment(TERM="xterm"), stdout=subprocess.DEVNULL, stderr=theirs
        ) as process:
            os.close(theirs)
            said = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
    assert process.returncode == 0, said
    assert re.search(rb"3000/3000.* MB, [\d,]+ records/s", said), said[-500:]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # nobody writes to it any more
        return b""
