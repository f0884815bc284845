"""The word `doctor`: looks at everything that could keep the agent from its work, and says it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from agent.cli import findings
from agent.cli.options import DEFAULT_PATH, FOUND, given, load_config, with_options
from agent.doctor import examination
from agent.errors import ConfigError
from agent.wiring import Parts
from storage.errors import OutboxError


@click.command()
@click.option("--canary", is_flag=True, help="Also runs one marked slow statement and follows it to the backend.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@with_options
@click.pass_context
def doctor(context: click.Context, /, *, canary: bool, as_json: bool, **options: Any) -> None:
    """Says of each thing that the agent needs whether it is there, and what to do when it is not.

    May be done while the agent runs, and before it is started. Exit 1 when something is wrong.
    """
    if not findings.show(_lines(context, options, canary=canary), as_json=as_json):
        sys.exit(FOUND)


def _lines(context: click.Context, options: dict[str, Any], *, canary: bool) -> Iterator[examination.Line]:
    try:
        config, layers = load_config(context, options)
    except (ConfigError, OutboxError) as error:  # the second of data_dir, where remote changes are kept
        yield from examination.unusable(error)
        return
    parts, pause = Parts(), threading.Event()  # never set: a wait that Ctrl-C ends
    path = given(context, options).get("config_path", DEFAULT_PATH)
    yield from examination.examine(config, layers, path, parts)
    if canary:
        yield from examination.try_canary(config, layers, parts, pause.wait)
