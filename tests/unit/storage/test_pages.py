"""Rows are read from pages without SQLite, from pages that nobody can trust.

What could go wrong: a value, a row number or a size is read otherwise than SQLite wrote it; what stands in pages of
overflow is cut or mixed up; a row of a damaged page is missed, or one that was never written is made up; bytes of
nonsense raise something, or are read for ever.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.images import Images
from storage.pages import INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF, Row, next_page, rows, varint
from storage.schema import CREATE_V1

PAGE_BYTES = 4_096
VALUES: tuple[tuple[object, ...], ...] = (
    (None, 0, 1, -1, 127, -128, 128, 32_767, -32_769),
    (2**23 - 1, -(2**23), 2**31, -(2**31) - 1, 2**47, -(2**47), 2**63 - 1, -(2**63), 2),
    (0.5, -1e300, float("inf"), "", "text", "ä€😀", b"", b"\0\xff", "a\0b"),
)


def database(path: Path, *statements: tuple[str, tuple[object, ...]]) -> bytes:
    """A file made by SQLite itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute(f"PRAGMA page_size={PAGE_BYTES}")
        for statement, values in statements:
            sql.execute(statement, values)
    return path.read_bytes()


def all_rows(content: bytes, kinds: set[int] | None = None) -> list[Row]:
    images = Images(content, PAGE_BYTES)
    found: list[Row] = []
    for number in images.numbers:
        page = images.versions(number)[0]
        if kinds is None or page[100 if number == 1 else 0] in kinds:
            found += rows(page, first=number == 1, overflow=images.overflow)
    return found


# -- what SQLite wrote -----------------------------------------------------------------------------------------------


def test_every_kind_of_value_is_what_sqlite_wrote(tmp_path: Path) -> None:
    columns = ", ".join(f"c{number}" for number in range(9))
    content = database(
        tmp_path / "db",
        (f"CREATE TABLE t ({columns})", ()),
        *((f"INSERT INTO t VALUES ({', '.join('?' * 9)})", values) for values in VALUES),
    )
    found = [row for row in all_rows(content, {TABLE_LEAF}) if len(row.values) == 9]
    assert found == [Row(number, values) for number, values in enumerate(VALUES, 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [-(2**63), -1, 0, 1, 127, 128, 16_384, 2**32, 2**56 - 1, 2**56, 2**63 - 1])
def test_every_row_number_is_what_sqlite_wrote(tmp_path: Path, number: int) -> None:
    insert = ("INSERT INTO t (rowid, a) VALUES (?, 'x')", (number,))
    (row,) = all_rows(database(tmp_path / "db", ("CREATE TABLE t (a)", ()), insert))[1:]
    assert row == Row(number % 2**64, ("x",))


SIZES = (0, 1, 480, 4_050, 4_055, 4_060, 4_061, 4_062, 4_080, 4_550, 8_140, 8_152, 8_160, 40_000, 300_000)


def test_rows_of_every_size_are_whole_also_in_pages_of_overflow(tmp_path: Path) -> None:
    rng = random.Random(1)
    bodies = [rng.randbytes(size) for size in SIZES]
    inserts = [("INSERT INTO t VALUES (?, ?)", (number, body)) for number, body in enumerate(bodies)]
    content = database(tmp_path / "db", ("CREATE TABLE t (a, b)", ()), *inserts)
    found = [row.values for row in all_rows(content, {TABLE_LEAF}) if len(row.values) == 2]
    assert sorted(found, key=str) == sorted(enumerate(bodies), key=str)


def test_rows_of_indexes_are_read_too_inner_and_outer_ones(tmp_path: Path) -> None:
    rng = random.Random(2)
    keys = [f"{number:05}" + rng.randbytes(rng.choice((10, 1_000, 3_000))).hex() for number in range(60)]
    inserts = [("INSERT INTO t VALUES (?, ?)", (key, b"%d" % number)) for number, key in enumerate(keys)]
    content = database(tmp_path / "db", ("CREATE TABLE t (a TEXT PRIMARY KEY, b) WITHOUT ROWID", ()), *inserts)
    found = all_rows(content, {INDEX_LEAF, INDEX_INTERIOR})
    assert {row.number for row in found} == {0}
    assert sorted(row.values for row in found) == [(key, b"%d" % number) for number, key in enumerate(keys)]
    assert all_rows(content, {INDEX_INTERIOR})  # or this would show half of it


# -- damaged pages ---------------------------------------------------------------------------------------------------


def envelope_page(tmp_path: Path) -> tuple[bytes, list[Row]]:
    """A leaf of envelopes as format 1 wrote them."""
    inserts = []
    for number in range(1, 8):
        body = random.Random(number).randbytes(200)
        values = (
            number,
            "queries",
            number,
            f"{'ab' * 8}-{number}-{'0' * 16}",
            number,
            body,
            hashlib.sha256(body).digest(),
        )
        inserts.append(("INSERT INTO envelope VALUES (?, ?, ?, ?, ?, ?, ?, 1.5)", values))
    content = database(tmp_path / "db", (CREATE_V1[0], ()), *inserts)
    pages = [content[at : at + PAGE_BYTES] for at in range(PAGE_BYTES, len(content), PAGE_BYTES)]
    (page,) = (page for page in pages if page[0] == TABLE_LEAF and b"queries" in page)
    return page, list(rows(page, first=False, overflow=lambda _first, _wanted: None))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda page: b"\0" * 8 + page[8:],
        lambda page: b"\xff" * 64 + page[64:],
        lambda page: page[:3] + b"\xff\xff" + page[5:],  # the number of cells
        lambda page: page[:8] + b"\x0f\xff" + page[10:],  # where the first of them is
    ],
)
def test_where_the_directory_of_a_page_is_damaged_its_rows_are_found_all_the_same(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    page, expected = envelope_page(tmp_path)
    assert len(expected) == 7
    damaged = spoil(page)
    assert damaged != page
    found = list(rows(damaged, first=False, overflow=lambda _first, _wanted: None))
    assert [row for row in expected if row not in found] == []
    assert {row.number for row in found} == set(range(1, 8))


def test_a_row_whose_overflow_is_gone_is_left_out_and_its_neighbours_are_not(tmp_path: Path) -> None:
    inserts = [("INSERT INTO t VALUES (?, ?)", (number, b"x" * size)) for number, size in enumerate((10, 9_000, 20))]
    content = database(tmp_path / "db", ("CREATE TABLE t (a, b)", ()), *inserts)
    page = next(content[at : at + PAGE_BYTES] for at in (PAGE_BYTES,) if content[at] == TABLE_LEAF)
    found = list(rows(page, first=False, overflow=lambda _first, _wanted: None))
    assert [row.values[0] for row in found] == [0, 2]


def nothing(_first: int, _wanted: int) -> bytes | None:
    return None


def plenty(_first: int, wanted: int) -> bytes | None:
    return bytes(min(wanted, 100_000))


HEADS = st.sampled_from([TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR, 0x05, 0x00, 0xFF]).map(lambda kind: bytes([kind]))


@given(HEADS, st.binary(max_size=600), st.booleans(), st.sampled_from([nothing, plenty]))
@example(b"", b"", True, nothing)
@example(b"\x0d", b"\0\0\xff\xff\0\0\0\0\x05", False, plenty)
def test_bytes_of_nonsense_raise_nothing(
    head: bytes, rest: bytes, first: bool, overflow: Callable[[int, int], bytes | None]
) -> None:
    page = (b"\0" * 100 if first else b"") + head + rest
    for row in rows(page, first=first, overflow=overflow):
        assert row.values


@given(st.integers(0, 2**32), st.integers(1, 400))
def test_a_real_page_with_bytes_of_nonsense_in_it_raises_nothing(seed: int, hits: int) -> None:
    rng = random.Random(seed)
    page = bytearray(random.Random(0).randbytes(PAGE_BYTES))
    page[:8] = bytes((TABLE_LEAF, 0, 0, 0, 50, 0, 0, 0))
    for _ in range(hits):
        page[rng.randrange(len(page))] = rng.randrange(256)
    found = list(rows(bytes(page), first=False, overflow=plenty))
    assert len(found) <= PAGE_BYTES


@given(st.binary(min_size=1, max_size=12))
def test_a_number_of_variable_length_is_at_most_nine_bytes(content: bytes) -> None:
    padded = content + bytes(9)
    value, end = varint(padded, 0)
    assert 0 <= value < 2**64
    assert 1 <= end <= 9


def test_numbers_of_variable_length_are_read_as_they_are_defined() -> None:
    assert varint(b"\x7f", 0) == (127, 1)
    assert varint(b"\x81\x00", 0) == (128, 2)
    assert varint(b"..\xff\xff\xff\xff\xff\xff\xff\xff\xff", 2) == (2**64 - 1, 11)


def test_a_page_of_overflow_names_the_next_one() -> None:
    assert next_page(b"\0\0\1\2rest") == 258
