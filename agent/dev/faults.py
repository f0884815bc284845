"""What shall go wrong, for how long, and whether it did. Decides and waits; fault_door makes the answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from threading import Condition
from typing import Literal, Protocol, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["hang", "status", "too_many", "too_large", "word", "drop", "html", "redirect", "garbage"]
Where = Literal["all", "bulk", "heartbeat", "execute"]
_LOOK_AGAIN_S = 0.05  # how soon a hanging request sees that its client has gone


class Fault(BaseModel):
    """One fault. `times`: for so many requests (None: until cleared).

    - hang: for `seconds` (None: until cleared), then it goes on; of a client that gave up nothing is stored.
    - status: `status`, one of 500, 503, 401, 403, 404, 405.
    - too_many: 429, with `retry_after` (seconds or an HTTP date) when given.
    - too_large: 413 for a body above `max_bytes` (as sent) or `max_records`.
    - word: `status` (400, 422 or 500) for a body, decompressed, that contains `word`.
    - drop: the connection is cut instead of an answer.
    - html: 200 with a page (captive portal). redirect: 302 to such a page. garbage: 200 with half a JSON.

    `stored`: the request is carried out first and only its answer is lost; None means: only for drop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Kind
    path: Where = "all"
    times: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    status: Literal[400, 401, 403, 404, 405, 422, 500, 503] = 500
    retry_after: str | None = Field(default=None, pattern=r"^[ -~]+$")
    max_bytes: int | None = Field(default=None, ge=0)
    max_records: int | None = Field(default=None, ge=0)
    word: str | None = Field(default=None, min_length=1)
    stored: bool | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "word" and (self.word is None or self.status not in (400, 422, 500)):
            raise ValueError("kind word needs a word, and status 400, 422 or 500")
        if self.kind == "too_large" and self.max_bytes is None and self.max_records is None:
            raise ValueError("kind too_large needs max_bytes or max_records")
        if self.kind == "status" and self.status in (400, 422):
            raise ValueError("kind status knows 500, 503, 401, 403, 404, 405; 400 and 422 belong to kind word")
        return self

    @property
    def after_storing(self) -> bool:
        """Whether the request is carried out before it goes wrong."""
        return self.kind == "drop" if self.stored is None else self.stored

    def concerns(self, path: str) -> bool:
        """Whether a request path of the backend is meant. Development look-ups never are."""
        ends = {"bulk": "/queries/bulk", "heartbeat": "/heartbeat", "execute": "/execute", "all": ""}
        return path.startswith("/api/") and path.endswith(ends[self.path])

    def strikes(self, body: Body) -> bool:
        """Whether this body is bad enough."""
        if self.kind == "word":
            return (self.word or "").encode() in body.text
        if self.kind == "too_large":
            over_bytes = self.max_bytes is not None and len(body.raw) > self.max_bytes
            return over_bytes or (self.max_records is not None and body.records() > self.max_records)
        return True


class Body(Protocol):
    """A request body as the faults see it: `raw` as sent, `text` decompressed, the number of queries."""

    @property
    def raw(self) -> bytes: ...

    @property
    def text(self) -> bytes: ...

    def records(self) -> int: ...


def count_records(text: bytes) -> int:
    """How many queries a bulk body holds; 0 when it is none."""
    try:
        return len(orjson.loads(text)["queries"])
    except (ValueError, TypeError, KeyError):
        return 0


class Faults:
    """The faults in force, and how often each kind happened. Safe for many threads."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._active: list[tuple[Fault, int | None]] = []
        self._hits: Counter[str] = Counter()
        self._clearings = 0

    def add(self, fault: Fault) -> None:
        """The first fault that fits a request is taken; this one comes last."""
        with self._changed:
            self._active.append((fault, fault.times))

    def clear(self) -> None:
        """End all faults; whatever hangs goes on. The counts of what happened stay."""
        with self._changed:
            self._active.clear()
            self._clearings += 1
            self._changed.notify_all()

    def active(self) -> list[Fault]:
        """The faults in force; `times` is what is left of it."""
        with self._changed:
            return [fault.model_copy(update={"times": left}) for fault, left in self._active]

    @property
    def hits(self) -> dict[str, int]:
        """How often each kind of fault happened since the beginning."""
        with self._changed:
            return dict(self._hits)

    def wait_for_hits(self, kind: Kind, count: int, timeout_s: float) -> bool:
        """Wait until a kind of fault happened `count` times. False when it did not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._hits[kind] >= count, timeout_s)

    def take(self, path: str, body: Body) -> Fault | None:
        """The fault that this request meets, counted as happened."""
        with self._changed:
            for place, (fault, left) in enumerate(self._active):
                if not (fault.concerns(path) and fault.strikes(body)):
                    continue
                if left is not None:
                    self._active[place] = (fault, left - 1)
                    self._active = [entry for entry in self._active if entry[1] != 0]
                self._hits[fault.kind] += 1
                self._changed.notify_all()
                return fault
        return None

    def hold(self, fault: Fault, gone: Callable[[], bool]) -> bool:
        """Hang until the time is over, faults are cleared, or `gone`. True when the client still waits."""
        end = float("inf") if fault.seconds is None else time.monotonic() + fault.seconds
        with self._changed:
            clearings = self._clearings
            while not gone() and self._clearings == clearings and (left := end - time.monotonic()) > 0:
                self._changed.wait(min(left, _LOOK_AGAIN_S))
        return not gone()
