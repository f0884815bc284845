"""Remembers which commands were carried out, and makes one result of what several watches did.

A command for several watches is done in parts: each watch enters its own together with its effect, and whoever comes
last turns them into the result. Until then they stand in one note of the outbox, which a crash does not take away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from agent.body import dumps
from agent.collector import result_draft
from agent.commands import Command, Result, addressees
from storage.envelope import Change, Draft
from storage.outbox import Outbox

PARTS_NOTE = "parts/"
# Of commands that nobody will complete any more, because a watch hung until the backend gave them up.
PARTS_KEPT, PARTS_KEPT_S = 100, 86_400.0

Parts = dict[str, Any]  # by the name of the watch: {"success": bool, ...}


class CommandBook:
    """Of all watches; each uses it from its own thread. Its lock is held for one transaction, never for a database."""

    def __init__(self, outbox: Outbox, collector_id: int, watches: Sequence[str], now: Callable[[], float]) -> None:
        """`watches`: the names of all; `now`: Unix seconds."""
        self._outbox, self._collector_id = outbox, collector_id
        self._watches, self._now = tuple(watches), now
        self._lock = threading.Lock()

    def mark(self, command: Command) -> str:
        """The name under which a command is remembered that was carried out."""
        return command.mark(self._collector_id)

    def concerns(self, command: Command) -> tuple[str, ...]:
        """The names of the watches that have to do something about it."""
        return addressees(command, self._watches)

    def is_done(self, command: Command, name: str) -> bool:
        """Whether the watch has done its part, in this run or an earlier one. Raises OutboxError."""
        mark = self.mark(command)
        with self._lock:  # between the two looks another watch could make the result
            if self._outbox.has_mark(mark):
                return True
            parts = self._parts(mark)
            if name not in parts:
                return False
            if self._is_whole(parts):  # those that were missing are watched no more
                self._outbox.commit(self._settled(command, parts))
            return True

    @contextmanager
    def entered(
        self, name: str, results: Sequence[Result], notes: Mapping[str, str | None] | None = None
    ) -> Iterator[Change]:
        """What must be committed in this block, with the effect: what the watch tells of these commands, and `notes`.

        Another watch that has a part in one of the commands waits until the block is left.
        """
        alone = [result for result in results if len(self.concerns(result.command)) == 1]
        shared = [result for result in results if result not in alone]
        change = Change(
            drafts=tuple(result_draft(result) for result in alone),
            marks=tuple(self.mark(result.command) for result in alone),
            notes=notes or {},
        )
        if not shared:
            yield change
            return
        with self._lock:
            yield self._joined(change, name, shared)

    def _joined(self, change: Change, name: str, shared: Sequence[Result]) -> Change:
        changes = [change]
        for result in shared:
            mark = self.mark(result.command)
            before = self._parts(mark)
            parts = {**before, name: {**result.details, "success": result.success}}
            if self._is_whole(parts):
                changes.append(self._settled(result.command, parts))
                continue
            outdated = {} if before else dict.fromkeys(self._outdated())
            entry = dumps({"at": self._now(), "parts": parts}).decode()
            changes.append(Change(notes={**outdated, f"{PARTS_NOTE}{mark}": entry}))
        return _together(changes)

    def _is_whole(self, parts: Parts) -> bool:
        return all(each in parts for each in self._watches)

    def _settled(self, command: Command, parts: Parts) -> Change:
        told = {each: parts[each] for each in self._watches}
        result = Result(command, all(each["success"] for each in told.values()), {"watches": told})
        mark = self.mark(command)
        return Change(drafts=(result_draft(result),), marks=(mark,), notes={f"{PARTS_NOTE}{mark}": None})

    def _parts(self, mark: str) -> Parts:
        note = self._outbox.note(f"{PARTS_NOTE}{mark}")
        found: Parts = orjson.loads(note)["parts"] if note is not None else {}
        return found

    def _outdated(self) -> list[str]:
        """The notes that a new one drives out: the oldest of too many, and what is older than any command."""
        now, notes = self._now(), self._outbox.notes(PARTS_NOTE)
        # Either way, because clocks jump.
        ages = sorted((abs(now - orjson.loads(text)["at"]), name) for name, text in notes.items())
        return [name for rank, (age_s, name) in enumerate(ages) if rank >= PARTS_KEPT - 1 or age_s > PARTS_KEPT_S]


def _together(changes: Sequence[Change]) -> Change:
    drafts: tuple[Draft, ...] = sum((each.drafts for each in changes), ())
    marks: tuple[str, ...] = sum((each.marks for each in changes), ())
    return Change(drafts, notes={key: each.notes[key] for each in changes for key in each.notes}, marks=marks)
