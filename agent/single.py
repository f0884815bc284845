"""One collection of each watch and one drain, without threads: `once` and `once --dry-run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agent import wiring
from agent.clock import Clock
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.machine import PAUSED
from agent.record import to_wire
from agent.source_errors import SourceError
from storage.errors import CodedError
from storage.plain import plain_json
from storage.view import OutboxView


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to, in records. `paused`: the watches of which the backend wants no collection; `errors`:
    sentences about what was not reached."""

    collected: int
    delivered: int
    waiting: int
    parked: int
    paused: tuple[str, ...]
    errors: tuple[str, ...]


def collect_and_deliver(config: Config, layers: Layers, parts: wiring.Parts | None = None) -> Outcome:
    """Looks once for each watch, unless it is paused, and sends until the outbox is empty or the backend takes no more.

    One after the other; a database that is not reached keeps none of the others from being read.
    """
    agent = wiring.build(config, layers, parts)
    try:
        before = agent.board.books
        paused = tuple(watch.name for watch in agent.watches if agent.board.watch(watch.name).state == PAUSED)
        failed: list[tuple[str, CodedError | None]] = []
        for watch in agent.watches:
            if watch.name not in paused:
                failed.append((watch.name, watch.look()))
            watch.close()
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
            errors=_told(config, [*failed, ("", agent.heartbeat.error), ("", agent.flusher.error)]),
        )
    finally:
        agent.close()


def _told(config: Config, errors: Sequence[tuple[str, CodedError | None]]) -> tuple[str, ...]:
    """Each trouble once: of a database with the name of its watch, when there are several."""
    several = len(config.watches) > 1
    found = {}
    for name, error in errors:
        if error is not None:
            whose = f"{name}: " if several and isinstance(error, SourceError) else ""
            found[whose, error.code] = f"{whose}{error}"
    return tuple(found.values())


def preview(config: Config, layers: Layers, tell_failed: Callable[[str], object]) -> Iterator[str]:
    """What would leave, one JSON object a line; reads from the saved bookmarks and saves nothing.

    `tell_failed` hears a sentence for each database that could not be read; the others are.
    """
    with OutboxView(layers.data_dir) as outbox:
        bookmarks = {watch.name: outbox.bookmark(watch.name) for watch in config.watches}
    for name, bookmark in bookmarks.items():
        source = wiring.make_source(config, name, Clock(), may_rotate=False)
        try:
            for reading in source.read(bookmark):
                for record in reading.records:
                    yield plain_json(to_wire(record).decode())
        except SourceError as error:
            for sentence in _told(config, [(name, error)]):
                tell_failed(sentence)
        finally:
            source.close()
