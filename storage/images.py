"""The pages of a database file and of the WAL beside it, each in every version that is there. Opens no database."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from storage.pages import next_page

_DEFAULT_PAGE_BYTES = 4_096
_PAGE_SIZES = frozenset(512 << power for power in range(7))
_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_POINTERS_AT = 32  # of the freelist, in the file's header


@dataclass(slots=True)
class Images:
    """`content` is that of the database file; `frames`: page number to its versions in the WAL, oldest first.

    `strays`: content of frames whose own head is damaged, so that nobody knows which page it was.
    """

    content: bytes | Content
    page_bytes: int
    frames: dict[int, list[bytes]] = field(default_factory=dict)
    strays: list[bytes] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """The numbers of all pages there are, in order; a damaged number may be far away from the others."""
        in_file = -(-len(self.content) // self.page_bytes)
        return [*range(1, in_file + 1), *sorted(number for number in self.frames if number > in_file)]

    def versions(self, number: int) -> list[bytes]:
        """What stands in that page, newest first; the last is the file's."""
        start = (number - 1) * self.page_bytes
        in_file = self.content[start : start + self.page_bytes]
        found = self.frames.get(number, [])[::-1]
        return [*found, in_file.ljust(self.page_bytes, b"\0")] if in_file else found

    def overflow(self, first: int, wanted: int, age: int = 0) -> bytes | None:
        """The content of a chain of overflow pages, from versions that are `age` steps older where there are."""
        parts: list[bytes] = []
        number, left, seen = first, wanted, set[int]()
        if wanted > len(self.content) + len(self.frames) * self.page_bytes:
            return None  # a chain that bites its tail has as much as one likes
        for _ in range(wanted // (self.page_bytes - 4) + 2):
            if left <= 0:
                break
            versions = self.versions(number) if number and number not in seen else []
            if not versions:
                return None
            seen.add(number)
            page = versions[min(age, len(versions) - 1)]
            parts.append(page[4 : 4 + left])
            left -= self.page_bytes - 4
            number = next_page(page)
        return b"".join(parts) if left <= 0 else None

    def free(self) -> set[int]:
        """The pages that the file's own list of free pages names; what it does not make sense of is left out."""
        pages: set[int] = set()
        versions = self.versions(1)
        trunk = struct.unpack_from(">I", versions[0], _POINTERS_AT)[0] if versions else 0
        while trunk and trunk not in pages and self.versions(trunk):
            page = self.versions(trunk)[0]
            following, count = struct.unpack_from(">II", page)
            leaves = struct.unpack_from(f">{count}I", page, 8) if count <= self.page_bytes // 4 - 2 else (0,)
            if not all(self.versions(leaf) for leaf in leaves) or (following and not self.versions(following)):
                break  # it is no list of free pages: the pointer to it is damaged
            pages.add(trunk)
            pages.update(leaves)
            trunk = following
        return pages


@contextmanager
def opened(path: Path) -> Iterator[Images]:
    """The pages of the database in `path`; its file is read page by page, not into memory.

    No connection of this process may have it open: closing it here would drop SQLite's locks on it.
    """
    wal = _bytes_of(path.with_name(f"{path.name}-wal"))
    content = Content(path)
    try:
        images = Images(content, _page_bytes(content, wal))
        for number, page in _frames(wal, images.page_bytes):
            if number:
                images.frames.setdefault(number, []).append(page)
            else:
                images.strays.append(page)
        yield images
    finally:
        content.close()


class Content:
    """The bytes of a file that may be missing or unreadable in places: what cannot be read is zeros."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file is there and cannot be opened."""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._descriptor, self._size = -1, 0
        else:
            self._size = os.fstat(self._descriptor).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        wanted = max(0, stop - start)
        try:
            return os.pread(self._descriptor, wanted, start) if wanted else b""
        except OSError:  # a sector that the disk cannot read; mapped into memory it would end the process
            return bytes(wanted)

    def close(self) -> None:
        """Ends reading."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _page_bytes(content: bytes | Content, wal: bytes) -> int:
    """Ours are made with the default; another size in a header is believed only where the size of its file agrees.

    A damaged one would make nonsense of everything.
    """
    believed = []
    if len(content) >= 32:
        head = content[:32]
        (size,), (count,) = struct.unpack_from(">H", head, 16), struct.unpack_from(">I", head, 28)
        believed += [size] * (size * count == len(content))
    if len(wal) > _WAL_HEADER_BYTES:
        (size,) = struct.unpack_from(">I", wal, 8)
        believed += [size] * ((len(wal) - _WAL_HEADER_BYTES) % (_FRAME_HEADER_BYTES + size) == 0)
    fitting = [size for size in believed if size in _PAGE_SIZES]
    return _DEFAULT_PAGE_BYTES if _DEFAULT_PAGE_BYTES in fitting or not fitting else fitting[0]


def _frames(wal: bytes, page_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Page number and content of each frame of the present time, up to the last that ends a transaction.

    Frames of an earlier time have other salts and are older than the database file itself; what stands behind the
    last commit belongs to a transaction that nobody was told of.
    """
    step = _FRAME_HEADER_BYTES + page_bytes
    salts = _salts(wal, step)
    starts = range(_WAL_HEADER_BYTES, len(wal) - _FRAME_HEADER_BYTES, step)
    heads = [struct.unpack_from(">II8s", wal, at) for at in starts]
    last = max((place for place, (_, commit, salt) in enumerate(heads) if commit and salt == salts), default=-1)
    # Between frames of this time there are none of another: one that looks so is damaged in its head.
    for at, (number, _, _) in zip(starts, heads[: last + 1], strict=False):
        yield number, wal[at + _FRAME_HEADER_BYTES : at + step].ljust(page_bytes, b"\0")


def _salts(wal: bytes, step: int) -> bytes:
    """The salts of the present time: the header's, or the first frame's when the header is damaged."""
    if len(wal) < _WAL_HEADER_BYTES + _FRAME_HEADER_BYTES:
        return b""
    in_first_frame = wal[_WAL_HEADER_BYTES + 8 : _WAL_HEADER_BYTES + 16]
    in_second = wal[_WAL_HEADER_BYTES + step + 8 : _WAL_HEADER_BYTES + step + 16]
    in_header = wal[16:24]
    return in_header if in_header in {in_first_frame, in_second} else in_first_frame
