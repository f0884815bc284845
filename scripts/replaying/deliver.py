"""Delivers what replay.py was told to, and sums up. The work is agent.replay's."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field

from agent import logs
from agent.clock import Clock
from agent.errors import ReplayGivenUp
from agent.replay.acknowledge import acknowledge
from agent.replay.cargo import Account, Cargo, parts
from agent.replay.ledger import Ledger, known
from agent.replay.replay import Replay, takes_bulk_calls
from agent.sinks.http import HttpSink
from scripts.replaying.freight import Freight, freights
from scripts.replaying.meant import FOUND, STOPPED, UNUSABLE
from scripts.replaying.recipient import Recipient, recipient
from scripts.replaying.shown import shown
from scripts.replaying.verify import verify


@dataclass(slots=True)
class Outcome:
    """What became of one freight, in records. `waiting`: left; `removed`: from the outbox. `error`: why it ended."""

    account: Account = field(default_factory=Account)
    waiting: int = 0
    removed: int = 0
    was_stopped: bool = False
    error: ReplayGivenUp | None = None


def deliver(options: argparse.Namespace) -> int:
    """Everything but an export; gives the exit code."""
    logs.set_up(options.log_level, options.log_format)  # by default what is worth saying is said here
    with ExitStack() as stack:
        found, skipped = freights(options, stack)
        if options.dry_run:
            code = _dry_run(found, options)
        else:
            to = recipient(options, os.environ)
            code = verify(found, to, options) if options.verify else _deliver(found, to, options)
        wrong = [*skipped, *(sentence for each in found for sentence in each.wrong)]
        print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
        return code or (FOUND if wrong else 0)


def _dry_run(found: Sequence[Freight], options: argparse.Namespace) -> int:
    told = []
    for freight in found:
        of = known(freight.ledger).get
        left = [
            records
            for head in freight.heads
            if (records := sum(part.records for part in parts(head, of) if not part.is_settled(again=options.parked)))
        ]
        told.append({"outbox": str(freight.path), "envelopes": len(left), "records": sum(left)})
    if options.json:
        print(json.dumps({"outboxes": told}))
    for each in () if options.json else told:
        print(f"{each['outbox']}: {each['records']:,} records in {each['envelopes']:,} envelopes would be delivered")
    return 0


def _deliver(found: Sequence[Freight], to: Recipient, options: argparse.Namespace) -> int:
    outcomes: list[Outcome] = []
    left = options.limit
    for freight in found:
        outcome = _deliver_one(freight, to, options, left)
        outcomes.append(outcome)
        if not options.json:
            print(_sentence(freight, outcome))
        left = None if left is None else left - outcome.account.delivered - outcome.account.parked
        if outcome.was_stopped or outcome.error is not None or (left is not None and left <= 0):
            break
    if options.json:
        told = [_as_json(each, outcome) for each, outcome in zip(found, outcomes, strict=False)]
        print(json.dumps({"outboxes": told}))
    return _code(outcomes, has_more=len(outcomes) < len(found))


def _code(outcomes: Sequence[Outcome], *, has_more: bool) -> int:
    last = outcomes[-1] if outcomes else Outcome()
    if last.error is not None:
        print(last.error, file=sys.stderr)
        return UNUSABLE
    if last.was_stopped and (last.waiting or has_more):
        print(STOPPED, file=sys.stderr)
        return FOUND
    return FOUND if any(each.account.parked for each in outcomes) else 0


def _deliver_one(freight: Freight, to: Recipient, options: argparse.Namespace, limit: int | None) -> Outcome:
    clock, outcome = Clock(), Outcome()
    with (
        closing(Ledger(freight.ledger, f"{to.url} {to.collector}")) as ledger,
        closing(to.make_transport()) as transport,
    ):
        cargo = Cargo(freight.heads, freight.load, ledger, again=options.parked, limit=limit)
        outcome.account = cargo.account
        with shown(freight.path.name, cargo.waiting, quiet=options.json) as tell:
            replay = Replay(
                cargo,
                HttpSink(transport, to.collector, clock),
                clock=clock,
                rng=random.SystemRandom(),
                probe=lambda: takes_bulk_calls(transport, clock),
                rate=options.rate,
                tell=tell,
            )
            try:
                with _interruptible(replay):
                    replay.run()
            except ReplayGivenUp as error:
                outcome.error = error
        outcome.waiting, outcome.was_stopped = cargo.waiting, replay.was_stopped
        freight.wrong += cargo.unreadable
        if options.ack:
            outcome.removed = acknowledge(freight.path.parent, freight.heads, ledger, freight.wrong.append)
    return outcome


@contextmanager
def _interruptible(replay: Replay) -> Iterator[None]:
    """The first signal ends it behind the envelope that is on its way, the second one at once."""

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        replay.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_json(freight: Freight, outcome: Outcome) -> dict[str, object]:
    error = None if outcome.error is None else str(outcome.error)
    rest = {"waiting": outcome.waiting, "removed": outcome.removed, "copies": freight.copies, "error": error}
    return {"outbox": str(freight.path), **asdict(outcome.account), **rest, "wrong": freight.wrong}


def _sentence(freight: Freight, outcome: Outcome) -> str:
    account = outcome.account
    text = f"{freight.path}: delivered {account.delivered:,}, before {account.before:,}, refused {account.parked:,}"
    if account.possible_duplicates:
        text += f", of them {account.possible_duplicates:,} perhaps for the second time"
    text += f", waiting {outcome.waiting:,}" if outcome.waiting else ""
    text += f"; {outcome.removed:,} records have left the outbox" if outcome.removed else ""
    return text + (f"; {freight.copies:,} envelopes stand in another of these files too" if freight.copies else "")
