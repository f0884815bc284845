"""What could go wrong: the bookmark gets ahead of the records or stays behind, an envelope is larger than allowed or a
record lost between two, a failed turn leaves something behind for the next, a gap is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.body import unpack
from agent.collector import TURN_BYTES, TURN_RECORDS, Collector
from agent.record import to_wire
from agent.sinks import QUERIES
from agent.sources import Reading
from storage.envelope import Change, Gap
from storage.errors import OutboxFull
from tests.fakes.manual import FaultyOutbox
from tests.fakes.source import record


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[FaultyOutbox]:
    made = FaultyOutbox(tmp_path)
    yield made
    made.close()


def collector(outbox: FaultyOutbox, *, records: int = 3, size: int = 1_000_000) -> Collector:
    return Collector(outbox, "w", batch_max_records=records, batch_max_bytes=size)


def reading(first: int, end: int, *gaps: Gap, text: str = "SELECT 1") -> Reading:
    return Reading(tuple(record(number, text) for number in range(first, end)), str(end).encode(), gaps)


def stored(outbox: FaultyOutbox) -> list[list[str]]:
    return [[record["id"] for record in body["queries"]] for body in bodies(outbox)]


def bodies(outbox: FaultyOutbox) -> list[Any]:
    return [orjson.loads(text) for text in texts(outbox)]


def texts(outbox: FaultyOutbox) -> list[bytes]:
    found, seen = [], set[int]()
    while (envelope := outbox.head(QUERIES, seen)) is not None:
        seen.add(envelope.seq)
        assert envelope.records == len(orjson.loads(unpack(envelope.body))["queries"])
        found.append(unpack(envelope.body))
    return found


def test_records_fill_envelopes_in_order_and_the_bookmark_stands_behind_the_last(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    one.take(reading(0, 4))
    one.take(reading(4, 7))
    assert (stored(outbox), one.bookmark) == ([], None)
    one.save(Change())
    assert (stored(outbox), one.bookmark) == ([["r0", "r1", "r2"], ["r3", "r4", "r5"], ["r6"]], b"7")
    assert outbox.tally(QUERIES).captured == 7


def test_no_envelope_is_larger_than_allowed_by_a_single_byte(outbox: FaultyOutbox) -> None:
    size = len(to_wire(record(0)))
    exactly_two = 14 + 2 * size + 1
    one = collector(outbox, records=99, size=exactly_two)
    one.take(reading(0, 4))
    one.save(Change())
    assert [len(text) for text in texts(outbox)] == [exactly_two, exactly_two]
    tight = collector(outbox, records=99, size=exactly_two - 1)
    tight.take(reading(4, 6))
    tight.save(Change())
    assert stored(outbox)[2:] == [["r4"], ["r5"]]


def test_a_single_record_that_is_too_large_travels_alone(outbox: FaultyOutbox) -> None:
    one = collector(outbox, records=99, size=2_000)
    one.take(reading(0, 1))
    one.take(reading(1, 2, text="x" * 5_000))
    one.take(reading(2, 3))
    one.save(Change())
    assert stored(outbox) == [["r0"], ["r1"], ["r2"]]


def test_a_reading_without_records_moves_the_bookmark(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    one.take(reading(5, 5))
    one.save(Change())
    assert (stored(outbox), one.bookmark) == ([], b"5")


def test_gaps_are_saved_with_their_turn_and_once(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    gap = Gap("w", "rotated", estimate=3)
    one.take(reading(0, 1, gap))
    one.save(Change())
    one.take(reading(1, 2))
    one.save(Change())
    assert outbox.gaps() == [gap]


def test_what_goes_with_a_turn_is_in_the_same_transaction(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    one.take(reading(0, 1))
    outbox.disk_full = 1
    with pytest.raises(OutboxFull):
        one.save(Change(marks=("done",), notes={"n": "1"}))
    assert (outbox.failures, stored(outbox), one.bookmark) == (1, [], None)
    assert (outbox.has_mark("done"), outbox.note("n")) == (False, None)


def test_a_turn_that_failed_leaves_nothing_for_the_next(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    one.take(reading(0, 2, Gap("w", "x")))
    outbox.disk_full = 1
    with pytest.raises(OutboxFull):
        one.save(Change())
    one.take(reading(0, 3))
    one.save(Change())
    assert (stored(outbox), one.bookmark, outbox.gaps()) == ([["r0", "r1", "r2"]], b"3", [])


def test_a_dropped_turn_is_forgotten(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    one.take(reading(0, 2))
    one.drop()
    one.save(Change())
    assert (stored(outbox), one.bookmark) == ([], None)


def test_a_turn_is_full_by_records_or_by_bytes(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    one.take(reading(0, TURN_RECORDS - 1))
    assert not one.is_full
    one.take(reading(0, 1))
    assert one.is_full
    one.drop()
    assert not one.is_full
    one.take(reading(0, 1, text="x" * TURN_BYTES))
    assert one.is_full


def test_nothing_taken_and_nothing_to_say_writes_nothing(outbox: FaultyOutbox) -> None:
    outbox.disk_full = 1
    collector(outbox).save(Change())
    assert outbox.failures == 0


def test_control_the_bookmark_of_a_reading_that_was_not_taken_is_not_saved(outbox: FaultyOutbox) -> None:
    one = collector(outbox)
    later = replace(reading(0, 1), bookmark=b"99")
    one.take(reading(0, 1))
    one.save(Change())
    assert one.bookmark != later.bookmark
