"""What happens again and again is said a few times, and then counted.

What could go wrong: ten thousand refused records are ten thousand lines; one kind silences another; what was counted is
never said, or said twice; what comes once in a while is counted instead of said; memory grows with the kinds; two
threads count at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from agent.reminder import FIRST_S
from agent.repeats import KINDS, QUIET_S, SAID, Repeats
from tests.fakes.clock import ManualClock
from tests.fakes.day import Lines


@pytest.fixture
def log() -> Iterator[Lines]:
    lines = Lines()
    with lines.listening():
        yield lines


def words(log: Lines) -> list[str]:
    """What was said, without time, level and event."""
    return [line.split(" ", 3)[3] for line in log.text]


def part(repeats: Repeats, number: int, kind: str = "") -> None:
    repeats.tell(logging.WARNING, "delivery.parked", f"Record {number}", kind=kind, seq=number)


def test_the_first_few_are_said_and_then_one_line_stands_for_all_of_an_hour(log: Lines) -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)
    for number in range(120):
        part(repeats, number)
        clock.turn(60)
    assert words(log) == [
        *(f"Record {number} (seq={number})" for number in range(SAID)),
        f"Record 60 (the last of {61 - SAID} since this was said) (seq=60, times={61 - SAID})",
    ]


def test_what_was_counted_is_said_although_no_more_comes(log: Lines) -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)
    for number in range(SAID + 2):
        part(repeats, number)
    repeats.remind()
    assert len(words(log)) == SAID
    clock.turn(FIRST_S)
    repeats.remind()
    repeats.remind()
    assert words(log)[SAID:] == [f"Record {SAID + 1} (the last of 2 since this was said) (seq={SAID + 1}, times=2)"]


def test_a_single_one_that_was_counted_is_said_as_it_was(log: Lines) -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)
    for number in range(SAID + 1):
        part(repeats, number)
    clock.turn(FIRST_S)
    repeats.remind()
    assert words(log)[-1] == f"Record {SAID} (seq={SAID})"


def test_another_kind_is_said_whatever_else_is_counted(log: Lines) -> None:
    repeats = Repeats(ManualClock().monotonic)
    for number in range(50):
        part(repeats, number, kind="status 400")
    part(repeats, 50, kind="status 422")
    repeats.tell(logging.INFO, "delivery.gone", "Gone")
    assert words(log)[SAID:] == ["Record 50 (seq=50)", "Gone"]


def test_what_did_not_come_for_hours_is_new_again(log: Lines) -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)
    for number in range(4 * SAID):
        clock.turn(QUIET_S)
        part(repeats, number)
    assert len(words(log)) == 4 * SAID


def test_what_was_counted_is_not_forgotten_when_it_becomes_new_again(log: Lines) -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)
    for number in range(SAID + 4):
        part(repeats, number)
    clock.turn(QUIET_S)
    part(repeats, 99)
    assert words(log)[SAID:] == ["Record 99 (the last of 5 since this was said) (seq=99, times=5)"]


def test_kinds_without_end_take_no_memory_without_end(log: Lines) -> None:
    repeats = Repeats(ManualClock().monotonic)
    for number in range(3 * KINDS):
        part(repeats, number, kind=str(number))
    assert len(repeats._seen) == KINDS
    assert len(words(log)) == 3 * KINDS


def test_who_says_it_in_other_words_is_told_for_how_many_a_line_stands() -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)
    assert [repeats.times("worker.died", "flusher") for _ in range(10)] == [1, 1, 1] + [0] * 7
    clock.turn(FIRST_S)
    repeats.remind()  # nothing is kept of it that could be said
    assert repeats.times("worker.died", "flusher") == 8


def test_several_threads_count_every_one(log: Lines) -> None:
    clock = ManualClock()
    repeats = Repeats(clock.monotonic)

    def parts() -> None:
        for _ in range(500):
            part(repeats, 7)

    threads = [threading.Thread(target=parts) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.turn(FIRST_S)
    repeats.remind()
    assert f"times={2_000 - SAID}" in words(log)[-1]
