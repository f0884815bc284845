"""The main thread of a running agent: starts the others, hears what is asked for, notices who died or is stuck, ends
everything in time."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.clock import Clock
from agent.flusher import Flusher
from agent.heartbeat import Heartbeat
from agent.logs import tell
from agent.pulse import Pulse, Stuck
from agent.renewal import Renewed
from agent.repeats import Repeats
from agent.signals import Reload
from agent.status_door import StatusDoor
from agent.vigil import Vigil
from agent.watch_loop import Stop, WatchLoop
from agent.worker import Worker


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. From the word to stop on: `watch_s` for the watches to save and end, `drain_s` for the last drain and
    the farewell beat to begin, `abandon_s` for everything; what hangs then, in a driver or a socket, is left behind.
    `close_s`: for what is open to be closed, where another agent follows.

    A thread that died is started again after a pause: `restart_s`, doubled up to `restart_cap_s` while it dies at once.
    """

    watch_s: float = 2.5
    drain_s: float = 5.0
    abandon_s: float = 9.0
    close_s: float = 3.0
    restart_s: float = 1.0
    restart_cap_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended. `late`: the threads that hang and are left behind; `renewed`: the configuration to go on with,
    None when that is not wanted."""

    late: tuple[Worker, ...]
    renewed: Renewed | None = None


@dataclass(slots=True, eq=False)
class _Life:
    """One of the threads, over its restarts. Times are monotonic seconds; `due_s`: when it is to be started again,
    `dying_s`: since when it dies as soon as it lives."""

    run: Callable[[], None]
    pulse: Pulse
    worker: Worker | None = None
    began_s: float = 0.0
    pause_s: float = 0.0
    dying_s: float = 0.0
    due_s: float | None = None

    def join(self, timeout_s: float) -> bool:
        return self.worker is None or self.worker.join(timeout_s)


@dataclass(frozen=True, slots=True)
class _Died:
    life: _Life


Inbox = queue.SimpleQueue[Stop | Reload | _Died]


class Conductor:
    """Runs watches, flusher, heartbeat and the door of the status until a word ends that.

    `inbox`: where the words come in; a conductor that follows another one in the same process takes over the other's.
    """

    def __init__(
        self,
        watches: Sequence[WatchLoop],
        flusher: Flusher,
        heartbeat: Heartbeat,
        door: StatusDoor,
        vigil: Vigil,
        *,
        clock: Clock,
        deadlines: Deadlines | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self._watches, self._flusher, self._heartbeat, self._door = watches, flusher, heartbeat, door
        self._vigil, self._clock = vigil, clock
        self._deadlines = deadlines or Deadlines()
        self._inbox: Inbox = queue.SimpleQueue() if inbox is None else inbox
        runners: tuple[WatchLoop | Flusher | Heartbeat | StatusDoor, ...] = (*watches, flusher, heartbeat, door)
        self._close_by_s = 0.0
        self._repeats = Repeats(clock.monotonic)
        self._lives = {runner.pulse.thread: _Life(runner.run, runner.pulse) for runner in runners}

    def stop(self) -> None:
        """Asks for the end; may be called from any thread."""
        self._inbox.put(Stop())

    def run(self, renew: Callable[[], Renewed | None] = lambda: None) -> Ended:
        """Runs until Stop, or until Reload when `renew` then gives what to go on with."""
        for name in self._lives:
            self._start(name)
        self._vigil.look()
        while True:
            word = self._hear()
            if isinstance(word, Stop):
                return self._end()
            if isinstance(word, Reload) and (renewed := renew()) is not None:
                return self._end(renewed)
            if isinstance(word, _Died) and word.life in self._lives.values():  # and none of a conductor before
                self._note_death(word.life)
            for name, life in self._lives.items():
                if life.due_s is not None and life.due_s <= self._clock.monotonic():
                    sentence = f"The thread {name} had died and is started again"
                    self._repeats.tell(logging.ERROR, "worker.replaced", sentence, kind=name, thread=name)
                    self._start(name)
            self._vigil.look(self._dying())

    def finish(self, close: Callable[[], None]) -> bool:
        """The last thing after `run`: True when `close` has ended by the time at which everything is left behind."""
        worker = Worker("closing", close, lambda _: None)
        worker.start()
        return worker.join(self._close_by_s - self._clock.monotonic())

    def _hear(self) -> Stop | Reload | _Died | None:
        now_s = self._clock.monotonic()
        restarts = [life.due_s - now_s for life in self._lives.values() if life.due_s is not None]
        try:
            return self._inbox.get(timeout=max(0.0, min([self._vigil.pace_s, *restarts])))
        except queue.Empty:
            return None

    def _start(self, name: str) -> None:
        life = self._lives[name]
        life.began_s, life.due_s = self._clock.monotonic(), None
        life.pulse.beat("starting")
        worker = Worker(name, life.run, lambda _: self._inbox.put(_Died(life)), self._repeats)
        try:
            worker.start()
        except RuntimeError:  # the system gives no more threads now
            self._inbox.put(_Died(life))
        else:
            life.worker = worker

    def _note_death(self, life: _Life) -> None:
        now_s, limits = self._clock.monotonic(), self._deadlines
        lived_on = now_s - life.began_s > limits.restart_cap_s
        if lived_on or not life.pause_s:
            life.dying_s = now_s
        life.pause_s = limits.restart_s if lived_on else min(limits.restart_cap_s, 2 * life.pause_s or limits.restart_s)
        life.due_s = now_s + life.pause_s
        life.pulse.end()

    def _dying(self) -> tuple[Stuck, ...]:
        """The threads that die again and again: what they should do is not done, however often they are replaced.

        One that was just started again counts until it has lived on for a while.
        """
        now_s, limits = self._clock.monotonic(), self._deadlines
        return tuple(
            Stuck(name, "dying again and again", life.dying_s)
            for name, life in self._lives.items()
            if life.pause_s > limits.restart_s
            and (life.due_s is not None or now_s - life.began_s < limits.restart_cap_s)
        )

    def _end(self, renewed: Renewed | None = None) -> Ended:
        began_s, limits = self._clock.monotonic(), self._deadlines
        self._close_by_s = began_s + limits.abandon_s
        if renewed is None:
            tell(logging.INFO, "agent.stopping", "Stopping")
            self._vigil.end()
        else:
            self._vigil.hand_over()
        late = self._end_threads(began_s)
        if renewed is not None and not is_to_stop(self._inbox):
            self._close_by_s = max(self._close_by_s, self._clock.monotonic() + limits.close_s)
            return Ended(late, renewed)
        tell(logging.INFO, "agent.stopped", "Stopped")
        return Ended(late)

    def _end_threads(self, began_s: float) -> tuple[Worker, ...]:
        """Those that hang; whatever they do later, they do nothing more with what is ours."""
        limits = self._deadlines
        for watch in self._watches:
            watch.inbox.put(Stop())
        for watch in self._watches:  # the last turns are saved, then the flusher can still send them
            self._lives[watch.pulse.thread].join(self._left(began_s, limits.watch_s))
        self._flusher.stop(began_s + limits.drain_s)
        self._lives[self._flusher.pulse.thread].join(self._left(began_s, limits.drain_s))
        self._heartbeat.stop()
        self._door.stop()
        late = {
            name: life for name, life in self._lives.items() if not life.join(self._left(began_s, limits.abandon_s))
        }
        if late:
            names = list(late)
            tell(logging.WARNING, "agent.abandoned", f"Left behind while hanging: {', '.join(names)}", threads=names)
        for life in late.values():
            life.pulse.cut()
        return tuple(life.worker for life in late.values() if life.worker is not None)

    def _left(self, began_s: float, until_s: float) -> float:
        return began_s + until_s - self._clock.monotonic()


def is_to_stop(inbox: Inbox) -> bool:
    """Whether an end is asked for; what else is in there stays."""
    words = [inbox.get_nowait() for _ in range(inbox.qsize())]
    for word in words:
        inbox.put(word)
    return any(isinstance(word, Stop) for word in words)


def abandon(code: int = 0) -> None:
    """Ends the process although threads hang; everything acknowledged is on the disk."""
    logging.shutdown()
    os._exit(code)
