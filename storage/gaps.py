"""The gaps of an outbox: each known loss is a row, and rows become fewer when they are too many, sums never.

Not the rows that touch in time are joined (what touches is for a source to know), but the oldest of the kind that there
is most of. So a log that is purged at every look cannot fill the disk, and pushes out nothing that is rare.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from storage.envelope import Gap, Losses, LossSum
from storage.errors import OutboxDamaged
from storage.guard import guard
from storage.schema import COLUMNS, GUARDED, TIMES, VERSION, columns_in

KEPT = 1_000
NEWEST = 5

_LAST = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'gap'"
_ROW = ", ".join(COLUMNS["gap"])
_PUT = f"INSERT OR REPLACE INTO gap ({_ROW}) VALUES ({', '.join('?' * len(COLUMNS['gap']))})"
_READ = "SELECT source, reason, since, until, estimate, detail, {times}, created_at FROM gap"
_SUMS = """
    SELECT source, reason, sum({times}), coalesce(sum(estimate), 0), sum(({times}) * (estimate IS NULL))
    FROM gap GROUP BY source, reason ORDER BY 3 DESC, 1, 2
"""
_COUNT = "SELECT count(*) FROM gap"
_MOST = "SELECT source, reason, estimate IS NULL, count(*) FROM gap GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT 1"
_OF_A_KIND = "FROM gap WHERE source = ? AND reason = ? AND (estimate IS NULL) = ?"
_OLDEST = f"SELECT {_ROW} {_OF_A_KIND} ORDER BY id LIMIT ?"
_DELETE = f"DELETE {_OF_A_KIND} AND id <= ?"


def enter(sql: sqlite3.Connection, gap: Gap, at: float) -> None:
    """Writes a known loss down; `at`: Unix seconds. Raises OutboxDamaged."""
    row = (so_far(sql) + 1, gap.source, gap.reason, gap.since, gap.until, gap.estimate, gap.detail)
    _put(sql, (*row, float(at), gap.times))
    fold(sql)


def fold(sql: sqlite3.Connection) -> None:
    """Leaves KEPT rows at most, as far as there are several of a kind: same source and reason, number known or not.

    The row that takes the place of others has the number of the first of them, times and estimates of all, and the
    words of the last. Raises OutboxDamaged.
    """
    while (excess := int(sql.execute(_COUNT).fetchone()[0]) - KEPT) > 0:
        *kind, rows = sql.execute(_MOST).fetchone()
        if rows == 1:
            return
        _join(sql, kind, min(excess + 1, rows))


def _join(sql: sqlite3.Connection, kind: list[Any], count: int) -> None:
    first: tuple[Any, ...] = ()
    last: tuple[Any, ...] = ()
    estimate = times = 0
    for row in sql.execute(_OLDEST, (*kind, count)):  # to its end, and none is kept: there may be any number, once
        first, last = first or row, _demand(row)
        estimate += row[5] or 0
        times += row[8]
    sql.execute(_DELETE, (*kind, last[0]))
    _put(sql, (*first[:4], last[4], None if last[5] is None else estimate, *last[6:8], times))


def all_of(sql: sqlite3.Connection) -> list[Gap]:
    """Every row, oldest first."""
    return _gaps(sql, VERSION, "ORDER BY id")


def losses(sql: sqlite3.Connection, version: int = VERSION, newest: int = NEWEST) -> Losses:
    """The newest gaps and the sums of all; costs as much as there are rows, KEPT at most."""
    sums = sql.execute(_SUMS.format(times=_times(version))).fetchall()
    return Losses(
        newest=tuple(_gaps(sql, version, f"ORDER BY id DESC LIMIT {newest}")),
        sums=tuple(LossSum(*row) for row in sums),
    )


def demand_intact(sql: sqlite3.Connection) -> None:
    """Raises OutboxDamaged when a row is not what was written: what is told of losses comes from these rows."""
    for row in sql.execute(f"SELECT {_ROW} FROM gap"):
        _demand(row)


def damaged(sql: sqlite3.Connection, version: int = VERSION) -> int:
    """How many rows are not what was written; in files of format 1 nobody can know."""
    if version < GUARDED:
        return 0
    rows = sql.execute(f"SELECT {', '.join(columns_in(version, 'gap'))} FROM gap")
    return sum(row[-1] != guard("gap", *row[:-1]) for row in rows)


def so_far(sql: sqlite3.Connection) -> int:
    """How many gaps were ever entered."""
    ((last,),) = sql.execute(_LAST).fetchall()
    return int(last)


def _gaps(sql: sqlite3.Connection, version: int, order: str) -> list[Gap]:
    return [Gap(*row) for row in sql.execute(f"{_READ.format(times=_times(version))} {order}").fetchall()]


def _times(version: int) -> str:
    return "times" if version >= TIMES else "1"


def _put(sql: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    sql.execute(_PUT, (*row, guard("gap", *row)))


def _demand(row: tuple[Any, ...]) -> tuple[Any, ...]:
    if row[-1] != guard("gap", *row[:-1]):
        raise OutboxDamaged(f"gap {row[0]} is not what was written")
    return row
