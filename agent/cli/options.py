"""What the words of the command line share: options, exit codes, the configuration, tables."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from agent import logs
from agent.config.exposure import exposed
from agent.config.layers import Layers, load
from agent.config.schema import Config
from storage.plain import plain

FOUND, UNUSABLE, RUNNING, INTERRUPTED = 1, 2, 3, 130

DEFAULT_PATH = Path("config.json")
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
    said = given(context, options)
    asked = said.get("log_format") or os.environ.get("DBPOWER_LOG_FORMAT", "")
    logs.set_up(said.get("log_level", "ERROR"), "json" if asked == "json" else "text")


def load_config(context: click.Context, options: dict[str, Any]) -> tuple[Config, Layers]:
    """For a word that prints what went wrong by itself: the log is quiet, unless a level was asked for."""
    speak(context, options)
    config, layers = reader(context, options)()
    logs.set_up(config.log.level if "log_level" in given(context, options) else "ERROR", config.log.format)
    tell_exposed(config_path(context, options))
    return config, layers


def tell_exposed(path: Path) -> None:
    """Says it in the log when others can read the configuration."""
    if (told := exposed(path)) is not None:
        logs.tell(logging.WARNING, "config.exposed", told)


def reader(context: click.Context, options: dict[str, Any]) -> Callable[[], tuple[Config, Layers]]:
    """Reads the configuration as these options have it, each time it is called."""
    said = given(context, options)
    said.pop("config_path", None)
    names = {"log_level": "log.level", "log_format": "log.format"}
    layered = {names.get(name, name): value for name, value in said.items()}
    return partial(load, config_path(context, options), os.environ, layered)


def config_path(context: click.Context, options: dict[str, Any]) -> Path:
    """The file that was named, or the usual one."""
    path: Path = given(context, options).get("config_path", DEFAULT_PATH)
    return path


def data_directory(context: click.Context, directory: Path | None, options: dict[str, Any]) -> Path:
    """The one that was named, else that of the configuration, which is not read otherwise."""
    speak(context, options)
    return directory if directory is not None else load_config(context, options)[1].data_dir


def given(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """What was said on the command line, before the word or behind it."""
    both = {**(context.obj or {}), **{name: value for name, value in options.items() if value is not None}}
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
