"""What a replay remembers.

What could go wrong: what was written down is not on the disk; what one backend took counts for another; two replays
work on one ledger; a ledger that cannot be written makes the replay wait for ever, or send what nobody remembers; a
file that is no ledger is written over; a row that somebody has put there runs code.
"""

from __future__ import annotations

import pickle
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import LedgerUnusable
from agent.replay import ledger as module
from agent.replay.ledger import ACCEPTED, OFFERED, SPLIT, Entry, Ledger

BACKEND = "https://backend 7"
ENTRIES = {
    "k1": Entry(ACCEPTED, 10, doubtful=True, reason="left out 2"),
    "k2": Entry(SPLIT, halves=(5, 6)),
    "k3": Entry(OFFERED),
}


def test_what_was_written_down_is_there_again(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l", BACKEND)) as ledger:
        for key, entry in ENTRIES.items():
            ledger.put({key: entry})
        ledger.put({"k4": Entry(OFFERED)})
        ledger.forget(["k4", "never"])
    with closing(Ledger(tmp_path / "l", BACKEND)) as again:
        assert {key: again.of(key) for key in (*ENTRIES, "k4")} == {**ENTRIES, "k4": None}


def test_it_is_on_the_disk_before_it_is_closed_and_durable(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l", BACKEND)) as ledger:
        ledger.put({"k": Entry(ACCEPTED, 1)})
        assert ledger._shelf.conn.select_one("PRAGMA synchronous") == (2,)
        assert ledger._shelf.conn.select_one("PRAGMA journal_mode") == ("wal",)
        with closing(sqlite3.connect(tmp_path / "l")) as other:
            assert other.execute("SELECT count(*) FROM envelopes WHERE key = 'k'").fetchone() == (1,)


def test_each_backend_has_its_own(tmp_path: Path) -> None:
    Ledger(tmp_path / "l", BACKEND).close()
    with pytest.raises(LedgerUnusable, match="not https://other 7"):
        Ledger(tmp_path / "l", "https://other 7")
    Ledger(tmp_path / "l", BACKEND).close()


def test_two_replays_do_not_work_on_one(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l", BACKEND)), pytest.raises(LedgerUnusable, match="another replay"):
        Ledger(tmp_path / "l", BACKEND)
    Ledger(tmp_path / "l", BACKEND).close()


@pytest.mark.parametrize("content", [b"Dear diary, " * 100, b"SQLite format 3\0" + bytes(1_000)])
def test_what_is_no_ledger_is_refused_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes(content)
    with pytest.raises(LedgerUnusable):
        Ledger(tmp_path / "l", BACKEND)
    assert (tmp_path / "l").read_bytes() == content


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="No such file"):
        Ledger(tmp_path / "nowhere" / "l", BACKEND)


def test_a_row_of_somebody_else_runs_no_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (ran,)

    evil = pickle.dumps(Evil())
    Ledger(tmp_path / "l", BACKEND).close()
    with closing(sqlite3.connect(tmp_path / "l")) as other, other:
        other.execute("REPLACE INTO envelopes VALUES ('k', ?)", (evil,))
    with pytest.raises(LedgerUnusable):
        Ledger(tmp_path / "l", BACKEND)
    assert not ran.exists()
    pickle.loads(evil)  # the control
    assert ran.exists()


def test_a_thread_that_never_answers_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    ledger = Ledger(tmp_path / "l", BACKEND)
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(type(ledger._shelf.conn), "execute", lambda *_: go_on.wait(20))
    with pytest.raises(LedgerUnusable, match="no answer"):
        ledger.put({"k": Entry(OFFERED)})
    go_on.set()
    monkeypatch.undo()
    ledger.close()
