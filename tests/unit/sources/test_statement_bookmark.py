"""The bookmark of the statements: baselines of more than one server, of bounded size, readable after an upgrade.

What could go wrong: a baseline comes back with another meaning; a bookmark of the released version is refused, or a
look that it holds in parts is doubled; servers that never come back fill it; one that was given up is read as new.
"""

from dataclasses import replace

import pytest

from agent.source_errors import BookmarkUnreadable
from agent.sources._statement_bookmark import KEPT_S, SERVERS_KEPT, Bookmark, decode
from agent.sources._statement_counters import Baseline, Key, Row
from agent.sources._statement_servers import Sight

KEY: Key = (10, 5, -77, True)
NESTED: Key = (16384, 5, 9007199254740993, False)
ROW: Row = (*KEY, 4, 400.0, 150.0, 8, 1764111784.25)
NESTED_ROW: Row = (*NESTED, 1, 0.25, 0.25, 0, None)
SENT: Row = (*KEY, 6, 800.0, 150.0, 9, 1764111784.25)
AT, LATER = "2026-01-01T00:00:00+00:00", "2026-01-01T00:05:00+00:00"
RESET = "1764111683.875061"
SIGHT = Sight(at=1764112000.5, system=7712252367533325092, run_at=1764111683.879743, address="::1 5432", reset=RESET)

# Written by version 1.0.0: a finished look, one that was saved in part, and one in part behind a reset.
_HEAD = (
    b'{"v":1,"rows":[[10,5,-77,true,4,400.0,150.0,8,1764111784.25],'
    b"[16384,5,9007199254740993,false,1,0.25,0.25,0,null]],"
    b'"taken_at":"2026-01-01T00:00:00+00:00","stats_reset":"1764111683.875061",'
)
_AHEAD = (
    b'"ahead":[[10,5,-77,true,6,800.0,150.0,9,1764111784.25]],"ahead_at":"2026-01-01T00:05:00+00:00","ahead_reset":'
)
FINISHED = _HEAD + b'"ahead":[],"ahead_at":null,"ahead_reset":null,"merged":false}'
IN_PART = _HEAD + _AHEAD + b'"1764111683.875061","merged":false}'
IN_PART_AFTER_A_RESET = _HEAD + _AHEAD + b'"1764111999.5","merged":false}'


def test_a_bookmark_comes_back_with_the_same_meaning() -> None:
    baseline = Baseline(
        rows={KEY: ROW, NESTED: NESTED_ROW}, taken_at=AT, sight=SIGHT, ahead={KEY: SENT}, ahead_at=LATER
    )
    bookmark = _after(Bookmark().at(baseline), replace(SIGHT, run_at=1.0, reset="0.5"))
    assert len(bookmark.kept) == 1
    assert decode(bookmark.encode()) == bookmark
    assert decode(Bookmark().encode()) == Bookmark()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (FINISHED, Baseline({KEY: ROW, NESTED: NESTED_ROW}, AT, Sight(reset=RESET))),
        (IN_PART, Baseline({KEY: ROW, NESTED: NESTED_ROW}, AT, Sight(reset=RESET), "new", {KEY: SENT}, LATER)),
        (IN_PART_AFTER_A_RESET, Baseline({}, AT, Sight(reset="1764111999.5"), "reset", {KEY: SENT}, LATER)),
        (
            IN_PART.replace(f'"{AT}"'.encode(), b"null"),
            Baseline(
                {KEY: ROW, NESTED: NESTED_ROW}, None, Sight(reset=RESET), "first_look", {KEY: SENT}, LATER
            ),
        ),
    ],
    ids=["finished", "in part", "in part after a reset", "in part of a first look"],
)  # fmt: skip
def test_bookmarks_of_version_1_0_0_are_understood(written: bytes, expected: Baseline) -> None:
    assert decode(written) == Bookmark(expected)
    opening = decode(written).open(replace(SIGHT, reset=expected.sight.reset), merged=False)
    assert (opening.before, opening.recognised.reason) == (expected, "normal")


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"null", b"{}", b'{"v":1}', b'{"v":2}', b'{"v":3}', b'{"v":1,"foreign":1}', b'{"v":2,"foreign":1}'],
)
def test_nonsense_is_no_bookmark(nonsense: bytes) -> None:
    with pytest.raises(BookmarkUnreadable):
        decode(nonsense)


def _server(number: int, at: float) -> Sight:
    return replace(SIGHT, at=at, run_at=number + 0.5, reset=str(float(number)))


def _after(bookmark: Bookmark, now: Sight) -> Bookmark:
    """After a look at that server."""
    opening = bookmark.open(now, merged=False)
    return opening.bookmark.at(replace(opening.before, sight=now, taken_at=AT, rows={KEY: ROW}))


def test_no_more_servers_are_kept_than_are_useful() -> None:
    bookmark = Bookmark()
    for number in range(1, 6):
        bookmark = _after(bookmark, _server(number, 100.0 + number))
    assert [kept.sight for kept in bookmark.kept] == [_server(4, 104.0), _server(3, 103.0)]
    assert (len(bookmark.kept), bookmark.forgot_at) == (SERVERS_KEPT, 102.0)
    again = bookmark.open(_server(1, 106.0), merged=False)
    assert (again.before.rows, again.recognised.is_unread) == ({}, False)
    assert bookmark.open(_server(3, 106.0), merged=False).before.rows == {KEY: ROW}


def test_a_server_that_does_not_answer_for_a_week_is_given_up() -> None:
    bookmark = _after(_after(Bookmark(), _server(1, 100.0)), _server(2, 101.0))
    almost = bookmark.open(_server(2, 99.0 + KEPT_S), merged=False).bookmark
    over = bookmark.open(_server(2, 100.0 + KEPT_S), merged=False).bookmark
    assert (len(almost.kept), len(over.kept), over.forgot_at) == (1, 0, 100.0)


def test_the_server_that_is_left_keeps_what_was_sent_of_a_look_in_parts() -> None:
    left = Baseline(rows={NESTED: NESTED_ROW}, taken_at=AT, sight=SIGHT, ahead={KEY: SENT}, ahead_at=LATER)
    there = Bookmark().at(left).open(_server(1, 1.0), merged=False)
    assert (there.left, there.before.rows, there.before.unseen) == (left, {}, "other_server")
    back = there.bookmark.at(replace(there.before, taken_at=LATER)).open(replace(SIGHT, at=SIGHT.at + 9), merged=False)
    assert (back.before, back.recognised.reason, back.recognised.place) == (left, "normal", 1)


def test_a_counting_that_was_reset_is_given_up_and_the_other_servers_are_not() -> None:
    bookmark = _after(_after(Bookmark(), _server(1, 100.0)), _server(2, 101.0))
    opening = bookmark.open(replace(_server(2, 102.0), reset="101.5"), merged=False)
    assert (opening.recognised.reason, opening.left, opening.before.taken_at) == ("reset", None, AT)
    assert ([kept.sight for kept in opening.bookmark.kept], opening.bookmark.forgot_at) == ([_server(1, 100.0)], 0)


def test_counters_of_both_kinds_are_compared_as_the_poorer_kind() -> None:
    levels = Baseline(rows={KEY: ROW, (*KEY[:3], False): (*KEY[:3], False, *ROW[4:])}, taken_at=AT, sight=SIGHT)
    opening = Bookmark().at(levels).open(SIGHT, merged=True)
    assert opening.comparable(merged=True).before.rows == {KEY: (*KEY, 8, 800.0, 150.0, 16, None)}
    assert opening.comparable(merged=False) is opening
