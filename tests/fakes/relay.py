"""What stands between two who speak to each other: a proxy that is asked with CONNECT, and an end of TLS in front of
somebody who has none."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

BYTES = 65_536


class Relay:
    """On a port of this host from the moment it is made; carries both ways until one side ends."""

    def __init__(self, context: ssl.SSLContext | None = None, at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        """`context`: with TLS, which begins when somebody connects; `at`: address and port (0: any free one)."""
        self._context = context
        self.carried = 0  # connections that came through
        self._listener = socket.create_server(at)
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _meet(self, client: socket.socket) -> socket.socket | None:
        """Whom that client wants, connected; None when it is sent away."""
        raise NotImplementedError

    def cut(self) -> None:
        """Ends every connection that there is now."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        self.cut()
        for thread in self._threads[1:]:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.enter_context(client)
            self._open.append(client)
            if self._context is not None:
                client = stack.enter_context(self._context.wrap_socket(client, server_side=True))
                self._open.append(client)
            server = self._meet(client)
            if server is not None:
                stack.enter_context(server)
                self._open.append(server)
                self.carried += 1
                _carry(client, server)


def _carry(one: socket.socket, other: socket.socket) -> None:
    towards = {one: other, other: one}
    while True:
        ready = [each for each in towards if isinstance(each, ssl.SSLSocket) and each.pending()]
        for each in ready or select.select(list(towards), [], [])[0]:
            data = each.recv(BYTES)
            if not data:
                return
            towards[each].sendall(data)


class Front(Relay):
    """Stands before the server at `port`; with a `context` it speaks TLS for it."""

    def __init__(
        self, port: int, context: ssl.SSLContext | None = None, at: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self._port = port
        super().__init__(context, at)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def _meet(self, client: socket.socket) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port))


class ConnectProxy(Relay):
    """Knows no names: whatever host is asked for, it connects to 127.0.0.1. With `user` only for whoever says it."""

    def __init__(self, user: str = "", password: str = "", context: ssl.SSLContext | None = None) -> None:
        self._pass = base64.b64encode(f"{user}:{password}".encode()) if user else b""
        self.asked: list[str] = []
        self.refused = 0
        super().__init__(context)

    def _meet(self, client: socket.socket) -> socket.socket | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = client.recv(1)
            if not part:
                return None
            head += part
        target = head.split()[1].decode()
        self.asked.append(target)
        if self._pass and b"Proxy-Authorization: Basic " + self._pass not in head:
            self.refused += 1
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return None
        server = socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2])))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return server
