"""Carries out the backend's commands for one watch, each once: effect, mark and result in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from agent.command_book import CommandBook
from agent.command_log import MASK, CommandLog, password_of
from agent.commands import WORDS, Command, Result
from agent.config.permission import OFF, SWITCHED_OFF
from agent.errors import CommandRefused
from agent.logs import tell
from agent.ration import Ration
from agent.reconfigure import Reconfiguration
from agent.sources import Source
from agent.watch import Watch
from storage.envelope import Change
from storage.errors import OutboxError
from storage.outbox import Outbox
from storage.plain import plain

PAUSED_NOTE = "paused"
TOO_MANY = "the backend gives more commands than a watch takes; they wait there"
TOLD_AGAIN_S = 3_600.0
_REMEMBERED = 1_000  # commands that came in and have no answer yet
_TARGET_CHARACTERS = 100
_PASSWORD_CHARACTERS = 4
_NOT_SHOWN = "it was refused; why is not shown here, because the new password stands in that sentence"


def is_paused(outbox: Outbox, name: str, mode: str) -> bool:
    """Whether a `stop` of earlier still holds for that watch under `remote_config: mode`. Where the backend has no say
    any more it is ended: nobody else could. Raises OutboxError."""
    note = f"{PAUSED_NOTE}/{name}"
    if outbox.note(note) is None or mode != OFF:
        return outbox.note(note) is not None
    with suppress(OutboxError):  # without room for that it is ended for this run
        outbox.commit(Change(notes={note: None}))
    sentence = f"A pause by an earlier `stop` of the backend is over: {SWITCHED_OFF}"
    tell(logging.WARNING, "pause.ended", sentence, watch=name)
    return False


class CommandDesk:
    """The commands of one watch; used by the watch's thread only. Book, log and configuration are those of all."""

    def __init__(
        self,
        watch: Watch,
        outbox: Outbox,
        book: CommandBook,
        log: CommandLog,
        reconfiguration: Reconfiguration,
        *,
        name: str,
        now_s: Callable[[], float],
    ) -> None:
        self._watch, self._outbox, self._book, self._log = watch, outbox, book, log
        self._reconfiguration = reconfiguration
        self._name = name
        self._now_s = now_s
        self._ration = Ration(now_s())
        self._flood_told_s = float("-inf")
        self._received: dict[str, None] = {}

    def carry_out(self, command: Command) -> Source | None:
        """Does what the command says unless it was done before; a new source when `update_config` brought one.

        `collect` is only noted down: the look that follows answers it. Raises OutboxError when nothing could be
        stored; the command stays pending at the backend and comes again, as it does when there are too many.
        """
        asked = map(self._book.mark, self._watch.asked)
        if self._book.mark(command) in asked or self._book.is_done(command, self._name):
            return None
        reason = self._objection(command)
        must_be_heard = reason is None and command.word == "stop" and not self._watch.paused
        if not self._admits(command, must_be_heard=must_be_heard):
            return None
        if reason is not None:
            self._refuse(command, reason)
        elif command.word in {"start", "stop"}:
            self._set_pause(command, paused=command.word == "stop")
        elif command.word == "collect":
            self._watch.asked.append(command)
        else:
            return self._update(command)
        return None

    def _admits(self, command: Command, *, must_be_heard: bool) -> bool:
        """Writes down that the command came, unless it did before without getting an answer; False when it has to wait,
        because there were too many."""
        mark = self._book.mark(command)
        if mark in self._received:
            return True
        if not must_be_heard and not self._ration.takes(self._now_s()):
            self._tell_flood(command)
            return False
        if len(self._received) >= _REMEMBERED:
            self._received.pop(next(iter(self._received)))
        self._received[mark] = None
        tell(logging.INFO, "command.received", f"Command {command.word}", id=command.id, watch=self._name)
        self._log.received(command, self._name)
        return True

    def _tell_flood(self, command: Command) -> None:
        if self._now_s() - self._flood_told_s >= TOLD_AGAIN_S:
            self._flood_told_s = self._now_s()
            tell(logging.WARNING, "command.flood", TOO_MANY, id=command.id, watch=self._name)
            self._log.left(command, self._name, TOO_MANY)

    def _objection(self, command: Command) -> str | None:
        """Why the command is not carried out, whatever it would do."""
        if self._reconfiguration.config.remote_config == OFF:
            return SWITCHED_OFF
        target = command.params.get("target")
        if command.complaint:
            return command.complaint
        if target is not None and target != self._name:
            return f"unknown target {plain(str(target), _TARGET_CHARACTERS)}"
        return None if command.word in WORDS else f"unknown command {command.word}"

    @contextmanager
    def answers(self, *, success: bool, details: Mapping[str, object]) -> Iterator[Change]:
        """The results of every `collect` that was asked for, to be saved in this block with the last turn of the look.

        Nothing else is to be done in it: other watches may wait for its end.
        """
        results = [Result(command, success, details) for command in self._watch.asked]
        with self._book.entered(self._name, results) as change:
            yield change
        for result in results:
            self._has_answered(result)

    def _has_answered(self, result: Result) -> None:
        self._received.pop(self._book.mark(result.command), None)
        self._log.answered(result, self._name)

    def _set_pause(self, command: Command, *, paused: bool) -> None:
        state = "collecting is paused" if paused else "collecting goes on"
        note = {f"{PAUSED_NOTE}/{self._name}": "1" if paused else None}
        self._answer(command, success=True, details={"message": state}, notes=note)
        self._watch.set_pause(paused)

    def _update(self, command: Command) -> Source | None:
        try:
            source = self._reconfiguration.accept(self._name, command.params)
        except CommandRefused as error:
            self._refuse(command, _without_password(error.detail, command))
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

    def _refuse(self, command: Command, reason: str) -> None:
        error = CommandRefused(reason)
        tell(logging.WARNING, "command.refused", str(error), id=command.id, watch=self._name)
        self._answer(command, success=False, details={"error": error.detail, "code": error.code})

    def _answer(
        self,
        command: Command,
        *,
        success: bool,
        details: Mapping[str, object],
        notes: Mapping[str, str | None] | None = None,
    ) -> None:
        result = Result(command, success, details)
        with self._book.entered(self._name, [result], notes) as change:
            self._outbox.commit(change)
        self._has_answered(result)


def _without_password(sentence: str, command: Command) -> str:
    """A server that was tried may say the password again that it was sent."""
    password = password_of(command.params)
    if not password or password not in sentence:
        return sentence
    # A short one is found in any sentence, and what is left around it would tell it.
    return sentence.replace(password, MASK) if len(password) >= _PASSWORD_CHARACTERS else _NOT_SHOWN
