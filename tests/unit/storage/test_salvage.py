"""A damaged outbox is rebuilt from what can be read.

What could go wrong: a number is given a second time; a bookmark goes on from where something would be read again, or
is given up though it holds; what may have been delivered is taken for new; a loss is not named, or one is named that
is none; the rebuilt file lies beside a WAL of the damaged one; a file that was kept is written over; a swap that was
cut is begun anew with nothing in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.envelope import Change, Draft, Gap
from storage.high_water import FILE_NAME as MARK
from storage.high_water import HighWater, newest
from storage.notes import ANY
from storage.outbox import FILE_NAME, Outbox
from storage.salvage import DAMAGED, MISSING, ROLLED_BACK, Report, salvage
from storage.swap import REBUILDING, REBUILT, finish_swap
from tests.faults.played import waiting

TOPIC, NOW = "queries", datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()
KEPT = "outbox.damaged-20240501T120000Z"


def describe(_: bytes) -> tuple[str, int] | None:
    return None


def make(directory: Path, *, delivered: int = 0, looks: int = 6) -> tuple[Path, HighWater]:
    """Six looks of one envelope with 10 records each, closed; the first ones delivered; and the mark."""
    with closing(Outbox(directory, topics=(TOPIC,))) as outbox:
        for number in range(looks):
            outbox.commit(Change((Draft(TOPIC, 10, b"look %d" % number),), {"watch": b"%d" % number}, notes={"n": "1"}))
        for _ in range(delivered):
            head = outbox.head(TOPIC)
            assert head is not None
            outbox.accept(head, delivered=10)
    found = newest(directory / MARK)[1]
    assert found is not None
    return outbox.path, found


def rebuild(path: Path, mark: HighWater | None, reason: str = DAMAGED) -> Report:
    return salvage(path, reason, mark, describe, NOW)


def opened(path: Path) -> Outbox:
    return Outbox(path.parent, topics=(TOPIC,))


def seqs(outbox: Outbox) -> list[int]:
    return [each.seq for each in waiting(outbox).values()]


# -- what is in the new file -----------------------------------------------------------------------------------------


def test_where_nothing_is_damaged_all_of_it_is_there_again(tmp_path: Path) -> None:
    path, mark = make(tmp_path, delivered=2)
    with closing(opened(path)) as outbox:
        before, name, books = waiting(outbox), outbox.installation, outbox.tally(TOPIC)
    damaged = path.read_bytes()
    report = rebuild(path, mark)
    assert report == Report(DAMAGED, KEPT, 40, 0, ())
    assert path.with_name(KEPT).read_bytes() == damaged
    with closing(opened(path)) as outbox:
        assert waiting(outbox) == before
        assert (outbox.installation, outbox.tally(TOPIC)) == (name, books)
        assert (outbox.bookmark("watch"), outbox.note("n"), outbox.gaps()) == (b"5", "1", [])
        assert not outbox.has_lost_bookmark("watch")


def test_the_same_file_twice_gives_the_same_outbox(tmp_path: Path) -> None:
    path, mark = make(tmp_path, delivered=1)
    rebuild(path, mark)
    with closing(opened(path)) as outbox:
        once = waiting(outbox)
    rebuild(path, mark)
    with closing(opened(path)) as outbox:
        assert waiting(outbox) == once
    assert sorted(each.name for each in tmp_path.glob("outbox.damaged-*")) == [KEPT, f"{KEPT}-2"]


def test_a_number_that_was_given_once_is_not_given_again(tmp_path: Path) -> None:
    path, mark = make(tmp_path, delivered=6)
    rebuild(path, replace(mark, high=50))
    with closing(opened(path)) as outbox:
        outbox.commit(Change((Draft(TOPIC, 1, b"new"),)))
        assert seqs(outbox) == [51]


def test_a_missing_file_becomes_an_empty_one_that_knows_what_it_lost(tmp_path: Path) -> None:
    path, mark = make(tmp_path, delivered=2)
    path.unlink()
    report = rebuild(path, mark, MISSING)
    assert report == Report(MISSING, None, 0, 40, ("watch",))
    with closing(opened(path)) as outbox:
        detail = "there was no file any more; envelopes lost between 3 and 6"
        assert outbox.gaps() == [Gap("outbox", MISSING, None, None, 40, detail)]
        tally = outbox.tally(TOPIC)
        assert (tally.captured, tally.delivered, tally.lost, tally.pending) == (60, 20, 40, 0)
        assert (outbox.installation, outbox.has_lost_bookmark("watch")) == (mark.installation, True)


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (
            Report(DAMAGED, KEPT, 1_234, 0, ()),
            f"damaged: 1,234 records saved, 0 lost; the damaged file is kept as {KEPT}",
        ),
        (Report(ROLLED_BACK, None, 1, None, ()), "rolled back: 1 records saved, an unknown number of lost"),
    ],
)
def test_it_is_told_in_a_sentence(report: Report, sentence: str) -> None:
    assert str(report) == f"The outbox was {sentence}"


# -- doubt -----------------------------------------------------------------------------------------------------------


def doubtful(path: Path) -> set[bool]:
    with closing(opened(path)) as outbox:
        return {bool(each.doubtful) for each in waiting(outbox).values()}


def test_what_may_have_been_delivered_meanwhile_is_doubtful(tmp_path: Path) -> None:
    for name, reason, changed, expected in (
        ("known", DAMAGED, {}, False),
        ("back", ROLLED_BACK, {}, True),
        ("behind", DAMAGED, {"books": {TOPIC: (60, 10, 0, 0, 0, 50, 30, 5, 0)}}, True),
    ):
        path, mark = make(tmp_path / name)
        rebuild(path, replace(mark, **changed), reason)  # type: ignore[arg-type]
        assert doubtful(path) == {expected}, name
    path, _ = make(tmp_path / "unknown")
    rebuild(path, None)
    assert doubtful(path) == {True}


def test_what_the_mark_knows_as_settled_is_not_there_again(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    books = {TOPIC: (60, 40, 0, 0, 0, 20, 12, 2, 0)}
    report = rebuild(path, replace(mark, low=5, first={TOPIC: 5}, books=books), ROLLED_BACK)
    assert (report.saved, report.lost) == (20, 0)
    with closing(opened(path)) as outbox:
        assert (seqs(outbox), outbox.tally(TOPIC).balances) == ([5, 6], True)


# -- bookmarks -------------------------------------------------------------------------------------------------------
# The file's bookmark stands at envelope 6. A mark that says more knows of looks that the file does not know.


@pytest.mark.parametrize(
    ("changed", "may_go_on"),
    [
        ({}, True),
        ({"bookmarks": {"watch": 3}}, True),  # the mark may be behind
        ({"bookmarks": {"watch": 9}, "high": 9}, True),  # all of 7 to 9 is lost here and is read again
        ({"bookmarks": {"watch": 9}, "high": 9, "low": 8}, False),  # 7 was settled
        ({"bookmarks": {"watch": 9}, "high": 9, "books": {TOPIC: (90, 10, 0, 0, 0, 80, 48, 8, 0)}}, False),
        ({"bookmarks": {"watch": 6, "other": 2}}, True),
    ],
)
def test_a_bookmark_is_gone_on_from_only_where_nothing_would_come_twice(
    tmp_path: Path, changed: Mapping[str, object], may_go_on: bool
) -> None:
    path, mark = make(tmp_path)
    report = rebuild(path, replace(mark, **changed), ROLLED_BACK)  # type: ignore[arg-type]
    assert ("watch" not in report.bookmarks) is may_go_on
    with closing(opened(path)) as outbox:
        assert outbox.bookmark("watch") == (b"5" if may_go_on else None)
        assert outbox.has_lost_bookmark("watch") is not may_go_on
        assert outbox.has_lost_bookmark("other") is ("other" in report.bookmarks)


def test_a_bookmark_that_is_behind_what_was_kept_is_not_gone_on_from(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    with closing(opened(path)) as outbox:
        outbox.commit(Change((Draft(TOPIC, 10, b"look 6"),)))  # kept, and behind the bookmark
    report = rebuild(path, replace(mark, bookmarks={"watch": 7}, high=7), ROLLED_BACK)
    assert report.bookmarks == ("watch",)


@pytest.mark.parametrize("watches", [3, 100])
def test_a_file_from_a_backup_is_gone_on_from_in_none_of_many_databases(watches: int, tmp_path: Path) -> None:
    names = [f"a-database-of-long-name-{number}" for number in range(watches)]

    def look(outbox: Outbox, what: str) -> None:
        for number, name in enumerate(names):
            outbox.commit(Change((Draft(TOPIC, 1, f"{what} {number}".encode()),), {name: what.encode()}))

    with closing(Outbox(tmp_path, topics=(TOPIC,))) as outbox:
        look(outbox, "before")
        (tmp_path / "backup").write_bytes(_whole(tmp_path))
        look(outbox, "behind")
        while (head := outbox.head(TOPIC)) is not None:
            outbox.accept(head, delivered=1)
    for each in (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"):
        (tmp_path / each).unlink(missing_ok=True)
    (tmp_path / "backup").rename(tmp_path / FILE_NAME)
    told: list[str] = []
    with closing(Outbox(tmp_path, topics=(TOPIC,), describe=describe, on_loss=told.append)) as outbox:
        assert [sentence.split(":")[0] for sentence in told] == ["The outbox was rolled back"]
        assert [name for name in names if not outbox.has_lost_bookmark(name)] == []
        assert len(outbox.gaps()) == 1


def test_of_many_databases_those_whose_bookmark_is_whole_are_gone_on_from_in_a_damaged_file(tmp_path: Path) -> None:
    names = [f"a-database-of-long-name-{number}" for number in range(100)]
    with closing(Outbox(tmp_path, topics=(TOPIC,))) as outbox:
        for name in names:
            outbox.commit(Change((Draft(TOPIC, 1, name.encode()),), {name: b"7"}))
        mark = newest(tmp_path / MARK)[1]
    assert mark is not None
    assert mark.bookmarks == {ANY: 100}  # so many that the names have no room
    rebuild(outbox.path, mark)
    with closing(opened(outbox.path)) as again:
        assert {again.bookmark(name) for name in names} == {b"7"}
        assert [name for name in names if again.has_lost_bookmark(name)] == []


def _whole(directory: Path) -> bytes:
    """The file as SQLite has it now, with what stands in the WAL."""
    copy = directory / "snapshot"
    with closing(sqlite3.connect(directory / FILE_NAME)) as live, closing(sqlite3.connect(copy)) as target:
        live.backup(target)
    content = copy.read_bytes()
    copy.unlink()
    return content


def test_without_a_mark_nobody_knows_which_bookmarks_there_were(tmp_path: Path) -> None:
    path, _ = make(tmp_path)
    report = rebuild(path, None)
    assert report.bookmarks == (ANY,)
    with closing(opened(path)) as outbox:
        assert outbox.bookmark("watch") == b"5"  # this one is there
        assert (outbox.has_lost_bookmark("watch"), outbox.has_lost_bookmark("other")) == (False, True)


def test_a_lost_bookmark_is_lost_until_the_next_look_is_saved(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    path.unlink()
    rebuild(path, mark, MISSING)
    with closing(opened(path)) as outbox:
        assert outbox.has_lost_bookmark("watch")
        outbox.commit(Change(bookmarks={"watch": b"new"}))
        assert not outbox.has_lost_bookmark("watch")
    with closing(opened(path)) as outbox:
        assert (outbox.has_lost_bookmark("watch"), outbox.bookmark("watch")) == (False, b"new")


# -- the swap --------------------------------------------------------------------------------------------------------


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def put(directory: Path, **names: bytes) -> Path:
    known = {"db": FILE_NAME, "wal": f"{FILE_NAME}-wal", "shm": f"{FILE_NAME}-shm", "kept": KEPT}
    known |= {"kept_wal": f"{KEPT}-wal", "building": REBUILDING, "built": REBUILT, "journal": f"{REBUILDING}-journal"}
    directory.mkdir(exist_ok=True)
    for name, content in names.items():
        (directory / known[name]).write_bytes(content)
    return directory / FILE_NAME


@pytest.mark.parametrize(
    ("before", "after", "was_ended"),
    [
        ({"db": b"d", "wal": b"w"}, {"db": b"d", "wal": b"w"}, False),
        # Not whole yet: the damaged file is as it was.
        ({"db": b"d", "wal": b"w", "building": b"?", "journal": b"j"}, {"db": b"d", "wal": b"w"}, False),
        ({"db": b"d", "wal": b"w", "built": b"n"}, {"db": b"d", "wal": b"w"}, False),
        # Cut after the damaged file, after its WAL, before the last step.
        ({"kept": b"d", "wal": b"w", "built": b"n"}, {"kept": b"d", "kept_wal": b"w", "db": b"n"}, True),
        (
            {"kept": b"d", "kept_wal": b"w", "shm": b"s", "built": b"n"},
            {"kept": b"d", "kept_wal": b"w", "db": b"n"},
            True,
        ),
        ({"kept": b"d", "built": b"n"}, {"kept": b"d", "db": b"n"}, True),
        ({"built": b"n"}, {"db": b"n"}, True),
    ],
)
def test_a_swap_that_was_cut_is_ended_or_forgotten(
    tmp_path: Path, before: dict[str, bytes], after: dict[str, bytes], was_ended: bool
) -> None:
    path = put(tmp_path / "cut", **before)
    put(tmp_path / "expected", **after)
    assert finish_swap(path) is was_ended
    assert contents(path.parent) == contents(tmp_path / "expected")
    assert finish_swap(path) is False


def test_the_wal_of_an_earlier_kept_file_is_not_written_over(tmp_path: Path) -> None:
    path = put(tmp_path, kept=b"older", kept_wal=b"older wal", wal=b"newer wal", built=b"n")
    finish_swap(path)
    found = contents(tmp_path)
    assert (found[KEPT], found[f"{KEPT}-wal"], found[FILE_NAME]) == (b"older", b"older wal", b"n")
    assert b"newer wal" in found.values()


def test_a_swap_that_is_ended_at_a_start_is_told(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    rebuild(path, mark)
    path.rename(path.with_name(REBUILT))
    told: list[str] = []
    with closing(Outbox(tmp_path, topics=(TOPIC,), on_loss=told.append)) as outbox:
        assert seqs(outbox) == [1, 2, 3, 4, 5, 6]
    assert [sentence[:27] for sentence in told] == ["The outbox had been rebuilt"]
