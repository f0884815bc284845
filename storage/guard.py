"""The checksum that every row carries: SQLite notices little of what a disk does to its pages. Pure: no database."""

from __future__ import annotations

import hashlib
import struct

GUARD_BYTES = 8

Value = int | float | str | bytes | None


def guard(table: str, *values: Value) -> bytes:
    """The checksum of one row of `table`; the order of the values is that of the columns."""
    digest = hashlib.sha256(table.encode())
    for value in values:
        encoded = _encoded(value)
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.digest()[:GUARD_BYTES]


def _encoded(value: Value) -> bytes:
    # A tag before each, so that no value of one type looks like one of another.
    if value is None:
        return b"n"
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, float):
        return b"f" + struct.pack(">d", value)
    return b"i%d" % value
