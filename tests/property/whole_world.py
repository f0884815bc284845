"""An agent's life on a real disk: the collector and the flusher over the real outbox, a source, a moody backend.

Knows at each moment what was acknowledged, and says whether all of it is waiting, delivered, parked or named as lost.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import orjson

from agent import body
from agent.collector import Collector, result_draft
from agent.commands import Command, Result
from agent.delivery import RETRY_AFTER_CAP_S
from agent.flusher import Flusher
from agent.sinks import QUERIES, TOPICS
from agent.status import LinkStatus, Scoreboard
from storage.audit import audit
from storage.ballast import NAMES
from storage.bodies import describe
from storage.envelope import Change, Envelope, Tally
from storage.errors import OutboxError, OutboxFull
from storage.high_water import FILE_NAME as MARK
from storage.outbox import Outbox
from tests.fakes.clock import ManualClock
from tests.fakes.inside import sql_of
from tests.fakes.moody_backend import Killed, Mood, MoodyBackend
from tests.fakes.source import FakeSource
from tests.property.mischief import SHM, WAL

WATCH = "default"
HOLD_S = 30.0
ROUNDS, ROUND_S, ROUND_STEPS = 4, 4_000.0, 5_000

MakeOutbox = Callable[..., Outbox]


class DiskOfTest(Outbox):
    """The real one; recording an acceptance finds no room so many times."""

    full = 0

    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        """As the real one, unless there is no room."""
        if self.full:
            self.full -= 1
            raise OutboxFull("says the test")
        super().accept(envelope, delivered=delivered, reason=reason)


class Station:
    """One outbox directory with the flusher that drains it, between a start and an end."""

    def __init__(self, directory: Path, backend: MoodyBackend, clock: ManualClock, make: MakeOutbox, seed: int) -> None:
        self.directory, self.backend, self.clock = directory, backend, clock
        self.dies_after_commit = False
        self.board = Scoreboard(clock.monotonic())
        self.losses: list[str] = []
        self.outbox = make(
            directory,
            topics=TOPICS,
            now=clock.unix,
            describe=describe,
            on_books=self._hear,
            on_loss=self.losses.append,
        )
        rng = random.Random(seed)
        self.flusher = Flusher(self.outbox, backend, self.board, clock=clock, rng=rng, hold_s=HOLD_S)

    def _hear(self, _topic: str, _books: Tally) -> None:
        if self.dies_after_commit:
            self.dies_after_commit = False
            raise Killed

    def step(self, *, beats: bool) -> float | None:
        """One step of the flusher; `beats`: whether the backend takes heartbeats meanwhile."""
        self.board.heartbeat = LinkStatus(None, self.clock.monotonic()) if beats else LinkStatus("away", None)
        return self.flusher.step()

    def live(self, seconds: float) -> None:
        """Steps and waits until there is nothing to do within so many seconds."""
        end_s = self.clock.monotonic() + seconds
        for _ in range(ROUND_STEPS):
            wait_s = self.step(beats=True)
            if wait_s is None or self.clock.monotonic() + wait_s > end_s:
                return
            self.clock.turn(wait_s)
        raise AssertionError("it never comes to rest")

    @property
    def in_flight(self) -> int:
        """Records that were offered and whose fate is not on the disk: a power cut may forget that they were."""
        unsettled = self.flusher._unsettled
        return unsettled.envelope.records if unsettled is not None else 0


class World:
    """`acknowledged`: ids of records whose capture returned; `happened`: how often which fault came about.

    `excused`: records that may be doubled uncounted, because a power cut has taken what was known of a request.
    """

    def __init__(
        self,
        place: Path,
        *,
        honours_keys: bool = True,
        bad: Sequence[int] = (),
        skipped: Sequence[int] = (),
        limit: int = 1_000,
        batch: int = 5,
        suspects: bool = True,
        make: MakeOutbox = DiskOfTest,
        seed: int = 0,
    ) -> None:
        self.place, self.batch, self.suspects, self.make, self.seed = place, batch, suspects, make, seed
        self.clock = ManualClock()
        self.backend = MoodyBackend(
            self.clock,
            honours_keys=honours_keys,
            bad={f"r{number}" for number in bad},
            skipped={f"r{number}" for number in skipped},
            limit=limit,
        )
        self.source = FakeSource()
        self.source.chunk = 10
        self.acknowledged: set[str] = set()
        self.results: set[str] = set()
        self.happened: Counter[str] = Counter()
        self.excused = 0
        self.is_damaged = False
        self.copies: list[Station] = []
        self._contents: dict[str, frozenset[str]] = {}
        self._homes = 0
        self._next_command = 0
        self._old_mark = b""
        self._start(self._new_home())

    def _new_home(self) -> Path:
        self._homes += 1
        return self.place / str(self._homes)

    def _start(self, home: Path) -> None:
        self.main = Station(home, self.backend, self.clock, self.make, self.seed)
        self.collector = Collector(self.main.outbox, WATCH, batch_max_records=self.batch, batch_max_bytes=1_000_000)
        if self.main.losses:
            self.happened["losses told"] += 1

    # -- life --------------------------------------------------------------------------------------------------

    def look(self, rows: int, *, with_result: bool = False) -> None:
        """So many new rows appear at the source, and the collector takes what it has not, as a watch does."""
        self.source.rows += rows
        try:
            if self.main.outbox.shortage(max_bytes=1 << 30, min_free_bytes=0) is not None:
                return
            self._turn(with_result)
        except OutboxFull:
            self.happened["full"] += 1
            self.collector.drop()
        except OutboxError:
            self.happened["looks failed"] += 1
            self.collector.drop()

    def _turn(self, with_result: bool) -> None:
        before = self._at()
        if self.collector.must_skip:
            self.happened["skipped"] += 1
            self.collector.take(self.source.skip())
            self.collector.save(Change())
            return
        for reading in self.source.read(self.collector.bookmark):
            self.collector.take(reading)
        extra = Change()
        if with_result:
            self._next_command += 1
            extra = Change(drafts=(result_draft(Result(Command(self._next_command, "collect"), True, {})),))
        self.collector.save(extra)
        if with_result:
            self.results.add(f"c{self._next_command}")
        self._acknowledge(before, self._at())

    def _at(self) -> int:
        return int(self.main.outbox.bookmark(WATCH) or b"0")

    def _acknowledge(self, first: int, end: int) -> None:
        self.acknowledged |= {f"r{number}" for number in range(first, end)}

    def flush(self, steps: int, *, waits: bool) -> None:
        """Some steps of the flusher; `waits`: time goes by as it asks."""
        for _ in range(steps):
            wait_s = self.main.step(beats=self._beats)
            if waits and wait_s:
                self.clock.turn(wait_s)

    @property
    def _beats(self) -> bool:
        return self.suspects and self.backend.mood is not Mood.AWAY

    def set_wall(self, hours: float) -> None:
        """The wall clock jumps."""
        self.clock.set_wall(self.clock.now() + timedelta(hours=hours))

    # -- ends --------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """An orderly end."""
        self.main.outbox.close()
        self._start(self.main.directory)

    def crash(self, change: Callable[[Path], object] = lambda _: None, *, damaged: bool = False) -> None:
        """The process is gone without a word; `change` is done to the files before the next start."""
        before = self._at()
        home = self._new_home()
        copy(self.main.directory, home)
        self.main.outbox.close()
        shutil.rmtree(self.main.directory)
        change(home)
        self._start(home)
        assert damaged or self._at() == before, "the bookmark moved over a crash"

    def dies(self, work: Callable[[], None]) -> None:
        """The process is killed within `work`, where it was told to; then the next one starts."""
        known, skips = self._at(), self.collector.must_skip
        try:
            work()
        except Killed:
            self.happened["killed within"] += 1
            self.crash()
            # What was committed and not acknowledged is there as well as what was: it belongs to its bookmark.
            self._acknowledge(self._at() if skips else known, self._at())
        finally:
            self.main.dies_after_commit = self.backend.is_deadly = False

    def remember_mark(self) -> None:
        """This is what the disk holds of the mark, which nobody syncs."""
        self._old_mark = (self.main.directory / MARK).read_bytes()

    def cut_power(self, rng: random.Random) -> None:
        """What was synced is there; the mark is older or torn, and behind the last commit the WAL ends anyhow."""
        self.happened["power cuts"] += 1
        self.excused += self.main.in_flight

        def change(home: Path) -> None:
            (home / SHM).unlink(missing_ok=True)
            mark = home / MARK
            if rng.random() < 0.5 and self._old_mark:
                mark.write_bytes(self._old_mark)
            else:
                mark.write_bytes(torn(mark.read_bytes(), rng))
            if (home / WAL).exists():
                with (home / WAL).open("ab") as wal:
                    wal.write(rng.randbytes(rng.choice((0, 24, 500, 4_120, 9_000))))

        self.crash(change)

    def damage(self, change: Callable[[Path], object]) -> None:
        """The files are changed by what no program of ours does."""
        self.happened["damages"] += 1
        self.is_damaged = True
        self.crash(change, damaged=True)

    def spoil_a_body(self, rng: random.Random) -> None:
        """A byte of an envelope that waits turns over while the agent runs."""
        sql = sql_of(self.main.outbox)
        rows = sql.execute("SELECT seq, body FROM envelope").fetchall()
        if not rows:
            return
        seq, packed = rng.choice(rows)
        at = rng.randrange(len(packed))
        spoilt = packed[:at] + bytes([packed[at] ^ 1 << rng.randrange(8)]) + packed[at + 1 :]
        sql.execute("UPDATE envelope SET body = ? WHERE seq = ?", (spoilt, seq))
        self.happened["bodies spoilt"] += 1
        self.is_damaged = True

    def fill_the_disk(self, *, acceptances: int) -> None:
        """SQLite finds no further page; so many acceptances find no room either."""
        (pages,) = sql_of(self.main.outbox).execute("PRAGMA page_count").fetchone()
        sql_of(self.main.outbox).execute(f"PRAGMA max_page_count={pages}")
        if isinstance(self.main.outbox, DiskOfTest):
            self.main.outbox.full = acceptances

    def free_the_disk(self) -> None:
        """There is room again."""
        sql_of(self.main.outbox).execute("PRAGMA max_page_count=1000000")
        if isinstance(self.main.outbox, DiskOfTest):
            self.main.outbox.full = 0

    # -- a copy beside it --------------------------------------------------------------------------------------

    def replay_a_copy(self) -> None:
        """Somebody copies the directory and lets a second flusher deliver it."""
        self.happened["copies"] += 1
        home = self._new_home()
        copy(self.main.directory, home)
        self.copies.append(Station(home, self.backend, self.clock, Outbox, self.seed + 1))

    def flush_a_copy(self, steps: int) -> None:
        """It goes on beside the first."""
        for station in self.copies[-1:]:
            for _ in range(steps):
                wait_s = station.step(beats=self._beats)
                if wait_s:
                    self.clock.turn(wait_s)

    # -- what holds --------------------------------------------------------------------------------------------

    def present(self) -> tuple[set[str], set[str]]:
        """Ids of the records that wait, and of those that are parked."""
        sql = sql_of(self.main.outbox)
        found = []
        for table in ("envelope", "parked"):
            rows = sql.execute(f"SELECT key, seq FROM {table} WHERE topic = ?", (QUERIES,)).fetchall()
            found.append({each for key, seq in rows for each in self._ids(sql, table, key, seq)})
        return found[0], found[1]

    def _ids(self, sql: sqlite3.Connection, table: str, key: str, seq: int) -> frozenset[str]:
        if key not in self._contents or self.is_damaged:
            (packed,) = sql.execute(f"SELECT body FROM {table} WHERE seq = ?", (seq,)).fetchone()
            try:
                content = orjson.loads(body.unpack(packed))
            except ValueError:  # spoilt, and not offered yet
                return frozenset()
            self._contents[key] = frozenset(str(record["id"]) for record in content["queries"])
        return self._contents[key]

    def check(self) -> None:
        """The conservation law, by the books, by the audit and by the records themselves."""
        books = self.main.outbox.tally(QUERIES)
        assert books.balances, books
        waiting, parked = self.present()
        spoilt = self._spoilt()
        if not spoilt:
            found = audit(self.main.directory)
            assert found.balances, found
        missing = self.acknowledged - waiting - parked - self.backend.stored.keys()
        assert len(missing) <= self._named() + spoilt, f"lost in silence: {sorted(missing)}"
        assert (waiting | parked) <= self.acknowledged, "something was invented"
        if not self.is_damaged:
            assert (books.captured, books.lost) == (len(self.acknowledged), 0), "the books hold not what was captured"

    def _spoilt(self) -> int:
        """Records in envelopes whose damage nobody has noticed yet."""
        if not self.is_damaged:
            return 0
        rows = sql_of(self.main.outbox).execute("SELECT * FROM envelope").fetchall()
        return sum(each.records for row in rows if not (each := Envelope(*row)).is_intact)

    def _named(self) -> int:
        """Records that may be missing: those that gaps name, and in place of as many of those that are in doubt.

        What a salvage finds only in an older version of a page may be delivered already. It is kept, as doubtful, and
        fills the place of one that was lost.
        """
        estimates = [gap.estimate for gap in self.main.outbox.gaps() if gap.source == "outbox"]
        if None in estimates:
            return 1_000_000
        (waiting,) = sql_of(self.main.outbox).execute("SELECT total(records) FROM envelope WHERE doubtful").fetchone()
        in_doubt = self.main.outbox.tally(QUERIES).possible_duplicates + int(waiting)
        return sum(estimate or 0 for estimate in estimates) + (in_doubt if self.is_damaged else 0)

    def recover(self) -> None:
        """Every fault is over and good records come: all arrive, each once, but what is parked or named as lost."""
        self.backend.mood, self.backend.is_deadly = Mood.WELL, False
        self.free_the_disk()
        self.clock.turn(2 * RETRY_AFTER_CAP_S)  # a date is measured by a wall clock that may have jumped
        last = self.source.rows
        for each in (self.backend.bad, self.backend.skipped):
            each.intersection_update(f"r{number}" for number in range(last))  # bad ones at the very end would be held
        for _ in range(ROUNDS):
            self.look(self.batch)
            for station in (self.main, *self.copies):
                station.live(ROUND_S)
        self.check()
        assert self._at() == self.source.rows, "not everything was collected"
        self._account_for_all()

    def _account_for_all(self) -> None:
        waiting, parked = self.present()
        books = self.main.outbox.tally(QUERIES)
        assert (waiting, books.pending) == (set(), 0), "not everything was drained"
        stored = self.backend.stored
        missing = self.acknowledged - parked - stored.keys()
        assert len(missing) <= self._named()
        assert stored.keys() <= self.acknowledged, "something was invented"
        doubled = {each for each, keys in stored.items() if len(keys) > 1}
        if self.backend.honours_keys:
            foreign = {each for each in doubled if not _is_one_line(stored[each])}
            assert foreign == set(), f"doubled in spite of keys: {[(each, stored[each]) for each in foreign]}"
        # What was offered in vain once and lost afterwards is called lost, not delivered.
        counted = books.possible_duplicates + books.lost + self.excused
        assert len(doubled - parked) <= counted, f"{len(doubled)} doubled, {counted} counted"
        lost = {each for each in self.results if not self.backend.results[each]}
        assert len(lost) <= (self.main.outbox.tally("command_result").lost if self.is_damaged else 0)
        self.happened["records"] += len(self.acknowledged)
        self.happened["doubled"] += len(doubled)
        self.happened["lost by damage"] += len(missing)

    def close(self) -> None:
        """The end of the world."""
        for station in (self.main, *self.copies):
            station.outbox.close()


def _is_one_line(keys: Sequence[str]) -> bool:
    """Whether these are an envelope and parts of it: it was split after it was stored and the answer lost."""
    return len(set(keys)) == len(keys) and all(max(keys, key=len).startswith(key) for key in keys)


def copy(directory: Path, to: Path) -> None:
    """The files as they stand; of the ballast the names are enough."""
    to.mkdir(mode=0o700)
    for path in directory.iterdir():
        if path.name not in NAMES:
            shutil.copyfile(path, to / path.name)


def torn(mark: bytes, rng: random.Random) -> bytes:
    """The mark with some of its sectors not as they were written."""
    sectors = [mark[at : at + 512] for at in range(0, len(mark), 512)]
    return b"".join(bytes(512) if rng.random() < 0.2 else sector for sector in sectors)
