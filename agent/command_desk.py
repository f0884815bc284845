"""Carries out the backend's commands for one watch, each once: effect, mark and result in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from agent.collector import result_draft
from agent.commands import Command, Result
from agent.config.schema import Config
from agent.errors import CommandRefused
from agent.logs import tell
from agent.reconfigure import Reconfiguration
from agent.sources import Source
from agent.watch import Watch
from storage.envelope import Change
from storage.errors import OutboxError
from storage.outbox import Outbox

PAUSED_NOTE = "paused"


class CommandDesk:
    """The commands of one watch; used by the watch's thread only."""

    def __init__(
        self,
        watch: Watch,
        outbox: Outbox,
        reconfiguration: Reconfiguration,
        *,
        name: str,
        now_s: Callable[[], float],
        on_config: Callable[[Config], None],
    ) -> None:
        self._watch, self._outbox, self._reconfiguration = watch, outbox, reconfiguration
        self._name = name
        self._now_s = now_s
        self._on_config = on_config

    def carry_out(self, command: Command) -> Source | None:
        """Does what the command says unless it was done before; a new source when `update_config` brought one.

        `collect` is only noted down: the look that follows answers it. Raises OutboxError when nothing could be
        stored; the command stays pending at the backend and comes again.
        """
        mark = self._mark(command)
        if mark in map(self._mark, self._watch.asked) or self._outbox.has_mark(mark):
            return None
        tell(logging.INFO, "command.received", f"Command {command.word[:100]}", id=command.id)
        target = command.params.get("target")
        if target is not None and target != self._name:
            self._answer(command, success=False, details={"error": f"unknown target {str(target)[:100]}"})
        elif command.word in {"start", "stop"}:
            self._set_pause(command, paused=command.word == "stop")
        elif command.word == "collect":
            self._watch.asked.append(command)
        elif command.word == "update_config":
            return self._update(command)
        else:
            self._answer(command, success=False, details={"error": f"unknown command {command.word[:100]}"})
        return None

    def answers(self, *, success: bool, details: Mapping[str, object]) -> Change:
        """The results of every `collect` that was asked for, to be saved with the last turn of the look."""
        asked = self._watch.asked
        return Change(
            drafts=tuple(result_draft(Result(command, success, details)) for command in asked),
            marks=tuple(self._mark(command) for command in asked),
        )

    def _set_pause(self, command: Command, *, paused: bool) -> None:
        state = "collecting is paused" if paused else "collecting goes on"
        note = {f"{PAUSED_NOTE}/{self._name}": "1" if paused else None}
        self._answer(command, success=True, details={"message": state}, notes=note)
        self._watch.set_pause(paused)

    def _update(self, command: Command) -> Source | None:
        try:
            source = self._reconfiguration.accept(command.params)
        except CommandRefused as error:
            tell(logging.WARNING, "command.refused", str(error), id=command.id)
            self._answer(command, success=False, details={"error": error.detail, "code": error.code})
            return None
        config = self._reconfiguration.config
        self._watch.set_max_load(config.db_config.max_load)
        self._watch.set_interval(config.collection_interval, self._now_s())
        self._on_config(config)
        try:
            self._answer(command, success=True, details={"message": "the configuration was changed"})
        except OutboxError as error:
            # The change is in force and has to be used; the command comes again and then changes nothing more.
            tell(logging.WARNING, "command.postponed", f"Its result waits: {error}", id=command.id)
        return source

    def _answer(
        self,
        command: Command,
        *,
        success: bool,
        details: Mapping[str, object],
        notes: Mapping[str, str | None] | None = None,
    ) -> None:
        draft = result_draft(Result(command, success, details))
        self._outbox.commit(Change(drafts=(draft,), marks=(self._mark(command),), notes=notes or {}))

    def _mark(self, command: Command) -> str:
        return command.mark(self._reconfiguration.config.collector_id)
