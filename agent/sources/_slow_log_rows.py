"""Turns raw rows of mysql.slow_log into records. Pure and quick: it runs once for each slow query."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from agent.record import Record
from agent.redact import Redactor
from agent.sources._mysql_session import Row
from agent.sources._slow_log_place import identity
from agent.sources._slow_log_times import Window, Zone, starts

KIND = "mysql_slow_log"
_LONGEST_S = 839 * 3_600.0  # 838:59:59.999999 is the longest TIME
# How our own reads begin, which MySQL logs where log_queries_not_using_indexes is on: they are nobody's slow queries.
OURS = b"SELECT /* dbpower-agent */"


@dataclass(frozen=True, slots=True)
class Mapper:
    """Maps the rows of one generation of the table (`generation`: identity of its row 0).

    `window`, `zone`: when they were written and how the server stamps. What started before `cutoff` (Unix seconds) is
    left out before position `cutoff_until`; our own reads always are.
    """

    watch: str
    generation: str
    collected_at: datetime
    window: Window
    zone: Zone
    max_text_bytes: int
    redactor: Redactor
    cutoff: float = 0.0
    cutoff_until: int = 0

    def records(self, rows: list[Row], position: int) -> tuple[Record, ...]:
        """One record for each row that is wanted; the first row stands at `position`."""
        salt = f"{KIND}\0{self.watch}\0{self.generation}\0".encode()
        times = starts([(row[0], seconds(row[2])) for row in rows], self.window, self.zone)
        wanted = []
        for number, (row, (start, confidence)) in enumerate(zip(rows, times, strict=True), position):
            is_old = number < self.cutoff_until and start.timestamp() < self.cutoff
            if not is_old and not (row[-2] or b"").startswith(OURS):
                wanted.append(self._record(row, salt, number, start, confidence))
        return tuple(wanted)

    def _record(self, row: Row, salt: bytes, position: int, start: datetime, confidence: str) -> Record:
        _stamp, user_host, query_time, lock_time, rows_sent, rows_examined, db, _thread, text, whole = row
        logged = self._text(text or b"", cut=whole is not None)
        sql_text, fingerprint = self.redactor(logged, is_whole=whole is None)
        digest = whole.split(b" ", 1)[1].decode("ascii") if whole is not None else None
        return Record(
            # What was read, never what was made of it: the same row has the same id whenever it is read.
            id=hashlib.sha256(b"%b%d\0%b" % (salt, position, identity(row))).hexdigest(),
            source=KIND,
            sql_text=sql_text,
            query_time_s=seconds(query_time),
            lock_time_s=seconds(lock_time),
            rows_sent=int(rows_sent or 0),
            rows_examined=int(rows_examined or 0),
            db=(db or b"").decode("utf-8", "replace"),
            user_host=(user_host or b"").decode("utf-8", "replace"),
            start_time=start,
            collected_at=self.collected_at,
            fingerprint=fingerprint,
            text_sha256=digest if sql_text == logged or digest is None else "",
            start_time_confidence=confidence,
        )

    def _text(self, text: bytes, *, cut: bool) -> str:
        if cut:
            text = cut_at_character(text, self.max_text_bytes)
        return text.decode("utf-8", "replace")


def seconds(time: bytes | None) -> float:
    """A TIME of the server, `HHH:MM:SS.ffffff`, in seconds. Raises ValueError when it is none."""
    if not time:
        return 0.0
    hours, minutes, rest = time.split(b":")
    found = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    if not abs(found) <= _LONGEST_S:
        raise ValueError("no TIME is that long")
    return found


def cut_at_character(text: bytes, limit: int) -> bytes:
    """At most `limit` bytes of UTF-8 text, not ending inside a character."""
    if len(text) <= limit:
        return text
    end = limit
    while end > limit - 4 and end > 0 and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]
