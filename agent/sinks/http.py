"""Sink `http`: the DBPower backend. Knows its paths and what it announces; what an answer means is `delivery`'s."""

from __future__ import annotations

import orjson

from agent.body import unpack
from agent.clock import Clock
from agent.delivery import Retry, Verdict, judge_bulk, judge_execute
from agent.errors import BackendAway
from agent.sinks import COMMAND_RESULT
from agent.transport import Answer, Transport
from storage.envelope import Envelope

BULK_PATH = "/api/v1/queries/bulk"
_PERHAPS_THE_GZIP = frozenset({400, 415, 422})


class HttpSink:
    """Posts envelopes; as stored when the backend has announced that it takes gzip, else unpacked."""

    kind = "http"

    def __init__(self, transport: Transport, collector_id: int, clock: Clock) -> None:
        self._transport = transport
        self._collector_id = collector_id
        self._clock = clock
        self._takes_gzip = False

    def send(self, envelope: Envelope) -> Verdict:
        """Offers the envelope once. Everything that is no answer is a Retry."""
        try:
            answer = self._post(envelope)
        except BackendAway as error:
            return Retry(error, in_doubt=error.may_have_arrived)
        if envelope.topic == COMMAND_RESULT:
            return judge_execute(answer, self._clock.now())
        return judge_bulk(answer, envelope.records, self._clock.now())

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def _post(self, envelope: Envelope) -> Answer:
        path, headers = BULK_PATH, {"Idempotency-Key": envelope.key}
        if envelope.topic == COMMAND_RESULT:
            number = orjson.loads(unpack(envelope.body))["command_id"]
            path, headers = f"/api/v1/collectors/{self._collector_id}/commands/{number}/execute", {}
        if self._takes_gzip:
            answer = self._transport.post(path, envelope.body, {**headers, "Content-Encoding": "gzip"})
            self._listen(answer)
            # A backend that was exchanged for an older one blames the body; the compression is at fault, not a record.
            if answer.status not in _PERHAPS_THE_GZIP or self._takes_gzip:
                return answer
        answer = self._transport.post(path, unpack(envelope.body), headers)
        self._listen(answer)
        return answer

    def _listen(self, answer: Answer) -> None:
        # RFC 7694: a backend names the encodings that it takes in requests.
        names = [name.replace(" ", "").lower() for name in answer.headers.get("accept-encoding", "").split(",")]
        # With a quality it is "gzip;q=1.0" or so; q=0 forbids it.
        usable = any(name == "gzip" or (name.startswith("gzip;q=") and name[7:].strip("0.")) for name in names)
        self._takes_gzip = usable and answer.status != 415


SINK = HttpSink
