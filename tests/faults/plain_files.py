"""A program that does to the files of a directory whatever the recorder can see, for the recorder's own test."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from tests.faults.recorder import Recorder


def main(directory: Path) -> None:
    """Leaves a few files, and the traces of others."""
    (directory / "plain").write_bytes(b"one")
    (directory / "plain").write_bytes(b"two, after it was emptied")
    with (directory / "appended").open("ab") as file:
        file.write(b"begin ")
        file.flush()
        file.write(b"end")
    descriptor = os.open(directory / "placed", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(descriptor, b"far away", 5_000)
    os.pwrite(descriptor, b"near", 10)
    os.lseek(descriptor, 100, os.SEEK_SET)
    os.writev(descriptor, [b"in ", b"pieces"])
    os.fdatasync(descriptor)
    os.ftruncate(descriptor, 5_004)
    os.posix_fallocate(descriptor, 0, 9_000)
    os.posix_fallocate(descriptor, 0, 100)
    os.fsync(descriptor)
    os.close(descriptor)
    for name in ("renamed", "over", "covered", "deleted", "index-shm"):
        (directory / name).write_bytes(name.encode())
    (directory / "renamed").rename(directory / "new name")
    (directory / "over").replace(directory / "covered")
    (directory / "deleted").unlink()
    with (directory / "unlinked while open").open("wb", buffering=0) as file:
        (directory / "unlinked while open").unlink()
        file.write(b"nobody will see it")
    (directory.parent / "elsewhere").write_bytes(b"not recorded")
    recorder = Recorder()
    with (directory / "failed").open("wb", buffering=0) as file:
        file.write(b"clean, says the kernel")
        recorder.arm(1, operation="sync")
        with suppress(OSError):
            os.fsync(file.fileno())
        recorder.disarm()
        os.fsync(file.fileno())
    names = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(names)
    os.close(names)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
