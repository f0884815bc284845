"""What SQLite does, counted: steps of its virtual machine, and bytes read from files. The same at every run, on any
machine, where seconds are not. Needs both: counting the rows of a table is one step, but reads all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True, slots=True)
class Cost:
    """Steps of SQLite's virtual machine, and bytes read from files."""

    steps: int
    read: int


class Meter:
    """Counts for every connection that is opened while it is `watching`."""

    def __init__(self) -> None:
        self._steps = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Connections opened here are counted from their first step on, to their end."""
        plain: Callable[..., sqlite3.Connection] = sqlite3.connect

        def connect(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = plain(*args, **options)
            connection.set_progress_handler(self._step, 1)
            return connection

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sqlite3, "connect", connect)
            yield

    def _step(self) -> int:
        self._steps += 1
        return 0

    def cost(self, work: Callable[[], object]) -> Cost:
        """What it takes."""
        steps, read = self._steps, _bytes_read()
        work()
        return Cost(self._steps - steps, _bytes_read() - read)


def _bytes_read() -> int:
    with open("/proc/self/io", encoding="ascii") as counters:
        return int(counters.readline().split()[1])
