"""The bytes of a request body: JSON in one gzip member, made once, cut in halves when the backend needs it smaller."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence

import orjson

try:  # several times faster than zlib at the same size; wheels exist for the usual machines only
    from isal.isal_zlib import compressobj as _packer

    _MEMORY = 1  # of 9: 104 KiB instead of 356, and 2 % more to send; what is larger than 128 is given back badly
except ImportError:  # pragma: no cover
    from zlib import compressobj as _packer  # type: ignore[assignment]

    _MEMORY = zlib.DEF_MEM_LEVEL

_HEAD, _COMMA, _TAIL = b'{"queries":[', b",", b"]}"
_LEVEL, _GZIP_MEMBER = 1, 31


class Bulk:
    """The body of a bulk call, packed while its records come: held is only what is packed.

    `records`: how many are in it; `size`: bytes of the body before packing.
    """

    def __init__(self) -> None:
        self.records = 0
        self.size = len(_HEAD) + len(_TAIL)
        self._packer = _packer(_LEVEL, zlib.DEFLATED, _GZIP_MEMBER, _MEMORY)
        self._packed = [self._packer.compress(_HEAD)]

    def size_with(self, record: bytes) -> int:
        """Bytes of the body, before packing, if this record came too."""
        return self.size + len(record) + bool(self.records)

    def add(self, record: bytes) -> None:
        """One more record, a JSON object."""
        self.size = self.size_with(record)
        self._packed.append(self._packer.compress(_COMMA + record if self.records else record))
        self.records += 1

    def packed(self) -> bytes:
        """The whole as one gzip member; nothing can be added after that."""
        return b"".join((*self._packed, self._packer.compress(_TAIL), self._packer.flush()))


def dumps(value: object) -> bytes:
    """The value as JSON; text that is no valid Unicode (a file name in an error, for example) does not stop it."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")


def pack(body: bytes) -> bytes:
    """The body as one gzip member."""
    packer = _packer(_LEVEL, zlib.DEFLATED, _GZIP_MEMBER, _MEMORY)
    return b"".join((packer.compress(body), packer.flush()))


def unpack(packed: bytes) -> bytes:
    """The body of a gzip member. Raises ValueError when it is damaged."""
    if not packed:
        raise ValueError("damaged body: it is empty")
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged body: {error}") from error


def queries(records: Sequence[bytes]) -> bytes:
    """The packed body of a bulk call from records that are JSON objects already."""
    bulk = Bulk()
    for record in records:
        bulk.add(record)
    return bulk.packed()


def halves(packed: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """Two packed bulk bodies with the first floor(n/2) records and the rest, each with its count."""
    records = [orjson.dumps(record) for record in orjson.loads(unpack(packed))["queries"]]
    middle = len(records) // 2
    first, second = records[:middle], records[middle:]
    return (len(first), queries(first)), (len(second), queries(second))
