"""What the agent costs, as ratios against plain loops that do the same work, measured in one run.

`scripts/bench` measures everything, `scripts/bench collect drain` a part; `--json` prints what a script would read.
Absolute times depend on the machine and its neighbours; the ratios hardly do. Exit 1 when a goal was missed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from scripts.benches import collect, drain, process, redact, replay, statements
from scripts.benches.figure import Figure

MEASUREMENTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "collect": collect.measure,
    "redact": redact.measure,
    "drain": drain.measure,
    "replay": replay.measure,
    "statements": statements.measure,
    "latency": process.latency,
    "memory": process.memory,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MEASUREMENTS)))
@click.option("--json", "as_json", is_flag=True, help="One object instead of a table.")
def main(names: tuple[str, ...], *, as_json: bool) -> None:
    """Measures NAMES, or everything."""
    figures: list[Figure] = []
    console = Console(stderr=True)
    for name in names or MEASUREMENTS:
        console.print(f"measuring {name} ...", highlight=False)
        figures += MEASUREMENTS[name]()
    if as_json:
        click.echo(json.dumps([asdict(figure) for figure in figures], indent=2))
    else:
        Console(soft_wrap=True).print(_table(figures))
    sys.exit(0 if all(figure.reached for figure in figures) else 1)


def _table(figures: list[Figure]) -> Table:
    table = Table("measurement", "value", "goal", "", "behind it")
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:.2f}", figure.goal, "✓" if figure.reached else "✗", figure.detail)
    return table


if __name__ == "__main__":
    main()
