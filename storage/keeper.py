"""An outbox in the hands of a person, also while an agent works on it: short transactions on a connection of their own.

Where no agent works it is opened as an agent would first: taken over from an earlier format, healed when it is damaged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from storage import envelopes, parking
from storage.closable import Closable
from storage.connection import STATEMENT_ERRORS, connect, explain, give_back, make_durable, number, or_full
from storage.errors import OutboxGone, OutboxInaccessible, OutboxOlder
from storage.findings import Describe
from storage.lock import DirectoryLock, holder
from storage.outbox import FILE_NAME, Outbox
from storage.schema import VERSION, identify

AT_ONCE = 100  # envelopes in one transaction: the agent waits for no more than that
CHUNK_PAGES = 1_024

T = TypeVar("T")


class Keeper(Closable):
    """The outbox in `directory`. `describe` and `on_loss`: as for Outbox, for one that has to be healed first.

    Raises OutboxLocked (an agent begins at this moment), OutboxOlder, OutboxForeign, OutboxNewer, OutboxInaccessible,
    OutboxFull; every method also OutboxDamaged and OutboxBroken, and has changed nothing then.
    """

    def __init__(self, directory: Path, describe: Describe, on_loss: Callable[[str], None]) -> None:
        self.path = directory / FILE_NAME
        if not self.path.is_file():
            raise OutboxInaccessible(f"{self.path} (there is no such file)")
        with ExitStack() as stack:
            if holder(directory) is None:
                stack.enter_context(DirectoryLock(directory))
                Outbox(directory, describe=describe, on_loss=on_loss).close()
            self._inode = self.path.stat().st_ino
            self._sql = stack.enter_context(closing(connect(self.path)))
            version = identify(self._sql, self.path)
            if version < VERSION:
                raise OutboxOlder(f"{self.path} has format {version}")
            self._durable()
            self._stack = stack.pop_all()

    def _durable(self) -> None:
        try:
            make_durable(self._sql)
        except STATEMENT_ERRORS as error:
            raise or_full(explain(error), self.path.parent) from error

    def retry(self, seq: int) -> int:
        """Lets what was parked under that number wait again; gives its records. Raises EnvelopeUnknown,
        PartlyDelivered."""
        return self._write(lambda sql: parking.retry(sql, seq).records)

    def retry_all(self) -> tuple[int, int]:
        """Lets all that was parked as a whole wait again; gives envelopes and records."""
        seqs = self._write(envelopes.retriable)
        records = 0
        for at in range(0, len(seqs), AT_ONCE):
            records += self._write(partial(_retry_some, seqs=seqs[at : at + AT_ONCE]))
        return len(seqs), records

    def discard(self, seq: int) -> int:
        """Gives an envelope up, waiting or parked; gives its records. Raises EnvelopeUnknown."""
        return self._write(lambda sql: parking.discard(sql, seq))

    def vacuum(self) -> int:
        """Gives all unused pages back to the file system, in chunks; gives the bytes."""
        before = number(self._sql, "page_count")
        while self._give_chunk_back():
            pass
        return max(0, before - number(self._sql, "page_count")) * number(self._sql, "page_size")

    def _give_chunk_back(self) -> bool:
        try:
            unused = number(self._sql, "freelist_count")
            if unused:
                give_back(self._sql, CHUNK_PAGES)
            left = number(self._sql, "freelist_count")
        except STATEMENT_ERRORS as error:
            raise or_full(explain(error), self.path.parent) from error
        return bool(left and left < unused)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._sql)
                self._demand_there()
                self._sql.execute("COMMIT")
            except BaseException:
                with suppress(*STATEMENT_ERRORS):
                    self._sql.execute("ROLLBACK")
                raise
        except STATEMENT_ERRORS as error:
            raise or_full(explain(error), self.path.parent) from error
        self._demand_there()
        return result

    def _demand_there(self) -> None:
        """An agent that rebuilds it puts another file in its place."""
        try:
            found = self.path.stat().st_ino
        except OSError:
            found = None
        if found != self._inode:
            raise OutboxGone(str(self.path))

    def close(self) -> None:
        """Ends the connection; calling it twice is fine."""
        self._stack.close()


def _retry_some(sql: sqlite3.Connection, seqs: list[int]) -> int:
    return sum(parking.retry(sql, seq).records for seq in seqs)
