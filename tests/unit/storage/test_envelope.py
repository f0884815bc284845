"""The shapes that go into an outbox and come out of it.

What could go wrong: a changed body passes for the stored one; books that do not balance pass for good ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from storage.envelope import Envelope, Tally

BODY = b"a body"
ENVELOPE = Envelope(1, "queries", 1, "key", 2, BODY, hashlib.sha256(BODY).digest(), 0.0)


def test_a_stored_body_is_intact() -> None:
    assert ENVELOPE.is_intact


@pytest.mark.parametrize("body", [b"a bodz", b"", BODY + b"\0"])
def test_a_changed_body_is_not(body: bytes) -> None:
    assert not replace(ENVELOPE, body=body).is_intact


def test_books_balance_when_every_record_is_somewhere() -> None:
    assert Tally(captured=15, delivered=1, pending=2, parked=3, discarded=4, lost=5).balances


@pytest.mark.parametrize("column", ["captured", "delivered", "pending", "parked", "discarded", "lost"])
def test_books_with_one_record_more_in_any_column_do_not(column: str) -> None:
    books = Tally(captured=15, delivered=1, pending=2, parked=3, discarded=4, lost=5)
    assert not replace(books, **{column: getattr(books, column) + 1}).balances
