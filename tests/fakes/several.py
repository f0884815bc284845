"""Several watches over one outbox, driven by hand in the thread of a test: their desks, and what the backend hears."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from agent.backoff import Backoff
from agent.body import unpack
from agent.command_book import CommandBook
from agent.command_desk import PAUSED_NOTE, CommandDesk
from agent.command_log import CommandLog
from agent.commands import Command, addressees
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.reconfigure import Reconfiguration
from agent.sinks import COMMAND_RESULT
from agent.watch import Watch
from tests.fakes.clock import ManualClock
from tests.fakes.manual import FaultyOutbox, Midway, several_tree
from tests.fakes.source import FakeSource


class Several:
    """The watches of `names`. `Several` again on the same directory is a restart."""

    def __init__(self, directory: Path, names: Sequence[str], clock: ManualClock | None = None, **tree: Any) -> None:
        self.names = tuple(names)
        self.clock = clock or ManualClock()
        self.outbox = FaultyOutbox(directory, now=self.clock.unix)
        self.layers = Layers(several_tree(*names, **tree), {}, directory)
        self.configs: list[Config] = []
        self.made: dict[str, FakeSource] = {}
        self.reconfiguration = Reconfiguration(self.layers.build({}), self.layers, self._make, self.configs.append)
        self.book = CommandBook(self.outbox, 7, self.names, self.clock.unix)
        self.log = CommandLog(directory, self.clock.now)
        self.watches = {name: self._watch(name) for name in names}
        self.desks = {
            name: CommandDesk(
                *(watch, self.outbox, self.book, self.log, self.reconfiguration), name=name, now_s=self.clock.monotonic
            )
            for name, watch in self.watches.items()
        }

    def give(self, command: Command) -> None:
        """To everyone whom it concerns, one after the other."""
        for name in addressees(command, self.names):
            self.desks[name].carry_out(command)

    def look(self, name: str, *, success: bool = True, **details: object) -> None:
        """The end of a look of that watch."""
        with self.desks[name].answers(success=success, details=details) as change:
            if change.drafts or change.notes or change.marks:
                self.outbox.commit(change)
        self.watches[name].asked.clear()

    def results(self) -> list[dict[str, Any]]:
        """What waits for the backend."""
        found, seen = [], set[int]()
        while (envelope := self.outbox.head(COMMAND_RESULT, seen)) is not None:
            seen.add(envelope.seq)
            found.append(orjson.loads(unpack(envelope.body)))
        return found

    def paused(self) -> list[str]:
        """The watches whose pause is on the disk."""
        return [name for name in self.names if self.outbox.note(f"{PAUSED_NOTE}/{name}") is not None]

    def close(self) -> None:
        self.outbox.close()

    def _watch(self, name: str) -> Watch:
        return Watch(
            interval_s=100,
            paused=self.outbox.note(f"{PAUSED_NOTE}/{name}") is not None,
            now_s=self.clock.monotonic(),
            backoff=Backoff(1.0, 60.0, Midway()),  # type: ignore[arg-type]
            on_enter=lambda _: None,
        )

    def _make(self, config: Config, name: str) -> FakeSource:
        self.made[name] = FakeSource()
        return self.made[name]
