"""A MySQL that answers the agent's statements, but for one: there it sends what no honest server would.

Nothing here is really endless: after `AT_MOST` bytes it stops, so that a reader without bounds comes to an end too.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

from tests.fakes.rogue_mysql import OK, Script, Talk

AT_MOST = 256 * 1_048_576
_LARGEST = 0xFFFFFF
EOF = b"\xfe\0\0\2\0"
MORE_RESULTS = b"\xfe\0\0\x0a\0"
_TIME = b"2026-01-31 12:00:00.000000"
ROW: tuple[bytes | None, ...] = (
    *(_TIME, b"app[app] @ host []", b"00:00:01.500000", b"00:00:00.000000", b"1", b"2", b"shop", b"7"),
    *(b"SELECT 1", None),
)
# By a part of the statement, the first that fits: the rows that an honest server would give.
HONEST: tuple[tuple[str, Sequence[tuple[bytes | None, ...]]], ...] = (
    ("VERSION()", [(b"8.0.99",)]),
    ("TIMESTAMPDIFF", [(b"0",)]),
    ("Slow_queries", [(b"Slow_queries", b"1"), (b"Threads_running", b"1"), (b"Uptime", b"1000")]),
    ("UNIX_TIMESTAMP", [(b"1770000000", b"0")]),
    ("Threads_connected", [(b"Threads_connected", b"2")]),
    ("max_connections", [(b"100",)]),
    ("@@global.log_output\n", [(b"1",)]),
    ("@@global.slow_query_log, @@global.log_output", [(b"1", b"TABLE")]),
    ("COUNT(*)", [(b"1",)]),
    ("FROM mysql.`slow_log`", [ROW]),
)
Flood = Callable[[Talk], None]


def text(value: bytes | None) -> bytes:
    """A value, or a string of the protocol, with its length before it."""
    if value is None:
        return b"\xfb"
    return (bytes([len(value)]) if len(value) < 251 else b"\xfe" + struct.pack("<Q", len(value))) + value


def column(name: bytes = b"c") -> bytes:
    """The description of one."""
    names = b"".join(text(each) for each in (b"def", b"", b"", b"", name, name))
    return names + b"\x0c" + struct.pack("<HIBHB", 63, 1_024, 253, 0, 0) + b"\0\0"


def row(values: Sequence[bytes | None]) -> bytes:
    """One."""
    return b"".join(map(text, values))


def begin(talk: Talk, columns: int) -> None:
    """The head of a result."""
    talk.say(bytes([columns]))
    for _ in range(columns):
        talk.say(column())
    talk.say(EOF)


def answer(talk: Talk, rows: Sequence[Sequence[bytes | None]]) -> None:
    """A whole result."""
    begin(talk, len(rows[0]) if rows else 1)
    for each in rows:
        talk.say(row(each))
    talk.say(EOF)


def endless(at: str, flood: Flood) -> Script:
    """Honest, until a statement has `at` in it."""

    def script(talk: Talk) -> None:
        talk.greet()
        talk.say(OK)
        while (packet := talk.listen())[:1] == b"\x03":
            sql = packet[1:].decode()
            if at in sql:
                flood(talk)
                continue
            honest = next((rows for part, rows in HONEST if part in sql), None)
            talk.say(OK) if honest is None else answer(talk, honest)

    return script


# -- what it sends in place of an answer ------------------------------------------------------------------------------


def _again(talk: Talk, body: bytes, number: int) -> int:
    """The same packet without end, from that number on; gives the number behind the last one."""
    head = struct.pack("<I", len(body))[:3]
    turn = b"".join(head + bytes([(number + each) % 256]) + body for each in range(256))
    for _ in range(AT_MOST // len(turn) + 1):
        talk.connection.sendall(turn)
    return number


def continued(talk: Talk, first: bytes = b"\x01") -> None:
    """One packet, always continued by another one of the largest size."""
    sent = number = 0
    while sent < AT_MOST:
        talk.connection.sendall(b"\xff\xff\xff" + bytes([(1 + number) % 256]) + first)
        talk.connection.sendall(bytes(_LARGEST - len(first)))
        first, sent, number = b"", sent + _LARGEST, number + 1
    talk.connection.sendall(b"\0\0\0" + bytes([(1 + number) % 256]))
    raise EOFError


def long_row(talk: Talk) -> None:
    """A row of which one value says that it has ten billion bytes."""
    begin(talk, 10)
    continued_at = 13
    head = row(ROW[:8]) + b"\xfe" + struct.pack("<Q", 10_000_000_000)
    sent = 0
    while sent < AT_MOST:
        talk.connection.sendall(b"\xff\xff\xff" + bytes([continued_at % 256]) + head)
        talk.connection.sendall(bytes(_LARGEST - len(head)))
        head, sent, continued_at = b"", sent + _LARGEST, continued_at + 1


def rows(talk: Talk, values: Sequence[bytes | None] = ROW) -> None:
    """Rows without end."""
    begin(talk, len(values))
    number = _again(talk, row(values), len(values) + 3)
    talk.connection.sendall(struct.pack("<I", len(EOF))[:3] + bytes([number % 256]) + EOF)


def wide_rows(talk: Talk) -> None:
    """Rows whose short columns have a megabyte each."""
    rows(talk, (_TIME, b"u" * 1_048_576, *ROW[2:]))


def small_rows(talk: Talk) -> None:
    """Rows of one sign."""
    rows(talk, (b"1",))


def columns(talk: Talk) -> None:
    """A result of a trillion columns."""
    talk.say(b"\xfe" + struct.pack("<Q", 10**12))
    _again(talk, column(), 2)


def results(talk: Talk) -> None:
    """Results without end, each behind another one."""
    number, sent = 1, 0
    packets = (b"\x01", column(), EOF, row([b"x" * 200]), MORE_RESULTS)
    while sent < AT_MOST:
        for body in packets:
            talk.connection.sendall(struct.pack("<I", len(body))[:3] + bytes([number % 256]) + body)
            number, sent = number + 1, sent + len(body) + 4


def drip(talk: Talk) -> None:
    """A byte now and then, of a packet of a megabyte."""
    talk.connection.sendall(b"\x00\x00\x10\x01")
    while True:
        talk.connection.sendall(b"\x01")
        time.sleep(0.05)


def drip_packets(talk: Talk) -> None:
    """A whole packet now and then."""
    begin(talk, 1)
    while True:
        talk.say(row([b"1"]))
        time.sleep(0.05)


def message(talk: Talk) -> None:
    """An error with half a megabyte of text, which a terminal would obey."""
    talk.say(b"\xff" + struct.pack("<H", 1_064) + b"#42000\x1b[2J\n" + b"x" * 500_000)


def local_file(talk: Talk) -> None:
    """Wants a file of the client's."""
    talk.say(b"\xfb/etc/passwd")
    talk.listen()


def other_columns(talk: Talk) -> None:
    """Rows of another shape."""
    answer(talk, [(b"a", b"b")])
