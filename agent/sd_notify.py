"""Speaks to systemd, when it has started us: ready, alive, what is going on, reloading, at the end. Without it, says
nothing.

The protocol of sd_notify(3): one datagram for each message, to the socket named by $NOTIFY_SOCKET. No send ever waits.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping

from agent.logs import tell

STATUS_CHARACTERS = 300


class SdNotify:
    """`watchdog_s`: how long systemd waits from one `alive` to the next before it ends us; None: it does not.

    `address`: the path of a socket, or @name of an abstract one; None: nobody listens. One thread uses it.
    """

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s if address else None
        self._address = _socket_address(address) if address else None
        self._socket: socket.socket | None = None
        self._failed = False
        self._status = ""

    def ready(self) -> bool:
        """The start is done."""
        return self._send("READY=1")

    def alive(self) -> bool:
        """Everything gets on; whether systemd could be told so."""
        return self._send("WATCHDOG=1")

    def reloading(self, now_s: float) -> bool:
        """Another configuration is taken over; `ready` ends it. `now_s`: monotonic seconds."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={round(now_s * 1e6)}")

    def stopping(self) -> bool:
        """The end has begun."""
        return self._send("STOPPING=1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows; sent when it is another than before."""
        line = " ".join(sentence.split())[:STATUS_CHARACTERS]
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def close(self) -> None:
        """Gives the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> bool:
        if self._address is None:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)  # a listener that does not read must not hold us
            self._socket.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._failed:
                tell(
                    logging.WARNING, "systemd.wrong", f"systemd cannot be told: {error.strerror or error}", said=message
                )
            self._failed = True
            return False
        self._failed = False
        return True


def from_environment(environment: Mapping[str, str], pid: int | None = None) -> SdNotify:
    """As systemd asks for by $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID; `pid`: ours, the real one by default."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):  # other kinds of sockets exist, for machines that are no processes
        return SdNotify(None)
    meant = environment.get("WATCHDOG_PID", "") in {"", str(os.getpid() if pid is None else pid)}
    microseconds = environment.get("WATCHDOG_USEC", "")
    number = int(microseconds) if re.fullmatch(r"[0-9]{1,20}", microseconds) else 0
    return SdNotify(address, number / 1e6 if meant and number else None)


def _socket_address(address: str) -> str | bytes:
    return b"\0" + os.fsencode(address[1:]) if address.startswith("@") else address
