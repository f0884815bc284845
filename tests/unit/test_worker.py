"""What could go wrong: a thread dies and nobody knows, a normal end is taken for a death, or that of one which was left
behind; waiting has no limit; one that dies all day fills the log with its tracebacks.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

from agent.pulse import LeftBehind
from agent.reminder import FIRST_S
from agent.repeats import SAID, Repeats
from agent.worker import Worker
from tests.fakes.clock import ManualClock

WAIT_S = 10.0


def run(what: Callable[[], None]) -> list[str]:
    deaths: queue.SimpleQueue[str] = queue.SimpleQueue()
    worker = Worker("one", what, deaths.put)
    worker.start()
    assert worker.join(WAIT_S)
    return [deaths.get_nowait() for _ in range(deaths.qsize())]


@pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError, SystemExit, KeyboardInterrupt])
def test_a_death_is_told_whatever_ended_it(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    def die() -> None:
        raise error

    assert run(die) == ["one"]
    assert [getattr(line, "event", "") for line in caplog.records] == ["worker.died"]


def test_a_normal_end_is_no_death() -> None:
    assert run(lambda: None) == []


def test_the_end_of_one_that_was_left_behind_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    def find_out() -> None:
        raise LeftBehind

    assert (run(find_out), caplog.records) == ([], [])


def test_waiting_for_a_thread_that_hangs_ends_in_time_and_the_thread_holds_up_no_exit() -> None:
    hang = threading.Event()

    def wait() -> None:
        hang.wait(WAIT_S)

    worker = Worker("one", wait, lambda _: None)
    worker.start()
    assert (worker.join(0.01), worker.join(-5)) == (False, False)
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "one"] == [True]
    hang.set()
    assert worker.join(WAIT_S)


def test_one_that_dies_again_and_again_is_told_a_few_times_and_each_kind_of_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)
    errors: list[type[Exception]] = [ZeroDivisionError] * 101 + [ValueError]
    for error in errors:

        def die(error: type[Exception] = error) -> None:
            raise error

        worker = Worker("one", die, lambda _: None, repeats)
        worker.start()
        assert worker.join(WAIT_S)
        clock.turn(FIRST_S / 100)
    kinds = [line.exc_info[0] for line in caplog.records if line.exc_info]
    assert kinds == [ZeroDivisionError] * (SAID + 1) + [ValueError]
    told = [line.__dict__["fields"] for line in caplog.records]
    assert told == [{}] * SAID + [{"times": 101 - SAID}, {}]
