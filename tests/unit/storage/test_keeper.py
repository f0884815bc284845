"""An outbox in the hands of a person.

What could go wrong: what is put back gets another key or counts twice; what is given up vanishes from the books; what
the backend has a part of is sent whole; half of a change stays; a running agent is disturbed, does not see what was
done, or its file is taken over by a newer program; a file that the agent has replaced is changed in its place; a
damaged outbox is changed before it is healed; the file stays large.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storage import envelopes
from storage import keeper as module
from storage.audit import audit
from storage.envelope import PARTIAL, Change, Draft, Envelope
from storage.errors import (
    EnvelopeUnknown,
    OutboxDamaged,
    OutboxForeign,
    OutboxFull,
    OutboxGone,
    OutboxInaccessible,
    OutboxLocked,
    OutboxOlder,
    PartlyDelivered,
)
from storage.keeper import Keeper
from storage.lock import DirectoryLock
from storage.outbox import FILE_NAME, Outbox

GOLDEN = Path(__file__).parents[2] / "golden"
TOPIC = "queries"
IN_PART = f"{PARTIAL}: x"


def body(*names: str) -> bytes:
    return gzip.compress(json.dumps({"queries": [{"id": name} for name in names]}).encode(), mtime=0)


def describe(packed: bytes) -> tuple[str, int] | None:
    try:
        return TOPIC, len(json.loads(gzip.decompress(packed))["queries"])
    except (OSError, EOFError, ValueError, KeyError):
        return None


def head(outbox: Outbox) -> Envelope:
    envelope = outbox.head(TOPIC)
    assert envelope is not None
    return envelope


def filled(outbox: Outbox) -> list[str]:
    """Three envelopes: 1 parked, 2 parked because a part was delivered, 3 waits. Gives their keys."""
    outbox.commit(Change(tuple(Draft(TOPIC, 2, body(f"a{number}", f"b{number}")) for number in range(3))))
    first = head(outbox)
    outbox.park(first, "refused")
    second = head(outbox)
    outbox.accept(second, delivered=1, reason=IN_PART)
    return [first.key, second.key, head(outbox).key]


@pytest.fixture(params=["beside an agent", "alone"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Outbox]]]:
    """A directory with an outbox that an agent has open, or nobody; and how the outbox is come by afterwards."""
    if request.param == "alone":
        with closing(Outbox(tmp_path, topics=(TOPIC,))) as outbox:
            filled(outbox)
        opened: list[Outbox] = []

        def reopened() -> Outbox:
            opened.append(Outbox(tmp_path, topics=(TOPIC,)))
            return opened[-1]

        yield tmp_path, reopened
        for each in opened:
            each.close()
        return
    with DirectoryLock(tmp_path), closing(Outbox(tmp_path, topics=(TOPIC,))) as running:
        filled(running)
        yield tmp_path, lambda: running


Place = tuple[Path, Callable[[], Outbox]]


def hands(directory: Path, told: list[str] | None = None) -> Keeper:
    return Keeper(directory, describe, (told if told is not None else []).append)


def test_what_was_parked_waits_again_under_its_key(place: Place) -> None:
    directory, outbox_of = place
    with hands(directory) as keeper:
        assert keeper.retry(1) == 2
    outbox = outbox_of()
    first = head(outbox)
    assert (first.seq, first.records, json.loads(gzip.decompress(first.body))["queries"][0]["id"]) == (1, 2, "a0")
    assert first.key.split("-")[1] == "1"
    assert first.is_intact
    books = outbox.tally(TOPIC)
    assert (books.pending, books.parked, books.envelopes, books.balances) == (4, 1, 2, True)
    outbox.accept(first, delivered=2)
    assert audit(directory).balances


def test_all_of_them_do_but_for_what_the_backend_has_a_part_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    directory, outbox_of = place
    with hands(directory) as keeper:
        assert keeper.retry_all() == (1, 2)
        assert keeper.retry_all() == (0, 0)
        with pytest.raises(PartlyDelivered, match="envelope 2"):
            keeper.retry(2)
    assert outbox_of().parked() == [(2, 1, IN_PART)]
    assert audit(directory).balances


def test_what_is_given_up_is_counted(place: Place) -> None:
    directory, outbox_of = place
    with hands(directory) as keeper:
        assert [keeper.discard(seq) for seq in (3, 1, 2)] == [2, 2, 1]
    outbox = outbox_of()
    books = outbox.tally(TOPIC)
    assert (books.captured, books.delivered, books.discarded, books.pending, books.parked) == (6, 1, 5, 0, 0)
    assert (outbox.head(TOPIC), outbox.parked(), audit(directory).balances) == (None, [], True)


@pytest.mark.parametrize("seq", [0, 3, 99])
def test_what_is_not_there_is_said(place: Place, seq: int) -> None:
    directory, outbox_of = place
    with hands(directory) as keeper:
        with pytest.raises(EnvelopeUnknown):
            keeper.retry(seq)
        if seq != 3:
            with pytest.raises(EnvelopeUnknown):
                keeper.discard(seq)
    assert outbox_of().tally(TOPIC).pending == 2


def test_a_change_that_fails_has_changed_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, outbox_of = place
    with hands(directory) as keeper:
        monkeypatch.setattr("storage.books.change", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            keeper.retry(1)
        monkeypatch.undo()
        assert keeper.retry(1) == 2
    assert audit(directory).balances
    assert outbox_of().tally(TOPIC).pending == 4


def test_a_parked_body_that_is_damaged_is_not_sent(place: Place) -> None:
    directory, outbox_of = place
    with hands(directory) as keeper:
        with closing(sqlite3.connect(directory / FILE_NAME)) as other:
            assert other.execute("UPDATE parked SET body = x'00' WHERE seq = 1").rowcount == 1
            other.commit()
        with pytest.raises(OutboxDamaged, match="envelope 1"):
            keeper.retry(1)
        assert keeper.discard(1) == 2
    assert outbox_of().parked() == [(2, 1, IN_PART)]


def test_an_agent_goes_on_writing_meanwhile(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), closing(Outbox(tmp_path, topics=(TOPIC,))) as running:
        filled(running)
        for number in range(40):
            running.commit(Change((Draft(TOPIC, 1, body(f"p{number}")),)))
        ended = threading.Event()
        written: list[int] = []

        def write() -> None:
            while not ended.is_set():
                running.commit(Change((Draft(TOPIC, 1, body(f"w{len(written)}")),)))
                written.append(1)

        thread = threading.Thread(target=write)
        thread.start()
        with hands(tmp_path) as keeper:
            discarded = sum(keeper.discard(seq) for seq in range(4, 44))
            keeper.vacuum()
        ended.set()
        thread.join()
        books = running.tally(TOPIC)
        assert (discarded, len(written) > 0) == (40, True)
        assert (books.captured, books.discarded) == (46 + len(written), 40)
    assert audit(tmp_path).balances


def test_what_is_put_back_between_two_reads_of_the_agent_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with DirectoryLock(tmp_path), closing(Outbox(tmp_path, topics=(TOPIC,), on_loss=told.append)) as running:
        filled(running)
        running.accept(head(running), delivered=2)
        oldest = envelopes.oldest

        def and_then(*asked: Any) -> Envelope | None:
            found = oldest(*asked)
            monkeypatch.undo()
            with hands(tmp_path) as keeper:
                assert keeper.retry(1) == 2
            return found

        monkeypatch.setattr(envelopes, "oldest", and_then)
        assert running.head(TOPIC) is None
        assert (head(running).seq, told) == (1, [])


def test_the_file_becomes_small(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), closing(Outbox(tmp_path, topics=(TOPIC,))) as running:
        running.commit(Change(tuple(Draft(TOPIC, 1, bytes([number]) * 100_000) for number in range(30))))
        with hands(tmp_path) as keeper:
            assert [keeper.discard(seq) for seq in range(1, 31)] == [1] * 30
            assert keeper.vacuum() > 2_000_000
            assert keeper.vacuum() == 0
    assert (tmp_path / FILE_NAME).stat().st_size < 200_000
    assert audit(tmp_path).balances


# -- what it will not touch -------------------------------------------------------------------------------------------


def test_no_outbox_and_another_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutboxInaccessible, match="no such file"):
        hands(tmp_path)
    (tmp_path / FILE_NAME).write_text("Dear diary, " * 100)
    with pytest.raises(OutboxForeign):
        hands(tmp_path)
    assert (tmp_path / FILE_NAME).read_text() == "Dear diary, " * 100


def test_an_old_one_is_taken_over_unless_its_agent_runs(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "outbox-format-2.sqlite3", tmp_path / FILE_NAME)
    with DirectoryLock(tmp_path), pytest.raises(OutboxOlder, match="format 2"):
        hands(tmp_path)
    with hands(tmp_path) as keeper:
        assert keeper.retry_all() == (1, 1)


def test_an_agent_that_begins_at_this_moment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Outbox(tmp_path).close()
    with DirectoryLock(tmp_path):
        monkeypatch.setattr(module, "holder", lambda _: None)
        with pytest.raises(OutboxLocked):
            hands(tmp_path)


def test_a_damaged_one_is_healed_first(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path, topics=(TOPIC,))) as outbox:
        filled(outbox)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.execute("UPDATE tally SET guard = x'00'")
        other.commit()
    told: list[str] = []
    with hands(tmp_path, told) as keeper:
        assert (keeper.retry(1), len(told)) == (2, 1)
    assert audit(tmp_path).balances


def test_a_file_that_was_replaced_is_not_changed(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), closing(Outbox(tmp_path, topics=(TOPIC,))) as running:
        filled(running)
        with hands(tmp_path) as keeper:
            shutil.copy(tmp_path / FILE_NAME, tmp_path / "copy")
            (tmp_path / "copy").replace(tmp_path / FILE_NAME)
            with pytest.raises(OutboxGone):
                keeper.retry(1)
            (tmp_path / FILE_NAME).unlink()
            with pytest.raises(OutboxGone):
                keeper.discard(1)
        assert running.parked()[0][0] == 1


def test_what_sqlite_reports_is_told_with_a_code(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path, topics=(TOPIC,))) as outbox:
        filled(outbox)
    with hands(tmp_path) as keeper:
        keeper._sql.execute("PRAGMA max_page_count=1")
        more = "INSERT INTO note SELECT hex(randomblob(900000)), 'x', x'00'"
        keeper._sql.execute(f"CREATE TEMP TRIGGER full BEFORE DELETE ON parked BEGIN {more}; END")
        with pytest.raises(OutboxFull):
            keeper.retry(1)
