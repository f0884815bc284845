"""Writes a configuration file as `init` and `register` do: whole or not at all, and for nobody else to read."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from agent.config import reading
from agent.config.places import Tree
from agent.errors import ConfigUnwritable

_PRIVATE = 0o600
_PROBE_BYTES = 65_536  # more than a configuration has
_AT_MOST = 0o640  # a group may read it: that of a service


def read(path: Path) -> Tree:
    """What stands in the file; empty when there is none. Raises ConfigMissing (it cannot be read), ConfigMalformed."""
    return reading.read(path) if os.path.lexists(path) else {}


@contextmanager
def held(path: Path) -> Iterator[None]:
    """As long as it is held, nobody else who asks so writes the file. Raises ConfigUnwritable, also when it could not
    be written."""
    directory = path.resolve().parent
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigUnwritable(f"{path} ({error.strerror})") from None
    try:
        _demand_alone_and_writable(descriptor, directory, path)
        yield
    finally:
        os.close(descriptor)


def _demand_alone_and_writable(descriptor: int, directory: Path, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except BlockingIOError:
        raise ConfigUnwritable(f"{path} (another `init` or `register` works in its directory)") from None
    except OSError as error:
        raise ConfigUnwritable(f"{path} ({error.strerror})") from None


def write(path: Path, tree: Tree) -> int:
    """Puts it in place of what is there, durable, with the owner that the file had and mode 0600, or its own if that is
    no wider than 0640; gives the mode. Raises ConfigUnwritable; then everything is as it was."""
    path = Path(os.path.realpath(path))
    fresh = path.with_name(f".{path.name}.new")
    try:
        try:
            _write(fresh, orjson.dumps(tree, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), _like(path))
            fresh.replace(path)
        finally:
            with suppress(FileNotFoundError):
                fresh.unlink()
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigUnwritable(f"{path} ({error.strerror})") from None


def _like(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _write(fresh: Path, text: bytes, before: os.stat_result | None) -> None:
    with suppress(FileNotFoundError):
        fresh.unlink()  # of one that was broken off
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _PRIVATE)
    with os.fdopen(descriptor, "wb") as target:
        if before is not None:
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & _AT_MOST)
        target.write(text)
        target.flush()
        os.fsync(descriptor)
