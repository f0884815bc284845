"""Damages a copy of an outbox in every way that disks and people do, and knows what can be left whole.

What is expected is found without the salvage's own reader: by where the bytes of each body stood before.
"""

from __future__ import annotations

import json
import random
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage.envelope import Change, Draft, Envelope, Gap
from storage.outbox import FILE_NAME, Outbox

TOPIC = "queries"
PIECE_BYTES = 16
PAGE_BYTES = 4_096
DB, WAL = FILE_NAME, f"{FILE_NAME}-wal"


def body_of(rng: random.Random, records: int, size: int) -> bytes:
    """A body that tells its count, and that no other body has a piece of."""
    return json.dumps({"records": records, "noise": rng.randbytes(size).hex()}).encode()


def describe(body: bytes) -> tuple[str, int] | None:
    """What a body tells about itself."""
    try:
        return TOPIC, int(json.loads(body)["records"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Play:
    """An outbox as it stood on the disk, and what was in it. `places`: where the pieces of each body stood."""

    directory: Path
    waiting: dict[str, Envelope]
    bookmark: bytes
    parked: int
    places: dict[str, list[tuple[str, int, bytes]]]

    @property
    def records(self) -> int:
        return sum(each.records for each in self.waiting.values())


def play(directory: Path, seed: int, *, checkpointed: bool) -> Play:
    """Collects, delivers, parks and splits in an outbox, and leaves a copy of it as a crash would."""
    rng = random.Random(seed)
    outbox = Outbox(directory / "played", topics=(TOPIC,), describe=describe)
    for number in range(24):
        drafts = []
        for _ in range(rng.randint(1, 3)):
            records = rng.randint(1, 500)
            drafts.append(Draft(TOPIC, records, body_of(rng, records, rng.choice((60, 400, 3_000, 12_000)))))
        outbox.commit(Change(tuple(drafts), bookmarks={"watch": b"%d" % number}, notes={"mood": str(number)}))
        if number % 3 == 1 and (envelope := outbox.head(TOPIC)) is not None:
            outbox.accept(envelope, delivered=envelope.records)
        if number == 10 and (envelope := outbox.head(TOPIC)) is not None:
            outbox.park(envelope, "bad")
    outbox.commit(Change(gaps=(Gap("watch", "rotated", estimate=3),)))
    if checkpointed:
        with outbox._file.reading() as sql:
            sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    waiting: dict[str, Envelope] = {}
    while (envelope := outbox.head(TOPIC, [each.seq for each in waiting.values()])) is not None:
        waiting[envelope.key] = envelope
    crashed = directory / "crashed"
    shutil.copytree(outbox.path.parent, crashed)
    bookmark, parked = outbox.bookmark("watch") or b"", outbox.tally(TOPIC).parked
    outbox.close()
    return Play(crashed, waiting, bookmark, parked, {key: _places(crashed, each.body) for key, each in waiting.items()})


def _places(directory: Path, body: bytes) -> list[tuple[str, int, bytes]]:
    contents = {name: (directory / name).read_bytes() for name in (DB, WAL) if (directory / name).exists()}
    found = []
    for start in (*range(0, len(body) - PIECE_BYTES, PIECE_BYTES // 2), len(body) - PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        for name, content in contents.items():
            at = content.find(piece)
            while at >= 0:
                found.append((name, at, piece))
                at = content.find(piece, at + 1)
    return found


def is_whole(play: Play, directory: Path, key: str) -> bool:
    """Whether no byte of this body was touched, wherever copies of it stand."""
    contents = {name: (directory / name).read_bytes() for name in (DB, WAL) if (directory / name).exists()}
    return all(contents.get(name, b"")[at : at + PIECE_BYTES] == piece for name, at, piece in play.places[key])


# -- the damages -----------------------------------------------------------------------------------------------------

Damage = Callable[[Path, random.Random], str]


def flip_bits(directory: Path, rng: random.Random, name: str = DB) -> str:
    content = bytearray((directory / name).read_bytes())
    if not content:
        return "nothing to flip"
    places = [rng.randrange(len(content)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    (directory / name).write_bytes(content)
    return f"bits flipped in {name} at {places}"


def flip_bits_in_the_wal(directory: Path, rng: random.Random) -> str:
    return flip_bits(directory, rng, WAL)


def zero_pages(directory: Path, rng: random.Random) -> str:
    name = rng.choice((DB, WAL))
    content = bytearray((directory / name).read_bytes())
    pages = len(content) // PAGE_BYTES
    hit = sorted({rng.randrange(pages) for _ in range(rng.randint(1, 4))}) if pages else []
    for page in hit:
        content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)
    (directory / name).write_bytes(content)
    return f"pages {hit} of {name} zeroed"


def truncate(directory: Path, rng: random.Random) -> str:
    name = rng.choice((DB, WAL))
    size = (directory / name).stat().st_size
    left = rng.randrange(size + 1)
    with (directory / name).open("r+b") as file:
        file.truncate(left)
    return f"{name} cut from {size} to {left} bytes"


def lose_the_wal(directory: Path, rng: random.Random) -> str:
    (directory / WAL).unlink()
    return "the WAL is gone"


def spoil_the_shm(directory: Path, rng: random.Random) -> str:
    (directory / f"{DB}-shm").write_bytes(rng.randbytes(32_768))
    return "garbage in the shm"


def write_garbage(directory: Path, rng: random.Random) -> str:
    (directory / DB).write_bytes(rng.randbytes(rng.randint(1, 20_000)))
    return "garbage instead of the file"


def empty(directory: Path, rng: random.Random) -> str:
    (directory / DB).write_bytes(b"")
    return "an empty file"


def lose_the_file(directory: Path, rng: random.Random) -> str:
    (directory / DB).unlink()
    return "the file is gone"


def garbage_in_the_middle(directory: Path, rng: random.Random) -> str:
    size = (directory / DB).stat().st_size
    at, length = rng.randrange(size or 1), rng.randint(1, 3 * PAGE_BYTES)
    with (directory / DB).open("r+b") as file:
        file.seek(at)
        file.write(rng.randbytes(min(length, max(0, size - at))))
    return f"{length} bytes of garbage at {at}"


DAMAGES: tuple[Damage, ...] = (
    *(flip_bits, flip_bits, flip_bits, flip_bits_in_the_wal, flip_bits_in_the_wal, zero_pages, truncate),
    *(garbage_in_the_middle, lose_the_wal, spoil_the_shm, write_garbage, empty, lose_the_file),
)


def crc(text: str) -> int:
    return zlib.crc32(text.encode())
