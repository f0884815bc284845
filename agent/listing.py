"""Envelopes as a person reads them, and as JSON. Reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import orjson

from agent import body
from agent.overview import duration
from storage.envelope import Envelope
from storage.plain import plain, plain_json
from storage.reader import Head

_TITLES = ("seq", "topic", "records", "bytes", "waits for", "")


def lines(heads: Sequence[Head], now: datetime) -> Iterator[str]:
    """A table, one line for each."""
    rows = [_TITLES, *(_row(head, now) for head in heads)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    for row in rows:
        cells = (text.ljust(width) if column in {1, 5} else text.rjust(width)
                 for column, (text, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        yield "  ".join(cells).rstrip()


def as_json(head: Head) -> dict[str, object]:
    """One envelope without its body."""
    return {
        "seq": head.seq,
        "topic": head.topic,
        "key": head.key,
        "records": head.records,
        "bytes": head.bytes,
        "created_at": _moment(head).isoformat(),
        "may_have_arrived": bool(head.doubtful),
        "parked": None if head.parked is None else plain(head.parked),
    }


def page(head: Head, envelope: Envelope) -> Iterator[str]:
    """What is known of it, and then the body that would leave, indented."""
    yield from (f"{name}: {value}" for name, value in as_json(head).items() if value is not None)
    yield plain_json(orjson.dumps(orjson.loads(body.unpack(envelope.body)), option=orjson.OPT_INDENT_2).decode())


def _row(head: Head, now: datetime) -> tuple[str, ...]:
    numbers = (f"{head.records:,}", f"{head.bytes:,}", duration((now - _moment(head)).total_seconds()))
    note = plain(head.parked or "") or ("may have arrived already" if head.doubtful else "")
    return (str(head.seq), head.topic, *numbers, note)


def _moment(head: Head) -> datetime:
    return datetime.fromtimestamp(head.created_at, UTC)
