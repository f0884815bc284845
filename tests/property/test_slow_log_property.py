"""Random lives of a slow log table against a model of it; the source's own code runs, only its connection is a fake.

What could go wrong: some order of appends, turns cut short, crashes before a commit, rotations with and without a
backup that can be read, rotations in the middle of reading one, purges and restarts makes the source skip a row, take
one twice, keep silent about a loss, or tell of one that did not happen; the agent's own rotation, cut off anywhere,
drops what is not stored or is somebody else's; a time is called sure and is not, because the
client lives elsewhere, made its time up, summer began, or a clock was set; a record's id changes when it is read again.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.config.schema import DbConfig
from agent.record import Record
from agent.source_errors import DatabaseAway, RotationRefused
from agent.sources import Reading, SourceSettings
from agent.sources._mysql_session import Row
from agent.sources._slow_log_place import LIVE, OLD, Place, decode, digest
from agent.sources._slow_log_rotation import Rotation
from agent.sources._slow_log_times import BOUNDED
from agent.sources.mysql_slow_log import SlowLogTable
from storage.envelope import Gap
from tests.fakes.slow_log import BACKUP, FakeServer, FakeSession, TurnedClock

SECONDS_DOWN = 100
ZONES_S = [0, 0, 0, 37_800, -39_600, 900, 46_800]
clients = st.tuples(st.sampled_from(ZONES_S), st.sampled_from([False, False, False, True]))


class SlowLogLife(RuleBasedStateMachine):
    """`lost`: what no reader could have had. A row is delivered once, or was lost, and then a gap said so."""

    @initialize(rotates=st.booleans())
    def begin(self, rotates: bool) -> None:
        self.clock = TurnedClock()
        self.server = FakeServer(self.clock)
        self.server.on_drop = self._dropped
        self.rotates = rotates
        self.serial = 0
        self.bookmark: bytes | None = None
        self.appended: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.ids: dict[str, str] = {}
        self.gaps: list[Gap] = []
        self.restarted = self.purged = self.rotated = self.twins = self.uncounted = self.late = self.stepped = False
        self.unread_top = False
        self.source = self._source()

    def _source(self) -> SlowLogTable:
        settings = SourceSettings("default", DbConfig(host="h", user="u", rotate=self.rotates), 3306)
        connect = partial(FakeSession, self.server)
        return SlowLogTable(settings, self.clock, lambda _: connect(), lambda _: connect())

    def _readings(self) -> Generator[Reading]:
        with closing(self.source.read(self.bookmark)) as readings, suppress(RotationRefused):
            yield from readings

    def _next(self) -> int:
        self.serial += 1
        return self.serial

    def _note(self, texts: list[str]) -> None:
        self.appended.update(texts)

    # -- what happens at the server --------------------------------------------------------------------------------

    @rule(count=st.integers(1, 8), client=clients)
    def append(self, count: int, client: tuple[int, bool]) -> None:
        zone_s, made_up = client
        self._note([self.server.append(self._next(), zone_s, made_up=made_up) for _ in range(count)])

    @rule(count=st.integers(1, 3), client=clients)
    def count_before_writing(self, count: int, client: tuple[int, bool]) -> None:
        """Rows that look and rotation do not see, although the server has counted them."""
        for _ in range(count):
            self.server.count(self._next(), client[0], made_up=client[1])
        self.late = True

    @rule()
    def write_what_is_counted(self) -> None:
        self._note(self.server.write())

    # a twin in a purged place cannot be told apart
    @precondition(lambda self: self.server.log and not self.purged)
    @rule()
    def append_a_twin(self) -> None:
        self._note([self.server.repeat()])
        self.twins = True

    @rule(table=st.sampled_from([BACKUP, BACKUP, "elsewhere"]))
    def rotate(self, table: str) -> None:
        if self.bookmark is None or decode(self.bookmark).spare is None:
            self.uncounted = True  # the source has no count of the server's yet to compare with
        self.unread_top |= self._was_empty() or self._rest_of(self._place()) is not None
        self.server.rename(table)
        self.rotated, self.twins = True, False

    @rule(readable=st.booleans())
    def grant_the_backup(self, readable: bool) -> None:
        self.server.unreadable = set() if readable else {BACKUP}

    @rule()
    def drop_the_backup(self) -> None:
        self.server.tables.pop(BACKUP, None)

    @precondition(lambda self: len(self.server.log) > 2 and not self.twins and not self.rotated)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """Rows that were read are deleted, row 0 stays; what is unread at the next look cannot be told apart."""
        read = [at for at, row in enumerate(self.server.log) if self.delivered[row[8].decode()]]
        if len(read) < 2 or self.purged:
            return
        gone = data.draw(st.integers(1, len(read) - 1))
        del self.server.log[1 : 1 + gone]
        self.purged = True

    @rule()
    def restart_the_server(self) -> None:
        self.server.restart(SECONDS_DOWN)
        self.restarted = True

    @rule(life=st.integers(2, 5))
    def restart_the_server_within_seconds(self, life: int) -> None:
        """It is looked at shortly before and after; when it was started, hardly tells the two runs apart."""
        self.restart_the_server()
        self.server.advance(life)
        self.look(0, None)
        self.server.restart(0)
        self.restarted = True
        self.append(1, (0, False))
        self.look(0, None)

    @rule(seconds=st.sampled_from([1, 20, 300, 2_000]))
    def time_passes(self, seconds: int) -> None:
        self.server.advance(seconds)

    @rule(seconds=st.sampled_from([-4_000, -100, -3, 3, 100, 4_000]))
    def set_the_servers_clock(self, seconds: int) -> None:
        self.server.clock_s += seconds
        self.stepped = True
        # A server that says it has hardly run yet is taken for another run.
        self.restarted |= self.server.clock_s - self.server.since_s < SECONDS_DOWN

    @rule(seconds=st.sampled_from([-86_400, 5_000]))
    def set_the_agents_clock(self, seconds: int) -> None:
        self.clock.seconds += seconds

    @rule(zone_s=st.sampled_from([0, 3_600, 19_800]))
    def change_to_summer_time(self, zone_s: int) -> None:
        self.server.zone_s = zone_s

    @rule(read_only=st.booleans())
    def make_the_server_a_replica(self, read_only: bool) -> None:
        self.server.read_only = read_only

    @precondition(lambda self: OLD not in self.server.tables)
    @rule()
    def take_the_name_of_the_agents_own_table(self) -> None:
        self.server.tables[OLD] = [make_foreign_row()]

    # -- what the agent does ---------------------------------------------------------------------------------------

    @rule()
    def restart_the_agent(self) -> None:
        self.source.close()
        self.source = self._source()

    @rule(take=st.integers(0, 5), commit=st.integers(0, 5))
    def look_cut_short(self, take: int, commit: int) -> None:
        """Some readings are taken, fewer are committed, and the connection or the agent goes."""
        with closing(self._readings()) as readings:
            taken = [reading for reading, _ in zip(readings, range(take), strict=False)]
        for reading in taken[commit:]:
            self._check_ids(reading.records)
        for reading in taken[:commit]:
            self._keep(reading.records, reading.bookmark, reading.gaps)

    @precondition(lambda self: self.rotates)
    @rule(change=st.integers(1, 4), is_done=st.booleans(), commits=st.booleans())
    def look_that_dies_at_a_change(self, change: int, is_done: bool, commits: bool) -> None:
        """The connection or the agent goes while the server is told to create, rename or drop."""
        self.server.lost_at = (self.server.changes + change, is_done)
        with suppress(DatabaseAway):
            for reading in self._readings():
                if commits:
                    self._keep(reading.records, reading.bookmark, reading.gaps)
        self.server.lost_at = None
        self.restart_the_agent()

    @rule(during=st.integers(0, 3), rotated=st.none() | st.sampled_from([BACKUP, "elsewhere"]))
    def look(self, during: int, rotated: str | None) -> None:
        """A whole look; after its first reading at most `during` rows are appended, and the log is rotated."""
        position_was_0, reachable = self._was_empty(), self._reachable()
        for number, reading in enumerate(self._readings()):
            self._keep(reading.records, reading.bookmark, reading.gaps)
            if number == 0 and during:
                self.append(during, (0, False))
            if number == 0 and rotated:
                self.rotate(rotated)
        if not self.rotated or not rotated:
            assert reachable <= self.delivered + self.lost  # whatever else was lost now
        for reading in self._readings():  # the quiet end of it
            self._keep(reading.records, reading.bookmark, reading.gaps)
        self._check_books(position_was_0)

    def _keep(self, records: tuple[Record, ...], bookmark: bytes, gaps: tuple[Gap, ...]) -> None:
        self._check_ids(records)
        if any(gap.reason == "rows_removed" for gap in gaps):
            self.lost += self.appended - self.delivered - self.lost
        for record in records:
            self.delivered[record.sql_text] += 1
            self._check_time(record)
        self.gaps += gaps
        self.bookmark = bookmark

    def _place(self) -> Place:
        return decode(self.bookmark) if self.bookmark else Place()

    def _rest_of(self, place: Place) -> list[Row] | None:
        """The table where the generation of that place has gone, when it can be read there."""
        for name in (BACKUP, OLD):
            table = [] if name in self.server.unreadable else self.server.tables.get(name, [])
            is_long_enough = bool(place.first) and len(table) >= place.position
            if is_long_enough and (digest(table[0]), digest(table[place.position - 1])) == (place.first, place.last):
                return table
        return None

    def _reachable(self) -> Counter[str]:
        """What a reader with this bookmark can have: the log, and the rest of its generation where that went."""
        place = self._place()
        rows = list(self.server.log)
        if any(self.purged and digest(row) == place.first for row in rows):
            rows = []  # what was appended behind a purge cannot be told from what was read
        return Counter(row[8].decode() for row in rows + (self._rest_of(place) or []))

    def _was_empty(self) -> bool:
        """Whether the table was so at the last look to its end: what vanished since is known by the counter only."""
        place = self._place()
        return place.position == 0 or place.from_top

    def _dropped(self, rows: list[Row]) -> None:
        """What the agent drops is empty, or stored or told to its last row; the foreign row is neither."""
        accounted = self.delivered + self.lost
        assert all(accounted[row[8].decode()] for row in rows)

    # -- what must hold --------------------------------------------------------------------------------------------

    def _check_ids(self, records: tuple[Record, ...]) -> None:
        """The same row has the same id, wherever it is read; twins have two."""
        for record in records:
            if not self.twins and self.appended[record.sql_text] == 1:
                assert self.ids.setdefault(record.sql_text, record.id) == record.id
        assert len({record.id for record in records}) == len(records)

    def _check_time(self, record: Record) -> None:
        started = self.server.started_at[record.sql_text]
        is_twin = self.appended[record.sql_text] > 1  # a copy of an older stamp, which no server writes
        if record.start_time_confidence != BOUNDED and not self.stepped and not is_twin:
            assert abs(record.start_time.timestamp() - started) < 0.01

    def _check_books(self, position_was_0: bool) -> None:
        newly_lost = self.appended - self.delivered - self.lost
        self.lost += newly_lost
        assert self.delivered + self.lost == self.appended
        assert not Counter(row[8].decode() for row in self.server.log) & newly_lost or self.purged
        self._check_gaps(newly_lost.total(), position_was_0)
        self.gaps = []
        self.restarted = self.purged = self.rotated = self.uncounted = self.stepped = self.unread_top = False
        self.late = bool(self.server.waiting)

    def _check_gaps(self, lost: int, position_was_0: bool) -> None:
        told = [gap.estimate for gap in self.gaps]
        at_most = sum(estimate or 0 for estimate in told)
        # Of a table of which nothing was read the counter alone tells, and what it has only counted is no sure loss.
        unknowable = self.restarted or position_was_0 or self.uncounted or (self.late and self.unread_top)
        if lost and not unknowable:
            assert told != []
        if self.restarted or self.purged or self.uncounted or None in told:
            return
        if not self.late:
            assert at_most in ({0, lost} if position_was_0 else {lost})
        elif not unknowable:
            assert at_most >= lost

    @invariant()
    def nothing_comes_twice(self) -> None:
        assert self.delivered <= self.appended


def make_foreign_row() -> Row:
    return (b"2026-01-01 00:00:00", b"u", b"00:00:01", b"00:00:00", b"1", b"0", b"", b"1", b"SELECT 'foreign'", None)


@pytest.fixture(autouse=True)
def small_tables_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.sources._slow_log_rotation.LARGE_ROWS", 6)


SlowLogLife.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSlowLogLife = SlowLogLife.TestCase
# Without the minimizing of an example, which the controls do not need.
CONTROL = settings(max_examples=1_000, stateful_step_count=40, deadline=None, phases=[Phase.generate])


class _Credulous(SlowLogTable):
    def _find_again(self, place: Place) -> tuple[Place, tuple[Gap, ...]]:
        """Takes whatever stands under the name of the backup for what is unread."""
        if place.table == LIVE and BACKUP in self._tables.connected().server.tables:  # type: ignore[attr-defined]
            return replace(place.at_next_generation(unread=0), table=BACKUP), ()
        return super()._find_again(place)


class _Silent(SlowLogTable):
    def _find_again(self, place: Place) -> tuple[Place, tuple[Gap, ...]]:
        """Goes on as the source does, and says nothing."""
        return super()._find_again(place)[0], ()


class _ReadableLife(SlowLogLife):
    """The backup can be read: what may not be read is refused by the server before a source can be wrong."""

    grant_the_backup = None  # type: ignore[assignment]


@pytest.mark.parametrize("source", [_Credulous, _Silent])
def test_a_source_that_reads_another_table_or_tells_no_loss_is_found_out(
    monkeypatch: pytest.MonkeyPatch, source: type[SlowLogTable]
) -> None:
    monkeypatch.setattr(f"{__name__}.SlowLogTable", source)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(_ReadableLife, settings=CONTROL)


class _Hasty(Rotation):
    def swap(self, place: Place, scan_s: float) -> bool:
        """Drops the table right behind the swap, before anybody has stored its last rows."""
        done = super().swap(place, scan_s)
        if done:
            self._connect(self._settings).rows(f"DROP TABLE mysql.{OLD}")
        return done


def test_a_rotation_that_drops_before_all_is_stored_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.sources.mysql_slow_log.Rotation", _Hasty)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(SlowLogLife, settings=CONTROL)
