"""A server that does with each connection what its script says: HTTP or anything else, with TLS or without."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable

GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
Script = Callable[["Peer", socket.socket], None]


class Peer:
    """On a port of `host` from the moment it is made; remembers what it was told."""

    def __init__(self, script: Script, host: str = "127.0.0.1", port: int = 0) -> None:
        self._script = script
        self.failures: list[OSError] = []
        self.closing = threading.Event()
        self.requests: list[bytes] = []
        self.connections = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def read_request(self, connection: socket.socket) -> bytes:
        """One request with its body; empty when the client is gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65_536)
            if not part:
                return b""
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
        )
        while len(rest) < length:
            rest += connection.recv(65_536)
        self.requests.append(head + b"\r\n\r\n" + rest)
        return self.requests[-1]

    def drip(self, connection: socket.socket, data: bytes, pause_s: float) -> None:
        """One byte after the other until the peer is closed or the client gone."""
        for byte in itertools.chain(data, itertools.repeat(0x20)):
            connection.sendall(bytes([byte]))
            if self.closing.wait(pause_s):
                return

    def close(self) -> None:
        """Ends everything."""
        self.closing.set()
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._script(self, connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def answering(*answers: bytes) -> Script:
    def script(peer: Peer, connection: socket.socket) -> None:
        for data in itertools.chain(answers, itertools.repeat(answers[-1])):
            if not peer.read_request(connection):
                return
            connection.sendall(data)

    return script


def over_tls(context: ssl.SSLContext, script: Script) -> Script:
    """The script behind a handshake; one that fails is kept in `failures`."""

    def run(peer: Peer, connection: socket.socket) -> None:
        try:
            secure = context.wrap_socket(connection, server_side=True)
        except OSError as error:
            peer.failures.append(error)
            return
        with secure:
            script(peer, secure)

    return run
