"""The program whose system calls are recorded: the life of an outbox, each call acknowledged after it returned.

    python -m tests.faults.recorded_program PART DIRECTORY ACKS LOOKS [SYNCHRONOUS]

It appends an acknowledgement to the file ACKS after each call and what a look then shows to the file LOOKS, a line of
JSON each. Parts follow each other as processes do: `youth` and `age` end without a goodbye. SYNCHRONOUS other than FULL
weakens what the outbox has asked SQLite for, for controls.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from storage.envelope import Draft, Envelope, Gap
from storage.errors import OutboxError
from tests.faults.looks import BOOKMARK, MARKS, NOTE, TOPICS, Look, body, change, halves, numbers, opened
from tests.faults.recorder import KILL, Recorder

FULL = "FULL"
BIG, BIG_BATCHES = 120_000, 10  # together more than the MiB from which on space is given back
HUGE = 1_200_000  # a checkpoint follows at once
CHECKPOINT_SYNCS = (2, 3)  # behind that of the commit: of the WAL, of the file
CUT_SHORT = 7  # records of the commit that is written and not synced


class Life:
    """An outbox and the files on which its calls are acknowledged."""

    def __init__(self, directory: Path, acks: Path, looks: Path, synchronous: str = FULL) -> None:
        self._directory = directory
        self._acks = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._looks = os.open(looks, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._synchronous = synchronous

    def tell(self, **promise: Any) -> None:
        """Acknowledges the last call: `promise` says what became of which records."""
        os.write(self._acks, f"{json.dumps(promise)}\n".encode())
        os.write(self._looks, f"{json.dumps(Look.at(self.outbox).as_json)}\n".encode())

    def open(self, *, surprises: int = 0) -> None:
        """`surprises`: so many records are there that were never acknowledged."""
        self.outbox = opened(self._directory)
        if self._synchronous != FULL:
            for connection in [each for each in gc.get_objects() if isinstance(each, sqlite3.Connection)]:
                connection.execute(f"PRAGMA synchronous={self._synchronous}")
        self.tell(captured=list(range(self.next - surprises, self.next)))

    def close(self) -> None:
        """What a look shows afterwards is what the next one shows who opens it."""
        self.outbox.close()
        os.write(self._acks, b"{}\n")
        self.outbox = opened(self._directory)
        os.write(self._looks, f"{json.dumps(Look.at(self.outbox).as_json)}\n".encode())
        self.outbox.close()

    @property
    def next(self) -> int:
        return int(self.outbox.bookmark(BOOKMARK) or b"0")

    def commit(self, *records: int, **more: Any) -> None:
        first = self.next
        self.outbox.commit(change(first, *records, **more))
        self.tell(captured=list(range(first, first + sum(records))))

    def commit_in_vain(self, *records: int, **more: Any) -> None:
        """The disk fails when it shall be synced; nothing is acknowledged."""
        recorder = Recorder()
        recorder.arm(1, action=errno.EIO, operation="sync")
        try:
            self.outbox.commit(change(self.next, *records, **more))
        except OutboxError:
            assert recorder.disarm() == 1
        else:
            raise AssertionError("a commit that was not synced must not return")

    def commit_unchecked(self, failing: int, *records: int, **more: Any) -> None:
        """The disk fails at a sync behind that of the commit itself, which is acknowledged."""
        recorder = Recorder()
        recorder.arm(failing, action=errno.EIO, operation="sync")
        try:
            self.commit(*records, **more)
        finally:
            assert recorder.disarm() == 1, f"there was no sync number {failing}: {recorder.trace}"

    def head(self, topic: str = "queries") -> Envelope:
        envelope = self.outbox.head(topic)
        assert envelope is not None
        return envelope

    def accept(self, topic: str = "queries", *, left_out: int = 0) -> None:
        envelope = self.head(topic)
        records = numbers(envelope.body)
        delivered = len(records) - left_out
        self.outbox.accept(envelope, delivered=delivered, reason="partial")
        self.tell(delivered=records[:delivered], parked=records[delivered:])

    def park(self, topic: str = "queries") -> None:
        envelope = self.head(topic)
        self.outbox.park(envelope, "refused")
        self.tell(parked=numbers(envelope.body))

    def split(self) -> None:
        envelope = self.head()
        drafts = [Draft(envelope.topic, len(half), body(half[0], len(half), 90)) for half in halves(envelope.body)]
        self.outbox.split(envelope, *drafts)
        self.tell()

    def drain(self) -> None:
        for topic in TOPICS:
            while self.outbox.head(topic):
                self.accept(topic)

    def shrink(self) -> None:
        self.outbox.shrink()
        self.tell()


def youth(life: Life) -> None:
    """A new outbox, one of everything, and an end without closing it."""
    life.open()
    life.commit(3, 2)
    life.commit(4, notes={NOTE: "since 1"})
    life.commit_in_vain(2, 2)
    life.commit(2, 2)
    life.commit(1, topic="command_result", marks=(MARKS[0],))
    life.commit()
    life.accept("command_result")
    life.accept()
    life.accept(left_out=1)
    life.split()
    life.accept()
    life.park()
    life.commit(2, gaps=(Gap("watch", "truncated"),), notes={NOTE: None}, marks=MARKS[1:])
    life.commit(5, 5, size=3_000)
    life.split()
    os.kill(os.getpid(), signal.SIGKILL)


def age(life: Life) -> None:
    """A backlog that needs checkpoints, its end, the space given back, and a commit that is cut before its sync."""
    life.open()
    for _ in range(BIG_BATCHES):
        life.commit(2, size=BIG)
    life.drain()
    life.shrink()
    for _ in range(3):
        life.commit(1, size=1_000)
    life.close()
    life.open()
    life.commit(6)
    Recorder().arm(1, action=KILL, operation="sync")
    life.commit(CUT_SHORT)


def rest(life: Life) -> None:
    """What the one before left without syncing it may be sent as soon as it is seen; so it must stay."""
    life.open(surprises=CUT_SHORT)
    life.accept()
    life.commit(3)
    life.drain()
    life.close()


def misled(life: Life) -> None:
    """Killed after a sync that failed: the next process sees what the disk has not, and cannot know it."""
    life.open()
    life.commit(3)
    life.commit_in_vain(4)
    os.kill(os.getpid(), signal.SIGKILL)


def unsure(life: Life) -> None:
    """The disk fails when a commit is synced, and when a checkpoint is, which no caller hears of; then it goes on."""
    life.open()
    for failing in CHECKPOINT_SYNCS:
        for _ in range(2):
            life.commit(2, size=BIG)
        # Each is tried again as it was: after a cut between the two it may be there, because it came from the source.
        life.commit_in_vain(2, size=HUGE)
        life.commit_unchecked(failing, 2, size=HUGE)
        life.accept()
        life.commit_in_vain(3)
        life.commit(3)
    life.drain()
    life.close()


def careless(life: Life) -> None:
    """What the outbox is there to prevent: records and their bookmark in transactions of their own."""
    life.open()
    for _ in range(4):
        whole = change(life.next, 2)
        life.outbox.commit(replace(whole, bookmarks={}))
        life.outbox.commit(replace(whole, drafts=()))
        life.tell(captured=numbers(whole.drafts[0].body))


def restart(life: Life) -> None:
    """The start on what an earlier one has left."""
    life.open()
    life.commit(2)
    life.close()


def restarts(place: Path) -> None:
    """The start in each of the directories 0, 1, ... of `place`, each with a log and a file of looks of its own."""
    number = 0
    while (directory := place / str(number)).exists():
        Recorder().watch(directory, place / f"{number}.log")
        restart(Life(directory, place / "acks", place / f"{number}.looks"))
        number += 1


PARTS = {part.__name__: part for part in (youth, age, rest, misled, unsure, careless, restart)}


if __name__ == "__main__":
    part, directory, *rest_of_line = sys.argv[1:]
    if part == restarts.__name__:
        restarts(Path(directory))
    else:
        acks, looks, *options = rest_of_line
        PARTS[part](Life(Path(directory), Path(acks), Path(looks), *options))
