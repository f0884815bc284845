"""The lock on a data directory: one agent at a time. Held by the kernel, so it ends with the process."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from storage.errors import OutboxError, OutboxFull, OutboxInaccessible, OutboxLocked

_PID_BYTES = 20


class DirectoryLock:
    """Holds `agent.lock` in `directory`; the file names the holder's pid for the one who is refused."""

    def __init__(self, directory: Path) -> None:
        """Creates the directory (0700) when it is missing and takes the lock.

        Raises OutboxLocked when another process has it, OutboxFull when there is no room for it, OutboxInaccessible
        when the directory cannot be used.
        """
        self.path = directory / "agent.lock"
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
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, _PID_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise OutboxLocked(f"{directory} is held by process {holder}") from error
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


def _explained(directory: Path, error: OSError) -> OutboxError:
    kind = OutboxFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else OutboxInaccessible
    return kind(f"{directory} ({error.strerror})")
