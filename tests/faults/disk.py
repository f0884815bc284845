"""What a disk may hold after a power cut, worked out from the changes that were made to it and the syncs among them.

The model:

- What was written to a file before its last fsync or fdatasync is there, and its size.
- Of what was written later each sector of 512 bytes is there or not, whatever happens to the others; a sector is never
  half written. Where a file became longer and a sector is missing there are zeros. A change of size is there or not.
- After a sync that failed the kernel takes what was written for clean: programs see it, the disk may never get it, and
  no later sync is about it.
- A change of names (a file created, deleted or renamed) is there once the directory was synced. Of later ones a prefix
  is there, as a journal writes them: none (where only fsync of the directory makes a name durable), all, or some.

This is harsher than what the journals of ext4 and xfs do, so what survives it survives them.
Pure: reads and writes no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from tests.faults.recorder import Event

SECTOR_BYTES = 512

Amount = Literal["none", "all", "prefix", "sectors"]


@dataclass(frozen=True, slots=True)
class Fate:
    """How much of what was not synced is there: of the contents, and of the names."""

    contents: Amount
    names: Literal["none", "all", "prefix"]


FATES = (
    Fate("none", "none"),
    Fate("all", "all"),
    Fate("none", "all"),
    Fate("all", "none"),
    Fate("prefix", "all"),
    Fate("prefix", "prefix"),
    Fate("sectors", "all"),
    Fate("sectors", "prefix"),
    Fate("sectors", "none"),
)


@dataclass(slots=True)
class _Change:
    """Not synced yet. `data` None: a new size."""

    time: int
    offset: int
    data: bytes | None
    is_given_up: bool = False


@dataclass(slots=True, eq=False)
class _File:
    """`content` is durable, `seen` is what programs see."""

    content: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)

    def change(self, time: int, offset: int, data: bytes | None) -> None:
        self.changes.append(_Change(time, offset, data))
        _make(self.seen, offset, data)

    def sync(self) -> None:
        for change in self.changes:
            if not change.is_given_up:
                _make(self.content, change.offset, change.data)
        self.changes.clear()

    def fail(self) -> None:
        for change in self.changes:
            change.is_given_up = change.data is not None


class Disk:
    """The files of one directory. Starts with `base`, all of it durable."""

    def __init__(self, base: Mapping[str, bytes] | None = None) -> None:
        self._time = 0
        self._names = {name: _File(bytearray(data), bytearray(data)) for name, data in (base or {}).items()}
        self._durable_names = dict(self._names)
        self._name_changes: list[dict[str, _File]] = []  # what the names are after each
        self._inodes: dict[int, _File] = {}

    def apply(self, event: Event) -> None:
        """One more change. Raises KeyError for one of a file that was never opened."""
        self._time += 1
        match event.operation:
            case "create":
                self._inodes[event.inode] = _File()
                self._rename({**self._names, event.name: self._inodes[event.inode]})
            case "open" if event.name != ".":
                self._inodes[event.inode] = self._names[event.name]
            case "write":
                self._inodes[event.inode].change(self._time, event.offset, event.data)
            case "truncate":
                self._inodes[event.inode].change(self._time, event.offset, None)
            case "unlink":
                self._rename({name: file for name, file in self._names.items() if name != event.name})
            case "rename":
                others = {name: file for name, file in self._names.items() if name != event.name}
                self._rename({**others, event.data.decode(): self._names[event.name]})
            case "sync" if event.name == ".":
                self._durable_names = self._names
                self._name_changes.clear()
            case "sync":
                self._inodes[event.inode].sync()
            case "unsynced" if event.name != ".":
                self._inodes[event.inode].fail()

    def _rename(self, names: dict[str, _File]) -> None:
        self._names = names
        self._name_changes.append(names)

    @property
    def current(self) -> dict[str, bytes]:
        """What every program sees now: name to content."""
        return {name: bytes(file.seen) for name, file in self._names.items()}

    def image(self, fate: Fate, rng: Random) -> dict[str, bytes]:
        """What may be found after a power cut now: name to content."""
        names = self._surviving_names(fate, rng)
        times = sorted({change.time for file in names.values() for change in file.changes})
        until = rng.choice(times) if times else 0
        share = rng.choice((0.1, 0.5, 0.9))
        return {name: bytes(_survivor(file, fate.contents, until, share, rng)) for name, file in names.items()}

    def _surviving_names(self, fate: Fate, rng: Random) -> dict[str, _File]:
        states = [self._durable_names, *self._name_changes]
        return states[{"none": 0, "all": -1, "prefix": rng.randrange(len(states))}[fate.names]]


def _survivor(file: _File, amount: Amount, until: int, share: float, rng: Random) -> bytearray:
    content = file.content[:]
    if amount == "none":
        return content
    for change in file.changes:
        if amount == "sectors":
            _make_some(content, change, share, rng)
        elif change.time < until or amount == "all":
            _make(content, change.offset, change.data)
        elif change.time == until:
            _make_begin(content, change, rng)
    return content


def _make(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _sectors(change: _Change) -> list[tuple[int, bytes]]:
    """Offset and content of each piece that a disk writes at once."""
    pieces, at, data = [], 0, change.data or b""
    while at < len(data):
        size = SECTOR_BYTES - (change.offset + at) % SECTOR_BYTES
        pieces.append((change.offset + at, data[at : at + size]))
        at += size
    return pieces


def _make_some(content: bytearray, change: _Change, share: float, rng: Random) -> None:
    if change.data is None:
        if rng.random() < share:
            _make(content, change.offset, None)
        return
    for offset, data in _sectors(change):
        if rng.random() < share:
            _make(content, offset, data)


def _make_begin(content: bytearray, change: _Change, rng: Random) -> None:
    """The last one that was begun: some of its first sectors."""
    pieces = _sectors(change)
    for offset, data in pieces[: rng.randint(0, len(pieces))]:
        _make(content, offset, data)
