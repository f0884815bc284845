"""Reads the rows that stand in one page of a SQLite file. Pure: bytes in, rows out; trusts nothing it reads.

SQLite itself gives up a table when one of its pages is damaged. The format: sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from storage.guard import Value

TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_TABLE_INTERIOR = 0x05
_BTREE = frozenset({TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR, _TABLE_INTERIOR})
_HEADER_BYTES = {TABLE_LEAF: 8, INDEX_LEAF: 8, INDEX_INTERIOR: 12}
_FILE_HEADER_BYTES = 100
_MAX_PAYLOAD = 512 * 1_048_576
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL, _ZERO, _ONE, _BLOB, _TEXT = 7, 8, 9, 12, 13

# How the head of an envelope's or a parked row's record looks, wherever it stands: its own length, NULL for the row
# number, a few short columns, and the 32 bytes of a sha256 among them. Used where a page's own directory is damaged.
_ROW_HEAD = re.compile(rb"[\x09-\x1e]\x00[\x0d-\x7f][\x01-\x7f\x81-\x84][\x00-\x7f\x81-\x84]", re.DOTALL)

Overflow = Callable[[int, int], bytes | None]  # first page of a chain, bytes wanted -> the bytes


class _DamagedError(Exception):
    """What stands there makes no sense."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in a page. `number`: its row number; 0 in an index. `values`: NULL for the row number."""

    number: int
    values: tuple[Value, ...]


def rows(page: bytes, *, first: bool, overflow: Overflow) -> Iterator[Row]:
    """The rows of a page that holds rows; `first`: it is page 1, whose head is the file's.

    Where its directory of cells makes no sense, the rows are looked for everywhere in the page.
    """
    start = _FILE_HEADER_BYTES if first else 0
    kind = page[start] if len(page) > start else 0
    whole = kind in _BTREE
    if kind in _HEADER_BYTES and len(page) >= start + _HEADER_BYTES[kind]:
        for offset in _cells(page, start, _HEADER_BYTES[kind]):
            try:
                yield _cell(page, offset, kind, overflow)
            except _DamagedError:
                whole = False
        whole = whole and _has_room_for_its_cells(page, start, _HEADER_BYTES[kind])
    if not whole:
        yield from _hidden(page, overflow)


def next_page(page: bytes) -> int:
    """The next page of the chain that this page of overflow belongs to; 0: none."""
    return int(struct.unpack_from(">I", page)[0])


def _has_room_for_its_cells(page: bytes, start: int, header: int) -> bool:
    (count,) = struct.unpack_from(">H", page, start + 3)
    return bool(start + header + 2 * count <= len(page))


def _cells(page: bytes, start: int, header: int) -> Iterator[int]:
    (count,) = struct.unpack_from(">H", page, start + 3)
    for at in range(start + header, min(start + header + 2 * count, len(page) - 1), 2):
        yield struct.unpack_from(">H", page, at)[0]


def _cell(page: bytes, offset: int, kind: int, overflow: Overflow) -> Row:
    at = offset + (4 if kind == INDEX_INTERIOR else 0)
    size, at = varint(page, at)
    number = 0
    if kind == TABLE_LEAF:
        number, at = varint(page, at)
    return Row(number, _record(_payload(page, at, size, kind, overflow)))


def _payload(page: bytes, at: int, size: int, kind: int, overflow: Overflow) -> bytes:
    if not 0 < size <= _MAX_PAYLOAD:
        raise _DamagedError
    local = _local_bytes(size, len(page), kind)
    found = page[at : at + local]
    if local < size:
        if at + local + 4 > len(page):
            raise _DamagedError
        (first,) = struct.unpack_from(">I", page, at + local)
        rest = overflow(first, size - local)
        if rest is None:
            raise _DamagedError
        found += rest
    if len(found) != size:
        raise _DamagedError
    return found


def _local_bytes(size: int, usable: int, kind: int) -> int:
    """So much of a payload stands in the page itself; the rest in a chain of overflow pages."""
    most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    fitting = least + (size - least) % (usable - 4)
    return fitting if fitting <= most else least


def _hidden(page: bytes, overflow: Overflow) -> Iterator[Row]:
    for found in _ROW_HEAD.finditer(page):
        at = found.start()
        try:
            size = _record_bytes(page, at)
            number = _number_before(page, at, size)
            yield Row(number, _record(_payload(page, at, size, TABLE_LEAF, overflow)))
        except _DamagedError:
            continue


def _number_before(page: bytes, at: int, size: int) -> int:
    """The row number that stands before a record, behind the record's size."""
    for length in range(1, 10):
        number, end = varint(page, at - length) if at >= length else (0, -1)
        if end != at:
            continue
        for size_length in range(1, 6):
            start = at - length - size_length
            if start >= 0 and varint(page, start) == (size, at - length):
                return number
    raise _DamagedError


def _types(payload: bytes, at: int) -> tuple[list[int], int]:
    """The types of a record's columns, and where its head ends."""
    length, here = varint(payload, at)
    end = at + length
    types: list[int] = []
    while here < end:
        kind, here = varint(payload, here)
        types.append(kind)
    if here != end or not types:
        raise _DamagedError
    return types, end


def _record_bytes(page: bytes, at: int) -> int:
    types, end = _types(page, at)
    return end - at + sum(_width(kind) for kind in types)


def _width(kind: int) -> int:
    if kind in _INTEGER_BYTES:
        return _INTEGER_BYTES[kind]
    if kind == _REAL:
        return 8
    if kind in {0, _ZERO, _ONE}:
        return 0
    if kind >= _BLOB:
        return (kind - _BLOB) // 2
    raise _DamagedError


def _record(payload: bytes) -> tuple[Value, ...]:
    types, at = _types(payload, 0)
    values: list[Value] = []
    for kind in types:
        width = _width(kind)
        if at + width > len(payload):
            raise _DamagedError
        values.append(_value(kind, payload[at : at + width]))
        at += width
    return tuple(values)


def _value(kind: int, content: bytes) -> Value:
    if kind == 0:
        return None
    if kind in _INTEGER_BYTES:
        return int.from_bytes(content, "big", signed=True)
    if kind == _REAL:
        return float(struct.unpack(">d", content)[0])
    if kind in {_ZERO, _ONE}:
        return kind - _ZERO
    if kind % 2 == 0:
        return content
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _DamagedError from error


def varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends. Raises nothing that is not caught here: beyond the end it is damage."""
    value = 0
    for length in range(8):
        if not 0 <= at + length < len(content):
            raise _DamagedError
        byte = content[at + length]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + length + 1
    if at + 8 >= len(content):
        raise _DamagedError
    return value << 8 | content[at + 8], at + 9
