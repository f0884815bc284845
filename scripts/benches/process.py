"""The agent as a process: how soon a row that was read is posted, and how much memory a million rows take."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from scripts.benches.figure import Figure
from storage.errors import OutboxError
from storage.view import OutboxView
from tests.fakes.stub_backend import StubBackend
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate

LATENCY_ROWS, MEMORY_ROWS = 300, 1_000_000
SAMPLE_S = 0.05
DEADLINE_S = 600

# What the agent imports to watch a MySQL server, and the same without what is its own.
_AGENT = "import agent.cli, agent.wiring, agent.conductor, agent.sources.mysql_slow_log, sys"
_NAMES = f"{_AGENT}; print(*(m for m in sys.modules if m.split('.')[0] not in ('agent', 'storage', '__main__')))"
_BARE = """
import contextlib, importlib, sys
for name in sys.argv[1:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
print('ready', flush=True)
sys.stdin.read()
"""


def latency() -> Iterator[Figure]:
    """p95 seconds from a row being read to its POST arriving, with an empty outbox."""
    waits: list[float] = []
    with (
        MariaDBTemplate() as template,
        MariaDBServer(template, long_query_time=3_600) as server,
        StubBackend() as stub,
        running_agent(server.monitor(), stub, collection_interval=0.1),
    ):
        for first in range(0, LATENCY_ROWS, 10):
            server.slow(10, first=first)
            if not stub.wait_for(_has(first + 10), 20):
                raise RuntimeError("rows did not arrive")
            arrived = datetime.now(UTC)
            fresh = stub.records[first:]
            waits += [(arrived - datetime.fromisoformat(record["collected_at"])).total_seconds() for record in fresh]
    p95_s = statistics.quantiles(waits, n=20)[-1]
    detail = f"median {statistics.median(waits) * 1000:.0f} ms, worst {max(waits) * 1000:.0f} ms of {len(waits)} rows"
    yield Figure("row read to its POST, p95 in s", p95_s, "under 2", p95_s < 2, detail)


def memory() -> Iterator[Figure]:
    """Peak RSS while a million rows are collected, as a multiple of an interpreter with the same packages."""
    bare = bare_rss()
    with MariaDBTemplate() as template, MariaDBServer(template, long_query_time=3_600) as server, StubBackend() as stub:
        db = server.monitor()
        server.fill(MEMORY_ROWS)
        stub.break_down("refused")  # the worst case: everything stays in the outbox
        with running_agent(db, stub, collection_interval=3600) as (process, data_dir):
            peak = peak_rss(process, data_dir, MEMORY_ROWS)
    ratio = peak / bare
    detail = f"{peak / 1e6:.1f} MB against {bare / 1e6:.1f} MB with the packages alone"
    yield Figure("peak RSS / bare interpreter", ratio, "at most 1.25", ratio <= 1.25, detail)


def _has(count: int) -> Callable[[StubBackend], bool]:
    return lambda stub: len(stub.records) >= count


@contextlib.contextmanager
def running_agent(db: dict[str, Any], stub: StubBackend, **settings: float) -> Iterator[tuple[psutil.Process, Path]]:
    """`python -m agent` with a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        config = {
            "collector_id": stub.collector_id,
            "api_key": stub.api_key,
            "backend_url": stub.url,
            "db_type": "mysql",
            "db_config": {**db, "max_load": 0},  # looks ten times a second are what is measured
            "log": {"level": "ERROR"},
            **settings,
        }
        (home / "config.json").write_text(json.dumps(config))
        process = subprocess.Popen([sys.executable, "-m", "agent", "--config", str(home / "config.json")])
        try:
            yield psutil.Process(process.pid), home / "data"
        finally:
            process.terminate()
            process.wait()


def bare_rss() -> int:
    """Bytes of an interpreter that has imported every module that the agent imports and that is not its own."""
    names = subprocess.run([sys.executable, "-c", _NAMES], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    process = subprocess.Popen([sys.executable, "-c", _BARE, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError("the packages cannot be imported")
        return int(psutil.Process(process.pid).memory_info().rss)
    finally:
        process.communicate()


def peak_rss(process: psutil.Process, data_dir: Path, rows: int) -> int:
    """The highest RSS in bytes until all rows are in the outbox."""
    pause = threading.Event()
    peak = 0
    for _ in range(round(DEADLINE_S / SAMPLE_S)):
        if process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError("the agent has died")
        peak = max(peak, int(process.memory_info().rss))
        with contextlib.suppress(OutboxError), OutboxView(data_dir) as outbox:
            if outbox.tally("queries").captured >= rows:
                return peak
        pause.wait(SAMPLE_S)
    raise RuntimeError("the rows were not collected in time")
