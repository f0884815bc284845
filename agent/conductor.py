"""The main thread of a running agent: starts the others, hears signals, notices who died, ends everything in time."""

from __future__ import annotations

import logging
import os
import queue
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.clock import Clock
from agent.flusher import Flusher
from agent.heartbeat import Heartbeat
from agent.logs import tell
from agent.watch_loop import Stop, WatchLoop
from agent.worker import Worker

DRAIN_S = 5.0  # for the last drain and the farewell beat together
ABANDON_S = 9.0  # then a thread that hangs in a driver or a socket is left behind; what is acknowledged is on the disk
RESTART_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Died:
    name: str


class Conductor:
    """Runs watches, flusher and heartbeat until a signal or `stop`."""

    def __init__(self, watches: Sequence[WatchLoop], flusher: Flusher, heartbeat: Heartbeat, *, clock: Clock) -> None:
        self._watches, self._flusher, self._heartbeat, self._clock = watches, flusher, heartbeat, clock
        self._inbox: queue.SimpleQueue[Stop | _Died] = queue.SimpleQueue()
        self._runs: dict[str, Callable[[], None]] = {watch.name: watch.run for watch in watches}
        self._runs |= {"flusher": flusher.run, "heartbeat": heartbeat.run}
        self._workers: dict[str, Worker] = {}

    def stop(self) -> None:
        """Asks for the end; may be called from any thread and from a signal handler."""
        self._inbox.put(Stop())

    def hear_signals(self) -> None:
        """SIGTERM and SIGINT put a word into the inbox and do nothing else."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def run(self) -> bool:
        """Runs until Stop. True when every thread has ended in time; else the caller has to leave them behind."""
        for name in self._runs:
            self._start(name)
        due: dict[str, float] = {}  # who has to be started again, and when
        while True:
            word = self._hear(min(due.values(), default=None))
            if isinstance(word, Stop):
                return self._end()
            if isinstance(word, _Died):
                due[word.name] = self._clock.monotonic() + RESTART_PAUSE_S
            for name in [name for name, at_s in due.items() if at_s <= self._clock.monotonic()]:
                del due[name]
                tell(logging.ERROR, "worker.replaced", f"The thread {name} had died and is started again", thread=name)
                self._start(name)

    def _hear(self, until_s: float | None) -> Stop | _Died | None:
        try:
            return self._inbox.get(timeout=None if until_s is None else max(0.0, until_s - self._clock.monotonic()))
        except queue.Empty:
            return None

    def _start(self, name: str) -> None:
        self._workers[name] = Worker(name, self._runs[name], lambda dead: self._inbox.put(_Died(dead)))
        self._workers[name].start()

    def _end(self) -> bool:
        began_s = self._clock.monotonic()
        tell(logging.INFO, "agent.stopping", "Stopping")
        for watch in self._watches:
            watch.inbox.put(Stop())
        ended = [self._workers[watch.name].join(self._left(began_s, DRAIN_S / 2)) for watch in self._watches]
        self._flusher.stop(began_s + DRAIN_S)
        ended.append(self._workers["flusher"].join(self._left(began_s, DRAIN_S)))
        self._heartbeat.stop()
        ended.append(self._workers["heartbeat"].join(self._left(began_s, ABANDON_S - 2)))
        late = [name for name, worker in self._workers.items() if not worker.join(0)]
        if late:
            tell(logging.WARNING, "agent.abandoned", f"Left behind while hanging: {', '.join(late)}", threads=late)
        tell(logging.INFO, "agent.stopped", "Stopped")
        return not late

    def _left(self, began_s: float, until_s: float) -> float:
        return began_s + until_s - self._clock.monotonic()


def abandon() -> None:
    """Ends the process although threads hang; everything acknowledged is on the disk."""
    logging.shutdown()
    os._exit(0)
