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

FLUSHER, HEARTBEAT = "flusher", "heartbeat"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. From the word to stop on: `watch_s` for the watches to save and end, `drain_s` for the last drain and
    the farewell beat to begin, `abandon_s` for everything; what hangs then, in a driver or a socket, is left behind.

    A thread that died is started again after a pause: `restart_s`, doubled up to `restart_cap_s` while it dies at once.
    """

    watch_s: float = 2.5
    drain_s: float = 5.0
    abandon_s: float = 9.0
    restart_s: float = 1.0
    restart_cap_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Died:
    name: str


@dataclass(slots=True)
class _Life:
    """One of the threads, over its restarts. Times are monotonic seconds; `due_s`: when it is to be started again."""

    run: Callable[[], None]
    worker: Worker | None = None
    began_s: float = 0.0
    pause_s: float = 0.0
    due_s: float | None = None

    def join(self, timeout_s: float) -> bool:
        return self.worker is None or self.worker.join(timeout_s)


class Conductor:
    """Runs watches, flusher and heartbeat until a signal or `stop`."""

    def __init__(
        self,
        watches: Sequence[WatchLoop],
        flusher: Flusher,
        heartbeat: Heartbeat,
        *,
        clock: Clock,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._watches, self._flusher, self._heartbeat, self._clock = watches, flusher, heartbeat, clock
        self._deadlines = deadlines or Deadlines()
        self._inbox: queue.SimpleQueue[Stop | _Died] = queue.SimpleQueue()
        # A watch has a name of a person's choice: "flusher", for example.
        self._lives = {_thread_of(watch): _Life(watch.run) for watch in watches}
        self._lives |= {FLUSHER: _Life(flusher.run), HEARTBEAT: _Life(heartbeat.run)}

    def stop(self) -> None:
        """Asks for the end; may be called from any thread and from a signal handler."""
        self._inbox.put(Stop())

    def hear_signals(self) -> None:
        """SIGTERM and SIGINT put a word into the inbox and do nothing else."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def run(self) -> bool:
        """Runs until Stop. True when every thread has ended in time; else the caller has to leave them behind."""
        for name in self._lives:
            self._start(name)
        while True:
            word = self._hear(
                min((life.due_s for life in self._lives.values() if life.due_s is not None), default=None)
            )
            if isinstance(word, Stop):
                return self._end()
            if isinstance(word, _Died):
                self._note_death(self._lives[word.name])
            for name, life in self._lives.items():
                if life.due_s is not None and life.due_s <= self._clock.monotonic():
                    tell(
                        logging.ERROR,
                        "worker.replaced",
                        f"The thread {name} had died and is started again",
                        thread=name,
                    )
                    self._start(name)

    def _hear(self, until_s: float | None) -> Stop | _Died | None:
        try:
            return self._inbox.get(timeout=None if until_s is None else max(0.0, until_s - self._clock.monotonic()))
        except queue.Empty:
            return None

    def _start(self, name: str) -> None:
        life = self._lives[name]
        life.began_s, life.due_s = self._clock.monotonic(), None
        worker = Worker(name, life.run, lambda dead: self._inbox.put(_Died(dead)))
        try:
            worker.start()
        except RuntimeError:  # the system gives no more threads now
            self._inbox.put(_Died(name))
        else:
            life.worker = worker

    def _note_death(self, life: _Life) -> None:
        now_s, limits = self._clock.monotonic(), self._deadlines
        lived_on = now_s - life.began_s > limits.restart_cap_s
        life.pause_s = limits.restart_s if lived_on else min(limits.restart_cap_s, 2 * life.pause_s or limits.restart_s)
        life.due_s = now_s + life.pause_s

    def _end(self) -> bool:
        began_s, limits = self._clock.monotonic(), self._deadlines
        tell(logging.INFO, "agent.stopping", "Stopping")
        for watch in self._watches:
            watch.inbox.put(Stop())
        for watch in self._watches:  # the last turns are saved, then the flusher can still send them
            self._lives[_thread_of(watch)].join(self._left(began_s, limits.watch_s))
        self._flusher.stop(began_s + limits.drain_s)
        self._lives[FLUSHER].join(self._left(began_s, limits.drain_s))
        self._heartbeat.stop()
        late = [name for name, life in self._lives.items() if not life.join(self._left(began_s, limits.abandon_s))]
        if late:
            tell(logging.WARNING, "agent.abandoned", f"Left behind while hanging: {', '.join(late)}", threads=late)
        tell(logging.INFO, "agent.stopped", "Stopped")
        return not late

    def _left(self, began_s: float, until_s: float) -> float:
        return began_s + until_s - self._clock.monotonic()


def _thread_of(watch: WatchLoop) -> str:
    return f"watch {watch.name}"


def abandon() -> None:
    """Ends the process although threads hang; everything acknowledged is on the disk."""
    logging.shutdown()
    os._exit(0)
