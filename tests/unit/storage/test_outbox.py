"""The outbox: what was collected waits here until the backend has it.

What could go wrong: bookmark and envelopes part ways in a crash; a full disk leaves half of a change; a key is used
twice after deletes; a split loses a record, its place or its name; the books do not balance; a second look at the same
envelope gives another one; marks of done commands are forgotten too early or never; the file never shrinks, or takes
the space a second time while it does; others can read it; threads mix their changes up; who still holds one that was
closed writes into what is another's by then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage import ballast
from storage.envelope import Change, Draft, Envelope, Gap, Tally
from storage.errors import EnvelopeGone, OutboxBroken, OutboxFull, OutboxGone, OutboxInaccessible
from storage.notes import MARKS_KEPT
from storage.outbox import Outbox
from tests.fakes.clock import NOON, ManualClock
from tests.fakes.inside import sql_of

QUERIES, RESULTS = "queries", "command_result"
GENEROUS = {"max_bytes": 1 << 40, "min_free_bytes": 0}


def draft(body: bytes = b"body", records: int = 1, topic: str = QUERIES) -> Draft:
    return Draft(topic, records, body)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "data", now=ManualClock().unix)
    yield outbox
    outbox.close()


def put(outbox: Outbox, *drafts: Draft) -> None:
    outbox.commit(Change(drafts=drafts))


def head(outbox: Outbox, topic: str = QUERIES, skip: tuple[int, ...] = ()) -> Envelope:
    envelope = outbox.head(topic, skip)
    assert envelope is not None
    return envelope


def waiting(outbox: Outbox, topic: str = QUERIES) -> list[Envelope]:
    """All envelopes in the order of sending; none of them is taken out."""
    found: list[Envelope] = []
    while (envelope := outbox.head(topic, [each.seq for each in found])) is not None:
        found.append(envelope)
    return found


def beside(outbox: Outbox) -> sqlite3.Connection:
    """Another program that meddles with the file."""
    return sqlite3.connect(outbox.path, isolation_level=None)


# -- what goes in ----------------------------------------------------------------------------------------------------


def test_a_change_is_there_after_it_was_opened_again(tmp_path: Path) -> None:
    gap = Gap("mysql_slow_log", "truncated", since="2024-05-01T11:00:00+00:00", estimate=7, detail="why")
    with closing(Outbox(tmp_path)) as outbox:
        outbox.commit(
            Change((draft(b"a", 3),), bookmarks={"w": b"\0\xff"}, gaps=(gap,), notes={"n": "v"}, marks=("m",))
        )
    with closing(Outbox(tmp_path)) as again:
        assert head(again).body == b"a"
        assert again.bookmark("w") == b"\0\xff"
        assert again.gaps() == [gap]
        assert again.note("n") == "v"
        assert again.has_mark("m")
        assert again.installation == outbox.installation


def test_nothing_is_there_at_first(outbox: Outbox) -> None:
    assert outbox.head(QUERIES) is None
    assert (outbox.bookmark("w"), outbox.note("n"), outbox.has_mark("m")) == (None, None, False)
    assert (outbox.gaps(), outbox.parked(), outbox.tally(QUERIES)) == ([], [], Tally())


def test_an_envelope_is_what_was_put_in(outbox: Outbox) -> None:
    put(outbox, draft(b"a body", 5))
    digest = hashlib.sha256(b"a body")
    assert head(outbox) == Envelope(
        seq=1,
        topic=QUERIES,
        place=1,
        key=f"{outbox.installation}-1-{digest.hexdigest()[:16]}",
        records=5,
        body=b"a body",
        sha256=digest.digest(),
        created_at=NOON.timestamp(),
    )


def test_a_second_look_gives_the_same_envelope(outbox: Outbox) -> None:
    put(outbox, draft())
    assert head(outbox) == head(outbox)


def test_a_note_can_be_replaced_and_removed(outbox: Outbox) -> None:
    outbox.commit(Change(notes={"paused/w": "1", "other": "x"}))
    outbox.commit(Change(notes={"paused/w": "2"}))
    assert outbox.note("paused/w") == "2"
    outbox.commit(Change(notes={"paused/w": None}))
    assert (outbox.note("paused/w"), outbox.note("other")) == (None, "x")


# -- all of it or none of it -----------------------------------------------------------------------------------------

WHOLE = Change(
    drafts=(draft(b"one"), draft(b"two")),
    bookmarks={"w": b"new"},
    gaps=(Gap("s", "r"),),
    notes={"n": "new"},
    marks=("m",),
)


def test_notes_are_found_by_how_their_names_begin(outbox: Outbox) -> None:
    notes = {"parts/1": "a", "parts/%": "b", "parts": "c", "other/parts/": "d", "PARTS/": "e", "partsX1": "f"}
    outbox.commit(Change(notes=notes))
    assert outbox.notes("parts/") == {"parts/1": "a", "parts/%": "b"}
    assert (outbox.notes("parts/%"), outbox.notes("nothing")) == ({"parts/%": "b"}, {})


def before_the_change(outbox: Outbox) -> None:
    outbox.commit(Change(drafts=(draft(b"zero"),), bookmarks={"w": b"old"}, notes={"n": "old"}))


def demand_unchanged(outbox: Outbox) -> None:
    assert [envelope.body for envelope in waiting(outbox)] == [b"zero"]
    assert (outbox.bookmark("w"), outbox.note("n"), outbox.has_mark("m")) == (b"old", "old", False)
    assert outbox.gaps() == []
    assert outbox.tally(QUERIES).captured == 1


@pytest.mark.parametrize("table", ["envelope", "tally", "bookmark", "gap", "note", "mark"])
def test_an_error_at_any_statement_undoes_all_of_them(outbox: Outbox, table: str) -> None:
    before_the_change(outbox)
    with closing(beside(outbox)) as other:
        for action in ("INSERT", "UPDATE"):
            body = "SELECT RAISE(ABORT, 'injected')"
            other.execute(f"CREATE TRIGGER t{action} BEFORE {action} ON {table} BEGIN {body}; END")
        with pytest.raises(OutboxBroken, match="injected"):
            outbox.commit(WHOLE)
        demand_unchanged(outbox)
        for action in ("INSERT", "UPDATE"):
            other.execute(f"DROP TRIGGER t{action}")
    outbox.commit(WHOLE)  # nothing hangs behind it
    assert outbox.bookmark("w") == b"new"


def test_a_key_that_is_there_already_undoes_the_whole_change(outbox: Outbox) -> None:
    before_the_change(outbox)
    taken = f"{outbox.installation}-3-{hashlib.sha256(b'two').hexdigest()[:16]}"
    renamed = replace(head(outbox), key=taken)
    with closing(beside(outbox)) as other:
        other.execute("UPDATE envelope SET key = ?, guard = ?", (taken, renamed.guard_now))
    with pytest.raises(OutboxBroken, match="UNIQUE"):
        outbox.commit(WHOLE)
    demand_unchanged(outbox)


def test_without_room_nothing_is_changed_and_it_goes_on_when_there_is_some(outbox: Outbox) -> None:
    before_the_change(outbox)
    large = replace(WHOLE, drafts=(*WHOLE.drafts, draft(os.urandom(4 << 20))))
    (pages,) = sql_of(outbox).execute("PRAGMA page_count").fetchone()
    sql_of(outbox).execute(f"PRAGMA max_page_count={pages + 100}")
    with pytest.raises(OutboxFull):
        outbox.commit(large)
    demand_unchanged(outbox)
    sql_of(outbox).execute("PRAGMA max_page_count=1000000")
    outbox.commit(large)
    assert len(waiting(outbox)) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_on_a_full_disk_nothing_is_changed(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m none '{disk}' 2>/dev/null") != 0:
        pytest.skip("this root may not mount")
    try:
        with closing(Outbox(disk)) as outbox:
            before_the_change(outbox)
            with pytest.raises(OutboxFull):
                outbox.commit(replace(WHOLE, drafts=(draft(os.urandom(2 << 20)),)))
            demand_unchanged(outbox)
            outbox.commit(WHOLE)
    finally:
        os.system(f"umount -l '{disk}'")


def test_what_a_crash_leaves_behind_is_the_last_commit(outbox: Outbox, tmp_path: Path) -> None:
    outbox.commit(Change(drafts=(draft(b"1"),), bookmarks={"w": b"1"}))
    with outbox._file.reading() as sql:
        sql.execute("BEGIN IMMEDIATE")
        sql.execute("UPDATE bookmark SET value = x'32'")
        sql.execute("DELETE FROM envelope")
        crashed = tmp_path / "crashed"
        shutil.copytree(outbox.path.parent, crashed)  # the disk as it is in the middle of a transaction
    with closing(Outbox(crashed)) as after:
        assert (head(after).body, after.bookmark("w")) == (b"1", b"1")


def test_books_that_cannot_be_told_do_not_undo_what_is_on_the_disk(tmp_path: Path) -> None:
    told: list[Tally] = []

    def refuse_the_second(topic: str, books: Tally) -> None:
        told.append(books)
        if len(told) == 1:
            raise KeyboardInterrupt

    with closing(Outbox(tmp_path, on_books=refuse_the_second)) as outbox:
        with pytest.raises(KeyboardInterrupt):
            put(outbox, draft())
        put(outbox, draft())
        assert [books.captured for books in told] == [1, 2]


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_seq_is_never_used_again(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        put(outbox, draft(), draft())
        for _ in range(2):
            outbox.accept(head(outbox), delivered=1)
        put(outbox, draft())
        assert head(outbox).seq == 3
        outbox.accept(head(outbox), delivered=1)
    with closing(Outbox(tmp_path)) as again:
        put(again, draft())
        assert head(again).seq == 4


def test_a_seq_is_never_used_again_after_a_split(outbox: Outbox) -> None:
    put(outbox, draft(records=2))
    outbox.split(head(outbox), draft(b"a"), draft(b"b"))
    for _ in range(2):
        outbox.accept(head(outbox), delivered=1)
    put(outbox, draft())
    assert head(outbox).seq == 4


def test_a_seq_of_a_failed_commit_may_be_used(outbox: Outbox) -> None:
    with closing(beside(outbox)) as other:
        other.execute("CREATE TRIGGER t BEFORE INSERT ON note BEGIN SELECT RAISE(ABORT, 'injected'); END")
        with pytest.raises(OutboxBroken):
            outbox.commit(replace(WHOLE))
        other.execute("DROP TRIGGER t")
    put(outbox, draft())
    assert head(outbox).seq == 1


# -- order -----------------------------------------------------------------------------------------------------------


def test_the_oldest_of_a_topic_goes_first(outbox: Outbox) -> None:
    put(outbox, draft(b"1"), draft(b"r", topic=RESULTS), draft(b"2"))
    put(outbox, draft(b"3"))
    assert [envelope.body for envelope in waiting(outbox)] == [b"1", b"2", b"3"]
    assert [envelope.body for envelope in waiting(outbox, RESULTS)] == [b"r"]


def test_what_is_to_be_skipped_is_passed_over(outbox: Outbox) -> None:
    put(outbox, draft(b"1"), draft(b"2"), draft(b"3"))
    assert head(outbox, skip=(1,)).body == b"2"
    assert head(outbox, skip=(1, 2)).body == b"3"
    assert outbox.head(QUERIES, (1, 2, 3)) is None


def test_halves_take_the_place_of_the_whole(outbox: Outbox) -> None:
    put(outbox, draft(b"1"), draft(b"2", 5), draft(b"3"))
    whole = head(outbox, skip=(1,))
    outbox.split(whole, draft(b"2a", 2), draft(b"2b", 3))
    found = waiting(outbox)
    assert [envelope.body for envelope in found] == [b"1", b"2a", b"2b", b"3"]
    assert [envelope.key for envelope in found[1:3]] == [f"{whole.key}.0", f"{whole.key}.1"]
    assert [envelope.records for envelope in found] == [1, 2, 3, 1]
    assert {envelope.created_at for envelope in found[1:3]} == {whole.created_at}
    assert all(envelope.is_intact for envelope in found)


def test_halves_of_halves_keep_the_order_too(outbox: Outbox) -> None:
    put(outbox, draft(b"abcd", 4), draft(b"e"))
    whole = head(outbox)
    outbox.split(whole, draft(b"ab", 2), draft(b"cd", 2))
    outbox.split(head(outbox, skip=(head(outbox).seq,)), draft(b"c"), draft(b"d"))
    outbox.split(head(outbox), draft(b"a"), draft(b"b"))
    found = waiting(outbox)
    assert [envelope.body for envelope in found] == [b"a", b"b", b"c", b"d", b"e"]
    assert [envelope.key for envelope in found[:4]] == [f"{whole.key}.{end}" for end in ("0.0", "0.1", "1.0", "1.1")]


def test_halves_that_do_not_hold_the_whole_are_refused(outbox: Outbox) -> None:
    put(outbox, draft(b"12", 2))
    whole = head(outbox)
    for first, second in ((draft(), draft(records=2)), (draft(), draft(topic=RESULTS))):
        with pytest.raises(ValueError, match="halves"):
            outbox.split(whole, first, second)
    assert waiting(outbox) == [whole]


# -- what goes out ---------------------------------------------------------------------------------------------------


def test_an_accepted_envelope_is_gone(outbox: Outbox) -> None:
    put(outbox, draft(b"12345", 5))
    outbox.accept(head(outbox), delivered=5)
    assert outbox.head(QUERIES) is None
    assert outbox.parked() == []
    assert outbox.tally(QUERIES) == Tally(captured=5, delivered=5)


def test_records_that_the_backend_left_out_are_kept_aside(outbox: Outbox) -> None:
    put(outbox, draft(b"12345", 5))
    outbox.accept(head(outbox), delivered=3, reason="partial: no text")
    assert outbox.head(QUERIES) is None
    assert outbox.parked() == [(1, 2, "partial: no text")]
    assert outbox.tally(QUERIES) == Tally(captured=5, delivered=3, parked=2)


def test_the_body_of_a_parked_envelope_is_kept(outbox: Outbox) -> None:
    put(outbox, draft(b"12345", 5))
    envelope = head(outbox)
    outbox.park(envelope, "refused")
    assert outbox.parked() == [(1, 5, "refused")]
    with closing(beside(outbox)) as other:
        row = other.execute("SELECT key, body, sha256 FROM parked").fetchone()
    assert row == (envelope.key, envelope.body, envelope.sha256)
    assert outbox.tally(QUERIES) == Tally(captured=5, parked=5)


@pytest.mark.parametrize("delivered", [-1, 3])
def test_more_or_less_than_there_is_cannot_be_delivered(outbox: Outbox, delivered: int) -> None:
    put(outbox, draft(records=2))
    with pytest.raises(ValueError, match="cannot be delivered"):
        outbox.accept(head(outbox), delivered=delivered)
    assert outbox.tally(QUERIES).pending == 2


def test_an_envelope_that_is_gone_cannot_be_counted_again(outbox: Outbox) -> None:
    put(outbox, draft(records=2))
    envelope = head(outbox)
    outbox.accept(envelope, delivered=2)
    books = outbox.tally(QUERIES)
    with pytest.raises(EnvelopeGone, match="seq 1"):
        outbox.accept(envelope, delivered=2)
    with pytest.raises(EnvelopeGone):
        outbox.accept(envelope, delivered=1, reason="partial")
    with pytest.raises(EnvelopeGone):
        outbox.park(envelope, "refused")
    with pytest.raises(EnvelopeGone):
        outbox.split(envelope, draft(), draft())
    assert (outbox.tally(QUERIES), outbox.parked()) == (books, [])


def test_books_count_what_the_tables_hold(outbox: Outbox) -> None:
    clock = ManualClock()
    outbox._now = clock.unix
    put(outbox, draft(b"123", 3))
    clock.turn(60)
    put(outbox, draft(b"4567", 4), draft(b"8", 1), draft(b"r", topic=RESULTS))
    outbox.commit(Change(gaps=(Gap("s", "r"), Gap("s", "r"))))
    assert outbox.tally(QUERIES) == Tally(
        captured=8, pending=8, pending_bytes=8, envelopes=3, gaps=2, oldest_at=NOON.timestamp()
    )
    outbox.accept(head(outbox), delivered=2, reason="partial")
    outbox.split(head(outbox), draft(b"45", 2), draft(b"6 7", 2))
    outbox.park(head(outbox), "refused")
    books = outbox.tally(QUERIES)
    assert books == Tally(
        captured=8,
        delivered=2,
        parked=3,
        pending=3,
        pending_bytes=4,
        envelopes=2,
        gaps=2,
        oldest_at=NOON.timestamp() + 60,
    )
    assert books.balances


def test_a_topic_without_envelopes_knows_the_gaps(outbox: Outbox) -> None:
    outbox.commit(Change(gaps=(Gap("s", "r"),)))
    assert outbox.tally(QUERIES) == Tally(gaps=1)


# -- books are heard -------------------------------------------------------------------------------------------------


def test_books_are_heard_at_the_start_and_after_every_change_in_order(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        put(outbox, draft(records=7))
    heard: list[tuple[str, int, int]] = []
    with closing(
        Outbox(tmp_path, on_books=lambda topic, books: heard.append((topic, books.pending, books.delivered)))
    ) as outbox:
        put(outbox, draft(records=2))
        outbox.accept(head(outbox), delivered=7)
        with pytest.raises(EnvelopeGone):
            outbox.park(Envelope(99, QUERIES, 99, "k", 1, b"", b"", 0.0), "refused")
    assert heard == [(QUERIES, 7, 0), (QUERIES, 9, 0), (QUERIES, 2, 7)]


# -- marks -----------------------------------------------------------------------------------------------------------


def test_the_newest_marks_are_remembered(outbox: Outbox) -> None:
    outbox.commit(Change(marks=tuple(str(number) for number in range(MARKS_KEPT))))
    assert outbox.has_mark("0")
    outbox.commit(Change(marks=("one more",)))
    assert [outbox.has_mark(name) for name in ("0", "1", str(MARKS_KEPT - 1), "one more")] == [False, True, True, True]


def test_a_mark_that_is_set_again_and_again_drives_no_other_out(outbox: Outbox) -> None:
    outbox.commit(Change(marks=("early",)))
    outbox.commit(Change(marks=("again",) * (2 * MARKS_KEPT)))
    outbox.commit(Change(marks=("late",)))
    assert [outbox.has_mark(name) for name in ("early", "again", "late")] == [True, True, True]


# -- room ------------------------------------------------------------------------------------------------------------


def test_there_is_room_at_first(outbox: Outbox) -> None:
    assert outbox.shortage(**GENEROUS) is None


def test_the_quota_counts_what_is_used_and_frees_what_is_delivered(outbox: Outbox) -> None:
    put(outbox, draft(os.urandom(2 << 20)))
    quota = {"max_bytes": 1 << 20, "min_free_bytes": 0}
    assert "of 1,048,576 bytes" in (outbox.shortage(**quota) or "")
    outbox.accept(head(outbox), delivered=1)
    assert outbox.shortage(**quota) is None


@pytest.mark.parametrize(
    ("free_mib", "disk_mib", "expected"),
    [
        (64, 10_240, None),
        (63, 10_240, "the disk has 66,060,288 bytes free, 67,108,864 stay reserved"),
        (10, 100, None),  # on a small disk the reserve is a tenth of it
        (9, 100, "the disk has 9,437,184 bytes free, 10,485,760 stay reserved"),
        (0, 100, "the disk has 0 bytes free, 10,485,760 stay reserved"),
    ],
)
def test_the_disk_keeps_a_reserve(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, free_mib: int, disk_mib: int, expected: str | None
) -> None:
    sizes = SimpleNamespace(f_bavail=free_mib * 256, f_blocks=disk_mib * 256, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda _: sizes)
    assert outbox.shortage(max_bytes=1 << 40, min_free_bytes=64 << 20) == expected


def test_a_directory_that_vanished_is_told(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox._file, "path", Path("/nonexistent/directory/file"))
    with pytest.raises(OutboxInaccessible, match="No such file"):
        outbox.shortage(**GENEROUS)


# -- care ------------------------------------------------------------------------------------------------------------


def test_the_file_shrinks_after_a_backlog_without_a_wal_of_its_size(outbox: Outbox) -> None:
    for _ in range(20):
        put(outbox, draft(os.urandom(1 << 20)))
    while (envelope := outbox.head(QUERIES)) is not None:
        outbox.accept(envelope, delivered=1)
    wal = outbox.path.with_name(f"{outbox.path.name}-wal")
    assert outbox.path.stat().st_size > 20 << 20
    wal_before = wal.stat().st_size
    assert outbox.shrink() is False
    assert outbox.path.stat().st_size < 2 << 20
    assert wal.stat().st_size <= max(wal_before, 2 << 20)


def test_shrinking_takes_a_bounded_step_at_a_time(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.outbox.SHRINK_CHUNKS", 1)
    put(outbox, draft(os.urandom(4 << 20)))
    outbox.accept(head(outbox), delivered=1)
    steps = 1
    while outbox.shrink():
        steps += 1
    assert steps == 5  # four chunks of a MiB, then too little is left


def test_a_little_room_is_kept_for_the_next_envelopes(outbox: Outbox) -> None:
    put(outbox, draft(os.urandom(100_000)))
    outbox.accept(head(outbox), delivered=1)
    size = outbox.path.stat().st_size
    outbox.shrink()
    assert outbox.path.stat().st_size == size


def test_only_the_owner_may_look(outbox: Outbox) -> None:
    put(outbox, draft())
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in outbox.path.parent.iterdir()}
    names = (*(f"outbox.sqlite3{end}" for end in ("", "-wal", "-shm")), "outbox.mark", *ballast.NAMES)
    assert modes == dict.fromkeys(names, "0o600")
    assert stat.S_IMODE(outbox.path.parent.stat().st_mode) == 0o700


def test_a_wide_umask_changes_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(Outbox(tmp_path / "data")) as outbox:
            put(outbox, draft())
            modes = {stat.S_IMODE(path.stat().st_mode) for path in outbox.path.parent.iterdir()}
    finally:
        os.umask(before)
    assert (modes, stat.S_IMODE((tmp_path / "data").stat().st_mode)) == ({0o600}, 0o700)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutboxInaccessible, match="file"):
        Outbox(tmp_path / "file" / "data")


def test_who_holds_a_closed_outbox_changes_nothing_of_the_one_that_was_opened_after_it(tmp_path: Path) -> None:
    old = Outbox(tmp_path)
    put(old, draft(b"a"), draft(b"b"))
    envelope = head(old)
    old.offer(envelope)
    old.close()
    with closing(Outbox(tmp_path)) as new:
        assert head(new).doubtful  # it may have been on its way
        put(new, draft(b"c"))
        files = {
            path: path.read_bytes() for path in tmp_path.iterdir() if path.name in {"outbox.mark", "outbox.sqlite3"}
        }
        descriptors = len(os.listdir("/proc/self/fd"))
        for change in (
            lambda: put(old, draft(b"d")),
            *(old.withdraw, lambda: old.offer(envelope), old.withdraw),
            lambda: old.doubt(envelope),
            lambda: old.accept(envelope, delivered=1),
            lambda: old.park(envelope, "why"),
            old.demand_recordable,
            old.shrink,
        ):
            with suppress(OutboxBroken):  # some have nothing to do
                change()
        assert {path: path.read_bytes() for path in files} == files
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert [each.body for each in waiting(new)] == [b"a", b"b", b"c"]


def test_a_closed_outbox_answers_with_a_coded_error(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.close()
    outbox.close()
    with pytest.raises(OutboxBroken, match="closed"):
        outbox.head(QUERIES)
    with pytest.raises(OutboxBroken, match="closed"):
        put(outbox, draft())


# -- threads ---------------------------------------------------------------------------------------------------------


def test_many_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    writers, commits = 4, 25
    heard: list[Tally] = []
    taken: list[bytes] = []
    with closing(Outbox(tmp_path, on_books=lambda _, books: heard.append(books))) as outbox:

        def write(name: int) -> None:
            for number in range(commits):
                body = f"{name}/{number}".encode()
                outbox.commit(Change((draft(body, 2),), bookmarks={str(name): str(number).encode()}))

        def drain() -> None:
            while len(taken) < writers * commits:
                envelope = outbox.head(QUERIES)
                if envelope is not None:
                    outbox.accept(envelope, delivered=2)
                    taken.append(envelope.body)

        threads = [threading.Thread(target=write, args=(name,)) for name in range(writers)]
        threads.append(threading.Thread(target=drain))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert Counter(taken) == Counter(f"{name}/{n}".encode() for name in range(writers) for n in range(commits))
        assert [outbox.bookmark(str(name)) for name in range(writers)] == [str(commits - 1).encode()] * writers
        assert outbox.tally(QUERIES) == Tally(captured=writers * commits * 2, delivered=writers * commits * 2)
    captured = [books.captured for books in heard]
    assert captured == sorted(captured)
    assert all(books.balances for books in heard)


def test_nothing_is_captured_into_a_deleted_file_and_what_waits_can_still_be_delivered(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.commit(Change(drafts=(Draft("queries", 1, b"one"),)))
    outbox.path.unlink()
    with pytest.raises(OutboxGone):
        outbox.commit(Change(drafts=(Draft("queries", 1, b"two"),)))
    waiting = outbox.head("queries")
    assert waiting is not None
    outbox.accept(waiting, delivered=1)
    assert outbox.tally("queries") == Tally(captured=1, delivered=1)
    outbox.close()


def test_topics_have_books_from_the_start_so_that_gaps_are_heard_of(tmp_path: Path) -> None:
    heard: list[tuple[str, Tally]] = []
    outbox = Outbox(tmp_path, topics=("queries",), on_books=lambda topic, books: heard.append((topic, books)))
    outbox.commit(Change(gaps=(Gap("default", "rotated"),)))
    assert heard == [("queries", Tally()), ("queries", Tally(gaps=1))]
    outbox.close()
