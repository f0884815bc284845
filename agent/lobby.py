"""Where an agent waits whose outbox cannot be opened at its start for a reason that may heal: a full disk above all.

It says so to the backend, and tries again.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from agent import wiring
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.logs import tell
from agent.status import LinkStatus, Scoreboard
from agent.status_door import StatusDoor
from agent.worker import Worker
from storage.errors import OutboxBroken, OutboxDamaged, OutboxError, OutboxFull

_MAY_HEAL = (OutboxFull, OutboxBroken, OutboxDamaged)
TRY_S = 5.0
LEAVE_S = 2.0


def build_when_there_is_room(config: Config, layers: Layers, parts: wiring.Parts | None = None) -> wiring.Agent:
    """The agent, as soon as its outbox can be opened. Until then heartbeats go out; a signal ends the waiting.

    Raises OutboxLocked, OutboxForeign, OutboxNewer, OutboxInaccessible, OutboxNotDurable: these a person has to mend.
    """
    parts = parts or wiring.Parts()
    try:
        return wiring.build(config, layers, parts)
    except _MAY_HEAL as error:
        tell(logging.WARNING, "outbox.not_open", f"Waiting for the outbox: {error}")
        return _wait(config, layers, parts, error)


def _wait(config: Config, layers: Layers, parts: wiring.Parts, error: OutboxError) -> wiring.Agent:
    board = Scoreboard(parts.clock.monotonic())
    # Commands are left where they are: the backend hands them out again.
    heartbeat = wiring.make_heartbeat(config, parts, board, give=lambda _: None)
    died = threading.Event()
    worker = Worker("heartbeat", heartbeat.run, lambda _: died.set())
    door = StatusDoor(layers.data_dir, board, parts.clock)
    keeper = Worker("status", door.run, lambda _: None)
    pause = threading.Event()  # never set: a wait that a signal ends
    board.delivery = LinkStatus(error=str(error))
    worker.start()
    keeper.start()
    try:
        while True:
            parts.systemd.ready()
            if not died.is_set():  # without its heartbeat nobody hears why it does not get on
                parts.systemd.alive()
            pause.wait(TRY_S)
            try:
                return wiring.build(config, layers, parts)
            except _MAY_HEAL as still:
                board.delivery = replace(board.delivery, error=str(still))
    finally:
        heartbeat.stop()
        door.stop()
        worker.join(LEAVE_S)
        if keeper.join(LEAVE_S):
            door.close()
