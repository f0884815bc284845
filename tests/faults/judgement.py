"""Starts an outbox on damaged files, drains it, and judges what came out by where the pieces of each row had stood."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from storage import diagnosis
from storage.books import SOURCE
from storage.envelope import Envelope, Gap, Tally
from storage.errors import OutboxDamaged, OutboxForeign
from storage.outbox import Outbox
from tests.fakes.clock import ManualClock
from tests.faults.played import DB, MARK, PAGE_BYTES, RESULTS, TOPIC, WAL, WATCH, Files, Play, describe

T = TypeVar("T")
_MOST_REBUILDS = 6
_RANGE = re.compile(r"envelopes lost between (\d+) and (\d+)|envelope (\d+) was damaged")


@dataclass(slots=True)
class Verdict:
    """`what` was done to it. `whole_but_lost`: envelopes of which no byte was touched and that did not arrive;
    `places_hit`: pages and heads of frames in which something else than a row's content was; `wrong`: all the rest."""

    what: str
    starts_failed: int = 0
    whole_but_lost: int = 0
    places_hit: int = 0
    invented: int = 0
    doubled: int = 0
    unnamed: int = 0
    lost: int = 0
    rebuilds: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers that are summed over many."""
        names = ("starts_failed", "whole_but_lost", "invented", "doubled", "unnamed")
        return {"seeds": 1, **{name: getattr(self, name) for name in names}}

    @property
    def is_fine(self) -> bool:
        """Whether nothing is wrong; a hit on SQLite's own structure may cost one envelope for each place."""
        numbers = self.starts_failed + self.invented + self.doubled + self.unnamed
        return numbers == 0 and not self.wrong and self.whole_but_lost <= self.places_hit


@dataclass(slots=True)
class Opened:
    """An outbox that was started on damaged files. `kept`: what was put aside, by name."""

    outbox: Outbox
    clock: ManualClock
    told: list[str]
    directory: Path
    kept: dict[str, bytes]

    def ask(self, question: Callable[[], T]) -> T:
        """Its answer; where the file turns out to be damaged, it is asked again later."""
        for _ in range(_MOST_REBUILDS):
            try:
                return question()
            except OutboxDamaged:
                self.clock.turn(61)
        return question()

    def drain(self, most: int = 1_000) -> list[Envelope]:
        """Delivers what there is, as a flusher would."""
        arrived: list[Envelope] = []
        while len(arrived) < most and (envelope := self.ask(self._deliver_one)) is not None:
            arrived.append(envelope)
        return arrived

    def _deliver_one(self) -> Envelope | None:
        envelope = self.outbox.head(RESULTS) or self.outbox.head(TOPIC)
        if envelope is not None:
            self.outbox.accept(envelope, delivered=envelope.records)
        return envelope


def start(directory: Path) -> Opened:
    """Opens the outbox in `directory`. Raises what it raises."""
    told: list[str] = []
    clock = ManualClock()
    outbox = Outbox(directory, topics=(TOPIC, RESULTS), now=clock.unix, describe=describe, on_loss=told.append)
    return Opened(outbox, clock, told, directory, kept_in(directory))


def kept_in(directory: Path) -> dict[str, bytes]:
    """The damaged files that were put aside."""
    return {path.name: path.read_bytes() for path in directory.glob("outbox.damaged-*")}


def files_in(directory: Path) -> dict[str, bytes]:
    """The files that a damage can touch."""
    return {name: (directory / name).read_bytes() for name in (DB, WAL, MARK) if (directory / name).exists()}


def judge(played: Play, directory: Path, what: str, damaged: Files | None = None) -> Verdict:
    """Starts on the damaged files in `directory` and drains them. `damaged`: what they were, when a start was cut."""
    verdict, is_first = Verdict(what), damaged is None
    damaged = files_in(directory) if damaged is None else damaged
    began = time.process_time()
    try:
        opened = start(directory)
        verdict.seconds = time.process_time() - began
        try:
            _Judge(played, damaged, opened, verdict, is_first=is_first).judge(opened.drain())
        finally:
            opened.outbox.close()
    except OutboxForeign:
        # Without a mark, and with nothing of ours in it, nobody can know whose it was.
        if MARK in damaged or files_in(directory) != damaged:
            verdict.starts_failed = 1
    except Exception:  # whatever it is, it is a finding
        verdict.starts_failed = 1
        verdict.wrong.append(traceback.format_exc(limit=-8))
    return verdict


class _Judge:
    def __init__(self, played: Play, damaged: Files, opened: Opened, verdict: Verdict, *, is_first: bool) -> None:
        self.is_first = is_first
        self.played, self.damaged, self.opened, self.verdict = played, damaged, opened, verdict
        now = played.now.files
        self.knows_the_end = MARK in now and damaged.get(MARK) == now[MARK]
        # Without the mark nobody sees that a WAL lost its end: what was in it may be missing in silence.
        is_there = bool(damaged.get(DB) or damaged.get(WAL))
        self.is_noticed = self.knows_the_end or (is_there and damaged.get(WAL, b"") == now.get(WAL, b""))

    def judge(self, arrived: list[Envelope]) -> None:
        self._judge_arrived(arrived)
        self._judge_kept()
        keys = {each.key for each in arrived}
        # The whole may come instead of halves that are lost.
        keys |= {half for half in self.played.now.waiting if half[:-2] in keys}
        self._judge_missing(keys)
        self.opened.ask(self.opened.outbox.parked)  # where that is damaged, the books change once more
        tallies = {topic: self.opened.ask(partial(self.opened.outbox.tally, topic)) for topic in (TOPIC, RESULTS)}
        for topic, tally in tallies.items():
            if not tally.balances or tally.pending:
                self.verdict.wrong.append(f"the books of {topic} do not balance: {tally}")
        self._judge_named(keys, tallies)
        self._judge_bookmark(keys)

    def _judge_arrived(self, arrived: list[Envelope]) -> None:
        played, verdict = self.played, self.verdict
        known = {**played.settled, **played.split, **played.now.waiting}
        by_key = {each.key: each for each in arrived}
        keys = by_key.keys()
        for key, times in Counter(each.key for each in arrived).items():
            verdict.doubled += times - 1
            if key not in known:
                verdict.invented += not self._is_renamed(by_key[key])
        for each in arrived:
            was = known.get(each.key)
            if was is not None and (was.body, was.records, was.topic) != (each.body, each.records, each.topic):
                verdict.invented += 1
            # A file that went back does not know what was delivered since, but that it does not know is known.
            if each.key in played.settled and not each.doubtful and self.is_noticed:
                verdict.doubled += 1
            if each.key in played.split and self.is_noticed:
                halves = {f"{each.key}.{end}" for end in "01"}
                verdict.doubled += bool(halves & keys) or (bool(halves & played.settled.keys()) and not each.doubtful)

    def _is_renamed(self, envelope: Envelope) -> bool:
        """Rows of format 1 carry no checksum: a key that was hit is not told from one that was not."""
        bodies = {each.body for each in self.played.now.waiting.values()}
        return self.played.kind == "format 1" and envelope.body in bodies

    def _judge_kept(self) -> None:
        verdict, opened = self.verdict, self.opened
        verdict.rebuilds = sum(sentence.startswith("The outbox was") for sentence in opened.told)
        was_rebuilt = bool(opened.kept) or verdict.rebuilds > 0
        there = kept_in(opened.directory)
        # A file that is too large to be read through at a start is worked on until the damage shows.
        if opened.kept and diagnosis.CHECKED_BYTES:
            for name, end in ((DB, ""), (WAL, "-wal")):
                found = [content for kept, content in opened.kept.items() if kept.endswith("-wal") == bool(end)]
                if self.damaged.get(name, b"") not in [*found, b""]:
                    verdict.wrong.append(f"{name} was not kept as it was")
        if was_rebuilt and not there and (self.damaged.get(DB) or self.damaged.get(WAL)):
            verdict.wrong.append("nothing was kept")
        if any(there.get(name) != content for name, content in opened.kept.items()):
            verdict.wrong.append("what was kept was touched later")

    def _judge_missing(self, arrived: set[str]) -> None:
        now = self.played.now
        missing = now.waiting.keys() - arrived
        self.verdict.lost = sum(now.waiting[key].records for key in missing)
        if self.is_noticed:
            self.verdict.whole_but_lost = sum(self._is_whole(key) for key in missing)
            self.verdict.places_hit = places_hit(now.files, self.damaged)

    def _is_whole(self, key: str) -> bool:
        return all(
            self.damaged.get(name, b"")[at : at + len(piece)] == piece
            for name, at, piece in self.played.now.places[key]
        )

    def _judge_named(self, arrived: set[str], tallies: Mapping[str, Tally]) -> None:
        verdict, now, outbox = self.verdict, self.played.now, self.opened.outbox
        missing = [now.waiting[key] for key in now.waiting.keys() - arrived]
        parked = sum(records for _, records, _ in self.opened.ask(outbox.parked))
        gaps = [gap for gap in self.opened.ask(outbox.gaps) if gap.source == SOURCE]
        # After a cut the sentence may have been said before it.
        if (missing and self.is_noticed) and not (gaps and (self.opened.told or not self.is_first)):
            verdict.unnamed += verdict.lost
        if not self.knows_the_end or arrived & self.played.settled.keys():
            return
        lost = sum(tally.lost for tally in tallies.values())
        expected = verdict.lost + self.played.parked - parked
        verdict.unnamed += abs(expected - lost)
        if sum(gap.estimate or 0 for gap in gaps) != lost:
            verdict.wrong.append(f"{lost} records are lost, the gaps say {gaps}")
        verdict.unnamed += sum(each.records for each in missing if not _is_named(each.seq, gaps))
        for topic, captured in self.played.captured.items():
            if tallies[topic].captured != captured:
                verdict.wrong.append(f"{captured} records of {topic} were captured: {tallies[topic]}")

    def _judge_bookmark(self, arrived: set[str]) -> None:
        """What is read again must not have arrived, nor have been settled before."""
        outbox, read = self.opened.outbox, self.played.read
        bookmark = self.opened.ask(partial(outbox.bookmark, WATCH))
        if not self.is_noticed or (bookmark is None and outbox.has_lost_bookmark(WATCH)):
            return
        at = -1 if bookmark is None else int(bookmark)
        if at >= len(read):
            self.verdict.wrong.append(f"a bookmark of {at} after {len(read)} looks")
        again = {key for keys in read[at + 1 :] for key in keys} & (arrived | self.played.settled.keys())
        if again:
            self.verdict.wrong.append(f"the bookmark stands at {at}: {len(again)} envelopes would be read again")


def _is_named(seq: int, gaps: list[Gap]) -> bool:
    for gap in gaps:
        for low, high, single in _RANGE.findall(gap.detail):
            if single == str(seq) or (low and int(low) <= seq <= int(high)):
                return True
    return False


def places_hit(before: Files, after: Files) -> int:
    """In how many blocks of a page's size the files differ."""
    hit = 0
    for name in (DB, WAL):
        was, now = before.get(name, b""), after.get(name, b"")
        for at in range(0, max(len(was), len(now)), PAGE_BYTES):
            hit += was[at : at + PAGE_BYTES] != now[at : at + PAGE_BYTES]
    return hit
