"""Cuts the power of a recorded outbox at any of its system calls and looks at what the next start finds.

The laboratory records the program, builds the image of each cut that was planned, starts the real outbox on it and
judges what is there; it cuts the start itself again as well. Everything is drawn from a seed, so that what is found
once is found again.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from storage.errors import OutboxError
from storage.outbox import FILE_NAME
from tests.faults import recorder
from tests.faults.disk import FATES, Disk, Fate
from tests.faults.looks import Look, change, judge, opened
from tests.faults.old_format import FORMATS, outbox_of_format
from tests.faults.recorder import Event

PROGRAM = "tests.faults.recorded_program"
LIFE, RESTART = ("youth", "age", "rest"), ("restart",)
FAULTS = ("lost", "invented", "torn", "failed_starts")
COMPLAINTS_KEPT = 10
RECOVERY_CUTS, RECOVERIES_AT_ONCE = 20, 50
ROOM_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Recording:
    """`events` on files that were `base` before; `looks[n]`: what is there after n acknowledgements.

    `looks[0]` is None where the first thing that happens is that the outbox is made.
    """

    base: Mapping[str, bytes]
    events: Sequence[Event]
    looks: Sequence[Look | None]

    def around(self, acknowledged: int) -> tuple[Look | None, Look | None]:
        """What is there after the last acknowledged call, and after the one under way (None: there is none)."""
        following = self.looks[acknowledged + 1 : acknowledged + 2]
        return self.looks[acknowledged], following[0] if following else None


@dataclass(frozen=True, slots=True)
class Cut:
    """The power goes after so many events."""

    after: int
    fate: Fate


@dataclass
class Outcome:
    """`counts`: images, and of how many what was said. `complaints`: the first few, with all that leads to them."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("images", *FAULTS), 0))
    complaints: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """In how many images something was wrong."""
        return sum(self.counts[name] for name in FAULTS)

    def note(self, verdict: str, case: str) -> None:
        """One image was examined."""
        self.counts["images"] += 1
        if verdict != "fine":
            self.counts[verdict] += 1
            self.complaints = [*self.complaints, f"{verdict}: {case}"][:COMPLAINTS_KEPT]

    def add(self, other: Outcome) -> None:
        """Both together."""
        for name, number in other.counts.items():
            self.counts[name] += number
        self.complaints = [*self.complaints, *other.complaints][:COMPLAINTS_KEPT]


def plan(events: Sequence[Event], images: int, rng: Random) -> list[Cut]:
    """So many cuts in the order of time: half of them around what is no plain write, the rest anywhere."""
    telling = [at for at, event in enumerate(events) if event.operation != "write"]
    around = sorted({0, len(events), *telling, *(at + 1 for at in telling)})
    cuts = [Cut(after, fate) for fate in FATES for after in around]
    cuts = rng.sample(cuts, min(len(cuts), images // 2))
    while len(cuts) < images:
        cuts.append(Cut(rng.randint(0, len(events)), rng.choice(FATES)))
    return sorted(cuts, key=lambda cut: cut.after)


def develop(recording: Recording, cuts: Sequence[Cut], seed: object) -> Iterator[tuple[Cut, dict[str, bytes], int]]:
    """Each cut with the files that are there afterwards and the number of acknowledgements before it."""
    disk, acknowledged, done = Disk(recording.base), 0, 0
    for number, cut in enumerate(cuts):
        for event in recording.events[done : cut.after]:
            disk.apply(event)
            acknowledged += event.operation == "ack"
        done = cut.after
        yield cut, disk.image(cut.fate, Random(f"{seed}-{number}")), acknowledged


def put(directory: Path, image: Mapping[str, bytes]) -> None:
    """Makes the directory hold exactly these files."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    for name, content in image.items():
        with (directory / name).open("wb") as file:
            if content != bytes(len(content)):
                file.write(content)
            file.truncate(len(content))  # all of a file that is only there to keep room


def start(directory: Path, before: Look | None, after: Look | None) -> tuple[str, str]:
    """Opens the outbox, commits once more and opens it again: a verdict, and what was seen when it is not "fine"."""
    try:
        with closing(opened(directory)) as outbox:
            found = Look.at(outbox)
            verdict = judge(found, before, after)
            if verdict != "fine":
                return verdict, f"found {found}, expected {before} or {after}"
            first = int(found.bookmark or 0)
            outbox.commit(change(first, 2))
            more = Look.at(outbox)
        with closing(opened(directory)) as outbox:
            again = Look.at(outbox)
        with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
            complaints = connection.execute("PRAGMA integrity_check").fetchall()
    except (OutboxError, TypeError, ValueError) as error:  # a damaged file gives values of any type
        return "failed_starts", repr(error)
    is_more = sorted(more.waiting) == sorted([*found.waiting, first, first + 1]) and more.bookmark == str(first + 2)
    is_fine = is_more and more.is_sound and again == more and set(found.keys) < set(more.keys)
    if not is_fine or complaints != [("ok",)]:
        return "torn", f"found {found}, then {more}, then {again}, {complaints}"
    return "fine", ""


class Laboratory:
    """Works in `place`, a directory for itself, with the recorder in `library`. `progress` counts the images."""

    def __init__(self, place: Path, library: Path, progress: Callable[[int], None] = lambda _: None) -> None:
        self._place = place
        self._library = library
        self._progress = progress
        self._images = 0

    def record(
        self,
        parts: Sequence[str] = LIFE,
        *,
        base: Mapping[str, bytes] | None = None,
        before: Look | None = None,
        synchronous: str = "FULL",
    ) -> Recording:
        """Runs the parts of the program one after the other on the files `base`, into which a look shows `before`."""
        place = self._new_place()
        directory, log, acks, looks = place / "data", place / "log", place / "acks", place / "looks"
        put(directory, base or {})
        for part in parts:
            self._run(part, directory, acks, looks, synchronous, directory=directory, log=log, acks=acks)
        return Recording(base or {}, recorder.read_log(log), [before, *_read_looks(looks)])

    def examine(self, recording: Recording, cuts: Sequence[Cut], seed: object) -> Outcome:
        """Starts the outbox on the image of each cut."""
        outcome, directory = Outcome(), self._new_place()
        for cut, image, acknowledged in develop(recording, cuts, seed):
            put(directory, image)
            verdict, seen = start(directory, *recording.around(acknowledged))
            outcome.note(verdict, f"seed {seed}, after {cut.after} events, {acknowledged} calls, {cut.fate}: {seen}")
            self._images += 1
            self._progress(self._images)
        shutil.rmtree(directory)
        return outcome

    def cut_recoveries(self, recording: Recording, cuts: Sequence[Cut], seed: object, each: int) -> Outcome:
        """Records the start on the image of each cut, and cuts that `each` times again."""
        outcome, place = Outcome(), self._new_place()
        developed = list(develop(recording, cuts, seed))
        for number, (_, image, _) in enumerate(developed):
            put(place / str(number), image)
        self._run("restarts", place, directory=place, log=place / "log", acks=place / "acks")
        for number, (cut, image, acknowledged) in enumerate(developed):
            looks, case = _read_looks(place / f"{number}.looks"), f"{seed}, {cut}, start {number}"
            if len(looks) != 3 or judge(looks[0], *recording.around(acknowledged)) != "fine":
                outcome.note("failed_starts", f"seed {case} saw {looks}")
                continue
            # What the start has found stays, whenever it is cut; one that makes a new outbox may begin again.
            restart = Recording(
                image, recorder.read_log(place / f"{number}.log"), [None if looks[0].is_new else looks[0], *looks]
            )
            outcome.add(self.examine(restart, plan(restart.events, each, Random(case)), case))
        shutil.rmtree(place)
        return outcome

    def _run(self, part: str, *arguments: object, directory: Path, log: Path, acks: Path) -> None:
        recorder.run(self._library, PROGRAM, part, *arguments, directory=directory, log=log, acks=acks)

    def _new_place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._place))


def _read_looks(path: Path) -> list[Look]:
    return [Look(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@contextmanager
def place_in_memory() -> Iterator[Path]:
    """A new directory, in memory where there is room: thousands of images are written, and each is synced."""
    memory = Path("/dev/shm")
    is_there = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_BYTES
    path = Path(tempfile.mkdtemp(prefix="power-cuts-", dir=memory if is_there else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def torture(images: int, seed: int, progress: Callable[[int], None]) -> dict[str, int]:
    """Examines about so many images: of a whole life, of starts on old formats, of starts that are cut again.

    `progress` hears how many are done. Gives counts: images, lost, invented, torn (what no call can have left),
    failed_starts. Raises CompilerMissing.
    """
    outcome, rng = Outcome(), Random(seed)
    with place_in_memory() as place:
        work = Laboratory(place, recorder.build(place), progress)
        life = work.record()
        outcome.add(work.examine(life, plan(life.events, images * 7 // 10, rng), f"{seed} life"))
        for version in FORMATS:
            base, look = outbox_of_format(version, is_closed=False)
            upgrade = work.record(RESTART, base=base, before=look)
            cuts = plan(upgrade.events, images // (10 * len(FORMATS)), rng)
            outcome.add(work.examine(upgrade, cuts, f"{seed} upgrade of format {version}"))
        while outcome.counts["images"] < images:
            missing = -(-(images - outcome.counts["images"]) // RECOVERY_CUTS)
            cuts = plan(life.events, min(missing, RECOVERIES_AT_ONCE), rng)
            outcome.add(work.cut_recoveries(life, cuts, f"{seed} starts {missing}", RECOVERY_CUTS))
    return outcome.counts
