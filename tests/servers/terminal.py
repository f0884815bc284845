"""A person at a terminal: runs a program that believes so, waits for what it says, and types."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.agent_process import ROOT, environment

# The program gets the terminal as its own: passwords are asked for there, past standard input.
_WITH_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SOON_S = 60.0


class Terminal:
    """`with Terminal("init", cwd=tmp_path) as person:` runs `python -m agent init`.

    `said`: all so far, without colours.
    """

    def __init__(self, *words: str, cwd: Path, **variables: str) -> None:
        self.said = ""
        self._seen = 0
        self._ours, theirs = pty.openpty()
        command: Sequence[str] = [sys.executable, "-c", _WITH_TERMINAL, sys.executable, "-m", "agent", *words]
        surroundings = environment(PYTHONPATH=str(ROOT), PYTHONIOENCODING="utf-8", COLUMNS="200", **variables)
        self._process = subprocess.Popen(command, cwd=cwd, env=surroundings, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)

    def expect(self, text: str) -> str:
        """Waits until it says that, behind what was expected last; gives all that it said up to there."""
        until_s = time.monotonic() + SOON_S
        while text not in self.said[self._seen :]:
            assert self._read(until_s - time.monotonic()), f"waited for {text!r} in:\n{self.said}"
        before = self._seen
        self._seen = self.said.index(text, self._seen) + len(text)
        return self.said[before : self._seen]

    def answer(self, question: str, text: str | bytes = "") -> None:
        """Waits for the question, and types the answer; nothing: only Enter; bytes: just these."""
        self.expect(question)
        self.expect(": ")
        os.write(self._ours, text if isinstance(text, bytes) else f"{text}\n".encode())

    def end(self) -> int:
        """Waits for its end; the exit code."""
        until_s = time.monotonic() + SOON_S
        while self._read(until_s - time.monotonic()):
            pass
        return self._process.wait(SOON_S)

    def _read(self, timeout_s: float) -> bool:
        """Whether there was more to read."""
        readable, _, _ = select.select([self._ours], [], [], max(0.0, timeout_s))
        if not readable:
            return False
        try:
            told = os.read(self._ours, 65_536)
        except OSError:  # the last one at the other side has gone
            return False
        self.said += _COLOURS.sub("", told.decode("utf-8", "replace")).replace("\r\n", "\n")
        return bool(told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(SOON_S)
        os.close(self._ours)
