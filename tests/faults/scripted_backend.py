"""A backend that says to each bulk request, byte for byte, what its script says. It stores nothing by itself."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

Json = dict[str, Any]
Script = Callable[[list[Json]], bytes | None]


def answer(status: int, content: object, *headers: str, announced: int | None = None) -> bytes:
    """A whole answer; `announced`: the length that its head tells instead of the true one."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    size = len(body) if announced is None else announced
    head = "\r\n".join((f"HTTP/1.1 {status} So", f"Content-Length: {size}", "Connection: close", *headers))
    return head.encode() + b"\r\n\r\n" + body


def success(count: int, skipped: int = 0, **more: object) -> bytes:
    """The contract's own acceptance."""
    return answer(200, {"status": "success", "count": count, "skipped": skipped, "errors": [], **more})


class ScriptedBackend:
    """`script` hears the records of a request and gives the bytes to answer; None: nothing, until the end.

    `requests`: path, key and body of each.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[tuple[str, str | None, bytes]] = []
        self.closing = threading.Event()
        self._server = _Server(self)
        self._loop = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="scripted backend")
        self._loop.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Ends everything, and what waits."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._loop.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close then waits for every handler

    def __init__(self, backend: ScriptedBackend) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = backend

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """One request; the connection ends with it."""
        backend = cast("_Server", self.server).backend
        body = self.rfile.read(int(self.headers["Content-Length"]))
        backend.requests.append((self.path, self.headers["Idempotency-Key"], body))
        said = backend.script(json.loads(body)["queries"])
        if said is None:
            backend.closing.wait()
        else:
            self.wfile.write(said)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing: tests read the list."""
