"""The words behind `outbox`.

What could go wrong: a list of a large outbox takes for ever or hides that there is more; a body is shown as something
else than what would leave; what is destroyed is destroyed without a yes; an unknown number is a traceback; a running
agent's file is written while it is only looked at.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from agent import body, cli
from agent.sinks import COMMAND_RESULT, QUERIES, TOPICS
from storage import parcel
from storage.audit import audit
from storage.envelope import PARTIAL, Change, Draft, Envelope
from storage.lock import DirectoryLock
from storage.outbox import FILE_NAME, Outbox
from tests.unit.conftest import Say

IN_PART = f"{PARTIAL}: x"


def head(outbox: Outbox) -> Envelope:
    found = outbox.head(QUERIES)
    assert found is not None
    return found


def packed(*names: str) -> bytes:
    return body.queries([orjson.dumps({"id": name, "sql_text": "SELECT 'é'"}) for name in names])


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """An agent runs on it: 1 is parked, 2 parked in part, 3 and 4 wait."""
    directory = tmp_path / "data"
    with DirectoryLock(directory), closing(Outbox(directory, topics=TOPICS)) as outbox:
        drafts = [Draft(QUERIES, 2, packed(f"a{number}", f"b{number}")) for number in range(3)]
        outbox.commit(Change((*drafts, Draft(COMMAND_RESULT, 1, body.pack(b'{"command_id":7}')))))
        outbox.park(head(outbox), "status 400")
        outbox.accept(head(outbox), delivered=1, reason=IN_PART)
        yield directory


@pytest.fixture
def say(dbpower_agent: Say, data: Path) -> Say:
    return lambda *words: dbpower_agent("outbox", *words, "--directory", data)


def test_what_waits_and_what_was_refused_is_listed(say: Say, data: Path) -> None:
    before = (data / FILE_NAME).read_bytes()
    code, out, _ = say("ls")
    lines = out.splitlines()
    assert (code, [line.split()[:3] for line in lines[1:]]) == (0, [["4", COMMAND_RESULT, "1"], ["3", QUERIES, "2"]])
    code, out, _ = say("parked")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["seq", "1", "2"])
    assert "status 400" in out
    assert (data / FILE_NAME).read_bytes() == before


def test_there_is_more_than_is_shown_and_that_is_said(say: Say) -> None:
    code, out, _ = say("ls", "--limit", 1)
    assert (code, len(out.splitlines()), "and more" in out) == (0, 3, True)
    code, out, _ = say("ls", "--limit", 2)
    assert "and more" not in out


def test_a_script_gets_json(say: Say) -> None:
    code, out, _ = say("parked", "--json")
    told = json.loads(out)
    assert (code, [each["seq"] for each in told], told[0]["parked"]) == (0, [1, 2], "status 400")
    assert told[0].keys() == {"seq", "topic", "key", "records", "bytes", "created_at", "may_have_arrived", "parked"}


def test_an_envelope_is_shown_as_it_would_leave(say: Say) -> None:
    code, out, _ = say("show", 3)
    assert code == 0
    assert out.startswith("seq: 3\ntopic: queries\nkey: ")
    assert json.loads(out[out.index("{") :]) == json.loads(body.unpack(packed("a2", "b2")))
    code, out, _ = say("show", 3, "--raw")
    assert (code, out.encode()) == (0, body.unpack(packed("a2", "b2")))
    code, out, _ = say("show", 1)
    assert (code, "parked: status 400" in out) == (0, True)


@pytest.mark.parametrize("words", [("show", 99), ("retry", 3), ("discard", 99, "--yes"), ("retry", 2)])
def test_a_number_that_does_not_fit_is_a_sentence(say: Say, words: tuple[object, ...]) -> None:
    code, out, err = say(*words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(("[OB-12] ", "[OB-13] "))


def test_what_was_parked_waits_again(say: Say, data: Path) -> None:
    assert say("retry", 1)[:2] == (0, "2 records in 1 envelopes wait again\n")
    assert say("retry", "--all")[:2] == (0, "0 records in 0 envelopes wait again\n")
    assert audit(data).balances
    for words in ((), (1, "--all")):
        code, _, err = say("retry", *words)
        assert (code, "Either SEQ or --all" in err) == (2, True)


def test_nothing_is_discarded_without_a_yes(say: Say, data: Path) -> None:
    code, _, err = say("discard", 3)
    assert (code, "--yes" in err, say("ls")[1].count("\n")) == (2, True, 3)
    assert say("discard", 3, "--yes")[:2] == (0, "2 records were discarded\n")
    (account,) = [each for each in audit(data).accounts if each.topic == QUERIES]
    assert (account.discarded, account.complaints) == (2, ())


def test_it_is_exported(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    code, out, err = say("export", path, "--parked", "--topic", "queries")
    assert (code, out, err) == (0, f"exported 4 records to {path}\n", "")
    assert parcel.check(path).envelopes == 2
    code, out, _ = say("export", path, "--json", "--limit", 1, "--since", 3, "--until", "2100-01-01")
    assert (code, json.loads(out)["records"]) == (0, 1)
    code, _, err = say("export", path, "--since", 9, "--until", 3)
    assert (code, err[:7]) == (2, "[EX-03]")
    code, _, err = say("export", tmp_path / "x.txt")
    assert (code, err[:7]) == (2, "[EX-02]")


def test_what_cannot_be_read_is_said(say: Say, data: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data / FILE_NAME)) as other:
        other.execute("UPDATE envelope SET body = x'00' WHERE seq = 3")
        other.commit()
    code, out, err = say("export", tmp_path / "x.jsonl.gz")
    assert (code, "exported 1 records" in out, err) == (
        1,
        True,
        "not readable: the body of envelope 3 is not what was stored\n",
    )


@pytest.mark.parametrize("words", [("show", 10**20), ("retry", 10**20), ("discard", 10**20, "--yes"), ("show", 0)])
def test_a_number_that_no_envelope_can_have_is_a_sentence(say: Say, words: tuple[object, ...]) -> None:
    code, _, err = say(*words)
    assert (code, "is not in the range" in err) == (2, True)


def test_of_a_damaged_one_it_is_said_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Outbox(tmp_path, topics=TOPICS)) as outbox:
        outbox.commit(Change((Draft(QUERIES, 2, packed("a", "b")),)))
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    content[100:200] = b"\xff" * 100
    (tmp_path / FILE_NAME).write_bytes(content)
    monkeypatch.setattr("sys.argv", ["dbpower-agent", "outbox", "ls", "--directory", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    assert (end.value.code, "The outbox was damaged: 2 records saved, 0 lost" in shown.err) == (1, True)
    assert len(shown.out.splitlines()) == 2


def test_room_is_given_back(say: Say) -> None:
    code, out, _ = say("vacuum")
    assert (code, out.endswith(" bytes were given back\n")) == (0, True)


def test_where_nothing_is_it_says_so(say: Say, data: Path) -> None:
    for seq in (3, 4):
        say("discard", seq, "--yes")
    assert say("ls")[:2] == (0, "nothing\n")


@pytest.mark.parametrize("word", [("ls",), ("parked",), ("show", "1"), ("retry", "--all"), ("vacuum",)])
def test_without_an_outbox_there_is_a_sentence(
    word: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dbpower-agent", "outbox", *word, "--directory", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, capsys.readouterr().err[:7]) == (2, "[OB-04]")
    assert list(tmp_path.iterdir()) == []
