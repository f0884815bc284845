"""What a replay delivers, behind the face of an outbox.

What could go wrong: what was accepted once is offered again, or what was not is forgotten; the halves of an envelope
that was split are not found again, or have other bytes than before; an answer that was lost is not remembered as
doubtful; one body that cannot be read stops all others, or is left out in silence; memory holds every body.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import body
from agent.flusher import Flusher
from agent.replay.cargo import Account, Cargo
from agent.replay.ledger import ACCEPTED, OFFERED, PARKED, Entry, Ledger
from agent.sinks import COMMAND_RESULT, QUERIES
from agent.status import Scoreboard
from storage.envelope import Draft, Envelope
from storage.envelopes import made_of
from storage.errors import OutboxDamaged
from storage.reader import Head
from tests.fakes.clock import ManualClock
from tests.fakes.sink import FakeSink


def envelope(seq: int, *names: str) -> Envelope:
    packed = body.queries([orjson.dumps({"id": name}) for name in names])
    return made_of(Draft(QUERIES, len(names), packed), seq, "inst", 1_780_000_000.0)


def head_of(each: Envelope) -> Head:
    names = (each.seq, each.topic, each.place, each.key, each.records)
    return Head(*names, len(each.body), each.created_at, int(each.doubtful), None)


class Hold:
    """What waits in a file, and how often each was read."""

    def __init__(self, *envelopes: Envelope) -> None:
        self.envelopes = {each.key: each for each in envelopes}
        self.heads = [head_of(each) for each in envelopes]
        self.reads = 0
        self.damaged: set[int] = set()

    def load(self, head: Head) -> Envelope:
        self.reads += 1
        if head.seq in self.damaged:
            raise OutboxDamaged(f"the body of envelope {head.seq} is not what was stored")
        return self.envelopes[head.key]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger", "backend 1")) as opened:
        yield opened


@pytest.fixture
def hold() -> Hold:
    return Hold(envelope(1, "a", "b", "c"), envelope(2, "d", "e"))


def first(cargo: Cargo) -> Envelope:
    found = cargo.head(QUERIES)
    assert found is not None
    return found


def flush(cargo: Cargo, sink: FakeSink) -> None:
    """As far as it goes without waiting."""
    flusher = Flusher(cargo, sink, Scoreboard(0), clock=ManualClock(), rng=random.Random(1), hold_s=5)
    for _ in range(1_000):
        if flusher.step() != 0:
            return
    raise AssertionError("it never waits")


def test_the_oldest_is_offered_and_settled_for_good(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    assert (cargo.waiting, cargo.head(COMMAND_RESULT), hold.reads) == (5, None, 0)
    one = first(cargo)
    assert (one.key, one.body) == (hold.heads[0].key, hold.envelopes[one.key].body)
    cargo.offer(one)
    cargo.accept(one, delivered=3)
    assert first(cargo).key == hold.heads[1].key
    again = Cargo(hold.heads, hold.load, ledger)
    assert (again.waiting, again.account, first(again).key) == (2, Account(before=3), hold.heads[1].key)


def test_what_was_on_its_way_when_it_ended_is_doubtful(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    cargo.offer(first(cargo))
    again = Cargo(hold.heads, hold.load, ledger)
    one = first(again)
    assert one.doubtful
    again.offer(one)
    again.withdraw()
    again.close()
    assert first(Cargo(hold.heads, hold.load, ledger)).doubtful, "a doubt is never taken back"
    again.accept(one, delivered=3)
    assert (again.account.possible_duplicates, again.account.delivered) == (3, 3)


def test_what_has_surely_not_arrived_is_not_doubtful(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    cargo.offer(first(cargo))
    cargo.withdraw()
    assert [ledger.of(head.key) for head in hold.heads] == [Entry(OFFERED), Entry(OFFERED)], "one is told ahead"
    cargo.close()
    assert [ledger.of(head.key) for head in hold.heads] == [None, None]
    assert not first(Cargo(hold.heads, hold.load, ledger)).doubtful


def test_what_is_on_its_way_at_the_end_stays_in_doubt(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    cargo.offer(first(cargo))
    cargo.close()
    assert [ledger.of(head.key) for head in hold.heads] == [Entry(OFFERED), None]


def test_what_was_refused_before_is_so_again_when_it_was_not_sent(hold: Hold, ledger: Ledger) -> None:
    refused = Entry(PARKED, reason="status 400")
    ledger.put({head.key: refused for head in hold.heads})
    cargo = Cargo(hold.heads, hold.load, ledger, again=True)
    cargo.offer(first(cargo))
    cargo.withdraw()
    cargo.close()
    assert [ledger.of(head.key) for head in hold.heads] == [refused, refused]


def test_nobody_knows_is_remembered(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    one = first(cargo)
    cargo.doubt(one)
    assert first(cargo).doubtful
    assert ledger.of(one.key) == Entry(OFFERED, doubtful=True)


def test_what_was_refused_is_offered_again_only_when_that_is_wanted(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    cargo.park(first(cargo), "status 400")
    assert (cargo.account.parked, cargo.waiting) == (3, 2)
    assert Cargo(hold.heads, hold.load, ledger).waiting == 2
    assert Cargo(hold.heads, hold.load, ledger, again=True).waiting == 5


def test_a_part_that_was_taken_is_remembered(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    one = first(cargo)
    cargo.accept(one, delivered=2, reason="partial: no text")
    assert (cargo.account.delivered, cargo.account.parked) == (2, 1)
    assert ledger.of(one.key) == Entry(ACCEPTED, 2, reason="partial: no text")
    assert Cargo(hold.heads, hold.load, ledger, again=True).waiting == 2


def test_halves_are_the_same_in_the_next_run(hold: Hold, ledger: Ledger) -> None:
    sink = FakeSink()
    sink.bad = {"b"}
    flush(Cargo(hold.heads, hold.load, ledger), sink)
    assert sorted(sink.stored) == ["a", "c", "d", "e"]
    key = hold.heads[0].key
    assert ledger.of(f"{key}.1.0") == Entry(PARKED, reason="refused by the backend (status 400)")
    again = Cargo(hold.heads, hold.load, ledger, again=True)
    part = first(again)
    assert (part.key, again.waiting, again.account.before) == (f"{key}.1.0", 1, 4)
    before = next(each for each in sink.requests if each.key == part.key)
    assert (part.body, part.sha256) == (before.body, before.sha256)


def test_one_that_cannot_be_read_is_left_out_and_named(hold: Hold, ledger: Ledger) -> None:
    hold.damaged = {1}
    cargo = Cargo(hold.heads, hold.load, ledger)
    sink = FakeSink()
    flush(cargo, sink)
    assert (sink.stored, cargo.waiting) == (["d", "e"], 0)
    assert cargo.unreadable == ["the body of envelope 1 is not what was stored"]


def test_nothing_is_given_back(hold: Hold, ledger: Ledger) -> None:
    cargo = Cargo(hold.heads, hold.load, ledger)
    cargo.demand_recordable()
    assert cargo.shrink() is False


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    bad=st.sets(st.integers(0, 20), max_size=3),
    runs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=4),
)
def test_however_it_is_cut_each_record_arrives_once_at_a_backend_that_honours_keys(
    sizes: list[int], bad: set[int], runs: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = iter(f"r{number}" for number in range(100))
    hold = Hold(*(envelope(seq, *(next(names) for _ in range(size))) for seq, size in enumerate(sizes, 1)))
    total = sum(sizes)
    sink = FakeSink()
    sink.bad = {f"r{number}" for number in bad}
    path = tmp_path_factory.mktemp("ledger") / "ledger"
    for steps, lost in (*runs, (1_000, 0)):
        sink.lose_answers = lost
        with closing(Ledger(path, "backend 1")) as ledger:
            cargo = Cargo(hold.heads, hold.load, ledger)
            clock = ManualClock()
            flusher = Flusher(cargo, sink, Scoreboard(0), clock=clock, rng=random.Random(1), hold_s=5)
            for _ in range(steps):
                wait_s = flusher.step()
                if wait_s is None:
                    break
                clock.turn(wait_s)
            if steps == 1_000:
                stuck = {r for r in sink.bad if int(r[1:]) < total}
                rest = cargo.waiting
    delivered = {f"r{number}" for number in range(total)} - sink.bad
    assert len(sink.stored) == len(set(sink.stored))
    # The last culprit is given up only after another record was accepted behind it: else the backend may be at fault.
    assert rest <= len(stuck)
    assert set(sink.stored) == delivered


def test_a_ledger_that_forgets_is_found_out(hold: Hold, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FakeSink(honours_keys=False)
    monkeypatch.setattr(Ledger, "put", lambda *_: None)
    for _ in range(2):
        flush(Cargo(hold.heads, hold.load, ledger), sink)
    assert len(sink.stored) == 10
