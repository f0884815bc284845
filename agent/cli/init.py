"""The word `init`: from nothing to a configuration that was tried, and what an administrator has to do for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from agent import preparation, wiring
from agent.cli import findings
from agent.cli.interview import Interview
from agent.cli.options import A_PATH, DEFAULT_PATH, FOUND, complain, given, with_options
from agent.cli.register import BACKEND, DB_TYPE, register_now
from agent.clock import Clock
from agent.config import saving
from agent.config.layers import assemble
from agent.config.places import DATABASES
from agent.config.schema import DEFAULT, DEFAULT_PORTS, Config
from agent.doctor import backend, examination
from agent.errors import BackendAway, ConfigError, ConfigThere, NotTheBackend, RegistrationRefused
from agent.finding import HINT, WRONG
from agent.registration import id_in

LOOK, CHANGE, WRITE = "look", "change", "write"
_PASSWORD = "db_config.password"  # noqa: S105 - the name of a key


@click.command()
@click.option("--non-interactive", is_flag=True, help="Asks nothing: all comes from options and the environment.")
@click.option("--force", is_flag=True, help="Changes a configuration that is there.")
@click.option("--db-type", type=click.Choice(["mysql", "postgres"]), help="mysql also means MariaDB.")
@click.option("--db-host", help="Default: localhost")
@click.option("--db-port", help="Default: 3306 or 5432")
@click.option("--db-user", help="Default: monitoring")
@click.option("--db-password-file", type=A_PATH, help="Holds the password; or DBPOWER_DB_CONFIG_PASSWORD.")
@click.option("--db-database", help="Where pg_stat_statements is; default: postgres")
@click.option("--provider", type=click.Choice(["own", "rds", "aurora", "cloudsql"]), help="Whose server it is.")
@with_options
@click.pass_context
def init(context: click.Context, /, *, non_interactive: bool, force: bool, **options: Any) -> None:
    """Asks for backend and database, tries both, says what is missing, and writes the configuration (mode 0600).

    Changes nothing at the database. Exit 1 when something that it needs is still missing.
    """
    said = given(context, options)
    path = said.get("config_path", DEFAULT_PATH)
    with saving.held(path):
        is_well = _set_up(said, path, asks=not non_interactive, force=force)
    if not is_well:
        sys.exit(FOUND)


def _set_up(said: dict[str, Any], path: Path, *, asks: bool, force: bool) -> bool:
    """Whether nothing is missing any more."""
    tree = saving.read(path)
    if tree and not force and (not asks or not click.confirm(f"{path} is there. Go on from what it says?")):
        raise ConfigThere(str(path))
    if tree.get(DATABASES):
        raise ConfigError(f"{path} has a list of databases, and init knows only a single one: edit the file")
    interview = Interview(tree, os.environ, asks=asks)
    _ask(interview, said, path)
    while True:
        config, _ = assemble(interview.tree, path, os.environ, {})
        is_well = _is_well(config, said.get("provider"))
        choice = WRITE if is_well or not asks else _choose()
        if choice == WRITE:
            break
        if choice == CHANGE:
            _ask(interview, {}, path)
    mode = saving.write(path, interview.tree)
    click.echo(f"\nWritten to {path} (mode {mode:04o}).")
    if interview.outside:
        click.echo(f"Not written, because the environment says it, at each start too: {', '.join(interview.outside)}.")
    _say_what_is_next(path, is_well=is_well)
    return is_well


def _say_what_is_next(path: Path, *, is_well: bool) -> None:
    words = "" if path == DEFAULT_PATH else f" --config {path}"
    if is_well:
        click.echo(
            f"Next: `python -m agent doctor --canary{words}` tries it all, `python -m agent run{words}` runs it."
        )
    else:
        click.echo(f"What is marked above still has to be done; `python -m agent doctor{words}` says when it is.")


def _choose() -> str:
    question = "\nLook again, change the answers, or write them as they are?"
    return str(click.prompt(question, type=click.Choice([LOOK, CHANGE, WRITE]), default=LOOK))


def _ask(interview: Interview, said: dict[str, Any], path: Path) -> None:
    interview.want("backend_url", BACKEND[0], usual=BACKEND[1], given=said.get("backend_url"))
    db_type = interview.want("db_type", DB_TYPE[0], usual=DB_TYPE[1], given=said.get("db_type"))
    interview.want("db_config.host", "Host of the database", usual="localhost", given=said.get("db_host"))
    port = DEFAULT_PORTS.get(db_type)
    interview.want("db_config.port", "Port", usual=port, given=said.get("db_port"))
    interview.want("db_config.user", "User of the agent there", usual="monitoring", given=said.get("db_user"))
    interview.want(_PASSWORD, "Password", hidden=True, may_be_empty=True, given=_password(said))
    if db_type == "postgres":
        question = "Database that has pg_stat_statements"
        interview.want("db_config.database", question, usual="postgres", given=said.get("db_database"))
    _ask_key(interview, said, path)
    if interview.missing:
        raise ConfigError(f"missing: {', '.join(interview.missing)}; give them as options or in the environment")


def _ask_key(interview: Interview, said: dict[str, Any], path: Path) -> None:
    key = said.get("api_key")
    is_new = key is None and interview.value("api_key") is None and interview.asks
    while is_new and not click.confirm("Is this collector registered, and have you its API key?"):
        if _is_registered(interview, said, path):
            return
    key = interview.want("api_key", "API key", hidden=True, given=key)
    of_the_key = id_in(key) if key and not interview.is_from_outside("collector_id") else None
    number = said.get("collector_id", of_the_key)
    interview.want("collector_id", "Collector ID", given=number)


def _is_registered(interview: Interview, said: dict[str, Any], path: Path) -> bool:
    """A mistyped address or token does not take the other answers along."""
    try:
        register_now(interview, said, path)
    except (BackendAway, NotTheBackend) as error:
        complain(str(error))
        interview.want("backend_url", BACKEND[0])
        return False
    except RegistrationRefused as error:
        complain(str(error))
        return False
    saving.write(path, interview.tree)  # the key is told once: whatever happens from here on, it stands there
    return True


def _password(said: dict[str, Any]) -> str | None:
    file = said.get("db_password_file")
    if file is None:
        return None
    try:
        return str(file.read_text(encoding="utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"{file} cannot be read.") from None


# -- what is tried -------------------------------------------------------------------------------------------------


def _is_well(config: Config, provider: Any) -> bool:
    """Tries backend and database and shows what was found, with what is to be done; whether nothing is wrong."""
    click.echo()
    codes: list[str] = []
    is_well = findings.show(_noted(_lines(config), codes), as_json=False)
    for step in _steps(config, provider, codes):
        click.echo(f"\n{step.why}{', and restart it' if step.restarts else ''}; as an administrator of the database:\n")
        click.echo("\n".join(f"    {line}" for line in step.text.splitlines()))
    return is_well


def _lines(config: Config) -> Iterator[examination.Line]:
    clock = Clock()
    transport = wiring.make_transport(config)
    try:
        yield from ((examination.BACKEND, each) for each in backend.examine(config, transport, clock))
    finally:
        transport.close()
    source = wiring.make_source(config, DEFAULT, clock, may_rotate=False)
    yield from ((examination.place(DEFAULT), each) for each in source.examine())


def _noted(lines: Iterator[examination.Line], codes: list[str]) -> Iterator[examination.Line]:
    for where, finding in lines:
        if finding.verdict in {WRONG, HINT}:
            codes.append(finding.code)
        yield where, finding


def _steps(config: Config, provider: Any, codes: list[str]) -> tuple[preparation.Step, ...]:
    watch = config.watch(DEFAULT)
    version = wiring.make_source(config, DEFAULT, Clock(), may_rotate=False).version()
    server = preparation.Server(
        watch.db_type,
        version,
        watch.db_config.user,
        watch.db_config.database,
        provider or preparation.provider_of(watch.db_config.host, version),
    )
    return preparation.steps(server, codes)
