"""scripts/replay.py in one process: its words, what it says, its exit codes.

What could go wrong: bad input is a traceback, has the wrong exit code, or leaves half a file; a filter lets through
what it should not, cuts an envelope in two, or is ignored by --import; an old outbox is not understood; what an agent
delivers itself is delivered a second time; a summary is wrong; a damaged file is replayed without a word.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from agent import body
from agent.dev.faults import Fault
from agent.dev.serve import RunningBackend
from agent.replay.cargo import Account
from agent.replay.replay import Progress
from agent.sinks import COMMAND_RESULT, QUERIES, TOPICS
from scripts import replay
from scripts.replaying import shown
from scripts.replaying.meant import STOPPED
from storage.audit import audit
from storage.envelope import PARTIAL, Change, Draft, Envelope
from storage.errors import OutboxLocked
from storage.high_water import FILE_NAME as MARK_NAME
from storage.lock import DirectoryLock
from storage.outbox import FILE_NAME, Outbox
from storage.schema import VERSION
from tests.fakes.relay import Front
from tests.fakes.stub_backend import StubBackend
from tests.servers.authority import Authorities
from tests.unit.transport.conftest import speaking

GOLDEN = Path(__file__).parents[1] / "golden"
IN_PART = f"{PARTIAL}: x"
RESULT = b'{"command_id":7,"success":true,"result":{}}'
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DBPOWER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def stub() -> Iterator[StubBackend]:
    with StubBackend() as running:
        yield running


@pytest.fixture
def say(stub: StubBackend, capsys: pytest.CaptureFixture[str]) -> Say:
    """Replays to the stub; gives exit code, standard output and standard error."""

    def call(*words: object, to: tuple[object, ...] | None = None) -> tuple[int, str, str]:
        who = ("--backend-url", stub.url, "--api-key", stub.api_key, "--collector-id", stub.collector_id)
        try:
            code = replay.main([*map(str, words), *map(str, who if to is None else to)])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def head(outbox: Outbox) -> Envelope:
    found = outbox.head(QUERIES)
    assert found is not None
    return found


def packed(*names: str) -> bytes:
    return body.queries([orjson.dumps({"id": name, "sql_text": "SELECT 1"}) for name in names])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Of an agent that is no more: 1 is parked, 2 in part; 3, 4, 5 and a result wait."""
    directory = tmp_path / "data"
    with closing(Outbox(directory, topics=TOPICS, now=lambda: 1_780_000_000.0)) as outbox:
        drafts = [Draft(QUERIES, 2, packed(f"a{number}", f"b{number}")) for number in range(1, 6)]
        outbox.commit(Change((*drafts, Draft(COMMAND_RESULT, 1, body.pack(RESULT)))))
        outbox.park(head(outbox), "status 400")
        outbox.accept(head(outbox), delivered=1, reason=IN_PART)
    return directory


def ids(stub: StubBackend) -> list[str]:
    return [record["id"] for record in stub.records]


def test_everything_that_waits_arrives_once(data: Path, say: Say, stub: StubBackend) -> None:
    before = (data / FILE_NAME).read_bytes()
    code, out, err = say(data)
    assert (code, err) == (0, "")
    assert out == f"{data / FILE_NAME}: delivered 7, before 0, refused 0\n"
    assert ids(stub) == ["a3", "b3", "a4", "b4", "a5", "b5"]
    code, out, _ = say(data, "--json")
    (told,) = json.loads(out)["outboxes"]
    assert (code, told["before"], told["delivered"], told["waiting"], len(stub.records)) == (0, 7, 0, 0, 6)
    assert (data / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--since", 4), ["a4", "b4", "a5", "b5"]),
        (("--until", 3), ["a3", "b3"]),
        (("--limit", 3), ["a3", "b3"]),
        (("--limit", 1, "--order", "newest"), ["a5", "b5"]),
        (("--order", "newest"), ["a5", "b5", "a4", "b4", "a3", "b3"]),
        (("--topic", "command_result"), []),
        (("--since", "2026-05-28T20:26:41"), []),
        (("--until", "2026-05-28T20:26:41+00:00", "--since", "2026-01-01"), ["a3", "b3", "a4", "b4", "a5", "b5"]),
        (("--parked",), ["a1", "b1", "a3", "b3", "a4", "b4", "a5", "b5"]),
    ],
)
def test_what_is_meant_can_be_said(
    data: Path, say: Say, stub: StubBackend, words: tuple[object, ...], expected: list[str]
) -> None:
    code, *_ = say(data, *words)
    assert code == 0
    assert (ids(stub) if "--order" in words else sorted(ids(stub), key=lambda name: name[::-1])) == expected


def test_the_same_holds_for_what_was_carried(data: Path, say: Say, stub: StubBackend, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    code, out, err = say(data, "--export", path, to=())
    assert (code, out, err) == (0, f"exported 7 records to {path}\n", "")
    code, *_ = say("--import", path, "--since", 4, "--limit", 2, "--topic", "queries")
    assert (code, ids(stub)) == (0, ["a4", "b4"])
    code, out, _ = say("--import", path, "--order", "newest")
    assert (code, ids(stub)) == (0, ["a4", "b4", "a5", "b5", "a3", "b3"])
    assert out.endswith("delivered 5, before 2, refused 0\n")


def test_a_changed_byte_of_what_was_carried_is_refused_with_its_place(
    data: Path, say: Say, stub: StubBackend, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl.gz"
    say(data, "--export", path, to=())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"a4"', b'"a6"')))
    code, _, err = say("--import", path)
    assert (code, err[:7], "line 4" in err, stub.records) == (2, "[EX-01]", True, [])


def test_a_dry_run_sends_nothing_and_needs_no_backend(data: Path, say: Say, stub: StubBackend) -> None:
    code, out, _ = say(data, "--dry-run", to=())
    assert (code, out) == (0, f"{data / FILE_NAME}: 7 records in 4 envelopes would be delivered\n")
    code, out, _ = say(data, "--dry-run", "--json", to=())
    assert json.loads(out) == {"outboxes": [{"outbox": str(data / FILE_NAME), "envelopes": 4, "records": 7}]}
    assert stub.requests == 0


def test_several_outboxes_are_replayed_one_after_the_other(
    data: Path, say: Say, stub: StubBackend, tmp_path: Path
) -> None:
    farm = tmp_path / "farm"
    for name in ("one", "two"):
        with closing(Outbox(farm / name)) as outbox:
            outbox.commit(Change((Draft(QUERIES, 1, packed(name)),)))
    code, out, _ = say(farm, data / FILE_NAME)
    assert (code, len(out.splitlines()), ids(stub)[:2], len(stub.records)) == (0, 3, ["one", "two"], 8)


@pytest.mark.parametrize("version", [1, 2])
def test_an_outbox_of_every_format_is_replayed(version: int, say: Say, stub: StubBackend, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / f"outbox-format-{version}.sqlite3", tmp_path / "old.sqlite3")
    code, out, _ = say(tmp_path / "old.sqlite3")
    assert (code, len(stub.records), len(set(ids(stub)))) == (0, 49, 49), out


def test_what_was_accepted_leaves_the_outbox_when_that_is_said(data: Path, say: Say, stub: StubBackend) -> None:
    code, out, _ = say(data, "--limit", 2, "--topic", "queries", "--ack")
    assert (code, out.endswith("; 2 records have left the outbox\n")) == (0, True)
    code, out, _ = say(data, "--ack", "--parked", "--json")
    assert (code, json.loads(out)["outboxes"][0]["removed"]) == (0, 7)
    (account,) = [each for each in audit(data).accounts if each.topic == QUERIES]
    assert (account.delivered, account.pending, account.parked, account.complaints) == (9, 0, 1, ())
    assert len(stub.records) == len(set(ids(stub))) == 8


def test_what_the_backend_refuses_is_said(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "d"
    with closing(Outbox(path)) as outbox:
        outbox.commit(Change((Draft(QUERIES, 1, packed("a")), Draft(QUERIES, 1, body.queries([b'{"id":"b"}'])))))
    code, out, _ = say(path)
    assert (code, "delivered 1, before 0, refused 1" in out) == (1, True)


def test_a_limit_counts_what_is_left_and_over_all_outboxes(say: Say, stub: StubBackend, tmp_path: Path) -> None:
    for name in ("one", "two"):
        with closing(Outbox(tmp_path / "farm" / name)) as outbox:
            outbox.commit(Change(tuple(Draft(QUERIES, 1, packed(f"{name}{number}")) for number in range(2))))
    for expected in (1, 2, 3, 4, 4):
        assert say(tmp_path / "farm", "--limit", 1)[0] == 0
        assert len(stub.records) == expected
        left = json.loads(say(tmp_path / "farm", "--dry-run", "--json", to=())[1])["outboxes"]
        assert sum(each["records"] for each in left) == 4 - expected
    assert sorted(ids(stub)) == ["one0", "one1", "two0", "two1"]


def test_of_two_copies_each_record_is_sent_once(data: Path, say: Say, stub: StubBackend, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in ("monday", "tuesday"):
        shutil.copy(data / FILE_NAME, copies / f"{name}.sqlite3")
    code, out, _ = say(copies)
    assert (code, "4 envelopes stand in another of these files too" in out) == (0, True)
    assert sorted(ids(stub)) == ["a3", "a4", "a5", "b3", "b4", "b5"]
    assert "exported 7 records" in say(copies, "--export", tmp_path / "x.jsonl.gz", to=())[1]


def test_a_bad_record_at_the_end_holds_up_nothing(say: Say, tmp_path: Path) -> None:
    backend = RunningBackend()
    backend.faults.add(Fault(kind="word", word='"bad"', status=400))
    try:
        mine = backend.registry.register("dead")
        to = ("--backend-url", backend.url, "--api-key", mine.api_key, "--collector-id", mine.id)
        for name, records in (("p", ["good", "bad"]), ("q", ["better", "best"])):
            with closing(Outbox(tmp_path / "farm" / name)) as outbox:
                outbox.commit(Change(tuple(Draft(QUERIES, 1, packed(record)) for record in records)))
        code, out, err = say(tmp_path / "farm", "--ack", to=to)
        assert (code, err) == (1, "")
        assert ["delivered 1, before 0, refused 1" in out, "delivered 2" in out] == [True, True]
        assert say(tmp_path / "farm", to=to)[0] == 0
        backend.faults.clear()
        assert say(tmp_path / "farm", "--parked", to=to)[0] == 0
        assert sorted(record["id"] for record in backend.store.records()) == ["bad", "best", "better", "good"]
    finally:
        backend.close()


def test_what_was_taken_before_it_was_given_up_is_told_and_acknowledged(
    data: Path, say: Say, stub: StubBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_after_two(progress: Progress) -> None:
        if progress.account.delivered >= 3:
            stub.break_down("401")

    monkeypatch.setattr("scripts.replaying.shown._lines", lambda *_: refuse_after_two)
    code, out, err = say(data, "--ack")
    assert (code, err[:7], "BE-02" in err) == (2, "[RP-03]", True)
    assert "delivered 3, before 0, refused 0, waiting 4; 3 records have left the outbox" in out
    (account,) = [each for each in audit(data).accounts if each.topic == QUERIES]
    assert (account.pending, account.complaints) == (4, ())


# -- a backend that tells what it has ---------------------------------------------------------------------------------


def test_what_arrived_is_compared(data: Path, say: Say) -> None:
    backend = RunningBackend()
    try:
        mine = backend.registry.register("dead")
        to = ("--backend-url", backend.url, "--api-key", mine.api_key, "--collector-id", mine.id)
        code, out, _ = say(data, "--verify", to=to)
        assert (code, "3 keys, 3 missing" in out, out.count("missing: ")) == (1, True, 3)
        assert say(data, to=to)[0] == 0
        code, out, _ = say(data, "--verify", to=to)
        assert (code, out) == (0, "3 keys, 0 missing at the backend; it has 0 records twice\n")
        code, out, _ = say(data, "--verify", "--json", to=to)
        assert json.loads(out) == {"keys": 3, "missing": [], "doubled": []}
    finally:
        backend.close()


def test_a_backend_that_tells_nothing_is_named(data: Path, say: Say) -> None:
    code, _, err = say(data, "--verify")
    assert (code, err[:7], "does not tell which keys" in err) == (2, "[RP-02]", True)


# -- bad input ---------------------------------------------------------------------------------------------------------


def no_file(path: Path) -> Path:
    return path / "nothing"


def diary(path: Path) -> Path:
    (path / "diary").write_text("Dear diary, " * 100)
    return path / "diary"


def newer(path: Path) -> Path:
    Outbox(path / "newer").close()
    with closing(sqlite3.connect(path / "newer" / FILE_NAME)) as sql:
        sql.execute(f"PRAGMA user_version={VERSION + 1}")
    (path / "newer" / MARK_NAME).unlink()  # which says that the number is a damage
    return path / "newer"


@pytest.mark.parametrize(("make", "code"), [(no_file, "OB-04"), (diary, "OB-01"), (newer, "OB-02")])
@pytest.mark.parametrize("exports", [True, False])
def test_what_is_no_outbox_of_ours_is_a_sentence(
    make: Callable[[Path], Path], code: str, exports: bool, say: Say, tmp_path: Path
) -> None:
    words = ("--export", tmp_path / "x.jsonl.gz") if exports else ()
    found, out, err = say(make(tmp_path), *words)
    assert (found, out, err[:7], len(err.splitlines())) == (2, "", f"[{code}]", 1)
    assert not (tmp_path / "x.jsonl.gz").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--since", 9, "--until", 3), "EX-03"),
        (("--since", "yesterday"), "EX-03"),
        (("--since", "2026-02-01", "--until", "2026-01-01"), "EX-03"),
    ],
)
def test_a_range_that_is_none_is_a_sentence(data: Path, say: Say, words: tuple[object, ...], code: str) -> None:
    found, _, err = say(data, *words)
    assert (found, err[:7], len(err.splitlines())) == (2, f"[{code}]", 1)


@pytest.mark.parametrize(
    "words",
    [
        (), ("x", "--import", "y"), ("x", "--limit", 0), ("x", "--rate", 0), ("x", "--rate", "1e-12"),
        ("x", "--ack", "--dry-run"),
        ("--import", "x", "--export", "y"), ("x", "--export", "y", "--dry-run"), ("x", "--export", "y", "--verify"),
        ("--import", "x", "--ack"), ("x", "--order", "sideways"),
    ],
)  # fmt: skip
def test_usage(words: tuple[object, ...], say: Say) -> None:
    code, _, err = say(*words, to=())
    assert (code, "usage: replay.py" in err) == (2, True)


def test_a_wrong_key_ends_it_and_nothing_is_lost(data: Path, say: Say, stub: StubBackend) -> None:
    to = ("--backend-url", stub.url, "--api-key", "collector_1_wrong", "--collector-id", 1)
    code, _, err = say(data, to=to)
    assert (code, err[:7], "BE-02" in err, "wrong" in err, len(err.splitlines())) == (2, "[RP-03]", True, False, 1)
    assert say(data)[0] == 0
    assert len(stub.records) == 6


def test_to_whom_has_to_be_said(
    data: Path, say: Say, stub: StubBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = say(data, to=())
    assert (code, err[:7]) == (2, "[RP-02]")
    code, _, err = say(data, to=("--backend-url", "backend", "--api-key", "k", "--collector-id", 1))
    assert (code, "backend_url: should be an address like https://" in err) == (2, True)
    monkeypatch.setenv("DBPOWER_API_KEY_FILE", str(tmp_path / "key"))
    code, _, err = say(data, to=("--backend-url", stub.url, "--collector-id", 1))
    assert (code, "DBPOWER_API_KEY_FILE" in err) == (2, True)
    (tmp_path / "key").write_text(f"{stub.api_key}\n")
    monkeypatch.setenv("DBPOWER_COLLECTOR_ID", str(stub.collector_id))
    assert say(data, to=("--backend-url", stub.url))[0] == 0


def test_the_configuration_of_the_agent_says_it_too(data: Path, say: Say, stub: StubBackend, tmp_path: Path) -> None:
    known = {"collector_id": stub.collector_id, "api_key": stub.api_key, "backend_url": "http://127.0.0.1:1"}
    db_config = {"host": "h", "user": "u", "password": "p"}
    (tmp_path / "config.json").write_text(json.dumps({**known, "db_type": "mysql", "db_config": db_config}))
    assert say(data, to=("--config", tmp_path / "config.json", "--backend-url", stub.url))[0] == 0
    assert len(stub.records) == 6
    code, _, err = say(data, to=("--config", tmp_path / "none.json"))
    assert (code, err[:4]) == (2, "[CF-")


def test_what_a_running_agent_delivers_is_left_to_it(data: Path, say: Say, stub: StubBackend, tmp_path: Path) -> None:
    with DirectoryLock(data):
        code, _, err = say(data)
        assert (code, err[:7], str(os.getpid()) in err, stub.requests) == (2, "[RP-02]", True, 0)
        assert say(data, "--dry-run", to=())[0] == 0
        assert say(data, "--export", tmp_path / "x.jsonl.gz", to=())[0] == 0


def test_a_file_under_another_name_is_not_acknowledged(data: Path, say: Say, stub: StubBackend, tmp_path: Path) -> None:
    shutil.copy(data / FILE_NAME, tmp_path / "copy.sqlite3")
    code, _, err = say(tmp_path / "copy.sqlite3", "--ack")
    assert (code, FILE_NAME in err, stub.requests) == (2, True, 0)


def test_one_ledger_is_for_one_backend(data: Path, say: Say, stub: StubBackend) -> None:
    assert say(data)[0] == 0
    to = ("--backend-url", "http://127.0.0.1:1", "--api-key", "k", "--collector-id", 1)
    code, _, err = say(data, to=to)
    assert (code, err[:7]) == (2, "[RP-01]")


def test_without_the_packages_it_says_which_is_missing(data: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scripts.replaying.deliver", None)
    code, _, err = say(data)
    assert (code, "pip install -r requirements.txt" in err) == (2, True)


@pytest.mark.parametrize("carries", [True, False])
def test_a_damaged_one_is_salvaged_and_that_is_said(
    data: Path, say: Say, stub: StubBackend, tmp_path: Path, carries: bool
) -> None:
    content = bytearray((data / FILE_NAME).read_bytes())
    content[100:200] = b"\xff" * 100
    (data / FILE_NAME).write_bytes(content)
    words, to = (("--export", tmp_path / "x.jsonl.gz"), ()) if carries else ((), None)
    code, _, err = say(data, *words, to=to)
    assert (code, "The outbox was damaged: 7 records saved, 0 lost" in err) == (1, True)
    if carries:
        assert say("--import", tmp_path / "x.jsonl.gz")[0] == 0
    assert sorted(ids(stub)) == ["a3", "a4", "a5", "b3", "b4", "b5"]
    assert (data / FILE_NAME).read_bytes() == bytes(content)


def test_a_body_that_cannot_be_read_is_named_and_the_rest_arrives(
    data: Path, say: Say, stub: StubBackend, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(data / FILE_NAME)) as sql:
        sql.execute("UPDATE envelope SET body = x'00' WHERE seq = 4")
        sql.commit()
    code, out, err = say(data)
    assert (code, "delivered 5" in out, err) == (1, True, "the body of envelope 4 is not what was stored\n")
    code, _, err = say(data, "--export", tmp_path / "x.csv", to=())
    assert (code, err) == (1, "not readable: the body of envelope 4 is not what was stored\n")


def test_a_row_that_is_damaged_is_put_right_by_its_body(data: Path, say: Say, stub: StubBackend) -> None:
    with closing(sqlite3.connect(data / FILE_NAME)) as sql:
        assert sql.execute("UPDATE envelope SET records = 9 WHERE seq = 3").rowcount == 1
        assert sql.execute("UPDATE envelope SET sha256 = x'00', records = 'many' WHERE seq = 4").rowcount == 1
        sql.commit()
    for _ in range(2):
        assert say(data)[0] == 0
    assert sorted(ids(stub)) == ["a3", "a4", "a5", "b3", "b4", "b5"]


def test_what_only_the_mark_knows_of_is_missed(data: Path, say: Say, stub: StubBackend, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(Outbox(data, topics=TOPICS)) as outbox:
        outbox.commit(Change((Draft(QUERIES, 2, packed("in the", "WAL only")),)))
        for name in (FILE_NAME, MARK_NAME):
            shutil.copy(data / name, copy / name)
    code, _, err = say(copy)
    assert (code, "The outbox was rolled back: 7 records saved, 2 lost" in err) == (1, True)
    assert len(stub.records) == 6


@pytest.mark.parametrize("acknowledges", [True, False])
def test_no_agent_can_begin_while_it_is_replayed(
    data: Path, say: Say, monkeypatch: pytest.MonkeyPatch, acknowledges: bool
) -> None:
    refused: list[str] = []

    def begin(_: Progress) -> None:
        try:
            DirectoryLock(data).release()
        except OutboxLocked as error:
            refused.append(error.code)

    monkeypatch.setattr("scripts.replaying.shown._lines", lambda *_: begin)
    assert say(data, *(("--ack",) if acknowledges else ()))[0] == 0
    assert set(refused) == {"OB-03"}
    DirectoryLock(data).release()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--ledger", "DATA"), "it is no ledger"),
        (("--since", "9" * 5_000), "neither a number"),
        (("--api-key", " spaces "), "printable ASCII"),
        (("--api-key", "e\u0301"), "printable ASCII"),
        (("--backend-url", "http://[bad"), "should be an address"),
        (("--backend-url", "http://user:pw@host"), "no user, password"),
        (("--collector-id", 0), "collector_id"),
    ],
)
def test_what_is_given_wrongly_is_a_sentence(
    data: Path, say: Say, stub: StubBackend, words: tuple[object, ...], what: str
) -> None:
    before = (data / FILE_NAME).read_bytes()
    who = {"--backend-url": stub.url, "--api-key": stub.api_key, "--collector-id": stub.collector_id}
    given = {name: value for name, value in who.items() if name != words[0]}
    told = [data / FILE_NAME if word == "DATA" else word for word in words]
    code, _, err = say(data, *told, to=tuple(each for pair in given.items() for each in pair))
    assert (code, what in err, len(err.splitlines()), stub.requests) == (2, True, 1, 0), err
    assert "spaces  " not in err
    assert "pw@" not in err
    assert (data / FILE_NAME).read_bytes() == before


def test_a_directory_without_an_outbox_is_told(say: Say, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = say(tmp_path / "empty", "--export", tmp_path / "x.jsonl.gz", to=())
    assert (code, err[:7], "no outbox in it" in err, (tmp_path / "x.jsonl.gz").exists()) == (2, "[OB-04]", True, False)


def test_in_a_directory_what_is_no_outbox_is_left_out_and_named(
    data: Path, say: Say, stub: StubBackend, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "rescued" / "host" / "var")
    diary(tmp_path / "rescued").rename(tmp_path / "rescued" / "diary.sqlite3")
    code, _, err = say(tmp_path / "rescued")
    assert (code, "left out" in err, "diary.sqlite3" in err, len(stub.records)) == (1, True, True, 6)


def test_a_ledger_is_for_its_owner_alone(data: Path, say: Say) -> None:
    say(data)
    made = [path for path in data.iterdir() if ".replayed" in path.name]
    assert made
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}


def test_a_signal_ends_all_of_it_behind_the_envelope_on_its_way(
    say: Say, stub: StubBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        with closing(Outbox(tmp_path / "farm" / name)) as outbox:
            outbox.commit(Change((Draft(QUERIES, 1, packed(name)),)))
    monkeypatch.setattr("scripts.replaying.shown._lines", lambda *_: lambda _: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    code, out, err = say(tmp_path / "farm")
    assert (code, err, ids(stub)) == (1, f"{STOPPED}\n", ["one"])
    assert out.count("delivered") == 1
    monkeypatch.undo()
    assert (say(tmp_path / "farm")[0], ids(stub)) == (0, ["one", "two"])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# -- how far it is -----------------------------------------------------------------------------------------------------


def test_a_line_says_records_bytes_rate_and_how_long_it_takes() -> None:
    progress = Progress(Account(delivered=1_000, bytes=2_000_000), waiting=3_000)
    assert shown.line("x", 4_000, progress, 10) == "x: 1,000 of 4,000 records, 2.0 MB, 100 records/s, 30 s left"
    assert shown.line("x", 3_000, progress, 0).endswith("0 records/s, not yet known how long")


def test_without_a_terminal_a_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "LINE_EVERY_S", 0.0)
    with shown.shown("x", 10, quiet=False) as tell:
        tell(Progress(Account(), 5))
    assert "x: 5 of 10 records" in capsys.readouterr().err
    with shown.shown("x", 10, quiet=True) as tell:
        tell(Progress(Account(), 5))
    assert capsys.readouterr().err == ""


def test_an_export_says_it_too(data: Path, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "LINE_EVERY_S", 0.0)
    _, _, err = say(data, "--export", tmp_path / "x.jsonl.gz", to=())
    assert err.splitlines()[-1] == "7 records read"


# -- the way to the backend --------------------------------------------------------------------------------------------


@pytest.fixture
def front(stub: StubBackend, authorities: Authorities, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """The backend behind TLS, which wants a client certificate."""
    monkeypatch.setenv("DBPOWER_PROXY", "")
    context = speaking(authorities.good)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authorities.theirs.ca)
    with Front(stub.port, context) as running:
        yield running


def known(stub: StubBackend, front: Front) -> tuple[object, ...]:
    url = f"https://localhost:{front.port}"
    return "--backend-url", url, "--api-key", stub.api_key, "--collector-id", stub.collector_id


def needed(known: Authorities) -> dict[str, str]:
    return {"ca": str(known.ours.ca), "cert": str(known.foreign.cert), "key": str(known.foreign.key)}


def test_tls_may_be_said_by_options(
    data: Path, say: Say, stub: StubBackend, front: Front, authorities: Authorities
) -> None:
    pair, who = authorities.foreign, known(stub, front)
    shown = ("--cert", pair.cert, "--key", pair.key)
    code, _, err = say(data, "--ca", authorities.ours.ca, to=who)
    assert (code, "demands a client certificate" in err, stub.records) == (2, True, [])
    code, _, err = say(data, *shown, "--ca", authorities.theirs.ca, to=who)
    assert (code, "[BE-06]" in err, stub.records) == (2, True, [])
    code, _, _ = say(data, *shown, "--insecure", "--topic", "queries", "--limit", 1, to=who)
    assert (code, ids(stub)) == (0, ["a3", "b3"])
    code, _, _ = say(data, *shown, "--ca", authorities.ours.ca, to=who)
    assert (code, len(ids(stub))) == (0, 6)


def test_tls_may_be_said_by_the_environment(
    data: Path, say: Say, front: Front, authorities: Authorities, *, stub: StubBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in needed(authorities).items():
        monkeypatch.setenv(f"DBPOWER_TLS_{name.upper()}", value)
    assert say(data, to=known(stub, front))[0] == 0
    assert len(ids(stub)) == 6


def test_tls_may_be_said_by_the_configuration(
    data: Path, say: Say, front: Front, authorities: Authorities, *, stub: StubBackend, tmp_path: Path
) -> None:
    database = {"db_type": "mysql", "db_config": {"host": "h", "user": "u"}}
    _, url, _, key, _, number = known(stub, front)
    tree = {"collector_id": number, "api_key": key, "backend_url": url, **database, "tls": needed(authorities)}
    (tmp_path / "config.json").write_text(json.dumps(tree))
    assert say(data, to=("--config", tmp_path / "config.json"))[0] == 0
    assert len(ids(stub)) == 6


def test_files_of_tls_that_do_not_do_are_told(data: Path, say: Say, stub: StubBackend, front: Front) -> None:
    code, _, err = say(data, "--ca", "none.pem", to=known(stub, front))
    assert (code, "[RP-02]" in err, "tls.ca: the file cannot be read" in err) == (2, True, True)
    code, _, err = say(data, "--key", "none.key", to=known(stub, front))
    assert (code, "tls.key: stands there without cert" in err) == (2, True)
