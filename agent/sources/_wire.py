"""How many bytes a database has sent, by the kernel's own count: exact, also with TLS, and free for each row."""

from __future__ import annotations

import socket
import struct

_RECEIVED_AT = 128  # of tcpi_bytes_received in struct tcp_info: Linux 4.1 and later
_RECEIVED = struct.Struct("=Q")


class Wire:
    """Of one connection, from its beginning."""

    def __init__(self) -> None:
        self._seen = 0

    def since_last(self, descriptor: int) -> int:
        """Bytes that came since the last call; 0 when nobody knows (a Unix socket, an older kernel)."""
        count = self.ahead(descriptor)
        self._seen += count
        return count

    def ahead(self, descriptor: int) -> int:
        """The same, and they will be counted again by `since_last`."""
        return max(0, _received(descriptor) - self._seen)

    @property
    def total(self) -> int:
        """Bytes up to the last call of `since_last`."""
        return self._seen


def _received(descriptor: int) -> int:
    try:
        borrowed = socket.socket(fileno=descriptor)
    except OSError:
        return 0
    try:
        told = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + _RECEIVED.size)
    except OSError:
        return 0
    finally:
        borrowed.detach()
    return int(_RECEIVED.unpack_from(told, _RECEIVED_AT)[0]) if len(told) >= _RECEIVED_AT + _RECEIVED.size else 0
