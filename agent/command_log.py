"""Writes down every command of the backend with what became of it, for whoever has to answer for this host. Obeys none.

`commands.log` in the data directory: one JSON object a line, synced before the command has its effect and again when it
was answered. At MAX_BYTES it becomes `commands.log.1`, in place of an earlier one. It holds no secret: of the params
only values that are known to be harmless stand there.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from agent.body import dumps
from agent.commands import Command, Result
from agent.config.permission import ADDRESS, CREDENTIAL, INTERVALS, ON_TRUST, TARGET, THRESHOLDS
from agent.config.places import DB_CONFIG
from agent.logs import tell
from storage.directory import sync_directory
from storage.plain import plain

FILE_NAME, OLDER_NAME = "commands.log", "commands.log.1"
MAX_BYTES = 1_048_576
MASK, _SECRET_WORD = "***", "passw"
RECEIVED, ANSWERED, LEFT = "received", "answered", "left"
_KEYS_SHOWN, _NAME_CHARACTERS, _VALUE_CHARACTERS, _RESULT_CHARACTERS = 20, 40, 255, 1_000


class CommandLog:
    """Of all watches; any thread may use it. What cannot be written here is said in the agent's log instead: a full
    disk must not keep anybody from saying `stop`."""

    def __init__(self, directory: Path, now: Callable[[], datetime], *, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._older = directory / FILE_NAME, directory / OLDER_NAME
        self._now, self._max_bytes = now, max_bytes
        self._lock = threading.Lock()  # around one line

    def received(self, command: Command, watch: str) -> None:
        """To be called before the command has any effect in that watch."""
        self._write(RECEIVED, command, watch, {"params": masked(command.params)})

    def answered(self, result: Result, watch: str) -> None:
        """To be called when the answer of that watch is durable."""
        details = {"success": result.success, "result": _bounded(result.details)}
        self._write(ANSWERED, result.command, watch, details)

    def left(self, command: Command, watch: str, reason: str) -> None:
        """The command, and those that come with it, are left where they are."""
        self._write(LEFT, command, watch, {"result": {"error": reason}})

    def _write(self, step: str, command: Command, watch: str, details: Mapping[str, object]) -> None:
        of_the_command = {"id": command.id, "command": command.word, "created_at": command.created_at}
        entry = {"at": self._now().isoformat(), "step": step, "watch": watch, **of_the_command, **details}
        try:
            with self._lock:
                self._append(dumps(entry) + b"\n")
        except OSError as error:
            sentence = f"{FILE_NAME} cannot be written ({error.strerror}); it should say: {step} {command.word}"
            tell(logging.WARNING, "command.unlogged", sentence, **entry)

    def _append(self, line: bytes) -> None:
        self._make_room(len(line))
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask is, or whoever has touched it
            size = os.fstat(descriptor).st_size
            # A line that a crash has cut off spoils no other one.
            whole = line if not size or os.pread(descriptor, 1, size - 1) == b"\n" else b"\n" + line
            if os.write(descriptor, whole) < len(whole):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            sync_directory(self._path.parent)

    def _make_room(self, length: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size and size + length > self._max_bytes:
            self._path.replace(self._older)
            sync_directory(self._path.parent)


def masked(params: Mapping[str, object]) -> dict[str, object]:
    """The params without what could be a secret: every value but those of keys that are known to hold none."""
    secret = password_of(params)
    shown = _masked({name: value for name, value in params.items() if name != DB_CONFIG}, (*INTERVALS, TARGET), secret)
    if DB_CONFIG in params:
        database = params[DB_CONFIG]
        harmless = (*ADDRESS, *THRESHOLDS, *ON_TRUST)
        shown[DB_CONFIG] = _masked(database, harmless, secret) if isinstance(database, dict) else MASK
    return shown


def password_of(params: Mapping[str, object]) -> str:
    """The password that came with the command; empty when there is none."""
    database = params.get(DB_CONFIG)
    password = database.get(CREDENTIAL) if isinstance(database, dict) else None
    return password if isinstance(password, str) else ""


def _masked(given: Mapping[str, object], harmless: tuple[str, ...], secret: str) -> dict[str, object]:
    shown = {
        plain(name, _NAME_CHARACTERS): value if name in harmless and _is_harmless(value, secret) else MASK
        for name, value in list(given.items())[:_KEYS_SHOWN]
    }
    more = len(given) - _KEYS_SHOWN
    return {**shown, "...": f"{more:,} more keys"} if more > 0 else shown


def _is_harmless(value: object, secret: str) -> bool:
    if isinstance(value, str):
        if secret and secret in value:
            return False
        # An address with a password in it may stand where only a name is wanted.
        is_simple = len(value) <= _VALUE_CHARACTERS and value.isprintable()
        return is_simple and "://" not in value and _SECRET_WORD not in value.lower()
    return value is None or isinstance(value, bool | int | float)


def _bounded(details: Mapping[str, object]) -> dict[str, object]:
    return {
        name: plain(value, _RESULT_CHARACTERS) if isinstance(value, str) else value for name, value in details.items()
    }
