"""Whether a file can be worked on, has to be rebuilt, or is none of ours.

What could go wrong: another program's file is rebuilt, and so taken away from it; a file of a newer agent is; a
damaged head makes ours look foreign or newer, so that the agent never starts again; a file that went back or is gone
is taken for a new one; a look changes what it looks at.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storage import diagnosis
from storage.diagnosis import diagnose
from storage.envelope import Change, Draft
from storage.errors import OutboxForeign, OutboxInaccessible, OutboxNewer
from storage.high_water import FILE_NAME as MARK
from storage.high_water import HighWater, HighWaterFile, newest
from storage.outbox import FILE_NAME, Outbox
from storage.salvage import DAMAGED, MISSING, ROLLED_BACK
from tests.fakes.inside import sql_of
from tests.faults import old_format

TOPIC = "queries"


def nothing(_: bytes) -> None:
    return None


def make(directory: Path, commits: int = 3) -> tuple[Path, HighWater]:
    """A sound outbox, closed, and its mark."""
    with closing(Outbox(directory, topics=(TOPIC,))) as outbox:
        for number in range(commits):
            outbox.commit(Change((Draft(TOPIC, 1, b"body %d" % number),), {"watch": b"%d" % number}))
    return outbox.path, mark_of(directory)


def mark_of(directory: Path) -> HighWater:
    found = newest(directory / MARK)[1]
    assert found is not None
    return found


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        for statement in statements:
            sql.execute(statement).fetchall()


def spoil(path: Path, at: int, content: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(content)] = content
    path.write_bytes(whole)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# -- sound -----------------------------------------------------------------------------------------------------------


def test_a_sound_file_is_left_as_it_is(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    before = files(tmp_path)
    assert (diagnose(path, mark, nothing), diagnose(path, None, nothing)) == (None, None)
    assert files(tmp_path) == before


def test_a_file_that_was_not_closed_is_sound(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "live", topics=(TOPIC,))) as outbox:
        outbox.commit(Change((Draft(TOPIC, 1, b"body"),)))
        crashed = shutil.copytree(tmp_path / "live", tmp_path / "crashed")
    before = files(crashed)
    assert before[f"{FILE_NAME}-wal"]
    assert diagnose(crashed / FILE_NAME, mark_of(crashed), nothing) is None
    after = files(crashed)
    assert {name: after[name] for name in before if not name.endswith("-shm")} == {
        name: content for name, content in before.items() if not name.endswith("-shm")
    }


@pytest.mark.parametrize("version", old_format.FORMATS)
def test_a_file_of_an_earlier_format_is_sound(version: int, tmp_path: Path) -> None:
    contents, _ = old_format.outbox_of_format(version, is_closed=True)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    mark = HighWaterFile(tmp_path).found
    assert (mark is not None) == (version > 1)
    assert diagnose(tmp_path / FILE_NAME, mark, nothing) is None


def test_a_mark_that_is_behind_the_file_says_nothing(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    behind = replace(mark, high=1, low=1, bookmarks={"watch": 1}, books={TOPIC: (1, 0, 0, 0, 0, 1, 6, 1, 0)})
    assert diagnose(path, behind, nothing) is None


# -- gone, or gone back ----------------------------------------------------------------------------------------------


def test_no_file_is_missing_only_where_there_was_one(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    path.unlink()
    assert (diagnose(path, None, nothing), diagnose(path, mark, nothing)) == (None, MISSING)
    path.with_name(f"{FILE_NAME}-wal").write_bytes(b"what is left of it")
    assert diagnose(path, None, nothing) == MISSING


def test_an_empty_file_is_damaged_only_where_there_was_something(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    path.write_bytes(b"")
    assert (diagnose(path, None, nothing), diagnose(path, mark, nothing)) == (None, DAMAGED)
    path.with_name(f"{FILE_NAME}-wal").write_bytes(b"what is left of it")
    assert diagnose(path, None, nothing) == DAMAGED


@pytest.mark.parametrize(
    "ahead",
    [
        *({"high": 4}, {"books": {TOPIC: (4, 0, 0, 0, 0, 3, 18, 3, 0)}}),
        *({"books": {TOPIC: (3, 1, 0, 0, 0, 3, 18, 3, 0)}}, {"books": {"another": (1, 0, 0, 0, 0, 1, 6, 1, 0)}}),
        *({"bookmarks": {"watch": 4}}, {"bookmarks": {"another": 1}}),
    ],
)
def test_a_file_that_does_not_know_what_the_mark_knows_went_back(tmp_path: Path, ahead: dict[str, object]) -> None:
    path, mark = make(tmp_path)
    assert diagnose(path, replace(mark, **ahead), nothing) == ROLLED_BACK  # type: ignore[arg-type]


def test_an_old_copy_went_back(tmp_path: Path) -> None:
    path, _ = make(tmp_path)
    old = path.read_bytes()
    _, mark = make(tmp_path, 1)
    path.write_bytes(old)
    assert diagnose(path, mark, nothing) == ROLLED_BACK


# -- damaged ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tally SET lost = 1", "UPDATE bookmark SET value = x'39'", "UPDATE bookmark SET at_seq = 9",
        "INSERT INTO gap (source, reason, detail, created_at) VALUES ('s', 'r', '', 1)",
        "UPDATE note SET value = 'another'", "ALTER TABLE gap ADD COLUMN more", "ALTER TABLE mark RENAME TO marks",
        "DROP TABLE parked", "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'envelope'",
        "DELETE FROM sqlite_sequence WHERE name = 'envelope'",
    ],
)  # fmt: skip
def test_what_nobody_of_ours_wrote_is_damage(tmp_path: Path, statement: str) -> None:
    path, _ = make(tmp_path)
    change(path, statement)
    assert diagnose(path, None, nothing) == DAMAGED


def test_a_page_of_zeros_is_damage_and_in_a_large_file_it_is_found_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mark = make(tmp_path)
    with closing(sqlite3.connect(path)) as sql:
        (root,) = sql.execute("SELECT rootpage FROM sqlite_master WHERE name = 'parked'").fetchone()
    spoil(path, (root - 1) * 4_096, bytes(4_096))
    assert diagnose(path, mark, nothing) == DAMAGED
    monkeypatch.setattr(diagnosis, "CHECKED_BYTES", 0)
    assert diagnose(path, mark, nothing) is None


@pytest.mark.parametrize("at", [0, 18, 20, 44, 100, 105])
def test_a_damaged_head_is_damage_and_not_somebody_elses_file(tmp_path: Path, at: int) -> None:
    path, mark = make(tmp_path)
    spoil(path, at, b"\xff\xff\xff\xff")
    assert diagnose(path, mark, nothing) == DAMAGED
    assert diagnose(path, None, nothing) == DAMAGED


@pytest.mark.parametrize("size", [1, 16, 100, 432, 511, 512, 4_095, 4_096, 5_000])
def test_a_file_that_was_cut_is_damage_however_little_is_left(tmp_path: Path, size: int) -> None:
    path, mark = make(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert diagnose(path, mark, nothing) == DAMAGED


def test_a_damaged_version_is_damage_where_the_mark_knows_the_real_one(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    change(path, "PRAGMA user_version=66")
    assert diagnose(path, mark, nothing) == DAMAGED
    with pytest.raises(OutboxNewer, match="format 66"):
        diagnose(path, None, nothing)
    with pytest.raises(OutboxNewer):
        diagnose(path, replace(mark, format=66), nothing)
    change(path, "PRAGMA user_version=0")
    assert diagnose(path, mark, nothing) == DAMAGED


def test_a_damaged_application_id_is_damage(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    change(path, "PRAGMA application_id=7")
    assert (diagnose(path, mark, nothing), diagnose(path, None, nothing)) == (DAMAGED, DAMAGED)


def test_a_text_of_the_schema_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    path, mark = make(tmp_path)
    content = path.read_bytes()
    spoil(path, content.index(b"INTEGER PRIMARY KEY AUTOINCREMENT") + 2, b"\xff")
    assert diagnose(path, mark, nothing) == DAMAGED


def test_a_mark_that_says_nothing_any_more_still_tells_that_an_agent_worked_here(tmp_path: Path) -> None:
    path, _ = make(tmp_path)
    path.write_bytes(b"x" * 50_000)
    (tmp_path / MARK).write_bytes(bytes(4_096))
    assert newest(tmp_path / MARK)[1] is None
    assert diagnose(path, None, nothing) == DAMAGED
    (tmp_path / MARK).unlink()
    with pytest.raises(OutboxForeign):
        diagnose(path, None, nothing)


# -- none of ours ----------------------------------------------------------------------------------------------------


def test_another_programs_database_is_foreign_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    change(path, "CREATE TABLE theirs (a)", "INSERT INTO theirs VALUES ('x')")
    before = files(tmp_path)
    with pytest.raises(OutboxForeign):
        diagnose(path, None, nothing)
    assert files(tmp_path) == before


@pytest.mark.parametrize("content", [b"a letter to somebody", b"x" * 50_000])
def test_what_is_no_database_is_foreign(tmp_path: Path, content: bytes) -> None:
    path, mark = make(tmp_path)
    path.write_bytes(content)
    assert diagnose(path, mark, nothing) == DAMAGED  # where the mark is, the file was ours
    (tmp_path / MARK).unlink()
    with pytest.raises(OutboxForeign):
        diagnose(path, None, nothing)


def test_a_head_that_is_gone_is_ours_when_there_are_rows_of_ours(tmp_path: Path) -> None:
    path, _ = make(tmp_path)
    spoil(path, 0, bytes(4_096))
    assert diagnose(path, None, nothing) == DAMAGED


def test_a_file_of_another_user_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, mark = make(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OutboxInaccessible("not yours")

    monkeypatch.setattr(diagnosis, "connect_readonly", refuse)
    with pytest.raises(OutboxInaccessible):
        diagnose(path, mark, nothing)


def test_the_agent_can_tell_them_apart_while_it_runs(tmp_path: Path) -> None:
    """What a start must not need: the file is sound while another connection has it open."""
    with closing(Outbox(tmp_path, topics=(TOPIC,))) as outbox:
        outbox.commit(Change((Draft(TOPIC, 1, b"body"),)))
        assert diagnose(outbox.path, mark_of(tmp_path), nothing) is None
        outbox.commit(Change((Draft(TOPIC, 1, b"body 2"),)))
        assert sql_of(outbox).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
