"""The whole agent with its command line, whose source is a row of numbers: no database server is needed.

`python -m tests.servers.numbered_agent` takes the words of `python -m agent`. ROWS in the environment: how many rows
the source has; UNLOCKED: the lock on the data directory locks nothing (for controls).
"""

from __future__ import annotations

import fcntl
import os

from agent import cli, wiring
from tests.fakes.source import FakeSource


def main() -> None:
    """Runs it."""
    source = FakeSource()
    source.rows = int(os.environ["ROWS"])
    wiring.make_source = lambda *_: source
    if "UNLOCKED" in os.environ:
        fcntl.flock = lambda *_: None
    cli.main()


if __name__ == "__main__":
    main()
