"""A replay whose ledger, or whose export, finds no room.

What could go wrong: something is sent that nobody remembers; the replay waits for ever for sqlitedict's dead thread;
what was sent when the disk became full is sent again without being counted as doubtful; half an export stands under the
name of a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from agent import body
from agent.errors import LedgerUnusable
from agent.replay.cargo import AHEAD, Cargo
from agent.replay.ledger import ACCEPTED, Ledger
from agent.sinks import QUERIES
from scripts import replay as script
from storage.bodies import describe
from storage.envelope import Change, Draft, Envelope
from storage.outbox import Outbox
from storage.reader import OutboxReader
from tests.fakes.sink import FakeSink
from tests.fakes.stub_backend import StubBackend
from tests.faults.small_disk import Disk, Hog, tmpfs
from tests.unit.replay.test_cargo import flush

RECORDS = 60


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with tmpfs(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with closing(Outbox(tmp_path / "data")) as outbox:
        for number in range(RECORDS):
            record = orjson.dumps({"id": f"r{number}", "sql_text": "SELECT 1"})
            outbox.commit(Change((Draft(QUERIES, 1, body.queries([record])),)))
    return tmp_path / "data"


def deliver(data: Path, disk: Disk, sink: FakeSink) -> Cargo:
    """As far as it goes."""
    with (
        OutboxReader(data, describe, now=0) as reader,
        closing(Ledger(disk.path / "ledger", "b")) as ledger,
    ):
        cargo = Cargo(reader.heads(), reader.load, ledger)
        flush(cargo, sink)
        return cargo


def test_without_room_for_a_ledger_nothing_is_sent(data: Path, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    hog = disk.hog()
    with StubBackend() as stub:
        who = ["--backend-url", stub.url, "--api-key", stub.api_key, "--collector-id", str(stub.collector_id)]
        words = [str(data), "--ledger", str(disk.path / "ledger"), *who]
        assert script.main(words) == 2
        err = capsys.readouterr().err
        assert (err[:7], len(err.splitlines()), stub.requests) == ("[RP-01]", 1, 0)
        hog.go()
        assert script.main(words) == 0
        assert sorted(record["id"] for record in stub.records) == sorted(f"r{number}" for number in range(RECORDS))


@pytest.mark.parametrize("honours_keys", [True, False])
def test_a_disk_that_becomes_full_ends_it_and_what_was_on_its_way_is_doubtful(
    data: Path, disk: Disk, honours_keys: bool
) -> None:
    sink = FakeSink(honours_keys=honours_keys)
    hogs: list[Hog] = []

    def fill(_: Envelope) -> None:
        if len(sink.requests) == 5:
            hogs.append(disk.hog())

    sink.verdict = fill
    with pytest.raises(LedgerUnusable):
        deliver(data, disk, sink)
    assert disk.free_bytes == 0
    sent = len(sink.requests)
    assert 5 <= sent < RECORDS
    hogs[0].go()
    with closing(Ledger(disk.path / "ledger", "b")) as ledger:
        remembered = [ledger.of(each.key) for each in sink.requests]
    assert all(entry is not None for entry in remembered), "nothing was sent that is not in it"
    unsure = sum(entry is not None and entry.state != ACCEPTED for entry in remembered)
    assert unsure <= 1
    cargo = deliver(data, disk, sink)
    assert (cargo.waiting, unsure <= cargo.account.possible_duplicates <= 1 + AHEAD) == (0, True)
    assert set(sink.stored) == {f"r{number}" for number in range(RECORDS)}
    assert len(sink.stored) == RECORDS + (0 if honours_keys else unsure)


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv", "x.parquet"])
def test_an_export_that_finds_no_room_leaves_nothing(
    data: Path, disk: Disk, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hog = disk.hog(leave=1_000)
    assert script.main([str(data), "--export", str(disk.path / name)]) == 2
    err = capsys.readouterr().err
    assert (err[:7], len(err.splitlines())) == ("[EX-02]", 1)
    assert not [path for path in disk.path.iterdir() if "x." in path.name]
    hog.go()
    assert script.main([str(data), "--export", str(disk.path / name)]) == 0
    assert (disk.path / name).stat().st_size > 0
