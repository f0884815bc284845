"""An agent whose source and sink are files of the test, so that a thread can be frozen where no timeout reaches.

`python -m tests.servers.frozen_agent CONFIG THREAD SLACK_S` runs it until SIGTERM. As long as there is a FIFO called
`door` beside the configuration, the thread (`watch`, `flusher` or `heartbeat`) opens it, and the kernel keeps it there
until somebody opens the other end. A step may take SLACK_S seconds, not minutes, so that the test need not wait.
"""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path

from agent import conductor, flusher, heartbeat, logs, wiring
from agent.commands import Command
from agent.config.layers import load
from agent.signals import Signals
from tests.fakes.sink import FakeSink
from tests.fakes.source import FakeSource

DOOR = "door"
PACE_S = 0.1


def main(config_path: Path, thread: str, slack_s: float) -> None:
    """Runs it."""
    door = config_path.parent / DOOR

    def freeze(*_: object) -> None:
        if door.exists():
            door.read_bytes()

    config, layers = load(config_path, os.environ, {})
    logs.set_up("INFO", "json")
    source, sink = FakeSource(), FakeSink()
    source.rows = 1
    flusher.SEND_S = heartbeat.BEAT_S = 0.0
    inbox: conductor.Inbox = queue.SimpleQueue()
    parts = wiring.Parts(sources={"default": source}, sink=sink, slack_s=slack_s, pace_s=PACE_S, inbox=inbox)
    agent = wiring.build(config, layers, parts)
    if thread == "watch":
        source.before_read = freeze
    elif thread == "flusher":
        sink.verdict = freeze
        source.before_read = lambda: setattr(source, "rows", source.rows + 1)  # each look gives it something to send
    else:
        give = agent.heartbeat._give

        def freeze_and_give(command: Command) -> None:
            freeze()
            give(command)

        agent.heartbeat._give = freeze_and_give
    Signals(inbox.put).put_words()
    if agent.conductor.run().late:
        conductor.abandon()
    agent.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
