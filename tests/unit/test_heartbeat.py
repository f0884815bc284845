"""What could go wrong: beats drift or bunch, a slow or hanging backend stops them, garbage kills the thread, an error
is told for ever or said again and again, a command is lost, no farewell is said, a new interval waits for the old one.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from agent.commands import Command
from agent.errors import BackendAway
from agent.heartbeat import BEAT_S, JITTER, Heartbeat
from agent.pulse import Step, Stuck
from agent.status import LinkStatus, Scoreboard
from agent.transport import Answer, Transport
from tests.fakes.clock import ManualClock
from tests.fakes.stub_backend import StubBackend

WAIT_S = 10.0
OK = {"status": "ok", "message": "m", "commands": []}


class FakeTransport(Transport):
    """Answers from memory; `seconds`: how long each beat takes on the manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__("http://127.0.0.1:1", "collector_7_x")
        self._clock = clock
        self.seconds = 0.0
        self.at_s: list[float] = []
        self.bodies: list[dict[str, Any]] = []
        self.closes = 0
        self.answer: Callable[[], Answer] = lambda: Answer(200, {}, orjson.dumps(OK))

    def post(self, path: str, body: bytes, headers: object = None) -> Answer:
        """As told."""
        self.at_s.append(self._clock.monotonic())
        self.bodies.append(orjson.loads(body))
        self._clock.turn(self.seconds)
        return self.answer()

    def close(self) -> None:
        """Counted."""
        self.closes += 1
        super().close()


class Pauses(threading.Event):
    """Waiting turns the clock; `after` so many pauses the beats are stopped. `during` runs in each pause, first."""

    def __init__(self, clock: ManualClock, heartbeat: Heartbeat, after: int) -> None:
        super().__init__()
        self._clock, self._heartbeat, self._left = clock, heartbeat, after
        self.during: Callable[[], None] = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        """At once."""
        assert timeout is not None
        assert timeout > 0
        before_s = self._clock.monotonic()
        self.during()
        self._clock.turn(max(0.0, timeout - (self._clock.monotonic() - before_s)) if not self.is_set() else 0.0)
        self._left -= 1
        if self._left == 0:
            self._heartbeat.stop()
        return self.is_set()


class Bench:
    def __init__(self, rng: random.Random | None = None) -> None:
        self.clock = ManualClock()
        self.transport = FakeTransport(self.clock)
        self.board = Scoreboard(self.clock.monotonic())
        self.commands: list[Command] = []
        self.heartbeat = Heartbeat(
            self.transport,
            7,
            self.board,
            interval_s=30,
            clock=self.clock,
            rng=rng or random.Random(1),
            give=self.commands.append,
        )

    def beats(self, pauses: int, during: Callable[[], None] = lambda: None) -> list[float]:
        """The times from beat to beat; the farewell beat is not among them."""
        events = Pauses(self.clock, self.heartbeat, pauses)
        events.during = during
        self.heartbeat._woken = events
        self.heartbeat.run()
        times = self.transport.at_s[:-1]
        return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- pace --------------------------------------------------------------------------------------------------------------


def test_beats_come_at_the_interval_with_a_tenth_of_jitter_to_both_sides(bench: Bench) -> None:
    gaps = bench.beats(400)
    assert (min(gaps) >= 30 * (1 - JITTER), max(gaps) <= 30 * (1 + JITTER)) == (True, True)
    assert (min(gaps) < 27.3, max(gaps) > 32.7, abs(sum(gaps) / len(gaps) - 30) < 0.5) == (True, True, True)


def test_a_slow_beat_does_not_delay_the_next_one(bench: Bench) -> None:
    bench.transport.seconds = 20
    assert max(bench.beats(50)) <= 30 * (1 + JITTER) + 1e-6


def test_a_beat_slower_than_the_interval_is_followed_by_the_next_and_not_made_up_for(bench: Bench) -> None:
    seconds = iter([100.0] * 3 + [0.0] * 100)

    def slow() -> Answer:
        bench.clock.turn(next(seconds))
        return Answer(200, {}, orjson.dumps(OK))

    bench.transport.answer = slow
    gaps = bench.beats(5)
    assert gaps[:3] == [100, 100, 100]
    assert min(gaps[3:]) >= 27


def test_a_shorter_interval_holds_at_once(bench: Bench) -> None:
    changes = iter([3_600.0, 10.0])

    def change() -> None:
        if (interval_s := next(changes, None)) is not None:
            bench.heartbeat.set_interval(interval_s)

    gaps = bench.beats(8, during=change)
    assert len(gaps) == 5
    assert (min(gaps) >= 9, max(gaps) <= 11) == (True, True)


def test_stop_is_heard_in_the_pause_and_a_farewell_follows(bench: Bench) -> None:
    bench.beats(1)
    assert (len(bench.transport.at_s), bench.transport.closes) == (2, 1)


def test_stopped_before_it_ran_it_only_says_farewell(bench: Bench) -> None:
    bench.heartbeat.stop()
    bench.heartbeat.run()
    assert len(bench.transport.at_s) == 1


def test_each_beat_and_each_pause_is_a_step_with_the_time_that_it_may_take(bench: Bench) -> None:
    steps: list[Step | None] = []

    def answer() -> Answer:
        steps.append(bench.heartbeat.pulse.step)
        return Answer(200, {}, orjson.dumps(OK))

    bench.transport.answer = answer
    bench.beats(2, during=lambda: steps.append(bench.heartbeat.pulse.step))
    doings = [step.doing if step else "" for step in steps]
    assert doings == [*["speaking to the backend", "waiting"] * 2, "speaking to the backend"]
    allowed = [step.at_most_s or 0.0 if step else 0.0 for step in steps]
    assert allowed[::2] == [BEAT_S] * 3
    assert [27 <= seconds <= 33 for seconds in allowed[1::2]] == [True, True]


def test_a_stuck_thread_is_in_the_stats_and_an_error_while_it_lasts(bench: Bench) -> None:
    bench.board.report("default", state="collecting")
    bench.board.stuck = (Stuck("watch default", "reading the database", bench.clock.monotonic() - 400),)
    bench.clock.turn(12)
    bench.heartbeat.beat()
    bench.board.stuck = ()
    bench.heartbeat.beat()
    first, second = bench.transport.bodies
    assert first["stats"]["stuck"] == "watch default: reading the database for 412 s"
    assert first["error"] == "watch default is stuck: reading the database for 412 s"
    assert (second["stats"]["stuck"], second["error"]) == (None, None)


# -- what is said and heard --------------------------------------------------------------------------------------------


def test_the_error_is_sent_while_something_is_wrong_and_null_when_it_is_over(bench: Bench) -> None:
    bench.board.report("default", error="[DB-01] away")
    bench.heartbeat.beat()
    bench.board.delivery = LinkStatus("[BE-02] key")
    bench.heartbeat.beat()
    bench.board.report("default", error=None)
    bench.board.delivery = LinkStatus()
    bench.heartbeat.beat()
    errors = [body["error"] for body in bench.transport.bodies]
    assert errors == ["[DB-01] away", "[DB-01] away; [BE-02] key", None]


def test_an_error_that_is_no_valid_text_is_sent_all_the_same(bench: Bench) -> None:
    bench.board.report("default", error="no such file: \udcff", last_collection_at=bench.clock.now())
    bench.heartbeat.beat()
    assert bench.transport.bodies[0]["error"] == "no such file: ?"


def test_commands_are_handed_on_in_order_and_what_is_malformed_is_left_out(bench: Bench) -> None:
    entries = [{"id": 1, "command": "stop", "created_at": "a"}, 5, {"id": "x"}, {"id": 2, "command": "start"}]
    bench.transport.answer = lambda: Answer(200, {}, orjson.dumps({**OK, "commands": entries}))
    bench.heartbeat.beat()
    assert bench.commands == [Command(1, "stop", {}, "a"), Command(2, "start")]


@pytest.mark.parametrize("commands", [None, 5, "stop", {"id": 1}, [[]], [None]])
def test_commands_in_a_foreign_shape_are_none(bench: Bench, commands: object) -> None:
    bench.transport.answer = lambda: Answer(200, {}, orjson.dumps({**OK, "commands": commands}))
    bench.heartbeat.beat()
    assert (bench.commands, bench.board.heartbeat.error) == ([], None)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(401, {}, b'{"detail": ["odd"]}'), "BE-02"),
        (Answer(403, {}, b""), "BE-02"),
        (Answer(500, {}, b""), "BE-05"),
        (Answer(302, {}, b""), "BE-03"),
        (Answer(200, {}, b"<html>"), "BE-03"),
        (Answer(200, {}, b"[]"), "BE-03"),
        (Answer(200, {}, b'{"status": "ok"'), "BE-03"),
        (None, "BE-01"),
    ],
)
def test_what_is_no_acceptance_is_known_and_the_last_acceptance_remembered(
    bench: Bench, answer: Answer | None, code: str
) -> None:
    bench.heartbeat.beat()
    accepted = bench.board.heartbeat.accepted_at_s
    bench.clock.turn(30)

    def wrong() -> Answer:
        if answer is None:
            raise BackendAway("refused")
        return answer

    bench.transport.answer = wrong
    bench.heartbeat.beat()
    status = bench.board.heartbeat
    assert (code in str(status.error), status.accepted_at_s, accepted) == (True, 1_000.0, 1_000.0)
    bench.transport.answer = lambda: Answer(200, {}, orjson.dumps(OK))
    bench.heartbeat.beat()
    assert (bench.board.heartbeat.error, bench.board.heartbeat.accepted_at_s) == (None, 1_030.0)


def test_the_clocks_are_compared(bench: Bench) -> None:
    headers = {"date": "Wed, 01 May 2024 11:59:00 GMT"}
    bench.transport.answer = lambda: Answer(200, headers, orjson.dumps(OK))
    bench.heartbeat.beat()
    assert bench.board.heartbeat.clock_skew_s == 60.0


def test_news_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dbpower")
    for status in (401, 401, 401, 200, 200):
        bench.transport.answer = lambda status=status: Answer(status, {}, orjson.dumps(OK))  # type: ignore[misc]
        bench.heartbeat.beat()
    told = [getattr(line, "event", "") for line in caplog.records]
    assert told == ["heartbeat.wrong", "heartbeat.first", "heartbeat.right"]


# -- in its thread, over a socket --------------------------------------------------------------------------------------


def _real(stub: StubBackend, read_timeout_s: float, give: Callable[[Command], None]) -> Heartbeat:
    clock = ManualClock()
    transport = Transport(stub.url, stub.api_key, read_timeout_s=read_timeout_s)
    board = Scoreboard(0.0)
    return Heartbeat(
        transport, stub.collector_id, board, interval_s=3_600, clock=clock, rng=random.Random(1), give=give
    )


def test_in_its_thread_it_beats_wakes_for_the_end_and_says_farewell(stub: StubBackend) -> None:
    commands: list[Command] = []
    stub.queue("collect")
    heartbeat = _real(stub, 10, commands.append)
    thread = threading.Thread(target=heartbeat.run)
    thread.start()
    assert stub.wait_for(lambda backend: len(backend.heartbeats) == 1, WAIT_S)
    heartbeat.stop()
    thread.join(WAIT_S)
    assert (thread.is_alive(), len(stub.heartbeats)) == (False, 2)
    assert {command.word for command in commands} == {"collect"}


def test_a_hanging_backend_holds_a_beat_only_for_its_timeout(stub: StubBackend) -> None:
    stub.break_down("hanging")
    heartbeat = _real(stub, 0.3, lambda _: None)
    heartbeat.beat()
    assert (stub.requests, "BE-01" in str(heartbeat._board.heartbeat.error)) == (1, True)
    stub.recover()
    heartbeat.beat()
    assert heartbeat._board.heartbeat.error is None
    heartbeat._transport.close()
