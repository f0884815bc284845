"""Puts a rebuilt outbox in the place of a damaged one, which is kept. May be cut at any instant and is ended then."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from storage.directory import sync_directory
from storage.wal import wal_of

REBUILDING, REBUILT = "outbox.rebuilding", "outbox.rebuilt"  # the second name means: it is whole


def swap(path: Path, kept: str | None) -> None:
    """Ends the rebuilding: from now on `path` is the rebuilt file, and the damaged one beside it is called `kept`.

    In steps of which each can be the last: the name REBUILT is the sign that it is not ended.
    """
    rebuilding = path.with_name(REBUILDING)
    if rebuilding.exists():
        rebuilding.rename(path.with_name(REBUILT))
        sync_directory(path.parent)
    wal = wal_of(path)
    if path.exists() and kept is not None:
        path.rename(path.with_name(kept))
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
    if wal.exists() and kept is not None:
        # What stands in it belongs to the damaged file; beside the rebuilt one SQLite would read it.
        wal.rename(wal_of(path.with_name(kept)))
    for leftover in (wal, path.with_name(f"{path.name}-shm")):
        leftover.unlink(missing_ok=True)
    sync_directory(path.parent)
    path.with_name(REBUILT).rename(path)
    sync_directory(path.parent)


def finish_swap(path: Path) -> bool:
    """Ends a swap that was cut, or throws away a rebuilt file that was not whole yet; whether one was ended."""
    if path.with_name(REBUILT).exists() and not path.exists():
        path.with_name(REBUILDING).unlink(missing_ok=True)
        swap(path, _name_of_cut_swap(path))
        return True
    for name in (REBUILT, REBUILDING, f"{REBUILDING}-journal"):
        path.with_name(name).unlink(missing_ok=True)
    return False


def free_name(path: Path, now: float) -> str:
    """A name for a damaged file that none has yet, with the time `now` in Unix seconds."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (f"outbox.damaged-{stamp}{more}" for more in ("", *(f"-{number}" for number in range(2, 10_000))))
    places = (path.with_name(name) for name in names)
    return next(place.name for place in places if not place.exists() and not wal_of(place).exists())


def _name_of_cut_swap(path: Path) -> str | None:
    """The name under which the WAL of a file that was renamed already has to be kept."""
    wal = wal_of(path)
    if not wal.exists():
        return None
    found = [each for each in path.parent.glob("outbox.damaged-*") if not each.name.endswith("-wal")]
    newest = max(found, key=lambda each: each.stat().st_mtime_ns, default=None)
    if newest is not None and not wal_of(newest).exists():
        return newest.name
    return free_name(path, wal.stat().st_mtime)
