"""A look into an outbox beside the agent that writes it: read-only, on a connection of its own."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from storage import gaps, notes
from storage.books import fields_of, tally_of
from storage.closable import Closable
from storage.connection import STATEMENT_ERRORS, connect_readonly, explain
from storage.envelope import Losses, Tally
from storage.errors import OutboxInaccessible
from storage.outbox_file import FILE_NAME
from storage.schema import GUARDED, VERSION, identify


class OutboxView(Closable):
    """What stands in the outbox of `directory` now. An outbox that does not exist yet reads as an empty one.

    Raises OutboxForeign, OutboxNewer, OutboxInaccessible, or OutboxBroken.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        self._version = VERSION
        try:
            if not path.exists():
                return
        except OSError as error:
            raise OutboxInaccessible(f"{directory} ({error.strerror})") from None
        connection = connect_readonly(path)
        try:
            version = identify(connection, path)
        except BaseException:
            connection.close()
            raise
        if version == 0:
            connection.close()
        else:
            self._connection = connection
            self._version = version

    def bookmark(self, name: str) -> bytes | None:
        """The bookmark of that name; None when there is none yet."""
        row = self._row("SELECT value FROM bookmark WHERE name = ?", name)
        return bytes(row[0]) if row else None

    def tally(self, topic: str) -> Tally:
        """The books of one topic."""
        fields = fields_of(self._version)
        row = self._row(f"SELECT {', '.join(fields)} FROM tally WHERE topic = ?", topic)
        if row is None or self._connection is None:
            return Tally()
        return tally_of(self._connection, topic, fields, row)

    def losses(self) -> Losses:
        """What is known to be lost: the newest gaps and the sums of all."""
        if self._connection is None:
            return Losses()
        try:
            return gaps.losses(self._connection, self._version)
        except STATEMENT_ERRORS as error:
            raise explain(error) from error

    def notes(self, prefix: str) -> dict[str, str]:
        """The notes whose names begin like that, of format 2 or later."""
        if self._connection is None or self._version < GUARDED:
            return {}
        try:
            return notes.beginning_with(self._connection, prefix)
        except STATEMENT_ERRORS as error:
            raise explain(error) from error

    def _row(self, sql: str, value: str) -> tuple[Any, ...] | None:
        if self._connection is None:
            return None
        try:
            rows = self._connection.execute(sql, (value,)).fetchall()
        except STATEMENT_ERRORS as error:
            raise explain(error) from error
        return rows[0] if rows else None

    def close(self) -> None:
        """Ends the connection; calling it twice is fine."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
