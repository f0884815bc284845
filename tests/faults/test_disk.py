"""What a disk may hold after a power cut, on logs that are short enough to be worked out by hand.

What could go wrong: the model is kinder than a disk, and never shows the image that would lose something; or it is
harsher than any disk can be, and what it shows is no defect; or it forgets a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from tests.faults.disk import FATES, SECTOR_BYTES, Disk, Fate
from tests.faults.recorder import Event, Operation

DRAWS = 400
OLD, NEW = b"o" * SECTOR_BYTES, b"n" * SECTOR_BYTES
SYNC_NAMES = Event("sync", ".")
Image = dict[str, bytes]


def made(name: str = "a", inode: int = 1) -> Event:
    return Event("create", name, inode)


def written(data: bytes, offset: int = 0, inode: int = 1) -> Event:
    return Event("write", "a", inode, offset, data)


def of(operation: Operation, inode: int = 1, offset: int = 0) -> Event:
    return Event(operation, "a", inode, offset)


def disk(events: Iterable[Event], base: Image | None = None) -> Disk:
    found = Disk(base)
    for event in events:
        found.apply(event)
    return found


def images(events: Iterable[Event], base: Image | None = None, fates: Iterable[Fate] = FATES) -> list[Image]:
    """Every image that can be drawn, each once."""
    cut, drawn = disk(events, base), list[Image]()
    for fate in fates:
        for seed in range(DRAWS):
            image = cut.image(fate, Random(seed))
            if image not in drawn:
                drawn.append(image)
    return drawn


def contents(events: Iterable[Event], base: Image | None = None) -> set[bytes]:
    """Every content that the file `a` can have, where it is there."""
    return {image["a"] for image in images(events, base) if "a" in image}


SYNCED = (made(), written(OLD), of("sync"), SYNC_NAMES)


def test_what_was_synced_is_there() -> None:
    assert images(SYNCED) == [{"a": OLD}]


def test_what_was_there_at_the_beginning_is_durable() -> None:
    assert images((), {"a": OLD, "b": NEW}) == [{"a": OLD, "b": NEW}]


def test_what_was_not_synced_is_there_or_not() -> None:
    assert contents((*SYNCED, written(NEW))) == {OLD, NEW}


def test_a_sector_is_never_half_written() -> None:
    both = (*SYNCED, written(NEW + NEW))
    assert contents(both) == {OLD, NEW, NEW + NEW, OLD + NEW}


def test_sectors_are_where_the_disk_has_them_and_not_where_the_write_begins() -> None:
    across = (*SYNCED, written(b"xy", SECTOR_BYTES - 1))
    head = OLD[:-1]
    assert contents(across) == {OLD, head + b"x", OLD + b"y", head + b"xy"}


def test_of_two_writes_either_can_be_missing() -> None:
    two = (*SYNCED, written(b"1" * SECTOR_BYTES), written(b"2" * SECTOR_BYTES, SECTOR_BYTES))
    ones, twos = b"1" * SECTOR_BYTES, b"2" * SECTOR_BYTES
    assert contents(two) == {OLD, ones, OLD + twos, ones + twos}


def test_in_order_the_second_is_not_there_without_the_first() -> None:
    two = (*SYNCED, written(b"1" * SECTOR_BYTES), written(b"2" * SECTOR_BYTES, SECTOR_BYTES))
    drawn = images(two, fates=[Fate("prefix", "all")])
    ones, twos = b"1" * SECTOR_BYTES, b"2" * SECTOR_BYTES
    assert {image["a"] for image in drawn} == {OLD, ones, ones + twos}


def test_the_order_holds_across_files() -> None:
    other = Event("create", "b", 2)
    events = (made(), other, SYNC_NAMES, written(NEW), Event("write", "b", 2, 0, NEW))
    drawn = images(events, fates=[Fate("prefix", "all")])
    assert sorted((len(image["a"]), len(image["b"])) for image in drawn) == [(0, 0), (512, 0), (512, 512)]


def test_of_two_writes_to_one_place_the_later_wins() -> None:
    twice = (*SYNCED, written(b"1" * SECTOR_BYTES), written(b"2" * SECTOR_BYTES))
    assert contents(twice) == {OLD, b"1" * SECTOR_BYTES, b"2" * SECTOR_BYTES}


def test_a_hole_reads_as_zeros() -> None:
    assert contents((*SYNCED, written(NEW, 2 * SECTOR_BYTES))) == {OLD, OLD + bytes(SECTOR_BYTES) + NEW}


def test_a_sync_is_of_one_file_only() -> None:
    events = (made(), Event("create", "b", 2), SYNC_NAMES, written(NEW), Event("write", "b", 2, 0, NEW), of("sync"))
    drawn = images(events)
    assert {image["a"] for image in drawn} == {NEW}
    assert {image["b"] for image in drawn} == {b"", NEW}


def test_after_a_sync_that_failed_no_later_one_makes_it_durable() -> None:
    failed = (*SYNCED, written(NEW), of("unsynced"))
    assert contents(failed) == {OLD, NEW}
    assert images((*failed, of("sync"))) == [{"a": OLD}]
    assert disk((*failed, of("sync"))).current == {"a": NEW}, "but programs see it"
    assert images((*failed, written(NEW), of("sync"))) == [{"a": NEW}], "what is written once more is durable"


def test_a_size_is_changed_or_not() -> None:
    assert contents((*SYNCED, Event("truncate", "a", 1, 100))) == {OLD, OLD[:100]}
    assert contents((*SYNCED, Event("truncate", "a", 1, 600))) == {OLD, OLD + bytes(88)}


def test_a_size_that_was_synced_has_changed() -> None:
    assert contents((*SYNCED, Event("truncate", "a", 1, 100), of("sync"))) == {OLD[:100]}


def test_a_new_file_is_there_or_not_until_its_directory_is_synced() -> None:
    assert {"a" in image for image in images((made(), written(NEW), of("sync")))} == {True, False}
    assert images((made(), written(NEW), of("sync"), SYNC_NAMES)) == [{"a": NEW}]


def test_the_sync_of_a_directory_is_none_of_what_is_in_its_files() -> None:
    assert contents((made(), written(NEW), SYNC_NAMES)) == {b"", NEW}


def test_a_deleted_file_may_come_back_as_it_was_synced() -> None:
    deleted = (*SYNCED, written(NEW), Event("unlink", "a"))
    assert sorted(image.get("a", b"") for image in images(deleted)) == [b"", NEW, OLD]
    assert images((*deleted, SYNC_NAMES)) == [{}]


def test_a_renamed_file_has_the_old_name_or_the_new_one_never_both_or_none() -> None:
    renamed = (*SYNCED, Event("rename", "a", data=b"b"))
    assert images(renamed) in ([{"a": OLD}, {"b": OLD}], [{"b": OLD}, {"a": OLD}])
    assert images((*renamed, SYNC_NAMES)) == [{"b": OLD}]


def test_a_rename_over_a_file_shows_one_of_the_two() -> None:
    both = (*SYNCED, made("b", 2), Event("write", "b", 2, 0, NEW), Event("sync", "b", 2), SYNC_NAMES)
    over = (*both, Event("rename", "b", data=b"a"))
    assert sorted(map(repr, images(over))) == sorted(map(repr, [{"a": OLD, "b": NEW}, {"a": NEW}]))


def test_names_change_in_their_order() -> None:
    drawn = images((made("a", 1), made("b", 2), made("c", 3)))
    assert sorted(map(sorted, drawn)) == [[], ["a"], ["a", "b"], ["a", "b", "c"]]


def test_a_name_that_is_used_again_is_another_file() -> None:
    again = (*SYNCED, Event("unlink", "a"), made("a", 2), Event("write", "a", 2, 0, NEW), Event("sync", "a", 2))
    assert {image.get("a") for image in images(again)} == {OLD, None, NEW}


def test_an_inode_that_is_used_again_is_another_file() -> None:
    again = (*SYNCED, Event("unlink", "a"), made("b", 1))
    assert {image.get("b") for image in images((*again, SYNC_NAMES))} == {b""}
    assert {"a" in image and "b" in image for image in images(again)} == {False}


def test_a_file_from_before_is_known_by_its_name_once_it_is_opened() -> None:
    assert contents((Event("open", "a", 9), written(NEW, inode=9), of("sync", 9)), {"a": OLD}) == {NEW}


def test_a_change_of_a_file_that_nobody_opened_is_no_record() -> None:
    with pytest.raises(KeyError):
        disk([written(NEW)], {"a": OLD})


def test_what_programs_see_is_everything() -> None:
    assert disk((made(), written(NEW), written(b"x", 600))).current == {"a": NEW + bytes(88) + b"x"}


def test_an_image_is_a_copy() -> None:
    found = disk(SYNCED)
    before = found.current
    found.apply(written(NEW))
    found.apply(of("sync"))
    assert (before, found.current) == ({"a": OLD}, {"a": NEW})


def test_the_same_seed_draws_the_same_image() -> None:
    found = disk((made(), *(written(bytes([n]) * 5_000, n * 1_000) for n in range(50))))
    fate = Fate("sectors", "prefix")
    assert [found.image(fate, Random(n)) for n in range(20)] == [found.image(fate, Random(n)) for n in range(20)]
