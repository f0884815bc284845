"""Proves from the file alone that nothing is missing: the books of each topic against what is really there.

Read-only and in one snapshot, so it may be done beside a running agent.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from storage import books, gaps
from storage.connection import STATEMENT_ERRORS, connect_readonly, explain
from storage.envelope import Losses
from storage.errors import OutboxGone, OutboxInaccessible
from storage.guard import guard
from storage.high_water import FILE_NAME as MARK_NAME
from storage.high_water import HighWaterFile
from storage.outbox_file import FILE_NAME
from storage.schema import COLUMNS, GUARDED, identify

_TOPICS = """
    SELECT topic FROM tally UNION SELECT topic FROM envelope UNION SELECT topic FROM parked ORDER BY topic
"""


@dataclass(frozen=True, slots=True)
class Account:
    """One topic, in records: what its books say, and what was counted in the file."""

    topic: str
    captured: int
    delivered: int
    pending: int
    parked: int
    discarded: int
    lost: int
    possible_duplicates: int
    counted_pending: int
    counted_parked: int
    damaged: int
    is_intact: bool

    @property
    def complaints(self) -> tuple[str, ...]:
        """What does not fit; nothing when it balances."""
        settled = self.delivered + self.pending + self.parked + self.discarded + self.lost
        found = []
        if self.captured != settled:
            found.append(f"captured {self.captured:,}, but {settled:,} are accounted for")
        if self.pending != self.counted_pending:
            found.append(f"pending {self.pending:,}, but {self.counted_pending:,} are in the file")
        if self.parked != self.counted_parked:
            found.append(f"parked {self.parked:,}, but {self.counted_parked:,} are in the file")
        if self.damaged:
            found.append(f"{self.damaged:,} bodies are not what was written")
        if not self.is_intact:
            found.append("the books are not what was written")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Audit:
    """The whole file. `losses`: its newest gaps, KEPT at most, and the sums of all; `damaged_gaps`: how many of them
    are not what was written."""

    accounts: tuple[Account, ...] = ()
    losses: Losses = field(default_factory=Losses)
    damaged_gaps: int = 0

    @property
    def unnamed(self) -> int:
        """Records that the books call lost and no gap of the outbox names."""
        return books.unnamed(sum(account.lost for account in self.accounts), self.losses.sums)

    @property
    def balances(self) -> bool:
        """Whether everything captured is accounted for."""
        return self.unnamed == self.damaged_gaps == 0 and not any(account.complaints for account in self.accounts)


def audit(directory: Path) -> Audit:
    """Reads the outbox in `directory`; one that does not exist yet has nothing to account for.

    Raises OutboxGone when there was one and it is missing, OutboxForeign, OutboxNewer, OutboxInaccessible,
    OutboxDamaged, OutboxBroken.
    """
    path = directory / FILE_NAME
    try:
        if not directory.is_dir():
            raise OutboxInaccessible(f"{directory} is no directory")
        if not path.exists():
            if HighWaterFile(directory).found is not None:
                raise OutboxGone(f"{path}, although {MARK_NAME} tells of it")
            return Audit()
        with closing(connect_readonly(path)) as sql:
            version = identify(sql, path)
            if version == 0:
                return Audit()
            sql.execute("BEGIN")  # one snapshot, whatever a running agent does meanwhile
            topics = [row[0] for row in sql.execute(_TOPICS).fetchall()]
            accounts = tuple(_account(sql, topic, version) for topic in topics)
            return Audit(accounts, gaps.losses(sql, version, newest=gaps.KEPT), gaps.damaged(sql, version))
    except STATEMENT_ERRORS as error:
        raise explain(error) from error
    except OSError as error:  # another user's directory
        raise OutboxInaccessible(f"{directory} ({error.strerror})") from error


def _account(sql: sqlite3.Connection, topic: str, version: int) -> Account:
    fields = books.fields_of(version)
    row = sql.execute(f"SELECT {', '.join(fields)} FROM tally WHERE topic = ?", (topic,)).fetchone()
    numbers = dict(zip(fields, row or (0,) * len(fields), strict=True))
    names = ("captured", "delivered", "pending", "parked", "discarded", "lost")
    return Account(
        topic,
        **{name: numbers[name] for name in names},
        possible_duplicates=numbers.get("possible_duplicates", 0),
        counted_pending=books.waiting(sql, topic)[0],
        counted_parked=books.kept_aside(sql, topic),
        damaged=_damaged(sql, topic),
        is_intact=version < GUARDED or _is_intact(sql, topic),
    )


def _damaged(sql: sqlite3.Connection, topic: str) -> int:
    damaged = 0
    for table in ("envelope", "parked"):
        cursor = sql.execute(f"SELECT body, sha256 FROM {table} WHERE topic = ?", (topic,))
        damaged += sum(hashlib.sha256(body).digest() != digest for body, digest in cursor)
    return damaged


def _is_intact(sql: sqlite3.Connection, topic: str) -> bool:
    row = sql.execute(f"SELECT {', '.join(COLUMNS['tally'])} FROM tally WHERE topic = ?", (topic,)).fetchone()
    return row is not None and row[-1] == guard("tally", *row[:-1])
