"""Lines on their way to standard error: who speaks never waits for who reads, and what is not written is counted."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from contextlib import suppress

LINES = 2_000
FLUSH_S = 0.3  # at the end of the process: a stop may take 10 s, and 9 of them belong to the threads


class LineQueue(logging.Handler):
    """Formats a record where it is told, and writes it to `descriptor` in a thread of its own.

    It writes past Python's own stream object: the end of the interpreter waits for that one's buffer and its lock. When
    `lines` wait for the reader, what is told is left out until half of them are written; then it is said how much.
    """

    def __init__(self, descriptor: int, *, lines: int = LINES) -> None:
        super().__init__()
        self._descriptor = descriptor
        # Of each text how many lines are missing when it is not written: a note stands for those it tells of.
        self._lines: queue.Queue[tuple[bytes, int] | threading.Event | None] = queue.Queue(lines)
        self._missed, self._counting = 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Puts the line into the queue, or counts it."""
        try:
            line = self._line(record)
        except (TypeError, ValueError, KeyError) as error:  # a library's slip in a message must not end who told it
            line = f"{record.name}: a message could not be put into words ({error})\n".encode()
        with self._counting:
            # Said where they are missing. Not at the first free place: half of the lines would be about the others.
            is_over = self._missed and self._lines.qsize() <= self._lines.maxsize // 2
            if is_over and self._put(self._note(self._missed), self._missed):
                self._missed = 0
            if self._missed or not self._put(line, 1):
                self._missed += 1

    def flush(self) -> None:
        """Waits until what was told is written, FLUSH_S at most."""
        until_s, written = time.monotonic() + FLUSH_S, threading.Event()
        with suppress(queue.Full):
            self._lines.put(written, timeout=FLUSH_S)
            written.wait(max(0.0, until_s - time.monotonic()))

    def close(self) -> None:
        """Ends the thread behind what is in the queue; waits for nothing."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        super().close()

    def _run(self) -> None:
        entry: tuple[bytes, int] | threading.Event | None = (b"", 0)
        while entry is not None:
            entry = self._lines.get()
            if isinstance(entry, tuple):
                self._write(*entry)
            if self._lines.empty():
                self._tell_missed()
            if isinstance(entry, threading.Event):
                entry.set()

    def _tell_missed(self) -> None:
        with self._counting:
            missed, self._missed = self._missed, 0
        if missed:
            self._write(self._note(missed), missed)

    def _write(self, text: bytes, lines: int) -> None:
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:  # nobody will read any more, or the disk is full
            with self._counting:
                self._missed += lines

    def _put(self, text: bytes, lines: int) -> bool:
        try:
            self._lines.put_nowait((text, lines))
        except queue.Full:
            return False
        return True

    def _note(self, missed: int) -> bytes:
        sentence = f"{missed:,} line{' was' if missed == 1 else 's were'} not written: nobody took them"
        record = logging.LogRecord("dbpower", logging.WARNING, "", 0, sentence, None, None)
        record.event, record.fields = "log.missed", {"lines": missed}
        return self._line(record)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
