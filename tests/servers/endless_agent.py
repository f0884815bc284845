"""The agent with a source that never ends, so that a disk becomes full without a database server.

`python -m tests.servers.endless_agent` takes the words of the agent. Each look finds STEP records more than the last
one saved, until there is a file called `enough` beside the configuration. The pauses in which the agent waits for room
are short, because a test waits for them.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any

from agent import cli, flusher, lobby, watch, wiring
from agent.sources import Reading
from tests.fakes.source import FakeSource, record

ENOUGH = "enough"
STEP, CHUNK = 200, 20
TEXT_BYTES = 1_500  # which are not compressed to less than half of it
PAUSE_S = 0.3


class EndlessSource(FakeSource):
    """Its rows are numbers, as those of the fake, and long."""

    def __init__(self, enough: Path) -> None:
        super().__init__()
        self._enough = enough

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        """A few more each time."""
        at = int(bookmark or b"0")
        end = at if self._enough.exists() else at + STEP
        while at < end:
            numbers = range(at, at + CHUNK)
            at += CHUNK
            yield Reading(tuple(record(n, _text(n)) for n in numbers), str(at).encode())


def _text(number: int) -> str:
    return f"SELECT {number} /* {Random(number).randbytes(TEXT_BYTES // 2).hex()} */"


def main() -> None:
    """The agent's own entrance, with another source and less patience."""
    enough = Path(sys.argv[sys.argv.index("--config") + 1]).with_name(ENOUGH)
    parts: dict[str, Any] = {"make_source": lambda *_: EndlessSource(enough)}
    vars(wiring).update(parts)
    watch.ROOM_CHECK_S = flusher.FAILED_OUTBOX_PAUSE_S = lobby.TRY_S = PAUSE_S
    cli.main()


if __name__ == "__main__":
    main()
