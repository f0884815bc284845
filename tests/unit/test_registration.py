"""The registration of a collector, against the development backend.

What could go wrong: the database's password goes to the backend; the token shows up in an error; an answer that is no
registration is taken for one; whoever lost the answer does not learn that it may have been carried out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from agent.dev.faults import Fault
from agent.dev.serve import RunningBackend
from agent.dev.server_process import free_port
from agent.errors import BackendAway, NotTheBackend, RegistrationRefused
from agent.registration import Registered, Wanted, id_in, register
from agent.transport import Transport

WANTED = Wanted("host-1", "mysql", 1, {"host": "db", "port": 3306, "user": "monitoring"})


@pytest.fixture
def backend() -> Iterator[RunningBackend]:
    with RunningBackend(token="let-me-in") as running:
        yield running


def asked(url: str, token: str = "let-me-in", wanted: Wanted = WANTED) -> Registered:
    with closing(Transport(url, None)) as transport:
        return register(transport, token, wanted)


def test_it_is_registered_and_the_key_is_of_its_id(backend: RunningBackend) -> None:
    found = asked(backend.url)
    [known] = backend.registry.collectors()
    assert (known.id, known.api_key, known.name, known.type) == (found.collector_id, found.api_key, "host-1", "mysql")
    assert known.config == {"host": "db", "port": 3306, "user": "monitoring"}
    assert id_in(found.api_key) == found.collector_id


@pytest.mark.parametrize(
    ("token", "wanted", "complaint"),
    [
        ("wrong-secret", WANTED, "status 403"),
        ("let-me-in", Wanted("", "mysql", 1, {}), "status 422"),
        ("let-me-in", Wanted("x", "mysql", -1, {}), "status 404, Team not found"),
    ],
)
def test_what_is_refused_says_why_and_not_with_what(
    backend: RunningBackend, token: str, wanted: Wanted, complaint: str
) -> None:
    with pytest.raises(RegistrationRefused, match=complaint) as caught:
        asked(backend.url, token, wanted)
    assert "wrong-secret" not in str(caught.value)


def test_a_name_that_is_taken(backend: RunningBackend) -> None:
    asked(backend.url)
    with pytest.raises(RegistrationRefused, match="already exists"):
        asked(backend.url)


def test_a_lost_answer_is_told_as_what_it_may_be(backend: RunningBackend) -> None:
    backend.faults.add(Fault(kind="drop", times=1))
    with pytest.raises(BackendAway, match="registered all the same"):
        asked(backend.url)
    assert len(backend.registry.collectors()) == 1, "it was"


def test_nobody_is_there() -> None:
    with pytest.raises(BackendAway) as caught:
        asked(f"http://127.0.0.1:{free_port()}")
    assert "all the same" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (201, b'{"id": 1}'),
        (201, b'{"id": "1", "api_key": "collector_1_x"}'),
        (201, b'{"id": 1, "api_key": "collector_1_x y"}'),
        (201, b'{"id": 1, "api_key": "collector_1_${DBPOWER_DB_CONFIG_PASSWORD}"}'),
        (201, b'{"id": -1, "api_key": "collector_1_x"}'),
        (302, b'{"id": 1, "api_key": "collector_1_x"}'),
        (500, b""),
    ],
)
def test_what_is_no_registration_is_not_taken_for_one(status: int, body: bytes) -> None:
    with answering(status, body) as url, pytest.raises(NotTheBackend):
        asked(url)


def test_a_backend_that_repeats_the_token_does_not_show_it() -> None:
    answer = b'{"detail": "no Bearer let-me-in here"}'
    with answering(403, answer) as url, pytest.raises(RegistrationRefused, match=r"no Bearer \*\*\* here"):
        asked(url)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that gives this one answer."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        thread.join()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("collector_12_abc", 12),
        ("collector_12_", None),
        ("abc", None),
        ("collector_x_abc", None),
        ("collector_1_a b", None),
    ],
)
def test_the_id_in_a_key(key: str, expected: int | None) -> None:
    assert id_in(key) == expected
