"""The development backend: its faults, its keys, its store, its port.

What could go wrong: a fault that was ordered does not happen (and a test of the agent proves nothing), or happens to
the wrong call, or stays; a "dropped" answer arrives after all; a stop leaves the port open, a thread or a connection;
a hanging request keeps a stop or a clearing waiting; a key is honoured for another body or another collector, or is
forgotten by a restart; records are counted wrongly after a restart; a gzip bomb is unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from agent.dev.app import build_context, create_app
from agent.dev.faults import Fault
from agent.dev.registry import Collector
from agent.dev.serve import RunningBackend
from agent.dev.store import KeyBusyError, Keyed, KeyReusedError, Store

TIMEOUT_S = 10
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Client:
    """A collector of one running backend."""

    def __init__(self, backend: RunningBackend) -> None:
        self.backend = backend
        self.collector: Collector = backend.registry.collectors()[0]

    def call(self, path: str, body: Any, **more: Any) -> requests.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"X-Collector-API-Key": self.collector.api_key, **more.pop("headers", {})}
        wanted: dict[str, Any] = {"timeout": TIMEOUT_S, "allow_redirects": False, **more}
        return requests.post(self.backend.url + path, data=raw, headers=headers, **wanted)

    def bulk(self, *ids: str, key: str | None = None, text: str = "SELECT 1", **more: Any) -> requests.Response:
        queries = [{"id": each, "sql_text": text} for each in ids or ("r1",)]
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.call("/api/v1/queries/bulk", {"queries": queries}, headers=headers, **more)

    def heartbeat(self) -> requests.Response:
        return self.call(f"/api/v1/collectors/{self.collector.id}/heartbeat", {"stats": {}, "error": None})

    def execute(self, number: int) -> requests.Response:
        path = f"/api/v1/collectors/{self.collector.id}/commands/{number}/execute"
        return self.call(path, {"command_id": number, "success": True, "result": {}})

    def stored(self) -> int:
        return self.backend.store.summary().records

    def dev(self, method: str, path: str, body: Any = None) -> requests.Response:
        return requests.request(method, f"{self.backend.url}/dev/{path}", json=body, timeout=TIMEOUT_S)


@pytest.fixture
def client() -> Iterator[Client]:
    with RunningBackend() as backend:
        backend.registry.register("one")
        yield Client(backend)


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


# --- faults that answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 401, 403, 404, 405])
def test_a_status_is_answered_so_many_times_and_nothing_is_stored(client: Client, status: Any) -> None:
    client.backend.faults.add(Fault(kind="status", status=status, times=2))
    assert [client.bulk().status_code for _ in range(3)] == [status, status, 200]
    assert client.stored() == 1
    assert client.backend.faults.hits == {"status": 2}


def test_an_answer_can_be_lost_behind_a_status_although_it_was_stored(client: Client) -> None:
    client.backend.faults.add(Fault(kind="status", status=503, times=1, stored=True))
    assert client.bulk().status_code == 503
    assert client.stored() == 1


@pytest.mark.parametrize("after", ["7", "Wed, 01 May 2024 12:00:00 GMT", None])
def test_too_many_comes_with_its_retry_after(client: Client, after: str | None) -> None:
    client.backend.faults.add(Fault(kind="too_many", retry_after=after, times=1))
    answer = client.bulk()
    assert (answer.status_code, answer.headers.get("Retry-After")) == (429, after)


def test_too_large_depends_on_the_number_of_records(client: Client) -> None:
    client.backend.faults.add(Fault(kind="too_large", max_records=2))
    assert client.bulk("a", "b", "c").status_code == 413
    assert client.bulk("a", "b").status_code == 200
    assert client.heartbeat().status_code == 200
    assert client.backend.faults.hits == {"too_large": 1}


def test_too_large_depends_on_the_bytes_as_they_were_sent(client: Client) -> None:
    body = json.dumps({"queries": [{"sql_text": "x" * 5000}]}).encode()
    client.backend.faults.add(Fault(kind="too_large", max_bytes=1000))
    assert client.call("/api/v1/queries/bulk", body).status_code == 413
    packed = {"Content-Encoding": "gzip"}
    assert client.call("/api/v1/queries/bulk", gzip.compress(body), headers=packed).status_code == 200


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_word_is_found_also_in_a_compressed_body(client: Client, status: Any) -> None:
    client.backend.faults.add(Fault(kind="word", word="mandrake", status=status))
    assert client.bulk(text="SELECT mandrake").status_code == status
    body = gzip.compress(b'{"queries": [{"sql_text": "mandrake"}]}')
    packed = {"Content-Encoding": "gzip"}
    assert client.call("/api/v1/queries/bulk", body, headers=packed).status_code == status
    assert client.bulk(text="SELECT carrot").status_code == 200
    assert client.call("/api/v1/queries/bulk", b"no gzip", headers=packed).status_code == 400


def test_a_captive_portal_answers_200_with_a_page(client: Client) -> None:
    client.backend.faults.add(Fault(kind="html", times=1))
    answer = client.bulk()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Accept-Encoding" not in answer.headers
    assert client.stored() == 0


def test_a_redirect_leads_to_such_a_page(client: Client) -> None:
    client.backend.faults.add(Fault(kind="redirect"))
    assert client.bulk().status_code == 302
    followed = client.bulk(allow_redirects=True)
    assert (followed.status_code, followed.text[:9]) == (200, "<!doctype")


@pytest.mark.parametrize("stored", [True, False])
def test_garbage_is_a_200_with_half_a_json(client: Client, stored: bool) -> None:
    client.backend.faults.add(Fault(kind="garbage", times=1, stored=stored))
    answer = client.bulk()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.text)
    assert client.stored() == int(stored)


# --- faults of the connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "kept"), [(None, 1), (False, 0)])
def test_a_dropped_answer_is_a_cut_connection_without_one_byte(client: Client, stored: bool | None, kept: int) -> None:
    client.backend.faults.add(Fault(kind="drop", path="bulk", times=1, stored=stored))
    body = b'{"queries": [{"sql_text": "SELECT 1"}]}'
    head = f"POST /api/v1/queries/bulk HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", client.backend.port), TIMEOUT_S) as raw:
        raw.sendall(f"{head}X-Collector-API-Key: {client.collector.api_key}\r\n\r\n".encode() + body)
        assert raw.recv(1) == b""  # the end of the stream: closed by the other side, nothing before it
    assert client.backend.faults.hits == {"drop": 1}
    assert client.stored() == kept
    assert client.bulk().status_code == 200


def test_without_a_connection_a_drop_is_a_502() -> None:
    context = build_context(Store())
    context.faults.add(Fault(kind="drop"))
    context.faults.add(Fault(kind="hang", seconds=0.01))
    web = create_app(context).test_client()
    assert web.post("/api/v1/queries/bulk").status_code == 502


def test_a_hang_ends_after_its_seconds_and_the_request_goes_on(client: Client) -> None:
    client.backend.faults.add(Fault(kind="hang", seconds=0.1, times=1))
    assert client.bulk().status_code == 200
    assert client.backend.faults.hits == {"hang": 1}


def test_a_hang_lasts_until_it_is_cleared(client: Client, background: Callable[..., Future[Any]]) -> None:
    client.backend.faults.add(Fault(kind="hang"))
    waiting = background(client.bulk)
    assert client.backend.faults.wait_for_hits("hang", 1, TIMEOUT_S)
    assert not waiting.done()
    assert client.dev("DELETE", "faults").json() == {"faults": [], "hits": {"hang": 1}}
    assert waiting.result(TIMEOUT_S).status_code == 200


def test_of_a_client_that_gave_up_while_hanging_nothing_is_stored(client: Client) -> None:
    client.backend.faults.add(Fault(kind="hang", times=1))
    with pytest.raises(requests.ReadTimeout):
        client.bulk(timeout=0.2)
    client.backend.stop()  # waits for every request that is being worked on
    assert client.stored() == 0


def test_a_hang_after_storing_loses_only_the_answer(client: Client) -> None:
    client.backend.faults.add(Fault(kind="hang", times=1, stored=True))
    with pytest.raises(requests.ReadTimeout):
        client.bulk(timeout=0.5)
    assert client.stored() == 1


def test_more_hanging_requests_than_threads_free_themselves_when_their_clients_go(client: Client) -> None:
    client.backend.faults.add(Fault(kind="hang", path="bulk"))

    def give_up(_: int) -> None:
        with pytest.raises(requests.ReadTimeout):
            client.bulk(timeout=0.2)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(give_up, range(20)))
    assert client.heartbeat().status_code == 200
    assert client.stored() == 0


# --- which call, and for how long -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "struck"),
    [
        ("bulk", [503, 200, 200]),
        ("heartbeat", [200, 503, 200]),
        ("execute", [200, 200, 503]),
        ("all", [503, 503, 503]),
    ],
)
def test_a_fault_strikes_the_calls_it_is_meant_for(client: Client, path: Any, struck: list[int]) -> None:
    client.backend.faults.add(Fault(kind="status", status=503, path=path))
    number = client.backend.registry.queue(client.collector.id, "collect").id
    answers = [client.bulk(), client.heartbeat(), client.execute(number)]
    assert [each.status_code for each in answers] == struck
    assert client.dev("GET", "summary").status_code == 200


def test_faults_come_one_after_the_other(client: Client) -> None:
    client.backend.faults.add(Fault(kind="status", status=500, times=1))
    client.backend.faults.add(Fault(kind="status", status=403, times=1))
    assert [client.bulk().status_code for _ in range(3)] == [500, 403, 200]


def test_faults_are_ordered_and_ended_by_http(client: Client) -> None:
    ordered = client.dev("POST", "faults", {"kind": "status", "status": 503, "path": "bulk", "times": 5})
    expected = [{"kind": "status", "path": "bulk", "times": 5, "status": 503}]
    assert (ordered.status_code, ordered.json()["faults"]) == (200, expected)
    assert client.bulk().status_code == 503
    assert client.dev("GET", "faults").json()["faults"][0]["times"] == 4
    client.dev("DELETE", "faults")
    assert client.bulk().status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "rain"},
        {"kind": "word"},
        {"kind": "word", "word": "x", "status": 503},
        {"kind": "too_large"},
        {"kind": "status", "status": 400},
        {"kind": "status", "status": 200},
        {"kind": "hang", "minutes": 1},
        {"kind": "too_many", "retry_after": "1\r\nX: y"},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(client: Client, wrong: dict[str, Any]) -> None:
    assert client.dev("POST", "faults", wrong).status_code == 422
    assert client.backend.faults.active() == []


def test_waiting_for_a_fault_that_does_not_happen_ends(client: Client) -> None:
    assert not client.backend.faults.wait_for_hits("drop", 1, 0.01)


# --- the port ---------------------------------------------------------------------------------------------------


def test_a_stopped_backend_refuses_and_a_started_one_knows_what_it_knew(client: Client) -> None:
    url = client.backend.url
    client.bulk(key="k")
    client.backend.stop()
    client.backend.stop()
    with pytest.raises(requests.ConnectionError, match="refused"):
        client.bulk()
    client.backend.start()
    client.backend.start()
    assert client.backend.url == url
    assert client.bulk(key="k").status_code == 200
    assert client.stored() == 1


def test_a_stop_cuts_idle_and_hanging_connections(client: Client, background: Callable[..., Future[Any]]) -> None:
    idle = http.client.HTTPConnection("127.0.0.1", client.backend.port, timeout=TIMEOUT_S)
    idle.request("GET", "/dev/summary")
    idle.getresponse().read()
    client.backend.faults.add(Fault(kind="hang"))
    hanging = background(client.bulk)
    assert client.backend.faults.wait_for_hits("hang", 1, TIMEOUT_S)
    client.backend.stop()
    with pytest.raises(requests.ConnectionError):
        hanging.result(TIMEOUT_S)
    assert idle.sock.recv(1) == b""
    idle.close()
    assert client.stored() == 0


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    with RunningBackend() as backend:
        assert requests.get(f"{backend.url}/dev/summary", timeout=TIMEOUT_S).status_code == 200
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_a_port_that_is_taken_is_an_error_that_leaves_nothing_open(client: Client, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="in use"):
        RunningBackend(port=client.backend.port, path=tmp_path / "store")
    assert set(threading.enumerate()) == before


def test_an_address_of_ipv6_is_written_with_brackets() -> None:
    try:
        backend = RunningBackend(host="::1")
    except OSError as reason:
        pytest.skip(f"no IPv6 here: {reason}")
    with backend:
        assert backend.url == f"http://[::1]:{backend.port}"
        assert requests.get(f"{backend.url}/dev/keys", timeout=TIMEOUT_S).json() == []


# --- keys -------------------------------------------------------------------------------------------------------


def test_a_repeated_key_gets_the_stored_answer_and_another_body_a_422(client: Client) -> None:
    first = client.bulk("a", "b", key="k")
    assert client.bulk("a", "b", key="k").content == first.content
    assert client.bulk("c", key="k").status_code == 422
    assert client.bulk("c", key="").status_code == 400
    assert client.stored() == 2
    assert [each["key"] for each in client.dev("GET", "keys").json()] == ["k"]


def test_the_same_body_has_the_same_key_compressed_or_not(client: Client) -> None:
    body = b'{"queries": [{"sql_text": "SELECT 1"}]}'
    key = {"Idempotency-Key": "k"}
    client.call("/api/v1/queries/bulk", body, headers=key)
    packed = {**key, "Content-Encoding": "gzip"}
    assert client.call("/api/v1/queries/bulk", gzip.compress(body), headers=packed).status_code == 200
    assert client.stored() == 1


def test_keys_of_two_collectors_are_two(client: Client) -> None:
    client.bulk(key="k")
    client.collector = client.backend.registry.register("two")
    client.bulk(key="k")
    assert client.stored() == 2


def test_a_key_in_progress_is_a_409(client: Client) -> None:
    body = orjson.dumps({"queries": []})
    with client.backend.store.claim(Keyed(client.collector.id, "k", _sha256(body))) as earlier:
        assert earlier is None
        answer = client.call("/api/v1/queries/bulk", body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 409
    assert client.call("/api/v1/queries/bulk", body, headers={"Idempotency-Key": "k"}).status_code == 200


def test_a_failed_body_leaves_its_key_free(client: Client) -> None:
    assert client.bulk(key="k", text="a\0b").status_code == 500
    assert client.bulk(key="k").status_code == 200


def test_a_dropped_answer_is_given_when_the_key_comes_again(client: Client) -> None:
    client.backend.faults.add(Fault(kind="drop", times=1))
    with pytest.raises(requests.ConnectionError):
        client.bulk("a", key="k")
    assert client.bulk("a", key="k").json()["count"] == 1
    assert client.dev("GET", "summary").json() == {
        "records": 1,
        "distinct_ids": 1,
        "duplicates": 0,
        "keys": 1,
        "collectors": 1,
    }


# --- bodies and people ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", b"{}", 415),
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b'{"queries": []}')[:-9], 400),
        ("gzip", gzip.compress(b'{"quer') + gzip.compress(b'ies": []}'), 200),
        ("gzip", gzip.compress(b" " * (64 * 1024 * 1024 + 1)), 413),
        ("gzip", gzip.compress(b'{"queries": []}' + b" " * (64 * 1024 * 1024 - 15)), 200),
    ],
    ids=["brotli", "no gzip", "cut short", "two members", "too large", "just not too large"],
)
def test_codings_of_bodies(client: Client, coding: str, body: bytes, status: int) -> None:
    answer = client.call("/api/v1/queries/bulk", body, headers={"Content-Encoding": coding})
    assert answer.status_code == status


def test_a_method_that_is_not_allowed_is_told_with_those_that_are(client: Client) -> None:
    answer = client.dev("PUT", "summary")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
    assert "GET" in answer.headers["Allow"]


def test_an_error_of_the_backend_itself_is_a_500_in_json() -> None:
    store = Store()
    context = build_context(store)
    key = context.registry.register("one").api_key
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]  # orjson reads this but does not write it
    body = json.dumps({"queries": [{"sql_text": "SELECT 1", "deep": deep}]})
    web = create_app(context).test_client()
    answer = web.post("/api/v1/queries/bulk", data=body, headers={"X-Collector-API-Key": key})
    assert (answer.status_code, answer.json) == (500, {"detail": "Internal Server Error"})
    assert store.summary().records == 0


def test_only_the_given_token_is_let_in() -> None:
    with RunningBackend(token="right") as backend:
        url = f"{backend.url}/api/v1/collectors"
        tokens = {"Bearer right": 200, "bearer right": 200, "Bearer wrong": 403, "Bearer ": 401, "Basic right": 401}
        for sent, status in tokens.items():
            assert requests.get(url, headers={"Authorization": sent}, timeout=TIMEOUT_S).status_code == status


def test_a_person_queues_any_word_and_sees_what_became_of_it(client: Client) -> None:
    url = f"{client.backend.url}/api/v1/collectors/{client.collector.id}/commands"
    person = {"Authorization": "Bearer me"}
    for word in ("update_config", "dance"):
        requests.post(url, json={"command": word, "params": {"a": 1}}, headers=person, timeout=TIMEOUT_S)
    handed_out = client.heartbeat().json()["commands"]
    assert [(each["command"], each["params"]) for each in handed_out] == [
        ("update_config", {"a": 1}),
        ("dance", {"a": 1}),
    ]
    client.execute(1)
    told = requests.get(url, headers=person, timeout=TIMEOUT_S).json()
    assert [(each["status"], each["success"]) for each in told] == [("completed", True), ("pending", None)]


def test_a_name_that_is_taken_cannot_be_given_by_a_change(client: Client) -> None:
    client.backend.registry.register("two")
    url = f"{client.backend.url}/api/v1/collectors/{client.collector.id}"
    answer = requests.patch(url, json={"name": "two"}, headers={"Authorization": "Bearer me"}, timeout=TIMEOUT_S)
    assert answer.status_code == 400


# --- looking ----------------------------------------------------------------------------------------------------


def test_stored_records_are_read_page_by_page(client: Client) -> None:
    client.bulk("a", "b", "c")
    client.call("/api/v1/queries/bulk", {"queries": []}, headers={"Idempotency-Key": "empty"})
    client.bulk("d", "e")
    pages = [client.dev("GET", f"queries?after={after}&limit=2").json() for after in (0, 2, 4, 5)]
    assert [[(each["number"], each["record"]["id"]) for each in page] for page in pages] == [
        [(1, "a"), (2, "b")],
        [(3, "c"), (4, "d")],
        [(5, "e")],
        [],
    ]
    assert client.dev("GET", "queries?after=x").status_code == 422
    assert client.dev("GET", "queries?limit=10001").status_code == 422


def test_a_start_time_that_cannot_be_parsed_becomes_the_time_of_arrival() -> None:
    with RunningBackend(now=lambda: NOON) as backend:
        backend.registry.register("one")
        client = Client(backend)
        times = ["2024-04-30T01:02:03+00:00", "yesterday", None]
        queries = [{"sql_text": "SELECT 1", "start_time": each} for each in times]
        client.call("/api/v1/queries/bulk", {"queries": queries})
        seen = [each["start_time"] for each in client.dev("GET", "queries").json()]
    assert seen == ["2024-04-30T01:02:03+00:00", NOON.isoformat(), NOON.isoformat()]


def test_duplicates_are_records_whose_id_was_stored_before(client: Client) -> None:
    client.bulk("a", "b")
    client.bulk("b", "c")
    client.call("/api/v1/queries/bulk", {"queries": [{"sql_text": "no id"}] * 2})
    summary = client.backend.store.summary()
    assert (summary.records, summary.distinct_ids, summary.duplicates) == (6, 3, 1)


# --- the store --------------------------------------------------------------------------------------------------


def test_a_file_keeps_records_keys_collectors_and_commands(tmp_path: Path) -> None:
    path = tmp_path / "backend.sqlite3"
    with RunningBackend(path=path) as backend:
        backend.registry.register("one")
        client = Client(backend)
        client.bulk("a", "b", key="k")
        client.bulk("b")
        backend.registry.queue(1, "collect", {"x": 1})
        client.heartbeat()
        before = (backend.store.summary(), backend.store.keys(), backend.store.page(), backend.registry.collectors())
    with RunningBackend(path=path) as backend:
        after = (backend.store.summary(), backend.store.keys(), backend.store.page(), backend.registry.collectors())
        assert before == after
        client = Client(backend)
        assert client.bulk("a", "b", key="k").json()["count"] == 2
        assert client.bulk("c", key="k").status_code == 422
        assert [each["command"] for each in client.heartbeat().json()["commands"]] == ["collect"]
        assert client.execute(1).status_code == 200
        assert backend.store.summary().records == 3


def test_what_a_killed_backend_had_answered_is_there(tmp_path: Path) -> None:
    path = tmp_path / "backend.sqlite3"
    first = Store(path)
    keyed = Keyed(1, "k", "d")
    first.append(1, [{"id": "a"}], received_at=NOON, answer=b"{}", keyed=keyed)
    second = Store(path)  # the first was never closed
    assert (second.records(), second.keys()) == ([{"id": "a"}], [{"collector_id": 1, "key": "k", "digest": "d"}])
    first.close()
    second.close()


def test_an_empty_batch_without_a_key_is_not_kept() -> None:
    store = Store()
    store.append(1, [], received_at=NOON, answer=b"{}")
    assert list(store.rows("batch")) == []


def test_a_claim_tells_busy_from_reused() -> None:
    store = Store()
    with store.claim(Keyed(1, "k", "d")), pytest.raises(KeyBusyError), store.claim(Keyed(1, "k", "d")):
        pass
    store.append(1, [], received_at=NOON, answer=b"{}", keyed=Keyed(1, "k", "d"))
    with pytest.raises(KeyReusedError), store.claim(Keyed(1, "k", "other")):
        pass


def test_a_batch_is_one_row_that_is_written_once(tmp_path: Path) -> None:
    """What makes a post cost the same after a million records: nothing that grows is written again."""
    store = Store(tmp_path / "s")
    for number in range(50):
        store.append(1, [{"id": f"{number}.{place}"} for place in range(20)], received_at=NOON, answer=b"{}")
    rows = list(store.rows("batch"))
    assert [len(row["records"]) for row in rows] == [20] * 50
    assert [each["record"]["id"] for each in store.page(after=998)] == ["49.18", "49.19"]
    store.close()


# --- the entrance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_tells_its_address_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-W", "error", "-m", "agent.dev.backend", "--port", "0", "--store", str(tmp_path / "s")]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ) as program:
        assert program.stdout is not None
        told = program.stdout.readline()
        url = told.split()[3].rstrip(",")
        assert requests.get(f"{url}/openapi.json", timeout=TIMEOUT_S).json()["openapi"] == "3.1.0"
        program.send_signal(number)
        rest, _ = program.communicate(timeout=TIMEOUT_S)
    assert (program.returncode, rest) == (0, "Stopped with 0 records, 0 of them duplicates.\n")


def test_a_port_that_is_taken_is_told_in_a_sentence(client: Client) -> None:
    argv = [sys.executable, "-m", "agent.dev.backend", "--port", str(client.backend.port)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1:" in done.stderr


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_a_stop_that_was_broken_off_can_be_done_again() -> None:
    class BrokenOff(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            raise KeyboardInterrupt

    backend = RunningBackend()
    loop = backend._loop
    assert loop is not None
    backend._loop = BrokenOff()
    with pytest.raises(KeyboardInterrupt):
        backend.stop()
    loop.join()  # it ends by itself meanwhile, and closes what stop would wake it by
    backend._loop = loop
    backend.close()
    assert backend._loop is None
