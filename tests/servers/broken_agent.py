"""The agent with a source that has a defect, while it holds the password of its database.

`python -m tests.servers.broken_agent` takes the words of the agent. BREAKS: `raise` raises in the middle of a look,
`leak` says the password in doing so (for controls), `hang` holds the look until a signal comes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any

from agent import cli, wiring
from agent.sources import Reading
from tests.fakes.source import FakeSource


class BrokenSource(FakeSource):
    """Knows its password as a real one does."""

    def __init__(self, password: str) -> None:
        super().__init__()
        self._password = password

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        """Never gives anything."""
        self._connect(self._password)
        yield Reading((), b"0")

    def _connect(self, password: str) -> None:
        how = os.environ["BREAKS"]
        if how == "hang":
            signal.pause()
        raise RuntimeError(f"cannot log in with {password}" if how == "leak" else f"a defect at {len(password)}")


def main() -> None:
    """The agent's own entrance, with another source."""

    def make(config: Any, name: str, *_: Any, **__: Any) -> BrokenSource:
        return BrokenSource(config.watch(name).db_config.password.get_secret_value())

    wiring.make_source = make
    cli.main()


if __name__ == "__main__":
    main()
