"""What a migration would be, told before it is made; and made.

What could go wrong: the look changes a byte, leaves a file behind, or migrates; it does not see what stands in the WAL
alone; an agent that runs is disturbed, or its file is migrated below it; a newer, foreign or damaged file is taken for
one that can be migrated; it says that there is room where there is too little; nothing is to be done and it does
something; envelopes are written anew, so that a large backlog takes for ever.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storage import migration
from storage.audit import audit
from storage.bodies import describe
from storage.connection import connect_readonly
from storage.errors import (
    OutboxDamaged,
    OutboxForeign,
    OutboxFull,
    OutboxGone,
    OutboxInaccessible,
    OutboxLocked,
    OutboxNewer,
)
from storage.lock import DirectoryLock
from storage.migration import Outlook, look
from storage.outbox import FILE_NAME, Outbox
from storage.schema import VERSION
from tests.faults.old_format import FORMATS, outbox_of_format

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL_ROWS = {1: 7, 2: 1}  # of the tables that are guarded anew: what is in such an outbox beside its envelopes


def nothing_lost(sentence: str) -> None:
    raise AssertionError(sentence)


def migrate(directory: Path) -> Outlook:
    return migration.migrate(directory, describe, nothing_lost)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def put(directory: Path, version: int, *, is_closed: bool) -> Path:
    image, _ = outbox_of_format(version, is_closed=is_closed)
    for name, content in image.items():
        (directory / name).write_bytes(content)
    return directory


def left_by_a_killed_agent(directory: Path, version: int) -> Path:
    """Outbox, WAL and the index of it, which nobody writes to the disk: SQLite would make it anew."""
    put(directory, version, is_closed=False)
    (directory / f"{FILE_NAME}-shm").write_bytes(bytes(32_768))
    return directory


def format_of(directory: Path) -> int:
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql:
        return int(sql.execute("PRAGMA user_version").fetchone()[0])


def dead(directory: Path, version: int) -> Path:
    return put(directory, version, is_closed=True)


def dead_with_wal(directory: Path, version: int) -> Path:
    return put(directory, version, is_closed=False)


@pytest.mark.parametrize("make", [dead, dead_with_wal, left_by_a_killed_agent])
@pytest.mark.parametrize("version", FORMATS)
def test_a_look_tells_the_format_and_how_much_there_is_to_do_and_changes_no_byte(
    tmp_path: Path, version: int, make: Callable[[Path, int], Path]
) -> None:
    home = make(tmp_path, version)
    assert f"{FILE_NAME}-wal" in files(home) or make is dead
    before = files(home)
    found = look(home)
    assert files(home) == before
    assert (found.path, found.format, found.process, found.is_due) == (home / FILE_NAME, version, None, True)
    assert found.rows == SMALL_ROWS[version]
    assert 0 < found.bytes < 2_000, "no envelope is among them"
    assert (found.seconds, found.needed_bytes < 1_048_576) == (1, True)


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize(
    ("whole_bytes", "more"),
    [(0, b""), (20, b""), (32, b""), (2_000, b""), (5_000, b""), (0, bytes(50_000)), (0, b"\xff" * 50_000)],
    ids=["empty", "part of its head", "only its head", "part of a page", "one page", "zeros", "garbage"],
)
def test_a_wal_of_which_nothing_holds_is_no_hindrance(
    tmp_path: Path, whole_bytes: int, more: bytes, has_index: bool
) -> None:
    whole = outbox_of_format(1, is_closed=False)[0][f"{FILE_NAME}-wal"]
    put(tmp_path, 1, is_closed=True)
    (tmp_path / f"{FILE_NAME}-wal").write_bytes(whole[:whole_bytes] + more)
    if has_index:
        (tmp_path / f"{FILE_NAME}-shm").write_bytes(bytes(32_768))
    before = files(tmp_path)
    assert (look(tmp_path).format, files(tmp_path)) == (1, before)
    assert (migrate(tmp_path).is_due, look(tmp_path).is_due) == (True, False)


def test_control_a_plain_look_makes_the_index_anew(tmp_path: Path) -> None:
    home = left_by_a_killed_agent(tmp_path, 1)
    before = files(home)
    with closing(connect_readonly(home / FILE_NAME)) as sql:
        sql.execute("SELECT count(*) FROM gap").fetchall()
    assert [name for name, content in files(home).items() if content != before[name]] == [f"{FILE_NAME}-shm"]


@pytest.mark.parametrize("version", FORMATS)
def test_it_is_made_and_what_was_found_before_is_told_and_then_there_is_nothing_to_do(
    tmp_path: Path, version: int
) -> None:
    home = dead_with_wal(tmp_path, version)
    expected = look(home)
    made = migrate(home)
    assert replace(made, free_bytes=0) == replace(expected, free_bytes=0)
    assert (format_of(home), audit(home).balances) == (VERSION, True)
    before = files(home)
    assert (look(home).is_due, migrate(home).is_due, look(home).rows, look(home).seconds) == (False, False, 0, 0)
    assert files(home) == before


def test_where_there_is_no_outbox_yet_there_is_nothing_to_do_and_none_is_made(tmp_path: Path) -> None:
    assert (look(tmp_path), migrate(tmp_path)) == (Outlook(tmp_path / FILE_NAME), Outlook(tmp_path / FILE_NAME))
    assert files(tmp_path) == {}
    (tmp_path / FILE_NAME).touch()
    assert (look(tmp_path).format, files(tmp_path)) == (0, {FILE_NAME: b""})


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    for act in (look, migrate):
        with pytest.raises(OutboxInaccessible, match="is no directory"):
            act(tmp_path / "none")
    assert files(tmp_path) == {}


def test_an_outbox_that_is_gone_is_told(tmp_path: Path) -> None:
    put(tmp_path, 2, is_closed=True)
    (tmp_path / FILE_NAME).unlink()
    for act in (look, migrate):
        with pytest.raises(OutboxGone):
            act(tmp_path)


def test_an_agent_that_runs_is_named_and_left_alone(tmp_path: Path) -> None:
    put(tmp_path, 1, is_closed=True)
    with DirectoryLock(tmp_path) as lock, closing(sqlite3.connect(tmp_path / FILE_NAME)) as older:
        older.execute("UPDATE gap SET detail = 'x'")
        older.commit()
        found = look(tmp_path)
        assert (found.process, found.format) == (lock.path.read_text().strip(), 1)
        with pytest.raises(OutboxLocked):
            migrate(tmp_path)
        assert older.execute("PRAGMA user_version").fetchone() == (1,)
        older.execute("UPDATE gap SET detail = 'y'")
        older.commit()
    assert f"{FILE_NAME}-wal" not in files(tmp_path), "the agent's own connection was the last one"


def test_beside_an_agent_of_this_version_there_is_nothing_to_do(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), closing(Outbox(tmp_path)):
        found = look(tmp_path)
    assert (found.format, found.is_due, found.process is not None) == (VERSION, False, True)


def newer(directory: Path) -> None:
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql:
        sql.execute("ALTER TABLE envelope ADD COLUMN zone TEXT")
        sql.execute(f"PRAGMA user_version={VERSION + 1}")


def foreign(directory: Path) -> None:
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql:
        sql.execute("PRAGMA application_id=77")


def no_database(directory: Path) -> None:
    (directory / FILE_NAME).write_bytes(b"Dear diary, " * 100)


def without_a_table(directory: Path) -> None:
    with closing(sqlite3.connect(directory / FILE_NAME)) as sql:
        sql.execute("DROP TABLE gap")


def overwritten(directory: Path) -> None:
    content = bytearray((directory / FILE_NAME).read_bytes())
    content[100:200] = b"\xff" * 100
    (directory / FILE_NAME).write_bytes(content)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (newer, OutboxNewer),
        (foreign, OutboxForeign),
        (no_database, OutboxForeign),
        (without_a_table, OutboxDamaged),
        (overwritten, OutboxDamaged),
    ],
)
def test_what_cannot_be_migrated_is_told_and_left_as_it_is(
    tmp_path: Path, change: Callable[[Path], None], error: type[Exception]
) -> None:
    put(tmp_path, 1, is_closed=True)
    change(tmp_path)
    before = files(tmp_path)
    for act in (look, migrate):
        with pytest.raises(error):
            act(tmp_path)
    assert files(tmp_path) == before


def test_too_little_room_is_told(tmp_path: Path) -> None:
    found = look(put(tmp_path, 1, is_closed=True))
    found.demand_room()
    with pytest.raises(OutboxFull, match=f"{found.needed_bytes:,} bytes are needed, 7 are free"):
        replace(found, free_bytes=7).demand_room()


def test_the_envelopes_are_as_they_were_to_the_byte(tmp_path: Path) -> None:
    shutil.copyfile(GOLDEN / "outbox-format-1.sqlite3", tmp_path / FILE_NAME)
    read = "SELECT seq, topic, place, key, records, body, sha256, created_at FROM envelope ORDER BY seq"
    with closing(sqlite3.connect(f"file:{tmp_path / FILE_NAME}?mode=ro&immutable=1", uri=True)) as sql:
        before = sql.execute(read).fetchall()
    migrate(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute(read).fetchall() == before
