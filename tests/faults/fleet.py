"""A fleet of agents after an hour without a backend, in virtual time: when each of them sends.

What decides is the production code: each agent is a `Lane` (with its Backoff and its Ramp) and a `Heartbeat`. Made up
is only the world around: a clock that is turned, a backend that is away for an hour, and looks that bring an envelope
every 300 s, so that each agent has 13 bodies waiting at the return (or 130, with `per_look=10`). The worst case is
taken: all agents notice the outage in the same instant, and the backend that comes back has no limit of its own, so
nothing but the agents spreads the load.

The words of the figures. *Return*: the backend answers again. *Drain phase*: from the return until 99 of 100 agents
have delivered what was waiting, and at least the cap of the backoff, which is the time that the agents have for
spreading. *Mean*: requests sent in the phase by its length. *Peak*: the most requests in any second of the phase,
wherever that second begins. Requests are bulk calls; heartbeats, which come at their own pace all the time, are told
apart, because they would flatter the ratio.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

import orjson

from agent.backoff import DELIVERY_CAP_S
from agent.clock import Clock
from agent.delivery import Delivered, Retry
from agent.errors import BackendAway, BackendBusy
from agent.heartbeat import Heartbeat
from agent.lane import Lane
from agent.logs import LOGGER
from agent.status import Scoreboard
from agent.transport import READ_TIMEOUT_S, Answer, Transport
from agent.wiring import HEARTBEAT_TIMEOUT_S
from storage.envelope import Envelope

OUTAGE_S = 3_600.0
LOOK_S, BEAT_S = 300.0, 30.0  # the defaults of the configuration
ANSWER_S = 0.02  # a body of 500 records, stored
REFUSAL_S = 0.001
PEAK_BOUND = 3.0
SPREAD_BINS = 60
SPREAD_BOUND = 98.3  # 59 degrees of freedom: chance exceeds it once in a thousand
ENVELOPE = Envelope(1, "queries", 1, "key", 500, b"", b"", 0.0)

MakeRng = Callable[[int], random.Random]
MakeLane = Callable[[random.Random], Lane]


class Outage(Enum):
    """In which way the backend is away."""

    REFUSED = auto()  # the port is closed, or 5xx at once
    HANGING = auto()  # requests wait for their timeout; those that wait at the return are all answered then
    MAINTENANCE = auto()  # 503 with a Retry-After that names the return, the same instant to everyone


@dataclass(slots=True)
class Drain:
    """Times are seconds since the return; negative ones lie in the outage. `done`: when each agent was through."""

    sent: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    @property
    def phase_s(self) -> float:
        """Length of the drain phase."""
        return max(DELIVERY_CAP_S, sorted(self.done)[round(0.99 * len(self.done)) - 1])

    @property
    def requests(self) -> list[float]:
        """What was sent in the drain phase."""
        phase_s = self.phase_s
        return [at_s for at_s in self.sent if 0 <= at_s < phase_s]

    @property
    def mean(self) -> float:
        """Requests a second."""
        return len(self.requests) / self.phase_s

    @property
    def peak(self) -> int:
        """Requests in the busiest second."""
        return busiest_second(self.requests)

    @property
    def tries_at_the_cap(self) -> list[float]:
        """What was sent in the last five minutes of the outage."""
        return [at_s for at_s in self.sent if -DELIVERY_CAP_S <= at_s < 0]


def busiest_second(times: Sequence[float]) -> int:
    """The most of these, which are in order, in any half-open second."""
    best = first = 0
    for last, at_s in enumerate(times):
        while times[first] <= at_s - 1:
            first += 1
        best = max(best, last - first + 1)
    return best


def unevenness(times: Sequence[float], start_s: float, length_s: float) -> float:
    """Chi-square of these times against an even spread over SPREAD_BINS parts of so many seconds from `start_s` on."""
    counts = [0] * SPREAD_BINS
    for at_s in times:
        counts[min(SPREAD_BINS - 1, int((at_s - start_s) / length_s * SPREAD_BINS))] += 1
    expected = len(times) / SPREAD_BINS
    return sum((count - expected) ** 2 / expected for count in counts)


def make_lane(rng: random.Random) -> Lane:
    """As the flusher makes it."""
    return Lane(hold_s=BEAT_S, rng=rng)


# -- delivery --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Sender:
    lane: Lane
    waiting: int
    is_asleep: bool = False  # until a look brings something
    is_through: bool = False


class Fleet:
    """Agents that all have noticed the outage now; `drain` lets time go by until each has delivered its backlog."""

    def __init__(
        self, agents: int, seed: int, outage: Outage, *, per_look: int = 1, lane: MakeLane = make_lane,
        rng: MakeRng = random.Random,
    ) -> None:  # fmt: skip
        world = random.Random(seed)
        self._outage, self._per_look = outage, per_look
        self._senders = [_Sender(lane(rng(world.getrandbits(64))), per_look) for _ in range(agents)]
        # What happens next: when, to whom, and whether it is a look (else a try to send).
        self._next = [(-OUTAGE_S, number, False) for number in range(agents)]
        self._next += [(world.uniform(0, LOOK_S) - OUTAGE_S, number, True) for number in range(agents)]
        heapq.heapify(self._next)
        self._drain = Drain()

    def drain(self) -> Drain:
        """Runs to the end."""
        while len(self._drain.done) < len(self._senders):
            at_s, number, is_look = heapq.heappop(self._next)
            sender = self._senders[number]
            if is_look:
                sender.waiting += self._per_look
                heapq.heappush(self._next, (at_s + LOOK_S, number, True))
                if sender.is_asleep:
                    self._wake(sender, number, at_s)
            elif sender.waiting:
                self._send(sender, number, at_s)
            else:
                sender.is_asleep = True
        return self._drain

    def _wake(self, sender: _Sender, number: int, at_s: float) -> None:
        sender.is_asleep = False
        heapq.heappush(self._next, (max(at_s, sender.lane.ready_at_s), number, False))

    def _send(self, sender: _Sender, number: int, at_s: float) -> None:
        self._drain.sent.append(at_s)
        verdict, answered_s = self._answer(at_s)
        sender.lane.decide(ENVELOPE, verdict, now_s=answered_s, heartbeat_ok_at_s=None)
        if isinstance(verdict, Delivered):
            sender.waiting -= 1
            if not sender.waiting and not sender.is_through:
                sender.is_through = True
                self._drain.done.append(answered_s)
        self._wake(sender, number, answered_s)

    def _answer(self, at_s: float) -> tuple[Delivered | Retry, float]:
        patience_s = READ_TIMEOUT_S if self._outage is Outage.HANGING else 0.0
        if at_s + patience_s >= 0:
            return Delivered(ENVELOPE.records), max(at_s, 0.0) + ANSWER_S
        if self._outage is Outage.MAINTENANCE:
            return Retry(BackendBusy("status 503"), floor_s=-at_s), at_s + REFUSAL_S
        return Retry(BackendAway()), at_s + (patience_s or REFUSAL_S)


# -- heartbeats ------------------------------------------------------------------------------------------------------


class _FleetClock(Clock):
    at_s = -OUTAGE_S

    def monotonic(self) -> float:
        return self.at_s

    def unix(self) -> float:
        return self.at_s


class _Line(Transport):
    """Hangs until the return, then answers; `times` of all beats."""

    def __init__(self, clock: _FleetClock) -> None:
        self._clock = clock
        self.times: list[float] = []

    def post(self, path: str, body: bytes, headers: object = None) -> Answer:
        """Takes as long as it would."""
        at_s = self._clock.at_s
        self.times.append(at_s)
        if at_s + HEARTBEAT_TIMEOUT_S < 0:
            self._clock.at_s += HEARTBEAT_TIMEOUT_S
            raise BackendAway("timed out")
        self._clock.at_s = max(at_s, 0.0) + ANSWER_S
        return Answer(200, {}, orjson.dumps({"status": "ok", "commands": []}))

    def close(self) -> None:
        """There is nothing to close."""


class _Turning(threading.Event):
    """Waiting turns the clock, up to `until_s`; then the beats are stopped."""

    def __init__(self, clock: _FleetClock, heartbeat: Heartbeat, until_s: float) -> None:
        super().__init__()
        self._clock, self._heartbeat, self._until_s = clock, heartbeat, until_s

    def wait(self, timeout: float | None = None) -> bool:
        """At once."""
        self._clock.at_s += timeout or 0.0
        if self._clock.at_s >= self._until_s:
            self._heartbeat.stop()
        return False


def beats(agents: int, seed: int, *, rng: MakeRng = random.Random) -> list[float]:
    """The times, in order, of all heartbeats from the return on for five minutes: the outage hangs, and all agents were
    started in the instant in which it began."""
    world = random.Random(seed)
    times: list[float] = []
    for _ in range(agents):
        clock = _FleetClock()
        line = _Line(clock)
        heartbeat = Heartbeat(
            line, 1, Scoreboard(clock.at_s), interval_s=BEAT_S, clock=clock, rng=rng(world.getrandbits(64)),
            give=lambda _: None,
        )  # fmt: skip
        heartbeat._woken = _Turning(clock, heartbeat, LOOK_S)
        with _silence():
            heartbeat.run()
        times += [at_s for at_s in line.times if 0 <= at_s < LOOK_S]
    return sorted(times)


# -- ten thousand ----------------------------------------------------------------------------------------------------


def torture(agents: int, seed: int, progress: Callable[[int], None]) -> dict[str, float]:
    """All outages with small and large backlogs; `progress` hears how many of the agents are done, in proportion.

    Gives the figures by name (`table` shows them). Raises AssertionError when a bound is broken.
    """
    figures: dict[str, float] = {}
    runs = [(outage, per_look) for per_look in (1, 10) for outage in Outage]
    for number, (outage, per_look) in enumerate(runs, 1):
        drain = Fleet(agents, seed, outage, per_look=per_look).drain()
        figures |= {f"{outage.name.lower()} x{per_look}: {name}": value for name, value in told(drain).items()}
        progress(agents * number // (len(runs) + 1))
    times = beats(agents, seed)
    figures["heartbeats: mean/s"] = len(times) / LOOK_S
    figures["heartbeats: peak/s"] = busiest_second(times)
    figures["heartbeats: peak/mean"] = busiest_second(times) / (len(times) / LOOK_S)
    progress(agents)
    broken = [name for name, value in figures.items() if name.endswith("peak/mean") and value >= PEAK_BOUND]
    broken += [name for name, value in figures.items() if name.endswith("chi-square") and value >= SPREAD_BOUND]
    assert broken == [], table(figures)
    return figures


def told(drain: Drain) -> dict[str, float]:
    """The figures of one outage."""
    tries = drain.tries_at_the_cap
    ends = sorted(drain.done)
    return {
        "tries in the last 5 min": len(tries),
        **({"their chi-square": unevenness(tries, -DELIVERY_CAP_S, DELIVERY_CAP_S)} if tries else {}),
        "requests in the drain phase": len(drain.requests),
        "phase in s": drain.phase_s,
        "mean/s": drain.mean,
        "peak/s": drain.peak,
        "peak/mean": drain.peak / drain.mean,
        "half of the agents through after s": ends[len(ends) // 2],
        "last agent through after s": ends[-1],
    }


def table(figures: dict[str, float]) -> str:
    """One figure a line."""
    width = max(map(len, figures))
    return "\n".join(f"{name:<{width}}  {value:>12,.2f}" for name, value in figures.items())


@contextmanager
def _silence() -> Iterator[None]:
    LOGGER.disabled = True
    try:
        yield
    finally:
        LOGGER.disabled = False
