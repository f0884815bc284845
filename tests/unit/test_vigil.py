"""Who watches over the runners.

What could go wrong: a stuck thread is said again at every look, or its going on never; the heartbeat's field stays when
it is over; systemd gets its ticks while something is stuck, too rarely, or no more after it went on.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agent.pulse import Pulse, Stuck, thread_of
from agent.sd_notify import SdNotify
from agent.status import LinkStatus, Scoreboard
from agent.vigil import Vigil
from tests.fakes.clock import ManualClock

SLACK_S, PACE_S = 60.0, 5.0


class Ears(SdNotify):
    """Keeps what would be said to systemd, with the time; `deaf`: it cannot be told."""

    def __init__(self, clock: ManualClock, watchdog_s: float | None) -> None:
        super().__init__("/nowhere", watchdog_s)
        self._clock = clock
        self.deaf = False
        self.heard: list[tuple[float, str]] = []

    def _send(self, message: str) -> bool:
        if not self.deaf:
            self.heard.append((self._clock.monotonic(), message))
        return not self.deaf

    def times(self, message: str) -> list[float]:
        """When exactly that was said."""
        return [at_s for at_s, each in self.heard if each == message]


class Bench:
    def __init__(self, watchdog_s: float | None = 120.0, watches: tuple[str, ...] = ("default",)) -> None:
        self.clock = ManualClock()
        self.board = Scoreboard(self.clock.monotonic())
        for name in watches:
            self.board.report(name, state="collecting")
        self.systemd = Ears(self.clock, watchdog_s)
        self.pulses = {name: Pulse(name, self.clock) for name in (*map(thread_of, watches), "flusher", "heartbeat")}
        pulses = list(self.pulses.values())
        self.vigil = Vigil(pulses, self.board, self.systemd, self.clock, slack_s=SLACK_S, pace_s=PACE_S)

    def look_for(self, seconds: float) -> None:
        """The conductor looks at its pace."""
        until_s = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until_s:
            self.clock.turn(self.vigil.pace_s)
            self.vigil.look()

    def beat(self) -> dict[str, Any]:
        """What a heartbeat would say now."""
        status = self.board.status(now_s=self.clock.monotonic(), now_unix=self.clock.unix())
        return {"error": status.error, **status.stats()}


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(line, "event", "") for line in caplog.records]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_stuck_thread_is_told_once_and_once_that_it_goes_on(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dbpower")
    bench.pulses["watch default"].beat("reading the database", 30)
    bench.look_for(90)
    assert events(caplog) == []
    bench.look_for(600)
    assert events(caplog) == ["thread.stuck"]
    assert caplog.messages == ["The thread watch default is stuck: reading the database for 95 s"]
    bench.pulses["watch default"].beat("writing the outbox")
    bench.look_for(30)
    assert events(caplog) == ["thread.stuck", "thread.unstuck"]
    assert caplog.messages[1] == "The thread watch default goes on after 695 s of reading the database"
    bench.look_for(600)
    assert events(caplog) == ["thread.stuck", "thread.unstuck", "thread.stuck"]


def test_it_went_on_and_is_stuck_at_the_next_step_when_somebody_looks_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dbpower")
    bench.pulses["flusher"].beat("reading the outbox")
    bench.look_for(70)
    bench.pulses["flusher"].beat("sending to the backend", -SLACK_S)
    bench.look_for(5)
    assert events(caplog) == ["thread.stuck", "thread.unstuck", "thread.stuck"]


def test_the_heartbeat_says_who_at_what_and_for_how_long_while_it_lasts(bench: Bench) -> None:
    assert (bench.beat()["stuck"], bench.beat()["error"]) == (None, None)
    bench.pulses["watch default"].beat("reading the database", 30)
    bench.look_for(410)
    bench.clock.turn(2)
    beat = bench.beat()
    assert beat["stuck"] == "watch default: reading the database for 412 s"
    assert beat["error"] == "watch default is stuck: reading the database for 412 s"
    assert beat["state_reason"] == "stuck: reading the database for 412 s"
    assert beat["watches"]["default"]["state_reason"] == "stuck: reading the database for 412 s"
    bench.pulses["watch default"].beat("waiting", None)
    bench.look_for(5)
    beat = bench.beat()
    assert (beat["stuck"], beat["error"], beat["state_reason"]) == (None, None, "")


def test_a_stuck_flusher_is_an_error_beside_the_others_and_no_reason_of_a_watch(bench: Bench) -> None:
    bench.board.delivery = LinkStatus("[BE-01] away")
    bench.board.report("default", reason="why")
    bench.pulses["flusher"].beat("sending to the backend", 120)
    bench.look_for(200)
    beat = bench.beat()
    assert beat["error"] == "[BE-01] away; flusher is stuck: sending to the backend for 200 s"
    assert (beat["state_reason"], beat["stuck"]) == ("why", "flusher: sending to the backend for 200 s")


def test_what_dies_again_and_again_is_in_the_heartbeat_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.vigil.look((Stuck("flusher", "dying again and again", bench.clock.monotonic() - 100),))
    assert bench.beat()["stuck"] == "flusher: dying again and again for 100 s"
    assert (events(caplog), bench.systemd.times("WATCHDOG=1")) == ([], [])
    bench.vigil.look()
    assert bench.beat()["stuck"] is None


# -- systemd -----------------------------------------------------------------------------------------------------------


def test_ready_comes_first_and_stopping_last(bench: Bench) -> None:
    bench.vigil.look()
    bench.look_for(100)
    bench.vigil.end()
    messages = [message for _, message in bench.systemd.heard]
    assert (messages[0], messages[-1]) == ("READY=1", "STOPPING=1")


def test_who_hands_over_is_reloading_and_not_stopping(bench: Bench) -> None:
    bench.vigil.look()
    bench.clock.turn(2.5)
    bench.vigil.hand_over()
    messages = [message for _, message in bench.systemd.heard]
    assert messages[-1] == "RELOADING=1\nMONOTONIC_USEC=1002500000"
    assert "STOPPING=1" not in messages


@pytest.mark.parametrize("watchdog_s", [0.3, 3.0, 30.0, 120.0, 3_600.0])
def test_ticks_come_at_a_third_of_the_watchdogs_time_and_never_later_than_two(watchdog_s: float) -> None:
    bench = Bench(watchdog_s)
    bench.vigil.look()
    bench.look_for(20 * watchdog_s)
    times = bench.systemd.times("WATCHDOG=1")
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) >= 20
    assert (min(gaps) > watchdog_s * 0.33, max(gaps) < watchdog_s * 0.67) == (True, True)


def test_ready_is_said_again_until_it_is_heard_and_then_no_more(bench: Bench) -> None:
    bench.systemd.deaf = True
    bench.look_for(60)
    bench.systemd.deaf = False
    bench.look_for(60)
    messages = [message for _, message in bench.systemd.heard]
    assert (messages[0], messages.count("READY=1")) == ("READY=1", 1)


def test_without_a_watchdog_there_are_no_ticks() -> None:
    bench = Bench(None)
    bench.vigil.look()
    bench.look_for(3_600)
    assert (bench.systemd.times("WATCHDOG=1"), len(bench.systemd.times("READY=1"))) == ([], 1)


@pytest.mark.parametrize("thread", ["watch default", "flusher", "heartbeat"])
def test_whoever_is_stuck_ends_the_ticks_and_whoever_goes_on_brings_them_back(bench: Bench, thread: str) -> None:
    bench.vigil.look()
    bench.pulses[thread].beat("at it", 30)
    began_s = bench.clock.monotonic()
    bench.look_for(86_400)
    last_s = bench.systemd.times("WATCHDOG=1")[-1]
    assert last_s <= began_s + 30 + SLACK_S + PACE_S
    bench.pulses[thread].beat("at it", 86_400)
    bench.look_for(PACE_S)
    assert bench.systemd.times("WATCHDOG=1")[-1] == bench.clock.monotonic()


def test_one_database_that_hangs_does_not_take_the_others_along_and_all_together_do() -> None:
    bench = Bench(watches=("orders", "billing"))
    bench.pulses["watch orders"].beat("reading the database", 30.0)
    bench.look_for(400)
    assert "watch orders is stuck" in bench.beat()["error"]
    assert bench.systemd.times("WATCHDOG=1")[-1] > bench.clock.monotonic() - 60
    bench.pulses["watch billing"].beat("reading the database", 30.0)
    bench.look_for(400)
    assert bench.systemd.times("WATCHDOG=1")[-1] < bench.clock.monotonic() - 200


def test_a_tick_that_could_not_be_told_is_told_at_the_next_look(bench: Bench) -> None:
    bench.vigil.look()
    bench.systemd.deaf = True
    bench.look_for(60)
    bench.systemd.deaf = False
    bench.look_for(PACE_S)
    assert bench.systemd.times("WATCHDOG=1")[-1] == bench.clock.monotonic()


def test_the_status_says_what_is_wrong_or_what_goes_on(bench: Bench) -> None:
    bench.vigil.look()
    bench.board.report("default", error="[DB-01] away", state="reconnecting")
    bench.vigil.look()
    bench.board.report("default", error=None, state="idle")
    bench.vigil.look()
    said = [message for _, message in bench.systemd.heard if message.startswith("STATUS=")]
    assert said == ["STATUS=collecting, 0 records waiting", "STATUS=[DB-01] away", "STATUS=idle, 0 records waiting"]
