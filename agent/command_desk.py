"""Carries out the backend's commands for one watch, each once: effect, mark and result in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from agent.command_book import CommandBook
from agent.commands import Command, Result
from agent.errors import CommandRefused
from agent.logs import tell
from agent.reconfigure import Reconfiguration
from agent.repeats import Repeats
from agent.sources import Source
from agent.watch import Watch
from storage.envelope import Change
from storage.errors import OutboxError
from storage.outbox import Outbox

PAUSED_NOTE = "paused"


class CommandDesk:
    """The commands of one watch; used by the watch's thread only. Book and configuration are those of all watches."""

    def __init__(
        self,
        watch: Watch,
        outbox: Outbox,
        book: CommandBook,
        reconfiguration: Reconfiguration,
        *,
        name: str,
        now_s: Callable[[], float],
    ) -> None:
        self._watch, self._outbox, self._book, self._reconfiguration = watch, outbox, book, reconfiguration
        self._name = name
        self._now_s = now_s
        self._repeats = Repeats(now_s)

    def carry_out(self, command: Command) -> Source | None:
        """Does what the command says unless it was done before; a new source when `update_config` brought one.

        `collect` is only noted down: the look that follows answers it. Raises OutboxError when nothing could be
        stored; the command stays pending at the backend and comes again.
        """
        asked = map(self._book.mark, self._watch.asked)
        if self._book.mark(command) in asked or self._book.is_done(command, self._name):
            return None
        self._repeats.tell(  # where its result cannot be stored, it comes again with each heartbeat
            logging.INFO,
            "command.received",
            f"Command {command.word[:100]}",
            kind=self._book.mark(command),
            id=command.id,
            watch=self._name,
        )
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

    @contextmanager
    def answers(self, *, success: bool, details: Mapping[str, object]) -> Iterator[Change]:
        """The results of every `collect` that was asked for, to be saved in this block with the last turn of the look.

        Nothing else is to be done in it: other watches may wait for its end.
        """
        results = [Result(command, success, details) for command in self._watch.asked]
        with self._book.entered(self._name, results) as change:
            yield change

    def _set_pause(self, command: Command, *, paused: bool) -> None:
        state = "collecting is paused" if paused else "collecting goes on"
        note = {f"{PAUSED_NOTE}/{self._name}": "1" if paused else None}
        self._answer(command, success=True, details={"message": state}, notes=note)
        self._watch.set_pause(paused)

    def _update(self, command: Command) -> Source | None:
        try:
            source = self._reconfiguration.accept(self._name, command.params)
        except CommandRefused as error:
            tell(logging.WARNING, "command.refused", str(error), id=command.id, watch=self._name)
            self._answer(command, success=False, details={"error": error.detail, "code": error.code})
            return None
        config = self._reconfiguration.config.watch(self._name)
        self._watch.set_max_load(config.db_config.max_load)
        self._watch.set_interval(config.collection_interval, self._now_s())
        try:
            self._answer(command, success=True, details={"message": "the configuration was changed"})
        except OutboxError as error:
            # The change is in force and has to be used; the command comes again and then changes nothing more.
            tell(logging.WARNING, "command.postponed", f"Its result waits: {error}", id=command.id, watch=self._name)
        return source

    def _answer(
        self,
        command: Command,
        *,
        success: bool,
        details: Mapping[str, object],
        notes: Mapping[str, str | None] | None = None,
    ) -> None:
        with self._book.entered(self._name, [Result(command, success, details)], notes) as change:
            self._outbox.commit(change)
