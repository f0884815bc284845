"""What could go wrong: an answer of 16 MB unfolds into gigabytes, or takes minutes to be looked at; one that is as deep
as the parser allows ends whatever prints or compares it; a long honest answer is refused because of the commas in its
texts; what is no JSON ends in another error than ValueError.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.foreign_json import MAX_DEPTH, MAX_PARTS, is_deeper, loads

MIB = 1_048_576
HOSTILE = {
    "objects": b"[" + b"{}," * 5_000_000 + b"1]",
    "lists": b"[" + b"[]," * 5_000_000 + b"1]",
    "texts": b"[" + b'"",' * 5_000_000 + b"1]",
    "keys": b"{" + b",".join(b'"%d":1' % number for number in range(1_000_000)) + b"}",
    "numbers": b"[" + b"1," * 8_000_000 + b"1]",
    "behind an open text": b'["' + b'\\"' * 1_000_000 + b'",' + b"{}," * 4_000_000 + b"1]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_that_would_unfold_is_refused_before_it_does(name: str) -> None:
    text = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="parts"):
            loads(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB


def test_the_parser_alone_would_take_ten_times_as_much() -> None:
    """The control: what 16 MB of empty objects would be."""
    text = b"[" + b"{}," * 100_000 + b"1]"
    tracemalloc.start()
    try:
        orjson.loads(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak > 10 * len(text)


@pytest.mark.parametrize("text", [b'["' + b"," * 15_000_000 + b'"]', b'{"a":"' + b'\\"[{,' * 3_000_000 + b'"}'])
def test_what_stands_in_a_text_is_no_part(text: bytes) -> None:
    assert loads(text) == orjson.loads(text)


@pytest.mark.parametrize(
    "text", [b'"' + b'\\"' * 4_000_000, b'"' * 2_000_001, b"\\" * 8_000_000, b'"\\' * 4_000_000, b'"a\\']
)
def test_what_is_never_closed_is_looked_at_once(text: bytes) -> None:
    """With a pattern that goes back this takes hours, and the test its time limit."""
    with pytest.raises(ValueError):
        loads(text)


def test_as_many_parts_as_are_allowed_are_allowed() -> None:
    assert loads(b"[1,1,1]", parts=3) == [1, 1, 1]
    with pytest.raises(ValueError):
        loads(b"[1,1,1,1]", parts=3)
    assert len(loads(b"[" + b"1," * (MAX_PARTS - 2) + b"1]")) == MAX_PARTS - 1


@pytest.mark.parametrize("levels", [1, 2, MAX_DEPTH])
def test_depth_is_counted(levels: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        inner = b"1" if opening != b"[" else b""
        deep = orjson.loads(opening * levels + inner + closing * levels)
        assert (is_deeper(deep, levels), is_deeper(deep, levels - 1)) == (False, True)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1_000, 1_024, 1_025, 100_000])
def test_what_is_too_deep_is_no_json(levels: int) -> None:
    with pytest.raises(ValueError):
        loads(b"[" * levels + b"]" * levels)


def test_as_deep_as_the_parser_allows_it_could_not_be_shown() -> None:
    """The control: why there is a limit of ours below that of the parser."""
    deep = orjson.loads(b"[" * 1_000 + b"]" * 1_000)
    with pytest.raises(RecursionError):
        str(deep)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"NaN", b"Infinity", b"1e400", b'"\\ud800"', b"\xef\xbb\xbf{}", b"{}{}", b"9" * 5_000, b"'a'"],
)
def test_what_is_no_json_is_one_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


def test_numbers_beyond_64_bit_are_no_integers_and_the_last_of_equal_keys_counts() -> None:
    assert [type(each) for each in loads(b"[18446744073709551615, 18446744073709551616, -9223372036854775809]")] == [
        int,
        float,
        float,
    ]
    assert loads(b'{"a": 1, "a": 2}') == {"a": 2}


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=30,
)


@given(value=_JSON)
def test_honest_json_means_what_it_means(value: object) -> None:
    assert loads(json.dumps(value).encode(), parts=1_000) == value


@given(text=st.binary(max_size=60) | st.text('"\\[]{},:1a ', max_size=60).map(str.encode), parts=st.integers(0, 5))
def test_any_bytes_are_json_or_a_value_error(text: bytes, parts: int) -> None:
    try:
        found = loads(text, parts=parts)
    except ValueError:
        return
    assert not is_deeper(found, MAX_DEPTH)
