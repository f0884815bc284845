"""What delivering and exporting share: what of which outboxes is meant. Standard library and storage only."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

from storage.bodies import describe
from storage.choice import Choice, chosen, moment, retriable
from storage.errors import OutboxForeign
from storage.reader import Head, OutboxReader, outboxes

FOUND, UNUSABLE = 1, 2
LINE_EVERY_S = 5.0
STOPPED = "Stopped. The same command goes on from here; nothing is sent twice."
CUT = "Stopped at once. The same command goes on from here; what was on its way may have arrived already."


def choice_of(options: argparse.Namespace) -> Choice:
    """What of an outbox is meant. A limit on what is delivered depends on the ledger as well. Raises ChoiceUnclear."""
    return Choice(
        since=moment(options.since) if options.since else None,
        until=moment(options.until) if options.until else None,
        topic=options.topic,
        limit=options.limit if options.export else None,
        order=options.order,
    )


def readers(options: argparse.Namespace, stack: ExitStack) -> tuple[list[OutboxReader], list[str]]:
    """Every outbox that is meant, opened; and what was found in a directory and is none. Raises an OutboxError."""
    opened: list[OutboxReader] = []
    skipped: list[str] = []
    for named in options.outbox:
        paths = outboxes(named)
        for path in paths:
            try:
                opened.append(stack.enter_context(OutboxReader(path, describe, now=time.time())))
            except OutboxForeign as error:
                if len(paths) == 1:
                    raise
                skipped.append(f"left out: {error.sentence}")
    return opened, skipped


def heads_of(reader: OutboxReader, options: argparse.Namespace) -> list[Head]:
    """What is to be taken from it, in order."""
    heads = reader.heads() + (retriable(reader.parked()) if options.parked else [])
    return list(chosen(heads, choice_of(options)))
