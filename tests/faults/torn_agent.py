"""The agent with one tear in it, for the controls: same wiring, same words, but the outbox keeps a promise no more.

`python -m tests.faults.torn_agent` with TORN_AGENT set to the name of a tear. It says `tear.opened` when a kill would
hit it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from dataclasses import replace
from threading import Event

from agent import cli, wiring
from agent.logs import tell
from storage.envelope import Change, Envelope
from storage.outbox import Outbox

VARIABLE = "TORN_AGENT"
OPEN_S = 1.0  # time enough to be hit


class BookmarkFirst(Outbox):
    """The bookmark is on the disk before what was read: a kill between the two loses it."""

    def commit(self, change: Change) -> None:
        """In two transactions where there should be one."""
        super().commit(Change(bookmarks=change.bookmarks))
        _open_tear(change)
        super().commit(replace(change, bookmarks={}))


class BookmarkLast(Outbox):
    """What was read is on the disk before the bookmark: a kill between the two reads it again, into new envelopes."""

    def commit(self, change: Change) -> None:
        """In two transactions where there should be one."""
        super().commit(replace(change, bookmarks={}))
        _open_tear(change)
        super().commit(Change(bookmarks=change.bookmarks))


class DeletesBeforeTheAnswer(Outbox):
    """An envelope is gone when it is sent: every failure loses it."""

    def head(self, topic: str, skip: Collection[int] = ()) -> Envelope | None:
        """Hands it out and forgets it."""
        envelope = super().head(topic, skip)
        if envelope is not None:
            self.accept(envelope, delivered=envelope.records)
        return envelope


TEARS: dict[str, type[Outbox]] = {
    "bookmark first": BookmarkFirst,
    "bookmark last": BookmarkLast,
    "deletes before the answer": DeletesBeforeTheAnswer,
}


def _open_tear(change: Change) -> None:
    if change.drafts and change.bookmarks:
        tell(logging.INFO, "tear.opened", "Half of it is on the disk")
        Event().wait(OPEN_S)


def main() -> None:
    """The agent's own entrance, with another outbox."""
    vars(wiring)["Outbox"] = TEARS[os.environ[VARIABLE]]
    cli.main()


if __name__ == "__main__":
    main()
