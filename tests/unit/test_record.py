"""One slow query at the door of the backend.

What could go wrong: one value that the backend's database refuses (NUL, an integer of 2^31, a long name, a null where
a number is wanted) makes it refuse the whole body for ever; an empty text is skipped there silently; a queryid loses
its last digits; a time cannot be parsed; a text that is no Unicode kills the thread that reads it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.record import MAX_INTEGER, MAX_NAME_CHARACTERS, Record, Window, to_wire
from tests.fakes.clock import NOON

PLAIN = Record(
    id="abc",
    source="mysql_slow_log",
    sql_text="SELECT 1",
    query_time_s=1.5,
    lock_time_s=0.25,
    rows_sent=3,
    rows_examined=4,
    db="shop",
    user_host="app@10.0.0.1",
    start_time=NOON,
    collected_at=NOON + timedelta(seconds=5),
    fingerprint="f00d",
)
WINDOW = Window(NOON, NOON + timedelta(minutes=5), "normal", -(2**63), 10, 20, 30.5, 40.5)


def wire(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(to_wire(record))
    return found


def test_a_record_has_the_names_that_the_backend_reads() -> None:
    assert wire(PLAIN) == {
        "id": "abc",
        "source": "mysql_slow_log",
        "sql_text": "SELECT 1",
        "query_time": 1.5,
        "lock_time": 0.25,
        "rows_sent": 3,
        "rows_examined": 4,
        "db": "shop",
        "user_host": "app@10.0.0.1",
        "start_time": "2024-05-01T12:00:00+00:00",
        "collected_at": "2024-05-01T12:00:05+00:00",
        "fingerprint": "f00d",
    }


def test_a_window_has_its_own_names() -> None:
    found = wire(replace(PLAIN, window=WINDOW))
    assert {name: found[name] for name in found.keys() - wire(PLAIN).keys()} == {
        "calls": 10,
        "rows": 20,
        "total_exec_time_ms": 30.5,
        "max_exec_time_ms": 40.5,
        "queryid": "-9223372036854775808",
        "window_start": "2024-05-01T12:00:00+00:00",
        "window_end": "2024-05-01T12:05:00+00:00",
        "window_reason": "normal",
    }


def test_the_first_window_has_no_start() -> None:
    assert wire(replace(PLAIN, window=replace(WINDOW, start=None)))["window_start"] is None


def test_a_cut_text_says_so_with_the_digest_of_the_whole() -> None:
    found = wire(replace(PLAIN, text_sha256="d1"))
    assert (found["text_truncated"], found["text_sha256"]) == (True, "d1")
    redacted = wire(replace(PLAIN, text_sha256=""))
    assert (redacted["text_truncated"], "text_sha256" in redacted) == (True, False)
    assert "text_truncated" not in wire(PLAIN)


def test_nul_leaves_as_the_replacement_character() -> None:
    found = wire(replace(PLAIN, sql_text="a\0b\0", db="\0", user_host="u\0"))
    assert (found["sql_text"], found["db"], found["user_host"]) == ("a\ufffdb\ufffd", "\ufffd", "u\ufffd")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**31 - 1, 2**31 - 1),
        (2**31, 2**31 - 1),
        (2**80, 2**31 - 1),
        (-(2**31), -(2**31) + 1),
        (-(2**80), -(2**31) + 1),
        (0, 0),
    ],
)
def test_integers_end_where_those_of_the_backend_end(value: int, expected: int) -> None:
    found = wire(replace(PLAIN, rows_sent=value, rows_examined=value, window=replace(WINDOW, calls=value, rows=value)))
    assert {found[name] for name in ("rows_sent", "rows_examined", "calls", "rows")} == {expected}


@pytest.mark.parametrize("length", [254, 255, 256, 10_000])
def test_names_end_at_255_characters(length: int) -> None:
    found = wire(replace(PLAIN, db="ä" * length, user_host="😀" * length))
    assert {len(found["db"]), len(found["user_host"])} == {min(length, 255)}


def test_an_empty_text_says_why() -> None:
    assert wire(replace(PLAIN, sql_text=""))["sql_text"] == "<text unavailable: empty>"
    found = wire(replace(PLAIN, sql_text="", window=WINDOW))["sql_text"]
    assert found == "<text unavailable: empty> queryid -9223372036854775808"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_none_of_the_backends_business(value: float) -> None:
    window = replace(WINDOW, total_exec_time_ms=value, max_exec_time_ms=value)
    found = wire(replace(PLAIN, query_time_s=value, lock_time_s=value, window=window))
    names = ("query_time", "lock_time", "total_exec_time_ms", "max_exec_time_ms")
    assert {found[name] for name in names} == {0.0}


def test_text_that_is_no_unicode_costs_its_characters_only() -> None:
    assert wire(replace(PLAIN, sql_text="a\udcffb", db="\ud83d\ude00"))["sql_text"] == "a\ufffdb"


_TEXT = st.text(st.characters(), max_size=300)  # with lone surrogates and NUL
_ANY = st.builds(
    Record,
    id=_TEXT,
    source=_TEXT,
    sql_text=_TEXT,
    query_time_s=st.floats(),
    lock_time_s=st.floats(),
    rows_sent=st.integers(),
    rows_examined=st.integers(),
    db=_TEXT,
    user_host=_TEXT,
    start_time=st.datetimes(timezones=st.just(UTC)),
    collected_at=st.datetimes(timezones=st.just(UTC)),
    fingerprint=_TEXT,
    text_sha256=st.none() | _TEXT,
    window=st.none()
    | st.builds(
        Window,
        start=st.none() | st.datetimes(timezones=st.just(UTC)),
        end=st.datetimes(timezones=st.just(UTC)),
        reason=_TEXT,
        queryid=st.integers(-(2**63), 2**63 - 1),
        calls=st.integers(),
        rows=st.integers(),
        total_exec_time_ms=st.floats(),
        max_exec_time_ms=st.floats(),
    ),
)


@given(record=_ANY)
def test_any_record_passes_the_door_of_the_backend(record: Record) -> None:
    found = wire(record)
    assert found["sql_text"]
    assert "\0" not in found["sql_text"] + found["db"] + found["user_host"]
    assert max(len(found["db"]), len(found["user_host"])) <= MAX_NAME_CHARACTERS
    assert all(isinstance(found[name], float | int) for name in ("query_time", "lock_time"))
    integers = [found[name] for name in ("rows_sent", "rows_examined", "calls", "rows") if name in found]
    assert all(abs(value) <= MAX_INTEGER for value in integers)
    assert datetime.fromisoformat(found["start_time"]) == record.start_time
