"""From what a statement did in a window to the record of it. Pure: no connection."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.record import Record, Window
from agent.redact import Redactor, fingerprint_of_queryid
from agent.sources._statement_counters import Delta, Key

Texts = Mapping[Key, tuple[str, str | None]]  # with the sha256 of the whole when it was cut


@dataclass(frozen=True, slots=True)
class Look:
    """What belongs to one look as a whole. `databases` and `roles`: names by oid, empty when they cannot be read."""

    kind: str
    watch: str
    at: datetime
    databases: Mapping[int, str]
    roles: Mapping[int, str]
    marker: str
    redactor: Redactor

    def records(self, deltas: Sequence[Delta], texts: Texts | str) -> tuple[Record, ...]:
        """One record for each that is not our own; `texts`: those there are, or why there are none."""
        found = []
        for delta in deltas:
            missing = texts if isinstance(texts, str) else "evicted"
            known = None if isinstance(texts, str) else texts.get(delta.key)
            text, digest = known or (f"<text unavailable: {missing}> queryid {delta.key[2]}", None)
            if self.marker not in text:
                found.append(self._record(delta, text, digest, is_known=bool(known and known[0])))
        return tuple(found)

    def _record(self, delta: Delta, text: str, digest: str | None, *, is_known: bool) -> Record:
        userid, dbid, queryid, _ = delta.key
        if is_known:
            text, fingerprint = self.redactor(text, is_whole=digest is None)
        else:  # every look finds the same queryid for it
            fingerprint = fingerprint_of_queryid(queryid)
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
            text_sha256=digest,
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
        parts = (self.kind, self.watch, repr(delta.key), since, f"{delta.calls} {delta.total_ms!r}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _name(names: Mapping[int, str], oid: int, kind: str) -> str:
    # No names at all: they could not be read, which says nothing about this one.
    return names.get(oid) or (f"dropped {kind} {oid}" if names else f"{kind} {oid}")
