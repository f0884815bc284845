"""Draining the outbox over HTTP against a bare session that posts the same bodies to the same backend."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import requests

from agent.body import queries
from agent.clock import Clock
from agent.flusher import Flusher
from agent.sinks import QUERIES
from agent.sinks.http import HttpSink
from agent.status import Scoreboard
from agent.transport import Transport
from scripts.benches.figure import Figure, paired, seconds
from storage.envelope import Change, Draft
from storage.outbox import Outbox

ENVELOPES, RECORDS = 200, 500
_run = itertools.count()


def measure() -> Iterator[Figure]:
    """Envelopes a second, ours by theirs; each acceptance is committed with FULL before the next is sent."""
    with backend() as (url, key), tempfile.TemporaryDirectory() as directory:
        ratio, ours_s, plain_s = paired(lambda: drain(Path(directory), url, key), lambda: post(url, key), pairs=5)
    total = ENVELOPES * RECORDS
    detail = f"{total / ours_s:,.0f} records/s drained, {total / plain_s:,.0f} records/s posted"
    yield Figure("drained / bare session loop", ratio, "at least 0.8", ratio >= 0.8, detail)


@contextlib.contextmanager
def backend() -> Iterator[tuple[str, str]]:
    """A development backend in a process of its own: its address and the key of a collector."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "agent.dev.backend", "--port", "0", "--store", f"{directory}/store"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = _address(process)
            answer = requests.post(
                f"{url}/api/v1/collectors/register",
                json={"name": "bench", "type": "mysql", "team_id": 1, "config": {}, "collection_interval_minutes": 1},
                headers={"Authorization": "Bearer bench"},
                timeout=10,
            )
            yield url, str(answer.json()["api_key"])
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    for line in process.stdout or ():
        found = re.search(r"http://\S+", line)
        if found:
            return found.group().rstrip(".,/")
    raise RuntimeError("the backend did not start")


def next_run() -> int:
    """A number that no other run has."""
    return next(_run)


def bodies(run: int, envelopes: int = ENVELOPES) -> Iterator[bytes]:
    """Bodies as the agent makes them, with records that were never sent before."""
    rng = random.Random(run)
    for n in range(envelopes):
        yield queries([_record(rng, f"{run}-{n}-{m}") for m in range(RECORDS)])


def _record(rng: random.Random, name: str) -> bytes:
    number = rng.randrange(1_000_000)
    return (
        f'{{"id":"{name}-{rng.getrandbits(200):x}","source":"mysql_slow_log",'
        f'"sql_text":"SELECT * FROM orders o JOIN customers c ON c.id = o.customer WHERE o.id = {number}",'
        f'"query_time":{rng.random() * 10:.6f},"lock_time":0.0,"rows_sent":{number},"rows_examined":{number * 3},'
        f'"db":"shop","user_host":"shop[shop] @ app-{number % 9} [10.0.0.{number % 250}]",'
        f'"start_time":"2026-01-31T12:00:00.123456+00:00","collected_at":"2026-01-31T12:05:00+00:00"}}'
    ).encode()


def drain(directory: Path, url: str, key: str) -> float:
    """Seconds to empty an outbox that holds the bodies."""
    run = next_run()
    folder = directory / str(run)
    outbox = Outbox(folder)
    outbox.commit(Change(drafts=tuple(Draft(QUERIES, RECORDS, body) for body in bodies(run))))
    clock = Clock()
    sink = HttpSink(Transport(url, key), 1, clock)
    board = Scoreboard(clock.monotonic())
    flusher = Flusher(outbox, sink, board, clock=clock, rng=random.Random(0), hold_s=1)

    def work() -> None:
        while flusher.step() == 0:
            pass

    took_s = seconds(work)
    delivered = outbox.tally(QUERIES).delivered
    sink.close()
    outbox.close()
    if delivered != ENVELOPES * RECORDS:
        raise RuntimeError(f"only {delivered} records were delivered: {flusher.error}")
    return took_s


def post(url: str, key: str, envelopes: int = ENVELOPES) -> float:
    """Seconds to post the bodies one after the other, packed as the agent sends them."""
    run = next_run()
    ready = list(bodies(run, envelopes))
    headers = {"X-Collector-API-Key": key, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    with requests.Session() as session:

        def work() -> None:
            for number, body in enumerate(ready):
                answer = session.post(
                    f"{url}/api/v1/queries/bulk",
                    data=body,
                    headers={**headers, "Idempotency-Key": f"bench-{run}-{number}"},
                    timeout=30,
                )
                answer.raise_for_status()
                if answer.json()["count"] != RECORDS:
                    raise RuntimeError("not every record was accepted")

        return seconds(work)
