"""The records of envelopes as a table for programs: .parquet, with the package pyarrow (extra `export`)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from storage.errors import ParcelUnwritable
from storage.parcel import aside
from storage.table import Envelopes, Row, rows

ROWS_A_GROUP = 10_000
_TEXT = "string"
_KINDS = {bool: "bool_", int: "int64", float: "float64"}


def write_parquet(path: Path, envelopes: Envelopes) -> int:
    """Writes the table; gives its rows. Raises ParcelUnwritable, and what `envelopes` raises; then there is none."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise ParcelUnwritable(f"{path} (it needs the package pyarrow: pip install 'dbpower-agent[export]')") from None
    kinds = _columns(rows(envelopes()))
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in kinds.items()])
    count, remaining = 0, rows(envelopes())
    with aside(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as table:
        while group := [_fitted(row, kinds) for row in islice(remaining, ROWS_A_GROUP)]:
            table.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _columns(found: Iterator[Row]) -> dict[str, str]:
    """The type of each column: what its values are; text where they are of several kinds."""
    seen: dict[str, set[str]] = {}
    for row in found:
        for name, value in row.items():
            seen.setdefault(name, set()).update(() if value is None else (_KINDS.get(type(value), _TEXT),))
    return {name: _common(kinds) for name, kinds in seen.items()}


def _common(kinds: set[str]) -> str:
    if kinds == {"int64", "float64"}:
        return "float64"
    return kinds.pop() if len(kinds) == 1 else _TEXT


def _fitted(row: Row, kinds: dict[str, str]) -> dict[str, Any]:
    return {name: _text(value) if kinds[name] == _TEXT else value for name, value in row.items()}


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
