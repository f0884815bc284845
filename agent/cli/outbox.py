"""The words behind `outbox`: what waits there and what was kept aside, looked at and decided by a person.

All of them may be said while the agent runs: looking disturbs it not at all, changing takes moments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from agent.cli.options import A_PATH, complain, data_directory, end_with, with_options

if TYPE_CHECKING:
    from storage.keeper import Keeper
    from storage.reader import Head, OutboxReader

SHOWN = 100
SEQ = click.IntRange(1, 2**63 - 1)  # what SQLite can count


@click.group()
def outbox() -> None:
    """Shows and changes what waits in the outbox: ls, show, parked, retry, discard, export, vacuum."""


def _with_directory(function: Callable[..., Any]) -> Callable[..., Any]:
    option = click.option(
        "--directory", type=A_PATH, help="Where the outbox is; default: data_dir of the configuration."
    )
    return option(click.pass_context(with_options(function)))


def _as_json(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="JSON instead of sentences.")(function)


@outbox.command("ls")
@click.option("--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="Envelopes at most.")
@_as_json
@_with_directory
def list_waiting(
    context: click.Context, /, *, limit: int, as_json: bool, directory: Path | None, **options: Any
) -> None:
    """Lists what waits, in the order of sending within its topic."""
    with _reader(context, directory, options) as reader:
        _list(reader.heads(limit + 1), limit, as_json=as_json)


@outbox.command()
@click.option("--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="Envelopes at most.")
@_as_json
@_with_directory
def parked(context: click.Context, /, *, limit: int, as_json: bool, directory: Path | None, **options: Any) -> None:
    """Lists what the backend refused, with its reasons."""
    with _reader(context, directory, options) as reader:
        _list(reader.parked(limit + 1), limit, as_json=as_json)


@outbox.command()
@click.argument("seq", type=SEQ)
@click.option("--raw", is_flag=True, help="The body alone, byte for byte.")
@_with_directory
def show(context: click.Context, /, *, seq: int, raw: bool, directory: Path | None, **options: Any) -> None:
    """Shows what is in one envelope: what would leave, exactly."""
    from agent import body, listing
    from storage.errors import EnvelopeUnknown

    with _reader(context, directory, options) as reader:
        head = reader.find(seq)
        if head is None:
            raise EnvelopeUnknown(f"there is none with the number {seq}")
        envelope = reader.load(head)
    if raw:
        click.echo(body.unpack(envelope.body), nl=False)
    else:
        click.echo("\n".join(listing.page(head, envelope)))


@outbox.command()
@click.argument("seq", type=SEQ, required=False)
@click.option("--all", "everything", is_flag=True, help="Everything that the backend refused as a whole.")
@_with_directory
def retry(
    context: click.Context, /, *, seq: int | None, everything: bool, directory: Path | None, **options: Any
) -> None:
    """Lets what was parked wait again: the next time it may be accepted."""
    if (seq is None) != everything:
        raise click.UsageError("Either SEQ or --all is wanted.")
    with _keeper(context, directory, options) as keeper:
        envelopes, records = (1, keeper.retry(seq)) if seq is not None else keeper.retry_all()
    click.echo(f"{records:,} records in {envelopes:,} envelopes wait again")


@outbox.command()
@click.argument("seq", type=SEQ)
@click.option("--yes", is_flag=True, help="Confirms that these records will never be delivered.")
@_with_directory
def discard(context: click.Context, /, *, seq: int, yes: bool, directory: Path | None, **options: Any) -> None:
    """Gives up one envelope, waiting or parked. The audit counts its records as discarded."""
    if not yes:
        raise click.UsageError(
            f"Envelope {seq} would be gone for good; --yes confirms that. `outbox show {seq}` tells what is in it."
        )
    with _keeper(context, directory, options) as keeper:
        records = keeper.discard(seq)
    click.echo(f"{records:,} records were discarded")


@outbox.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--parked", "with_parked", is_flag=True, help="Also what the backend had refused.")
@click.option("--since", help="From this envelope number or time on.")
@click.option("--until", help="Up to this envelope number or time.")
@click.option("--topic", type=click.Choice(["queries", "command_result"]))
@click.option("--limit", type=click.IntRange(1), help="Records at most, in whole envelopes.")
@_as_json
@_with_directory
def export_(context: click.Context, /, *, file: Path, as_json: bool, directory: Path | None, **options: Any) -> None:
    """Writes what waits into FILE: .jsonl.gz to carry and replay elsewhere, .csv or .parquet to look at."""
    from agent.parquet import write_parquet
    from storage.choice import Choice, chosen, moment, retriable
    from storage.export import Export

    since, until, with_parked = options.pop("since"), options.pop("until"), options.pop("with_parked")
    choice = Choice(
        since=moment(since) if since else None,
        until=moment(until) if until else None,
        topic=options.pop("topic"),
        limit=options.pop("limit"),
    )
    with _reader(context, directory, options, beside=False) as reader:
        heads = reader.heads() + (retriable(reader.parked()) if with_parked else [])
        export = Export([(reader, head) for head in chosen(heads, choice)])
        told = export.write(file, {".parquet": write_parquet})
    click.echo(orjson.dumps(told).decode() if as_json else f"exported {told['records']:,} records to {file}")
    end_with(export.wrong)


@outbox.command()
@_with_directory
def vacuum(context: click.Context, /, *, directory: Path | None, **options: Any) -> None:
    """Gives the unused pages of the file back to the file system. The agent does so by itself after a backlog."""
    with _keeper(context, directory, options) as keeper:
        freed = keeper.vacuum()
    click.echo(f"{freed:,} bytes were given back")


# ----------------------------------------------------------------------------------------------------------------


def _list(heads: Sequence[Head], limit: int, *, as_json: bool) -> None:
    from agent import listing
    from agent.clock import Clock

    if as_json:
        click.echo(orjson.dumps([listing.as_json(head) for head in heads[:limit]]))
        return
    click.echo("\n".join(listing.lines(heads[:limit], Clock().now())) if heads else "nothing")
    if len(heads) > limit:
        click.echo("and more; --limit says how many are shown")


@contextmanager
def _reader(
    context: click.Context, directory: Path | None, options: dict[str, Any], *, beside: bool = True
) -> Iterator[OutboxReader]:
    from storage.bodies import describe
    from storage.reader import OutboxReader

    where = data_directory(context, directory, options)
    with OutboxReader(where, describe, now=time.time(), beside=beside) as reader:
        yield reader
        salvaged = [] if reader.salvaged is None else [str(reader.salvaged)]
        if beside:
            end_with([*salvaged, *reader.unreadable])


@contextmanager
def _keeper(context: click.Context, directory: Path | None, options: dict[str, Any]) -> Iterator[Keeper]:
    from storage.bodies import describe
    from storage.keeper import Keeper

    where = data_directory(context, directory, options)
    with Keeper(where, describe, complain) as keeper:
        yield keeper
