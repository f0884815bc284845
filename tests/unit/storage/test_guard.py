"""The checksum of a row.

What could go wrong: two different rows have the same one, because a value moves from one column into the next, or one
type is taken for another, or the table does not count; the same row has another one tomorrow.
"""

from __future__ import annotations

import math

from hypothesis import assume, example, given
from hypothesis import strategies as st

from storage.guard import GUARD_BYTES, Value, guard

VALUES: st.SearchStrategy[Value] = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=9), st.binary(max_size=9)
)
ROWS = st.lists(VALUES, max_size=5).map(tuple)


def exactly(row: tuple[Value, ...]) -> list[tuple[str, object]]:
    """Equal only when the rows are stored the same: 1, 1.0 and True are equal to Python, 0.0 and -0.0 too."""
    return [
        (type(value).__name__, (value, math.copysign(1, value)) if isinstance(value, float) else value) for value in row
    ]


@given(ROWS, ROWS)
@example(("ab", "c"), ("a", "bc"))
@example(("a",), (b"a",))
@example((1,), (1.0,))
@example((1,), ("1",))
@example((None,), ("n",))
@example((None,), ())
@example(("",), ())
@example(("1:s", ""), ("", "1:s"))
@example((0.0,), (-0.0,))
def test_different_rows_have_different_checksums(one: tuple[Value, ...], other: tuple[Value, ...]) -> None:
    assume(exactly(one) != exactly(other))
    assert guard("note", *one) != guard("note", *other)


@given(ROWS)
def test_the_same_row_has_the_same_one_but_not_in_another_table(row: tuple[Value, ...]) -> None:
    assert guard("note", *row) == guard("note", *row)
    assert guard("note", *row) != guard("gap", *row)
    assert len(guard("note", *row)) == GUARD_BYTES


def test_it_is_the_same_in_every_version_that_wrote_it() -> None:
    row = ("a", b"\xff", 1.5, None, -(2**63))
    assert guard("note", *row).hex() == "41b5dacb87426e73"


def test_a_text_that_is_no_valid_one_has_one_too() -> None:
    assert guard("note", "\ud800") != guard("note", "?")
