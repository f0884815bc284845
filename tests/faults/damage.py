"""Damages a copy of an outbox in every way that disks and people do. What must be left then, `judgement` knows."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.judgement import Verdict, judge
from tests.faults.played import DB, KINDS, MARK, OLD_FORMATS, PAGE_BYTES, SHM, WAL, Play, play
from tests.faults.power_cuts import place_in_memory

# What was done, in words; "" when there was nothing to damage. Without a play there are no files of an earlier time.
Damage = Callable[[Path, Play | None, random.Random], str]
TABLES = (b"envelope", b"parked", b"tally", b"gap", b"bookmark", b"note", b"mark", b"sqlite_sequence")
_PAGE_SIZE_AT = {DB: 16, WAL: 8}


def spread(played: Play, directory: Path) -> None:
    """Puts the files of a play into a new directory."""
    directory.mkdir()
    for name, content in played.now.files.items():
        (directory / name).write_bytes(content)


# -- bytes that changed ----------------------------------------------------------------------------------------------


def _flip(path: Path, rng: random.Random, least: int = 0, most: int | None = None) -> str:
    content = bytearray(path.read_bytes() if path.exists() else b"")
    end = len(content) if most is None else min(most, len(content))
    if end <= least:
        return ""
    places = sorted({rng.randrange(least, end) for _ in range(rng.choice((1, 1, 2, 8)))})
    for at in places:
        content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"bits flipped in {path.name} at {places}"


def flip_bits(directory: Path, _: Play | None, rng: random.Random) -> str:
    return _flip(directory / DB, rng)


def flip_bits_in_the_wal(directory: Path, _: Play | None, rng: random.Random) -> str:
    return _flip(directory / WAL, rng)


def flip_bits_in_the_first_page(directory: Path, _: Play | None, rng: random.Random) -> str:
    return _flip(directory / DB, rng, most=PAGE_BYTES)


def _overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def _one_of(directory: Path, rng: random.Random) -> tuple[Path, int] | None:
    """The database or its WAL, and its size."""
    found = [directory / name for name in (DB, WAL)]
    found = [path for path in found if path.exists() and path.stat().st_size]
    if not found:
        return None
    path = rng.choice(found)
    return path, path.stat().st_size


def zero_pages(directory: Path, _: Play | None, rng: random.Random) -> str:
    if (found := _one_of(directory, rng)) is None:
        return ""
    path, size = found
    hit = sorted({rng.randrange(-(-size // PAGE_BYTES)) for _ in range(rng.randint(1, 4))})
    for page in hit:
        _overwrite(path, page * PAGE_BYTES, bytes(min(PAGE_BYTES, size - page * PAGE_BYTES)))
    return f"pages {hit} of {path.name} zeroed"


def garbage_in_the_middle(directory: Path, _: Play | None, rng: random.Random) -> str:
    if (found := _one_of(directory, rng)) is None:
        return ""
    path, size = found
    at, length = rng.randrange(size), rng.randint(1, 3 * PAGE_BYTES)
    _overwrite(path, at, rng.randbytes(min(length, size - at)))
    return f"{length} bytes of garbage in {path.name} at {at}"


def truncate(directory: Path, _: Play | None, rng: random.Random) -> str:
    if (found := _one_of(directory, rng)) is None:
        return ""
    path, size = found
    left = rng.randrange(size)
    with path.open("r+b") as file:
        file.truncate(left)
    return f"{path.name} cut from {size} to {left} bytes"


def hit_the_names_of_tables(directory: Path, _: Play | None, rng: random.Random) -> str:
    path = directory / DB
    content = path.read_bytes()
    name = rng.choice(TABLES)
    at, hit = content.find(name), 0
    while at >= 0:
        _overwrite(path, at, bytes(byte ^ 0x20 for byte in name))
        hit += 1
        at = content.find(name, at + 1)
    return f"{name!r} overwritten {hit} times" if hit else ""


def hit_the_size_of_pages(directory: Path, _: Play | None, rng: random.Random) -> str:
    if (found := _one_of(directory, rng)) is None:
        return ""
    path, size = found
    if size < 20:
        return ""
    _overwrite(
        path, _PAGE_SIZE_AT[path.name], rng.choice((bytes(4), b"\x02\0\x02\0", b"\x20\0\x20\0", rng.randbytes(4)))
    )
    return f"another size of pages in {path.name}"


# -- files that are gone, or others ----------------------------------------------------------------------------------


def lose_the_wal(directory: Path, _: Play | None, rng: random.Random) -> str:
    if not (directory / WAL).exists():
        return ""
    (directory / WAL).unlink()
    return "the WAL is gone"


def spoil_the_shm(directory: Path, _: Play | None, rng: random.Random) -> str:
    (directory / SHM).write_bytes(rng.randbytes(32_768))
    return "garbage in the shm"


def write_garbage(directory: Path, _: Play | None, rng: random.Random) -> str:
    (directory / DB).write_bytes(rng.randbytes(rng.randint(1, 20_000)))
    return "garbage instead of the file"


def empty(directory: Path, _: Play | None, rng: random.Random) -> str:
    (directory / DB).write_bytes(b"")
    return "an empty file"


def lose_the_file(directory: Path, _: Play | None, rng: random.Random) -> str:
    (directory / DB).unlink(missing_ok=True)
    return "the file is gone"


def _take_earlier(directory: Path, played: Play | None, *names: str) -> bool:
    if played is None or played.kind in OLD_FORMATS:  # whose earlier files are of the newest
        return False
    for name in names:
        (directory / name).write_bytes(played.earlier.files.get(name, b""))
    return any(played.earlier.files.get(name, b"") != played.now.files.get(name, b"") for name in names)


def stale_shm(directory: Path, played: Play | None, _: random.Random) -> str:
    return "the shm of an earlier time" if _take_earlier(directory, played, SHM) else ""


def stale_wal(directory: Path, played: Play | None, _: random.Random) -> str:
    return "the WAL of an earlier time beside the newer file" if _take_earlier(directory, played, WAL) else ""


def older_file(directory: Path, played: Play | None, _: random.Random) -> str:
    return "an older file beside the newer WAL" if _take_earlier(directory, played, DB) else ""


def roll_back(directory: Path, played: Play | None, _: random.Random) -> str:
    (directory / SHM).unlink(missing_ok=True)
    return "file and WAL of an earlier time beside the newer mark" if _take_earlier(directory, played, DB, WAL) else ""


# -- the mark beside it ----------------------------------------------------------------------------------------------


def spoil_the_mark(directory: Path, _: Play | None, rng: random.Random) -> str:
    path = directory / MARK
    if not path.exists():
        return ""
    if rng.random() < 0.5:
        return _flip(path, rng, most=600)
    path.write_bytes(rng.choice((b"", bytes(4_096), rng.randbytes(4_096))))
    return "nothing of use in the mark"


def lose_the_mark_and_hit_the_file(directory: Path, played: Play | None, rng: random.Random) -> str:
    (directory / MARK).unlink(missing_ok=True)
    return "the mark is gone; " + rng.choice((flip_bits, zero_pages_of_the_file, write_garbage))(directory, played, rng)


def zero_pages_of_the_file(directory: Path, _: Play | None, rng: random.Random) -> str:
    path = directory / DB
    page = rng.randrange(-(-path.stat().st_size // PAGE_BYTES))
    _overwrite(path, page * PAGE_BYTES, bytes(PAGE_BYTES))
    return f"page {page} zeroed"


def several(directory: Path, played: Play | None, rng: random.Random) -> str:
    return "; ".join(damage(directory, played, rng) for damage in rng.choices(_COMBINED, k=rng.randint(2, 4)))


_COMBINED: tuple[Damage, ...] = (
    *(flip_bits, flip_bits_in_the_wal, zero_pages, truncate, garbage_in_the_middle, spoil_the_shm, spoil_the_mark),
    *(hit_the_size_of_pages, hit_the_names_of_tables),
)
# Those that hit what is there now, and leave the mark beside it alone.
IN_PLACE: tuple[Damage, ...] = (
    *(flip_bits, flip_bits, flip_bits_in_the_wal, flip_bits_in_the_wal, flip_bits_in_the_first_page),
    *(zero_pages, zero_pages, garbage_in_the_middle, garbage_in_the_middle, truncate, truncate),
    *(hit_the_names_of_tables, hit_the_size_of_pages, lose_the_wal, spoil_the_shm, write_garbage, empty, lose_the_file),
)
DAMAGES: tuple[Damage, ...] = (
    *(*IN_PLACE, several, several),
    *(stale_shm, stale_wal, older_file, roll_back, spoil_the_mark, lose_the_mark_and_hit_the_file),
)


# -- many of them ----------------------------------------------------------------------------------------------------


def make_plays(directory: Path, seed: int, rounds: int) -> list[Play]:
    """So many plays of each kind."""
    directory.mkdir(parents=True, exist_ok=True)
    return [play(directory, seed + number, kind) for number in range(rounds) for kind in KINDS]


def damage_and_judge(played: Play, directory: Path, damage: Damage, rng: random.Random) -> Verdict:
    """Does it to a copy of the play in the new `directory`, starts on it, drains it, and removes it."""
    spread(played, directory)
    what = damage(directory, played, rng)
    verdict = judge(played, directory, f"{played.kind}: {damage.__name__}: {what}")
    shutil.rmtree(directory)
    return verdict


def torture(seeds: int, seed: int, progress: Callable[[int], None]) -> dict[str, int]:
    """So many damages, each to a copy of an outbox, drawn from `seed`; `progress` hears how many are done.

    Gives counts: seeds, starts_failed, whole_but_lost (SQLite's own structure was hit), invented, doubled, unnamed
    (records that were lost without a word).
    """
    counts = dict.fromkeys(("seeds", "starts_failed", "whole_but_lost", "invented", "doubled", "unnamed"), 0)
    rng = random.Random(seed)
    with place_in_memory() as place:
        plays: list[Play] = []
        for number in range(seeds):
            if number % 500 == 0:
                plays = make_plays(place / "plays", rng.randrange(1 << 30), 2)
            verdict = damage_and_judge(rng.choice(plays), place / str(number), rng.choice(DAMAGES), rng)
            for name, amount in verdict.counts.items():
                counts[name] += amount
            progress(number + 1)
    return counts
