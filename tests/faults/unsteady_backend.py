"""A backend that takes bulk bodies by the rules, honours keys or does not, and is hardly ever well.

It writes down of every bulk request what it did and whether its acceptance went out whole. Each process that asks gets
an address of its own, so that it is known of every request who sent it, also when it is carried out after that process
was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self, cast

from tests.fakes.stub_rules import Answer, Json, StubState
from tests.faults.mishaps import Mishap, Phase, Weather
from tests.faults.reckoning import Effect, Exchange

BULK = "/api/v1/queries/bulk"
LOOK_AGAIN_S = 0.02


class UnsteadyBackend:
    """Runs from the moment it is made, with one collector registered. All lists may be read at any time."""

    def __init__(self, *, honours_keys: bool, seed: int) -> None:
        self.honours_keys = honours_keys
        self._changed = Condition()
        self._weather: Weather | None = Weather(seed, time.monotonic)
        self._ordered: Phase | None = None
        self._state = StubState(lambda: datetime.now(UTC))
        self._exchanges: list[Exchange] = []
        self._bodies: dict[str, bytes] = {}  # key: digest of the body
        self._answers: dict[str, Answer] = {}  # what a known key is answered
        self._in_progress: set[str] = set()
        self.mistakes: list[str] = []
        own = self._state.register("unsteady")
        self.collector_id: int = own["id"]
        self.api_key: str = own["api_key"]
        self._server = _Server(self)

    def address(self, life: int) -> str:
        """Where the process of that number is to send."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/life-{life}"

    @property
    def url(self) -> str:
        """The address of life 0."""
        return self.address(0)

    @property
    def exchanges(self) -> list[Exchange]:
        """Every bulk request so far."""
        with self._changed:
            return list(self._exchanges)

    def of_life(self, life: int) -> list[Exchange]:
        """Those of one process."""
        with self._changed:
            return [each for each in self._exchanges if each.life == life]

    @property
    def heartbeats(self) -> list[Json]:
        """The body of every accepted heartbeat."""
        with self._changed:
            return list(self._state.heartbeats)

    def order(self, mishap: Mishap | None) -> None:
        """This one thing goes wrong until the next order; None: what the weather brings."""
        with self._changed:
            self._ordered = None if mishap is None else Phase(mishap)
            self._changed.notify_all()

    def recover(self) -> None:
        """Nothing goes wrong any more; what hangs goes on."""
        with self._changed:
            self._weather = None
        self.order(None)

    def wait_for(self, predicate: Callable[[Self], bool], timeout_s: float) -> bool:
        """Wait until `predicate(self)` holds; looked at after every request. False when it did not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self), timeout_s)

    def close(self) -> None:
        """Cuts everything and waits until no request is being carried out. Raises what went wrong in here."""
        self.recover()
        self._server.close()
        if self.mistakes:
            raise AssertionError(self.mistakes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- one request, from the handler's thread --------------------------------------------------------------------

    def phase(self) -> Phase:
        """What goes wrong now."""
        with self._changed:
            return self._ordered or (self._weather.now() if self._weather is not None else Phase(Mishap.FINE))

    def hold(self, phase: Phase) -> None:
        """Wait until that phase is over."""
        with self._changed:
            while self.phase() is phase:
                self._changed.wait(LOOK_AGAIN_S)

    def arrives(self, exchange: Exchange) -> None:
        """The head of a bulk request is there."""
        with self._changed:
            self._exchanges.append(exchange)
            self._changed.notify_all()

    def begins(self, exchange: Exchange, body: bytes) -> Answer | None:
        """Its body is there. An answer when it is not to be carried out; else `ends` must follow."""
        with self._changed:
            exchange.records = tuple(json.loads(body)["queries"])
            digest = hashlib.sha256(body).digest()
            if self._bodies.setdefault(exchange.key, digest) != digest:
                self.mistakes.append(f"{exchange.key} came with another body")
                return 422, {"detail": "the key came with another body"}
            if exchange.key in self._in_progress and self.honours_keys:
                return 409, {"detail": "a request with this key is in progress"}
            self._in_progress.add(exchange.key)
            self._changed.notify_all()
            return None

    def ends(self, exchange: Exchange) -> None:
        """It is carried out, or will not be."""
        with self._changed:
            self._in_progress.discard(exchange.key)

    def carry_out(self, exchange: Exchange | None, method: str, path: str, headers: Any, body: bytes) -> Answer:
        """What is to be answered; only now anything is stored."""
        with self._changed:
            if exchange is not None and self.honours_keys and exchange.key in self._answers:
                exchange.effect = Effect.RECOGNISED
                return self._answers[exchange.key]
            answer = self._state.answer(method, path, headers, body)
            if exchange is not None and answer[0] == 200:
                exchange.effect = Effect.STORED
                self._answers[exchange.key] = answer
            self._changed.notify_all()
            return answer

    def has_told(self, exchange: Exchange | None) -> None:
        """The answer is out, whole."""
        with self._changed:
            if exchange is not None:
                exchange.told = exchange.effect is not Effect.NONE
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close then waits for every handler

    def __init__(self, backend: UnsteadyBackend) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = backend
        self._open: set[socket.socket] = set()
        self._loop = Thread(target=self.serve_forever, args=(0.02,), name="unsteady backend")
        self._loop.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news; anything else is a mistake of the backend, told by its `close`."""
        mistake = sys.exception()
        if not isinstance(mistake, OSError):
            self.backend.mistakes.append(repr(mistake))

    def close(self) -> None:
        self.shutdown()
        for each in list(self._open):
            _cut(each)
        self.server_close()
        self._loop.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        backend = cast("_Server", self.server).backend
        phase = backend.phase()
        life, self.path = self.path.removeprefix("/life-").split("/", 1)
        self.path = f"/{self.path}"
        exchange = None
        if self.path == BULK:
            exchange = Exchange(int(life), self.headers["Idempotency-Key"], phase.mishap)
            backend.arrives(exchange)
        body = self._body(phase)
        if body is None:
            self._cut()
            return
        refusal = backend.begins(exchange, body) if exchange is not None else None
        if refusal is not None:
            self._answer(refusal)
            return
        try:
            answer = self._outcome(backend, phase, exchange, body)
        finally:
            if exchange is not None:
                backend.ends(exchange)
        if phase.mishap is Mishap.ANSWER_HANGS:
            backend.hold(phase)
        if self._answer(answer, phase.mishap) and answer[0] == 200:
            backend.has_told(exchange)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815  # http.server finds them by these names

    def _body(self, phase: Phase) -> bytes | None:
        """None when it does not come whole."""
        size = int(self.headers.get("Content-Length", 0))
        if phase.mishap is Mishap.CUT_BEFORE_BODY:
            return None
        wanted = size // 2 if phase.mishap is Mishap.CUT_IN_BODY else size
        body = self.rfile.read(wanted)
        return body if len(body) == size else None

    def _outcome(self, backend: UnsteadyBackend, phase: Phase, exchange: Exchange | None, body: bytes) -> Answer:
        gateway = phase.status, {"detail": "the gateway has lost sight of the backend"}
        if phase.mishap is Mishap.REFUSED:
            return gateway
        if phase.mishap is Mishap.HANGS:
            backend.hold(phase)
        answer = backend.carry_out(exchange, self.command, self.path, self.headers, body)
        return gateway if phase.mishap is Mishap.LOST_AT_GATEWAY else answer

    def _answer(self, answer: Answer, mishap: Mishap = Mishap.FINE) -> bool:
        """Sends it, as far as the mishap lets it. Whether all of it went out, to somebody."""
        payload = json.dumps(answer[1]).encode()
        if mishap is Mishap.HALF_ANSWER:
            payload = payload[: len(payload) // 2]
        phrase = self.responses[answer[0]][0]
        head = (
            f"HTTP/1.1 {answer[0]} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        whole = head.encode() + payload
        cut_at = {
            Mishap.LOST: 0,
            Mishap.CUT_IN_HEAD: len(head) // 2,
            Mishap.CUT_IN_ANSWER: len(head) + len(payload) // 2,
        }.get(mishap, len(whole))
        is_heard = mishap is not Mishap.HALF_ANSWER and cut_at == len(whole) and not self._is_gone()
        self.wfile.write(whole[:cut_at])
        if cut_at < len(whole):
            self._cut()
        return is_heard

    def _is_gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def _cut(self) -> None:
        self.close_connection = True
        _cut(self.connection)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing: tests read the lists."""


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
