"""One collection and one drain, without threads: `once` and `once --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent import wiring
from agent.clock import Clock
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.machine import PAUSED
from agent.record import to_wire
from storage.errors import CodedError
from storage.view import OutboxView


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to, in records; `paused`: the backend wants no collection; `errors`: what was not reached."""

    collected: int
    delivered: int
    waiting: int
    parked: int
    paused: bool
    errors: tuple[CodedError, ...]


def collect_and_deliver(config: Config, layers: Layers, parts: wiring.Parts | None = None) -> Outcome:
    """Looks once, unless collecting is paused, and sends until the outbox is empty or the backend takes no more."""
    agent = wiring.build(config, layers, parts)
    try:
        before = agent.board.books
        paused = agent.board.watch(wiring.WATCH).state == PAUSED
        failed = None if paused else agent.watch.look()
        agent.watch.close()
        agent.heartbeat.beat()  # a wrong key or address shows, also when nothing is waiting
        while agent.flusher.step() == 0:
            pass
        after = agent.board.books
        return Outcome(
            collected=after.captured - before.captured,
            delivered=after.delivered - before.delivered,
            waiting=after.pending,
            parked=after.parked,
            paused=paused,
            errors=_different(failed, agent.heartbeat.error, agent.flusher.error),
        )
    finally:
        agent.close()


def _different(*errors: CodedError | None) -> tuple[CodedError, ...]:
    found = {error.code: error for error in errors if error is not None}
    return tuple(found.values())


def preview(config: Config, layers: Layers) -> Iterator[str]:
    """What would leave, one JSON object a line; reads from the saved bookmark and saves nothing.

    Raises DatabaseAway or SetupError.
    """
    with OutboxView(layers.data_dir) as outbox:
        bookmark = outbox.bookmark(wiring.WATCH)
    reading_only = config.db_config.model_copy(update={"rotate": False})
    source = wiring.make_source(config.model_copy(update={"db_config": reading_only}), Clock())
    try:
        for reading in source.read(bookmark):
            for record in reading.records:
                yield to_wire(record).decode()
    finally:
        source.close()
