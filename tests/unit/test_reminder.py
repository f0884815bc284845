"""What could go wrong: it is due at once, never, or as often as it is asked."""

from __future__ import annotations

from agent.reminder import FIRST_S, LONGEST_S, Reminder


def test_it_is_due_after_an_hour_and_then_after_twice_as_long_up_to_six() -> None:
    reminder = Reminder(100.0)
    hours = [hour for hour in range(40) if reminder.is_due(100.0 + hour * FIRST_S)]
    assert hours == [1, 3, 7, 13, 19, 25, 31, 37]
    assert LONGEST_S == 6 * FIRST_S


def test_the_wait_begins_when_somebody_asked() -> None:
    reminder = Reminder(0.0)
    assert reminder.is_due(10 * FIRST_S)
    assert not reminder.is_due(12 * FIRST_S - 1)
    assert reminder.is_due(12 * FIRST_S)
