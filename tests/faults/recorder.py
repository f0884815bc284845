"""Runs a program under `recorder.c` and reads what it did to the files of one directory. Decides nothing about it."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

SOURCE = Path(__file__).with_suffix(".c")
ROOT = Path(__file__).parent.parent.parent
KILL, TEAR = 0, -1  # instead of an errno: the process ends before the call, or after half of what it would write
FOR_EVER = 1 << 40

Operation = Literal["create", "open", "write", "truncate", "unlink", "rename", "sync", "unsynced", "ack"]


class CompilerMissing(Exception):
    """There is no C compiler here (Debian and Ubuntu: apt-get install gcc libc6-dev)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a file. `offset`: where it was written, or the size it was cut or grown to.

    `data`: what was written or acknowledged, or the new name of a renamed file. The directory itself is ".".
    """

    operation: Operation
    name: str
    inode: int = 0
    offset: int = 0
    data: bytes = b""


def build(directory: Path, source: Path = SOURCE) -> Path:
    """Compiles the recorder, or another library of one file, into `directory`. Raises CompilerMissing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CompilerMissing(CompilerMissing.__doc__)
    library = directory / f"{source.stem}.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def run(library: Path, module: str, *arguments: object, directory: Path, log: Path, acks: Path) -> int:
    """Runs `python -m module` with `arguments` to its end; its exit code, below 0 when a signal ended it.

    What it does to the files of `directory` is appended to `log`, what it writes to the file `acks` as well.
    """
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "RECORD_DIR": str(directory.resolve()),
        "RECORD_LOG": str(log),
        "RECORD_ACKS": str(acks.resolve()),
    }
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def read_log(path: Path) -> list[Event]:
    """Everything that was recorded, in order."""
    return list(_events(path.read_bytes())) if path.exists() else []


def _events(content: bytes) -> Iterator[Event]:
    at = 0
    while at < len(content):
        end = content.index(b"\n", at)
        operation, inode, offset, length, name = content[at:end].decode().split(" ", 4)
        at = end + 1 + int(length)
        data = content[end + 1 : at]
        yield Event(cast("Operation", operation), name, int(inode), int(offset), data)


class Recorder:
    """The recorder in this very process, for a recorded program that chooses what is recorded and what shall fail."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.recorder_disarm.restype = ctypes.c_long
        self._library.recorder_trace.restype = ctypes.c_char_p
        self._library.recorder_arm.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_int)

    def watch(self, directory: Path, log: Path | None = None) -> None:
        """From now on it is the files of `directory` that are recorded (without a log: whose calls can fail)."""
        self._library.recorder_watch(os.fsencode(directory.resolve()), os.fsencode(log or ""))

    def arm(self, first: int = 0, last: int | None = None, action: int = errno.EIO, operation: str = "") -> None:
        """Counts the calls from now on, of all operations or of one; those from `first` to `last` meet `action`."""
        self._library.recorder_arm(operation.encode(), first, first if last is None else last, action)

    def disarm(self) -> int:
        """Ends that; how many calls met it."""
        return int(self._library.recorder_disarm())

    @property
    def trace(self) -> list[str]:
        """The calls that were counted, "operation name" each."""
        return cast("bytes", self._library.recorder_trace()).decode().splitlines()
