"""A backend that knows PROTOCOL's table and nothing else, on http.server, with a switch for outages.

It announces no extension: keys are not looked at, a gzip body is a 400. Whatever it accepts is in its lists.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self, cast

from tests.fakes.stub_rules import Json, StubState

Served = tuple[int, Any] | None
Outage = Literal["none", "refused", "500", "hanging", "429", "401"]


class StubBackend:
    """Runs from the moment it is made, with one collector registered (`collector_id`, `api_key`).

    All lists may be read at any time; `wait_for` wakes at every request. `now` gives aware UTC.
    """

    def __init__(self, now: Callable[[], datetime] | None = None) -> None:
        self._changed = threading.Condition()
        self._state = StubState(now or (lambda: datetime.now(UTC)))
        self._outage: Outage = "none"
        self._drops_left = 0
        self._drop_probability = 0.0
        self._rng = random.Random(0)
        self._port = 0
        self._server: _Server | None = None
        self.requests = 0
        self.dropped = 0
        self.mistakes: list[BaseException] = []
        own = self._state.register("stub")
        self.collector_id: int = own["id"]
        self.api_key: str = own["api_key"]
        self._listen()

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end; the same after an outage."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """On 127.0.0.1; the same after an outage."""
        return self._port

    @property
    def records(self) -> list[Json]:
        """Every accepted record, in order, with its duplicates."""
        with self._changed:
            return list(self._state.records)

    @property
    def heartbeats(self) -> list[Json]:
        """The body of every accepted heartbeat."""
        with self._changed:
            return list(self._state.heartbeats)

    @property
    def results(self) -> list[Json]:
        """The body of every accepted result of a command."""
        with self._changed:
            return list(self._state.results)

    @property
    def commands(self) -> list[Json]:
        """Every queued command, with `reported`."""
        with self._changed:
            return [dict(each) for each in self._state.commands]

    def queue(self, command: str, params: Json | None = None) -> int:
        """Hand out a command with the next heartbeats; gives its id."""
        with self._changed:
            return self._state.queue(self.collector_id, command, params)

    @property
    def outage(self) -> Outage:
        """What is wrong now."""
        with self._changed:
            return self._outage

    def break_down(self, outage: Outage) -> None:
        """Go wrong in this way until `recover`. `refused`: the port is closed and every connection cut."""
        with self._changed:
            self._outage = outage
            self._changed.notify_all()
        if outage == "refused":
            self._close_port()
        else:
            self._listen()

    def recover(self) -> None:
        """Answer again, also what hangs, on the same port."""
        self.drop_answers()
        self.break_down("none")

    def drop_answers(self, count: int = 0, *, probability: float = 0.0, seed: int = 0) -> None:
        """Carry out the next `count` requests but cut the connection; later ones with `probability`.

        Probabilities are drawn from `seed`. Without arguments: answer everything again.
        """
        with self._changed:
            self._drops_left, self._drop_probability = count, probability
            self._rng = random.Random(seed)

    def wait_for(self, predicate: Callable[[Self], bool], timeout_s: float) -> bool:
        """Wait until `predicate(self)` holds; looked at after every request. False when it did not in time.

        One that asks for the last of what has not come yet does not hold.
        """

        def holds() -> bool:
            try:
                return predicate(self)
            except IndexError:
                return False

        with self._changed:
            return self._changed.wait_for(holds, timeout_s)

    def close(self) -> None:
        """The end: everything is cut, no thread is left. Raises what went wrong inside the stub itself."""
        self.break_down("refused")
        if self.mistakes:
            raise self.mistakes[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def serve(self, method: str, path: str, headers: Any, body: bytes, gone: Callable[[], bool]) -> Served:
        """One request, from a handler's thread. None: cut the connection. `gone`: whether the client gave up."""
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
            hung = self._outage == "hanging"
            self._changed.wait_for(lambda: self._outage != "hanging")
            if self._outage == "refused" or (hung and gone()):
                return None
            if self._outage != "none":
                return int(self._outage), {"detail": "outage"}
            answer = self._state.answer(method, path, headers, body)
            self._changed.notify_all()
            return None if self._loses_answer() else answer

    def _loses_answer(self) -> bool:
        if self._drops_left > 0:
            self._drops_left -= 1
        elif self._rng.random() >= self._drop_probability:
            return False
        self.dropped += 1
        return True

    def _listen(self) -> None:
        if self._server is None:
            self._server = _Server(self, self._port)
            self._port = self._server.server_address[1]

    def _close_port(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close then waits for every handler

    def __init__(self, stub: StubBackend, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.stub = stub
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self._loop = threading.Thread(target=self.serve_forever, args=(0.02,), name="stub")
        self._loop.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is a mistake of the stub, told by its `close`."""
        mistake = sys.exception()
        if mistake is not None and not isinstance(mistake, OSError):
            self.stub.mistakes.append(mistake)

    def close(self) -> None:
        self.shutdown()
        with self._open_lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._loop.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        stub = cast("_Server", self.server).stub
        answer = stub.serve(self.command, self.path, self.headers, body, self._gone)
        if answer is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, value = answer
        payload = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815  # http.server finds them by these names

    def _gone(self) -> bool:
        try:
            return len(self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)) == 0
        except BlockingIOError:
            return False
        except OSError:
            return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing: tests read the lists."""
