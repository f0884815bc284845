"""What a MySQL server may send at once.

What could go wrong: an honest answer is refused (a large row, many small ones, one that arrives in small pieces, a slow
network); bytes are read before anybody has compared them with the bound; an answer that trickles is waited for without
end; the bound of one answer is used up by the one before; the end of the connection looks like data.
"""

from __future__ import annotations

import io
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.source_errors import AnswerTooLarge, DatabaseAway
from agent.sources._mysql_bounds import PACKETS, SLOWEST_BYTES_S, Allowance, _BoundedReader


class Trickle:
    """Gives `data` in pieces of random size, as sockets do; each takes `piece_s` of the time that it tells."""

    def __init__(self, data: bytes, rng: random.Random, piece_s: float = 0.0) -> None:
        self._file, self._rng, self._piece_s = io.BytesIO(data), rng, piece_s
        self.now_s, self.largest, self.closed = 100.0, 0, False

    def read1(self, size: int) -> bytes:
        """At least one byte, except at the end."""
        self.now_s += self._piece_s
        self.largest = max(self.largest, size)
        return self._file.read(self._rng.randint(1, size) if size else 0)

    def time_s(self) -> float:
        return self.now_s

    def close(self) -> None:
        self.closed = True


@given(data=st.binary(max_size=2_000), seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 500), max_size=10))
def test_every_byte_arrives_once_and_in_order(data: bytes, seed: int, cuts: list[int]) -> None:
    trickle = Trickle(data, random.Random(seed))
    reader = _BoundedReader(trickle, Allowance(10_000, 1.0, trickle.time_s))
    found = b"".join(reader.read(size) for size in cuts)
    assert found == data[: sum(cuts)]


def test_what_is_announced_is_refused_before_a_byte_of_it_is_read() -> None:
    trickle = Trickle(bytes(1_000), random.Random(1))
    reader = _BoundedReader(trickle, Allowance(100, 1.0, trickle.time_s))
    assert len(reader.read(100)) == 100
    with pytest.raises(AnswerTooLarge, match="more than 100 bytes"):
        reader.read(1)
    assert trickle._file.tell() == 100


def test_a_large_piece_is_not_made_room_for_at_once() -> None:
    trickle = Trickle(bytes(1_000_000), random.Random(1))
    reader = _BoundedReader(trickle, Allowance(1_000_000, 1.0, trickle.time_s))
    assert (len(reader.read(1_000_000)), trickle.largest) == (1_000_000, 65_536)


def test_the_next_answer_has_an_allowance_of_its_own() -> None:
    allowance = Allowance(10, 1.0)
    allowance.take(10)
    allowance.renew(10, 1.0)
    allowance.take(10)
    with pytest.raises(AnswerTooLarge):
        allowance.take(1)


def test_packets_are_counted() -> None:
    allowance = Allowance(10, 1.0)
    for _ in range(PACKETS):
        allowance.packet()
    with pytest.raises(AnswerTooLarge, match="rows or columns"):
        allowance.packet()
    allowance.renew(10, 1.0)
    allowance.packet()


def test_what_trickles_is_not_waited_for() -> None:
    trickle = Trickle(bytes(10_000_000), random.Random(1), piece_s=5.0)
    trickle.read1 = lambda size, read1=trickle.read1: read1(min(size, 10))  # type: ignore[misc, method-assign]
    reader = _BoundedReader(trickle, Allowance(20_000_000, 30.0, trickle.time_s))
    with pytest.raises(DatabaseAway, match="slowly"):
        reader.read(10_000_000)
    assert 130 <= trickle.now_s <= 140, "after its patience of 30 s and no later"


def test_many_whole_packets_that_trickle_are_not_waited_for_either() -> None:
    trickle = Trickle(bytes(10_000), random.Random(1), piece_s=5.0)
    reader = _BoundedReader(trickle, Allowance(20_000, 30.0, trickle.time_s))
    with pytest.raises(DatabaseAway, match="slowly"):
        deque((reader.read(1) for _ in range(100)), maxlen=0)


def test_a_slow_network_is_waited_for() -> None:
    data = bytes(2_000_000)
    trickle = Trickle(data, random.Random(1), piece_s=65_536 / SLOWEST_BYTES_S / 4)
    reader = _BoundedReader(trickle, Allowance(2_000_000, 1.0, trickle.time_s))
    assert len(reader.read(len(data))) == len(data)
    assert trickle.now_s > 150, "it took its time"


def test_at_the_end_there_is_less_and_it_is_closed_once_asked() -> None:
    trickle = Trickle(b"abc", random.Random(1))
    reader = _BoundedReader(trickle, Allowance(100, 1.0, trickle.time_s))
    assert (reader.read(5), reader.read(5)) == (b"abc", b"")
    reader.close()
    assert trickle.closed
