"""What a person decides of single envelopes: to offer again what was kept aside, or to give one up. Within the caller's
transaction, with the books."""

from __future__ import annotations

import sqlite3

from storage import books, envelopes
from storage.envelope import PARTIAL, Envelope
from storage.errors import EnvelopeUnknown, OutboxDamaged, PartlyDelivered


def retry(sql: sqlite3.Connection, seq: int) -> Envelope:
    """Lets what was kept aside wait again, with the key that it had.

    Raises EnvelopeUnknown, PartlyDelivered when the backend has a part of it, OutboxDamaged when its body is damaged.
    """
    found = envelopes.aside(sql, seq)
    if found is None:
        raise EnvelopeUnknown(f"nothing is parked under the number {seq}")
    envelope, reason = found
    if reason.startswith(PARTIAL):
        raise PartlyDelivered(f"envelope {seq}")
    if not envelope.is_intact:
        raise OutboxDamaged(f"the body of envelope {seq} is not what was stored")
    envelopes.forget_aside(sql, seq)
    envelopes.store(sql, envelope)
    gained = {"pending": envelope.records, "pending_bytes": len(envelope.body), "envelopes": 1}
    books.change(sql, envelope.topic, parked=-envelope.records, **gained)
    return envelope


def discard(sql: sqlite3.Connection, seq: int) -> int:
    """Gives up what waits or was kept aside under that number; the books count it as discarded.

    Gives the number of records. Raises EnvelopeUnknown.
    """
    waiting = envelopes.by_seq(sql, seq)
    if waiting is not None:
        envelopes.remove(sql, waiting)
        gone = {"pending": -waiting.records, "pending_bytes": -len(waiting.body), "envelopes": -1}
        books.change(sql, waiting.topic, discarded=waiting.records, **gone)
        return waiting.records
    found = envelopes.aside(sql, seq)
    if found is None:
        raise EnvelopeUnknown(f"there is none with the number {seq}")
    envelope, _ = found
    envelopes.forget_aside(sql, seq)
    books.change(sql, envelope.topic, discarded=envelope.records, parked=-envelope.records)
    return envelope.records
