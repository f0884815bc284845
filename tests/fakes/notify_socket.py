"""The socket on which systemd would listen: a real unix datagram socket, read by a thread as systemd reads its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_END = b"end of the test"


class NotifySocket:
    """`with NotifySocket(path) as systemd:`; everything that came is in `heard`, one message an entry.

    `address` is what belongs into $NOTIFY_SOCKET: the path, or @name for an abstract socket.
    """

    def __init__(self, address: Path | str) -> None:
        self.address = str(address)
        self._name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._name)
        self._changed = threading.Condition()
        self._heard: list[str] = []
        self._thread = threading.Thread(target=self._listen, name="notify socket")

    @property
    def heard(self) -> list[str]:
        """Every message so far, in order."""
        with self._changed:
            return list(self._heard)

    def count(self, message: str) -> int:
        """How often exactly that was said."""
        return self.heard.count(message)

    def wait_for(self, predicate: Callable[[list[str]], bool], timeout_s: float) -> bool:
        """Waits until it holds for what was heard; False when it did not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self._heard), timeout_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(_END, self._name)
        self._thread.join()
        self._socket.close()
        if not self.address.startswith("@"):
            with contextlib.suppress(FileNotFoundError):
                Path(self.address).unlink()

    def _listen(self) -> None:
        while (message := self._socket.recv(1_048_576)) != _END:
            with self._changed:
                self._heard.append(message.decode("utf-8", "surrogateescape"))
                self._changed.notify_all()
