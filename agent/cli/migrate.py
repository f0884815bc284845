"""The word `migrate`: brings an outbox of an earlier format to the one of this program, or tells what that would be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from agent.cli.options import A_PATH, FOUND, complain, data_directory, with_options

if TYPE_CHECKING:
    from storage.migration import Outlook


@click.command()
@click.argument("directory", required=False, type=A_PATH)
@click.option("--check", is_flag=True, help="Only tells what would be done; changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@with_options
@click.pass_context
def migrate(context: click.Context, /, *, directory: Path | None, check: bool, as_json: bool, **options: Any) -> None:
    """Brings the outbox to the format of this version, as the next start would do by itself.

    DIRECTORY: where the outbox is; default: data_dir of the configuration. Exit 0: done, or nothing to do. With
    --check, also while an agent runs: 0 nothing to do, 1 a migration would be made. Both: 2 it cannot be made.
    """
    from storage import migration
    from storage.bodies import describe

    data_dir = data_directory(context, directory, options)
    if check:
        found = migration.look(data_dir)
        found.demand_room()
    else:
        found = migration.migrate(data_dir, describe, complain)
    click.echo(orjson.dumps(_as_json(found, check=check)) if as_json else "\n".join(_lines(found, check=check)))
    if check and found.is_due:
        sys.exit(FOUND)


def _lines(found: Outlook, *, check: bool) -> Iterator[str]:
    from storage.schema import VERSION

    yield f"outbox: {found.path} {f'has format {found.format}' if found.format else 'does not exist yet'}"
    yield f"program: writes format {VERSION}"
    if check:
        yield f"agent: {'none runs here' if found.process is None else f'process {found.process} works on it'}"
    yield f"migration: {_migration(found, check=check)}"


def _migration(found: Outlook, *, check: bool) -> str:
    if not found.is_due:
        return "nothing to do"
    size = f"{found.rows:,} rows with {found.bytes:,} bytes"
    if not check:
        return f"done, {size} were written anew; what waits is as it was"
    room = f"{found.needed_bytes:,} bytes of disk ({found.free_bytes:,} are free)"
    return f"would write {size} anew, needs at most {room} and {found.seconds} s; the next start does it, or `migrate`"


def _as_json(found: Outlook, *, check: bool) -> dict[str, object]:
    from storage.schema import VERSION

    return {
        "outbox": str(found.path),
        "format": found.format,
        "writes": VERSION,
        "process": found.process,
        "is_due": found.is_due,
        "migrated": found.is_due and not check,
        "rows": found.rows,
        "bytes": found.bytes,
        "needed_bytes": found.needed_bytes,
        "free_bytes": found.free_bytes,
        "seconds": found.seconds,
    }
