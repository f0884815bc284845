"""What `commands.log` tells a person: which commands came, when, and what became of each. Reads two files, no more."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from agent.command_log import ANSWERED, FILE_NAME, LEFT, MAX_BYTES, OLDER_NAME
from agent.foreign_json import loads
from storage.errors import OutboxInaccessible
from storage.plain import plain

_TITLES = ("received", "database", "id", "command", "params", "what became of it")
_CELL_CHARACTERS = 120

Entry = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class History:
    """The lines, the oldest first, and how many more there are that nobody can read."""

    entries: tuple[Entry, ...]
    unreadable: int


def read(directory: Path) -> History:
    """Everything that is still there. Raises OutboxInaccessible, also when there is no such directory."""
    _demand(directory)
    entries, unreadable = list[Entry](), 0
    for line in (line for name in (OLDER_NAME, FILE_NAME) for line in _lines(directory / name)):
        entry = _entry(line)
        if entry is None:
            unreadable += 1
        else:
            entries.append(entry)
    return History(tuple(entries), unreadable)


def newest(entries: Sequence[Entry], limit: int) -> list[Entry]:
    """All lines of the newest `limit` commands. A command is as new as its last line."""
    shown = set(list(dict.fromkeys(_command(entry) for entry in reversed(entries)))[:limit])
    return [entry for entry in entries if _command(entry) in shown]


def table(entries: Sequence[Entry]) -> Iterator[str]:
    """One line for each command, the oldest first."""
    rows = [_TITLES, *_rows(entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _demand(directory: Path) -> None:
    try:
        is_there = directory.is_dir()
    except OSError as error:
        raise OutboxInaccessible(f"{directory} ({error.strerror})") from None
    if not is_there:
        raise OutboxInaccessible(f"{directory} is no directory")


def _lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            # What is longer than the agent makes it was made by somebody else; the newest of it is at its end.
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 2 * MAX_BYTES))
            return [line for line in file.read(2 * MAX_BYTES).split(b"\n") if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutboxInaccessible(f"{path} ({error.strerror})") from None


def _entry(line: bytes) -> Entry | None:
    try:
        entry = loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), str) else None


def _rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """One for each command in each watch; what was answered stands in the row of what was received."""
    rows = dict[tuple[str, ...], tuple[str, ...]]()
    for entry in entries:
        command = _command(entry)
        before = rows.pop(command, None)
        at, params = before[0] if before else _said(entry, "at"), before[4] if before else _said(entry, "params")
        rows[command] = (at, *command[:3], params, _outcome(entry))
    return list(rows.values())


def _command(entry: Entry) -> tuple[str, str, str, str]:
    return _said(entry, "watch"), _said(entry, "id"), _said(entry, "command"), _said(entry, "created_at")


def _outcome(entry: Entry) -> str:
    if entry["step"] == LEFT:
        return f"left: {_said(entry, 'result')}"
    if entry["step"] != ANSWERED:
        return "no answer yet"
    return f"{'done' if entry.get('success') is True else 'refused'}: {_said(entry, 'result')}"


def _said(entry: Entry, name: str) -> str:
    value = entry.get(name)
    text = value if isinstance(value, str) else "" if value in (None, {}) else orjson.dumps(value).decode()
    return plain(text, _CELL_CHARACTERS)
