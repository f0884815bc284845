"""The word `commands`: which commands of the backend came here, and what became of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

from agent.cli.options import A_PATH, data_directory, end_with, with_options
from storage.plain import plain_json

SHOWN = 100


@click.command()
@click.argument("directory", required=False, type=A_PATH)
@click.option("--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="So many commands, the newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of their lines instead of a table.")
@with_options
@click.pass_context
def commands(context: click.Context, /, *, directory: Path | None, limit: int, as_json: bool, **options: Any) -> None:
    """Shows the commands of the backend with their results. Exit 1 when some of that cannot be read.

    DIRECTORY: where commands.log is; default: data_dir of the configuration. May be said while the agent runs.
    """
    from agent import command_history

    data_dir = data_directory(context, directory, options)
    history = command_history.read(data_dir)
    entries = command_history.newest(history.entries, limit)
    if as_json:
        click.echo(plain_json(orjson.dumps(entries).decode()))
    elif entries:
        click.echo("\n".join(command_history.table(entries)))
    else:
        click.echo("nothing")
    many = "line" if history.unreadable == 1 else "lines"
    end_with([f"{history.unreadable:,} {many} of the command log cannot be read"] if history.unreadable else [])
