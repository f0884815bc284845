"""What could go wrong: a damaged body ends the rebuild of an outbox instead of being given up; one that is none of ours
is taken for one."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import body
from storage.bodies import describe
from storage.envelope import COMMAND_RESULT, QUERIES


def test_ours_are_known() -> None:
    assert describe(body.queries([b'{"id":"a"}', b'{"id":"b"}'])) == (QUERIES, 2)
    assert describe(body.pack(b'{"command_id":7,"success":true,"result":{}}')) == (COMMAND_RESULT, 1)


@pytest.mark.parametrize("content", [[], None, 7, "queries", {}, {"queries": 7}])
def test_what_is_none_of_ours_is_not(content: object) -> None:
    assert describe(gzip.compress(json.dumps(content).encode())) is None


def test_what_is_too_deep_is_not() -> None:
    assert describe(gzip.compress(b"[" * 100_000)) is None


@given(at=st.integers(0, 200), value=st.integers(0, 255), cut=st.integers(0, 200))
def test_no_damage_ends_more_than_the_body(at: int, value: int, cut: int) -> None:
    whole = bytearray(body.queries([b'{"id":"%d"}' % number for number in range(50)]))
    whole[at % len(whole)] = value
    assert describe(bytes(whole[: max(1, len(whole) - cut)])) in {None, (QUERIES, 50)}
