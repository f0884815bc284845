"""Where the development backend keeps what it accepted. Knows batches, numbers, keys; no HTTP.

One batch is one row: its records, the key it came with and the answer that was given are saved together, so a
restart between them is impossible. Rows are only added or, for small things, replaced whole: a post costs the
same with a million records behind it as with none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, cast

import orjson
from sqlitedict import SqliteDict

Json = dict[str, Any]


class KeyReusedError(Exception):
    """The idempotency key was stored with another body."""


class KeyBusyError(Exception):
    """The first request with this idempotency key has not been answered yet."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """An idempotency key, whose it is, and the SHA-256 (hex) of the body that came with it."""

    collector_id: int
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What is stored. `duplicates`: records whose `id` had been stored before."""

    records: int
    distinct_ids: int
    duplicates: int
    keys: int


def _open_shelf(path: Path | None) -> MutableMapping[str, bytes]:
    if path is None:
        return {}
    # encode/decode: the default is pickle, which runs code from a tampered file; our rows are JSON already.
    shelf = SqliteDict(str(path), tablename="backend", autocommit=True, journal_mode="WAL", encode=bytes, decode=bytes)
    return cast("MutableMapping[str, bytes]", shelf)


class Store:
    """Accepted records, numbered from 1, and the keys they came with. Safe for many threads.

    `path`: a SQLite file, created when it is missing; None keeps everything in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._shelf = _open_shelf(path)
        self._lock = Lock()
        self._firsts: list[int] = []  # number of the first record of each batch
        self._ids: set[str] = set()
        self._records = 0
        self._duplicates = 0
        self._answers: dict[tuple[int, str], tuple[str, bytes]] = {}
        self._busy: set[tuple[int, str]] = set()
        for batch in self.rows("batch"):
            self._count(batch)

    def append(
        self,
        collector_id: int,
        records: Sequence[Json],
        *,
        received_at: datetime,
        answer: bytes,
        keyed: Keyed | None = None,
    ) -> None:
        """Save one batch with its answer in one row. An empty batch is saved too when it came with a key."""
        if not records and keyed is None:
            return
        batch: Json = {
            "collector_id": collector_id,
            "received_at": received_at.isoformat(),
            "records": list(records),
            "key": keyed.key if keyed else None,
            "digest": keyed.digest if keyed else None,
            "answer": answer.decode(),
        }
        row = orjson.dumps(batch)
        with self._lock:
            self._shelf[f"batch/{len(self._firsts) + 1}"] = row
            self._count(batch)

    def _count(self, batch: Json) -> None:
        self._firsts.append(self._records + 1)
        for record in batch["records"]:
            self._records += 1
            identity = record.get("id")
            if identity is None:
                continue
            before = len(self._ids)
            self._ids.add(str(identity))
            self._duplicates += len(self._ids) == before
        if batch["key"] is not None:
            answer = (batch["digest"], batch["answer"].encode())
            self._answers[batch["collector_id"], batch["key"]] = answer

    @contextmanager
    def claim(self, keyed: Keyed | None) -> Iterator[bytes | None]:
        """Hold a key while its request is worked on; gives the stored answer when there is one.

        Raises KeyReusedError or KeyBusyError. Without a key nothing is held.
        """
        if keyed is None:
            yield None
            return
        name = (keyed.collector_id, keyed.key)
        with self._lock:
            digest, answer = self._answers.get(name, (keyed.digest, None))
            if digest != keyed.digest:
                raise KeyReusedError
            if answer is None and name in self._busy:
                raise KeyBusyError
            holds = answer is None
            if holds:
                self._busy.add(name)
        try:
            yield answer
        finally:
            if holds:
                with self._lock:
                    self._busy.discard(name)

    def page(self, after: int = 0, limit: int = 1000) -> list[Json]:
        """Records with a number above `after`, oldest first: {number, collector_id, received_at, record}."""
        found: list[Json] = []
        with self._lock:
            index = max(bisect_right(self._firsts, after + 1) - 1, 0)
            while index < len(self._firsts) and len(found) < limit:
                batch = orjson.loads(self._shelf[f"batch/{index + 1}"])
                for number, record in enumerate(batch["records"], self._firsts[index]):
                    if number > after and len(found) < limit:
                        origin = {name: batch[name] for name in ("collector_id", "received_at")}
                        found.append({"number": number, **origin, "record": record})
                index += 1
        return found

    def records(self) -> list[Json]:
        """Every stored record as it was sent, in the order of storing. For tests: reads everything."""
        return [entry["record"] for entry in self.page(limit=self.summary().records)]

    def keys(self) -> list[Json]:
        """The stored idempotency keys, oldest first: {collector_id, key, digest}."""
        with self._lock:
            stored = list(self._answers.items())
        return [{"collector_id": owner, "key": key, "digest": digest} for (owner, key), (digest, _) in stored]

    def summary(self) -> Summary:
        """Counters kept while storing; costs nothing."""
        with self._lock:
            return Summary(self._records, len(self._ids), self._duplicates, len(self._answers))

    def put(self, kind: str, number: int, value: Json) -> None:
        """Save or replace one small thing, as ("collector", 1). Numbers start at 1, without holes."""
        row = orjson.dumps(value)
        with self._lock:
            self._shelf[f"{kind}/{number}"] = row

    def rows(self, kind: str) -> Iterator[Json]:
        """The things of one kind by number. One read for each: a walk over the shelf would read all of it."""
        number = 1
        while (row := self._shelf.get(f"{kind}/{number}")) is not None:
            yield orjson.loads(row)
            number += 1

    def close(self) -> None:
        """Close the file, when there is one; what was appended is in it already."""
        if isinstance(self._shelf, SqliteDict):
            self._shelf.close()
