"""The backend's commands and what an answer to a heartbeat says of them. Pure: parses, never acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.body import dumps

MAX_COMMANDS = 100


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the backend. `created_at` is any text; together with the id it says which command this is."""

    id: int
    word: str
    params: Mapping[str, object] = field(default_factory=dict)
    created_at: str = ""

    def mark(self, collector_id: int) -> str:
        """The name under which this command is remembered once it was carried out."""
        return f"command/{collector_id}/{self.id}/{self.created_at}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a command; `details` is shown to the person who gave it."""

    command: Command
    success: bool
    details: Mapping[str, object]

    def to_wire(self) -> bytes:
        """The body of the execute call."""
        return dumps({"command_id": self.command.id, "success": self.success, "result": dict(self.details)})


def parse(entries: object) -> tuple[Command, ...]:
    """The well-formed commands among what a heartbeat's answer calls `commands`; anything else is left out."""
    if not isinstance(entries, list):
        return ()
    commands = (_command(entry) for entry in entries[:MAX_COMMANDS])
    return tuple(command for command in commands if command is not None)


def _command(entry: object) -> Command | None:
    if not isinstance(entry, dict):
        return None
    number, word, params = entry.get("id"), entry.get("command"), entry.get("params")
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(word, str):
        return None
    created_at = entry.get("created_at")
    return Command(
        id=number,
        word=word,
        params=params if isinstance(params, dict) else {},
        created_at=str(created_at) if isinstance(created_at, str | int | float) else "",
    )
