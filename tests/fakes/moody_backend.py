"""A backend whose mood changes, behind the face of a sink. What its answers mean is judged by the real `delivery`.

Which records it refuses or leaves out is its nature and never changes: `bad` ones make the whole body a 400, `skipped`
ones are left out of the body they came in, and more than `limit` records are a 413.
"""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum

import orjson

from agent.body import unpack
from agent.clock import Clock
from agent.delivery import Retry, Verdict, judge_bulk, judge_execute
from agent.errors import BackendAway
from agent.sinks import COMMAND_RESULT
from agent.transport import Answer
from storage.envelope import Envelope


class Killed(BaseException):
    """The process ends at this instant."""


class Mood(StrEnum):
    """What it does with a request."""

    WELL = "well"
    AWAY = "away"
    ANSWER_LOST = "stored, then the connection is lost"
    ANSWER_CUT = "stored, then half a 200"
    GATEWAY = "stored, then a 504 from somebody in between"
    FAILING = "500"
    BUSY = "429 with Retry-After in seconds"
    UNAVAILABLE = "503 with Retry-After as a date"
    KEY_REFUSED = "401"
    PORTAL = "a captive portal"
    REDIRECT = "302"


_PORTAL = b"<html><body>Welcome to the hotel</body></html>"
_REFUSALS = {
    Mood.FAILING: Answer(500, {}, b""),
    Mood.BUSY: Answer(429, {"retry-after": "7"}, b""),
    Mood.UNAVAILABLE: Answer(503, {"retry-after": "Wed, 01 May 2024 12:02:00 GMT"}, b""),
    Mood.KEY_REFUSED: Answer(401, {}, orjson.dumps({"detail": "Invalid collector API key"})),
    Mood.PORTAL: Answer(200, {"content-type": "text/html"}, _PORTAL),
    Mood.REDIRECT: Answer(302, {"location": "http://portal/"}, _PORTAL),
}


class MoodyBackend:
    """`stored`: the keys under which each record was stored, by its id. `is_deadly`: the next request that it stores
    is the last thing that the sender lives to see."""

    kind = "moody"

    def __init__(self, clock: Clock, *, honours_keys: bool, bad: set[str], skipped: set[str], limit: int) -> None:
        self.honours_keys, self.bad, self.skipped, self.limit = honours_keys, bad, skipped, limit
        self.mood = Mood.WELL
        self.is_deadly = False
        self.stored: defaultdict[str, list[str]] = defaultdict(list)
        self.results: defaultdict[str, int] = defaultdict(int)
        self.requests = 0
        self._clock = clock
        self._answers: dict[str, tuple[bytes, Answer]] = {}

    def send(self, envelope: Envelope) -> Verdict:
        """Stores or not, answers or not."""
        self.requests += 1
        if self.mood is Mood.AWAY:
            return Retry(BackendAway("refused"))
        refusal = _REFUSALS.get(self.mood)
        answer = self._take(envelope) if refusal is None else refusal
        if self.is_deadly and refusal is None:
            self.is_deadly = False
            raise Killed
        if self.mood is Mood.ANSWER_LOST:
            return Retry(BackendAway("reset"), in_doubt=True)
        if self.mood is Mood.ANSWER_CUT:
            answer = Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])
        elif self.mood is Mood.GATEWAY:
            answer = Answer(504, {}, b"")
        if envelope.topic == COMMAND_RESULT:
            return judge_execute(answer, self._clock.now())
        return judge_bulk(answer, envelope.records, self._clock.now())

    def close(self) -> None:
        """There is nothing to close."""

    def _take(self, envelope: Envelope) -> Answer:
        content = orjson.loads(unpack(envelope.body))
        if envelope.topic == COMMAND_RESULT:
            name = f"c{content['command_id']}"
            self.results[name] += 1
            return Answer(200, {}, b'{"status": "ok"}') if self.results[name] == 1 else Answer(404, {}, b"")
        known = self._answers.get(envelope.key)
        if known is not None and self.honours_keys:
            assert known[0] == envelope.body, "the same key came with another body"
            return known[1]
        answer = self._store(envelope, [str(record["id"]) for record in content["queries"]])
        if answer.status == 200:
            self._answers[envelope.key] = envelope.body, answer
        return answer

    def _store(self, envelope: Envelope, ids: list[str]) -> Answer:
        assert len(ids) == envelope.records
        if len(ids) > self.limit:
            return Answer(413, {}, b"")
        if self.bad.intersection(ids):
            return Answer(400, {}, b"")
        taken = [each for each in ids if each not in self.skipped]
        for each in taken:
            self.stored[each].append(envelope.key)
        left_out = len(ids) - len(taken)
        told = {"status": "success", "count": len(taken), "skipped": left_out, "errors": []}
        return Answer(200, {}, orjson.dumps(told))
