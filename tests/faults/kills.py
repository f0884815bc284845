"""Plays a history: a database with slow statements, an unsteady backend, an agent that is killed again and again."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from types import MappingProxyType

from agent.dev.postgres import wheel_bin_dir
from agent.dev.server_process import wait_until
from tests.faults.mishaps import Mishap
from tests.faults.reckoning import Count, Effect, Exchange, Json, count
from tests.faults.unsteady_backend import UnsteadyBackend
from tests.servers.agent_process import PROGRAM, AgentProcess, settings, write
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate
from tests.servers.postgres import WatchedPostgres
from tests.servers.traffic import Customer, MariaDBCustomer, PostgresCustomer, Traffic

SOON_S, SETTLE_S = 60.0, 120.0
# Small and quick, so that much goes on in each short life.
QUICK = MappingProxyType({"collection_interval": 0.1, "outbox": {"batch_max_records": 7}})
COMBINATIONS = (("mysql", True), ("mysql", False), ("postgres", True), ("postgres", False))
KILLED = -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Moment:
    """When a kill comes: at the latest `within_s` after what it waits for, or else after the start.

    `sees`: the first bulk request of that life for which it holds; `hears`: what the agent says. `mishap`: what goes
    wrong meanwhile; None: what the weather brings.
    """

    name: str
    within_s: float
    mishap: Mishap | None = None
    sees: Callable[[Exchange], bool] | None = None
    hears: str | None = None


# In each play: a request that is carried out after the kill, an answer to nobody, and a while of all kinds of weather.
IN_FLIGHT = Moment("in flight", 0.02, Mishap.HANGS, lambda each: bool(each.records))
STORED = Moment("stored", 0.02, Mishap.ANSWER_HANGS, lambda each: each.effect is not Effect.NONE)
WORKING = Moment("working", 2.0, sees=lambda _: True)
ALWAYS = (IN_FLIGHT, STORED, WORKING)
REFUSED = Moment("refused", 0.02, Mishap.REFUSED, lambda each: each.mishap == Mishap.REFUSED and bool(each.records))
MOMENTS = (
    *ALWAYS,
    REFUSED,
    Moment("answered", 0.004, Mishap.FINE, lambda each: each.told),
    Moment("starting", 1.0),
)


def moments(kills: int, seed: int) -> list[Moment]:
    """So many of MOMENTS, at least three, in a random order, with those of ALWAYS."""
    rng = random.Random(seed)
    drawn = [*ALWAYS, *rng.choices(MOMENTS, k=kills - len(ALWAYS))]
    rng.shuffle(drawn)
    return drawn


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was played and what came of it.

    `kills`: when each came, every one has hit a living process; `stats`: what the agent itself said at its end.
    """

    seed: int
    honours_keys: bool
    kills: tuple[str, ...]
    exchanges: tuple[Exchange, ...]
    executions: Counter[str]
    stats: Json

    @property
    def count(self) -> Count:
        """What the server holds against what has arrived."""
        return count(self.executions, self.exchanges, honours_keys=self.honours_keys)

    @property
    def answers_lost(self) -> int:
        """Requests that were carried out and whose acceptance did not go out whole."""
        return sum(each.effect is not Effect.NONE and not each.told for each in self.exchanges)

    @property
    def mishaps(self) -> Counter[str]:
        """How many bulk requests met which trouble."""
        return Counter(each.mishap for each in self.exchanges if each.mishap != Mishap.FINE)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}, keys {'honoured' if self.honours_keys else 'not honoured'}: {self.count}, "
            f"{len(self.exchanges)} requests, {self.answers_lost} answers lost, {self.stats['gaps']} gaps, "
            f"{dict(self.mishaps)}, killed: {', '.join(self.kills)}"
        )


@dataclass(slots=True)
class Play:
    """One history, once. `program` and `variables` are for controls; `then` hears after each kill how many came."""

    customer: Customer
    honours_keys: bool
    seed: int
    directory: Path
    program: str = PROGRAM
    variables: Mapping[str, str] = field(default_factory=dict)
    then: Callable[[int], None] = lambda _: None

    def run(self, kills: Sequence[Moment]) -> Outcome:
        """Kills at each of these moments in turn, lets everything recover and arrive, and counts."""
        with UnsteadyBackend(honours_keys=self.honours_keys, seed=self.seed) as backend:
            known = settings(backend, self.customer.db_type, self.customer.db_config(), **QUICK)
            agent = AgentProcess(write(self.directory, known), self.program)
            try:
                with Traffic(self.customer) as traffic:
                    self._kill(agent, backend, kills)
                    backend.recover()
                    self._start(agent, backend, len(kills))
                    traffic.stop()
                    executions = self._executions(traffic)
                self._settle(backend)
                assert agent.end() == 0, self._told("the agent did not end in order")
            finally:
                agent.kill()
            stats = backend.heartbeats[-1]["stats"]
        # Only now no request is being carried out any more.
        names = tuple(each.name for each in kills)
        return Outcome(self.seed, self.honours_keys, names, tuple(backend.exchanges), executions, stats)

    def _kill(self, agent: AgentProcess, backend: UnsteadyBackend, kills: Sequence[Moment]) -> None:
        rng = random.Random(self.seed)
        for life, moment in enumerate(kills):
            backend.order(moment.mishap)
            said = agent.count(moment.hears) if moment.hears else 0
            self._start(agent, backend, life)
            self._await(moment, agent, backend, life, said)
            Event().wait(rng.uniform(0, moment.within_s))  # a random moment is the case itself
            code = agent.end(signal.SIGKILL)
            assert code == KILLED, self._told(f"life {life} had ended by itself with {code}")
            self.then(life + 1)

    def _start(self, agent: AgentProcess, backend: UnsteadyBackend, life: int) -> None:
        agent.start(DBPOWER_BACKEND_URL=backend.address(life), **self.variables)

    def _await(self, moment: Moment, agent: AgentProcess, backend: UnsteadyBackend, life: int, said: int) -> None:
        sees, hears, came = moment.sees, moment.hears, True
        if sees is not None:
            came = backend.wait_for(lambda each: any(map(sees, each.of_life(life))), SOON_S)
        elif hears is not None:
            came = wait_until(lambda: agent.count(hears) > said, SOON_S)
        assert came, self._told(f"{moment.name!r} of life {life} did not come; the agent said {agent.said()[-2000:]}")

    def _executions(self, traffic: Traffic) -> Counter[str]:
        # A server may answer a statement before it counts it.
        assert wait_until(lambda: self.customer.executions().total() >= traffic.done, SOON_S), self._told("no count")
        executions = self.customer.executions()
        assert executions.total() == traffic.done, self._told(f"{executions.total()} of {traffic.done} were counted")
        return executions

    def _settle(self, backend: UnsteadyBackend) -> None:
        """Waits until two looks have ended since now, so that one has begun since, and nothing waits any more."""
        since = datetime.now(UTC)

        def is_done(backend: UnsteadyBackend) -> bool:
            stats = [beat["stats"] for beat in backend.heartbeats]
            looks = {each["last_collection_at"] for each in stats if each["last_collection_at"]}
            later = [look for look in looks if datetime.fromisoformat(look) > since]
            return len(later) > 1 and stats[-1]["outbox_records"] == 0

        assert backend.wait_for(is_done, SETTLE_S), self._told(f"not drained: {backend.heartbeats[-1:]}")

    def _told(self, what: str) -> str:
        return f"seed {self.seed}: {what}"


@contextmanager
def customers() -> Iterator[dict[str, Customer]]:
    """A server of each kind, by db_type."""
    with ExitStack() as stack:
        mariadb = stack.enter_context(MariaDBServer(stack.enter_context(MariaDBTemplate()), long_query_time=10.0))
        postgres = stack.enter_context(WatchedPostgres(wheel_bin_dir()))
        yield {"mysql": MariaDBCustomer(mariadb), "postgres": PostgresCustomer(postgres)}


def torture(
    kills: int,
    seed: int,
    progress: Callable[[int], None],
    combinations: Sequence[tuple[str, bool]] = COMBINATIONS,
) -> dict[str, int]:
    """So many kills for each combination of a database and a backend that honours keys or does not.

    `progress` hears after each kill how many there were in all. Gives the sums: kills, calls (executions that the
    servers hold), lost, doubled, unexcused; with nothing broken, lost and unexcused are 0. Raises AssertionError
    when the agent died by itself or did not recover.
    """
    outcomes: list[Outcome] = []
    with customers() as found, TemporaryDirectory() as directory:
        for number, (db_type, honours_keys) in enumerate(combinations):
            customer, before = found[db_type], number * kills
            customer.forget()
            play = Play(customer, honours_keys, seed + number, Path(directory) / str(number))
            play.then = lambda killed, before=before: progress(before + killed)  # type: ignore[misc]
            outcomes.append(play.run(moments(kills, seed + number)))
    counts = [each.count for each in outcomes]
    return {
        "kills": sum(len(each.kills) for each in outcomes),
        "calls": sum(each.executions for each in counts),
        "lost": sum(each.lost for each in counts),
        "doubled": sum(each.doubled for each in counts),
        "unexcused": sum(each.unexcused for each in counts),
    }
