"""Where an agent waits that finds no room on the disk at its start: it says so to the backend, and tries again."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from agent import wiring
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.logs import tell
from agent.status import LinkStatus, Scoreboard
from agent.worker import Worker
from storage.errors import OutboxFull

TRY_S = 5.0
LEAVE_S = 2.0


def build_when_there_is_room(config: Config, layers: Layers, parts: wiring.Parts | None = None) -> wiring.Agent:
    """The agent, as soon as its outbox can be opened. Until then heartbeats go out; a signal ends the waiting.

    Raises what `wiring.build` raises, except OutboxFull.
    """
    parts = parts or wiring.Parts()
    try:
        return wiring.build(config, layers, parts)
    except OutboxFull as full:
        tell(logging.WARNING, "outbox.no_room", str(full))
        return _wait(config, layers, parts, full)


def _wait(config: Config, layers: Layers, parts: wiring.Parts, full: OutboxFull) -> wiring.Agent:
    board = Scoreboard(parts.clock.monotonic())
    # Commands are left where they are: the backend hands them out again.
    heartbeat = wiring.make_heartbeat(config, parts, board, give=lambda _: None)
    worker = Worker("heartbeat", heartbeat.run, lambda _: None)
    pause = threading.Event()  # never set: a wait that a signal ends
    board.delivery = LinkStatus(error=str(full))
    worker.start()
    try:
        while True:
            parts.systemd.ready()
            parts.systemd.alive()
            pause.wait(TRY_S)
            try:
                return wiring.build(config, layers, parts)
            except OutboxFull as still:
                board.delivery = replace(board.delivery, error=str(still))
    finally:
        heartbeat.stop()
        worker.join(LEAVE_S)
