"""Replaying an outbox against a bare session that posts the same bodies to the same backend, and its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.sinks import QUERIES
from scripts.benches.drain import RECORDS, backend, bodies, next_run, post
from scripts.benches.figure import Figure, paired, seconds
from storage.envelope import Change, Draft
from storage.outbox import Outbox

ENVELOPES, FEW_ENVELOPES = 2_000, 20
REPLAY = Path(__file__).parents[1] / "replay.py"
MORE_MB = 10.0
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measure() -> Iterator[Figure]:
    """Records a second, ours by theirs, and by how much more of them makes it larger."""
    with backend() as (url, key), tempfile.TemporaryDirectory() as directory:
        peaks: list[float] = []

        def replayed(envelopes: int) -> float:
            outbox = _filled(Path(directory), envelopes)
            return seconds(lambda: peaks.append(_replay(outbox, url, key)))

        ratio, ours_s, plain_s = paired(lambda: replayed(ENVELOPES), lambda: post(url, key, ENVELOPES), pairs=1)
        large_mb = max(peaks)
        replayed(FEW_ENVELOPES)
        more_mb = large_mb - peaks[-1]
    total = ENVELOPES * RECORDS
    detail = f"{total / ours_s:,.0f} records/s replayed, {total / plain_s:,.0f} records/s posted"
    yield Figure("replayed / bare session loop", ratio, "at least 0.8", ratio >= 0.8, detail)
    few = f"{large_mb:.1f} MB with {total:,} records, {peaks[-1]:.1f} MB with {FEW_ENVELOPES * RECORDS:,}"
    yield Figure("memory of a long replay", more_mb, f"at most {MORE_MB:g} MB more", more_mb <= MORE_MB, few)


def _filled(directory: Path, envelopes: int) -> Path:
    run = next_run()
    folder = directory / str(run)
    outbox = Outbox(folder)
    for body in bodies(run, envelopes):
        outbox.commit(Change(drafts=(Draft(QUERIES, RECORDS, body),)))
    outbox.close()
    return folder


def _replay(outbox: Path, url: str, key: str) -> float:
    """Runs scripts/replay.py to its end; its peak memory in MB."""
    words = [str(outbox), "--backend-url", url, "--collector-id", "1", "--json"]
    environment = {**os.environ, "DBPOWER_API_KEY": key}
    # From a small process: the peak of a new one begins with what its parent holds.
    command = [sys.executable, "-c", _PEAK, sys.executable, str(REPLAY), *words]
    return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout) / 1024
