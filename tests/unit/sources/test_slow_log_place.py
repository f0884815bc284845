"""The place in a slow log table: how it moves, what it says of unread rows, what a row is known by.

What could go wrong: a bookmark does not come back as it was; rows read are counted as lost or lost ones as read; a
counter of another run of the server is believed; two rows are taken for one, or one for two.
"""

from dataclasses import replace

import orjson
import pytest

from agent.source_errors import BookmarkUnreadable
from agent.sources._slow_log_place import OLD, Counters, Place, decode, digest, identity

ROW = (b"2026-01-01", b"u", b"00:00:01", b"00:00:00", b"1", b"2", b"db", b"7", b"SELECT 1", None)


def with_text(text: bytes | None, whole: bytes | None = None) -> tuple[bytes | None, ...]:
    return (*ROW[:8], text, whole)


def balanced(slow: int = 10, rows: int = 10) -> Place:
    place = Place().behind(rows, "first", "last", "2026-01-01T00:00:00+00:00")
    return place.balanced(Counters(slow, 1_000), Counters(slow, 1_000))


def test_a_bookmark_comes_back_as_it_was() -> None:
    place = balanced()
    assert decode(place.encode()) == place
    assert decode(Place(cutoff=5.5, cutoff_until=3).encode()) == Place(cutoff=5.5, cutoff_until=3)


def test_a_bookmark_from_before_times_backups_and_rotation_is_understood() -> None:
    fields = orjson.loads(balanced().encode())
    for name in ("seen_at", "table", "spent"):
        del fields[name]
    assert decode(orjson.dumps(fields)) == replace(balanced(), seen_at=None)


def test_a_place_in_a_backup_and_a_table_that_may_be_dropped_come_back_with_the_bookmark() -> None:
    behind = balanced().in_table(OLD).behind_old()
    assert (behind.position, behind.table, behind.spent) == (0, "slow_log", ("first", "last", 10))
    assert decode(behind.encode()) == behind
    spent = behind.spent_place()
    assert spent is not None
    assert (spent.position, spent.first, spent.last, spent.table) == (10, "first", "last", OLD)
    assert behind.without_spent().spent_place() is None


def test_a_backup_that_is_read_to_its_end_leaves_the_books_as_they_are() -> None:
    behind = balanced().in_table("slow_log_backup").at_next_generation(unread=0)
    assert (behind.table, behind.rows, behind.spare, behind.spent) == ("slow_log", 10, (0, 0), None)


def test_what_is_not_read_yet_was_written_after_the_look_that_saw_the_end() -> None:
    place = Place(rows=10).balanced(Counters(10, 1_000, uptime_s=50), Counters(10, 1_000, uptime_s=53))
    restarted = Place(rows=10).balanced(Counters(10, 1_000, uptime_s=50), Counters(0, 1_060, uptime_s=0))
    assert (place.seen_at, restarted.seen_at) == (1_050, 1_050)
    assert place.behind(1, "first", "last", "2026-01-01T00:00:00+00:00").seen_at == 1_050


@pytest.mark.parametrize("nonsense", [b"", b"null", b"{}", b'{"v":2,"spare":null}', b'{"v":1,"spare":null,"x":1}'])
def test_nonsense_is_no_bookmark(nonsense: bytes) -> None:
    with pytest.raises(BookmarkUnreadable):
        decode(nonsense)


def test_what_was_counted_beyond_the_rows_read_and_present_is_unread() -> None:
    assert balanced().unread(Counters(17, 1_000), present=3) == 4
    assert balanced().unread(Counters(13, 1_000), present=3) == 0


def test_what_the_counter_always_had_too_many_is_not_unread() -> None:
    assert balanced(slow=15, rows=10).unread(Counters(15, 1_000), present=0) == 0


def test_rows_read_before_the_end_was_reached_are_taken_off() -> None:
    place = balanced().behind(3, "first", "later", "2026-01-01T00:00:01+00:00")
    assert place.unread(Counters(17, 1_000), present=0) == 4


@pytest.mark.parametrize("counters", [Counters(17, 2_000), Counters(9, 1_000)], ids=["restarted", "set back"])
def test_the_counter_of_another_run_says_nothing(counters: Counters) -> None:
    assert balanced().unread(counters, present=0) is None
    assert balanced().surely_unread(counters) == 0


def test_a_place_that_was_never_balanced_knows_nothing() -> None:
    assert Place(position=3, rows=3).unread(Counters(5, 1_000), present=0) is None


def test_a_start_that_is_told_some_seconds_off_is_the_same_run() -> None:
    assert balanced().unread(Counters(12, 1_005), present=0) == 2
    assert balanced().unread(Counters(12, 1_006), present=0) is None


def test_a_clock_that_was_set_is_not_a_restart() -> None:
    settled = Place(rows=10).balanced(Counters(10, 1_000, uptime_s=500), Counters(10, 1_000, uptime_s=500))
    assert settled.unread(Counters(12, 1_000, uptime_s=20), present=0) == 2
    assert settled.unread(Counters(12, 1_500, uptime_s=20), present=0) is None  # control: this one was started then


def test_statements_that_end_while_the_books_are_made_widen_them() -> None:
    place = Place(rows=10).balanced(Counters(10, 1_000), Counters(13, 1_000))
    assert place.unread(Counters(15, 1_000), present=0) == 5
    assert place.surely_unread(Counters(15, 1_000)) == 2


def test_a_statement_that_is_counted_before_its_row_is_written_is_not_taken_for_one_that_is_never_written() -> None:
    busy = Place(rows=10).balanced(Counters(12, 1_000, running=2), Counters(12, 1_000, running=2))
    assert busy.unread(Counters(12, 1_000), present=0) == 2  # both were written and went away unread


def test_a_quiet_moment_of_the_server_tells_more_than_a_busy_one_after_it() -> None:
    quiet = balanced(slow=15, rows=10)
    busy = quiet.balanced(Counters(15, 1_000, running=4), Counters(15, 1_000, running=4))
    assert busy.unread(Counters(16, 1_000), present=0) == 1
    assert quiet.at_next_generation(1).least is None  # what was told too high once would hide a loss later


def test_what_a_busy_server_has_counted_only_has_not_surely_vanished() -> None:
    assert balanced().surely_unread(Counters(13, 1_000, running=2)) == 1
    assert balanced().surely_unread(Counters(12, 1_000, running=5)) == 0


def test_what_was_said_of_a_run_that_ended_within_seconds_is_not_carried_on() -> None:
    early = Place(rows=20).balanced(Counters(20, 1_000, uptime_s=3), Counters(20, 1_000, uptime_s=3))
    younger = early.balanced(Counters(5, 1_002, 1, uptime_s=1), Counters(25, 1_002, 1, uptime_s=1))
    lower = early.balanced(Counters(5, 1_002, 1, uptime_s=3), Counters(6, 1_002, 1, uptime_s=3))
    assert (early.spare, younger.spare, lower.spare) == ((0, 0), (-16, 5), (-16, -14))
    assert early.unread(Counters(30, 1_002, uptime_s=2), present=0) is None


def test_a_look_from_the_top_stays_one_until_the_end_was_seen() -> None:
    cut = Place().behind(1, "first", "last", "2026-01-01T00:00:00+00:00")
    assert (cut.from_top, cut.behind(1, "first", "later", "2026-01-01T00:00:01+00:00").from_top) == (True, True)
    assert decode(cut.encode()) == cut
    assert not cut.balanced(Counters(2, 1_000), Counters(2, 1_000)).from_top


def test_books_are_not_made_across_a_restart() -> None:
    assert Place(rows=10).balanced(Counters(10, 1_000), Counters(0, 2_000)).spare is None


def test_the_next_generation_starts_at_row_0_and_keeps_the_books_when_they_balance() -> None:
    place = balanced().at_next_generation(4)
    assert (place.position, place.first, place.last, place.rows, place.spare) == (0, None, None, 14, (0, 0))
    assert balanced().at_next_generation(None).spare is None


def test_a_row_is_known_by_every_short_column() -> None:
    for column in range(8):
        other = tuple(b"other" if at == column else value for at, value in enumerate(ROW))
        assert digest(other) != digest(ROW)


def test_a_row_is_known_by_the_head_and_the_length_of_its_text() -> None:
    head = b"x" * 1_024
    assert digest(with_text(head + b"a")) == digest(with_text(head + b"b"))
    assert digest(with_text(head + b"a")) != digest(with_text(head + b"ab"))
    assert digest(with_text(b"a")) != digest(with_text(b"b"))


def test_a_row_is_the_same_whether_its_text_was_cut_or_not() -> None:
    whole = b"y" * 5_000
    assert identity(with_text(whole)) == identity(with_text(whole[:1_028], b"5000 " + b"0" * 64))


def test_a_missing_column_reads_as_empty() -> None:
    assert identity((*ROW[:6], None, *ROW[7:])) == identity((*ROW[:6], b"", *ROW[7:]))
    assert identity(with_text(None)) == identity(with_text(b""))
