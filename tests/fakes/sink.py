"""A backend in memory, behind the face of a sink: refuses what a test calls bad, loses answers, honours keys or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from agent.body import unpack
from agent.delivery import Delivered, Refused, Retry, Verdict
from agent.errors import BackendAway
from agent.sinks import COMMAND_RESULT
from storage.envelope import Envelope


class FakeSink:
    """`bad`: ids of records that make it refuse the whole body, as the real backend does.

    `verdict`: when set, asked first; None goes on to the rule. `lose_answers`: so many of the next acceptances are
    stored and then answered by nothing.
    """

    kind = "fake"

    def __init__(self, *, honours_keys: bool = True) -> None:
        self.honours_keys = honours_keys
        self.bad: set[str] = set()
        self.verdict: Callable[[Envelope], Verdict | None] = lambda _: None
        self.lose_answers = 0
        self.lost = 0
        self.lost_ids: set[str] = set()  # records whose acceptance was answered by nothing
        self.refuses_with: Verdict = Refused("status 400")
        self.requests: list[Envelope] = []
        self.stored: list[str] = []  # ids of records, in the order of storing
        self.results: list[dict[str, Any]] = []
        self.closes = 0
        self._by_key: dict[str, bytes] = {}

    def send(self, envelope: Envelope) -> Verdict:
        """Judges as the real one would."""
        self.requests.append(envelope)
        if self.honours_keys and envelope.key in self._by_key:
            assert self._by_key[envelope.key] == envelope.body, "the same key came with another body"
            return Delivered(envelope.records)
        special = self.verdict(envelope)
        if special is not None:
            return special
        content = orjson.loads(unpack(envelope.body))
        if envelope.topic == COMMAND_RESULT:
            self.results.append(content)
        else:
            ids = [record["id"] for record in content["queries"]]
            assert len(ids) == envelope.records
            if self.bad.intersection(ids):
                return self.refuses_with
            self.stored += ids
            self.lost_ids |= set(ids) if self.lose_answers else set()
        self._by_key[envelope.key] = envelope.body
        if self.lose_answers:
            self.lose_answers -= 1
            self.lost += 1
            return Retry(BackendAway("the answer was lost"), in_doubt=True)
        return Delivered(envelope.records)

    def close(self) -> None:
        """Counted."""
        self.closes += 1
