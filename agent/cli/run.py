"""The word `run`: one agent after the other in this process, each with the configuration of its time, until the end."""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from agent import __version__, conductor, lobby, logs, wiring
from agent.cli.options import FOUND, tell_exposed
from agent.config.schema import Config
from agent.core_dumps import forbid_core_dumps
from agent.renewal import Read, Renewed, newest, renewed
from agent.signals import Signals
from agent.thrift import be_thrifty
from agent.transport import is_plain
from agent.worker import Worker


def run_until_the_end(read: Read, path: Path, *, may_dump: bool = False) -> None:
    """Returns, or ends the process, after SIGTERM or SIGINT. Raises ConfigError and OutboxError of the start.

    `path`: the configuration file; `may_dump`: a crash may leave a core.
    """
    be_thrifty()
    if not may_dump:
        forbid_core_dumps()
    inbox: conductor.Inbox = queue.SimpleQueue()
    signals = Signals(inbox.put)
    now = Renewed(*read())
    if sys.stderr is not None:
        faulthandler.enable()  # SIGABRT, by which systemd's watchdog ends us, then shows where each thread was
    parts, left, event = wiring.Parts(inbox=inbox), list[Worker](), "agent.started"
    while True:
        logs.set_up(now.config.log.level, now.config.log.format)
        agent = lobby.build_when_there_is_room(now.config, now.layers, parts)
        signals.put_words()
        _tell(event, now)
        tell_exposed(path)
        _warn_of(now.config)
        ended = agent.conductor.run(partial(_renewed, read, agent, now))
        left = [worker for worker in (*left, *ended.late) if not worker.join(0)]
        if ended.renewed is None:
            break
        _close(agent)
        signals.end_at_once()
        if conductor.is_to_stop(inbox):
            logs.tell(logging.INFO, "agent.stopped", "Stopped")
            _leave(left)
            return
        now, event = newest(read, ended.renewed), "agent.reloaded"
        parts = wiring.Parts(inbox=inbox, lock=agent.lock)
    # Closing syncs as well, and a slow disk takes its time for it.
    if ended.late or not agent.conductor.finish(agent.close):
        conductor.abandon()
    _leave(left)


def _leave(left: Sequence[Worker]) -> None:
    """The end of everything, also of what an earlier agent has left behind and what hangs as before."""
    if not all(worker.join(0) for worker in left):
        conductor.abandon()


def _renewed(read: Read, agent: wiring.Agent, now: Renewed) -> Renewed | None:
    """Compared with what is in force by now: commands have changed it."""
    return renewed(read, Renewed(agent.reconfiguration.config, now.layers))


def _close(agent: wiring.Agent) -> None:
    """Gives everything up for the next agent. What hangs has the disk, and no other could work beside it."""
    if not agent.conductor.finish(agent.close_but_lock):
        logs.tell(logging.ERROR, "agent.abandoned", "The outbox cannot be closed: the disk hangs; this process ends")
        conductor.abandon(FOUND)


def _tell(event: str, now: Renewed) -> None:
    logs.tell(
        logging.INFO,
        event,
        f"Watching {_watched(now.config)} for {now.config.backend_url}",
        watches=[watch.name for watch in now.config.watches],
        version=__version__,
        pid=os.getpid(),
        data_dir=str(now.layers.data_dir),
    )


def _watched(config: Config) -> str:
    several = len(config.watches) > 1
    return ", ".join(
        f"{f'{each.name}: ' if several else ''}{each.db_type} at {_host(each.db_config.host)}:{each.port}"
        for each in config.watches
    )


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _warn_of(config: Config) -> None:
    """Says once what the way to the backend lacks."""
    url = config.backend_url
    if is_plain(url):
        sentence = f"What goes to {url} is not encrypted, the API key neither; use https"
        logs.tell(logging.WARNING, "backend.plain", sentence)
    elif url.lower().startswith("https:") and not config.tls.verify:
        sentence = f"Nobody knows whether it is {url} that is spoken to: tls.verify is false"
        logs.tell(logging.WARNING, "backend.unverified", sentence)
