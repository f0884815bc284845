"""What could go wrong at any sink: an envelope is called delivered that is not there, the same envelope leaves with
another key or other bytes, a sink raises instead of judging, cannot be closed twice or used after it.

Every module of agent/sinks is found by itself; a new one needs a harness here, or the first test fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent import body, sinks
from agent.clock import Clock
from agent.commands import Command, Result
from agent.delivery import Delivered, Hold, Retry
from agent.sinks import COMMAND_RESULT, QUERIES, Sink
from agent.sinks.http import HttpSink
from agent.transport import Transport
from storage.envelope import Envelope
from tests.fakes.stub_backend import StubBackend


class HttpHarness:
    """The stub backend, behind a real socket."""

    def __init__(self) -> None:
        self.stub = StubBackend()
        self.sink: Sink = HttpSink(
            Transport(self.stub.url, self.stub.api_key, read_timeout_s=0.5), self.stub.collector_id, Clock()
        )

    @property
    def stored(self) -> list[str]:
        """Ids of records, with duplicates."""
        return [record["id"] for record in self.stub.records]

    @property
    def results(self) -> list[dict[str, Any]]:
        """Results of commands."""
        return self.stub.results

    def command(self) -> int:
        """A command that waits for its result."""
        return self.stub.queue("collect")

    def break_down(self, how: str) -> None:
        """Goes wrong in this way."""
        self.stub.break_down(how)  # type: ignore[arg-type]

    def recover(self) -> None:
        """Goes well again."""
        self.stub.recover()

    def lose_one_answer(self) -> None:
        """Stores the next body and says nothing."""
        self.stub.drop_answers(1)

    def close(self) -> None:
        """The end."""
        self.sink.close()
        self.stub.close()


HARNESSES: dict[str, Callable[[], HttpHarness]] = {"http": HttpHarness}


@pytest.fixture(params=sinks.kinds())
def harness(request: pytest.FixtureRequest) -> Iterator[HttpHarness]:
    made = HARNESSES[request.param]()
    yield made
    made.close()


def envelope(seq: int, topic: str, records: int, packed: bytes) -> Envelope:
    return Envelope(seq, topic, seq, f"key-{seq}", records, packed, hashlib.sha256(packed).digest(), 0.0)


def bulk(seq: int, *texts: str) -> Envelope:
    records = [
        orjson.dumps({"id": f"{seq}.{number}", "sql_text": text, "query_time": 1.0, "lock_time": 0.0})
        for number, text in enumerate(texts)
    ]
    return envelope(seq, QUERIES, len(texts), body.queries(records))


def result(number: int) -> Envelope:
    return envelope(number, COMMAND_RESULT, 1, body.pack(Result(Command(number, "collect"), True, {}).to_wire()))


def test_every_sink_has_a_harness_and_says_its_kind() -> None:
    assert sinks.kinds() == sorted(HARNESSES)
    assert {kind: sinks.find(kind).kind for kind in sinks.kinds()} == {kind: kind for kind in sinks.kinds()}
    names = sorted(path.stem for path in Path(sinks.__path__[0]).glob("[!_]*.py"))
    assert names == sinks.kinds()
    with pytest.raises(LookupError):
        sinks.find("carrier pigeon")


def test_what_is_called_delivered_is_there(harness: HttpHarness) -> None:
    assert harness.sink.send(bulk(1, "SELECT 1", "SELECT 2")) == Delivered(2)
    assert harness.stored == ["1.0", "1.1"]


def test_records_that_were_left_out_are_counted(harness: HttpHarness) -> None:
    verdict = harness.sink.send(bulk(1, "SELECT 1", "", "SELECT 3"))
    assert isinstance(verdict, Delivered)
    assert (verdict.count, bool(verdict.reason), harness.stored) == (2, True, ["1.0", "1.2"])


def test_a_result_is_delivered_and_an_expired_one_is_done(harness: HttpHarness) -> None:
    number = harness.command()
    assert harness.sink.send(result(number)) == Delivered(1)
    assert [report["command_id"] for report in harness.results] == [number]
    again = harness.sink.send(result(number))
    assert isinstance(again, Delivered)
    assert len(harness.results) == 1


@pytest.mark.parametrize("how", ["refused", "500", "hanging", "429", "401"])
@pytest.mark.parametrize("topic", [QUERIES, COMMAND_RESULT])
def test_an_outage_is_judged_and_afterwards_it_works(harness: HttpHarness, how: str, topic: str) -> None:
    one = bulk(1, "SELECT 1") if topic == QUERIES else result(harness.command())
    harness.break_down(how)
    assert isinstance(harness.sink.send(one), Hold if how == "401" else Retry)
    assert (harness.stored, harness.results) == ([], [])
    harness.recover()
    assert harness.sink.send(one) == Delivered(1)
    assert len(harness.stored) + len(harness.results) == 1


def test_a_lost_answer_is_no_delivery(harness: HttpHarness) -> None:
    harness.lose_one_answer()
    assert isinstance(harness.sink.send(bulk(1, "SELECT 1")), Retry)
    assert harness.stored == ["1.0"]  # the fault was what it should be


def test_it_can_be_closed_twice_and_used_again(harness: HttpHarness) -> None:
    for seq in (1, 2):
        assert harness.sink.send(bulk(seq, "SELECT 1")) == Delivered(1)
        harness.sink.close()
        harness.sink.close()
    assert harness.stored == ["1.0", "2.0"]
