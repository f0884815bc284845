"""Puts the parts together. The only file that knows every concrete part; it runs nothing."""

from __future__ import annotations

import logging
import os
import queue
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent import sources
from agent.backoff import RECONNECT_BASE_S, RECONNECT_CAP_S, Backoff
from agent.clock import Clock
from agent.collector import Collector
from agent.command_book import CommandBook
from agent.command_desk import CommandDesk, is_paused
from agent.command_log import CommandLog
from agent.commands import Command, addressees
from agent.conductor import Conductor, Inbox
from agent.config import remote
from agent.config.layers import Layers
from agent.config.schema import Config, WatchConfig
from agent.cost import Meter
from agent.errors import RemoteChangesUnusable
from agent.flusher import Flusher
from agent.heartbeat import Heartbeat
from agent.logs import tell
from agent.pulse import PACE_S, SLACK_S, Pulse, thread_of
from agent.reconfigure import Reconfiguration
from agent.repeats import Repeats
from agent.sd_notify import SdNotify, from_environment
from agent.sinks import QUERIES, TOPICS, Sink
from agent.sinks.http import HttpSink
from agent.sources import Source, SourceSettings
from agent.status import Scoreboard
from agent.status_door import StatusDoor
from agent.transport import READ_TIMEOUT_S, TOTAL_TIMEOUT_S, Transport
from agent.vigil import Vigil
from agent.watch import Watch
from agent.watch_loop import Room, WatchLoop, WatchParts, Word
from storage.bodies import describe
from storage.envelope import Tally
from storage.lock import DirectoryLock
from storage.outbox import Outbox

# More than one answer of the backend holds. A watch that hangs is handed its commands again with each heartbeat; what
# does not fit is left to a later one.
INBOX_WORDS = 1_000
HEARTBEAT_TIMEOUT_S = 15.0  # half the usual interval, so that a beat that hangs does not cost the next


@dataclass(slots=True)
class Parts:
    """What a test may hand in instead of the real thing; `sources` by the names of the watches.

    `inbox`, `lock`: of an agent before in this process. The lock stays held also when nothing can be built.
    """

    clock: Clock = field(default_factory=Clock)
    rng: random.Random = field(default_factory=random.SystemRandom)
    sources: Mapping[str, Source] = field(default_factory=dict)
    sink: Sink | None = None
    systemd: SdNotify = field(default_factory=lambda: from_environment(os.environ))
    inbox: Inbox = field(default_factory=queue.SimpleQueue)
    lock: DirectoryLock | None = None
    slack_s: float = SLACK_S
    pace_s: float = PACE_S


@dataclass(frozen=True, slots=True)
class Agent:
    """A whole agent, ready to run; `close` gives outbox and lock back."""

    conductor: Conductor
    watches: tuple[WatchLoop, ...]
    flusher: Flusher
    heartbeat: Heartbeat
    door: StatusDoor
    outbox: Outbox
    board: Scoreboard
    reconfiguration: Reconfiguration
    lock: DirectoryLock

    def close(self) -> None:
        """Closes what is open; everything acknowledged is on the disk already."""
        self.close_but_lock()
        self.lock.release()

    def close_but_lock(self) -> None:
        """The same, and nobody else can begin here: whoever follows takes over `lock`."""
        self.reconfiguration.end()
        self.door.close()
        self.outbox.close()


@dataclass(frozen=True, slots=True)
class _Common:
    """What the watches have in common; `pulses` by their names."""

    config: Config
    parts: Parts
    outbox: Outbox
    board: Scoreboard
    book: CommandBook
    command_log: CommandLog
    reconfiguration: Reconfiguration
    pulses: Mapping[str, Pulse]
    on_saved: Callable[[], None]


def make_source(
    config: Config, name: str, clock: Clock, pulse: Pulse | None = None, *, may_rotate: bool = True
) -> Source:
    """The source that the configuration asks for in the watch of that name; it beats the pulse."""
    step = (pulse or Pulse(thread_of(name), clock)).beat
    watch = config.watch(name)
    db = watch.db_config if may_rotate else watch.db_config.model_copy(update={"rotate": False})
    settings = SourceSettings(watch=name, db=db, port=watch.port, step=step, redact=config.redact, meter=Meter(clock))
    return sources.find(watch.db_type)(settings, clock)


def build(config: Config, layers: Layers, parts: Parts | None = None) -> Agent:
    """Takes the lock, opens the outbox and connects the parts; starts nothing and talks to nobody.

    Raises OutboxLocked, OutboxForeign, OutboxNewer, OutboxInaccessible, OutboxNotDurable, OutboxFull.
    """
    parts = parts or Parts()
    lock = parts.lock or DirectoryLock(layers.data_dir)
    try:
        board = Scoreboard(parts.clock.monotonic())
        outbox = Outbox(
            layers.data_dir,
            topics=TOPICS,
            now=parts.clock.unix,
            describe=describe,
            on_books=_books_to(board),
            on_gaps=board.has_lost,
            on_loss=_losses_told(parts.clock),
        )
    except BaseException:
        if parts.lock is None:
            lock.release()
        raise
    _put_aside(layers, board, parts.clock)
    sink = parts.sink or HttpSink(make_transport(config), config.collector_id, parts.clock)
    flusher = Flusher(outbox, sink, board, clock=parts.clock, rng=parts.rng, hold_s=config.heartbeat_interval)
    inboxes: dict[str, queue.SimpleQueue[Word]] = {each.name: queue.SimpleQueue() for each in config.watches}
    heartbeat = make_heartbeat(config, parts, board, give=lambda command: _hand_on(command, inboxes))

    def on_config(changed: Config) -> None:
        board.remote_changes = None
        heartbeat.set_interval(changed.heartbeat_interval)
        flusher.set_hold(changed.heartbeat_interval)

    pulses = {name: Pulse(thread_of(name), parts.clock) for name in inboxes}
    reconfiguration = Reconfiguration(
        config, layers, lambda changed, name: make_source(changed, name, parts.clock, pulses[name]), on_config
    )
    common = _Common(
        config=config,
        parts=parts,
        outbox=outbox,
        board=board,
        book=CommandBook(outbox, config.collector_id, tuple(inboxes), parts.clock.unix),
        command_log=CommandLog(layers.data_dir, parts.clock.now),
        reconfiguration=reconfiguration,
        pulses=pulses,
        on_saved=flusher.wake,
    )
    watches = tuple(_watch_loop(each, common, inboxes[each.name]) for each in config.watches)
    door = StatusDoor(layers.data_dir, board, parts.clock)
    everyone = *pulses.values(), flusher.pulse, heartbeat.pulse, door.pulse
    vigil = Vigil(everyone, board, parts.systemd, parts.clock, slack_s=parts.slack_s, pace_s=parts.pace_s)
    conductor = Conductor(watches, flusher, heartbeat, door, vigil, clock=parts.clock, inbox=parts.inbox)
    return Agent(conductor, watches, flusher, heartbeat, door, outbox, board, reconfiguration, lock)


def _put_aside(layers: Layers, board: Scoreboard, clock: Clock) -> None:
    if not layers.unusable:
        return
    error = RemoteChangesUnusable(layers.unusable)
    try:
        kept = str(remote.put_aside(layers.data_dir, clock.now()))
    except OSError:  # another one takes its place when the backend changes something
        kept = str(layers.data_dir / remote.FILE_NAME)
    tell(logging.WARNING, "remote.unusable", str(error), code=error.code, kept=kept)
    board.remote_changes = str(error)


def _hand_on(command: Command, inboxes: Mapping[str, queue.SimpleQueue[Word]]) -> None:
    for name in addressees(command, tuple(inboxes)):
        if inboxes[name].qsize() < INBOX_WORDS:
            inboxes[name].put(command)


def make_heartbeat(config: Config, parts: Parts, board: Scoreboard, *, give: Callable[[Command], None]) -> Heartbeat:
    """The heartbeat, with a connection of its own; `give` hears the commands."""
    return Heartbeat(
        make_transport(config, read_timeout_s=HEARTBEAT_TIMEOUT_S, total_timeout_s=HEARTBEAT_TIMEOUT_S),
        config.collector_id,
        board,
        interval_s=config.heartbeat_interval,
        clock=parts.clock,
        rng=parts.rng,
        give=give,
    )


def _watch_loop(own: WatchConfig, common: _Common, inbox: queue.SimpleQueue[Word]) -> WatchLoop:
    name, outbox, clock, board = own.name, common.outbox, common.parts.clock, common.board
    watch = Watch(
        interval_s=own.collection_interval,
        paused=is_paused(outbox, name, common.config.remote_config),
        now_s=clock.monotonic(),
        backoff=Backoff(RECONNECT_BASE_S, RECONNECT_CAP_S, common.parts.rng),
        max_load=own.db_config.max_load,
        on_enter=lambda _: _entered(board, clock, name, watch),
    )
    board.report(name, state=watch.state, since=clock.now())
    shared = common.book, common.command_log, common.reconfiguration
    desk = CommandDesk(watch, outbox, *shared, name=name, now_s=clock.monotonic)
    batch, pulse = common.config.outbox, common.pulses[name]
    return WatchLoop(
        WatchParts(
            name=name,
            inbox=inbox,
            watch=watch,
            source=common.parts.sources.get(name) or make_source(common.config, name, clock, pulse),
            collector=Collector(
                outbox,
                name,
                batch_max_records=batch.batch_max_records,
                batch_max_bytes=batch.batch_max_bytes,
                now_s=clock.monotonic,
            ),
            desk=desk,
            outbox=outbox,
            room=Room(batch.max_bytes, batch.min_free_bytes),
            board=board,
            clock=clock,
            pulse=pulse,
            on_saved=common.on_saved,
        )
    )


def _entered(board: Scoreboard, clock: Clock, name: str, watch: Watch) -> None:
    state, reason = watch.state, watch.reason
    board.report(name, state=state, reason=reason, since=clock.now())
    tell(logging.DEBUG, "watch.entered", f"State {state}", watch=name, state=state, reason=reason)


def make_transport(
    config: Config,
    *,
    as_collector: bool = True,
    read_timeout_s: float = READ_TIMEOUT_S,
    total_timeout_s: float = TOTAL_TIMEOUT_S,
) -> Transport:
    """A connection to the backend that the configuration names, as it says that it is to be reached and known.

    `as_collector`: with its key; else for a person, who brings a token.
    """
    return Transport(
        config.backend_url,
        config.api_key.get_secret_value() if as_collector else None,
        tls=config.tls,
        proxy=None if config.proxy is None else config.proxy.get_secret_value(),
        read_timeout_s=read_timeout_s,
        total_timeout_s=total_timeout_s,
    )


def _losses_told(clock: Clock) -> Callable[[str], None]:
    repeats = Repeats(clock.monotonic)

    def say(sentence: str) -> None:
        repeats.tell(logging.ERROR, "outbox.damaged", sentence)

    return say


def _books_to(board: Scoreboard) -> Callable[[str, Tally], None]:
    def take(topic: str, books: Tally) -> None:
        if topic == QUERIES:
            board.books = books

    return take
