"""What lets the runners run in the thread of a test, on a clock that the test turns: nothing here waits for real."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.backoff import Backoff
from agent.collector import Collector
from agent.command_book import CommandBook
from agent.command_desk import CommandDesk, is_paused
from agent.command_log import CommandLog
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.pulse import Pulse, thread_of
from agent.reconfigure import Reconfiguration
from agent.status import Scoreboard
from agent.watch import Watch
from agent.watch_loop import Room, Stop, WatchLoop, WatchParts, Word
from storage.envelope import Change
from storage.errors import OutboxFull
from storage.outbox import Outbox
from tests.fakes.clock import ManualClock
from tests.fakes.source import FakeSource

MAX_IDLE_LOOKS = 2_000


class Spinning(AssertionError):
    """The inbox was asked again and again while no time went by."""


class ScriptedInbox(queue.SimpleQueue[Word]):
    """Waiting turns the clock. `plan` names what happens when; when nothing is left to happen, Stop comes."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self._plan: list[tuple[float, int, Callable[[], object]]] = []
        self._polls = 0
        self.waits: list[float | None] = []

    def plan(self, at_s: float, what: Callable[[], object]) -> None:
        """`what` happens when the clock stands at `at_s` (monotonic)."""
        self._plan.append((at_s, len(self._plan), what))
        self._plan.sort(key=lambda entry: entry[:2])

    def get(self, block: bool = True, timeout: float | None = None) -> Word:
        """A word, or queue.Empty after the clock was turned by `timeout`."""
        self.waits.append(timeout)
        now_s = self._clock.monotonic()
        while self.empty():
            if not self._plan:
                return Stop()
            at_s, _, what = self._plan[0]
            if timeout is not None and now_s + timeout < at_s:
                self._turn_to(now_s + timeout)
                raise queue.Empty
            self._turn_to(at_s)
            self._plan.pop(0)
            what()
        return super().get_nowait()

    def get_nowait(self) -> Word:
        """A word or queue.Empty; too many of these without time going by are a loop that spins."""
        self._polls += 1
        if self._polls > MAX_IDLE_LOOKS:
            raise Spinning(f"{self._polls} looks into the inbox at the same instant")
        self._happen()
        return super().get_nowait()

    def _happen(self) -> None:
        while self._plan and self._plan[0][0] <= self._clock.monotonic():
            self._plan.pop(0)[2]()
        if not self._plan and self.empty():
            self.put(Stop())

    def _turn_to(self, at_s: float) -> None:
        if at_s > self._clock.monotonic():
            self._polls = 0
            self._clock.turn(at_s - self._clock.monotonic())


class FaultyOutbox(Outbox):
    """The real outbox. `no_room`: its limit is reached; `disk_full`: the next so many commits fail."""

    no_room = False
    disk_full = 0
    failures = 0

    def shortage(self, *, max_bytes: int, min_free_bytes: int) -> str | None:
        """As the real one, unless the test says that there is none."""
        if self.no_room:
            return "no room, says the test"
        return super().shortage(max_bytes=max_bytes, min_free_bytes=min_free_bytes)

    def commit(self, change: Change) -> None:
        """As the real one, unless the test says that the disk is full."""
        if self.disk_full:
            self.disk_full -= 1
            self.failures += 1
            raise OutboxFull("disk full, says the test")
        super().commit(change)


class Midway:
    """A random.Random that always draws the middle."""

    def uniform(self, low: float, high: float) -> float:
        """The middle."""
        return (low + high) / 2


def config_tree(**more: Any) -> dict[str, Any]:
    """A valid configuration file, as JSON gives it."""
    database = {"host": "db.example", "user": "u", "password": "old", **more.pop("db_config", {})}
    return {
        "collector_id": 7,
        "api_key": "collector_7_x",
        "backend_url": "http://127.0.0.1:1",
        "db_type": "mysql",
        "db_config": database,
        **more,
    }


def several_tree(*names: str, **more: Any) -> dict[str, Any]:
    """A valid configuration file with several databases."""
    tree = config_tree(**more)
    pair = {"db_type": tree.pop("db_type"), "db_config": tree.pop("db_config")}
    databases = [
        {"name": name, **pair, "db_config": {**pair["db_config"], "host": f"{name}.example"}} for name in names
    ]
    return {**tree, "databases": databases}


class Rig:
    """One watch with everything it needs, on a manual clock, over an outbox that outlives it: `Rig` again = restart."""

    name = "default"

    def __init__(
        self,
        directory: Path,
        *,
        clock: ManualClock | None = None,
        source: FakeSource | None = None,
        interval_s: float = 100.0,
        outbox: FaultyOutbox | None = None,
        **tree: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.source = source or FakeSource(clock=self.clock)
        self.outbox = outbox or FaultyOutbox(directory, now=self.clock.unix)
        self.board = Scoreboard(self.clock.monotonic())
        self.inbox = ScriptedInbox(self.clock)
        self.layers = Layers(config_tree(collection_interval=interval_s, **tree), {}, directory)
        self.config = self.layers.build({})
        self.states: list[str] = []
        self.saved = 0
        self.made: list[FakeSource] = []
        self.next_source: Callable[[], FakeSource] = FakeSource
        self.watch = Watch(
            interval_s=interval_s,
            paused=is_paused(self.outbox, self.name, self.config.remote_config),
            now_s=self.clock.monotonic(),
            backoff=Backoff(1.0, 60.0, Midway()),  # type: ignore[arg-type]
            max_load=self.config.watches[0].db_config.max_load,
            on_enter=self._entered,
        )
        self.configs: list[Config] = []
        self.reconfiguration = Reconfiguration(self.config, self.layers, self._make_source, self.configs.append)
        self.book = CommandBook(self.outbox, self.config.collector_id, [self.name], self.clock.unix)
        self.log = CommandLog(directory, self.clock.now)
        self.desk = CommandDesk(
            *(self.watch, self.outbox, self.book, self.log, self.reconfiguration),
            name=self.name,
            now_s=self.clock.monotonic,
        )
        self.collector = Collector(self.outbox, self.name, batch_max_records=50, batch_max_bytes=1_048_576)
        self.loop = WatchLoop(
            WatchParts(
                name=self.name,
                inbox=self.inbox,
                watch=self.watch,
                source=self.source,
                collector=self.collector,
                desk=self.desk,
                outbox=self.outbox,
                room=Room(1_073_741_824, 0),
                board=self.board,
                clock=self.clock,
                pulse=Pulse(thread_of(self.name), self.clock),
                on_saved=self._on_saved,
            )
        )

    def run_for(self, seconds: float) -> None:
        """The watch runs in this thread until so much time went by; it may be called once."""
        self.inbox.plan(self.clock.monotonic() + seconds, lambda: self.inbox.put(Stop()))
        self.loop.run()

    def at(self, seconds: float, what: Callable[[], object]) -> None:
        """`what` happens when so much time will have gone by."""
        self.inbox.plan(self.clock.monotonic() + seconds, what)

    def _entered(self, state: str) -> None:
        self.states.append(state)
        self.board.report(self.name, state=state, reason=self.watch.reason)

    def _on_saved(self) -> None:
        self.saved += 1

    def _make_source(self, config: Config, name: str) -> FakeSource:
        self.made.append(self.next_source())
        return self.made[-1]
