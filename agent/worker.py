"""The frame around everything that runs in a thread: it is named, it can be waited for, and its death is noticed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from agent.logs import LOGGER
from agent.pulse import LeftBehind
from agent.repeats import Repeats


class Worker:
    """One thread around one `run`. `on_death` is called, in that thread, when `run` ends by an exception.

    `repeats`: what is known of earlier deaths, so that one which dies again and again fills no log.
    """

    def __init__(
        self, name: str, run: Callable[[], None], on_death: Callable[[str], None], repeats: Repeats | None = None
    ) -> None:
        self.name = name
        self._repeats = repeats or Repeats(time.monotonic)
        self._run = run
        self._on_death = on_death
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Waits for the end; whether it came in time."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            self._run()
        except LeftBehind:
            return
        except BaseException as error:  # SystemExit too: whatever ends this thread, somebody has to know
            times = self._repeats.times("worker.died", f"{self.name} {type(error).__name__}")
            if times:
                more = {"event": "worker.died", "fields": {"times": times} if times > 1 else {}}
                LOGGER.log(logging.ERROR, "%s ended by a defect", self.name, exc_info=True, extra=more)
            self._on_death(self.name)
