"""A replay from its first step to its last.

What could go wrong: it never ends at a backend that takes nothing, or gives up on one that is only slow; it goes on
although no waiting will help; a bad record stops it for good; a stop loses what is on its way; it is faster than it was
told to be; it claims to be done when it is not.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from agent.clock import Clock
from agent.delivery import Hold, Refused, Retry
from agent.errors import BackendAway, BackendBusy, KeyRefused, NotTheBackend, ReplayGivenUp, ReplayRefused
from agent.replay.cargo import Cargo
from agent.replay.ledger import Ledger
from agent.replay.replay import BUSY_S, GIVE_UP_S, Progress, Replay, ledger_beside, takes_bulk_calls
from agent.transport import Answer, Transport
from scripts.replaying.verify import missing_and_doubled
from storage.errors import CodedError
from tests.fakes.clock import ManualClock
from tests.fakes.sink import FakeSink
from tests.fakes.stub_backend import StubBackend
from tests.unit.replay.test_cargo import Hold as Cellar
from tests.unit.replay.test_cargo import envelope

TEN = [[f"r{number}a", f"r{number}b"] for number in range(10)]


class Bench:
    """A replay whose waits turn the clock."""

    def __init__(self, directory: Path, *, rate: float | None = None) -> None:
        self.clock = ManualClock()
        self.sink = FakeSink()
        self.ledger = Ledger(directory / "ledger", "b")
        cellar = Cellar(*(envelope(seq, *names) for seq, names in enumerate(TEN, 1)))
        self.cargo = Cargo(cellar.heads, cellar.load, self.ledger)
        self.told: list[Progress] = []
        self.takes_calls = True
        self.waits: list[float] = []
        self.replay = Replay(
            self.cargo,
            self.sink,
            clock=self.clock,
            rng=random.Random(1),
            probe=lambda: self.takes_calls,
            rate=rate,
            tell=self.told.append,
        )
        self.replay._wait = self._wait  # type: ignore[method-assign]

    def _wait(self, seconds: float) -> None:
        assert seconds > 0
        self.waits.append(seconds)
        self.clock.turn(seconds)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with closing(made.ledger):
        yield made


def test_it_delivers_all_and_says_so(bench: Bench) -> None:
    assert bench.replay.run() is True
    assert (len(bench.sink.stored), bench.cargo.account.delivered, bench.sink.closes) == (20, 20, 1)
    assert [each.waiting for each in bench.told][-2:] == [2, 0]
    assert sum(bench.waits) == 0
    assert bench.cargo.account.bytes == sum(len(each.body) for each in bench.sink.requests)


def test_it_does_not_go_faster_than_it_may(tmp_path: Path) -> None:
    bench = Bench(tmp_path, rate=4.0)
    with closing(bench.ledger):
        bench.replay.run()
    assert sum(bench.waits) == pytest.approx(20 / 4)


def test_stopped_it_ends_behind_the_envelope_that_is_on_its_way(bench: Bench) -> None:
    def stop(_: object) -> None:
        if len(bench.sink.requests) == 3:
            bench.replay.stop()

    bench.sink.verdict = stop
    assert bench.replay.run() is False
    assert (len(bench.sink.stored), bench.cargo.account.delivered, bench.cargo.waiting) == (6, 6, 14)


def test_a_backend_that_is_away_is_waited_for_and_then_given_up(bench: Bench) -> None:
    bench.sink.verdict = lambda _: Retry(BackendAway("refused"), in_doubt=False)
    before_s = bench.clock.monotonic()
    with pytest.raises(ReplayGivenUp, match="BE-01"):
        bench.replay.run()
    assert GIVE_UP_S <= bench.clock.monotonic() - before_s < GIVE_UP_S + 1
    assert (bench.cargo.waiting, bench.sink.stored, bench.sink.closes) == (20, [], 1)


def test_one_that_comes_back_within_that_time_is_gone_on_with(bench: Bench) -> None:
    before_s = bench.clock.monotonic()

    def away_most_of_the_time(_: object) -> Retry | None:
        if (bench.clock.monotonic() - before_s) % 25 < 18:
            return Retry(BackendAway("refused"), in_doubt=False)
        bench.clock.turn(2)
        return None

    bench.sink.verdict = away_most_of_the_time
    assert bench.replay.run() is True
    assert len(bench.sink.stored) == 20
    assert bench.clock.monotonic() - before_s > GIVE_UP_S


@pytest.mark.parametrize("error", [KeyRefused("status 401"), NotTheBackend("status 302")])
def test_what_waiting_does_not_mend_ends_it_at_once(bench: Bench, error: CodedError) -> None:
    bench.sink.verdict = lambda _: Hold(error)
    with pytest.raises(ReplayGivenUp, match=error.code):
        bench.replay.run()
    assert (bench.waits, bench.cargo.waiting) == ([], 20)


def test_a_body_that_is_a_500_for_ever_is_taken_apart_while_others_are_taken(bench: Bench) -> None:
    bench.sink.bad = {"r3a"}
    bench.sink.refuses_with = Retry(BackendBusy("status 500"), in_doubt=False, blames_body=True)
    assert bench.replay.run() is True
    assert (len(bench.sink.stored), bench.cargo.account.parked) == (19, 1)


def test_control_a_backend_that_answers_500_to_everything_is_given_up(bench: Bench) -> None:
    bench.sink.verdict = lambda _: Retry(BackendBusy("status 500"), in_doubt=False)
    bench.takes_calls = False
    with pytest.raises(ReplayGivenUp, match="BE-05"):
        bench.replay.run()
    assert bench.cargo.account.parked == 0


def test_one_that_asks_to_wait_for_ever_is_given_up_some_time(bench: Bench) -> None:
    bench.sink.verdict = lambda _: Retry(BackendBusy("status 429"), in_doubt=False)
    before_s = bench.clock.monotonic()
    with pytest.raises(ReplayGivenUp, match="BE-05"):
        bench.replay.run()
    assert BUSY_S <= bench.clock.monotonic() - before_s < 3 * BUSY_S


def test_a_backend_that_refuses_everything_parks_nothing(bench: Bench) -> None:
    bench.sink.verdict = lambda _: Refused("status 422")
    with pytest.raises(ReplayGivenUp, match="BE-04"):
        bench.replay.run()
    assert (bench.cargo.account.parked, bench.cargo.waiting) == (0, 20)


def test_a_bad_record_behind_all_others_is_kept_aside_in_the_ledger(bench: Bench) -> None:
    bench.sink.bad = {"r9b"}
    assert bench.replay.run() is True
    assert (len(bench.sink.stored), bench.cargo.account.parked, bench.cargo.waiting) == (19, 1, 0)


@pytest.mark.parametrize("number", range(20))
def test_a_stop_from_the_handler_of_a_signal_is_heard_in_a_wait(tmp_path: Path, number: int) -> None:
    bench = Bench(tmp_path, rate=0.01)
    with closing(bench.ledger):
        bench.replay._wait = type(bench.replay)._wait.__get__(bench.replay)  # type: ignore[method-assign]
        before = signal.signal(signal.SIGALRM, lambda *_: bench.replay.stop())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05 + number / 1_000)
            assert bench.replay.run() is False
        finally:
            signal.signal(signal.SIGALRM, before)
    assert bench.replay.was_stopped


# -- the backend itself ------------------------------------------------------------------------------------------------


def test_whether_bulk_calls_are_taken_is_asked_with_an_empty_one() -> None:
    clock = Clock()
    with StubBackend() as stub:
        transport = Transport(stub.url, stub.api_key)
        assert takes_bulk_calls(transport, clock)
        assert stub.records == []
        stub.break_down("500")
        assert not takes_bulk_calls(transport, clock)
        stub.break_down("refused")
        assert not takes_bulk_calls(transport, clock)
        transport.close()


class Told(Transport):
    """A backend that tells this, and of its records one page."""

    def __init__(self, **bodies: bytes) -> None:
        self.bodies = {"queries": b"[]", **bodies}

    def get(self, path: str) -> Answer:
        name, _, query = path.removeprefix("/dev/").partition("?")
        return Answer(200, {}, b"[]" if query and not query.startswith("after=0&") else self.bodies[name])


def test_what_is_missing_and_what_came_twice_is_compared() -> None:
    keys = b'[{"key":"a"},{"key":"b"}]'
    records = orjson.dumps([{"number": number, "record": {"id": name}} for number, name in enumerate("xyx", 1)])
    told = Told(keys=keys, summary=b'{"duplicates":1}', queries=records)
    assert missing_and_doubled(told, ["a", "c", "b", "d"]) == (["c", "d"], ["x"])
    assert missing_and_doubled(Told(keys=keys, summary=b'{"duplicates":0}'), ["a"]) == ([], [])


@pytest.mark.parametrize(
    "bodies", [(b"<html>", b"{}"), (b"[]", b"{}"), (b'{"detail":"Not Found"}', b"{}"), (b"[]", b"[]")]
)
def test_a_backend_that_does_not_tell_is_named(bodies: tuple[bytes, bytes]) -> None:
    with pytest.raises(ReplayRefused, match="does not tell which keys"):
        missing_and_doubled(Told(keys=bodies[0], summary=bodies[1]), ["a"])


def test_the_ledger_is_beside_the_file() -> None:
    assert ledger_beside(Path("/x/outbox.sqlite3")) == Path("/x/outbox.sqlite3.replayed")
