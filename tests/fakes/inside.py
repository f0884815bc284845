"""The connection inside an outbox, for tests that put a fault there."""

from __future__ import annotations

import sqlite3

from storage.outbox import Outbox


def sql_of(outbox: Outbox) -> sqlite3.Connection:
    """The writing connection itself."""
    connection = outbox._file._connection
    assert connection is not None
    return connection
