"""Outboxes with a past, as a crash leaves them, and where each byte of what waits in them stands on the disk.

The places are found without the reader that is tested: SQLite itself merges a copy of the WAL, the bodies are looked
for in the result, and each page of it is looked up among the frames of the real WAL.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from storage.envelope import Change, Draft, Envelope, Gap
from storage.guard import guard
from storage.outbox import FILE_NAME, Outbox
from storage.schema import APPLICATION_ID, COLUMNS, CREATE_V1, GUARDED, UPGRADE_V2, columns_in
from tests.fakes.inside import sql_of

TOPIC, RESULTS, WATCH = "queries", "command_result", "watch"
DB, WAL, SHM, MARK = FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", "outbox.mark"
PAGE_BYTES, FRAME_BYTES, WAL_HEAD_BYTES = 4_096, 4_096 + 24, 32
COMMITS, SIZES = 12, (60, 400, 3_000, 9_000)
_PROBE_BYTES = 24

Files = Mapping[str, bytes]
Place = tuple[str, int, bytes]  # file, offset, what stands there


def body_of(rng: random.Random, topic: str, records: int, size: int) -> bytes:
    """A body that tells what it is, and that no other body has a piece of. Its sha256 holds no NUL, so that the end
    of its bytes in a page can be told from the pointer behind them."""
    while True:
        body = json.dumps({"noise": rng.randbytes(size // 2).hex(), "topic": topic, "records": records}).encode()
        if 0 not in hashlib.sha256(body).digest():
            return body


def describe(body: bytes) -> tuple[str, int] | None:
    """What a body tells about itself."""
    try:
        content = json.loads(body)
        return str(content["topic"]), int(content["records"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What stood on the disk at one moment. `places`: of every byte of key, body and sha256 of what waits, by key."""

    files: Files
    waiting: Mapping[str, Envelope]
    places: Mapping[str, tuple[Place, ...]]


@dataclass(frozen=True, slots=True)
class Play:
    """An outbox at its end and in the middle. `settled`: what was delivered or parked, by key; `split`: what was
    replaced by its halves; `read`: the keys of what each look brought; `parked`: records kept aside; `captured`:
    records in all."""

    kind: str
    now: Snapshot
    earlier: Snapshot
    settled: Mapping[str, Envelope]
    split: Mapping[str, Envelope]
    read: tuple[frozenset[str], ...]
    parked: int
    captured: Mapping[str, int]


class _Author:
    """Writes a play. The halves of a split belong to the step in which the whole was read."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.outbox = Outbox(directory, topics=(TOPIC, RESULTS), describe=describe)
        self.settled: dict[str, Envelope] = {}
        self.split_up: dict[str, Envelope] = {}
        self.read: list[set[str]] = []
        self.steps: dict[str, int] = {}

    def collect(self, number: int) -> None:
        topics = [TOPIC] * self.rng.randint(1, 3) + [RESULTS] * (number % 4 == 0)
        drafts = []
        for topic in topics:
            records = self.rng.randint(1, 500) if topic == TOPIC else 1
            drafts.append(Draft(topic, records, body_of(self.rng, topic, records, self.rng.choice(SIZES))))
        # The file is told apart from one of an earlier moment by each bookmark alone.
        self.outbox.commit(Change(tuple(drafts), bookmarks={WATCH: b"%d" % number}, notes={"mood": str(number)}))
        self.read.append(self._learn(number))

    def _learn(self, number: int) -> set[str]:
        new = {key for key in waiting(self.outbox) if key not in self.steps}
        self.steps.update(dict.fromkeys(new, number))
        return new

    def deliver(self, topic: str = TOPIC) -> None:
        if (envelope := self.outbox.head(topic)) is not None:
            self.outbox.offer(envelope)
            self.outbox.accept(envelope, delivered=envelope.records)
            self.settled[envelope.key] = envelope

    def park(self) -> None:
        if (envelope := self.outbox.head(TOPIC)) is not None:
            self.outbox.park(envelope, "bad")
            self.settled[envelope.key] = envelope

    def split(self) -> None:
        envelope = self.outbox.head(TOPIC)
        if envelope is None or envelope.records < 2:
            return
        half = envelope.records // 2
        halves = [(half, 400), (envelope.records - half, 3_000)]
        drafts = [Draft(TOPIC, records, body_of(self.rng, TOPIC, records, size)) for records, size in halves]
        self.outbox.split(envelope, *drafts)
        self.split_up[envelope.key] = envelope
        step = self.steps[envelope.key]
        self.steps.update({f"{envelope.key}.{end}": step for end in "01"})
        self.read[step] = self.read[step] - {envelope.key} | {f"{envelope.key}.0", f"{envelope.key}.1"}

    def checkpoint(self, how: str = "RESTART") -> None:
        sql_of(self.outbox).execute(f"PRAGMA wal_checkpoint({how})").fetchall()


def waiting(outbox: Outbox) -> dict[str, Envelope]:
    """All that waits, in the order of sending."""
    found: dict[str, Envelope] = {}
    for topic in (TOPIC, RESULTS):
        seen: list[int] = []
        while (envelope := outbox.head(topic, seen)) is not None:
            seen.append(envelope.seq)
            found[envelope.key] = envelope
    return found


OLD_FORMATS = {"format 1": 1, "format 2": 2}
KINDS = ("in the WAL", "in both", "in the file", "closed", *OLD_FORMATS)


def play(directory: Path, seed: int, kind: str) -> Play:
    """Collects, delivers, splits and parks in an outbox under `directory`, and takes a copy as a crash would."""
    where = directory / "played"
    author = _Author(where, seed)
    outbox = author.outbox
    earlier: Snapshot | None = None
    for number in range(COMMITS):
        author.collect(number)
        if number % 3 == 1:
            author.deliver()
        if number % 6 == 0:
            author.deliver(RESULTS)
        if number == 5:
            author.park()
            author.split()
        if number == 6:
            earlier = snapshot(where, waiting(outbox), directory)
            if kind != "in the WAL":
                author.checkpoint()
    outbox.commit(Change(gaps=(Gap(WATCH, "rotated", estimate=3),)))
    if kind in {"in the file", *OLD_FORMATS}:
        author.checkpoint("TRUNCATE")
    left = waiting(outbox)
    tallies = {topic: outbox.tally(topic) for topic in (TOPIC, RESULTS)}
    if kind in {"closed", *OLD_FORMATS}:
        outbox.close()
    if kind in OLD_FORMATS:
        _rewrite_in_format(OLD_FORMATS[kind], where / DB)
    now = snapshot(where, left, directory)
    outbox.close()
    shutil.rmtree(where)
    assert earlier is not None
    captured = {topic: tally.captured for topic, tally in tallies.items()}
    read = tuple(frozenset(keys) for keys in author.read)
    return Play(kind, now, earlier, author.settled, author.split_up, read, tallies[TOPIC].parked, captured)


def snapshot(where: Path, left: Mapping[str, Envelope], scratch: Path) -> Snapshot:
    """What stands in the directory `where` now, with `left` waiting in it; `scratch` is a place for a while."""
    files = {name: (where / name).read_bytes() for name in (DB, WAL, SHM, MARK) if (where / name).exists()}
    merged = _merged(files, scratch / "merged")
    live = _live(files, len(merged) // PAGE_BYTES)
    places = {key: tuple(_on_disk(_places(merged, envelope), live)) for key, envelope in left.items()}
    for name, at, piece in itertools.chain(*places.values()):
        assert files[name][at : at + len(piece)] == piece, "the places are not where they were thought to be"
    return Snapshot(files, left, places)


def _merged(files: Files, scratch: Path) -> bytes:
    """The database file as SQLite makes it when it takes the WAL into it."""
    scratch.mkdir()
    for name in (DB, WAL):
        (scratch / name).write_bytes(files.get(name, b""))
    with closing(sqlite3.connect(scratch / DB)) as sql:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        content = (scratch / DB).read_bytes()
    shutil.rmtree(scratch)
    return content


def _live(files: Files, pages: int) -> dict[int, tuple[str, int]]:
    """Where the version of each page stands that counts: in the last frame of the WAL's present time, or the file."""
    live = {number: (DB, (number - 1) * PAGE_BYTES) for number in range(1, pages + 1)}
    wal = files.get(WAL, b"")
    for at in range(WAL_HEAD_BYTES, len(wal), FRAME_BYTES):
        if wal[at + 8 : at + 16] != wal[16:24]:
            break
        live[struct.unpack_from(">I", wal, at)[0]] = (WAL, at + 24)
    return live


def _places(merged: bytes, envelope: Envelope) -> Iterator[tuple[int, bytes]]:
    """Where in the merged file the row stands, every copy of it: offsets and bytes, none beyond a page's end."""
    content, found = envelope.body + envelope.sha256, False
    start = merged.find(content[:_PROBE_BYTES])
    while start >= 0:
        runs = _chain(merged, start, content)
        if runs is not None:
            found = True
            key = envelope.key.encode()
            yield merged.rindex(key, start - 8 - len(key), start), key
            yield from runs
        start = merged.find(content[:_PROBE_BYTES], start + 1)
    assert found, f"{envelope.key} is nowhere"


def _chain(merged: bytes, start: int, content: bytes) -> list[tuple[int, bytes]] | None:
    """The runs of a content that begins in a row at `start` and goes on in pages of overflow; None: an old copy."""
    runs: list[tuple[int, bytes]] = []
    at, done = start, 0
    while True:
        most = min(len(content) - done, PAGE_BYTES - at % PAGE_BYTES)
        fitting = next((n for n in range(most) if merged[at + n] != content[done + n]), most)
        runs.append((at, content[done : done + fitting]))
        done += fitting
        if done == len(content):
            return runs
        # Behind the row's own share stands the number of the first page of overflow; in each of those, first of all,
        # that of the next one.
        (number,) = struct.unpack_from(">I", merged, at + fitting if len(runs) == 1 else at - 4)
        if fitting == 0 or not 0 < number <= len(merged) // PAGE_BYTES:
            return None
        at = (number - 1) * PAGE_BYTES + 4


def _on_disk(places: Iterator[tuple[int, bytes]], live: dict[int, tuple[str, int]]) -> Iterator[Place]:
    for at, piece in places:
        name, start = live[at // PAGE_BYTES + 1]
        yield name, start + at % PAGE_BYTES, piece


def _rewrite_in_format(version: int, path: Path) -> None:
    """Puts a file of an older format with the same content in its place; agents of format 1 kept no mark beside it."""
    old = path.with_name("old.sqlite3")
    with closing(sqlite3.connect(old, isolation_level=None)) as sql:
        for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL"):
            sql.execute(f"PRAGMA {pragma}").fetchall()
        sql.execute("ATTACH ? AS newer", (str(path),))
        sql.execute("BEGIN")
        for statement in (CREATE_V1, (*CREATE_V1, *UPGRADE_V2))[version - 1]:
            sql.execute(statement)
        for table in COLUMNS:
            names = ", ".join(columns_in(version, table))
            sql.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM newer.{table}")
        if version >= GUARDED:
            _guard_gaps(sql, columns_in(version, "gap"))
        sql.execute("DELETE FROM main.sqlite_sequence")
        sql.execute("INSERT INTO main.sqlite_sequence SELECT * FROM newer.sqlite_sequence")
        sql.execute(f"PRAGMA main.application_id={APPLICATION_ID}")
        sql.execute(f"PRAGMA main.user_version={version}")
        sql.execute("COMMIT")
        sql.execute("DETACH newer")
    for name in (WAL, SHM) if version >= GUARDED else (WAL, SHM, MARK):
        path.with_name(name).unlink(missing_ok=True)
    old.rename(path)


def _guard_gaps(sql: sqlite3.Connection, columns: tuple[str, ...]) -> None:
    for row in sql.execute(f"SELECT {', '.join(columns[:-1])} FROM main.gap").fetchall():
        sql.execute("UPDATE main.gap SET guard = ? WHERE id = ?", (guard("gap", *row), row[0]))
