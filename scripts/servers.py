"""Makes the database servers of the tests and says one line for each: where it is, or why it cannot be had.

`scripts/servers` has installed MariaDB already when it may. A server that is missing skips the tests that want it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from agent.dev.postgres import system_bin_dirs, wheel_bin_dir
from agent.dev.server_process import DevServerError
from tests.servers import beside, mariadb
from tests.servers.beside import Program


def main() -> None:
    """Gets each in turn; what fails keeps nothing else back."""
    for name, get in servers().items():
        try:
            click.echo(f"{name}: {get()}")
        except DevServerError as error:
            click.echo(f"{name}: cannot be had: {error}")


def servers() -> dict[str, Callable[[], Path]]:
    """Name to what gets it and tells where it is."""
    return {
        "MariaDB": lambda: Path(mariadb.tool("mariadbd")),
        "MySQL": lambda: _beside(beside.MYSQL),
        "PostgreSQL 15": _postgres15,
        "PostgreSQL 17": lambda: _beside(beside.POSTGRES17),
        "PostgreSQL 18": wheel_bin_dir,
    }


def _beside(wanted: Program) -> Path:
    beside.get(wanted)
    return wanted.bin_dir


def _postgres15() -> Path:
    """The distribution's, when it is installed."""
    installed = [path for path in system_bin_dirs() if path.parent.name == "15"]
    return installed[0] if installed else _beside(beside.POSTGRES15)


if __name__ == "__main__":
    main()
