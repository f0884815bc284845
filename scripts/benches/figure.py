"""What one measurement gives, and how pairs are measured so that a drifting machine does not decide."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `goal`: what the value should reach, as text; `detail`: the absolute figures behind it."""

    name: str
    value: float
    goal: str
    reached: bool
    detail: str


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def cpu_seconds(work: Callable[[], object]) -> float:
    """How long the processor works on it."""
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def paired(ours: Callable[[], float], plain: Callable[[], float], pairs: int) -> tuple[float, float, float]:
    """Measures in turns, after one warm-up each; both give seconds.

    Gives the median of plain/ours (1: as fast; 0.5: twice as slow) and the medians of ours and plain.
    """
    ours()
    plain()
    times = [(plain(), ours()) for _ in range(pairs)]
    ratio = statistics.median(bare / mine for bare, mine in times)
    return ratio, statistics.median(mine for _, mine in times), statistics.median(bare for bare, _ in times)
