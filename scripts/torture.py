"""The long versions of the fault tests: tens of thousands of power cuts, kills, damages, whole lives; counted.

`scripts/torture` plays everything, which takes hours; `--scale 0.01` a hundredth of it, `--only power-cuts` a part.
The seed that is printed plays the same again. Exit 1 when anything was lost, doubled or invented that must not be, and
when a part could not be played.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.dev.server_process import DevServerError
from agent.logs import LOGGER
from tests.faults.recorder import CompilerMissing

LINES = 10  # so many tell the progress where there is no terminal
Counts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Part:
    """One `torture` function: which module has it, how much it plays at scale 1 and at least, and its counts by name.

    `rounds`: its progress goes up to so many times its size. `broken`: counts of which each one is a failure, as are
    those of `lost` and `invented`; `doubled` may be explained, and what is not is under `broken`.
    """

    module: str
    size: int
    unit: str
    least: int = 1
    rounds: int = 1
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def scaled(self, scale: float) -> int:
        """How much is played."""
        return max(self.least, round(self.size * scale))


PARTS: dict[str, Part] = {
    "power-cuts": Part(
        *("tests.faults.power_cuts", 50_000, "images"),
        lost=("lost",),
        invented=("invented",),
        broken=("torn", "failed_starts"),
    ),
    "kills": Part(
        *("tests.faults.kills", 100, "kills of each combination"),
        least=3,
        rounds=4,
        lost=("lost",),
        doubled=("doubled",),
        broken=("unexcused",),
    ),
    "damages": Part(
        *("tests.faults.damage", 10_000, "damages"),
        lost=("unnamed",),
        doubled=("doubled",),
        invented=("invented",),
        broken=("doubled", "starts_failed"),
    ),
    "everything": Part(
        *("tests.property.test_everything_property", 5_000, "lives"),
        least=10,
        doubled=("doubled",),
    ),
    "fleet": Part("tests.faults.fleet", 10_000, "agents", least=1_000),
    "backlog": Part("tests.faults.backlog", 1_000_000, "pending records", least=50_000, rounds=2),
}


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one part. `failure`: why it does not count as passed; `counts`: everything it gave."""

    name: str
    played: str
    lost: int
    doubled: int
    invented: int
    failure: str
    counts: Counts


@click.command()
@click.option("--seed", type=int, help="Plays what was played with it before; default: a new one.")
@click.option("--only", "names", multiple=True, type=click.Choice(list(PARTS)), help="This part; may be repeated.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One object instead of a table.")
def main(seed: int | None, names: tuple[str, ...], scale: float, *, as_json: bool) -> None:
    """Plays all parts, or some."""
    LOGGER.addHandler(logging.NullHandler())  # that agents complain is what is played
    LOGGER.propagate = False
    seed = secrets.randbelow(2**32) if seed is None else seed
    told = Console(stderr=True, soft_wrap=True, highlight=False)
    told.print(f"--seed {seed} --scale {scale:g}")
    rows = [play(name, PARTS[name], scale, seed, told) for name in names or PARTS]
    if as_json:
        click.echo(json.dumps({"seed": seed, "scale": scale, "parts": [asdict(row) for row in rows]}, indent=2))
    else:
        Console(soft_wrap=True).print(_table(rows))
    sys.exit(1 if any(row.failure for row in rows) else 0)


def play(name: str, part: Part, scale: float, seed: int, told: Console) -> Row:
    """Plays one part to its end, or until it breaks."""
    size = part.scaled(scale)
    try:
        with _progress(name, size * part.rounds, told) as progress:
            counts: Counts = import_module(part.module).torture(size, seed, progress)
    except AssertionError as broken:
        told.print(f"{name}: {broken}", *getattr(broken, "__notes__", ()), sep="\n", markup=False)
        counts, failure = {}, f"broken: {_first_line(broken)}"
    except (CompilerMissing, DevServerError) as missing:
        counts, failure = {}, f"not played: {missing}"
    else:
        wrong = {key: counts[key] for key in (*part.lost, *part.invented, *part.broken) if counts[key]}
        failure = ", ".join(f"{key}: {number:,}" for key, number in wrong.items())
    lost, doubled, invented = (
        int(sum(counts.get(key, 0) for key in keys)) for keys in (part.lost, part.doubled, part.invented)
    )
    return Row(name, f"{size:,} {part.unit}", lost, doubled, invented, failure, counts)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _progress(name: str, total: int, told: Console) -> Iterator[Callable[[int], None]]:
    """What hears how much is done: a bar, or lines where there is no terminal."""
    if not told.is_terminal:
        yield _lines(name, total, told)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=told) as bars:
        bar = bars.add_task(name, total=total)
        yield lambda done: bars.update(bar, completed=min(done, total))


def _lines(name: str, total: int, told: Console) -> Callable[[int], None]:
    said = [0]

    def tell(done: int) -> None:
        part = min(done, total) * LINES // total
        if part > said[0]:
            said[0] = part
            told.print(f"{name}: {done:,} of {total:,}")

    return tell


def _table(rows: list[Row]) -> Table:
    table = Table("what", "how often", "lost", "doubled", "invented", "")
    for row in rows:
        numbers = (f"{number:,}" for number in (row.lost, row.doubled, row.invented))
        table.add_row(row.name, row.played, *numbers, f"✗ {row.failure}" if row.failure else "✓")
    return table


if __name__ == "__main__":
    main()
