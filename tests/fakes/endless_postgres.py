"""A PostgreSQL that answers the agent's statements, but for one: there it sends what no honest server would.

Nothing here is really endless: after `AT_MOST` bytes it stops, so that a reader without bounds comes to an end too.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

AT_MOST = 256 * 1_048_576
_NETWORK_S = 65_536 / 1.25e9  # for a block by 10 Gbit/s
BOOL, INT8, INT4, TEXT, OID, FLOAT8, JSON = 16, 20, 23, 25, 26, 701, 114
_SSL, _GSS = 80_877_103, 80_877_104
COUNTERS = "pg_stat_statements(false) WHERE"

Value = bytes | None
Answer = tuple[Sequence[int], Sequence[Sequence[Value]]]
COUNTER_TYPES = (OID, OID, INT8, BOOL, INT8, FLOAT8, FLOAT8, INT8, FLOAT8)
ROW: tuple[Value, ...] = (b"10", b"5", b"77", b"t", b"3", b"9000", b"4000", b"3", b"1770000000.5")
HONEST: tuple[tuple[str, Answer], ...] = (
    ("pg_extension", ((TEXT, BOOL, BOOL, BOOL), [(b"public", b"t", b"t", b"t")])),
    ("LIMIT 0", ((INT8,), [])),
    ("to_regclass", ((BOOL,), [(b"t",)])),
    ("system_identifier", ((INT8, FLOAT8, TEXT), [(b"7", b"1770000000.5", b"127.0.0.1 5432")])),
    ("clock_timestamp", ((BOOL, FLOAT8, TEXT, INT8, FLOAT8), [(b"t", b"1770000009.5", b"1770000000.5", b"0", b"9.5")])),
    ("pg_stat_activity", ((INT8, INT4), [(b"2", b"97")])),
    (COUNTERS, (COUNTER_TYPES, [ROW])),
    ("pg_database", ((OID, TEXT), [(b"5", b"shop")])),
    ("pg_roles", ((OID, TEXT), [(b"10", b"app")])),
    ("pg_stat_statements(true)", ((OID, OID, INT8, BOOL, TEXT, TEXT), [(b"10", b"5", b"77", b"t", b"SELECT 1", None)])),
)


class Peer:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def say(self, kind: bytes, body: bytes = b"") -> None:
        """One message."""
        self.connection.sendall(kind + struct.pack(">I", len(body) + 4) + body)

    def begin(self, types: Sequence[int]) -> None:
        """The head of a result."""
        fields = (b"c%d\0" % at + struct.pack(">IHIhih", 0, 0, oid, -1, -1, 0) for at, oid in enumerate(types))
        self.say(b"T", struct.pack(">H", len(types)) + b"".join(fields))

    def end(self) -> None:
        """The end of an answer."""
        self.say(b"C", b"SELECT 1\0")
        self.say(b"Z", b"I")

    def answer(self, types: Sequence[int], rows: Sequence[Sequence[Value]]) -> None:
        """A whole result."""
        self.begin(types)
        for each in rows:
            self.say(b"D", row(each))
        self.end()

    def flood(self, message: bytes) -> None:
        """The same message again and again, as fast as a network: who looks between two readings can say stop then.

        From a process of the same machine that pours without a pause, libpq takes all of a row in a single reading.
        """
        block = message * max(1, 65_536 // len(message))
        for _ in range(AT_MOST // len(block)):
            self.connection.sendall(block)
            time.sleep(_NETWORK_S)

    def hear(self) -> tuple[bytes, bytes]:
        """Kind and body. Raises EOFError when the other side has ended."""
        head = self._exactly(5)
        return head[:1], self._exactly(struct.unpack(">I", head[1:])[0] - 4)

    def greet(self) -> None:
        """Everything up to the first statement; any password will do."""
        while True:
            length, version = struct.unpack(">II", self._exactly(8))
            self._exactly(length - 8)
            if version not in {_SSL, _GSS}:
                break
            self.connection.sendall(b"N")
        self.say(b"R", struct.pack(">I", 0))
        told = {"server_version": "15.9", "client_encoding": "UTF8", "server_encoding": "UTF8", "DateStyle": "ISO, MDY"}
        for name, value in {**told, "standard_conforming_strings": "on", "integer_datetimes": "on"}.items():
            self.say(b"S", f"{name}\0{value}\0".encode())
        self.say(b"K", struct.pack(">II", 1, 2))
        self.say(b"Z", b"I")

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self.connection.recv(count - len(found))
            if not part:
                raise EOFError
            found += part
        return found


Flood = Callable[[Peer], None]


class EndlessPostgres:
    """Honest, until a statement has `at` in it; with an empty `at` it floods in place of a greeting."""

    def __init__(self, at: str, flood: Flood) -> None:
        self._at, self._flood = at, flood
        self.floods = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError, EOFError):
                self._serve(Peer(connection))

    def _serve(self, peer: Peer) -> None:
        if not self._at:
            self.floods += 1
            self._flood(peer)
            return
        peer.greet()
        while True:
            kind, body = peer.hear()
            sql = body.rstrip(b"\0").decode()
            if kind == b"X":
                return
            if self._at in sql:
                self.floods += 1
                self._flood(peer)
                continue
            types, rows = next((answer for part, answer in HONEST if part in sql), ((TEXT,), []))
            peer.answer(types, rows)


def row(values: Sequence[Value]) -> bytes:
    """The body of one."""
    fields = (b"\xff\xff\xff\xff" if value is None else struct.pack(">I", len(value)) + value for value in values)
    return struct.pack(">H", len(values)) + b"".join(fields)


# -- what it sends in place of an answer ------------------------------------------------------------------------------


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


def rows(peer: Peer) -> None:
    """Rows without end."""
    peer.begin(COUNTER_TYPES)
    peer.flood(_message(b"D", row(ROW)))
    peer.end()


def wide_rows(peer: Peer) -> None:
    """Rows of a megabyte."""
    peer.begin((TEXT,) * 9)
    peer.flood(_message(b"D", row([b"x" * 116_508] * 9)))
    peer.end()


def long_row(peer: Peer) -> None:
    """A row that says of itself that it has a gigabyte."""
    peer.begin((TEXT,))
    peer.connection.sendall(b"D" + struct.pack(">I", 1_000_000_000) + b"\0\1" + struct.pack(">I", 999_999_990))
    peer.flood(bytes(65_536))


def notices(peer: Peer) -> None:
    """Warnings without end."""
    peer.flood(_message(b"N", b"SWARNING\0MhelloC01000\0\0" + b"x" * 100 + b"\0\0"))
    peer.end()


def notifications(peer: Peer) -> None:
    """News of channels that nobody listens to."""
    peer.flood(_message(b"A", struct.pack(">I", 1) + b"channel\0payload\0"))
    peer.end()


def settings(peer: Peer) -> None:
    """Settings without end, each with a name of its own."""
    for start in range(0, AT_MOST // 20, 4_096):
        block = b"".join(_message(b"S", b"s%d\0x\0" % number) for number in range(start, start + 4_096))
        peer.connection.sendall(block)
    peer.end()


def drip(peer: Peer) -> None:
    """A byte now and then."""
    peer.connection.sendall(b"T" + struct.pack(">I", 1_000_000))
    while True:
        peer.connection.sendall(b"\0")
        time.sleep(0.05)


def message(peer: Peer) -> None:
    """An error with half a megabyte of text, which a terminal would obey."""
    peer.say(b"E", b"SERROR\0C42601\0M\x1b[2J\n" + b"x" * 500_000 + b"\0\0")
    peer.say(b"Z", b"I")


def copy_in(peer: Peer) -> None:
    """Wants data of the client's."""
    peer.say(b"G", b"\0\0\0")


def deep_json(peer: Peer) -> None:
    """Values of a type that the driver unfolds."""
    peer.answer((JSON,) * 9, [[b"[" * 100_000 + b"]" * 100_000] * 9])


def garbage(peer: Peer) -> None:
    """No protocol at all."""
    peer.flood(b"\x00\xff HTTP/1.1 400 Bad Request\r\n")
