"""Where envelopes go: one file for each kind, named by it. This file says what a sink is."""

from __future__ import annotations

from typing import Protocol

from agent.delivery import Verdict
from storage.envelope import Envelope

QUERIES, COMMAND_RESULT = "queries", "command_result"
TOPICS = (COMMAND_RESULT, QUERIES)  # in the order of sending


class Sink(Protocol):
    """A place that takes envelopes. One thread uses it."""

    kind: str

    def send(self, envelope: Envelope) -> Verdict:
        """Offers the envelope once and says what came of it. Raises nothing but bugs."""
        ...

    def close(self) -> None:
        """Ends the connection; calling it twice is fine."""
        ...
