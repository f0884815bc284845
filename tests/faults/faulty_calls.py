"""The program whose system calls are made to fail, one after the other; run under the recorder.

    python -m tests.faults.faulty_calls kills|errors OPERATION PLACE

`kills` leaves in PLACE a directory for each call of the operation before which, or within which, a process of its own
was killed; `errors` lets each call fail in a process that goes on. What happened is written to PLACE/report.json.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from storage.bodies import describe
from storage.envelope import Draft, Envelope
from storage.errors import OutboxError
from storage.migration import migrate
from storage.outbox import FILE_NAME, Outbox
from tests.faults.looks import BOOKMARK, TOPICS, Look, body, change, halves, opened
from tests.faults.old_format import FORMATS, outbox_of_format
from tests.faults.power_cuts import put
from tests.faults.recorder import FOR_EVER, KILL, TEAR, Recorder

ERRORS = (errno.EIO, errno.ENOSPC)
LONG_RUN, KEPT_OF_A_LONG_RUN = 40, 5  # of very many writes to one file in a row not each is tried
COMMITTED = f"sync {FILE_NAME}-wal"  # with this call the disk has it
CHECKPOINT_PAGES = 243  # with the pages of one more commit there are enough for a checkpoint

Image = dict[str, bytes]
Base = tuple[Image, Look | None]  # files, and what a look into them shows


def head(outbox: Outbox) -> Envelope:
    envelope = outbox.head(TOPICS[0])
    assert envelope is not None
    return envelope


def captured(outbox: Outbox) -> int:
    """How many records were captured."""
    return int(outbox.bookmark(BOOKMARK) or b"0")


def commit(outbox: Outbox) -> None:
    """The next records, in two envelopes."""
    outbox.commit(change(captured(outbox), 2, 3))


def careless(outbox: Outbox) -> None:
    """What must not be done: records and their bookmark in transactions of their own."""
    whole = change(captured(outbox), 2, 3)
    outbox.commit(replace(whole, bookmarks={}))
    outbox.commit(replace(whole, drafts=()))


def accept(outbox: Outbox) -> None:
    """The oldest envelope, in part."""
    envelope = head(outbox)
    outbox.accept(envelope, delivered=envelope.records - 1, reason="partial")


def park(outbox: Outbox) -> None:
    """The oldest envelope."""
    outbox.park(head(outbox), "refused")


def split(outbox: Outbox) -> None:
    """The oldest envelope."""
    envelope = head(outbox)
    drafts = [Draft(envelope.topic, len(half), body(half[0], len(half), 90)) for half in halves(envelope.body)]
    outbox.split(envelope, *drafts)


def nothing(_: Path) -> Base:
    """No file at all."""
    return {}, None


def some(directory: Path) -> Base:
    """An outbox with three envelopes."""
    put(directory, {})
    with closing(opened(directory)) as outbox:
        outbox.commit(change(0, 4, 4, 2))
        look = Look.at(outbox)
    return _files(directory), look


def left(directory: Path) -> Base:
    """The same, when the process that had it was killed."""
    image, _ = some(directory)
    put(directory, image)
    outbox = opened(directory)
    outbox.commit(change(captured(outbox), 2))
    found = _files(directory), Look.at(outbox)
    outbox.close()
    return found


def _files(directory: Path) -> Image:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def migrated(directory: Path) -> None:
    """As the word `migrate` does it."""
    migrate(directory, describe, lambda _: None)


def old(version: int) -> Callable[[Path], Base]:
    """An outbox of that format."""
    return lambda _: outbox_of_format(version, is_closed=True)


@dataclass(frozen=True)
class Operation:
    """`act` happens on the opened outbox in `base`; None: it is the opening itself, and `word` what is said before."""

    base: Callable[[Path], Base]
    act: Callable[[Outbox], None] | None = None
    wal_pages: int = 0  # so much is in the WAL before
    behind: str = ""  # only calls after the first of this kind are tried
    word: Callable[[Path], object] = lambda _: None

    def begin(self, directory: Path, image: Image) -> Outbox | None:
        """Everything before."""
        put(directory, image)
        if self.act is None:
            return None
        outbox = opened(directory)
        outbox.commit(change(captured(outbox), 1, size=4_096 * self.wal_pages))
        return outbox

    def do(self, directory: Path, outbox: Outbox | None) -> Outbox:
        """What shall fail. Gives the outbox it has made or used."""
        if outbox is None or self.act is None:
            self.word(directory)
            return opened(directory)
        self.act(outbox)
        return outbox


OPERATIONS = {
    "commit": Operation(some, commit),
    "accept": Operation(some, accept),
    "park": Operation(some, park),
    "split": Operation(some, split),
    "careless": Operation(some, careless),
    "checkpoint": Operation(some, commit, wal_pages=CHECKPOINT_PAGES, behind=COMMITTED),
    "creation": Operation(nothing),
    "start": Operation(left),
    **{f"migration of format {version}": Operation(old(version)) for version in FORMATS},
    **{f"`migrate` of format {version}": Operation(old(version), word=migrated) for version in FORMATS},
}


class Trial:
    """One operation, in directories of `place`."""

    def __init__(self, name: str, place: Path) -> None:
        self._operation = OPERATIONS[name]
        self._place = place
        self._recorder = Recorder()
        self._directory = place / "rehearsal"
        self._recorder.watch(self._directory)
        self._image, self._before = self._operation.base(self._directory)
        self.report: dict[str, Any] = {"trials": []}
        self._rehearse()

    def _rehearse(self) -> None:
        """Which calls there are, and what a look shows before and after."""
        outbox = self._operation.begin(self._directory, self._image)
        before = Look.at(outbox) if outbox else self._before
        self.report["before"] = before.as_json if before else None
        self._recorder.arm()
        outbox = self._operation.do(self._directory, outbox)
        self._recorder.disarm()
        self.report["calls"] = self._recorder.trace
        self.report["after"] = Look.at(outbox).as_json
        outbox.close()

    def _chosen(self) -> Iterator[tuple[int, str]]:
        """Number and name of the calls that are tried: all, but for some of very many writes to one file."""
        calls, behind = self.report["calls"], self._operation.behind
        begin = calls.index(behind) + 1 if behind else 0
        for call, run in groupby(enumerate(calls[begin:], begin + 1), key=lambda each: each[1]):
            row = list(run)
            step = len(row) // KEPT_OF_A_LONG_RUN if len(row) > LONG_RUN else 1
            yield from ((number, call) for number, _ in row[::step])

    def kills(self) -> None:
        """A process of its own for each."""
        for number, call in [*self._chosen(), (len(self.report["calls"]) + 1, "the end")]:
            for action in (KILL, TEAR) if call.startswith("write") else (KILL,):
                directory = self._place / f"{number}{'-torn' if action == TEAR else ''}"
                child = os.fork()
                if child == 0:
                    self._die(directory, number, action)
                _, status = os.waitpid(child, 0)
                self._note(call, directory=directory.name, code=os.waitstatus_to_exitcode(status))

    def _die(self, directory: Path, number: int, action: int) -> None:
        self._recorder.watch(directory)
        outbox = self._operation.begin(directory, self._image)
        self._recorder.arm(number, action=action)
        self._operation.do(directory, outbox)
        os._exit(0)  # only after the last call; nobody has acknowledged anything

    def errors(self) -> None:
        """Each call alone, and each with all that follow it."""
        for number, call in self._chosen():
            for error in ERRORS:
                for last in (number, FOR_EVER):
                    self._fail(call, number, last, error)

    def _fail(self, call: str, number: int, last: int, error: int) -> None:
        outbox = self._operation.begin(self._directory, self._image)
        self._recorder.arm(number, last, error)
        raised, code = "", ""
        try:
            outbox = self._operation.do(self._directory, outbox)
        except OutboxError as what:
            raised, code = str(what), what.code
        met = self._recorder.disarm()
        found = Look.at(outbox).as_json if outbox else None
        if raised:
            outbox = self._operation.do(self._directory, outbox)
        assert outbox is not None
        again = Look.at(outbox).as_json
        outbox.commit(change(captured(outbox), 1))
        more = Look.at(outbox).as_json
        outbox.close()
        with closing(opened(self._directory)) as reopened:
            kept = Look.at(reopened).as_json == more
        case = {"number": number, "for_ever": last == FOR_EVER, "error": errno.errorcode[error], "met": met}
        self._note(call, **case, raised=raised, code=code, found=found, again=again, more=more, kept=kept)

    def _note(self, call: str, **what: Any) -> None:
        self.report["trials"].append({"call": call, **what})


if __name__ == "__main__":
    kind, name, where = sys.argv[1:]
    trial = Trial(name, Path(where))
    {"kills": trial.kills, "errors": trial.errors}[kind]()
    Path(where, "report.json").write_text(json.dumps(trial.report), encoding="utf-8")
