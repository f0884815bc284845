"""The lock on a data directory: one agent at a time. Held by the kernel, so it ends with the process."""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from storage.errors import OutboxError, OutboxFull, OutboxInaccessible, OutboxLocked

NAME = "agent.lock"
_PID_BYTES = 20
_LOOK_S, _LOOKS = 0.05, 20


class DirectoryLock:
    """Holds `agent.lock` in `directory`; the file names the holder's pid for the one who is refused."""

    def __init__(self, directory: Path) -> None:
        """Creates the directory (0700) when it is missing and takes the lock.

        Raises OutboxLocked when another process has it, OutboxFull when there is no room for it, OutboxInaccessible
        when the directory cannot be used.
        """
        self.path = directory / NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _explained(directory, error) from error
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            os.close(self._directory)
            raise _explained(directory, error) from error
        try:
            # The directory as well: a lock file can be deleted, and another one made in its place.
            _take(self._directory, self._descriptor)
        except BlockingIOError as error:
            who = _named(self._descriptor)
            self.release()
            raise OutboxLocked(f"{directory} is held by process {who}") from error
        except OSError as error:  # a file system without locks
            self.release()
            raise OutboxInaccessible(f"{self.path} ({error.strerror})") from error
        # In place and without insisting: the name is a courtesy, and a full disk must not keep the agent from starting.
        with suppress(OSError):
            os.pwrite(self._descriptor, f"{os.getpid()}\n".ljust(_PID_BYTES).encode(), 0)

    def release(self) -> None:
        """Gives the directory back; calling it twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._directory)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(directory: Path) -> str | None:
    """The process that holds `directory`, as its lock names it; None when nobody does."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(descriptor)
    except OSError:  # a file system without locks: no agent runs there
        return None
    finally:
        os.close(descriptor)  # a moment that an agent which starts now waits out
    return None


@contextmanager
def unless_held(directory: Path) -> Iterator[bool]:
    """Whether no agent works in `directory`; until the end none can begin to. Makes no file."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = True
    except OSError:
        is_free = False
    try:
        yield is_free
    finally:
        os.close(descriptor)


def _named(descriptor: int) -> str:
    return os.pread(descriptor, _PID_BYTES, 0).decode("ascii", "replace").strip() or "unknown"


def _take(*descriptors: int) -> None:
    for descriptor in descriptors:
        for _ in range(_LOOKS):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            select.select((), (), (), _LOOK_S)  # somebody may only have looked who has it
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _explained(directory: Path, error: OSError) -> OutboxError:
    kind = OutboxFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else OutboxInaccessible
    return kind(f"{directory} ({error.strerror})")
