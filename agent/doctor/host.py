"""What `doctor` says of this host: files and their modes, room, the outbox, the agent itself. Changes nothing."""

from __future__ import annotations

import platform
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent import __version__, overview
from agent.clock import Clock
from agent.config.exposure import exposed
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.errors import AgentDown, FilesExposed
from agent.finding import Finding, hint, right, wrong
from agent.overview import duration
from agent.sinks import QUERIES
from storage.audit import audit
from storage.connection import SQLITE
from storage.directory import free_bytes
from storage.errors import CodedError, OutboxError, OutboxFull, OutboxUnbalanced
from storage.view import OutboxView


def program() -> Finding:
    """The versions that a report of a fault should name."""
    return right("program", f"{__version__} on Python {platform.python_version()}, SQLite {SQLITE}")


def examine(config: Config, layers: Layers, path: Path, clock: Clock) -> Iterator[Finding]:
    """Everything of this host. `path`: the configuration file. Raises nothing."""
    yield _configuration(path)
    directory = layers.data_dir
    try:
        place = _existing(directory)
    except OSError as error:
        yield wrong("data directory", _unreadable(directory, error))
        return
    if place != directory:
        yield right("data directory", f"{directory} will be made at the first start")
        yield _room(config, place)
        return
    yield _data_directory(directory)
    yield _room(config, directory)
    yield from _outbox(config, directory)
    yield _agent(directory, clock)


def _configuration(path: Path) -> Finding:
    told = exposed(path)
    if told is not None:
        return wrong("configuration", FilesExposed(told))
    return right("configuration", f"{path} is valid")


def _data_directory(directory: Path) -> Finding:
    try:
        found = list(filter(None, map(_open_to_others, (directory, *directory.iterdir()))))
    except OSError as error:
        return wrong("data directory", _unreadable(directory, error))
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return wrong("data directory", FilesExposed(found[0] + more))
    return right("data directory", f"{directory} is its owner's alone")


def _open_to_others(path: Path) -> str | None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # a running agent renames and deletes its files
        return None
    is_open = mode & (stat.S_IRWXO | stat.S_IRWXG) and not stat.S_ISLNK(mode)
    return f"{path} has mode {stat.S_IMODE(mode):04o}" if is_open else None


def _unreadable(directory: Path, error: OSError) -> FilesExposed:
    return FilesExposed(f"{directory} cannot be looked at ({error.strerror}); ask as the agent's user or as root")


def _existing(directory: Path) -> Path:
    """Itself or the nearest above it. Raises OSError where nobody lets us look."""
    for place in (directory, *directory.parents):
        with suppress(FileNotFoundError):
            place.stat()
            break
    return place


def _room(config: Config, directory: Path) -> Finding:
    try:
        free, whole = free_bytes(directory)
    except OutboxError as error:
        return wrong("room", error)
    floor = min(config.outbox.min_free_bytes, whole // 10)
    said = f"{free:,} bytes free, {floor:,} stay reserved"
    return wrong("room", OutboxFull(said)) if free < floor else right("room", said)


def _outbox(config: Config, directory: Path) -> Iterator[Finding]:
    try:
        found = audit(directory)
        with OutboxView(directory) as view:
            books = view.tally(QUERIES)
    except OutboxError as error:
        yield wrong("outbox", error)
        return
    if not found.balances:
        yield wrong(
            "outbox", OutboxUnbalanced("; ".join(each for account in found.accounts for each in account.complaints))
        )
        return
    waiting = f"{books.pending:,} records wait, {books.pending_bytes:,} of {config.outbox.max_bytes:,} bytes"
    if books.pending_bytes >= config.outbox.max_bytes:
        yield wrong("outbox", OutboxFull(waiting))
    else:
        parked = f"; {books.parked:,} were refused and are kept aside (`outbox parked`)" if books.parked else ""
        gaps = f"; {books.gaps:,} known losses (`audit`)" if books.gaps else ""
        yield right("outbox", f"balances; {waiting}{parked}{gaps}")


def _agent(directory: Path, clock: Clock) -> Finding:
    try:
        found = overview.look(directory, clock)
    except CodedError as error:
        return wrong("agent", error)
    if found["pid"] is None:
        return hint("agent", AgentDown(found["silent"] or ""))
    said = f"runs as process {found['pid']} for {duration(found['uptime_seconds'])}, {found['state']}"
    if found["error"]:
        return Finding("agent", "wrong", f"{said}, and says: {found['error']}")
    return right("agent", said)
