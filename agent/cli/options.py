"""What the words of the command line share: options, exit codes, the configuration, tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from agent import logs
from agent.config.layers import Layers, load
from agent.config.schema import Config
from storage.plain import plain

FOUND, UNUSABLE, RUNNING, INTERRUPTED = 1, 2, 3, 130

A_PATH = click.Path(path_type=Path, readable=False)  # whether it can be read is for `load` to say
_OPTIONS = (
    click.option("--config", "config_path", type=A_PATH, help="Default: ./config.json"),
    click.option("--collector-id", type=int, help="Overrides collector_id of the file."),
    click.option("--api-key", help="Overrides api_key; DBPOWER_API_KEY keeps it out of the process list."),
    click.option("--backend-url", help="Overrides backend_url."),
    click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)),
    click.option("--log-format", type=click.Choice(["text", "json"])),
)


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every word takes which needs the configuration."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def load_config(context: click.Context, options: dict[str, Any], *, quiet: bool = False) -> tuple[Config, Layers]:
    """`quiet`: the word prints what went wrong by itself; a level that was asked for is kept."""
    given = {**_given(context.obj), **_given(options)}
    path = given.pop("config_path", Path("config.json"))
    names = {"log_level": "log.level", "log_format": "log.format"}
    layered = {names.get(name, name): value for name, value in given.items()}
    config, layers = load(path, os.environ, layered)
    logs.set_up("ERROR" if quiet and "log_level" not in given else config.log.level, config.log.format)
    return config, layers


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def show_table(rows: Sequence[tuple[str, str]], *, anew: bool) -> None:
    """Names and what is said of them; `anew`: in place of what is on the terminal."""
    if not sys.stdout.isatty():
        width = max(len(name) for name, _ in rows)
        click.echo("\n".join(f"{name:{width}}  {plain(text)}".rstrip() for name, text in rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in rows:
        table.add_row(Text(name), Text(plain(text)))
    console = Console(highlight=False)
    if anew:
        console.clear()
    console.print(table)


def end_with(errors: Sequence[str]) -> None:
    """Tells what went wrong, if anything did, and ends with 1 then."""
    for error in errors:
        click.echo(error, err=True)
    if errors:
        sys.exit(FOUND)
