"""Brings an outbox in line with what a replay has delivered from it: that leaves it as if its agent had sent it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from agent import body
from agent.replay.ledger import ACCEPTED, PARKED, SPLIT, Ledger
from agent.sinks import TOPICS
from storage.bodies import describe
from storage.envelope import Draft
from storage.outbox import Outbox
from storage.reader import Head


def acknowledge(directory: Path, heads: Iterable[Head], ledger: Ledger, on_loss: Callable[[str], None]) -> int:
    """Settles in the outbox of `directory` what the ledger knows of `heads`; gives the records that have left it.

    The caller holds the lock on the directory. May be cut at any instant and done again. Raises an OutboxError.
    """
    with closing(Outbox(directory, topics=TOPICS, describe=describe, on_loss=on_loss)) as outbox:
        before = _there(outbox)
        for head in heads:
            entry = ledger.of(head.key)
            if head.parked is not None and entry is not None and entry.state in {ACCEPTED, SPLIT}:
                outbox.retry(head.seq)
            _settle(outbox, head.key, ledger)
        return before - _there(outbox)


def _settle(outbox: Outbox, key: str, ledger: Ledger) -> None:
    entry, envelope = ledger.of(key), outbox.by_key(key)
    if entry is None or envelope is None or not envelope.is_intact:
        return
    envelope = replace(envelope, doubtful=envelope.doubtful or entry.doubtful)
    if entry.state == ACCEPTED:
        outbox.accept(envelope, delivered=entry.delivered, reason=entry.reason)
    elif entry.state == PARKED:
        outbox.park(envelope, entry.reason)
    elif entry.state == SPLIT:
        outbox.split(envelope, *(Draft(envelope.topic, count, half) for count, half in body.halves(envelope.body)))
        for number in range(2):
            _settle(outbox, f"{key}.{number}", ledger)


def _there(outbox: Outbox) -> int:
    """Records that wait or are kept aside."""
    tallies = [outbox.tally(topic) for topic in TOPICS]
    return sum(each.pending + each.parked for each in tallies)
