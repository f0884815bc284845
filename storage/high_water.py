"""The mark outside the database: how far the outbox had come, so that a file that went back or lost its end is noticed.

Two slots, written in place and in turns: a write that is torn costs one step. Not synced: it is
behind the database after a power cut, never ahead of it, and being behind says nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from storage import envelopes
from storage.books import FIELDS
from storage.envelope import Tally
from storage.notes import ANY
from storage.schema import VERSION, installation_of

FILE_NAME = "outbox.mark"
_SLOT_BYTES, _SLOTS = 2_048, 2
_DIGEST_CHARACTERS = 32

_LOW = "SELECT min(seq) FROM envelope"
_FIRST = "SELECT topic, (SELECT min(place) FROM envelope WHERE envelope.topic = tally.topic) FROM tally"
_BOOKMARKS = "SELECT name, at_seq FROM bookmark"


@dataclass(frozen=True, slots=True)
class HighWater:
    """What the mark says. `high`: the highest sequence number ever given; `low`: everything below it is settled.

    `first`: the place in the order of sending where the first of each topic waits; what stood before is settled.
    `offered`: the envelope whose request may be on its way, 0 when none is. `books`: the numbers of each topic, in the
    order of `books.FIELDS`; `bookmarks`: the highest sequence number there was when each bookmark was last saved.
    """

    format: int
    installation: str
    high: int = 0
    low: int = 0
    offered: int = 0
    books: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bookmarks: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, int] = field(default_factory=dict)


def state_of(sql: sqlite3.Connection, tallies: Mapping[str, Tally], offered: int) -> HighWater:
    """What a mark says of the file as it stands in this transaction, whose books are `tallies`."""
    high = envelopes.last_seq(sql)
    ((low,),) = sql.execute(_LOW).fetchall()
    return HighWater(
        VERSION,
        installation_of(sql),
        high=high,
        low=high + 1 if low is None else low,
        offered=offered,
        books={topic: tuple(getattr(tally, name) for name in FIELDS) for topic, tally in tallies.items()},
        bookmarks={name: at for name, at in sql.execute(_BOOKMARKS).fetchall() if at is not None},
        first={topic: high + 1 if at is None else at for topic, at in sql.execute(_FIRST).fetchall()},
    )


class HighWaterFile:
    """The file `outbox.mark` in a directory. A mark that cannot be written is a guard less, never an error."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._descriptor = -1
        self._written = 0
        self.found = self._read()

    def write(self, state: HighWater) -> None:
        """Overwrites the older slot."""
        if self._descriptor < 0 and not self._open():
            return
        slot = _packed(self._written + 1, state)
        with suppress(OSError):
            os.pwrite(self._descriptor, slot, (self._written + 1) % _SLOTS * _SLOT_BYTES)
            self._written += 1

    def close(self) -> None:
        """Syncs and closes; calling it twice is fine."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if os.fstat(self._descriptor).st_size < _SLOTS * _SLOT_BYTES:
                os.posix_fallocate(self._descriptor, 0, _SLOTS * _SLOT_BYTES)
        except OSError:
            self.close()
            return False
        return True

    def _read(self) -> HighWater | None:
        self._written, found = newest(self._path)
        return found


def newest(path: Path) -> tuple[int, HighWater | None]:
    """The number of the newest whole slot of the file and what it says; (0, None) when there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return 0, None
    slots = (content[at : at + _SLOT_BYTES] for at in range(0, _SLOTS * _SLOT_BYTES, _SLOT_BYTES))
    found = [unpacked for slot in slots if (unpacked := _unpacked(slot)) is not None]
    return max(found, key=lambda each: each[0], default=(0, None))


def _packed(number: int, state: HighWater) -> bytes:
    fields = (number, state.format, state.high, state.low, state.offered, state.installation)
    text = ""
    # What does not fit any more, with very many databases, is left out: a guard less. Of the bookmarks the newest place
    # is told for all: without it a file from a backup would be gone on from where it was.
    books, first, bookmarks = dict(state.books), dict(state.first), dict(state.bookmarks)
    newest_of_all = {ANY: max(bookmarks.values())} if bookmarks else {}
    for maps in ((books, bookmarks, first), (books, newest_of_all, first), ({}, newest_of_all, {})):
        text = json.dumps([*fields, *maps], separators=(",", ":"))
        if len(text) + _DIGEST_CHARACTERS + 1 <= _SLOT_BYTES:
            break
    return f"{_digest(text)} {text}".ljust(_SLOT_BYTES).encode("ascii")


def _unpacked(slot: bytes) -> tuple[int, HighWater] | None:
    try:
        digest, text = slot.decode("ascii").rstrip(" \0").split(" ", 1)
    except ValueError:
        return None
    if digest != _digest(text):
        return None
    number, version, high, low, offered, installation, books, bookmarks, first, *_ = json.loads(text)
    numbers = {topic: tuple(row) for topic, row in books.items()}
    return number, HighWater(version, installation, high, low, offered, numbers, bookmarks, first)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
