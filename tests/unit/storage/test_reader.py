"""Outbox files that are only read: copies, old ones, damaged ones, and one that an agent writes.

What could go wrong: what still stands in the WAL is not seen; the file is changed, or something is left beside it; a
reader holds up the agent, or takes its lock away; a disk that cannot be written cannot be read either; a damaged file
is refused whole; what was read of a live file is no one moment.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage import diagnosis
from storage.envelope import Change, Draft
from storage.errors import OutboxDamaged, OutboxForeign, OutboxFull, OutboxInaccessible, OutboxLocked, OutboxNewer
from storage.lock import NAME, DirectoryLock, holder
from storage.outbox import FILE_NAME, Outbox
from storage.reader import OutboxReader, outboxes
from storage.wal import has_wal, wal_of

GOLDEN = Path(__file__).parents[2] / "golden"
NOW = 1_790_000_000.0


def body(*names: str) -> bytes:
    return gzip.compress(json.dumps({"queries": [{"id": name} for name in names]}).encode(), mtime=0)


def describe(packed: bytes) -> tuple[str, int] | None:
    try:
        return "queries", len(json.loads(gzip.decompress(packed))["queries"])
    except (OSError, EOFError, ValueError, KeyError):
        return None


def fill(outbox: Outbox, first: int = 0, count: int = 3) -> None:
    for number in range(first, first + count):
        outbox.commit(Change((Draft("queries", 2, body(f"r{number}", f"s{number}")),)))


def read(path: Path, scratch: Path | None = None) -> OutboxReader:
    return OutboxReader(path, describe, now=NOW, scratch=scratch)


def ids(reader: OutboxReader) -> list[str]:
    bodies = [json.loads(gzip.decompress(reader.load(head).body)) for head in reader.heads()]
    return [record["id"] for each in bodies for record in each["queries"]]


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """As a machine leaves it whose power goes: half in the file, half in the WAL."""
    with closing(Outbox(tmp_path / "agent")) as outbox:
        fill(outbox)
        (tmp_path / "copy").mkdir()
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):
            shutil.copyfile(tmp_path / "agent" / name, tmp_path / "copy" / name)
    assert has_wal(tmp_path / "copy" / FILE_NAME)
    return tmp_path / "copy"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Its table of tables is not to be read any more."""
    directory = tmp_path / "damaged"
    with closing(Outbox(directory)) as outbox:
        fill(outbox)
    content = bytearray((directory / FILE_NAME).read_bytes())
    content[100:200] = b"\xff" * 100
    (directory / FILE_NAME).write_bytes(content)
    return directory


EXPECTED = ["r0", "s0", "r1", "s1", "r2", "s2"]


def test_what_stands_in_the_wal_is_seen_and_nothing_is_changed_or_left(copy: Path) -> None:
    before = files(copy)
    with read(copy) as reader:
        assert (ids(reader), reader.agent, reader.salvaged) == (EXPECTED, None, None)
    assert files(copy) == before
    wal_of(copy / FILE_NAME).unlink()
    with pytest.raises(OutboxForeign):  # the control: all of it stands there
        read(copy)


def test_a_file_that_was_closed_in_order_is_read_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        fill(outbox)
    before = files(tmp_path)
    with read(tmp_path / FILE_NAME) as reader:
        assert ids(reader) == EXPECTED
    assert files(tmp_path) == before


def test_the_order_is_that_of_sending_and_halves_stand_where_their_parent_stood(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        fill(outbox)
        first = outbox.head("queries")
        assert first is not None
        outbox.split(first, Draft("queries", 1, body("r0")), Draft("queries", 1, body("s0")))
    with read(tmp_path) as reader:
        assert ids(reader) == EXPECTED
        assert [head.key.partition(".")[2] for head in reader.heads()] == ["0", "1", "", ""]


def test_what_was_parked_is_told_apart(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        fill(outbox)
        first = outbox.head("queries")
        assert first is not None
        outbox.park(first, "refused")
    with read(tmp_path) as reader:
        [parked] = reader.parked()
        assert (parked.parked, parked.records, len(reader.heads())) == ("refused", 2, 2)
        assert json.loads(gzip.decompress(reader.load(parked).body))["queries"][0]["id"] == "r0"


@pytest.mark.parametrize("number", [1, 2])
def test_old_formats_are_read_as_they_are(number: int, tmp_path: Path) -> None:
    golden = GOLDEN / f"outbox-format-{number}.sqlite3"
    shutil.copyfile(golden, tmp_path / FILE_NAME)
    with read(tmp_path) as reader:
        assert (reader.version, sum(head.records for head in reader.heads()), len(reader.parked())) == (number, 50, 1)
        assert [reader.load(head).key for head in reader.heads()] == [head.key for head in reader.heads()]
    assert files(tmp_path) == {FILE_NAME: golden.read_bytes()}


# -- beside an agent -------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Outbox]:
    with DirectoryLock(tmp_path), closing(Outbox(tmp_path)) as outbox:
        fill(outbox)
        yield outbox


def test_a_live_file_is_read_as_it_was_at_one_moment_and_the_agent_goes_on(agent: Outbox, tmp_path: Path) -> None:
    before = set(files(tmp_path))
    with read(tmp_path) as reader:
        assert reader.agent == str(os.getpid())
        fill(agent, 10)
        first = agent.head("queries")
        assert first is not None
        agent.accept(first, delivered=2)
        assert ids(reader) == EXPECTED
    assert set(files(tmp_path)) == before
    with read(tmp_path) as again:
        assert ids(again)[:3] == ["r1", "s1", "r2"]
        assert len(ids(again)) == 10
    fill(agent, 20)  # nothing of its own was taken away


def test_asking_who_holds_a_directory_takes_no_lock_from_anybody(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with DirectoryLock(tmp_path):
        assert holder(tmp_path) == str(os.getpid())
        with pytest.raises(OutboxLocked):
            DirectoryLock(tmp_path)
    assert (tmp_path / NAME).exists()
    assert holder(tmp_path) is None


def test_an_agent_that_starts_while_somebody_asks_starts_all_the_same(tmp_path: Path) -> None:
    DirectoryLock(tmp_path).release()
    stop = threading.Event()
    asked = []

    def ask() -> None:
        while not stop.is_set():
            asked.append(holder(tmp_path))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(300):
            DirectoryLock(tmp_path).release()
    finally:
        stop.set()
        asking.join()
    assert len(asked) > 100


# -- what is not as it should be -------------------------------------------------------------------------------------


def test_a_large_file_is_read_through_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        fill(outbox, count=200)
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    at = content.index(b"\x1f\x8b\x08", len(content) // 2) // 4_096 * 4_096  # a page with bodies
    content[at : at + 4_096] = bytes(4_096)
    (tmp_path / FILE_NAME).write_bytes(content)
    monkeypatch.setattr(diagnosis, "CHECKED_BYTES", 0)
    assert diagnosis.diagnose(tmp_path / FILE_NAME, None, describe) is None, "an agent finds it later"
    with read(tmp_path) as reader:
        assert reader.salvaged is not None
        assert 0 < len(reader.heads()) < 200


def test_a_damaged_file_gives_what_is_whole_and_says_what_was_lost(damaged: Path) -> None:
    before = files(damaged)
    with read(damaged) as reader:
        assert str(reader.salvaged).startswith("The outbox was damaged: 6 records saved, 0 lost")
        assert ids(reader) == EXPECTED
    assert files(damaged) == before


def test_a_body_that_is_damaged_costs_itself(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        fill(outbox)
    path = tmp_path / FILE_NAME
    content = path.read_bytes()
    place = content.find(body("r1", "s1"))
    assert place > 0
    path.write_bytes(content[: place + 30] + b"\xff" + content[place + 31 :])
    with read(tmp_path) as reader:
        first, second, third = reader.heads()
        assert reader.load(first).records == reader.load(third).records == 2
        with pytest.raises(OutboxDamaged, match="envelope 2"):
            reader.load(second)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_cannot_be_written_is_read(copy: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "rescued"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", copy, mounted], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", mounted], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (mounted / "x").touch()
        with read(mounted) as reader:
            assert ids(reader) == EXPECTED
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_a_copy_needs_room(damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.reader.free_bytes", lambda _: (10, 1_000))
    with pytest.raises(OutboxFull, match="are needed"):
        read(damaged, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, OutboxInaccessible), (b"Dear diary, " * 100, OutboxForeign), (b"", OutboxForeign)],
)
def test_what_is_no_outbox_is_refused(content: bytes | None, expected: type[Exception], tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(expected):
        read(tmp_path / FILE_NAME)


def test_a_newer_format_is_refused_and_left_as_it_is(copy: Path) -> None:
    with closing(sqlite3.connect(copy / FILE_NAME)) as sql:
        sql.execute("PRAGMA user_version=99")
        sql.commit()
    before = files(copy)
    with pytest.raises(OutboxNewer):
        read(copy)
    assert files(copy) == before


def test_which_files_are_meant(tmp_path: Path) -> None:
    for name in ("a.sqlite3", "b/outbox.sqlite3", "c/other.sqlite3", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(outboxes(tmp_path / "a.sqlite3")) == [tmp_path / "a.sqlite3"]
    assert list(outboxes(tmp_path / "b")) == [tmp_path / "b" / FILE_NAME]
    assert list(outboxes(tmp_path)) == [tmp_path / "a.sqlite3", tmp_path / "b" / FILE_NAME]
