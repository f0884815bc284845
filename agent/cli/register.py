"""The word `register`: makes this collector known to the backend, and writes its id and key into the configuration."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import click

from agent import registration
from agent.cli.interview import Interview, prompt
from agent.cli.options import A_PATH, DEFAULT_PATH, given, with_options
from agent.config import saving
from agent.config.places import DATABASES
from agent.errors import ConfigThere
from agent.registration import Wanted
from agent.wiring import make_transport

JWT = "DBPOWER_JWT"
BACKEND = "Address of the backend", "http://localhost:8000"
DB_TYPE = "Database: mysql (also for MariaDB) or postgres", "mysql"
_ADDRESS = ("host", "port", "user", "database")


@click.command()
@click.option("--name", help="How the backend calls it; default: the name of this host.")
@click.option("--db-type", type=click.Choice(["mysql", "postgres"]), help="mysql also means MariaDB.")
@click.option("--team-id", type=click.IntRange(1), help="The team that it belongs to.")
@click.option("--jwt-file", type=A_PATH, help=f"Holds your token; or {JWT} in the environment, else it is asked for.")
@click.option("--force", is_flag=True, help="Also where the configuration names a collector already.")
@with_options
@click.pass_context
def register(context: click.Context, /, *, force: bool, **options: Any) -> None:
    """Registers this collector with a person's token (JWT), and shows its id and API key, once."""
    said = given(context, options)
    path = said.get("config_path", DEFAULT_PATH)
    with saving.held(path):
        mode = _registered(said, path, force=force)
    click.echo(f"Written to {path} (mode {mode:04o}).")


def _registered(said: dict[str, Any], path: Path, *, force: bool) -> int:
    tree = saving.read(path)
    if tree.get("api_key") and not force:
        raise ConfigThere(f"{path}, and it names a collector")
    interview = Interview(tree, os.environ, asks=os.isatty(0))
    interview.want("backend_url", BACKEND[0], usual=BACKEND[1], given=said.get("backend_url"))
    if DATABASES not in tree:
        interview.want("db_type", DB_TYPE[0], usual=DB_TYPE[1], given=said.get("db_type"))
    elif "db_type" not in said:
        raise click.UsageError("With several databases --db-type is needed: what the backend shall take them for.")
    register_now(interview, said, path)
    return saving.write(path, interview.tree)


def register_now(interview: Interview, said: dict[str, Any], path: Path) -> None:
    """Asks for what is missing, registers, tells the key, and puts it into the tree of the interview.

    Raises BackendAway, NotTheBackend, RegistrationRefused.
    """
    name, team = said.get("name"), said.get("team_id")
    if interview.asks:
        name = name or prompt("Name of this collector", default=platform.node())
        team = team or prompt("Number of its team", type=click.IntRange(1), default=1)
    if team is None:
        raise click.UsageError("The team is needed: --team-id.")
    token = _token(said.get("jwt_file"), asks=interview.asks)
    known = {each: interview.value(f"db_config.{each}") for each in _ADDRESS}
    address = {each: value for each, value in known.items() if value is not None}
    transport = make_transport(interview.way(path, os.environ), as_collector=False)
    try:
        wanted = Wanted(name or platform.node(), interview.value("db_type") or said["db_type"], team, address)
        registered = registration.register(transport, token, wanted)
    finally:
        transport.close()
    interview.put("collector_id", registered.collector_id)
    interview.put("api_key", registered.api_key)
    click.echo(f"Registered as collector {registered.collector_id}. Its API key, which is shown only now:")
    click.echo(registered.api_key)


def _token(file: Path | None, *, asks: bool) -> str:
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise click.UsageError(f"{file} cannot be read.") from None
    elif JWT in os.environ:
        token = os.environ[JWT]
    elif asks:
        token = prompt("Your token (JWT)", hide_input=True)
    else:
        raise click.UsageError(f"Your token is needed: --jwt-file, or {JWT} in the environment.")
    token = token.strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise click.UsageError("The token should be printable ASCII.")
    return token
