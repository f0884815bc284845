"""The canary's way, hop by hop, with a source and an agent that are told what to do.

What could go wrong: a canary of an earlier try passes for this one; a hop that was never made is said to be made; it
waits for ever where the agent is paused, has ended, or cannot reach anybody; what is open stays open.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent.doctor.canary import ACCEPTED_S, IN_SOURCE_S, STORED_S, follow
from agent.errors import BackendAway
from agent.finding import Finding
from agent.source_errors import DatabaseAway
from tests.fakes.clock import ManualClock

NAME = "dbpower_canary_00000001"
LASTS_S = 0.5


class Bird:
    """A source that runs the canary, and shows it when `appears_s` have gone by."""

    def __init__(self, clock: ManualClock, appears_s: float | None = 0.2) -> None:
        self._clock, self._appears_s, self._ran_s = clock, appears_s, 0.0
        self.closed = False

    def run_canary(self, token: str) -> str:
        self._clock.turn(LASTS_S)
        self._ran_s = self._clock.monotonic()
        return f"dbpower_canary_{token}"

    def shows_canary(self, name: str) -> bool:
        assert name == NAME
        return self._appears_s is not None and self._clock.monotonic() - self._ran_s >= self._appears_s

    def close(self) -> None:
        self.closed = True


class Flight:
    """An agent that reads, stores and has accepted the canary so long after the way began; None: never."""

    def __init__(self, clock: ManualClock, **after_s: float | None) -> None:
        self._clock, self._began_s = clock, clock.monotonic()
        self._after_s = {"read_at": 1.0, "stored_at": 1.5, "accepted_at": 2.0, **after_s}
        self.state, self.due_s, self.error, self.link, self.name = "idle", 1.0, None, None, NAME
        self.prepared = self.closed = False
        self.fails: Exception | None = None

    def prepare(self) -> None:
        self.prepared = True

    def get_on(self) -> None:
        if self.fails is not None:
            raise self.fails

    def watch(self) -> dict[str, Any]:
        moments = {moment: self._moment(after_s) for moment, after_s in self._after_s.items()}
        seen = None if moments["read_at"] is None else {"name": self.name, **moments}
        due = (self._clock.now() + timedelta(seconds=self.due_s)).isoformat()
        return {"state": self.state, "due": due, "canary": seen, "error": self.error, "link": self.link}

    def _moment(self, after_s: float | None) -> str | None:
        gone_s = self._clock.monotonic() - self._began_s
        if after_s is None or gone_s < after_s:
            return None
        return (self._clock.now() - timedelta(seconds=gone_s - after_s)).isoformat()

    def close(self) -> None:
        self.closed = True


def flown(bird: Bird, flight: Flight, clock: ManualClock) -> list[Finding]:
    found = list(follow(bird, flight, clock, clock.turn, "00000001"))  # type: ignore[arg-type]  # of a source only this
    assert (bird.closed, flight.closed) == (True, True)
    return found


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.subject, finding.verdict) for finding in found]


HOPS = ["canary", "canary in the source", "canary in the outbox", "canary accepted"]


def test_every_hop_is_told_with_its_time(clock: ManualClock) -> None:
    found = flown(Bird(clock), flight := Flight(clock), clock)
    assert told(found) == [(hop, "right") for hop in HOPS]
    assert flight.prepared
    assert found[0].sentence == f"{NAME} ran for 0.5 s"
    assert found[1].sentence.startswith("0.2 s after")
    assert found[2].sentence.startswith("1.0 s after")
    assert found[3].sentence.startswith("by the backend, 1.5 s after")


@pytest.mark.parametrize(
    ("appears_s", "after", "hops", "limit_s"),
    [
        (None, {}, 1, IN_SOURCE_S),
        (0.0, {"read_at": None}, 2, STORED_S + 1.0),
        (0.0, {"stored_at": None}, 2, STORED_S + 1.0),
        (0.0, {"accepted_at": None}, 3, ACCEPTED_S),
    ],
)
def test_a_hop_that_is_not_made_is_told_in_time(
    clock: ManualClock, appears_s: float | None, after: dict[str, None], hops: int, limit_s: float
) -> None:
    began_s = clock.monotonic()
    found = flown(Bird(clock, appears_s), Flight(clock, **after), clock)
    assert told(found) == [*((hop, "right") for hop in HOPS[:hops]), ("canary", "wrong")]
    assert found[-1].code == "CA-02"
    assert clock.monotonic() - began_s < limit_s + 5


def test_what_is_wrong_with_the_agent_is_said_with_it(clock: ManualClock) -> None:
    flight = Flight(clock, accepted_at=None)
    flight.link = "[BE-01] away"  # type: ignore[assignment]
    assert "[BE-01] away" in flown(Bird(clock), flight, clock)[-1].sentence


def test_the_canary_of_an_earlier_try_is_not_this_one(clock: ManualClock) -> None:
    early = Flight(clock, read_at=0.0)
    assert told(flown(Bird(clock), early, clock))[-1] == ("canary", "wrong"), "read before it ran"
    other = Flight(clock)
    other.name = "dbpower_canary_00000002"
    assert told(flown(Bird(clock), other, clock))[-1] == ("canary", "wrong")


def test_a_paused_watch_is_told_before_anything_runs(clock: ManualClock) -> None:
    flight = Flight(clock)
    flight.state = "paused"
    found = flown(Bird(clock), flight, clock)
    assert told(found) == [("canary", "wrong")]
    assert "paused" in found[0].sentence


@pytest.mark.parametrize("error", [BackendAway("refused"), DatabaseAway("gone")])
def test_what_goes_wrong_on_the_way_is_told_with_its_code(clock: ManualClock, error: Exception) -> None:
    flight = Flight(clock)
    flight.fails = error
    found = flown(Bird(clock), flight, clock)
    assert (found[-1].verdict, found[-1].code) == ("wrong", error.code)  # type: ignore[attr-defined]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
