"""The pages of a file and of the WAL beside it, each in every version.

What could go wrong: a version is taken for newer than it is, or left out; what no commit stands behind, or what a WAL
of an earlier time left, is taken for real; a frame whose head is damaged is lost with its content; a damaged size,
number or chain makes nonsense of everything, or is followed for ever; free pages are read as if they were in use.
"""

from __future__ import annotations

import random
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.images import Images, opened

PAGE_BYTES, FRAME_BYTES = 4_096, 4_120


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[sqlite3.Connection, Path]]:
    """A database whose last changes stand in its WAL: the same row, three times."""
    path = tmp_path / "db"
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA auto_vacuum=NONE")
        sql.execute("PRAGMA journal_mode=WAL").fetchall()
        sql.execute("CREATE TABLE t (a)")
        sql.execute("INSERT INTO t VALUES ('version 0')")
        sql.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        for number in (1, 2, 3):
            sql.execute("UPDATE t SET a = ?", (f"version {number}",))
        yield sql, path


def copied(path: Path, name: str) -> Path:
    """As a crash leaves it: the same process must not open what SQLite has open."""
    copy = path.with_name(name)
    copy.write_bytes(path.read_bytes())
    wal_of(copy).write_bytes(wal_of(path).read_bytes())
    return copy


def spoil(path: Path, at: int, content: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(content)] = content
    path.write_bytes(whole)


def texts(there: Images, number: int) -> list[str]:
    return [page[page.index(b"version") :].decode() for page in there.versions(number)]


def test_the_newest_version_comes_first_and_the_files_last(live: tuple[sqlite3.Connection, Path]) -> None:
    with opened(copied(live[1], "copy")) as there:
        assert texts(there, 2) == [f"version {number}" for number in (3, 2, 1, 0)]
        assert there.numbers == [1, 2]
        assert there.strays == []


def test_frames_of_an_earlier_time_are_older_than_the_file_and_left_out(live: tuple[sqlite3.Connection, Path]) -> None:
    sql, path = live
    sql.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    sql.execute("UPDATE t SET a = 'version 4'")
    with opened(copied(path, "copy")) as there:
        assert wal_of(path).stat().st_size == 32 + 3 * FRAME_BYTES  # or this would show nothing
        assert texts(there, 2) == ["version 4", "version 3"]


def test_what_no_commit_stands_behind_is_left_out(live: tuple[sqlite3.Connection, Path]) -> None:
    copy = copied(live[1], "copy")
    spoil(wal_of(copy), 32 + 2 * FRAME_BYTES + 4, bytes(4))  # the last frame ends no transaction any more
    with opened(copy) as there:
        assert texts(there, 2) == ["version 2", "version 1", "version 0"]


def test_a_frame_whose_head_is_gone_is_kept_as_a_stray(live: tuple[sqlite3.Connection, Path]) -> None:
    copy = copied(live[1], "copy")
    spoil(wal_of(copy), 32 + FRAME_BYTES, bytes(24))
    with opened(copy) as there:
        assert texts(there, 2) == ["version 3", "version 1", "version 0"]
        assert [b"version 2" in page for page in there.strays] == [True]


def test_a_damaged_head_of_the_wal_does_not_hide_its_frames(live: tuple[sqlite3.Connection, Path]) -> None:
    copy = copied(live[1], "copy")
    spoil(wal_of(copy), 0, bytes(32))
    with opened(copy) as there:
        assert len(there.versions(2)) == 4


@pytest.mark.parametrize("size", [b"\0\0", b"\x02\0", b"\x20\0", b"\0\1", b"\x12\x34"])
def test_a_damaged_size_of_pages_is_not_believed(live: tuple[sqlite3.Connection, Path], size: bytes) -> None:
    copy = copied(live[1], "copy")
    spoil(copy, 16, size)
    wal_of(copy).unlink()
    with opened(copy) as there:
        assert (there.page_bytes, texts(there, 2)) == (PAGE_BYTES, ["version 0"])


def test_another_size_of_pages_is_taken_where_the_file_has_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as sql:
        sql.execute("PRAGMA page_size=8192")
        sql.execute("CREATE TABLE t (a)")
    with opened(tmp_path / "db") as there:
        assert (there.page_bytes, there.numbers) == (8_192, [1, 2])


def test_a_number_far_away_is_one_page_and_not_millions(live: tuple[sqlite3.Connection, Path]) -> None:
    copy = copied(live[1], "copy")
    spoil(wal_of(copy), 32 + FRAME_BYTES, struct.pack(">I", 4_000_000_000))
    with opened(copy) as there:
        assert there.numbers == [1, 2, 4_000_000_000]
        assert texts(there, 4_000_000_000) == ["version 2"]


@pytest.mark.parametrize("size", [0, 1, 17, 20, 4_095, 4_096, 5_000])
def test_a_file_that_ends_early_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    (tmp_path / "db").write_bytes(b"x" * size)
    with opened(tmp_path / "db") as there:
        assert len(there.numbers) == -(-size // PAGE_BYTES)
        assert all(len(there.versions(number)[0]) == PAGE_BYTES for number in there.numbers)
        assert there.free() == set()  # its list begins at a page that is not there


def test_no_file_has_no_pages(tmp_path: Path) -> None:
    with opened(tmp_path / "db") as there:
        assert (there.numbers, there.versions(1), there.free(), there.overflow(1, 10)) == ([], [], set(), None)


def test_free_pages_are_those_sqlite_counts(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("CREATE TABLE t (a)")
        sql.execute("BEGIN")
        sql.executemany("INSERT INTO t VALUES (?)", [(bytes(9_000),) for _ in range(700)])
        sql.execute("DELETE FROM t WHERE rowid > 5")
        sql.execute("COMMIT")
        (free,) = sql.execute("PRAGMA freelist_count").fetchone()
    with opened(path) as there:
        assert len(there.free()) == free
        assert free > PAGE_BYTES // 4  # more than one page of the list


def chained(*following: int) -> Images:
    pages = [
        struct.pack(">I", number) + bytes([place + 1]) * (PAGE_BYTES - 4) for place, number in enumerate(following)
    ]
    return Images(b"".join(pages), PAGE_BYTES)


def test_a_chain_is_followed_to_what_is_wanted_and_not_further() -> None:
    there = chained(3, 0, 2)
    found = there.overflow(1, 2 * (PAGE_BYTES - 4) + 7)
    assert found == b"\1" * (PAGE_BYTES - 4) + b"\3" * (PAGE_BYTES - 4) + b"\2" * 7


@pytest.mark.parametrize("following", [(0,), (9,), (8, 7)])
def test_a_chain_that_breaks_off_is_none(following: tuple[int, ...]) -> None:
    assert chained(*following, 0, 0, 0).overflow(1, 2 * PAGE_BYTES) is None


def test_a_chain_that_bites_its_tail_has_no_more_than_the_files() -> None:
    assert chained(2, 1).overflow(1, 2 * PAGE_BYTES + 1) is None
    assert chained(2, 1).overflow(1, 1 << 40) is None
    assert chained(2, 1).overflow(1, 2 * PAGE_BYTES - 8) is not None


@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(0, 20_000))
def test_bytes_of_nonsense_raise_nothing(seed: int, kind: int, size: int) -> None:
    rng = random.Random(seed)
    content = bytearray(rng.randbytes(size))
    content[:16] = b"SQLite format 3\0" if kind % 2 else content[:16]
    there = Images(bytes(content), 512 << kind)
    there.frames[rng.randrange(1, 50)] = [rng.randbytes(512 << kind)]
    there.free()
    for number in there.numbers:
        assert there.versions(number)
        there.overflow(number, rng.randrange(1, 1 << 20))
