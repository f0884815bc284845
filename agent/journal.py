"""Speaks to systemd's journal in its own way, by which what is told keeps its fields. Decides nothing; never raises.

The protocol is that of https://systemd.io/JOURNAL_NATIVE_PROTOCOL: one datagram for each entry.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping

SOCKET = "/run/systemd/journal/socket"
STREAM = "JOURNAL_STREAM"
PREFIX = "DBPOWER_"  # of the names of our fields
IDENTIFIER = "dbpower-agent"
# An entry has to fit into one datagram, and those hold about 200 KiB.
MESSAGE_BYTES, FIELD_BYTES, ENTRY_BYTES = 32_768, 4_096, 131_072
_NAME_CHARACTERS = 64
_CUT = " ..."
_LEAST_LEVELS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def hears(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether the journal is at the other end of that descriptor: systemd says so by its device and inode."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get(STREAM) == f"{found.st_dev}:{found.st_ino}"


def entry(level: int, message: str, event: str, fields: Mapping[str, object]) -> bytes:
    """One entry: a sentence with the word of its event before it, which is a field too, as are the `fields`.

    `level`: as `logging` has them. What is too long is cut; what does not fit any more is left out.
    """
    priority = next((number for least, number in _LEAST_LEVELS if level >= least), _DEBUG)
    parts = [
        _pair("MESSAGE", f"{event} {message}", MESSAGE_BYTES),
        _pair("PRIORITY", str(priority)),
        _pair("SYSLOG_IDENTIFIER", IDENTIFIER),
        *_fields({**fields, "event": event}),
    ]
    size, whole = 0, b""
    for part in parts:
        size += len(part)
        whole += part if size <= ENTRY_BYTES else b""
    return whole


def _fields(fields: Mapping[str, object]) -> Iterator[bytes]:
    for name, value in fields.items():
        known = re.sub(r"[^A-Z0-9_]", "_", f"{PREFIX}{name.upper()}")[:_NAME_CHARACTERS]
        yield _pair(known, value if isinstance(value, str) else json.dumps(value, default=str))


def _pair(name: str, text: str, most_bytes: int = FIELD_BYTES) -> bytes:
    value = _cut(text.encode("utf-8", "backslashreplace"), most_bytes)
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)


def _cut(value: bytes, most_bytes: int) -> bytes:
    if len(value) <= most_bytes:
        return value
    return value[: most_bytes - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT.encode()


class Journal:
    """The journal of this machine. One thread uses it, and may have to wait for it."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address or SOCKET
        self._socket: socket.socket | None = None

    def take(self, told: bytes) -> bool:
        """Whether the journal has that entry now."""
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.sendto(told, self._address)
        except OSError:  # it is away, or the entry is too large for this machine
            return False
        return True

    def close(self) -> None:
        """Gives the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
