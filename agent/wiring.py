"""Puts the parts together. The only file that knows every concrete part; it runs nothing."""

from __future__ import annotations

import logging
import os
import queue
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from agent import sources
from agent.backoff import RECONNECT_BASE_S, RECONNECT_CAP_S, Backoff
from agent.clock import Clock
from agent.collector import Collector, describe
from agent.command_desk import PAUSED_NOTE, CommandDesk
from agent.commands import Command
from agent.conductor import Conductor
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.cost import Meter
from agent.flusher import Flusher
from agent.heartbeat import Heartbeat
from agent.logs import tell
from agent.pulse import PACE_S, SLACK_S, Pulse, thread_of
from agent.reconfigure import Reconfiguration
from agent.sd_notify import SdNotify, from_environment
from agent.sinks import QUERIES, TOPICS, Sink
from agent.sinks.http import HttpSink
from agent.sources import Source, SourceSettings
from agent.status import Scoreboard
from agent.transport import Transport
from agent.vigil import Vigil
from agent.watch import Watch
from agent.watch_loop import Room, WatchLoop, WatchParts, Word
from storage.envelope import Tally
from storage.lock import DirectoryLock
from storage.outbox import Outbox

WATCH = "default"
HEARTBEAT_TIMEOUT_S = 15.0  # half the usual interval, so that a beat that hangs does not cost the next


@dataclass(slots=True)
class Parts:
    """What a test may hand in instead of the real thing."""

    clock: Clock = field(default_factory=Clock)
    rng: random.Random = field(default_factory=random.SystemRandom)
    source: Source | None = None
    sink: Sink | None = None
    systemd: SdNotify = field(default_factory=lambda: from_environment(os.environ))
    slack_s: float = SLACK_S
    pace_s: float = PACE_S


@dataclass(frozen=True, slots=True)
class Agent:
    """A whole agent, ready to run; `close` gives outbox and lock back."""

    conductor: Conductor
    watch: WatchLoop
    flusher: Flusher
    heartbeat: Heartbeat
    outbox: Outbox
    board: Scoreboard
    lock: DirectoryLock

    def close(self) -> None:
        """Closes what is open; everything acknowledged is on the disk already."""
        self.outbox.close()
        self.lock.release()


def make_source(config: Config, clock: Clock, pulse: Pulse | None = None) -> Source:
    """The source that the configuration asks for; it beats the pulse."""
    step = (pulse or Pulse(thread_of(WATCH), clock)).beat
    settings = SourceSettings(watch=WATCH, db=config.db_config, port=config.db_port, step=step, meter=Meter(clock))
    return sources.find(config.db_type)(settings, clock)


def build(config: Config, layers: Layers, parts: Parts | None = None) -> Agent:
    """Takes the lock, opens the outbox and connects the parts; starts nothing and talks to nobody.

    Raises OutboxLocked, OutboxForeign, OutboxNewer, OutboxInaccessible, OutboxNotDurable, OutboxFull.
    """
    parts = parts or Parts()
    lock = DirectoryLock(layers.data_dir)
    try:
        board = Scoreboard(parts.clock.monotonic())
        outbox = Outbox(
            layers.data_dir,
            topics=TOPICS,
            now=parts.clock.unix,
            describe=describe,
            on_books=_books_to(board),
            on_gaps=board.has_lost,
            on_loss=lambda sentence: tell(logging.ERROR, "outbox.damaged", sentence),
        )
    except BaseException:
        lock.release()
        raise
    sink = parts.sink or HttpSink(_transport(config), config.collector_id, parts.clock)
    flusher = Flusher(outbox, sink, board, clock=parts.clock, rng=parts.rng, hold_s=config.heartbeat_interval)
    inbox: queue.SimpleQueue[Word] = queue.SimpleQueue()
    heartbeat = make_heartbeat(config, parts, board, give=inbox.put)

    def on_config(changed: Config) -> None:
        heartbeat.set_interval(changed.heartbeat_interval)
        flusher.set_hold(changed.heartbeat_interval)

    watch = _watch_loop(
        config, layers, parts, inbox=inbox, outbox=outbox, board=board, on_saved=flusher.wake, on_config=on_config
    )
    pulses = watch.pulse, flusher.pulse, heartbeat.pulse
    vigil = Vigil(pulses, board, parts.systemd, parts.clock, slack_s=parts.slack_s, pace_s=parts.pace_s)
    conductor = Conductor([watch], flusher, heartbeat, vigil, clock=parts.clock)
    return Agent(conductor, watch, flusher, heartbeat, outbox, board, lock)


def make_heartbeat(config: Config, parts: Parts, board: Scoreboard, *, give: Callable[[Command], None]) -> Heartbeat:
    """The heartbeat, with a connection of its own; `give` hears the commands."""
    return Heartbeat(
        _transport(config, read_timeout_s=HEARTBEAT_TIMEOUT_S, total_timeout_s=HEARTBEAT_TIMEOUT_S),
        config.collector_id,
        board,
        interval_s=config.heartbeat_interval,
        clock=parts.clock,
        rng=parts.rng,
        give=give,
    )


def _watch_loop(
    config: Config,
    layers: Layers,
    parts: Parts,
    *,
    inbox: queue.SimpleQueue[Word],
    outbox: Outbox,
    board: Scoreboard,
    on_saved: Callable[[], None],
    on_config: Callable[[Config], None],
) -> WatchLoop:
    watch = Watch(
        interval_s=config.collection_interval,
        paused=outbox.note(f"{PAUSED_NOTE}/{WATCH}") is not None,
        now_s=parts.clock.monotonic(),
        backoff=Backoff(RECONNECT_BASE_S, RECONNECT_CAP_S, parts.rng),
        max_load=config.db_config.max_load,
        on_enter=lambda state: _entered(board, watch, state),
    )
    board.report(WATCH, state=watch.state)
    pulse = Pulse(thread_of(WATCH), parts.clock)
    reconfiguration = Reconfiguration(config, layers, lambda changed: make_source(changed, parts.clock, pulse))
    desk = CommandDesk(watch, outbox, reconfiguration, name=WATCH, now_s=parts.clock.monotonic, on_config=on_config)
    batch = config.outbox
    return WatchLoop(
        WatchParts(
            name=WATCH,
            inbox=inbox,
            watch=watch,
            source=parts.source or make_source(config, parts.clock, pulse),
            collector=Collector(
                outbox, WATCH, batch_max_records=batch.batch_max_records, batch_max_bytes=batch.batch_max_bytes
            ),
            desk=desk,
            outbox=outbox,
            room=Room(batch.max_bytes, batch.min_free_bytes),
            board=board,
            clock=parts.clock,
            pulse=pulse,
            on_saved=on_saved,
        )
    )


def _entered(board: Scoreboard, watch: Watch, state: str) -> None:
    board.report(WATCH, state=state, reason=watch.reason)
    tell(logging.DEBUG, "watch.entered", f"State {state}", state=state, reason=watch.reason)


def _transport(config: Config, **options: float) -> Transport:
    return Transport(config.backend_url, config.api_key.get_secret_value(), **options)


def _books_to(board: Scoreboard) -> Callable[[str, Tally], None]:
    def take(topic: str, books: Tally) -> None:
        if topic == QUERIES:
            board.books = books

    return take
