"""Disks so small that they can be filled: mounted for a test, filled to the last byte by somebody else, made read-only.

Needs root. Where nothing can be mounted a test is skipped with the reason, except where everything must be there
(CI=true): there it fails.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from agent.dev.server_process import wait_until

TWO_MB = 2 * 1_048_576
INODES = 64
_CHUNKS = (1_048_576, 65_536, 4_096, 512, 1)
_READ_ONLY_S, _TRIES = 10.0, 50


class Disk:
    """A mounted file system for a test alone. `path` is where it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = 0

    @property
    def free_bytes(self) -> int:
        """What a program may still take."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    @property
    def size(self) -> int:
        """All there is, in bytes."""
        found = os.statvfs(self.path)
        return found.f_blocks * found.f_frsize

    @property
    def free_inodes(self) -> int:
        """How many files can still be made."""
        return os.statvfs(self.path).f_favail

    def hog(self, *, leave: int = 0) -> Hog:
        """Somebody else who takes all of it but `leave` bytes."""
        self._files += 1
        return Hog(self, self.path / f"somebody-else-{self._files}").take(leave=leave)

    def take_inodes(self) -> Hog:
        """Somebody else who makes files until no more can be made."""
        self._files += 1
        place = self.path / f"somebody-else-{self._files}"
        place.mkdir()
        with suppress(OSError):
            for number in range(1_000_000):
                (place / str(number)).touch()
        assert self.free_inodes == 0, "no file can be made any more"
        return Hog(self, place)


class Hog:
    """What somebody else has on the disk."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk, self._path = disk, path

    def take(self, *, leave: int = 0) -> Self:
        """Grows until only `leave` bytes are free. That it has happened is proved."""
        with self._path.open("ab", buffering=0) as file:
            for _ in range(_TRIES):  # an agent may give something back meanwhile
                for chunk in _CHUNKS:
                    with suppress(OSError):
                        while self._disk.free_bytes - leave >= chunk:
                            file.write(bytes(chunk))
                if self._disk.free_bytes <= leave:
                    return self
        raise AssertionError(f"{self._disk.free_bytes:,} bytes are free")

    def go(self) -> None:
        """Gives everything back."""
        if self._path.is_dir():
            for each in self._path.iterdir():
                each.unlink()
            self._path.rmdir()
        else:
            self._path.unlink()


@contextmanager
def tmpfs(place: Path, *, size: int = TWO_MB, inodes: int = INODES) -> Iterator[Disk]:
    """A disk in memory of `size` bytes."""
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes},mode=0700", "none", place)
    try:
        disk = Disk(place)
        assert disk.free_bytes <= size, "it is as small as it was asked for"
        yield disk
    finally:
        _unmount(place)


class Ext4(Disk):
    """An ext4 that turns read-only at its first error."""

    def __init__(self, path: Path, image: Path) -> None:
        super().__init__(path)
        self._image, self._device = image, _source(path)

    def break_down(self) -> None:
        """Lets the kernel meet an error, so that everything is read-only, also for files that are open already."""
        trigger = Path("/sys/fs/ext4") / Path(self._device).name / "trigger_fs_error"
        if not trigger.exists():
            cannot("this kernel has no trigger_fs_error")
        trigger.write_text("a test\n", encoding="ascii")
        assert wait_until(lambda: not self.is_writable, _READ_ONLY_S), "it has turned read-only"

    def mend(self) -> None:
        """Unmounts it and mounts it again, as a person would."""
        _unmount(self.path)
        _mount("-o", "loop,errors=remount-ro", self._image, self.path)
        self._device = _source(self.path)
        assert self.is_writable

    @property
    def is_writable(self) -> bool:
        """Whether somebody can write into it."""
        probe = self.path / "probe"
        try:
            probe.write_bytes(b"x")
        except OSError:
            return False
        probe.unlink()
        return True


@contextmanager
def ext4(place: Path, *, size: int = 16 * 1_048_576) -> Iterator[Ext4]:
    """An ext4 of `size` bytes in a file beside `place`."""
    place.mkdir(exist_ok=True)
    image = place.with_name(f"{place.name}.img")
    with image.open("wb") as file:
        file.truncate(size)
    made = _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    if made is not None:
        cannot(made)
    _mount("-o", "loop,errors=remount-ro", image, place)
    try:
        yield Ext4(place, image)
    finally:
        _unmount(place)


def remount(disk: Disk, *options: str) -> bool:
    """Whether the mounted disk took other options."""
    return _run("mount", "-o", ",".join(("remount", *options)), disk.path) is None


def cannot(why: str) -> None:
    """Ends the test: skipped, or failed where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must be able to mount: {why}", pytrace=False)
    pytest.skip(why)


def _mount(*words: object) -> None:
    if os.geteuid() != 0:
        cannot("only root can mount a small disk")
    failure = _run("mount", *words)
    if failure is not None:
        cannot(failure)


def _source(place: Path) -> str:
    found = subprocess.run(["findmnt", "-no", "SOURCE", str(place)], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def _unmount(place: Path) -> None:
    # Lazily: a test that failed may have left a file open, and that must not hide what it has to say.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _run(*words: object) -> str | None:
    """What went wrong; None when nothing did."""
    try:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{words[0]} ({error.strerror})"
    return None if done.returncode == 0 else f"{words[0]}: {done.stderr.strip()}"
