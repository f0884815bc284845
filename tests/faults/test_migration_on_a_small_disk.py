"""`migrate --check` says how much of the disk a migration needs at most: on a disk with just that much it is made.

What could go wrong: it needs more than was said, and an operator who trusted it has an agent that waits for room; or it
says so much that nobody can believe it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.audit import audit
from storage.bodies import describe
from storage.errors import OutboxFull
from storage.lock import DirectoryLock
from storage.migration import Outlook, look, migrate
from storage.outbox import FILE_NAME
from storage.schema import GUARDED, VERSION
from tests.faults.old_format import outbox_of_format
from tests.faults.small_disk import Disk, tmpfs

DISK_BYTES, DISK_PAGE_BYTES = 128 * 1_048_576, 4_096  # it gives no less
CASES = [(1, 5_000, 40), (1, 30_000, 400), (1, 300, 20_000)]  # format, gaps, bytes of detail in each


def with_gaps(directory: Path, version: int, gaps: int, detail_bytes: int) -> Outlook:
    """An outbox of that format in which so many losses are told."""
    for name, content in outbox_of_format(version, is_closed=True)[0].items():
        (directory / name).write_bytes(content)
    assert version < GUARDED, "no checksum has to be made for them"
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as sql:
        sql.execute("BEGIN")
        rows = ((f"watch-{number}", "truncated", "x" * detail_bytes) for number in range(gaps))
        sql.executemany("INSERT INTO gap (source, reason, detail, created_at) VALUES (?, ?, ?, 1.0)", rows)
        sql.execute("COMMIT")
    DirectoryLock(directory).release()
    return look(directory)


def migrated(disk: Disk) -> None:
    migrate(disk.path, describe, pytest.fail)


@pytest.mark.parametrize(("version", "gaps", "detail_bytes"), CASES)
def test_with_as_much_room_as_was_said_it_is_made(tmp_path: Path, version: int, gaps: int, detail_bytes: int) -> None:
    with tmpfs(tmp_path / "disk", size=DISK_BYTES) as disk:
        found = with_gaps(disk.path, version, gaps, detail_bytes)
        assert found.rows > gaps
        disk.hog(leave=found.needed_bytes + DISK_PAGE_BYTES)
        migrated(disk)
        assert (look(disk.path).format, audit(disk.path).balances) == (VERSION, True)


@pytest.mark.parametrize(("version", "gaps", "detail_bytes"), CASES)
def test_control_with_a_quarter_of_it_nothing_is_changed(
    tmp_path: Path, version: int, gaps: int, detail_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tmpfs(tmp_path / "disk", size=DISK_BYTES) as disk:
        found = with_gaps(disk.path, version, gaps, detail_bytes)
        disk.hog(leave=found.needed_bytes // 4)
        with pytest.raises(OutboxFull, match="to migrate"):
            migrated(disk)
        monkeypatch.setattr(Outlook, "demand_room", lambda _: None)
        with pytest.raises(OutboxFull):
            migrated(disk)
        assert look(disk.path).format == version
