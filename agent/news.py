"""Says news once: when something breaks, and when it is over. What goes on being wrong is not said again."""

from __future__ import annotations

import logging

from agent.clock import Clock
from agent.logs import tell
from storage.errors import CodedError


class News:
    """What is wrong with one thing (`about`: a stable word such as `delivery`). One thread uses it.

    `fields` are said each time: which of several it is.
    """

    def __init__(self, about: str, clock: Clock, **fields: object) -> None:
        self._about = about
        self._clock, self._fields = clock, fields
        self._code: str | None = None
        self._since_s = 0.0
        self._times = 0

    def wrong(self, error: CodedError) -> None:
        """It does not work; said when it is new or something else than before."""
        self._times += 1
        if error.code != self._code:
            if self._code is None:
                self._since_s = self._clock.monotonic()
            self._code = error.code
            tell(logging.WARNING, f"{self._about}.wrong", str(error), code=error.code, **self._fields)

    def right(self, note: str = "") -> None:
        """It works; said when it did not."""
        if self._code is None:
            return
        seconds = round(self._clock.monotonic() - self._since_s)
        sentence = f"{self._about} works again after {seconds} s"
        sentence += f", {note}" if note else ""
        fields = {"code": self._code, "seconds": seconds, "times": self._times, **self._fields}
        tell(logging.INFO, f"{self._about}.right", sentence, **fields)
        self._code, self._times = None, 0
