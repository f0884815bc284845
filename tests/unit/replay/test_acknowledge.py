"""What a replay has delivered leaves the outbox.

What could go wrong: what was not accepted leaves it too; the books do not balance afterwards; halves that were refused
are gone with those that were taken; doing it twice counts twice.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import orjson
import pytest

from agent import body
from agent.replay.acknowledge import acknowledge
from agent.replay.cargo import Cargo
from agent.replay.ledger import Ledger
from agent.sinks import QUERIES, TOPICS
from storage.audit import audit
from storage.bodies import describe
from storage.choice import retriable
from storage.envelope import Change, Draft
from storage.outbox import Outbox
from storage.reader import Head, OutboxReader
from tests.fakes.sink import FakeSink
from tests.unit.replay.test_cargo import flush


def fill(directory: Path, *bodies: list[str]) -> None:
    with closing(Outbox(directory, topics=TOPICS)) as outbox:
        for names in bodies:
            packed = body.queries([orjson.dumps({"id": name}) for name in names])
            outbox.commit(Change((Draft(QUERIES, len(names), packed),)))


def replay(directory: Path, sink: FakeSink, *, parked: bool = False, limit: int = 99) -> int:
    """Delivers and acknowledges; gives the records that have left."""
    with (
        OutboxReader(directory, describe, now=0) as reader,
        closing(Ledger(directory.parent / "ledger", "b")) as ledger,
    ):
        heads: list[Head] = [*reader.heads()[:limit], *(retriable(reader.parked()) if parked else [])]
        flush(Cargo(heads, reader.load, ledger, again=parked), sink)
        return acknowledge(directory, heads, ledger, pytest.fail)


def left(directory: Path) -> tuple[int, int, int]:
    """Delivered, waiting and parked, when it balances."""
    found = audit(directory)
    assert found.balances
    (account,) = [each for each in found.accounts if each.topic == QUERIES]
    return account.delivered, account.pending, account.parked


def test_what_was_accepted_is_gone_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["a", "b"], ["c"], ["d", "e"])
    assert replay(tmp_path / "d", FakeSink(), limit=2) == 3
    assert left(tmp_path / "d") == (3, 2, 0)
    assert replay(tmp_path / "d", FakeSink()) == 2
    assert replay(tmp_path / "d", FakeSink()) == 0
    assert left(tmp_path / "d") == (5, 0, 0)


def test_of_one_that_was_split_the_culprit_stays_parked_until_it_is_taken(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["a", "b", "c"], ["d"])
    sink = FakeSink()
    sink.bad = {"b"}
    assert replay(tmp_path / "d", sink) == 3
    assert left(tmp_path / "d") == (3, 0, 1)
    assert replay(tmp_path / "d", sink, parked=True) == 0
    sink.bad = set()
    assert replay(tmp_path / "d", sink, parked=True) == 1
    assert (left(tmp_path / "d"), sorted(sink.stored)) == ((4, 0, 0), ["a", "b", "c", "d"])


def test_what_may_have_come_twice_is_counted(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["a", "b"])
    sink = FakeSink()
    sink.lose_answers = 1
    assert replay(tmp_path / "d", sink) == 0
    assert replay(tmp_path / "d", sink) == 2
    with closing(Outbox(tmp_path / "d")) as outbox:
        assert outbox.tally(QUERIES).possible_duplicates == 2
