"""What `doctor` says of a backend, against the development backend and worse ones.

What could go wrong: the look changes something at the backend (a heartbeat, a record, a command that is answered); a
wrong key passes, or the key of another collector; a failure or a page of somebody else passes for the backend; a clock
is compared with the wrong one; a secret is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta

import orjson
import pytest

from agent.clock import Clock
from agent.config.schema import Config
from agent.dev.faults import Fault
from agent.dev.registry import Collector
from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port
from agent.doctor.backend import examine
from agent.finding import Finding
from agent.transport import Answer, Transport
from agent.wiring import make_transport
from tests.fakes.clock import ManualClock
from tests.fakes.stub_backend import StubBackend

GIVEN = {"db_type": "mysql", "db_config": {"host": "h", "user": "u"}}


@pytest.fixture
def backend() -> Iterator[RunningBackend]:
    with RunningBackend() as running:
        yield running


@pytest.fixture
def own(backend: RunningBackend) -> Collector:
    return backend.registry.register("own")


def found(url: str, number: int, key: str, clock: Clock | None = None) -> dict[str, Finding]:
    config = Config.model_validate({**GIVEN, "collector_id": number, "api_key": key, "backend_url": url})
    with closing(make_transport(config)) as transport:
        findings = list(examine(config, transport, clock or Clock()))
    assert key not in str(findings)
    return {finding.subject: finding for finding in findings}


def codes(findings: dict[str, Finding]) -> dict[str, str]:
    return {subject: each.code for subject, each in findings.items() if each.verdict != "right"}


def test_a_backend_that_is_fine(backend: RunningBackend, own: Collector) -> None:
    findings = found(backend.url, own.id, own.api_key)
    assert list(findings) == ["address", "proxy", "reached", "clock", "key"]
    assert codes(findings) == {}


def test_also_one_without_extensions() -> None:
    with StubBackend() as stub:
        assert codes(found(stub.url, stub.collector_id, stub.api_key)) == {}
        assert (stub.records, stub.heartbeats, stub.results) == ([], [], [])


def test_nothing_changes_there(backend: RunningBackend, own: Collector) -> None:
    backend.registry.queue(own.id, "stop", {})
    found(backend.url, own.id, own.api_key)
    assert own.last_heartbeat is None
    assert list(backend.store.records()) == []
    assert [command.success for command in backend.registry.commands(own.id)] == [None]


def test_a_wrong_key(backend: RunningBackend, own: Collector) -> None:
    findings = found(backend.url, own.id, f"collector_{own.id}_wrong")
    assert codes(findings) == {"key": "BE-02"}


def test_the_key_of_another_collector(backend: RunningBackend, own: Collector) -> None:
    other = backend.registry.register("other")
    findings = found(backend.url, own.id, other.api_key)
    assert codes(findings) == {"key": "BE-02"}
    assert f"that of collector {other.id}" in findings["key"].sentence


def test_a_key_with_a_number_beyond_all_numbers_is_for_the_backend_to_judge() -> None:
    taken = orjson.dumps({"status": "success", "count": 0, "skipped": 0, "errors": []})

    class Welcoming(Transport):
        """To a backend that takes any key."""

        def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
            return Answer(404, {}, b"") if path.endswith("/execute") else Answer(200, {}, taken)

    key = f"collector_{'9' * 5_000}_x"
    config = Config.model_validate({**GIVEN, "collector_id": 9, "api_key": key, "backend_url": "http://localhost"})
    with closing(Welcoming(config.backend_url, key)) as transport:
        findings = {each.subject: each for each in examine(config, transport, Clock())}
    assert codes(findings) == {}
    assert "key" in findings


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(kind="status", status=404, path="execute"), None),
        (Fault(kind="status", status=401, path="execute"), "BE-02"),
        (Fault(kind="status", status=403, path="execute"), "BE-02"),
        (Fault(kind="status", status=500, path="execute"), "BE-05"),
        (Fault(kind="status", status=503, path="execute"), "BE-05"),
        (Fault(kind="too_many", path="execute"), "BE-05"),
        (Fault(kind="status", status=405, path="execute"), "BE-03"),
        (Fault(kind="word", status=400, word="command_id", path="execute"), "BE-03"),
        (Fault(kind="word", status=422, word="command_id", path="execute"), "BE-03"),
        (Fault(kind="redirect", path="execute"), "BE-03"),
        (Fault(kind="html", path="execute"), "BE-03"),
        (Fault(kind="drop", path="execute", stored=False), "BE-01"),
    ],
)
def test_a_key_is_taken_only_by_who_answers_as_the_backend_does(
    backend: RunningBackend, own: Collector, fault: Fault, code: str | None
) -> None:
    backend.faults.add(fault)
    findings = found(backend.url, own.id, own.api_key)
    assert codes(findings) == ({} if code is None else {"key": code})
    assert findings["reached"].verdict == "right"
    assert findings["key"].verdict == ("right" if code is None else "wrong")


def test_nobody_is_there() -> None:
    findings = found(f"http://127.0.0.1:{free_port()}", 1, "collector_1_secret")
    assert codes(findings) == {"reached": "BE-01", "key": ""}
    assert findings["key"].verdict == "skipped"


@pytest.mark.parametrize(
    ("fault", "code"), [(Fault(kind="status", status=500), "BE-05"), (Fault(kind="too_many", retry_after="1"), "BE-05")]
)
def test_one_that_fails(backend: RunningBackend, own: Collector, fault: Fault, code: str) -> None:
    backend.faults.add(fault)
    assert codes(found(backend.url, own.id, own.api_key)) == {"reached": code, "key": ""}


def test_something_else_answers_there(backend: RunningBackend, own: Collector) -> None:
    findings = found(f"{backend.url}/elsewhere", own.id, own.api_key)
    assert codes(findings) == {"reached": "BE-03", "key": ""}


def test_the_clock_of_the_backend(own: Collector, backend: RunningBackend) -> None:
    clock = ManualClock(Clock().now() + timedelta(seconds=90))
    findings = found(backend.url, own.id, own.api_key, clock)
    assert codes(findings) == {"clock": "HO-01"}
    assert "ahead of the other one" in findings["clock"].sentence
