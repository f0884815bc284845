"""Bounds what a MySQL server may send as one answer, in bytes, packets and time. Understands nothing of it.

The driver reads whatever comes: a packet that never ends, rows without end, or one byte every few seconds would take
all memory of the machine or hold the thread for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from agent.source_errors import AnswerTooLarge, DatabaseAway

SLOWEST_BYTES_S = 16_384.0  # what comes slower for long does not come
PACKETS = 10_000  # each row is one, and each description of a column
_PIECE_BYTES = 65_536


class Allowance:
    """What may still come. One thread uses it; `renew` begins the next answer."""

    def __init__(self, at_most_bytes: int, patience_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self.renew(at_most_bytes, patience_s)

    def renew(self, at_most_bytes: int, patience_s: float) -> None:
        """So much may come, at once or after `patience_s`, and then not slower than SLOWEST_BYTES_S."""
        self._at_most = self._left = at_most_bytes
        self._packets_left = PACKETS
        self._patience_s, self._began_s = patience_s, self._now_s()

    def packet(self) -> None:
        """Another packet is read. Raises AnswerTooLarge."""
        self._packets_left -= 1
        if self._packets_left < 0:
            raise AnswerTooLarge(f"more than {PACKETS:,} rows or columns")

    def take(self, size: int) -> None:
        """So many bytes are announced. Raises AnswerTooLarge, before any of them is read."""
        self._left -= size
        if self._left < 0:
            raise AnswerTooLarge(f"more than {self._at_most:,} bytes")

    def demand_time(self, missing: int) -> None:
        """Raises DatabaseAway when it takes too long. `missing`: bytes that are announced and not there yet."""
        received = self._at_most - self._left - missing
        if self._now_s() - self._began_s > self._patience_s + received / SLOWEST_BYTES_S:
            raise DatabaseAway("its answer came so slowly that it was not waited for")


class _BoundedReader:
    """In place of the file that the driver reads from."""

    def __init__(self, file: Any, allowance: Allowance) -> None:
        self._file, self._allowance = file, allowance

    def read(self, size: int) -> bytes:
        """As many bytes, fewer only at the end. Raises AnswerTooLarge, DatabaseAway, or OSError."""
        self._allowance.take(size)
        self._allowance.demand_time(size)
        piece: bytes = self._file.read1(min(size, _PIECE_BYTES))
        return piece if len(piece) == size else self._rest(piece, size)

    def _rest(self, piece: bytes, size: int) -> bytes:
        pieces, length = [piece], len(piece)
        while piece and length < size:
            self._allowance.demand_time(size - length)
            piece = self._file.read1(min(size - length, _PIECE_BYTES))
            pieces.append(piece)
            length += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Bounded:
    """To be mixed into the driver's connection, before it: then it reads as much as `allowance` says."""

    def __init__(self, *, allowance: Allowance, **options: Any) -> None:
        self._allowance = allowance
        super().__init__(**options)

    @property
    def _rfile(self) -> _BoundedReader | None:
        reader: _BoundedReader | None = self.__dict__.get("_reader")
        return reader

    @_rfile.setter
    def _rfile(self, file: Any) -> None:
        self.__dict__["_reader"] = None if file is None else _BoundedReader(file, self._allowance)

    def _read_packet(self, *kind: Any) -> Any:
        self._allowance.packet()
        inherited: Any = super()
        return inherited._read_packet(*kind)  # noqa: SLF001 - the driver has no public place for this
