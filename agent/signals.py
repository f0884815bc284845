"""What signals mean to the agent: each puts one word into the conductor's inbox, or ends a process in which none
conducts. Does nothing else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from agent.watch_loop import Stop

_TERMINAL = "/dev/tty"


class Reload:
    """The word that has the configuration read again."""


class Signals:
    """Of the whole process; to be made before anything takes time, because what a hangup means shows at the start.

    SIGTERM and SIGINT mean the end. SIGHUP means a reload; where the process has a terminal that may be closed it means
    the end, and it is left ignored where it was (nohup). `put`: takes a word, at any moment.
    """

    def __init__(self, put: Callable[[Stop | Reload], object]) -> None:
        self._put = put
        self._ends = [signal.SIGTERM, signal.SIGINT]
        self._reloads: list[signal.Signals] = []
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            (self._ends if _has_terminal() else self._reloads).append(signal.SIGHUP)
        self.end_at_once()

    def end_at_once(self) -> None:
        """Nobody conducts now: an end is one at once. A reload is put all the same, for whoever conducts next."""
        self._hear(lambda *_: sys.exit(0))

    def put_words(self) -> None:
        """Somebody conducts now."""
        self._hear(lambda *_: self._put(Stop()))

    def _hear(self, end: Callable[[int, FrameType | None], object]) -> None:
        for number in self._ends:
            signal.signal(number, end)
        for number in self._reloads:
            signal.signal(number, lambda *_: self._put(Reload()))


def _has_terminal() -> bool:
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
