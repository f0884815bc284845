"""A server that begins like a MySQL and then does what its script says; it keeps every byte that it was sent."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pymysql.constants import CLIENT

_OFFERED = CLIENT.LONG_PASSWORD | CLIENT.PROTOCOL_41 | CLIENT.SECURE_CONNECTION | CLIENT.PLUGIN_AUTH
_SALT = b"12345678", b"123456789012\0"
OK = b"\0\0\0\2\0\0\0"

Script = Callable[["Talk"], None]


class Talk:
    """One connection. `heard`: everything that came, without the wrapping of TLS."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = b""
        self.is_secure = False
        self._number = 0

    def say(self, payload: bytes) -> None:
        """One packet."""
        self.connection.sendall(struct.pack("<I", len(payload))[:3] + bytes([self._number]) + payload)
        self._number += 1

    def listen(self) -> bytes:
        """One packet. Raises EOFError when the other side has ended."""
        head = self._exactly(4)
        self._number = head[3] + 1
        return self._exactly(int.from_bytes(head[:3], "little"))

    def greet(self, plugin: bytes = b"mysql_native_password", context: ssl.SSLContext | None = None) -> bytes:
        """To the client's answer, which it gives; with a `context` TLS is offered, and begun when the client wants."""
        flags = _OFFERED | (CLIENT.SSL if context is not None else 0)
        low, high = flags & 0xFFFF, flags >> 16
        middle = struct.pack("<HBHHB", low, 45, 2, high, 21) + bytes(10)
        self.say(b"\x0a8.0.99\0" + struct.pack("<I", 7) + _SALT[0] + b"\0" + middle + _SALT[1] + plugin + b"\0")
        answer = self.listen()
        if context is not None and len(answer) == 32:
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.is_secure = True
            answer = self.listen()
        return answer

    def ask_for(self, plugin: bytes, data: bytes = b"") -> bytes:
        """Wants another way to log in; gives what the client sends for it."""
        self.say(b"\xfe" + plugin + b"\0" + data)
        return self.listen()

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self.connection.recv(count - len(found))
            if not part:
                raise EOFError
            found += part
            self.heard += part
        return found


class RogueMysql:
    """Plays the script with each connection; `talks` has them all."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.talks: list[Talk] = []
        self.failures: list[OSError] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def heard(self) -> bytes:
        """Of all connections."""
        return b"".join(talk.heard for talk in self.talks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Returns when the last script has ended."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            talk = Talk(connection)
            self.talks.append(talk)
            try:
                self._script(talk)
            except EOFError:
                pass
            except OSError as error:
                self.failures.append(error)
            finally:
                talk.connection.close()
