"""The proof from the file alone that nothing is missing.

What could go wrong: it says "it balances" although something was taken away or written over; it complains about an
outbox that is fine, because the agent worked on it meanwhile; looking at it changes it.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage.audit import Audit, audit
from storage.envelope import Change, Draft, Gap
from storage.errors import OutboxBroken, OutboxDamaged, OutboxForeign, OutboxGone, OutboxInaccessible, OutboxNewer
from storage.outbox import FILE_NAME, Outbox
from storage.schema import VERSION
from tests.servers.agent_process import ROOT

GOLDEN = ROOT / "tests" / "golden" / "outbox-format-1.sqlite3"
QUERIES, RESULTS = "queries", "command_result"
# Collects and delivers without end, and says how far it is after each pair.
WRITER = """
import sys
from pathlib import Path
from storage.envelope import Change, Draft
from storage.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
print("x", flush=True)
while True:
    outbox.commit(Change(tuple(Draft("queries", 3, b"body") for _ in range(3))))
    envelope = outbox.head("queries")
    outbox.accept(envelope, delivered=2, reason="partial")
"""


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """20 captured: 5 delivered, 4 parked (1 of them as the rest of a partial one), 11 waiting, in two topics."""
    with closing(Outbox(tmp_path)) as outbox:
        drafts = [Draft(QUERIES, records, b"%d" % records) for records in (6, 3, 4, 6)]
        outbox.commit(Change((*drafts, Draft(RESULTS, 1, b"r")), gaps=(Gap("watch", "rotated", estimate=7),)))
        for delivered in (5, 0):
            envelope = outbox.head(QUERIES)
            assert envelope is not None
            if delivered:
                outbox.accept(envelope, delivered=delivered, reason="partial")
            else:
                outbox.park(envelope, "bad")
    return tmp_path


def tamper(directory: Path, statement: str, *values: object) -> int:
    """Changes the file behind the agent's back; the number of rows that were."""
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as sql:
        return sql.execute(statement, values).rowcount


def complaints(found: Audit) -> dict[str, tuple[str, ...]]:
    return {account.topic: account.complaints for account in found.accounts if account.complaints}


def test_what_nobody_has_touched_balances(played: Path) -> None:
    found = audit(played)
    assert (found.balances, found.unnamed, complaints(found)) == (True, 0, {})
    results, queries = found.accounts
    assert (results.topic, results.captured, results.pending) == (RESULTS, 1, 1)
    assert (queries.captured, queries.delivered, queries.pending, queries.parked) == (19, 5, 10, 4)
    assert (queries.counted_pending, queries.counted_parked, queries.lost) == (10, 4, 0)
    assert found.losses.newest == (Gap("watch", "rotated", estimate=7),)


def test_no_file_and_an_empty_file_have_nothing_to_account_for(tmp_path: Path) -> None:
    assert audit(tmp_path) == Audit()
    (tmp_path / FILE_NAME).touch()
    assert audit(tmp_path) == Audit()
    assert (tmp_path / FILE_NAME).stat().st_size == 0


def test_a_directory_that_is_not_there_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(OutboxInaccessible, match="nowhere is no directory"):
        audit(tmp_path / "nowhere")


def test_an_outbox_that_is_gone_is_no_proof(played: Path) -> None:
    (played / FILE_NAME).unlink()
    with pytest.raises(OutboxGone, match=r"although outbox\.mark tells of it"):
        audit(played)


def test_a_body_that_is_not_what_was_written_is_told(played: Path) -> None:
    with closing(sqlite3.connect(played / FILE_NAME)) as sql, sql:
        hit = sql.execute(
            "UPDATE envelope SET body = zeroblob(length(body)) WHERE seq = (SELECT min(seq) FROM envelope)"
        )
        assert hit.rowcount == 1
    assert "1 bodies are not what was written" in [text for each in audit(played).accounts for text in each.complaints]


def test_looking_changes_nothing(played: Path) -> None:
    before = hashlib.sha256((played / FILE_NAME).read_bytes()).digest()
    audit(played)
    assert hashlib.sha256((played / FILE_NAME).read_bytes()).digest() == before


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("DELETE FROM envelope WHERE seq = 3", "pending 10, but 6 are in the file"),
        ("DELETE FROM parked WHERE seq = 2", "parked 4, but 1 are in the file"),
        ("UPDATE tally SET delivered = 4 WHERE topic = 'queries'", "captured 19, but 18 are accounted for"),
        ("UPDATE tally SET captured = 20 WHERE topic = 'queries'", "captured 20, but 19 are accounted for"),
        ("UPDATE tally SET lost = 1 WHERE topic = 'queries'", "captured 19, but 20 are accounted for"),
        ("UPDATE envelope SET records = 5 WHERE seq = 3", "pending 10, but 11 are in the file"),
        ("UPDATE tally SET guard = x'00' WHERE topic = 'queries'", "the books are not what was written"),
        ("DELETE FROM tally WHERE topic = 'queries'", "pending 0, but 10 are in the file"),
    ],
)
def test_each_thing_that_does_not_fit_is_told(played: Path, statement: str, complaint: str) -> None:
    assert tamper(played, statement) == 1
    found = audit(played)
    assert not found.balances
    assert list(complaints(found)) == [QUERIES]
    assert complaint in complaints(found)[QUERIES]


def test_books_that_were_changed_so_that_they_add_up_are_not_what_was_written(played: Path) -> None:
    tamper(played, "UPDATE tally SET captured = 15, pending = 6 WHERE topic = 'queries'")
    tamper(played, "DELETE FROM envelope WHERE seq = 3")
    assert complaints(audit(played)) == {QUERIES: ("the books are not what was written",)}


def lose_one(directory: Path) -> None:
    """The body of an envelope is damaged, and the outbox notices."""
    assert tamper(directory, "UPDATE envelope SET body = x'00' WHERE seq = 3") == 1
    with closing(Outbox(directory)) as outbox:
        outbox.head(QUERIES)


def test_what_is_lost_with_a_name_balances(played: Path) -> None:
    lose_one(played)
    found = audit(played)
    assert [account.lost for account in found.accounts] == [0, 4]
    assert (found.balances, found.unnamed, found.losses.newest[0].estimate) == (True, 0, 4)


def test_what_is_lost_without_a_name_does_not(played: Path) -> None:
    lose_one(played)
    assert tamper(played, "DELETE FROM gap WHERE source = 'outbox'") == 1
    found = audit(played)
    assert (found.balances, found.unnamed, complaints(found)) == (False, 4, {})


def test_a_gap_at_the_source_is_no_name_for_what_the_outbox_lost(played: Path) -> None:
    lose_one(played)
    assert tamper(played, "UPDATE gap SET source = 'watch', estimate = 100 WHERE source = 'outbox'") == 1
    assert audit(played).unnamed == 4


def test_a_gap_of_an_unknown_number_names_any(played: Path) -> None:
    lose_one(played)
    assert tamper(played, "UPDATE gap SET estimate = NULL WHERE source = 'outbox'") == 1
    found = audit(played)
    assert (found.unnamed, complaints(found), found.balances, found.damaged_gaps) == (0, {}, False, 1)


def test_a_loss_whose_name_is_lost_with_the_file_is_named_anew(played: Path) -> None:
    lose_one(played)
    assert tamper(played, "DELETE FROM gap") == 2
    assert not audit(played).balances
    assert tamper(played, "UPDATE tally SET guard = x'00' WHERE topic = 'queries'") == 1  # this one is rebuilt
    Outbox(played).close()
    found = audit(played)
    assert (found.balances, [gap.estimate for gap in found.losses.newest]) == (True, [4])


# -- beside a writer -------------------------------------------------------------------------------------------------


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_beside_a_process_that_writes_every_look_balances(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    assert writer.stdout is not None
    assert writer.stdout.readline() == "x\n"
    seen: list[int] = []
    while len(set(seen)) <= 20:  # so often something was written between two looks
        assert writer.poll() is None
        found = audit(tmp_path)
        assert found.balances, found
        seen += [account.captured for account in found.accounts]
    assert seen == sorted(seen)


def test_control_looks_that_are_no_snapshot_do_not_balance(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox, closing(sqlite3.connect(tmp_path / FILE_NAME)) as looking:
        outbox.commit(Change((Draft(QUERIES, 3, b"body"),)))
        ((pending,),) = looking.execute("SELECT pending FROM tally").fetchall()
        outbox.commit(Change((Draft(QUERIES, 3, b"body"),)))
        ((counted,),) = looking.execute("SELECT sum(records) FROM envelope").fetchall()
        assert (pending, counted) == (3, 6)
        assert audit(tmp_path).balances


# -- what is no outbox of ours ---------------------------------------------------------------------------------------


def test_format_1_balances_as_it_is(tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / FILE_NAME)
    found = audit(tmp_path)
    assert (found.balances, sum(account.captured for account in found.accounts)) == (True, 61)
    assert tamper(tmp_path, "DELETE FROM envelope WHERE seq = (SELECT max(seq) FROM envelope)") == 1
    assert not audit(tmp_path).balances


def test_a_foreign_a_newer_and_a_damaged_file_are_refused(
    played: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / FILE_NAME).write_text("Dear diary")
    with pytest.raises(OutboxForeign):
        audit(foreign)
    tamper(played, f"PRAGMA user_version={VERSION + 1}")
    with pytest.raises(OutboxNewer):
        audit(played)
    tamper(played, f"PRAGMA user_version={VERSION}")
    with (played / FILE_NAME).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3_000)
    with pytest.raises(OutboxDamaged):
        audit(played)


def test_a_table_that_is_gone_is_told_with_a_code(played: Path) -> None:
    tamper(played, "DROP TABLE parked")
    with pytest.raises(OutboxBroken, match="no such table"):
        audit(played)


def test_a_place_that_cannot_be_looked_at_is_told_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(OutboxInaccessible):
        audit(tmp_path / ("x" * 300))
