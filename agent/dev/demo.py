"""The demonstration: a real PostgreSQL, a backend that goes away and comes back, an agent that loses nothing. Tells it
as a story and proves the end against what PostgreSQL itself has counted."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from agent.dev.stage import MIN_MS, Stage

CALM_S, OUTAGE_S = 4.0, 9.0
FILLED = 12  # records in the outbox, so that an outage can be seen on a slow machine too
SETTLE_TIMEOUT_S = 40.0  # the agent's own backoff may make it wait for half a minute
BAR = 30


@dataclass(frozen=True, slots=True)
class Balance:
    """The end of the story. collected and delivered in records; lost and doubled in calls of statements."""

    collected: int
    delivered: int
    lost: int
    duplicated: int

    @property
    def holds(self) -> bool:
        """Whether nothing was lost and nothing came twice."""
        return self.collected == self.delivered > 0 and self.lost == self.duplicated == 0

    def __str__(self) -> str:
        return f"collected {self.collected}, delivered {self.delivered}, lost {self.lost}, duplicated {self.duplicated}"


def run(*, keep: bool) -> int:
    """Plays it. 0 when nothing was lost or doubled, 1 when something was, 130 after Ctrl-C."""
    console = Console(highlight=False, soft_wrap=True)
    # SIGINT too: a shell starts what it puts into the background with SIGINT ignored.
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _Story(console).play(keep=keep)
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running.")
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def balance(records: list[dict[str, Any]], counted: Counter[str], captured: int) -> Balance:
    """Holds what arrived against what the server counted (calls by queryid) and what the agent captured (records)."""
    ids = Counter(record["id"] for record in records)
    arrived: Counter[str] = Counter()
    for record in records:
        arrived[record["queryid"]] += record["calls"]
    lost = sum((counted - arrived).values())
    twice = sum((Counter({key: arrived[key] for key in counted}) - counted).values())
    return Balance(captured, len(ids), lost, max(twice, sum(ids.values()) - len(ids)))


class _Story:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._pause = threading.Event()  # never set: a wait that Ctrl-C ends
        self._seen: list[str] = []

    def play(self, *, keep: bool) -> int:
        self._tell("Starting a PostgreSQL with pg_stat_statements, a backend, and a shop with slow statements ...")
        with Stage() as stage:
            stage.workload.start()
            stage.start_agent()
            self._tell(f"The agent runs: it looks every half second for statements of {MIN_MS} ms and more.")
            self._watch(stage, CALM_S)
            self._outage(stage)
            self._database_restart(stage)
            self._commands(stage)
            result = self._settle(stage)
            if keep:
                self._keep(stage)
            return 0 if result.holds else 1

    def _outage(self, stage: Stage) -> None:
        self._tell("[bold]The backend is taken away.[/] The agent goes on collecting into its outbox:")
        stage.backend.stop()
        self._watch(stage, OUTAGE_S)
        self._watch(stage, SETTLE_TIMEOUT_S, until=lambda: stage.books().pending >= FILLED)
        self._tell("[bold]The backend is back.[/] The outbox drains:")
        stage.backend.start()
        self._watch(stage, SETTLE_TIMEOUT_S, until=lambda: stage.books().pending < 3)

    def _database_restart(self, stage: Stage) -> None:
        self._tell("[bold]Now the database goes away[/] and comes back:")
        stage.postgres.stop()
        self._watch(stage, SETTLE_TIMEOUT_S, until=lambda: self._has_seen(stage, "reconnecting"))
        stage.postgres.start()
        self._watch(stage, SETTLE_TIMEOUT_S, until=lambda: self._last(stage) in {"collecting", "idle"})

    def _commands(self, stage: Stage) -> None:
        self._tell("[bold]The backend sends `stop`[/], and later `start`:")
        stage.command("stop")
        self._watch(stage, SETTLE_TIMEOUT_S, until=lambda: self._last(stage) == "paused")
        stage.command("start")
        self._watch(stage, SETTLE_TIMEOUT_S, until=lambda: self._last(stage) in {"collecting", "idle"})

    def _settle(self, stage: Stage) -> Balance:
        stage.workload.stop()
        counted = stage.counted()
        self._tell("The shop closes. Everything it did is compared with what has arrived:")
        self._watch(stage, SETTLE_TIMEOUT_S, until=lambda: self._balance(stage, counted).holds)
        result = self._balance(stage, counted)
        self._table(stage)
        self._console.print(f"States passed through: {' → '.join(self._seen)}")
        self._console.print(f"[bold]{'[green]' if result.holds else '[red]'}{result}")
        return result

    def _keep(self, stage: Stage) -> None:
        self._console.print(
            f"\nbackend     {stage.backend.url}  (records: {stage.backend.url}/dev/queries)"
            f"\npostgres    {stage.postgres.host}:{stage.postgres.port}  user monitoring, password monitoring"
            f"\nagent       config and outbox in {stage.home}"
            "\nEverything goes on until Ctrl-C."
        )
        self._pause.wait()

    # -- how it is told ----------------------------------------------------------------------------------------

    def _watch(self, stage: Stage, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Shows states and outbox as they change, for so long or until it holds."""
        end_s = time.monotonic() + seconds
        shown, over = -1, False
        while not over:
            over = time.monotonic() >= end_s or (until is not None and until())
            self._hear(stage)
            pending = stage.books().pending  # behind `until`: what ends it is shown too
            if pending != shown and (abs(pending - shown) >= 3 or pending == 0 or shown < 0):
                shown = pending
                self._tell(f"outbox {pending:4d} {'█' * min(BAR, pending)}")
            if not over:
                self._pause.wait(0.1)

    def _hear(self, stage: Stage) -> None:
        while True:
            try:
                state = stage.states.get_nowait()
            except queue.Empty:
                return
            # A healthy agent goes to and fro between idle and collecting; told is what is new.
            if not self._seen or (state != self._seen[-1] and state not in self._seen[-2:]):
                self._tell(f"state [bold]{state}[/]")
            if not self._seen or state not in self._seen[-2:]:
                self._seen.append(state)

    def _has_seen(self, stage: Stage, state: str) -> bool:
        self._hear(stage)
        return state in self._seen

    def _last(self, stage: Stage) -> str:
        self._hear(stage)
        return self._seen[-1] if self._seen else ""

    def _balance(self, stage: Stage, counted: Counter[str]) -> Balance:
        return balance(stage.arrived(), counted, stage.books().captured)

    def _tell(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began_s:5.1f} s[/]  {text}")

    def _table(self, stage: Stage) -> None:
        table = Table(title="The slowest statements at the backend")
        for name in ("statement", "calls", "mean ms", "max ms"):
            table.add_column(name, justify="left" if name == "statement" else "right", no_wrap=name != "statement")
        calls: Counter[str] = Counter()
        total: Counter[str] = Counter()
        last: dict[str, dict[str, Any]] = {}
        for record in stage.arrived():
            text = record["sql_text"]
            calls[text] += record["calls"]
            total[text] += record["total_exec_time_ms"]
            last[text] = record
        slowest = sorted(last, key=lambda text: total[text] / calls[text], reverse=True)[:6]
        for text in slowest:
            mean = f"{total[text] / calls[text]:.0f}"
            table.add_row(text[:90], str(calls[text]), mean, f"{last[text]['max_exec_time_ms']:.0f}")
        self._console.print(table)
