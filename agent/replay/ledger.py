"""What became of the envelopes that a replay has offered, by their keys, in a file of its own. Durable, one writer.

What is lost here is no record: an envelope of which the ledger does not know is offered again, with its key.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
from sqlitedict import SqliteDict

from agent.errors import LedgerUnusable
from agent.worker import Worker
from storage.connection import STATEMENT_ERRORS, WAL_AUTOCHECKPOINT_PAGES, Connection, connect, connect_readonly
from storage.directory import make_private

PATIENCE_S = 30.0  # sqlitedict works on a thread of its own, and when that dies its caller would wait for ever
OFFERED, ACCEPTED, PARKED, SPLIT = "offered", "accepted", "parked", "split"
_TABLE, _APPLICATION_ID = "envelopes", 0x44425052  # "DBPR"
_VARIABLES = 500  # in one statement; SQLite before 3.32 takes 999
ABOUT = "about"  # the key of the row that says whose ledger it is


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one envelope. `delivered`: records that were taken; `doubtful`: nobody knows of an earlier offer;
    `halves`: records in each, of one that was split; `reason`: why it was kept aside."""

    state: str
    delivered: int = 0
    doubtful: bool = False
    halves: tuple[int, int] | None = None
    reason: str = ""


class Ledger:
    """The ledger at `path`, made when it is missing. `backend`: who took what it tells; each needs its own.

    Raises LedgerUnusable, from every method.
    """

    def __init__(self, path: Path, backend: str) -> None:
        self.path = path
        self._lock = _locked(path.with_name(f"{path.name}.lock"))
        try:
            self._shelf = cast("SqliteDict", self._within(lambda: _opened(path)))
            # Held as a whole: nobody else writes it, and it has a row for each envelope only.
            self._rows = cast("dict[str, dict[str, Any]]", self._within(lambda: dict(self._shelf)))
            self._demand_for(backend)
        except BaseException:
            os.close(self._lock)
            raise

    def _demand_for(self, backend: str) -> None:
        known = self._rows.get(ABOUT)
        if known is None:
            self._write({ABOUT: {"backend": backend}})
        elif known.get("backend") != backend:
            raise LedgerUnusable(f"{self.path} tells what {known.get('backend')} has taken, not {backend}")

    def of(self, key: str) -> Entry | None:
        """What is known of that envelope; None when it was never offered."""
        row = self._rows.get(key)
        return None if row is None else _entry(row)

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Writes them down; on the disk when this returns."""
        self._write({key: _row(entry) for key, entry in entries.items()})

    def forget(self, keys: Collection[str]) -> None:
        """As if these envelopes had never been offered."""
        known = [key for key in keys if key in self._rows]
        for at in range(0, len(known), _VARIABLES):
            some = known[at : at + _VARIABLES]
            self._execute(f"DELETE FROM {_TABLE} WHERE key IN ({', '.join('?' * len(some))})", some)
        for key in known:
            del self._rows[key]

    def close(self) -> None:
        """Closes it; what was written is on the disk already."""
        with suppress(LedgerUnusable):
            self._within(self._shelf.close)
        os.close(self._lock)

    def _write(self, rows: dict[str, dict[str, Any]]) -> None:
        values = [value for key, row in rows.items() for value in (key, orjson.dumps(row))]
        self._execute(f"REPLACE INTO {_TABLE} (key, value) VALUES {', '.join(['(?, ?)'] * len(rows))}", values)
        self._rows.update(rows)

    def _execute(self, statement: str, values: Sequence[object]) -> None:
        """One statement, so one commit. As a transaction its failure would end sqlitedict's thread."""

        def do() -> None:
            self._shelf.conn.execute(statement, tuple(values))
            self._shelf.conn.commit()  # waits until it is done

        self._within(do)

    def _within(self, work: Callable[[], object]) -> object:
        found: list[object] = []
        failed: list[Exception] = []

        def do() -> None:
            try:
                found.append(work())
            except (*STATEMENT_ERRORS, OSError, RuntimeError, ValueError) as error:  # SQLite's and sqlitedict's
                failed.append(error)

        worker = Worker("ledger", do, lambda _: None)
        worker.start()
        if not worker.join(PATIENCE_S):
            raise LedgerUnusable(f"{self.path} (no answer within {PATIENCE_S:g} s)")
        if failed:
            raise LedgerUnusable(f"{self.path} ({failed[0]})") from failed[0]
        return found[0]


def known(path: Path) -> dict[str, Entry]:
    """What a ledger tells, without being touched; nothing when there is none. Raises LedgerUnusable."""
    if not path.exists():
        return {}
    try:
        with closing(_ours(path)) as sql:
            rows = sql.execute(f"SELECT key, value FROM {_TABLE} WHERE key <> ?", (ABOUT,)).fetchall()
        return {key: _entry(orjson.loads(value)) for key, value in rows}
    except (*STATEMENT_ERRORS, OSError, ValueError, KeyError) as error:
        raise LedgerUnusable(f"{path} ({error})") from error


def _ours(path: Path) -> Connection:
    """The ledger, for looking only. Raises OSError when it is another program's file."""
    sql = connect_readonly(path)
    try:
        ((application,),) = sql.execute("PRAGMA application_id").fetchall()
    except STATEMENT_ERRORS as error:
        sql.close()
        raise OSError(str(error)) from error
    if application != _APPLICATION_ID:
        sql.close()
        raise OSError("it is no ledger of a replay")
    return sql


def _entry(row: Mapping[str, Any]) -> Entry:
    halves = row.get("halves")
    return Entry(
        state=row["state"],
        delivered=row.get("delivered", 0),
        doubtful=row.get("doubtful", False),
        halves=None if halves is None else (halves[0], halves[1]),
        reason=row.get("reason", ""),
    )


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"state": entry.state}
    row |= {"delivered": entry.delivered} if entry.delivered else {}
    row |= {"doubtful": True} if entry.doubtful else {}
    row |= {"halves": list(entry.halves)} if entry.halves else {}
    return row | ({"reason": entry.reason} if entry.reason else {})


def _opened(path: Path) -> SqliteDict:
    if path.exists() and path.stat().st_size:
        _ours(path).close()
    make_private(path)
    # Its thread would die of what is no database, or of a full disk, and its caller wait.
    with closing(connect(path)) as first:
        first.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        first.execute("PRAGMA journal_mode=WAL").fetchall()
        first.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (key TEXT PRIMARY KEY, value BLOB)")
    options: dict[str, Any] = {
        "tablename": _TABLE,
        "autocommit": True,
        "journal_mode": "WAL",
        "outer_stack": False,
    }
    shelf = SqliteDict(str(path), encode=orjson.dumps, decode=orjson.loads, **options)
    # It sets OFF for every file; what the backend has taken must not be forgotten by a power cut.
    shelf.conn.execute("PRAGMA synchronous=FULL")
    shelf.conn.execute(f"PRAGMA wal_autocheckpoint={WAL_AUTOCHECKPOINT_PAGES}")
    if shelf.conn.select_one("PRAGMA synchronous") != (2,):
        raise OSError("synchronous=FULL was not taken")
    return shelf


def _locked(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerUnusable(f"{path} ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LedgerUnusable(f"another replay works on it ({path})") from error
    return descriptor
