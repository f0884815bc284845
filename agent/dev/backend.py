"""Entrance of the development backend: `python -m agent.dev.backend`. Starts it, waits for a signal."""

from __future__ import annotations

import signal
from pathlib import Path
from queue import SimpleQueue

import click

from agent.dev.serve import RunningBackend


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps what was accepted. [default: in memory]",
)
@click.option("--token", help="The only bearer token that may register collectors. [default: any]")
@click.option("--extensions/--no-extensions", default=True, help="Honour gzip bodies and idempotency keys.")
def main(host: str, port: int, store: Path | None, token: str | None, *, extensions: bool) -> None:
    """A DBPower backend for trying things out: it accepts, stores and counts, and breaks when asked to."""
    words: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _frame: words.put(got))
    try:
        backend = RunningBackend(host=host, port=port, path=store, token=token, extensions=extensions)
    except OSError as reason:
        raise click.ClickException(f"cannot listen on {host}:{port}: {reason.strerror or reason}") from reason
    with backend:
        click.echo(f"Development backend on {backend.url}, contract on {backend.url}/openapi.json")
        words.get()
    kept = backend.store.summary()
    click.echo(f"Stopped with {kept.records} records, {kept.duplicates} of them duplicates.")


if __name__ == "__main__":
    main()
