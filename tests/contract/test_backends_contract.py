"""The same cases of PROTOCOL against the development backend (with and without extensions) and the stub.

What could go wrong: one of the two misreads the protocol, and the agent is then proved against a backend that does not
exist; an extension changes what an agent without extensions sees; the stub quietly honours keys.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from agent.dev.serve import RunningBackend
from tests.fakes.stub_backend import Outage, StubBackend

Json = dict[str, Any]
TIMEOUT_S = 10


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.time = datetime(2024, 5, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def turn(self, **by: float) -> None:
        self.time += timedelta(**by)


@dataclass
class Subject:
    """One backend under test, its collector, and how to see and queue things without HTTP."""

    url: str
    collector_id: int
    api_key: str
    records: Callable[[], list[Json]]
    queue: Callable[[str, Json], int]
    clock: TurnedClock

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"X-Collector-API-Key": self.api_key, "Content-Type": "application/json"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        return requests.post(self.url + path, data=raw, headers=sent, timeout=TIMEOUT_S)

    def bulk(self, *queries: Any, **headers: str) -> requests.Response:
        return self.post("/api/v1/queries/bulk", {"queries": list(queries)}, **headers)

    def heartbeat(self, error: str | None = None) -> Json:
        answer = self.post(f"/api/v1/collectors/{self.collector_id}/heartbeat", {"stats": {}, "error": error})
        assert answer.status_code == 200
        found: Json = answer.json()
        return found

    def execute(self, command_id: int) -> requests.Response:
        path = f"/api/v1/collectors/{self.collector_id}/commands/{command_id}/execute"
        return self.post(path, {"command_id": command_id, "success": True, "result": {"n": 1}})

    def person(self, method: str, path: str = "", body: Json | None = None) -> requests.Response:
        url = f"{self.url}/api/v1/collectors{path}"
        headers = {"Authorization": "Bearer someone"}
        return requests.request(method, url, json=body, headers=headers, timeout=TIMEOUT_S)

    def status(self) -> str:
        found: str = self.person("GET", f"/{self.collector_id}").json()["status"]
        return found


@pytest.fixture(params=["dev", "dev-plain", "stub"])
def backend(request: pytest.FixtureRequest) -> Iterator[Subject]:
    clock = TurnedClock()
    if request.param == "stub":
        with StubBackend(clock.now) as stub:
            own = stub.collector_id
            yield Subject(stub.url, own, stub.api_key, lambda: stub.records, stub.queue, clock)
        return
    with RunningBackend(now=clock.now, extensions=request.param == "dev") as dev:
        one = dev.registry.register("one")

        def queue(word: str, params: Json) -> int:
            return dev.registry.queue(one.id, word, params).id

        yield Subject(dev.url, one.id, one.api_key, dev.store.records, queue, clock)


def record(**more: Any) -> Json:
    plain = {"id": "r1", "sql_text": "SELECT 1", "query_time": 1.5, "lock_time": 0, "rows_sent": 1, "rows_examined": 2}
    return {**plain, "db": "shop", "user_host": "me@here", "start_time": "2024-05-01T11:59:00+00:00", **more}


def test_records_are_counted_and_kept(backend: Subject) -> None:
    answer = backend.bulk(record(), record(id="r2"))
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "success", "count": 2, "skipped": 0, "errors": []},
    )
    assert backend.records() == [record(), record(id="r2")]


def test_an_empty_body_of_records_is_a_success(backend: Subject) -> None:
    assert backend.bulk().json()["count"] == 0


@pytest.mark.parametrize("text", ["", None])
def test_a_record_without_text_is_skipped_silently(backend: Subject, text: str | None) -> None:
    answer = backend.bulk(record(sql_text=text), record()).json()
    assert answer == {"status": "success", "count": 1, "skipped": 1, "errors": []}


def test_a_record_whose_text_is_missing_is_skipped(backend: Subject) -> None:
    assert backend.bulk({"query_time": 1}).json()["skipped"] == 1


@pytest.mark.parametrize(
    "wrong", [{"query_time": None}, {"lock_time": "x"}, {"rows_sent": None}, {"rows_examined": "1.5"}]
)
def test_a_number_that_cannot_be_read_costs_its_record(backend: Subject, wrong: Json) -> None:
    answer = backend.bulk(record(**wrong), record()).json()
    assert (answer["count"], answer["skipped"]) == (1, 1)
    assert [sorted(each) for each in answer["errors"]] == [["error", "query"]]


def test_only_ten_errors_are_told(backend: Subject) -> None:
    answer = backend.bulk(*[record(query_time="x")] * 12, record()).json()
    assert (answer["count"], answer["skipped"], len(answer["errors"])) == (1, 12, 10)


@pytest.mark.parametrize(
    "poison",
    [
        {"sql_text": "a\0b"},
        {"db": "\0"},
        {"user_host": "\0"},
        {"user_host": "x" * 256},
        {"rows_sent": 2**31},
        {"rows_examined": 2**40},
    ],
)
def test_one_poisonous_record_fails_its_whole_body_for_ever(backend: Subject, poison: Json) -> None:
    for _ in range(2):
        assert backend.bulk(record(), record(**poison)).status_code == 500
    assert backend.records() == []


def test_what_is_just_small_enough_is_accepted(backend: Subject) -> None:
    widest = record(user_host="x" * 255, rows_sent=2**31 - 1, start_time="no time", unknown={"any": ["thing"]})
    assert backend.bulk(widest).json()["count"] == 1


def test_strings_are_read_as_numbers(backend: Subject) -> None:
    assert backend.bulk(record(query_time="1.5", rows_sent="7")).json()["count"] == 1


@pytest.mark.parametrize(
    ("key", "detail"),
    [
        ("", "Invalid collector API key format"),
        ("collector_1", "Invalid collector API key format"),
        ("collector_x_y", "Invalid collector API key format"),
        ("collector_1_wrong", "Invalid collector API key"),
        ("collector_77_stub", "Invalid collector API key"),
    ],
)
def test_a_wrong_key_is_told_why(backend: Subject, key: str, detail: str) -> None:
    answer = backend.bulk(record(), X_Collector_API_Key=key)
    assert (answer.status_code, answer.json()) == (401, {"detail": detail})


def test_a_missing_key_is_told(backend: Subject) -> None:
    answer = requests.post(f"{backend.url}/api/v1/queries/bulk", json={"queries": []}, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Missing X-Collector-API-Key header"})


def test_the_key_of_another_collector_is_a_mismatch(backend: Subject) -> None:
    answer = backend.post("/api/v1/collectors/77/heartbeat", {"stats": {}, "error": None})
    assert (answer.status_code, answer.json()) == (403, {"detail": "Collector ID mismatch"})


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"queries": 7}', b'{"queries": [7]}', b"{}", b""])
def test_a_body_of_another_shape_is_told_like_fastapi(backend: Subject, body: bytes) -> None:
    answer = backend.post("/api/v1/queries/bulk", body)
    assert answer.status_code == 422
    assert {"loc", "msg", "type"} <= set(answer.json()["detail"][0])


def test_gzip_is_refused_unless_it_was_announced(backend: Subject) -> None:
    announced = "gzip" in backend.bulk().headers.get("Accept-Encoding", "")
    packed = gzip.compress(json.dumps({"queries": [record()]}).encode())
    answer = backend.post("/api/v1/queries/bulk", packed, Content_Encoding="gzip")
    if announced:
        assert (answer.status_code, answer.json()["count"]) == (200, 1)
    else:
        assert (answer.status_code, answer.json()) == (400, {"detail": "There was an error parsing the body"})


def test_bytes_that_are_no_text_are_a_400(backend: Subject) -> None:
    assert backend.post("/api/v1/queries/bulk", b"\x1f\x8b\xff").status_code == 400


def test_a_repeated_body_comes_twice_unless_its_key_is_honoured(backend: Subject) -> None:
    honoured = "Accept-Encoding" in backend.bulk().headers
    answers = [backend.bulk(record(), Idempotency_Key="k1").json()["count"] for _ in range(2)]
    assert answers == [1, 1]
    assert len(backend.records()) == (1 if honoured else 2)


def test_a_command_comes_with_every_heartbeat_until_its_result_is_reported(backend: Subject) -> None:
    number = backend.queue("update_config", {"collection_interval": 60})
    first, second = backend.heartbeat()["commands"], backend.heartbeat()["commands"]
    assert first == second
    assert [(each["id"], each["command"], each["params"]) for each in first] == [
        (number, "update_config", {"collection_interval": 60})
    ]
    assert isinstance(first[0]["created_at"], str)
    assert backend.execute(number).json()["status"] == "ok"
    assert backend.heartbeat()["commands"] == []
    assert backend.execute(number).status_code == 404


def test_a_command_expires_after_five_minutes(backend: Subject) -> None:
    number = backend.queue("collect", {})
    backend.clock.turn(minutes=4, seconds=59)
    assert len(backend.heartbeat()["commands"]) == 1
    backend.clock.turn(seconds=1)
    assert backend.heartbeat()["commands"] == []
    assert backend.execute(number).status_code == 404


def test_an_unknown_command_is_a_404(backend: Subject) -> None:
    assert backend.execute(99).status_code == 404


def test_the_status_follows_the_heartbeats(backend: Subject) -> None:
    assert backend.heartbeat()["status"] == "ok"
    assert backend.status() == "ONLINE"
    backend.heartbeat("database away")
    assert backend.status() == "ERROR"
    backend.heartbeat()
    assert backend.status() == "ONLINE"
    backend.clock.turn(minutes=2)
    assert backend.status() == "ONLINE"
    backend.clock.turn(seconds=1)
    assert backend.status() == "OFFLINE"


def test_a_person_registers_a_collector_that_can_then_send(backend: Subject) -> None:
    wanted = {"name": "new", "type": "postgres", "team_id": 3, "collection_interval_minutes": 5}
    answer = backend.person("POST", "/register", wanted)
    new = answer.json()
    assert answer.status_code == 201
    assert (new["name"], new["type"], new["team_id"]) == ("new", "postgres", 3)
    assert {"id", "message", "organization_id"} <= set(new)
    assert new["api_key"].startswith(f"collector_{new['id']}_")
    assert backend.bulk(record(), X_Collector_API_Key=new["api_key"]).json()["count"] == 1
    assert backend.person("POST", "/register", wanted).status_code == 400


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"team_id": 0}, 404),
        ({"type": "oracle"}, 422),
        ({"name": 5}, 422),
        ({"collection_interval_minutes": 0}, 422),
        ({"collection_interval_minutes": 1441}, 422),
    ],
)
def test_a_registration_that_is_wrong_is_refused(backend: Subject, change: Json, status: int) -> None:
    wanted = {"name": "new", "type": "mysql", "team_id": 3, **change}
    assert backend.person("POST", "/register", wanted).status_code == status


def test_a_person_without_a_token_is_refused(backend: Subject) -> None:
    url = f"{backend.url}/api/v1/collectors"
    assert requests.get(url, timeout=TIMEOUT_S).status_code == 401
    assert requests.post(f"{url}/register", json={}, timeout=TIMEOUT_S).status_code == 401


def test_a_person_manages_a_collector(backend: Subject) -> None:
    own = f"/{backend.collector_id}"
    words = ["start", "stop", "collect"]
    for word in words:
        assert backend.person("POST", f"{own}/{word}").status_code == 200
    assert [each["command"] for each in backend.heartbeat()["commands"]] == words
    assert [each["command"] for each in backend.person("GET", f"{own}/commands").json()] == words
    assert backend.person("PATCH", own, {"name": "renamed"}).json()["name"] == "renamed"
    assert [each["name"] for each in backend.person("GET").json()] == ["renamed"]
    assert backend.person("DELETE", own).status_code == 200
    assert backend.person("GET", own).status_code == 404
    assert backend.bulk(record()).status_code == 401


def test_an_unknown_path_is_a_404(backend: Subject) -> None:
    assert backend.post("/api/v1/nothing", {}).status_code == 404


# --- the stub's outages: each proved to happen, and to end ------------------------------------------------------


@pytest.fixture
def stub() -> Iterator[StubBackend]:
    with StubBackend() as running:
        yield running


def send(stub: StubBackend, timeout_s: float = TIMEOUT_S) -> requests.Response:
    headers = {"X-Collector-API-Key": stub.api_key}
    body = {"queries": [record()]}
    return requests.post(f"{stub.url}/api/v1/queries/bulk", json=body, headers=headers, timeout=timeout_s)


@pytest.mark.parametrize("outage", ["500", "429", "401"])
def test_the_stub_answers_a_status(stub: StubBackend, outage: Outage) -> None:
    stub.break_down(outage)
    assert stub.outage == outage
    assert send(stub).status_code == int(outage)
    stub.recover()
    assert send(stub).status_code == 200
    assert len(stub.records) == 1


def test_the_stub_refuses_and_comes_back_on_its_port(stub: StubBackend) -> None:
    url = stub.url
    with requests.Session() as session:
        assert session.get(f"{url}/api/v1/collectors", timeout=TIMEOUT_S).status_code == 401
        stub.break_down("refused")
        with pytest.raises(requests.ConnectionError, match="refused"):
            session.get(f"{url}/api/v1/collectors", timeout=TIMEOUT_S)
    stub.recover()
    assert stub.url == url
    assert send(stub).status_code == 200


def test_the_stub_hangs_until_it_recovers_and_forgets_who_gave_up(stub: StubBackend) -> None:
    stub.break_down("hanging")
    with pytest.raises(requests.ReadTimeout):
        send(stub, 0.2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send, stub)
        assert stub.wait_for(lambda seen: seen.requests == 2, TIMEOUT_S)
        assert not waiting.done()
        stub.recover()
        assert waiting.result(TIMEOUT_S).status_code == 200
    assert len(stub.records) == 1


def test_a_hanging_stub_can_be_closed(stub: StubBackend) -> None:
    stub.break_down("hanging")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send, stub)
        assert stub.wait_for(lambda seen: seen.requests == 1, TIMEOUT_S)
        stub.close()
        with pytest.raises(requests.ConnectionError):
            waiting.result(TIMEOUT_S)
    assert stub.records == []


def test_the_stub_drops_answers_of_what_it_stored(stub: StubBackend) -> None:
    stub.drop_answers(2)
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            send(stub)
    assert send(stub).status_code == 200
    assert (stub.dropped, len(stub.records)) == (2, 3)
    stub.drop_answers(probability=1)
    with pytest.raises(requests.ConnectionError):
        send(stub)
    stub.recover()
    assert send(stub).status_code == 200
    assert len(stub.records) == 5


def test_the_stub_keeps_heartbeats_results_and_commands(stub: StubBackend) -> None:
    number = stub.queue("collect", {"target": "default"})
    headers = {"X-Collector-API-Key": stub.api_key}
    own = f"{stub.url}/api/v1/collectors/{stub.collector_id}"
    beat, report = {"stats": {"a": 1}, "error": None}, {"command_id": number, "success": True, "result": {}}
    requests.post(f"{own}/heartbeat", json=beat, headers=headers, timeout=TIMEOUT_S)
    requests.post(f"{own}/commands/{number}/execute", json=report, headers=headers, timeout=TIMEOUT_S)
    assert (stub.heartbeats, stub.results) == ([beat], [report])
    assert [(each["command"], each["reported"]) for each in stub.commands] == [("collect", True)]
    assert not stub.wait_for(lambda seen: len(seen.results) == 2, 0.01)


def test_the_stub_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with StubBackend() as stub:
        send(stub)
    assert set(threading.enumerate()) == before


def test_a_mistake_inside_the_stub_is_told_when_it_closes() -> None:
    def broken() -> datetime:
        raise ZeroDivisionError

    stub = StubBackend(broken)
    headers = {"X-Collector-API-Key": stub.api_key}
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{stub.url}/api/v1/collectors/1/heartbeat", json={}, headers=headers, timeout=TIMEOUT_S)
    with pytest.raises(ZeroDivisionError):
        stub.close()
