"""Where slow queries are read: one file for each kind, named by it. This file knows how to find them."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.cost import Meter
from agent.finding import Finding
from agent.record import Record
from agent.redact import Level
from storage.envelope import Gap

BOOKMARK_LOST = "bookmark_lost"  # reason of the gap that `skip` tells
READING = "reading the database"


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of one look: some records and the bookmark that stands behind the last of them.

    `bookmark` is opaque to everyone but the source. A reading may be empty and only move the bookmark. `coverage`: the
    part, 0 to 1, of what the server did in the whole look's window that it still knew; None: not known.
    """

    records: tuple[Record, ...]
    bookmark: bytes
    gaps: tuple[Gap, ...] = ()
    coverage: float | None = None


@dataclass(frozen=True, slots=True)
class Strain:
    """The connections that others than the agent use, and how many they are allowed."""

    used: int
    allowed: int


def _nobody_asks(doing: str, at_most_s: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What a source is made of. `watch`: the name of the watch it reads for, part of the ids of its records.

    `step` is called before everything that may take long: what it is, and for how many seconds at most. `redact`: what
    of the texts may leave; every source makes its records with a Redactor of this level. `meter` is told what is waited
    for and what comes.
    """

    watch: str
    db: DbConfig
    port: int
    step: Callable[[str, float], None] = _nobody_asks
    redact: Level = "secrets"
    meter: Meter = field(default_factory=lambda: Meter(Clock()))


class Source(Protocol):
    """One kind of place where slow queries are read. One thread uses it; it connects by itself when it has to.

    Errors of every method: DatabaseAway when the connection is lost, SetupError when the database refuses.
    After any error the connection is closed; the next call opens a new one.
    """

    kind: str
    db_type: str
    meter: Meter

    def __init__(self, settings: SourceSettings, clock: Clock) -> None: ...

    def read(self, bookmark: bytes | None) -> Generator[Reading]:
        """One look: everything behind `bookmark` (None: the first look), in readings of bounded size.

        Closing the iterator early leaves nothing running on the server.
        """
        ...

    def skip(self) -> Reading:
        """No records, a bookmark behind everything that is there now, and a gap that says so: for when it is not known
        any more what was read, and reading it again would double it."""
        ...

    def check(self) -> None:
        """Connects and reads as little as shows that `read` would work."""
        ...

    def strain(self) -> Strain:
        """How close the server is to its limits, asked on the connection that is there."""
        ...

    def examine(self) -> Iterator[Finding]:
        """Everything that keeps this source from giving records, or may, each as a finding. Raises nothing."""
        ...

    def version(self) -> str:
        """What the server calls itself; empty when it does not let us in."""
        ...

    def run_canary(self, token: str) -> str:
        """Runs one marked slow statement, which needs no grant but a login; its name, see agent/canary.py.

        `token`: eight hexadecimal digits, part of the name where that is possible.
        """
        ...

    def shows_canary(self, name: str) -> bool:
        """Whether the one that was run last is where `read` would find it."""
        ...

    def close(self) -> None:
        """Ends the connection; calling it twice is fine."""
        ...


def kinds() -> list[str]:
    """The kinds there are: the modules of this package, except those that begin with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(db_type: str) -> type[Source]:
    """The source that reads databases of this `db_type`. Raises LookupError when there is none."""
    for kind in kinds():
        source: type[Source] = import_module(f"{__name__}.{kind}").SOURCE
        if source.db_type == db_type:
            return source
    raise LookupError(db_type)
