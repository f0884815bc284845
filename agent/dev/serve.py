"""The development backend behind a real port: started, stopped and started again on the same one.

waitress carries it. Three things are added: a connection can be cut, a stop cuts all of them at once (who is
gone does not say goodbye), and every thread is waited for.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask

from agent.dev.app import build_context, create_app
from agent.dev.fault_door import CONNECTION
from agent.dev.faults import Faults
from agent.dev.registry import Registry
from agent.dev.store import Store

THREADS = 16  # a hanging request occupies one until its client gives up; heartbeats still need theirs
STOP_TIMEOUT_S = 5
_MAX_WIRE_BYTES = 256 * 1024 * 1024


class _ChannelConnection:
    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def cut(self) -> None:
        # OSError: it is closed already. The main loop of waitress sees the end and closes its side.
        with contextlib.suppress(OSError):
            self._channel.socket.shutdown(socket.SHUT_RDWR)

    def gone(self) -> bool:
        return not self._channel.connected


class _Task(WSGITask):  # type: ignore[misc]  # waitress has no types
    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[CONNECTION] = _ChannelConnection(self.channel)
        return environ


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    task_class = _Task


class _Server(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    channel_class = _Channel


class _Workers(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """waitress forgets its threads; these can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[threading.Thread] = []

    def start_new_thread(self, target: Callable[..., None], thread_no: int) -> None:
        thread = threading.Thread(target=target, args=(thread_no,), name=f"backend-{thread_no}", daemon=True)
        self.started.append(thread)
        thread.start()


class RunningBackend:
    """The backend on a port (0: any free one), in threads of its own, from the moment it is made.

    `stop` and `start` are an outage: the port stays the same, nothing stored is lost. `close` is the end.
    `path`: the store's file (None: in memory). `now` gives aware UTC. Raises OSError when the port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: Path | None = None,
        now: Callable[[], datetime] | None = None,
        extensions: bool = True,
        token: str | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._loop: threading.Thread | None = None
        self._stopping = threading.Event()
        self.store = Store(path)
        self._context = build_context(self.store, now=now, extensions=extensions, token=token)
        self.app = create_app(self._context)
        # waitress warns of each request that waits behind a hanging one; here that is what was ordered.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        try:
            self.start()
        except OSError:
            self.store.close()
            raise

    @property
    def faults(self) -> Faults:
        """What shall go wrong."""
        return self._context.faults

    @property
    def registry(self) -> Registry:
        """Collectors and commands."""
        return self._context.registry

    @property
    def port(self) -> int:
        """The port, the same for all starts."""
        return self._port

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Listen (again). Does nothing when it does already. Raises OSError when the port is taken."""
        if self._loop is not None:
            return
        self._stopping.clear()
        sockets: dict[int, Any] = {}
        settings = Adjustments(
            host=self._host,
            port=self._port,
            threads=THREADS,
            channel_request_lookahead=1,  # without it waitress does not notice a client that gave up
            max_request_body_size=_MAX_WIRE_BYTES,
            inbuf_overflow=_MAX_WIRE_BYTES,  # bodies stay in memory: no temporary files to leave behind
            clear_untrusted_proxy_headers=True,
        )
        workers = _Workers()
        try:
            server = _Server(self.app, map=sockets, dispatcher=workers, adj=settings, sockinfo=settings.listen[0])
        except OSError:
            wasyncore.close_all(sockets)
            raise
        workers.set_thread_count(THREADS)
        self._port = int(server.effective_port)
        self._trigger = server.trigger
        self._loop = threading.Thread(target=self._run, args=(server, workers, sockets), name="backend-loop")
        self._loop.start()

    def stop(self) -> None:
        """Close the port and cut every connection; what hangs is dropped unstored. Returns within seconds."""
        if self._loop is None:
            return
        if not self._stopping.is_set():  # once: a stop that Ctrl-C broke off is followed by another
            self._stopping.set()
            self._trigger.pull_trigger()
        self._loop.join()
        # Last, and here: a thread that ends pulls it, and the loop may end by itself before it is pulled above.
        self._trigger.close()
        self._loop = None

    def close(self) -> None:
        """Stop for good and close the store."""
        self.stop()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, server: Any, workers: _Workers, sockets: dict[int, Any]) -> None:
        while not self._stopping.is_set():
            wasyncore.loop(timeout=1, use_poll=True, map=sockets, count=1)
        wasyncore.dispatcher.close(server)
        for channel in list(server.active_channels.values()):
            channel.handle_close()
        workers.shutdown(timeout=STOP_TIMEOUT_S)
        for thread in workers.started:
            thread.join(STOP_TIMEOUT_S)
