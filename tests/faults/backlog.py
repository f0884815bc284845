"""An outbox with much in it, and what it costs compared with an empty one.

Tests compare what SQLite does (`meter`), the same at every run; seconds are for `torture`, which measures pairs
in turns.

As a program, `python -m tests.faults.backlog DIRECTORY`, it builds an agent over the outbox there as the command line
does, takes in 100 envelopes, delivers 100, and prints what that took as JSON. With `greedy` behind it, it holds the
bodies of the outbox in memory meanwhile, as an agent must not: the control.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from agent import wiring
from agent.clock import Clock
from agent.config.layers import Layers
from agent.delivery import Delivered, Verdict
from agent.flusher import Flusher
from agent.sinks import QUERIES, TOPICS
from agent.status import Scoreboard
from storage.envelope import Change, Draft, Envelope
from storage.outbox import FILE_NAME, Outbox
from tests.fakes.manual import config_tree
from tests.servers import memory
from tests.servers.agent_process import ROOT, environment

RECORD_BYTES = 300  # a record of 1,000 characters, packed
FILL_BYTES = 4 * 1_048_576  # one commit
ROUND = 100
SMALL_BYTES = 5_000_000
PAIRS = 200
START_S, RATIO, MORE_MB = 2.0, 1.2, 10.0


class Taker:
    """A sink that takes everything and keeps nothing but the number of records."""

    kind = "taker"

    def __init__(self) -> None:
        self.records = 0

    def send(self, envelope: Envelope) -> Verdict:
        """Delivered."""
        self.records += envelope.records
        return Delivered(envelope.records)

    def close(self) -> None:
        """There is nothing to close."""


def draft(rng: random.Random, records: int, record_bytes: int = RECORD_BYTES) -> Draft:
    """As large as so many records are when they are packed, and as little to be packed further."""
    return Draft(QUERIES, records, rng.randbytes(records * record_bytes))


def fill(outbox: Outbox, records: int, batch: int, rng: random.Random, record_bytes: int = RECORD_BYTES) -> None:
    """So many pending records in envelopes of `batch`; the last one has what is left."""
    counts = [min(batch, records - at) for at in range(0, records, batch)]
    each = max(1, FILL_BYTES // (batch * record_bytes))
    for at in range(0, len(counts), each):
        outbox.commit(Change(drafts=tuple(draft(rng, count, record_bytes) for count in counts[at : at + each])))


def opened(directory: Path) -> Outbox:
    """As `wiring` opens it: somebody hears the books."""
    return Outbox(directory, topics=TOPICS, on_books=lambda *_: None)


def flusher(outbox: Outbox, sink: Taker) -> Flusher:
    """As `wiring` makes it."""
    return Flusher(outbox, sink, Scoreboard(0.0), clock=Clock(), rng=random.Random(0), hold_s=30)


def drain(outbox: Outbox) -> int:
    """Delivers all, and lets the file shrink, as the flusher's thread does; gives the records that were taken."""
    sink = Taker()
    runner = flusher(outbox, sink)
    while runner.step() == 0:
        pass
    assert runner.error is None
    return sink.records


def size(directory: Path) -> int:
    """Bytes of the file and of what belongs to it."""
    return sum(path.stat().st_size for path in directory.glob(f"{FILE_NAME}*"))


# -- an agent over it ------------------------------------------------------------------------------------------------


def report(directory: Path, *more: str) -> dict[str, float]:
    """What a fresh process says that builds an agent over the outbox in `directory`: seconds and MB."""
    words = [sys.executable, "-m", "tests.faults.backlog", str(directory), *more]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def start(directory: Path, *, greedy: bool = False) -> dict[str, float]:
    """Builds the agent in this process; `seconds` from its start on, `build_seconds` without the imports."""
    held = _everything(directory) if greedy else []
    began_s = time.perf_counter()
    layers = Layers(config_tree(data_dir=str(directory)), {}, directory)
    sink = Taker()
    agent = wiring.build(layers.build({}), layers, wiring.Parts(sink=sink))
    built_s = time.perf_counter()
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - _started_at_s()
    agent.outbox.commit(Change(drafts=tuple(draft(random.Random(0), 1) for _ in range(ROUND))))
    for _ in range(ROUND):
        assert agent.flusher.step() == 0
    assert sink.records >= ROUND
    now, peak = (memory.kib(name) / 1_000 for name in ("VmRSS", "VmHWM"))
    agent.close()
    del held
    return {"seconds": age_s, "build_seconds": built_s - began_s, "rss_mb": now, "peak_rss_mb": peak}


def _everything(directory: Path) -> list[Any]:
    with closing(sqlite3.connect(directory / FILE_NAME)) as looking:
        return looking.execute("SELECT body FROM envelope").fetchall()


def _started_at_s() -> float:
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


# -- a million -------------------------------------------------------------------------------------------------------


def torture(records: int, seed: int, progress: Callable[[int], None], *, pairs: int = PAIRS) -> dict[str, float]:
    """So many pending records, in envelopes of 500 as they come from a busy log, and in envelopes of one.

    `progress` hears how many of 2 * `records` have been put in. Gives seconds, MB and ratios by name. Raises
    AssertionError when the start takes longer than START_S, the memory is more than MORE_MB above that over an empty
    outbox, an enqueue or a delivery takes RATIO times as long, or the file does not shrink under SMALL_BYTES.
    """
    figures: dict[str, float] = {}
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        empty = Path(place, "empty")
        opened(empty).close()
        for batch in (500, 1):
            full = Path(place, str(batch))
            with closing(opened(full)) as outbox:
                for part in range(10):
                    fill(outbox, records // 10, batch, rng)
                    progress((records if batch == 1 else 0) + (part + 1) * records // 10)
            figures |= {f"x{batch}: {name}": value for name, value in _compared(full, empty, batch, pairs, rng).items()}
        figures |= _drained(Path(place, "500"))
    broken = [name for name, value in figures.items() if value > _limit(name)]
    assert broken == [], f"{', '.join(broken)}\n{figures}"
    return figures


def _limit(name: str) -> float:
    limits = {"start s": START_S, "ratio": RATIO, "MB more": MORE_MB, "MB after the drain": SMALL_BYTES / 1e6}
    return next((limit for end, limit in limits.items() if name.endswith(end)), float("inf"))


def _compared(full: Path, empty: Path, batch: int, pairs: int, rng: random.Random) -> dict[str, float]:
    figures = {"MB": size(full) / 1e6}
    ours, plain = (report(directory) for directory in (full, empty))
    figures |= {"start s": ours["seconds"], "start s, empty": plain["seconds"]}
    figures |= {"build s": ours["build_seconds"], "build s, empty": plain["build_seconds"]}
    figures["peak MB more"] = ours["peak_rss_mb"] - plain["peak_rss_mb"]
    with closing(opened(full)) as large, closing(opened(empty)) as small:
        return figures | _in_turns(large, small, [draft(rng, batch) for _ in range(pairs)])


def _in_turns(large: Outbox, small: Outbox, drafts: Sequence[Draft]) -> dict[str, float]:
    """Medians of an enqueue and a delivery, each in pairs so that the noise of the machine meets both."""
    times: dict[str, list[float]] = {}
    outboxes = {"": large, ", empty": small}
    runners = {name: flusher(outbox, Taker()) for name, outbox in outboxes.items()}
    for each in drafts:
        change = Change(drafts=(each,))
        for name, outbox in outboxes.items():
            times.setdefault(f"enqueue ms{name}", []).append(_took_ms(partial(outbox.commit, change)))
        for name, runner in runners.items():
            times.setdefault(f"delivery ms{name}", []).append(_took_ms(runner.step))
    figures = {name: statistics.median(taken) for name, taken in times.items()}
    for what in ("enqueue", "delivery"):
        figures[f"{what} ratio"] = figures[f"{what} ms"] / figures[f"{what} ms, empty"]
    return figures


def _took_ms(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return (time.perf_counter() - began_s) * 1_000


def _drained(directory: Path) -> dict[str, float]:
    with closing(opened(directory)) as outbox:
        waiting = outbox.tally(QUERIES).pending
        began_s = time.perf_counter()
        assert drain(outbox) == waiting
        took_s = time.perf_counter() - began_s
        return {"drained records/s": waiting / took_s, "MB after the drain": size(directory) / 1e6}


if __name__ == "__main__":
    json.dump(start(Path(sys.argv[1]), greedy="greedy" in sys.argv[2:]), sys.stdout)
