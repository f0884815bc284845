"""Turns raw rows of mysql.slow_log into records. Pure and quick: it runs once for each slow query."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.record import Record
from agent.redact import Redactor
from agent.sources._mysql_session import Row
from agent.sources._slow_log_place import identity

KIND = "mysql_slow_log"


@dataclass(frozen=True, slots=True)
class Mapper:
    """Maps the rows of one generation of the table (`generation`: identity of its row 0).

    `utc_offset_s`: the server's time zone; `stamps_start`: start_time is the start (MariaDB), not the end (MySQL).
    """

    watch: str
    generation: str
    collected_at: datetime
    utc_offset_s: int
    stamps_start: bool
    max_text_bytes: int
    redactor: Redactor

    def records(self, rows: list[Row], position: int) -> tuple[Record, ...]:
        """One record for each row; the first row stands at `position`."""
        salt = f"{KIND}\0{self.watch}\0{self.generation}\0".encode()
        return tuple(self._record(row, salt, number) for number, row in enumerate(rows, position))

    def _record(self, row: Row, salt: bytes, position: int) -> Record:
        start_time, user_host, query_time, lock_time, rows_sent, rows_examined, db, _thread, text, whole = row
        query_time_s = seconds(query_time)
        sql_text, fingerprint = self.redactor(self._text(text or b"", cut=whole is not None), is_whole=whole is None)
        return Record(
            id=hashlib.sha256(b"%b%d\0%b" % (salt, position, identity(row))).hexdigest(),
            source=KIND,
            sql_text=sql_text,
            query_time_s=query_time_s,
            lock_time_s=seconds(lock_time),
            rows_sent=int(rows_sent or 0),
            rows_examined=int(rows_examined or 0),
            db=(db or b"").decode("utf-8", "replace"),
            user_host=(user_host or b"").decode("utf-8", "replace"),
            start_time=self._start(start_time, query_time_s),
            collected_at=self.collected_at,
            fingerprint=fingerprint,
            text_sha256=whole.split(b" ", 1)[1].decode("ascii") if whole is not None else None,
        )

    def _start(self, stamp: bytes | None, query_time_s: float) -> datetime:
        try:
            stamped = datetime.fromisoformat((stamp or b"").decode("ascii"))
        except ValueError:  # '0000-00-00 ...' of an altered table
            return self.collected_at
        shift_s = self.utc_offset_s if self.stamps_start else self.utc_offset_s + query_time_s
        return (stamped - timedelta(seconds=shift_s)).replace(tzinfo=UTC)

    def _text(self, text: bytes, *, cut: bool) -> str:
        if cut:
            text = cut_at_character(text, self.max_text_bytes)
        return text.decode("utf-8", "replace")


def seconds(time: bytes | None) -> float:
    """A TIME of the server, `HHH:MM:SS.ffffff`, in seconds."""
    if not time:
        return 0.0
    hours, minutes, rest = time.split(b":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def cut_at_character(text: bytes, limit: int) -> bytes:
    """At most `limit` bytes of UTF-8 text, not ending inside a character."""
    if len(text) <= limit:
        return text
    end = limit
    while end > limit - 4 and end > 0 and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]
