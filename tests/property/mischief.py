"""What disks and people do to the files of an outbox that nobody has open. Each leaves `outbox.mark` as it is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from storage.outbox import FILE_NAME

DB, WAL, SHM = FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"
PAGE_BYTES = 4_096

Mischief = Callable[[Path, random.Random], None]


def flip_bits_in_the_file(home: Path, rng: random.Random) -> None:
    """One to three."""
    _flip(home / DB, rng)


def flip_bits_in_the_wal(home: Path, rng: random.Random) -> None:
    """One to three."""
    _flip(home / WAL, rng)


def zero_a_page(home: Path, rng: random.Random) -> None:
    """Of the file or of the WAL."""
    path = rng.choice([path for path in (home / DB, home / WAL) if path.exists()])
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content) // PAGE_BYTES + 1) * PAGE_BYTES
    content[at : at + PAGE_BYTES] = bytes(len(content[at : at + PAGE_BYTES]))
    path.write_bytes(content)


def cut_the_end_off(home: Path, rng: random.Random) -> None:
    """Of the file or of the WAL."""
    path = rng.choice([path for path in (home / DB, home / WAL) if path.exists()])
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def write_garbage(home: Path, rng: random.Random) -> None:
    """In place of the whole file."""
    (home / DB).write_bytes(rng.randbytes(rng.randint(1, 20_000)))


def empty_the_file(home: Path, _: random.Random) -> None:
    """Nothing is in it."""
    (home / DB).write_bytes(b"")


def lose_the_file(home: Path, _: random.Random) -> None:
    """It is gone."""
    (home / DB).unlink()


def lose_the_wal(home: Path, _: random.Random) -> None:
    """It is gone, and with it what was not in the file yet."""
    (home / WAL).unlink(missing_ok=True)
    (home / SHM).unlink(missing_ok=True)


def lose_everything(home: Path, rng: random.Random) -> None:
    """The file and its WAL."""
    lose_the_wal(home, rng)
    lose_the_file(home, rng)


MISCHIEFS: tuple[Mischief, ...] = (
    *(flip_bits_in_the_file, flip_bits_in_the_wal, zero_a_page, cut_the_end_off),
    *(write_garbage, empty_the_file, lose_the_file, lose_the_wal, lose_everything),
)


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes()) if path.exists() else bytearray()
    for _ in range(rng.randint(1, 3) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    if content:
        path.write_bytes(content)
