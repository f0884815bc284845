"""Envelopes written as files by the end of their name.

What could go wrong: a name that says nothing is guessed at; a table lacks the columns that only later records have, or
a spreadsheet carries out a text; an envelope that cannot be read takes the others along, or is left out in silence; a
table holds all of them in memory; half a file is left.
"""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.parquet import write_parquet
from storage import parcel
from storage.envelope import Change, Draft
from storage.errors import ParcelUnwritable
from storage.export import Export
from storage.outbox import FILE_NAME, Outbox
from storage.reader import OutboxReader

RECORDS = (
    {"id": "a", "sql_text": "=cmd()", "rows": 1, "query_time": 0.5, "truncated": None},
    {"id": "b", "sql_text": "SELECT 'é', \"x\"\n", "rows": 2.5, "calls": 9_000_000_000, "truncated": True},
    {"id": "c", "extra": {"deep": [1]}, "mixed": 1},
    {"id": "d", "extra": None, "mixed": "one", "nothing": None},
)


def packed(content: object) -> bytes:
    return gzip.compress(json.dumps(content).encode(), mtime=0)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[OutboxReader]:
    with closing(Outbox(tmp_path / "data")) as outbox:
        drafts = [Draft("queries", 2, packed({"queries": RECORDS[at : at + 2]})) for at in (0, 2)]
        outbox.commit(Change((*drafts, Draft("command_result", 1, packed({"command_id": 1})))))
    with OutboxReader(tmp_path / "data", lambda _: None, now=0) as opened:
        yield opened


def all_of(reader: OutboxReader) -> Export:
    return Export([(reader, head) for head in reader.heads()])


def test_to_carry_it_all_goes(reader: OutboxReader, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    told = all_of(reader).write(path)
    assert (told["envelopes"], told["records"], told["wrong"]) == (3, 5, [])
    assert parcel.check(path).sha256 == told["sha256"]


def test_a_table_has_a_row_for_each_query_and_every_column(reader: OutboxReader, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    assert all_of(reader).write(path)["records"] == 4
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"]
    assert list(rows[0]) == [
        *("envelope", "seq", "id", "sql_text", "rows", "query_time", "truncated", "calls", "extra", "mixed", "nothing")
    ]
    assert (rows[0]["sql_text"], rows[1]["sql_text"]) == ("'=cmd()", RECORDS[1]["sql_text"])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_table_for_programs_keeps_the_types(reader: OutboxReader, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    assert all_of(reader).write(path, {".parquet": write_parquet})["records"] == 4
    rows = parquet.read_table(path).to_pylist()
    assert [row["sql_text"] for row in rows[:2]] == ["=cmd()", RECORDS[1]["sql_text"]]
    assert [row["rows"] for row in rows] == [1.0, 2.5, None, None]
    assert [row["calls"] for row in rows[:2]] == [None, 9_000_000_000]
    assert [row["truncated"] for row in rows[:2]] == [None, True]
    others = [(row["extra"], row["mixed"], row["nothing"]) for row in rows[2:]]
    assert others == [('{"deep":[1]}', "1", None), (None, "one", None)]


def test_without_the_package_it_says_which(
    reader: OutboxReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ParcelUnwritable, match=r"pip install 'dbpower-agent\[export\]'"):
        all_of(reader).write(tmp_path / "x.parquet", {".parquet": write_parquet})
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("name", ["x", "x.json", "x.gz", "x.parquet"])
def test_a_name_that_says_no_format_is_refused(reader: OutboxReader, tmp_path: Path, name: str) -> None:
    with pytest.raises(ParcelUnwritable, match=r"has to end in \.jsonl\.gz, \.csv"):
        all_of(reader).write(tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv"])
def test_one_that_cannot_be_read_is_left_out_and_named(tmp_path: Path, reader: OutboxReader, name: str) -> None:
    with closing(sqlite3.connect(tmp_path / "data" / FILE_NAME)) as other:
        other.execute("UPDATE envelope SET body = x'00' WHERE seq = 1")
        other.commit()
    export = all_of(reader)
    told = export.write(tmp_path / name)
    assert told["wrong"] == export.wrong == ["not readable: the body of envelope 1 is not what was stored"]
    assert told["records"] == (3 if name.endswith("gz") else 2)


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv"])
def test_what_cannot_be_written_leaves_nothing(reader: OutboxReader, tmp_path: Path, name: str) -> None:
    with pytest.raises(ParcelUnwritable):
        all_of(reader).write(tmp_path / "nowhere" / name)
    (tmp_path / name).write_text("before")

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Export([(reader, head) for head in reader.heads()], fail).write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", name]
    assert (tmp_path / name).read_text() == "before"
