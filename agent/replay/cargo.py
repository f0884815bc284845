"""The envelopes that a replay delivers: read from a file that is not changed, their fate kept in a ledger.

For the flusher it is what the outbox is: the oldest is taken, offered, and settled. A half of a split envelope is made
again from its parent whenever it is needed; only that there are halves is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice

from agent import body
from agent.replay.ledger import ACCEPTED, OFFERED, PARKED, SPLIT, Entry, Ledger
from storage.envelope import Draft, Envelope
from storage.errors import OutboxDamaged
from storage.reader import Head

AHEAD = 16  # envelopes that the ledger is told of together


@dataclass(frozen=True, slots=True)
class Item:
    """An envelope or a half of one. `number`: unique in this run; `root`: the envelope that it is a part of."""

    number: int
    topic: str
    key: str
    records: int
    root: Head
    doubtful: bool


@dataclass(slots=True)
class Account:
    """In records: what was there already, and what became of the rest in this run. `bytes`: of the bodies, packed."""

    before: int = 0
    delivered: int = 0
    parked: int = 0
    possible_duplicates: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """An envelope, or a half of one that was split, and what a ledger says of it."""

    key: str
    records: int
    doubtful: bool
    state: str | None

    def is_settled(self, *, again: bool) -> bool:
        """Whether nothing has to be done with it; `again`: what was kept aside is to be offered once more."""
        return self.state == ACCEPTED or (self.state == PARKED and not again)


def parts(head: Head, of: Callable[[str], Entry | None]) -> Iterator[Part]:
    """What an envelope consists of, as a ledger tells it: itself, or its halves, and their halves."""
    yield from _parts(head.key, head.records, of, doubtful=bool(head.doubtful))


def _parts(key: str, records: int, of: Callable[[str], Entry | None], *, doubtful: bool) -> Iterator[Part]:
    entry = of(key)
    if entry is not None and entry.halves is not None:
        for number, half in enumerate(entry.halves):
            yield from _parts(f"{key}.{number}", half, of, doubtful=entry.doubtful)
        return
    is_unsure = doubtful or (entry is not None and (entry.doubtful or entry.state == OFFERED))
    yield Part(key, records, is_unsure, None if entry is None else entry.state)


class Cargo:
    """What of `heads` (in the order of sending) has still to be delivered. One thread uses it.

    `load`: reads an envelope; `again`: whether what was kept aside is offered once more; `limit`: records at most that
    are taken on, in whole envelopes, the first of them however many it holds.
    """

    def __init__(
        self,
        heads: Iterable[Head],
        load: Callable[[Head], Envelope],
        ledger: Ledger,
        *,
        again: bool = False,
        limit: int | None = None,
    ) -> None:
        self.account = Account()
        self._load, self._ledger, self._again = load, ledger, again
        self._numbers = 0
        self._announced: dict[str, Entry | None] = {}  # what the ledger calls offered, and what it said before
        self._on_its_way = ""  # the key of the envelope that is offered now
        self.waiting = 0  # records that are neither delivered nor kept aside
        self.unreadable: list[str] = []  # what is wrong with envelopes whose body is damaged
        self._items: dict[str, dict[int, Item]] = {}
        for head in heads:
            items = list(self._open(head))
            records = sum(item.records for item in items)
            if limit is not None and items and self.waiting and self.waiting + records > limit:
                break
            self._items.setdefault(head.topic, {}).update((item.number, item) for item in items)
            self.waiting += records
            if limit is not None and self.waiting >= limit:
                break

    def _open(self, head: Head) -> Iterator[Item]:
        for part in parts(head, self._ledger.of):
            if part.is_settled(again=self._again):
                self.account.before += part.records
            else:
                yield self._item(head, part.key, part.records, doubtful=part.doubtful)

    def _item(self, root: Head, key: str, records: int, *, doubtful: bool) -> Item:
        self._numbers += 1
        return Item(self._numbers, root.topic, key, records, root, doubtful)

    # -- what a flusher asks for -------------------------------------------------------------------------------

    def head(self, topic: str, skip: Collection[int] = ()) -> Envelope | None:
        """The first of `topic` whose number is not in `skip`; None when there is none. A damaged one is left out."""
        while (item := self._first(topic, skip)) is not None:
            try:
                return self._envelope(item)
            except OutboxDamaged as error:
                self.unreadable.append(error.detail)
                self._remove(item)
        return None

    def _first(self, topic: str, skip: Collection[int]) -> Item | None:
        return next((item for item in self._items.get(topic, {}).values() if item.number not in skip), None)

    def demand_recordable(self) -> None:
        """The ledger says so when it is written."""

    def offer(self, envelope: Envelope) -> None:
        """It may be on its way from now on. Raises LedgerUnusable.

        The ledger learns of some more with it, in one commit: after a crash they are called doubtful without need.
        """
        if envelope.key not in self._announced:
            coming = [self._found(envelope), *islice(self._items[envelope.topic].values(), AHEAD)]
            self._announced |= {item.key: self._ledger.of(item.key) for item in coming if not item.doubtful}
            self._ledger.put({item.key: Entry(OFFERED, doubtful=item.doubtful) for item in coming})
        self._on_its_way = envelope.key

    def withdraw(self) -> None:
        """What was offered last has surely not arrived; the ledger hears of that at the end."""
        self._on_its_way = ""

    def close(self) -> None:
        """Takes back what the ledger calls offered and surely has not arrived. Raises LedgerUnusable."""
        self._announced.pop(self._on_its_way, None)
        before = {key: entry for key, entry in self._announced.items() if entry is not None}
        if before:
            self._ledger.put(before)
        self._ledger.forget(self._announced.keys() - before)
        self._announced.clear()

    def doubt(self, envelope: Envelope) -> None:
        """Nobody knows whether what was offered has arrived."""
        item = self._found(envelope)
        self._put(envelope, Entry(OFFERED, doubtful=True))
        self._items[item.topic][item.number] = replace(item, doubtful=True)

    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        """The backend has taken `delivered` records of it; of the rest it is remembered why not."""
        skipped = envelope.records - delivered
        self._put(envelope, Entry(ACCEPTED, delivered, envelope.doubtful, reason=reason))
        self._settle(envelope)
        self.account.delivered += delivered
        self.account.parked += skipped
        self.account.possible_duplicates += delivered if envelope.doubtful else 0

    def park(self, envelope: Envelope, reason: str) -> None:
        """The backend will not take it."""
        self._put(envelope, Entry(PARKED, reason=reason))
        self._settle(envelope)
        self.account.parked += envelope.records

    def split(self, envelope: Envelope, first: Draft, second: Draft) -> None:
        """Its two halves take its place."""
        item = self._found(envelope)
        halves = (first.records, second.records)
        self._put(envelope, Entry(SPLIT, doubtful=item.doubtful, halves=halves))
        items: dict[int, Item] = {}
        for number, known in self._items[item.topic].items():
            if number != item.number:
                items[number] = known
                continue
            for which, records in enumerate(halves):
                half = self._item(item.root, f"{item.key}.{which}", records, doubtful=item.doubtful)
                items[half.number] = half
        self._items[item.topic] = items

    def give_up_singles(self, reason: str) -> bool:
        """Keeps all that waits aside when each is a single record; whether it was so."""
        items = [item for waiting in self._items.values() for item in waiting.values()]
        if any(item.records > 1 for item in items):
            return False
        self._ledger.put({item.key: Entry(PARKED, reason=reason) for item in items})
        for item in items:
            self._remove(item)
            self._announced.pop(item.key, None)
            self.account.parked += item.records
        return True

    def shrink(self) -> bool:
        """Nothing is given back."""
        return False

    # ----------------------------------------------------------------------------------------------------------

    def _put(self, envelope: Envelope, entry: Entry) -> None:
        self._ledger.put({envelope.key: entry})
        self._announced.pop(envelope.key, None)
        self._on_its_way = ""

    def _settle(self, envelope: Envelope) -> None:
        self._remove(self._found(envelope))
        self.account.bytes += len(envelope.body)

    def _remove(self, item: Item) -> None:
        del self._items[item.topic][item.number]
        self.waiting -= item.records

    def _found(self, envelope: Envelope) -> Item:
        return self._items[envelope.topic][envelope.seq]

    def _envelope(self, item: Item) -> Envelope:
        whole = self._load(item.root)
        packed = whole.body
        for which in item.key.removeprefix(whole.key).split(".")[1:]:
            packed = body.halves(packed)[int(which)][1]
        digest = sha256(packed).digest()
        made = replace(whole, seq=item.number, key=item.key, records=item.records, body=packed, sha256=digest)
        return replace(made, doubtful=item.doubtful)
