"""What replay.py was told to deliver."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import ReplayRefused
from agent.replay.replay import ledger_beside
from scripts.replaying.meant import choice_of, heads_of, readers
from storage import parcel
from storage.choice import chosen
from storage.envelope import Envelope
from storage.errors import ParcelDamaged
from storage.lock import DirectoryLock, unless_held
from storage.outbox import FILE_NAME
from storage.reader import Head, OutboxReader

HELD = 64  # envelopes of an export that may be asked for again without reading it from the beginning


@dataclass(slots=True)
class Freight:
    """One outbox or export: what of it is meant, how its envelopes are read, and its ledger. `wrong`: what could not be
    read; `copies`: envelopes that stand in another file that is replayed with it, and are sent from there."""

    path: Path
    heads: list[Head]
    load: Callable[[Head], Envelope]
    ledger: Path
    wrong: list[str] = field(default_factory=list)
    copies: int = 0


def freights(options: argparse.Namespace, stack: ExitStack) -> tuple[list[Freight], list[str]]:
    """Everything that is meant, opened, and what was left out. Raises ReplayRefused, ParcelDamaged, an OutboxError."""
    if options.parcel is not None:
        return [_from_parcel(options)], []
    opened, skipped = readers(options, stack)
    found = [_from_outbox(reader, options) for reader in opened]
    if not (options.dry_run or options.verify):
        for reader in opened:
            _hold(reader, options, stack)
    _leave_out_copies(found)
    return found, skipped


def _from_outbox(reader: OutboxReader, options: argparse.Namespace) -> Freight:
    if options.ack and reader.path.name != FILE_NAME:
        raise ReplayRefused(f"--ack needs the file under its name, {FILE_NAME}, and not {reader.path.name}")
    heads = heads_of(reader, options)
    wrong = [*([] if reader.salvaged is None else [str(reader.salvaged)]), *reader.unreadable]
    return Freight(reader.path, heads, reader.load, options.ledger or ledger_beside(reader.path), wrong)


def _hold(reader: OutboxReader, options: argparse.Namespace, stack: ExitStack) -> None:
    """Until the end no agent can begin to work on it: it would send what is sent here."""
    if reader.path.name != FILE_NAME:
        return
    if reader.agent is not None:
        raise ReplayRefused(f"an agent (process {reader.agent}) delivers from {reader.path}")
    if options.ack:
        stack.enter_context(DirectoryLock(reader.path.parent))
    elif not stack.enter_context(unless_held(reader.path.parent)):
        raise ReplayRefused(f"an agent or another replay works on {reader.path}")


def _leave_out_copies(found: Sequence[Freight]) -> None:
    seen: set[str] = set()
    for freight in found:
        new = [head for head in freight.heads if head.key not in seen]
        freight.copies, freight.heads = len(freight.heads) - len(new), new
        seen.update(head.key for head in new)


def _from_parcel(options: argparse.Namespace) -> Freight:
    """Checked from its first byte to its last before anything of it is delivered."""
    path = options.parcel
    parcel.check(path)
    heads = list(chosen(map(_head, parcel.read(path)), choice_of(options)))
    return Freight(path, heads, _Lines(path).load, options.ledger or ledger_beside(path))


def _head(envelope: Envelope) -> Head:
    names = (envelope.seq, envelope.topic, envelope.place, envelope.key, envelope.records)
    return Head(*names, len(envelope.body), envelope.created_at, int(envelope.doubtful), None)


class _Lines:
    """The envelopes of an export by their keys: asked for in its order, but for a few that are asked for again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, Envelope] = {}
        self._coming: Iterator[Envelope] = iter(())

    def load(self, head: Head) -> Envelope:
        """Raises ParcelDamaged when the file is another one now."""
        for coming in (self._coming, parcel.read(self._path)):
            if head.key in self._held:
                break
            self._coming = coming
            for envelope in coming:
                self._hold(envelope)
                if envelope.key == head.key:
                    break
        if head.key not in self._held:
            raise ParcelDamaged(f"{self._path}: {head.key} is not in it any more")
        return self._held[head.key]

    def _hold(self, envelope: Envelope) -> None:
        if len(self._held) >= HELD:
            self._held.pop(next(iter(self._held)))
        self._held[envelope.key] = envelope
