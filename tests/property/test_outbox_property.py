"""The outbox against a model of it: any sequence of commits, deliveries, splits, failures and restarts.

What could go wrong: in some order of things a record gets lost, is invented, or is sent at the wrong time; the books
do not balance at some step; a failed commit leaves something behind; a key changes its body.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.connection import connect
from storage.envelope import Change, Draft, Envelope, Gap, Tally
from storage.errors import OutboxBroken
from storage.outbox import Outbox
from tests.fakes.inside import sql_of

TOPICS = ("queries", "command_result")
topics = st.sampled_from(TOPICS)
sizes = st.integers(1, 6)
_FAIL = "CREATE TEMP TRIGGER fault BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'injected'); END"


@dataclass(frozen=True)
class Kept:
    """What the model knows of an envelope: the names of its records, and where it stands in the order."""

    topic: str
    records: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def body(self) -> bytes:
        return ",".join(map(str, self.records)).encode()


class OutboxMachine(RuleBasedStateMachine):
    """`kept`, `delivered` and `parked` are the model; records are numbered as they are captured."""

    @initialize()
    def open(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.heard: dict[str, Tally] = {}
        self.outbox = self._opened()
        self.kept: list[Kept] = []
        self.delivered: dict[str, int] = dict.fromkeys(TOPICS, 0)
        self.parked: dict[str, int] = dict.fromkeys(TOPICS, 0)
        self.captured: dict[str, int] = dict.fromkeys(TOPICS, 0)
        self.keys: dict[str, bytes] = {}
        self.bookmark: bytes | None = None
        self.gaps = 0
        self.next_record = 0
        self.next_place = 0

    def _opened(self) -> Outbox:
        return Outbox(self.directory, on_books=self.heard.__setitem__)

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.outbox.close()
            shutil.rmtree(self.directory)

    # -- what happens --------------------------------------------------------------------------------------------

    def _change(self, counts: list[tuple[str, int]], *, with_gap: bool) -> tuple[Change, list[Kept]]:
        kept, record = [], self.next_record
        for number, (topic, count) in enumerate(counts):
            kept.append(Kept(topic, tuple(range(record, record + count)), (self.next_place + number,)))
            record += count
        drafts = tuple(Draft(each.topic, len(each.records), each.body) for each in kept)
        gaps = (Gap("source", "reason"),) if with_gap else ()
        return Change(drafts, bookmarks={"watch": str(record).encode()}, gaps=gaps), kept

    @rule(counts=st.lists(st.tuples(topics, sizes), max_size=4), with_gap=st.booleans())
    def commit(self, counts: list[tuple[str, int]], with_gap: bool) -> None:
        change, kept = self._change(counts, with_gap=with_gap)
        self.outbox.commit(change)
        self.kept += kept
        for each in kept:
            self.captured[each.topic] += len(each.records)
        self.next_record += sum(count for _, count in counts)
        self.next_place += len(counts)
        self.bookmark = change.bookmarks["watch"]
        self.gaps += with_gap

    @rule(
        counts=st.lists(st.tuples(topics, sizes), min_size=1, max_size=4),
        table=st.sampled_from(["envelope", "tally", "bookmark", "gap"]),
    )
    def commit_and_fail(self, counts: list[tuple[str, int]], table: str) -> None:
        change, _ = self._change(counts, with_gap=True)
        sql_of(self.outbox).execute(_FAIL.format(table=table))
        with pytest.raises(OutboxBroken, match="injected"):
            self.outbox.commit(change)
        sql_of(self.outbox).execute("DROP TRIGGER fault")

    def _head(self, topic: str) -> tuple[Envelope, Kept]:
        envelope = self.outbox.head(topic)
        assert envelope is not None
        return envelope, self._in_order(topic)[0]

    def _in_order(self, topic: str) -> list[Kept]:
        return sorted((each for each in self.kept if each.topic == topic), key=lambda each: each.order)

    def _has(self, topic: str) -> bool:
        return any(each.topic == topic for each in self.kept)

    @precondition(lambda self: self.kept)
    @rule(topic=topics, left_out=st.integers(0, 6))
    def accept(self, topic: str, left_out: int) -> None:
        if not self._has(topic):
            return
        envelope, kept = self._head(topic)
        left_out = min(left_out, len(kept.records))
        self.outbox.accept(envelope, delivered=len(kept.records) - left_out, reason="partial")
        self.kept.remove(kept)
        self.delivered[topic] += len(kept.records) - left_out
        self.parked[topic] += left_out

    @precondition(lambda self: self.kept)
    @rule(topic=topics)
    def park(self, topic: str) -> None:
        if not self._has(topic):
            return
        envelope, kept = self._head(topic)
        self.outbox.park(envelope, "refused")
        self.kept.remove(kept)
        self.parked[topic] += len(kept.records)

    @precondition(lambda self: any(len(each.records) > 1 for each in self.kept))
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        splittable = [each for each in self.kept if len(each.records) > 1]
        kept = data.draw(st.sampled_from(splittable))
        before = self._in_order(kept.topic)
        skip: list[int] = []
        for _ in before[: before.index(kept)]:
            envelope = self.outbox.head(kept.topic, skip)
            assert envelope is not None
            skip.append(envelope.seq)
        whole = self.outbox.head(kept.topic, skip)
        assert whole is not None
        middle = len(kept.records) // 2
        first = Kept(kept.topic, kept.records[:middle], (*kept.order, 0))
        second = Kept(kept.topic, kept.records[middle:], (*kept.order, 1))
        self.outbox.split(whole, *(Draft(each.topic, len(each.records), each.body) for each in (first, second)))
        self.kept.remove(kept)
        self.kept += [first, second]

    @rule()
    def reopen(self) -> None:
        self.outbox.close()
        self.outbox = self._opened()

    @rule()
    def lose_power(self) -> None:
        """Nobody closes anything; the next one finds the files as they are."""
        image = Path(tempfile.mkdtemp(prefix="outbox-"))
        shutil.copytree(self.directory, image, dirs_exist_ok=True)
        self.outbox.close()
        shutil.rmtree(self.directory)
        self.directory = image
        self.outbox = self._opened()

    @rule()
    def shrink(self) -> None:
        self.outbox.shrink()

    # -- what holds ----------------------------------------------------------------------------------------------

    @invariant()
    def the_books_balance_and_agree_with_the_model(self) -> None:
        for topic in TOPICS:
            books = self.outbox.tally(topic)
            kept = [each for each in self.kept if each.topic == topic]
            expected = Tally(
                captured=self.captured[topic],
                delivered=self.delivered[topic],
                parked=self.parked[topic],
                pending=sum(len(each.records) for each in kept),
                pending_bytes=sum(len(each.body) for each in kept),
                envelopes=len(kept),
                gaps=self.gaps,
                oldest_at=books.oldest_at,
            )
            assert books == expected
            assert books.balances
            assert (books.oldest_at is None) == (not kept)
            assert self.heard.get(topic, Tally()).pending == books.pending

    @invariant()
    def what_waits_is_what_the_model_has_in_its_order(self) -> None:
        with closing(connect(self.outbox.path)) as look:
            for topic in TOPICS:
                rows = look.execute(
                    "SELECT records, body FROM envelope WHERE topic = ? ORDER BY place, key", (topic,)
                ).fetchall()
                assert rows == [(len(each.records), each.body) for each in self._in_order(topic)]

    @invariant()
    def the_first_to_be_sent_is_the_first_of_the_model(self) -> None:
        for topic in TOPICS:
            envelope = self.outbox.head(topic)
            in_order = self._in_order(topic)
            assert (envelope.body if envelope else None) == (in_order[0].body if in_order else None)
            if envelope is not None:
                assert envelope.is_intact
                assert self.keys.setdefault(envelope.key, envelope.body) == envelope.body

    @invariant()
    def the_bookmark_stands_where_the_last_commit_left_it(self) -> None:
        assert self.outbox.bookmark("watch") == self.bookmark


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
