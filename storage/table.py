"""The records of envelopes as a table for people, one row each: .csv. Standard library only."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from storage.envelope import QUERIES, Envelope
from storage.parcel import aside

Envelopes = Callable[[], Iterable[Envelope]]  # may be asked twice: once for the columns, once for the rows
Row = dict[str, Any]


def rows(envelopes: Iterable[Envelope]) -> Iterator[Row]:
    """Each slow query, with the key and number of the envelope that it is in."""
    for envelope in envelopes:
        if envelope.topic == QUERIES:
            of_it = {"envelope": envelope.key, "seq": envelope.seq}
            yield from ({**of_it, **record} for record in json.loads(gzip.decompress(envelope.body))["queries"])


def write_csv(path: Path, envelopes: Envelopes) -> int:
    """Writes the table; gives its rows. Raises ParcelUnwritable, and what `envelopes` raises; then there is none."""
    names = list(dict.fromkeys(name for row in rows(envelopes()) for name in row))
    count = 0
    with aside(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        table = csv.DictWriter(text, names)
        table.writeheader()
        for row in rows(envelopes()):
            table.writerow({name: _safe(value) for name, value in row.items()})
            count += 1
        text.detach()  # written out; whoever opened the file closes it
    return count


def _safe(value: object) -> object:
    # A spreadsheet takes a text that begins like this for a formula and carries it out.
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value
