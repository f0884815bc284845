"""The bytes of a request body: JSON in one gzip member, made once, cut in halves when the backend needs it smaller."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence

import orjson

try:  # several times faster than zlib at the same size; wheels exist for the usual machines only
    from isal.igzip import compress as _compress
except ImportError:  # pragma: no cover
    from gzip import compress as _compress  # type: ignore[assignment]

_HEAD, _TAIL = b'{"queries":[', b"]}"


def pack(body: bytes) -> bytes:
    """The body as one gzip member."""
    packed: bytes = _compress(body, 1)
    return packed


def unpack(packed: bytes) -> bytes:
    """The body of a gzip member. Raises ValueError when it is damaged."""
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged body: {error}") from error


def queries(records: Sequence[bytes]) -> bytes:
    """The packed body of a bulk call from records that are JSON objects already."""
    return pack(_HEAD + b",".join(records) + _TAIL)


def halves(packed: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """Two packed bulk bodies with the first floor(n/2) records and the rest, each with its count."""
    records = [orjson.dumps(record) for record in orjson.loads(unpack(packed))["queries"]]
    middle = len(records) // 2
    first, second = records[:middle], records[middle:]
    return (len(first), queries(first)), (len(second), queries(second))
