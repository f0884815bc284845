"""Where envelopes go: one file for each kind, named by it. This file says what a sink is and knows how to find them."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Protocol

from agent.delivery import Verdict
from storage.envelope import COMMAND_RESULT, QUERIES, Envelope

__all__ = ["COMMAND_RESULT", "QUERIES", "TOPICS", "Sink", "find", "kinds"]
TOPICS = (COMMAND_RESULT, QUERIES)  # in the order of sending


class Sink(Protocol):
    """A place that takes envelopes. One thread uses it."""

    kind: str

    def send(self, envelope: Envelope) -> Verdict:
        """Offers the envelope once and says what came of it. Raises nothing but bugs."""
        ...

    def close(self) -> None:
        """Ends the connection; calling it twice is fine, and a later `send` opens a new one."""
        ...


def kinds() -> list[str]:
    """The kinds there are: the modules of this package, except those that begin with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(kind: str) -> type[Sink]:
    """The sink of that kind. Raises LookupError when there is none."""
    if kind not in kinds():
        raise LookupError(kind)
    sink: type[Sink] = import_module(f"{__name__}.{kind}").SINK
    return sink
