"""The gaps of an outbox.

What could go wrong: a loss that repeats for ever fills the disk, the memory or the start; making room loses a number, a
date or a reason, makes an unknown number a known one, or pushes out what is rare; a row that a disk changed is made
right; a gap takes the number of another one; what the runners hear is behind what is written, or costs each commit.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import findings, gaps, images
from storage.audit import audit
from storage.books import unnamed
from storage.envelope import Change, Draft, Gap, Losses, LossSum
from storage.errors import OutboxDamaged
from storage.guard import guard
from storage.outbox import FILE_NAME, Outbox
from storage.schema import COLUMNS, migrate
from storage.view import OutboxView
from tests.fakes.inside import sql_of

MANY = 100_000


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        migrate(connection, 0)
        yield connection


def rotated(number: int) -> Gap:
    return Gap("watch", "rotated", f"from {number:06d}", f"to {number:06d}", number, f"number {number}")


def intact(sql: sqlite3.Connection) -> bool:
    rows = sql.execute(f"SELECT {', '.join(COLUMNS['gap'])} FROM gap").fetchall()
    return all(row[-1] == guard("gap", *row[:-1]) for row in rows)


def flood(directory: Path, count: int = MANY) -> None:
    """Puts gaps into the file as an agent that knew no bound would have."""
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as sql:
        sql.execute("BEGIN")
        for number in range(count):
            row = (number + 1, "watch", "rotated", "a", "b", 2, "d", 1.0, 1)
            sql.execute(f"INSERT INTO gap VALUES ({', '.join('?' * 10)})", _as_stored(sql, row))
        sql.execute("COMMIT")


def _as_stored(sql: sqlite3.Connection, row: tuple[object, ...]) -> list[object]:
    named = dict(zip(COLUMNS["gap"], (*row, guard("gap", *row)), strict=True))  # type: ignore[arg-type]
    return [named[each[1]] for each in sql.execute("PRAGMA table_info(gap)")]


def test_gaps_are_read_as_they_were_entered_and_never_share_a_number(sql: sqlite3.Connection) -> None:
    first, second = Gap("watch", "rotated", "a", "b", 3, "why"), Gap("outbox", "damaged")
    gaps.enter(sql, first, 1)
    sql.execute("DELETE FROM gap")
    gaps.enter(sql, second, 2)
    gaps.enter(sql, first, 3)
    assert (gaps.all_of(sql), [gap.at for gap in gaps.all_of(sql)]) == ([second, first], [2.0, 3.0])
    assert (sql.execute("SELECT id FROM gap").fetchall(), gaps.so_far(sql)) == ([(2,), (3,)], 3)


def test_the_newest_and_the_sums_are_told(sql: sqlite3.Connection) -> None:
    assert gaps.losses(sql) == Losses()
    for number in range(7):
        gaps.enter(sql, rotated(number), number)
    gaps.enter(sql, Gap("watch", "rotated"), 8)
    gaps.enter(sql, Gap("outbox", "damaged", estimate=5), 9)
    found = gaps.losses(sql)
    assert found.sums == (LossSum("watch", "rotated", 8, 21, 1), LossSum("outbox", "damaged", 1, 5, 0))
    assert [gap.at for gap in found.newest] == [9.0, 8.0, 6.0, 5.0, 4.0]


def test_what_is_frequent_makes_room_for_itself_and_what_is_rare_stays(
    sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "KEPT", 6)
    rare = [Gap("outbox", "damaged", estimate=4, detail="kept as x"), Gap("other", "reset", "a", "b")]
    for each in rare:
        gaps.enter(sql, each, 1)
    for number in range(20):
        gaps.enter(sql, rotated(number), 10 + number)
    joined = Gap("watch", "rotated", "from 000000", "to 000016", sum(range(17)), "number 16", 17)
    assert gaps.all_of(sql) == [*rare, joined, rotated(17), rotated(18), rotated(19)]
    assert (gaps.all_of(sql)[2].at, gaps.so_far(sql), intact(sql)) == (26.0, 22, True)


def test_an_unknown_number_stays_unknown_and_a_known_one_known(
    sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "KEPT", 2)
    for number in range(10):
        gaps.enter(sql, Gap("outbox", "damaged", estimate=number if number % 2 else None), number)
    assert gaps.losses(sql).sums == (LossSum("outbox", "damaged", 10, 25, 5),)
    assert sorted((gap.estimate or 0, gap.times) for gap in gaps.all_of(sql)) == [(0, 5), (25, 5)]
    assert unnamed(1_000, gaps.losses(sql).sums) == 0  # a number that nobody knows names any


def test_kinds_of_one_are_never_joined(sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "KEPT", 3)
    each = [Gap(f"w{number}", "reset") for number in range(5)]
    for gap in each:
        gaps.enter(sql, gap, 1)
    assert gaps.all_of(sql) == each


def test_a_row_that_a_disk_changed_is_not_made_right(sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "KEPT", 3)
    for number in range(3):
        gaps.enter(sql, rotated(number), number)
    sql.execute("UPDATE gap SET estimate = 77 WHERE id = 1")
    with pytest.raises(OutboxDamaged, match="gap 1 is not what was written"):
        gaps.enter(sql, rotated(3), 3)


KINDS = st.tuples(st.sampled_from(["a", "b", "outbox"]), st.sampled_from(["x", "y"]), st.none() | st.integers(0, 9))


@given(st.lists(KINDS, max_size=60), st.integers(1, 12))
def test_however_many_come_no_sum_changes_and_there_are_not_more_than_kinds_and_the_bound(
    entered: list[tuple[str, str, int | None]], kept: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        patch.setattr(gaps, "KEPT", kept)
        migrate(sql, 0)
        times, estimates, unknown = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for at, (source, reason, estimate) in enumerate(entered):
            gaps.enter(sql, Gap(source, reason, None, None, estimate), at)
            times[source, reason] += 1
            estimates[source, reason] += estimate or 0
            unknown[source, reason] += estimate is None
        found = gaps.losses(sql).sums
        expected = {LossSum(*kind, times[kind], estimates[kind], unknown[kind]) for kind in times}
        assert (set(found), len(found)) == (expected, len(expected))
        kinds = {(source, reason, estimate is None) for source, reason, estimate in entered}
        assert len(gaps.all_of(sql)) <= max(kept, len(kinds))
        assert (gaps.so_far(sql), intact(sql)) == (len(entered), True)


# -- in an outbox ------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_gaps_become_few_at_the_start_and_nothing_of_them_is_forgotten(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    flood(tmp_path)
    heard: list[Losses] = []
    with closing(Outbox(tmp_path, topics=("queries",), on_gaps=heard.append)) as outbox:
        assert (len(outbox.gaps()), outbox.tally("queries").gaps) == (gaps.KEPT, MANY)
    sums = (LossSum("watch", "rotated", MANY, 2 * MANY, 0),)
    assert [each.sums for each in heard] == [sums]
    assert [len(each.newest) for each in heard] == [gaps.NEWEST]
    found = audit(tmp_path)
    assert (found.losses.sums, len(found.losses.newest), found.balances) == (sums, gaps.KEPT, True)
    with OutboxView(tmp_path) as view:
        assert view.losses() == heard[0]


def test_the_runners_hear_of_a_gap_when_there_is_a_new_one_and_only_then(tmp_path: Path) -> None:
    heard: list[int] = []
    asked: list[str] = []

    def hear(losses: Losses) -> None:
        heard.append(sum(each.times for each in losses.sums))

    with closing(Outbox(tmp_path, topics=("queries",), on_gaps=hear)) as outbox:
        assert heard == [0]
        sql_of(outbox).set_trace_callback(asked.append)
        outbox.commit(Change((Draft("queries", 3, b"body"),)))
        assert (heard, [each for each in asked if "FROM gap" in each]) == ([0], [])
        outbox.commit(Change(gaps=(rotated(1), rotated(2))))
        assert (heard, [each for each in asked if "GROUP BY source, reason" in each] != []) == ([0, 2], True)
        outbox.commit(Change((Draft("queries", 3, b"body"),)))
    assert heard == [0, 2]


def test_the_runners_hear_of_a_gap_also_without_books(tmp_path: Path) -> None:
    heard: list[Losses] = []
    with closing(Outbox(tmp_path, on_gaps=heard.append)) as outbox:
        outbox.commit(Change(gaps=(rotated(1),)))
    assert [each.newest for each in heard] == [(), (rotated(1),)]


def test_what_could_not_be_committed_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Losses] = []
    with closing(Outbox(tmp_path, topics=("queries",), on_gaps=heard.append)) as outbox:
        monkeypatch.setattr("storage.notes.put_marks", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            outbox.commit(Change(gaps=(rotated(1),)))
        monkeypatch.undo()
        outbox.commit(Change())
        assert (heard, outbox.gaps()) == ([Losses()], [])


def gap_lost(count: int) -> Gap:
    detail = f"what {count} gaps said of earlier losses cannot be read any more"
    return Gap("outbox", "damaged", estimate=None, detail=detail)


def change_two_gaps(directory: Path) -> None:
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as other:
        assert other.execute("UPDATE gap SET estimate = estimate + 1000 WHERE id > 1").rowcount == 2


THREE = [rotated(1), rotated(2), rotated(3)]


def test_a_gap_that_a_disk_changed_is_told_no_more_and_that_is_told(tmp_path: Path) -> None:
    heard: list[Losses] = []
    told: list[str] = []
    first = Change((Draft("queries", 1, b"body"),), bookmarks={"watch": b"1"}, gaps=tuple(THREE))
    with closing(Outbox(tmp_path, topics=("queries",))) as outbox:
        outbox.commit(first)
    change_two_gaps(tmp_path)
    with closing(Outbox(tmp_path, topics=("queries",), on_gaps=heard.append, on_loss=told.append)) as outbox:
        assert (outbox.gaps(), len(told), outbox.tally("queries").pending) == ([rotated(1), gap_lost(2)], 1, 1)
        assert heard[-1].newest == (gap_lost(2), rotated(1))
    assert audit(tmp_path).balances


def test_one_that_is_changed_while_it_runs_is_noticed_with_the_next_and_found_in_the_wal(tmp_path: Path) -> None:
    heard: list[Losses] = []
    with closing(Outbox(tmp_path, topics=("queries",), on_gaps=heard.append)) as outbox:
        outbox.commit(Change((Draft("queries", 1, b"body"),), bookmarks={"watch": b"1"}, gaps=tuple(THREE)))
        change_two_gaps(tmp_path)
        outbox.commit(Change())  # costs no look at the gaps
        with pytest.raises(OutboxDamaged):
            outbox.commit(Change(gaps=(rotated(4),)))
        outbox.commit(Change(gaps=(rotated(4),)))
        assert outbox.gaps() == [*THREE, rotated(4)]
        assert heard[-1].sums == (LossSum("watch", "rotated", 4, 10, 0),)
    assert audit(tmp_path).balances


@pytest.mark.parametrize("closed", [True, False])
def test_a_rebuilt_outbox_has_them_all_and_tells_them_with_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(gaps, "KEPT", 10)
    heard: list[Losses] = []
    outbox = Outbox(tmp_path, topics=("queries",), on_gaps=heard.append)
    for number in range(40):
        outbox.commit(Change((Draft("queries", 1, b"body %d" % number),), gaps=(rotated(number),)))
    if closed:
        outbox.close()
        outbox = Outbox(tmp_path, topics=("queries",), on_gaps=heard.append)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("UPDATE tally SET guard = x'00'")
    with pytest.raises(OutboxDamaged):
        outbox.tally("queries")
    outbox.commit(Change())
    (sums,) = [each for each in heard[-1].sums if each.source == "watch"]
    assert (sums.estimate, sums.times, outbox.tally("queries").gaps >= 40) == (sum(range(40)), 40, True)
    outbox.close()
    assert audit(tmp_path).balances


def test_of_the_rows_of_one_number_the_newest_is_found_in_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "KEPT", 2)
    seen: list[int] = []
    holds = findings._holds

    def note(table: str, values: tuple[Any, ...], check: bytes) -> bool:
        if table == "gap" and values[0] == 1:
            seen.append(values[-1])
        return holds(table, values, check)

    monkeypatch.setattr(findings, "_holds", note)
    with closing(Outbox(tmp_path)) as outbox:
        for number in range(1, 9):
            outbox.commit(Change(gaps=(rotated(number),)))
        with images.opened(outbox.path) as there:
            found = findings.find(there, lambda _: None, None)
    assert (found.gaps[1][1][-1], set(seen) >= {1, 2, 3, 7}, seen[-1] < 7) == (7, True, True)
