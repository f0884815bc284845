"""What could go wrong at sink `http`: gzip is sent to a backend that never took it or takes it no more, a body is
blamed for its compression, the key is missing on a repeated try, a result goes to another collector's path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import orjson
import pytest

from agent import body
from agent.clock import Clock
from agent.delivery import Delivered, Refused
from agent.sinks import COMMAND_RESULT, QUERIES
from agent.sinks.http import BULK_PATH, HttpSink
from agent.transport import Answer, Transport
from storage.envelope import Envelope

PACKED = body.queries([b'{"id":"a"}'])
PLAIN = body.unpack(PACKED)


class Scripted(Transport):
    """Answers one after the other; remembers path, body and headers."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        super().__init__("http://127.0.0.1:1", "k")
        self._answers = list(answers)
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """The next one."""
        self.sent.append((path, body, dict(headers or {})))
        status, announced = self._answers.pop(0)
        content = {"status": "success", "count": 1, "skipped": 0} if status == 200 else {}
        return Answer(status, {"accept-encoding": announced} if announced else {}, orjson.dumps(content))


def queries(seq: int = 1) -> Envelope:
    return Envelope(seq, QUERIES, seq, f"key-{seq}", 1, PACKED, hashlib.sha256(PACKED).digest(), 0.0)


def send(*answers: tuple[int, str], times: int) -> tuple[Scripted, list[object]]:
    transport = Scripted(*answers)
    sink = HttpSink(transport, 7, Clock())
    return transport, [sink.send(queries(number)) for number in range(times)]


def test_without_an_announcement_bodies_go_unpacked_with_their_key() -> None:
    transport, verdicts = send((200, ""), (200, ""), times=2)
    assert transport.sent == [(BULK_PATH, PLAIN, {"Idempotency-Key": f"key-{number}"}) for number in range(2)]
    assert verdicts == [Delivered(1)] * 2


@pytest.mark.parametrize("announced", ["gzip", "br, GZIP", "gzip;q=1.0", "gzip ; q=0.5, br"])
def test_announced_gzip_is_sent_as_it_is_stored(announced: str) -> None:
    transport, _ = send((200, announced), (200, announced), times=2)
    assert transport.sent[1] == (BULK_PATH, PACKED, {"Idempotency-Key": "key-1", "Content-Encoding": "gzip"})


@pytest.mark.parametrize("announced", ["", "br", "gzip;q=0", "gzip;q=0.0", "x-gzip-like"])
def test_anything_else_is_no_announcement(announced: str) -> None:
    transport, _ = send((200, announced), (200, announced), times=2)
    assert transport.sent[1][1] == PLAIN


@pytest.mark.parametrize("refusal", [(415, ""), (415, "gzip"), (400, ""), (422, "")])
def test_a_backend_that_takes_gzip_no_more_gets_the_same_body_unpacked_at_once(refusal: tuple[int, str]) -> None:
    transport, verdicts = send((200, "gzip"), refusal, (200, ""), (200, ""), times=3)
    assert verdicts == [Delivered(1)] * 3
    assert [sent for _, sent, _ in transport.sent] == [PLAIN, PACKED, PLAIN, PLAIN]
    assert transport.sent[1][2]["Idempotency-Key"] == transport.sent[2][2]["Idempotency-Key"] == "key-1"


def test_a_refusal_of_a_backend_that_still_takes_gzip_is_about_the_body() -> None:
    transport, verdicts = send((200, "gzip"), (400, "gzip"), times=2)
    assert (verdicts[1], len(transport.sent)) == (Refused("status 400"), 2)


def test_a_result_goes_to_its_commands_path_without_a_key() -> None:
    transport = Scripted((404, ""))
    packed = body.pack(orjson.dumps({"command_id": 12, "success": True, "result": {}}))
    one = Envelope(1, COMMAND_RESULT, 1, "key-1", 1, packed, hashlib.sha256(packed).digest(), 0.0)
    assert HttpSink(transport, 7, Clock()).send(one) == Delivered(1, "the command has expired")
    assert [(path, headers) for path, _, headers in transport.sent] == [
        ("/api/v1/collectors/7/commands/12/execute", {})
    ]
