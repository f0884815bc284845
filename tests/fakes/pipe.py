"""A pipe that may be full, and a reader that comes when the test wants it."""

from __future__ import annotations

import fcntl
import os
import threading

F_SETPIPE_SZ = 1031
PIPE_BYTES = 4_096


class Pipe:
    """A pipe of 4 KiB, as somebody's standard error."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, F_SETPIPE_SZ, PIPE_BYTES)
        self._open = {self.reader, self.writer}
        self._thread: threading.Thread | None = None
        self.text = b""

    def fill(self) -> None:
        """Until nothing more fits, not one byte."""
        # Opened anew: whoever writes at the same time must go on waiting for its room.
        own = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        size = PIPE_BYTES
        while size:
            try:
                os.write(own, b"." * (size - 1) + b"\n")
            except BlockingIOError:
                size //= 2
        os.close(own)

    def read(self) -> None:
        """Somebody reads now, until `close`."""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def close(self) -> list[str]:
        """The end; the lines that were read, without what it was filled with."""
        self.end(self.writer)
        if self._thread is not None:
            self._thread.join()
        self.end(self.reader)
        return [line for line in self.text.decode().splitlines() if line.strip(".")]

    def end(self, descriptor: int) -> None:
        """Closes one of both, once: its number may be another file's by now."""
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)

    def _read(self) -> None:
        while part := os.read(self.reader, 65_536):
            self.text += part
