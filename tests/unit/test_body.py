"""The bytes of a request body.

What could go wrong: a half loses a record, doubles one or changes their order; a number or a text changes on the way;
a damaged body ends in a traceback; what we pack cannot be unpacked by others.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import body

_VALUES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
)
_RECORDS = st.lists(
    st.dictionaries(st.text(max_size=5), _VALUES, max_size=4).map(orjson.dumps), min_size=1, max_size=40
)


def records_of(packed: bytes) -> list[Any]:
    found: list[Any] = orjson.loads(body.unpack(packed))["queries"]
    return found


@given(raw=st.binary(max_size=1_000))
def test_what_was_packed_is_unpacked(raw: bytes) -> None:
    assert body.unpack(body.pack(raw)) == raw


def test_anybody_can_unpack_it() -> None:
    packed = body.pack(b"x" * 100_000)
    assert gzip.decompress(packed) == b"x" * 100_000
    assert len(packed) < 10_000


@given(records=_RECORDS)
def test_a_body_holds_its_records_in_their_order(records: list[bytes]) -> None:
    packed = body.queries(records)
    assert list(orjson.loads(body.unpack(packed))) == ["queries"]
    assert records_of(packed) == [orjson.loads(record) for record in records]


@given(records=_RECORDS.filter(lambda records: len(records) > 1))
def test_halves_hold_every_record_once_and_in_order(records: list[bytes]) -> None:
    (first, first_body), (second, second_body) = body.halves(body.queries(records))
    assert (first, second) == (len(records) // 2, len(records) - len(records) // 2)
    assert (len(records_of(first_body)), len(records_of(second_body))) == (first, second)
    assert records_of(first_body) + records_of(second_body) == [orjson.loads(record) for record in records]


def singles(packed: bytes, count: int) -> Iterator[Any]:
    if count == 1:
        yield from records_of(packed)
        return
    for part, part_body in body.halves(packed):
        yield from singles(part_body, part)


@given(records=_RECORDS)
def test_bisection_to_the_end_gives_every_record_alone(records: list[bytes]) -> None:
    assert list(singles(body.queries(records), len(records))) == [orjson.loads(record) for record in records]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"no gzip",
        body.pack(b"x" * 500)[:-1],
        body.pack(b"x" * 500)[:20],
        body.pack(b"one body")[:10] + b"\xff" + body.pack(b"one body")[11:],
    ],
)
def test_a_damaged_body_is_told(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="damaged body: "):
        body.unpack(damaged)
