"""What could go wrong: the count of what came sees no loss and no double, excuses one that nothing explains, or blames
the agent for one that no agent can avoid.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.reckoning import Count, Effect, Exchange, count, may_have_come_twice

STORED, RECOGNISED, NONE = Effect.STORED, Effect.RECOGNISED, Effect.NONE


def sent(key: str, *names: str, life: int = 0, effect: Effect = STORED, told: bool = True, calls: int = 1) -> Exchange:
    records = tuple({"id": name, "sql_text": name[0], "calls": calls} for name in names)
    return Exchange(life, key, "fine", records, effect, told)


def reckon(executions: dict[str, int], *exchanges: Exchange, honours_keys: bool = False) -> Count:
    return count(Counter(executions), exchanges, honours_keys=honours_keys)


def test_what_came_once_is_neither_lost_nor_doubled() -> None:
    once = (sent("k1", "a1", "a2", "b1"), sent("k2", "a3"), sent("k3", effect=NONE))
    assert reckon({"a": 3, "b": 1}, *once) == Count(4, lost=0, doubled=0, unexcused=0)
    assert may_have_come_twice(once) == Counter()


def test_what_never_came_is_lost_and_another_text_does_not_replace_it() -> None:
    assert reckon({"a": 3, "b": 1}, sent("k1", "a1", "a2", "c1")) == Count(4, lost=2, doubled=0, unexcused=0)


def test_a_record_stands_for_as_many_executions_as_it_says() -> None:
    assert reckon({"a": 7}, sent("k1", "a1", calls=5), sent("k2", "a2")) == Count(7, lost=1, doubled=0, unexcused=0)


def test_executions_in_two_records_are_doubled_and_nothing_excuses_them() -> None:
    lost_answer = sent("k1", "a1", calls=5, told=False)
    assert reckon({"a": 7}, lost_answer, sent("k2", "a2", calls=4)) == Count(7, lost=0, doubled=2, unexcused=2)


@pytest.mark.parametrize(
    ("first", "excused"),
    [
        (sent("k1", "a1", told=False), True),  # the answer did not go out whole
        (sent("k1", "a1", life=0), True),  # it did, and then the process was killed
        (sent("k1", "a1", life=1), False),  # the same process asked again although it was told
    ],
)
def test_only_a_lost_answer_excuses_that_an_envelope_comes_again(first: Exchange, excused: bool) -> None:
    again, later = sent("k1", "a1", life=1), sent("k2", "b1", life=1)
    found = reckon({"a": 1, "b": 1}, first, again, later)
    assert found == Count(2, lost=0, doubled=1, unexcused=0 if excused else 1)
    assert may_have_come_twice([first, again, later]) == Counter({"a1": 1} if excused else {})


def test_a_record_in_a_second_envelope_is_excused_by_nothing() -> None:
    exchanges = (sent("k1", "a1", told=False), sent("k1", "a1"), sent("k2", "a1"), sent("k3", "b1"))
    assert reckon({"a": 1, "b": 1}, *exchanges) == Count(2, lost=0, doubled=2, unexcused=1)


def test_the_halves_of_an_envelope_belong_to_it() -> None:
    exchanges = (sent("k1", "a1", "a2", told=False), sent("k1.0", "a1"), sent("k1.1.0", "a2"), sent("k2", "b1"))
    assert reckon({"a": 2, "b": 1}, *exchanges) == Count(3, lost=0, doubled=2, unexcused=0)


def test_each_lost_answer_excuses_one_repetition() -> None:
    lost, heard = sent("k1", "a1", told=False), sent("k1", "a1")
    later = sent("k2", "b1")
    assert reckon({"a": 1, "b": 1}, lost, lost, heard, later).unexcused == 0
    assert reckon({"a": 1, "b": 1}, lost, heard, heard, later) == Count(2, lost=0, doubled=2, unexcused=1)


def test_a_request_that_is_carried_out_after_its_process_was_killed_excuses_the_one_before() -> None:
    hung, again = sent("k1", "a1", life=0, told=False), sent("k1", "a1", life=1)
    assert reckon({"a": 1, "b": 1}, hung, again, sent("k2", "b1", life=1)).unexcused == 0


def test_a_key_that_is_recognised_stores_nothing_but_shows_what_might_have_come_twice() -> None:
    lost, again = sent("k1", "a1", "b1", told=False), sent("k1", "a1", "b1", effect=RECOGNISED)
    assert reckon({"a": 1, "b": 1}, lost, again, honours_keys=True) == Count(2, lost=0, doubled=0, unexcused=0)
    assert may_have_come_twice([lost, again]) == Counter(a1=1, b1=1)


def test_where_keys_are_honoured_a_lost_answer_is_no_excuse() -> None:
    exchanges = (sent("k1", "a1", told=False), sent("k1", "a1"))
    assert reckon({"a": 1}, *exchanges, honours_keys=True) == Count(1, lost=0, doubled=1, unexcused=1)


def test_a_request_without_effect_excuses_nothing() -> None:
    exchanges = (sent("k1", "a1"), sent("k1", "a1", effect=NONE, told=False), sent("k1", "a1"), sent("k2", "b1"))
    assert reckon({"a": 1, "b": 1}, *exchanges) == Count(2, lost=0, doubled=1, unexcused=1)
