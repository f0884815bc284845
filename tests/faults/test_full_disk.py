"""An outbox on a disk of 2 MB that is full to the last byte, or on which no file can be made any more.

What could go wrong: a commit that finds no room changes half of something; what was acknowledged cannot leave any
more, because a DELETE needs room as well; somebody else takes each byte as soon as the outbox gives it up; an outbox
cannot be opened where there is no room; the ballast is gone for ever, or is made where there is no room for it.
Each test proves with statvfs that the disk is full; the controls do the same without the ballast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from storage import opening
from storage.ballast import NAMES, Ballast
from storage.connection import WAL_AUTOCHECKPOINT_PAGES
from storage.errors import OutboxError, OutboxFull
from storage.outbox import FILE_NAME, Outbox
from tests.faults.looks import BOOKMARK, Look, change, numbers, opened
from tests.faults.power_cuts import put as restore
from tests.faults.small_disk import Disk, Hog, tmpfs

TOPIC = "queries"
SIZES = {"small": 1_500, "middle": 20_000, "large": 150_000}
RECORDS = 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with tmpfs(tmp_path / "disk") as mounted:
        yield mounted


def captured(outbox: Outbox) -> int:
    return int(outbox.bookmark(BOOKMARK) or b"0")


def put(outbox: Outbox, size: int) -> None:
    outbox.commit(change(captured(outbox), RECORDS, size=size))


def grow(outbox: Outbox, size: int) -> None:
    """Commits until there is no room."""
    with suppress(OutboxFull):
        while True:
            put(outbox, size)


def some(outbox: Outbox, size: int) -> None:
    for _ in range(4):
        put(outbox, size)


def deliver(outbox: Outbox) -> list[int]:
    """One envelope, as the flusher does it; the records that are gone then."""
    envelope = outbox.head(TOPIC)
    if envelope is None:
        return []
    outbox.demand_recordable()
    outbox.offer(envelope)
    outbox.accept(envelope, delivered=envelope.records)
    return numbers(envelope.body)


def drain(outbox: Outbox, after_each: Callable[[], object] = lambda: None) -> list[int]:
    """Everything; `after_each` happens behind each envelope."""
    sent: list[int] = []
    while records := deliver(outbox):
        sent += records
        after_each()
    return sent


def demand_all_leaves(outbox: Outbox, after_each: Callable[[], object] = lambda: None) -> None:
    """Everything that was ever acknowledged leaves, each record once, and the books say so."""
    count = captured(outbox)
    assert count > 0
    assert drain(outbox, after_each) == list(range(count))
    look = Look.at(outbox)
    assert look.is_sound
    assert (look.captured, look.books[TOPIC][1], look.gaps) == (count, count, [])


def has_ballast(disk: Disk) -> bool:
    found = {(disk.path / name).exists() for name in NAMES}
    assert len(found) == 1, "all of it or none"
    return found.pop()


def without_ballast(disk: Disk) -> None:
    """The names are gone and with them the room."""
    for name in NAMES:
        (disk.path / name).unlink(missing_ok=True)


# -- full while it is open ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_commit_that_finds_no_room_changes_nothing_and_what_was_acknowledged_leaves(disk: Disk, size: int) -> None:
    with closing(opened(disk.path)) as outbox:
        grow(outbox, size)
        disk.hog()
        before = Look.at(outbox)
        with pytest.raises(OutboxFull):
            put(outbox, size)
        assert Look.at(outbox) == before
        assert disk.free_bytes == 0
        demand_all_leaves(outbox)


@pytest.mark.parametrize("fill", [grow, some])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_it_drains_while_somebody_else_takes_each_byte_that_becomes_free(
    disk: Disk, size: int, fill: Callable[[Outbox, int], None]
) -> None:
    with closing(opened(disk.path)) as outbox:
        fill(outbox, size)
        hog = disk.hog()
        demand_all_leaves(outbox, hog.take)
        assert disk.free_bytes == 0


def test_somebody_else_takes_the_last_byte_right_after_the_start(disk: Disk) -> None:
    with closing(opened(disk.path)) as outbox:
        some(outbox, SIZES["middle"])
    with closing(opened(disk.path)) as outbox:
        hog = disk.hog()
        with pytest.raises(OutboxFull):
            put(outbox, 200)
        demand_all_leaves(outbox, hog.take)


def test_somebody_else_takes_the_last_byte_in_the_middle_of_a_drain(disk: Disk) -> None:
    with closing(opened(disk.path)) as outbox:
        grow(outbox, SIZES["middle"])
        count = captured(outbox)
        sent = deliver(outbox) + deliver(outbox)
        hog = disk.hog()
        assert sent + drain(outbox, hog.take) == list(range(count))


def test_parts_that_were_left_out_are_kept_aside_on_a_full_disk(disk: Disk) -> None:
    with closing(opened(disk.path)) as outbox:
        grow(outbox, SIZES["middle"])
        hog, count = disk.hog(), captured(outbox)
        while (envelope := outbox.head(TOPIC)) is not None:
            outbox.demand_recordable()
            outbox.accept(envelope, delivered=envelope.records - 1, reason="partial")
            hog.take()
        look = Look.at(outbox)
        assert look.is_sound
        assert sum(row[1] for row in look.parked) == count // RECORDS
        assert look.books[TOPIC][1] == count - count // RECORDS


@pytest.mark.parametrize("inodes_only", [False, True])
def test_it_drains_where_no_file_can_be_made(disk: Disk, *, inodes_only: bool) -> None:
    with closing(opened(disk.path)) as outbox:
        some(outbox, SIZES["middle"])
        disk.take_inodes()
        if not inodes_only:
            with (disk.path / "somebody-else-1" / "0").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, disk.free_bytes)
            assert disk.free_bytes == 0
        demand_all_leaves(outbox)


# -- opened while it is full -------------------------------------------------------------------------------------------

LEFT = {"closed": False, "killed": True}


def stopped(disk: Disk, *, killed: bool) -> int:
    """An outbox with envelopes whose process has ended; how many records were captured."""
    with closing(opened(disk.path)) as outbox:
        some(outbox, SIZES["middle"])
        count = captured(outbox)
        image = {path.name: path.read_bytes() for path in disk.path.iterdir()}
    if killed:
        restore(disk.path, image)
        Ballast(disk.path).keep()  # a restored file of zeros has holes
    assert has_ballast(disk)
    assert (disk.path / f"{FILE_NAME}-wal").exists() == killed
    return count


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("killed", LEFT.values(), ids=LEFT)
def test_it_is_opened_on_a_full_disk_and_drains(disk: Disk, *, killed: bool, with_index: bool) -> None:
    count = stopped(disk, killed=killed)
    if not with_index:
        (disk.path / f"{FILE_NAME}-shm").unlink(missing_ok=True)
    hog = disk.hog()
    with closing(opened(disk.path)) as outbox:
        hog.take()
        assert captured(outbox) == count
        demand_all_leaves(outbox, hog.take)


def test_without_any_room_it_cannot_be_opened_and_is_as_it_was_when_there_is_some(disk: Disk) -> None:
    count = stopped(disk, killed=True)
    without_ballast(disk)
    (disk.path / f"{FILE_NAME}-shm").unlink(missing_ok=True)
    hog = disk.hog()
    for _ in range(3):
        with pytest.raises(OutboxFull):
            opened(disk.path)
        assert disk.free_bytes == 0
    hog.go()
    with closing(opened(disk.path)) as outbox:
        assert captured(outbox) == count
        demand_all_leaves(outbox)


def test_a_new_outbox_on_a_full_disk_says_that_there_is_no_room(disk: Disk) -> None:
    hog = disk.hog()
    with pytest.raises(OutboxFull):
        opened(disk.path)
    hog.go()
    with closing(opened(disk.path)) as outbox:
        put(outbox, 200)


def test_a_new_outbox_where_no_file_can_be_made_says_that_there_is_no_room(disk: Disk) -> None:
    hog = disk.take_inodes()
    with pytest.raises(OutboxFull):
        opened(disk.path)
    hog.go()
    with closing(opened(disk.path)) as outbox:
        put(outbox, 200)


# -- the ballast -------------------------------------------------------------------------------------------------------


def shortage(outbox: Outbox) -> str | None:
    return outbox.shortage(max_bytes=1 << 30, min_free_bytes=0)


def emptied_on_a_full_disk(disk: Disk, outbox: Outbox) -> Hog:
    grow(outbox, SIZES["middle"])
    hog = disk.hog()
    while deliver(outbox):
        hog.take()
        if not has_ballast(disk):
            break
    assert not has_ballast(disk), "it was given up"
    return hog


def test_the_ballast_is_kept_again_when_there_is_room_and_never_where_there_is_none(disk: Disk) -> None:
    with closing(opened(disk.path)) as outbox:
        assert has_ballast(disk)
        some(outbox, SIZES["middle"])
        disk.path.joinpath(NAMES[0]).unlink()
        disk.path.joinpath(NAMES[1]).unlink()
    with closing(opened(disk.path)) as outbox:
        assert has_ballast(disk)
        outbox._file._ballast.release()
        hog = disk.hog()
        assert shortage(outbox) is None
        assert not has_ballast(disk)
        hog.go()
        leaves = Ballast(disk.path).bytes * 2 - 4_096
        hog = disk.hog(leave=leaves)
        assert shortage(outbox) is None
        assert not has_ballast(disk), "there is not as much room again"
        hog.go()
        assert shortage(outbox) is None
        assert has_ballast(disk)
        assert sum((disk.path / name).stat().st_blocks * 512 for name in NAMES) == Ballast(disk.path).bytes


def test_nothing_is_sent_until_a_commit_has_succeeded_again(disk: Disk) -> None:
    with closing(opened(disk.path)) as outbox:
        outbox.demand_recordable()
        some(outbox, SIZES["small"])
        without_ballast(disk)
        worn(outbox)
        hog = disk.hog()
        envelope = outbox.head(TOPIC)
        assert envelope is not None
        outbox.demand_recordable()  # nobody knows it yet
        with pytest.raises(OutboxFull):
            outbox.accept(envelope, delivered=RECORDS)
        for _ in range(2):
            with pytest.raises(OutboxFull):
                outbox.demand_recordable()
        hog.go()
        outbox.demand_recordable()
        outbox.accept(envelope, delivered=RECORDS)
        assert outbox.tally(TOPIC).delivered == RECORDS


def test_what_is_given_back_to_a_full_disk_is_given_back_without_needing_any(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", size=16 << 20) as disk, closing(opened(disk.path)) as outbox:
        grow(outbox, 1_000_000)
        hog = disk.hog()
        demand_all_leaves(outbox, hog.take)
        before = outbox.path.stat().st_size
        while outbox.shrink():
            hog.take()
        assert outbox.path.stat().st_size < before - 5_000_000
        assert outbox.path.stat().st_size < 2 * WAL_AUTOCHECKPOINT_PAGES * 4_096
        assert disk.free_bytes > 0


def test_what_was_drained_makes_room_for_what_comes_next_where_the_disk_has_little(disk: Disk) -> None:
    with closing(opened(disk.path)) as outbox:
        grow(outbox, SIZES["middle"])
        hog = disk.hog()
        count = captured(outbox)
        assert drain(outbox, hog.take) == list(range(count))
        hog.go()
        while outbox.shrink():
            pass
        assert disk.free_bytes > disk.size // 2
        for _ in range(3):
            hog = disk.hog(leave=65_536)
            put(outbox, SIZES["middle"])
            assert len(drain(outbox)) == RECORDS
            hog.go()


# -- controls ----------------------------------------------------------------------------------------------------------


def demand_stuck(outbox: Outbox) -> None:
    count = captured(outbox)
    before = Look.at(outbox)
    with pytest.raises(OutboxFull):
        drain(outbox)
    after = Look.at(outbox)
    assert after.is_sound
    assert after.captured == before.captured == count
    assert after.waiting != []


def worn(outbox: Outbox) -> None:
    """The WAL has no room of its own."""
    with outbox._file.reading() as sql:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def test_without_ballast_a_full_disk_cannot_be_drained(disk: Disk) -> None:
    with closing(opened(disk.path)) as outbox:
        some(outbox, SIZES["middle"])
        worn(outbox)
        without_ballast(disk)
        disk.hog()
        demand_stuck(outbox)


def test_with_a_ballast_that_is_not_given_up_a_full_disk_cannot_be_drained(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ballast, "release", lambda _: False)
    with closing(opened(disk.path)) as outbox:
        some(outbox, SIZES["middle"])
        worn(outbox)
        disk.hog()
        assert has_ballast(disk)
        demand_stuck(outbox)


def test_with_checkpoints_as_late_as_on_a_large_disk_the_ballast_does_not_suffice(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_FEWEST_PAGES", WAL_AUTOCHECKPOINT_PAGES)
    with closing(opened(disk.path)) as outbox:
        for _ in range(5):
            put(outbox, SIZES["large"])
        disk.hog()
        demand_stuck(outbox)


def test_without_room_taken_for_the_wal_at_once_somebody_else_ends_the_drain(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.wal.reserve", lambda *_: False)
    with closing(opened(disk.path)) as outbox:
        some(outbox, SIZES["middle"])
        worn(outbox)
        hog = disk.hog()
        with pytest.raises(OutboxError):
            drain(outbox, hog.take)
        assert Look.at(outbox).waiting != []
