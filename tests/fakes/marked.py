"""Secrets that can be recognised wherever they turn up, and who looks for them in what was written."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from storage.bodies import describe
from storage.outbox import FILE_NAME
from storage.reader import OutboxReader

_GZIP = b"\x1f\x8b\x08"


def forms(secret: str) -> set[bytes]:
    """How it may look: as it is, percent-encoded, in hex, in UTF-16, and in Base64 at any place of a longer text."""
    plain = secret.encode()
    found = {plain, quote(secret, safe="").encode(), plain.hex().encode(), secret.encode("utf-16-le")}
    for before in range(3):
        packed = base64.b64encode(b"x" * before + plain)
        # Without the characters that also hold something of what stands before or behind it.
        found.add(packed[(0, 2, 3)[before] : len(packed) // 4 * 4 - 4])
    return found


class Sweep:
    """Knows the secrets by their names."""

    def __init__(self, **secrets: str) -> None:
        assert all(len(secret) >= 12 for secret in secrets.values()), "a short one would be found by chance"
        self._forms = {name: forms(secret) for name, secret in secrets.items()}

    def found(self, content: bytes | str) -> set[str]:
        """The secrets in it, also in what is packed in it."""
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        whole = [raw, *_unpacked(raw)]
        return {name for name, looks in self._forms.items() if any(look in each for look in looks for each in whole)}

    def leaks(self, written: Mapping[str, bytes | str], allowed: Mapping[str, set[str]] | None = None) -> list[str]:
        """Where which secret stands; `allowed`: what may stand where."""
        may = allowed or {}
        found = {where: self.found(content) - may.get(where, set()) for where, content in written.items()}
        return [f"{name} in {where}" for where, names in sorted(found.items()) for name in sorted(names)]


def files(directory: Path) -> dict[str, bytes]:
    """Every file in it, and every body of an outbox in it as it is before it is packed."""
    found = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    if (directory / FILE_NAME).exists():
        with OutboxReader(directory, describe, now=0.0, beside=True) as reader:
            for head in (*reader.heads(), *reader.parked()):
                found[f"envelope {head.seq}"] = gzip.decompress(reader.load(head).body)
    return found


def _unpacked(content: bytes) -> Iterator[bytes]:
    at = content.find(_GZIP)
    while at >= 0:
        with suppress(zlib.error):
            yield zlib.decompressobj(wbits=31).decompress(content[at:])
        at = content.find(_GZIP, at + 1)
