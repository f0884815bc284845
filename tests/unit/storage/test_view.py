"""A look into an outbox beside the agent that writes it.

What could go wrong: looking creates or changes a file; it stands in the agent's way, or makes SQLite throw its WAL
away; what the agent committed meanwhile is not seen; a file that is not there is an error.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.envelope import Change, Draft, Gap, Losses, LossSum, Tally
from storage.errors import OutboxBroken, OutboxNewer
from storage.outbox import FILE_NAME, Outbox
from storage.schema import VERSION
from storage.view import OutboxView

CHANGE = Change((Draft("queries", 3, b"body"),), bookmarks={"w": b"b"})


def test_an_outbox_that_does_not_exist_reads_as_an_empty_one_and_is_not_made(tmp_path: Path) -> None:
    with OutboxView(tmp_path) as view:
        assert (view.bookmark("w"), view.tally("queries")) == (None, Tally())
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_reads_as_an_empty_outbox(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    with OutboxView(tmp_path) as view:
        assert (view.bookmark("w"), view.tally("queries")) == (None, Tally())


def test_what_is_committed_meanwhile_is_seen(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox, OutboxView(tmp_path) as view:
        assert view.bookmark("w") is None
        outbox.commit(CHANGE)
        assert (view.bookmark("w"), view.tally("queries")) == (b"b", outbox.tally("queries"))


def test_commits_after_a_look_survive_the_next_look(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path)) as outbox:
        for _ in range(5):
            OutboxView(tmp_path).close()
            outbox.commit(CHANGE)
        with OutboxView(tmp_path) as view:
            assert view.tally("queries").captured == 15
    with closing(Outbox(tmp_path)) as again:
        assert again.tally("queries").captured == 15


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute(f"PRAGMA user_version={VERSION + 1}")
    with pytest.raises(OutboxNewer):
        OutboxView(tmp_path)


def test_a_table_that_is_gone_is_told_with_a_code(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("DROP TABLE bookmark")
    with OutboxView(tmp_path) as view, pytest.raises(OutboxBroken, match="no such table"):
        view.bookmark("w")


def test_what_is_known_to_be_lost_is_seen_and_nothing_where_there_is_no_outbox(tmp_path: Path) -> None:
    with OutboxView(tmp_path) as view:
        assert view.losses() == Losses()
    gap = Gap("w", "rotated", "a", "b", 3, "why")
    with closing(Outbox(tmp_path)) as outbox, OutboxView(tmp_path) as view:
        assert view.losses() == Losses()
        outbox.commit(Change(gaps=(gap,)))
        assert view.losses() == Losses((gap,), (LossSum("w", "rotated", 1, 3, 0),))


def test_losses_that_cannot_be_read_are_told_with_a_code(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("DROP TABLE gap")
    with OutboxView(tmp_path) as view, pytest.raises(OutboxBroken, match="no such table"):
        view.losses()


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    view = OutboxView(tmp_path)
    view.close()
    view.close()
