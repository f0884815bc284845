"""How far a replay is: a bar on a terminal, else a line every 5 s."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.clock import Clock
from agent.replay.replay import Progress
from scripts.replaying.meant import LINE_EVERY_S

Tell = Callable[[Progress], None]


@contextmanager
def shown(name: str, waiting: int, *, quiet: bool) -> Iterator[Tell]:
    """What hears of the progress. `waiting`: records in all."""
    if quiet or not waiting:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(name, waiting) as tell:
            yield tell
    else:
        yield _lines(name, waiting)


def _lines(name: str, waiting: int) -> Tell:
    clock = Clock()
    began_s = told_at_s = clock.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal told_at_s
        now_s = clock.monotonic()
        if now_s - told_at_s >= LINE_EVERY_S:
            told_at_s = now_s
            print(line(name, waiting, progress, now_s - began_s), file=sys.stderr)

    return tell


def line(name: str, waiting: int, progress: Progress, elapsed_s: float) -> str:
    """Records, bytes, rate and what is left, as one line."""
    done = waiting - progress.waiting
    left_s = progress.waiting * elapsed_s / done if done else None
    left = "not yet known how long" if left_s is None else f"{left_s:,.0f} s left"
    return f"{name}: {done:,} of {waiting:,} records, {_pace(waiting, progress, elapsed_s)}, {left}"


def _pace(waiting: int, progress: Progress, elapsed_s: float) -> str:
    rate = (waiting - progress.waiting) / elapsed_s if elapsed_s else 0.0
    return f"{progress.account.bytes / 1e6:,.1f} MB, {rate:,.0f} records/s"


@contextmanager
def _bar(name: str, waiting: int) -> Iterator[Tell]:
    from rich import progress as bars  # noqa: PLC0415 - only where a person sees it
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[pace]}"),
        bars.TimeRemainingColumn(),
    )
    clock = Clock()
    began_s = clock.monotonic()
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=waiting, pace="")

        def tell(progress: Progress) -> None:
            pace = _pace(waiting, progress, clock.monotonic() - began_s)
            bar.update(task, completed=waiting - progress.waiting, pace=pace)

        yield tell
