"""Runs one marked slow statement and follows it on its way: database, outbox, backend. With the agent that runs, or
without one by a collection and a delivery of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import orjson

from agent import overview, wiring
from agent.body import dumps
from agent.clock import Clock
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.errors import CanaryLost
from agent.finding import Finding, right, wrong
from agent.sources import Source
from agent.status import PAUSED
from storage.errors import CodedError

LOOK_S = 0.2
SOON_S = 10.0  # a person waits so long without being told why
IN_SOURCE_S, STORED_S, ACCEPTED_S = 5.0, 60.0, 60.0  # the second one behind the time at which the agent looks next

Json = dict[str, Any]


class Way(Protocol):
    """What brings a record from the database to the backend."""

    def prepare(self) -> None:
        """Before the statement runs. Raises CodedError."""
        ...

    def get_on(self) -> None:
        """Does what takes it on, if anything is to be done. Raises CodedError."""
        ...

    def watch(self) -> Json:
        """How the watch is now, as `overview` tells it. Raises CodedError."""
        ...

    def close(self) -> None:
        """Gives everything back."""
        ...


class Running:
    """The agent that runs; only looked at."""

    def __init__(self, directory: Path, name: str, clock: Clock) -> None:
        self._directory, self._name, self._clock = directory, name, clock

    def prepare(self) -> None:
        """Nothing: it looks by itself."""

    def get_on(self) -> None:
        """Nothing, too."""

    def watch(self) -> Json:
        """As it says. Raises CanaryLost when it has ended."""
        found = overview.look(self._directory, self._clock)
        if found["pid"] is None or self._name not in found["watches"]:
            raise CanaryLost("the agent has ended meanwhile, or does not watch this database")
        watch: Json = found["watches"][self._name]
        return {**watch, "link": found["delivery"]["error"]}

    def close(self) -> None:
        """Nothing is open."""


class Own:
    """An agent that is built for this, and does only what it is told. Raises what wiring.build does."""

    def __init__(self, config: Config, layers: Layers, name: str, parts: wiring.Parts) -> None:
        source = parts.sources.get(name) or wiring.make_source(config, name, parts.clock, may_rotate=False)
        self._agent = wiring.build(config, layers, replace(parts, sources={**parts.sources, name: source}))
        self._name, self._clock = name, parts.clock
        (self._loop,) = (each for each in self._agent.watches if each.name == name)

    def prepare(self) -> None:
        """Collects what there is, so that a first look which begins at the end of the log does not skip the canary."""
        self._look()

    def get_on(self) -> None:
        """Collects what there is, and sends one envelope."""
        if self.watch()["canary"] is None:
            self._look()
        self._agent.flusher.step()
        if self._agent.flusher.error is not None:
            raise self._agent.flusher.error

    def watch(self) -> Json:
        """From its own board."""
        status = self._agent.board.status(now_s=self._clock.monotonic(), now_unix=self._clock.unix())
        found: Json = orjson.loads(dumps(status.overview()))
        return {**found["watches"][self._name], "link": found["delivery"]["error"]}

    def _look(self) -> None:
        if self.watch()["state"] != PAUSED and (error := self._loop.look()) is not None:
            raise error

    def close(self) -> None:
        """Closes outbox and connection."""
        self._loop.close()
        self._agent.close()


def follow(source: Source, way: Way, clock: Clock, pause: Callable[[float], object], token: str) -> Iterator[Finding]:
    """Each hop as soon as it is made, with its time; ends behind the first that is not. Raises nothing.

    `pause` waits so many seconds; `token`: eight hexadecimal digits.
    """
    with closing(source), closing(way):
        try:
            yield from _Chase(source, way, clock, pause, token).hops()
        except CodedError as error:
            yield wrong("canary", error)


class _Chase:
    def __init__(self, source: Source, way: Way, clock: Clock, pause: Callable[[float], object], token: str) -> None:
        self._source, self._way, self._clock, self._pause = source, way, clock, pause
        self._token = token

    def hops(self) -> Iterator[Finding]:
        if self._way.watch()["state"] == PAUSED:
            raise CanaryLost("collecting is paused by a `stop` of the backend; its `start` ends that")
        self._way.prepare()
        began = self._clock.now()
        name = self._source.run_canary(self._token)
        ran = self._clock.now()
        yield right("canary", f"{name} ran for {_seconds(ran - began)}")
        self._until(lambda: self._source.shows_canary(name), IN_SOURCE_S, "it is not where the agent would read it")
        yield right("canary in the source", f"{_seconds(self._clock.now() - ran)} after it had ended")
        limit_s = self._until_next_look()
        if limit_s > STORED_S + SOON_S:
            yield right("next look", f"of the agent, which will find it: in {limit_s - STORED_S:.0f} s")
        at = self._wait_for(name, ran, "stored_at", limit_s, "it did not come into the outbox")
        yield right("canary in the outbox", f"{_seconds(at - ran)} after it had ended")
        at = self._wait_for(name, ran, "accepted_at", ACCEPTED_S, "the backend has not accepted it")
        yield right("canary accepted", f"by the backend, {_seconds(at - ran)} after it had ended")

    def _until_next_look(self) -> float:
        due = self._way.watch()["due"]
        left_s = (datetime.fromisoformat(due) - self._clock.now()).total_seconds() if due else 0.0
        return max(0.0, left_s) + STORED_S

    def _wait_for(self, name: str, ran: datetime, moment: str, limit_s: float, complaint: str) -> datetime:
        def is_there() -> bool:
            self._way.get_on()
            seen = self._way.watch()["canary"]
            is_ours = seen is not None and seen["name"] == name and datetime.fromisoformat(seen["read_at"]) >= ran
            return is_ours and seen[moment] is not None

        self._until(is_there, limit_s, complaint)
        return datetime.fromisoformat(self._way.watch()["canary"][moment])

    def _until(self, met: Callable[[], bool], limit_s: float, complaint: str) -> None:
        until_s = self._clock.monotonic() + limit_s
        while not met():
            if self._clock.monotonic() >= until_s:
                why = self._way.watch()
                known = why["error"] or why["link"]
                raise CanaryLost(f"{complaint} within {limit_s:.0f} s{f'; {known}' if known else ''}")
            self._pause(LOOK_S)


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.1f} s"
