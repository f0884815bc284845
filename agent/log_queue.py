"""Lines on their way to standard error or the journal: who speaks never waits for who reads, and what is not written is
counted."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agent.journal import Journal

LINES = 2_000
FLUSH_S = 0.3  # at the end of the process: a stop may take 10 s, and 9 of them belong to the threads


@dataclass(frozen=True, slots=True)
class _Said:
    """`entry`: the same for the journal; `lines`: how many are missing when it is not written. A note stands for those
    it tells of."""

    text: bytes
    entry: bytes | None
    lines: int


class LineQueue(logging.Handler):
    """Formats a record where it is told, and writes it to `descriptor` in a thread of its own.

    With `make_entry`, which makes an entry of a record, that goes to the journal, and the line only when it is away.

    It writes past Python's own stream object: the end of the interpreter waits for that one's buffer and its lock. When
    `lines` wait for the reader, what is told is left out until half of them are written; then it is said how much.
    """

    def __init__(self, descriptor: int, *, lines: int = LINES, journal: Journal | None = None) -> None:
        super().__init__()
        self.make_entry: Callable[[logging.LogRecord], bytes] | None = None
        self._descriptor, self._journal = descriptor, journal or Journal()
        self._lines: queue.Queue[_Said | threading.Event | None] = queue.Queue(lines)
        self._missed, self._counting = 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Puts the line into the queue, or counts it."""
        try:
            said = self._said(record)
        except (TypeError, ValueError, KeyError) as error:  # a library's slip in a message must not end who told it
            said = _Said(f"{record.name}: a message could not be put into words ({error})\n".encode(), None, 1)
        with self._counting:
            # Said where they are missing. Not at the first free place: half of the lines would be about the others.
            is_over = self._missed and self._lines.qsize() <= self._lines.maxsize // 2
            if is_over and self._put(self._note(self._missed)):
                self._missed = 0
            if self._missed or not self._put(said):
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
        entry: _Said | threading.Event | None = _Said(b"", None, 0)
        while entry is not None:
            entry = self._lines.get()
            if isinstance(entry, _Said):
                self._write(entry)
            if self._lines.empty():
                self._tell_missed()
            if isinstance(entry, threading.Event):
                entry.set()
        self._journal.close()

    def _tell_missed(self) -> None:
        with self._counting:
            missed, self._missed = self._missed, 0
        if missed:
            self._write(self._note(missed))

    def _write(self, said: _Said) -> None:
        if said.entry is not None and self._journal.take(said.entry):
            return
        text = said.text
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:  # nobody will read any more, or the disk is full
            with self._counting:
                self._missed += said.lines

    def _put(self, said: _Said) -> bool:
        try:
            self._lines.put_nowait(said)
        except queue.Full:
            return False
        return True

    def _note(self, missed: int) -> _Said:
        sentence = f"{missed:,} line{' was' if missed == 1 else 's were'} not written: nobody took them"
        record = logging.LogRecord("dbpower", logging.WARNING, "", 0, sentence, None, None)
        record.event, record.fields = "log.missed", {"lines": missed}
        return self._said(record, missed)

    def _said(self, record: logging.LogRecord, lines: int = 1) -> _Said:
        text = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        return _Said(text, self.make_entry(record) if self.make_entry is not None else None, lines)
