"""What the words of the command line share: options, exit codes, the configuration, tables."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from agent import logs
from agent.config.exposure import exposed
from agent.config.layers import Layers, load
from agent.config.schema import Config

FOUND, UNUSABLE, RUNNING, INTERRUPTED = 1, 2, 3, 130

A_PATH = click.Path(path_type=Path, readable=False)  # whether it can be read is for `load` to say
_LOG_OPTIONS = (
    click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)),
    click.option("--log-format", type=click.Choice(["text", "json"])),
)
_OPTIONS = (
    click.option("--config", "config_path", type=A_PATH, help="Default: ./config.json"),
    click.option("--collector-id", type=int, help="Overrides collector_id of the file."),
    click.option("--api-key", help="Overrides api_key; DBPOWER_API_KEY keeps it out of the process list."),
    click.option("--backend-url", help="Overrides backend_url."),
    *_LOG_OPTIONS,
)


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every word takes which needs the configuration."""
    return _with(function, _OPTIONS)


def with_log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a word that needs no configuration and speaks all the same."""
    return _with(function, _LOG_OPTIONS)


def _with(function: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function


def speak(context: click.Context, options: dict[str, Any]) -> None:
    """Sets the log up as far as it is known before the configuration: as a word that prints by itself has it."""
    given = {**_given(context.obj or {}), **_given(options)}
    asked = given.get("log_format") or os.environ.get("DBPOWER_LOG_FORMAT", "")
    logs.set_up(given.get("log_level", "ERROR"), "json" if asked == "json" else "text")


def load_config(context: click.Context, options: dict[str, Any], *, quiet: bool = False) -> tuple[Config, Layers]:
    """`quiet`: the word prints what went wrong by itself; a level that was asked for is kept."""
    given = {**_given(context.obj), **_given(options)}
    path = given.pop("config_path", Path("config.json"))
    names = {"log_level": "log.level", "log_format": "log.format"}
    layered = {names.get(name, name): value for name, value in given.items()}
    speak(context, options)
    config, layers = load(path, os.environ, layered)
    logs.set_up("ERROR" if quiet and "log_level" not in given else config.log.level, config.log.format)
    if (told := exposed(path)) is not None:
        logs.tell(logging.WARNING, "config.exposed", told)
    return config, layers


def data_directory(context: click.Context, directory: Path | None, options: dict[str, Any]) -> Path:
    """The one that was named, else that of the configuration, which is not read otherwise."""
    speak(context, options)
    return directory if directory is not None else load_config(context, options, quiet=True)[1].data_dir


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def show_table(rows: Sequence[tuple[str, str]], *, anew: bool) -> None:
    """Names and what is said of them; `anew`: in place of what is on the terminal."""
    if not sys.stdout.isatty():
        width = max(len(name) for name, _ in rows)
        click.echo("\n".join(f"{name:{width}}  {text}".rstrip() for name, text in rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    console = Console(highlight=False)
    if anew:
        console.clear()
    console.print(table)


def complain(sentence: str, **fields: object) -> None:
    """Says on standard error what is wrong: plainly, or as the log does where machines read it."""
    if logs.is_for_machines():
        logs.tell(logging.ERROR, "word.wrong", sentence, **fields)
    else:
        click.echo(sentence, err=True)


def end_with(errors: Sequence[str]) -> None:
    """Tells what went wrong, if anything did, and ends with 1 then."""
    for error in errors:
        complain(error)
    if errors:
        sys.exit(FOUND)
