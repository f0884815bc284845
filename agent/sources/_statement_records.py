"""From what a statement did in a window to the record of it. Pure: no connection."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.record import Record, Window
from agent.redact import Redactor, fingerprint_of_queryid
from agent.sources._statement_counters import Delta, Key


@dataclass(frozen=True, slots=True)
class Text:
    """What is sent as the text of a statement, with the sha256 of the whole when it was cut; or why there is none."""

    sql: str = ""
    sha256: str | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts by statement; `otherwise`: why all others have none."""

    found: Mapping[Key, Text]
    otherwise: str

    def of(self, key: Key) -> Text:
        """The text of that statement."""
        return self.found.get(key) or Text(missing=self.otherwise)


@dataclass(frozen=True, slots=True)
class Look:
    """What belongs to one look as a whole. `databases` and `roles`: names by oid, empty when they cannot be read.

    `counting`: which server counts, and since when; a replica may have counted the same as its primary.
    """

    kind: str
    watch: str
    at: datetime
    counting: str
    databases: Mapping[int, str]
    roles: Mapping[int, str]
    marker: str
    redactor: Redactor

    def records(self, deltas: Sequence[Delta], texts: Texts) -> tuple[Record, ...]:
        """One record for each that is not our own."""
        found = [(delta, texts.of(delta.key)) for delta in deltas]
        return tuple(self._record(delta, text) for delta, text in found if self.marker not in text.sql)

    def _record(self, delta: Delta, found: Text) -> Record:
        userid, dbid, queryid, _ = delta.key
        text, fingerprint = found.sql, fingerprint_of_queryid(queryid)  # the same at every look
        if found.missing:
            text = f"<text unavailable: {found.missing}> queryid {queryid}"
        elif text:
            text, fingerprint = self.redactor(text, is_whole=found.sha256 is None)
        return Record(
            id=self._id(delta),
            source=self.kind,
            sql_text=text,
            query_time_s=delta.mean_ms / 1000,
            lock_time_s=0.0,
            rows_sent=round(delta.rows / delta.calls),
            rows_examined=0,
            db=_name(self.databases, dbid, "database"),
            user_host=_name(self.roles, userid, "role"),
            start_time=self.at,
            collected_at=self.at,
            fingerprint=fingerprint,
            text_sha256=found.sha256 if text == found.sql or found.sha256 is None else "",
            window=Window(
                start=delta.since,
                end=self.at,
                reason=delta.reason,
                queryid=queryid,
                calls=delta.calls,
                rows=delta.rows,
                total_exec_time_ms=delta.total_ms,
                max_exec_time_ms=delta.max_ms,
            ),
        )

    def _id(self, delta: Delta) -> str:
        since = delta.since.isoformat() if delta.since else ""
        parts = (self.kind, self.watch, self.counting, repr(delta.key), since, f"{delta.calls} {delta.total_ms!r}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _name(names: Mapping[int, str], oid: int, kind: str) -> str:
    # No names at all: they could not be read, which says nothing about this one.
    return names.get(oid) or (f"dropped {kind} {oid}" if names else f"{kind} {oid}")
