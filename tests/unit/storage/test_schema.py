"""Whose file is it, and how does it become ours.

What could go wrong: another program's file is changed, be it by a byte; a newer outbox is used by an older agent; a
crash in the middle of making the tables leaves a file that nobody takes; damage is told as somebody else's file.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage import schema
from storage.connection import connect, make_durable
from storage.envelope import Change, Draft
from storage.errors import OutboxBroken, OutboxDamaged, OutboxForeign, OutboxInaccessible, OutboxNewer
from storage.outbox import FILE_NAME, Outbox
from storage.schema import APPLICATION_ID, CREATE_V1, VERSION, identify, migrate
from storage.view import OutboxView


def fingerprint(directory: Path) -> dict[str, str]:
    """Every file there with the hash of its content; -shm is SQLite's scratch memory."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if not path.name.endswith("-shm")
    }


def text_file(path: Path) -> None:
    path.write_text("my diary\n" * 1_000)


def short_text_file(path: Path) -> None:
    path.write_text("x")


def other_database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in ("CREATE TABLE diary (day)", "INSERT INTO diary VALUES ('monday')", *statements):
            other.execute(statement)


def database_of_another_program(path: Path) -> None:
    other_database(path, "PRAGMA application_id=252006674")


def database_with_a_version_like_ours(path: Path) -> None:
    other_database(path, f"PRAGMA user_version={VERSION}")


def clean_wal_database(path: Path) -> None:
    other_database(path, "PRAGMA journal_mode=WAL")


def crashed_wal_database(path: Path) -> None:
    """Its last commits are only in its WAL, as after a power cut."""
    origin = path.with_name("origin")
    with closing(sqlite3.connect(origin, isolation_level=None)) as other:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA application_id=5", "CREATE TABLE diary (day)"):
            other.execute(statement)
        shutil.copy(origin, path)
        shutil.copy(f"{origin}-wal", f"{path}-wal")
    origin.unlink()
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


FOREIGN = [
    text_file,
    short_text_file,
    other_database,
    database_of_another_program,
    database_with_a_version_like_ours,
    clean_wal_database,
    crashed_wal_database,
]


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_a_foreign_file_is_refused_and_stays_as_it_was(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / FILE_NAME)
    before = fingerprint(tmp_path)
    with pytest.raises(OutboxForeign, match=str(tmp_path)):
        Outbox(tmp_path)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("make", [text_file, other_database, crashed_wal_database], ids=lambda make: make.__name__)
def test_a_look_into_a_foreign_file_is_refused_too(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / FILE_NAME)
    with pytest.raises(OutboxForeign):
        OutboxView(tmp_path)


def test_a_newer_format_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("ALTER TABLE envelope ADD COLUMN zone TEXT")
        other.execute(f"PRAGMA user_version={VERSION + 1}")
    before = fingerprint(tmp_path)
    with pytest.raises(OutboxNewer, match=f"format {VERSION + 1}"):
        Outbox(tmp_path)
    assert fingerprint(tmp_path) == before


def test_an_empty_file_becomes_an_outbox(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    with closing(Outbox(tmp_path)) as outbox:
        assert len(outbox.installation) == 16
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as look:
        assert look.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert look.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_two_installations_have_two_names(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "a")) as one, closing(Outbox(tmp_path / "b")) as two:
        assert one.installation != two.installation


def test_an_interrupted_creation_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_STEPS", ((*schema.CREATE_V1[:3], "CREATE TABLE ("), schema.UPGRADE_V2))
        with pytest.raises(OutboxBroken, match="syntax error"):  # the fault happened, after three statements
            Outbox(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as look:
        assert look.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    with closing(Outbox(tmp_path)) as outbox:
        outbox.commit(Change(drafts=(Draft("queries", 1, b"x"),)))
        assert outbox.tally("queries").pending == 1


def test_a_crashed_outbox_of_ours_is_taken_with_its_wal(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "a")) as outbox:
        outbox.commit(Change(notes={"name": "value"}))
        (tmp_path / "b").mkdir()
        shutil.copy(outbox.path, tmp_path / "b")
        shutil.copy(f"{outbox.path}-wal", tmp_path / "b")
    with closing(Outbox(tmp_path / "b")) as crashed:
        assert crashed.note("name") == "value"


def damage_the_table_of_tables(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100  # behind the header of the first page
    path.write_bytes(content)


def test_a_spoiled_outbox_is_not_told_as_a_foreign_one_but_rebuilt(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    damage_the_table_of_tables(tmp_path / FILE_NAME)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as look, pytest.raises(sqlite3.DatabaseError):
        look.execute("SELECT count(*) FROM envelope")  # the damage happened
    told: list[str] = []
    Outbox(tmp_path, on_loss=told.append).close()
    assert [sentence.split(";")[0] for sentence in told] == ["The outbox was damaged: 0 records saved, 0 lost"]


def test_a_directory_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(OutboxInaccessible):
        Outbox(tmp_path)


def test_a_file_that_another_process_makes_meanwhile_is_not_taken_for_foreign(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    maker, looker = connect(path), connect(path)
    make_durable(maker)
    made: list[str] = []

    def make_it_now(statement: str) -> None:
        if "application_id" in statement and not made:
            made.append(statement)
            migrate(maker, 0)

    looker.set_trace_callback(make_it_now)
    assert (identify(looker, path), len(made)) == (0, 1)
    assert identify(looker, path) == VERSION
    looker.close()
    maker.close()


def test_an_upgrade_of_rows_that_stand_in_no_order_finds_damage(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        for statement in CREATE_V1:
            sql.execute(statement)
        sql.executemany("INSERT INTO note VALUES (?, 'x')", [(f"name {number}",) for number in range(9)])
    content = path.read_bytes()
    assert content.count(b"name 0") == 1
    path.write_bytes(content.replace(b"name 0", b"zzzz 0"))
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as sql,
        pytest.raises(OutboxDamaged, match="note has a row"),
    ):
        migrate(sql, 1)
