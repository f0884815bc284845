"""What the words of the command line share: options, exit codes, the configuration, tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from agent import logs
from agent.config.layers import Layers, load
from agent.config.schema import Config
from storage.plain import plain

FOUND, UNUSABLE, RUNNING, INTERRUPTED = 1, 2, 3, 130

DEFAULT_PATH = Path("config.json")
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


def load_config(context: click.Context, options: dict[str, Any]) -> tuple[Config, Layers]:
    """For a word that prints what went wrong by itself: the log is quiet, unless a level was asked for."""
    config, layers = reader(context, options)()
    logs.set_up(config.log.level if "log_level" in given(context, options) else "ERROR", config.log.format)
    return config, layers


def reader(context: click.Context, options: dict[str, Any]) -> Callable[[], tuple[Config, Layers]]:
    """Reads the configuration as these options have it, each time it is called."""
    said = given(context, options)
    path = said.pop("config_path", DEFAULT_PATH)
    names = {"log_level": "log.level", "log_format": "log.format"}
    return partial(load, path, os.environ, {names.get(name, name): value for name, value in said.items()})


def given(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """What was said on the command line, before the word or behind it."""
    both = {**context.obj, **{name: value for name, value in options.items() if value is not None}}
    return {name: value for name, value in both.items() if value is not None}


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
