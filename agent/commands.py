"""The backend's commands and what an answer to a heartbeat says of them. Pure: parses, never acts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.body import dumps
from agent.foreign_json import is_deeper
from storage.plain import plain

MAX_COMMANDS = 100
WORD_CHARACTERS, MOMENT_CHARACTERS = 100, 64
PARAMS_BYTES, PARAMS_DEPTH = 16_384, 6
WORDS = ("start", "stop", "collect", "update_config")
TOO_LARGE = f"its params are larger than {PARAMS_BYTES:,} bytes, or deeper than {PARAMS_DEPTH} levels"


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the backend. `created_at` is any text; together with the id it says which command this is.

    `complaint`: why nobody should carry it out, whatever the word; then its params are not here.
    """

    id: int
    word: str
    params: Mapping[str, object] = field(default_factory=dict)
    created_at: str = ""
    complaint: str = ""

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


def addressees(command: Command, watches: Sequence[str]) -> tuple[str, ...]:
    """The names of the watches that a command is for, of all there are: of the one that it names, or of all.

    What nobody can carry out is answered by the first: an unknown word, an unknown target, params that are no use, or a
    `db_config` that says not for which of several databases it is.
    """
    target = command.params.get("target")
    if target is not None:
        return tuple(name for name in watches if name == target) or (watches[0],)
    whose = command.word == "update_config" and "db_config" in command.params
    is_for_nobody = whose or command.word not in WORDS or bool(command.complaint)
    return (watches[0],) if is_for_nobody else tuple(watches)


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
    params = params if isinstance(params, dict) else {}
    is_too_large = is_deeper(params, PARAMS_DEPTH) or len(dumps(params)) > PARAMS_BYTES
    return Command(
        id=number,
        word=plain(word, WORD_CHARACTERS),
        params={} if is_too_large else params,
        created_at=_moment(entry.get("created_at")),
        complaint=TOO_LARGE if is_too_large else "",
    )


def _moment(created_at: object) -> str:
    """Any text, of which every other one becomes another one: what is long is remembered by its digest."""
    text = str(created_at) if isinstance(created_at, str | int | float) else ""
    if len(text) <= MOMENT_CHARACTERS and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
