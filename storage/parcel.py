"""Envelopes as a file that can be carried: one JSON line for each record, a manifest at the end, all of it gzipped.

Each line says which envelope its record is of, so that every body can be made again, byte for byte. Written aside and
renamed when it is whole. Standard library only: where a disk was rescued nothing may be installed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from storage.directory import sync_directory
from storage.envelope import Envelope
from storage.errors import ParcelDamaged, ParcelUnwritable

FORMAT = 1
_LEVEL = 6
_CHAIN = 16  # hexadecimal digits of the digest of all lines before
_HEAD, _COMMA, _TAIL = '{"queries":[', ",", "]}"
# What a line holds besides the record; who has written it by hand may have written anything.
_SHAPE: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "seq": (int,),
    "topic": (str,),
    "place": (int,),
    "created_at": (int, float),
    "records": (int,),
    "lines": (int,),
    "whole": (bool,),
    "sha256": (str,),
    "number": (int,),
    "chain": (str,),
}
_LARGEST = 2**63  # what SQLite can count
_LINE_BYTES = 7 * 64 * 1_048_576  # the longest text there may be, with every sign of it escaped
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a parcel holds. `sha256`: of all lines before the manifest."""

    envelopes: int
    records: int
    first: int | None
    last: int | None
    sha256: str


def pieces(envelope: Envelope) -> tuple[str, list[str]]:
    """The body as text and the text of each of its records, as they stand there; one that is not written as the agent
    writes bulk bodies is one piece. Raises ValueError."""
    text = gzip.decompress(envelope.body).decode("utf-8")
    if not text.startswith(_HEAD):
        return text, [text]
    found, at = [], len(_HEAD)
    while text[at : at + len(_TAIL)] != _TAIL:
        _, end = _DECODER.raw_decode(text, at)
        found.append(text[at:end])
        at = end + len(_COMMA) if text[end : end + 1] == _COMMA else end
    return text, found


def body_of(records: list[str]) -> str:
    """The bulk body that these records were in."""
    return f"{_HEAD}{_COMMA.join(records)}{_TAIL}"


def write(path: Path, envelopes: Iterable[Envelope]) -> Manifest:
    """Makes the parcel. Raises ParcelUnwritable, and what `envelopes` raises; then there is none."""
    with aside(path) as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=_LEVEL, mtime=0) as out:
        digest, count, records = hashlib.sha256(), 0, 0
        first: int | None = None
        last: int | None = None
        for envelope in envelopes:
            for before, behind in _lines(envelope):
                line = f'{before},"chain":"{digest.hexdigest()[:_CHAIN]}",{behind}'.encode()
                digest.update(line)
                out.write(line)
            count, records = count + 1, records + envelope.records
            first = envelope.seq if first is None else min(first, envelope.seq)
            last = envelope.seq if last is None else max(last, envelope.seq)
        manifest = Manifest(count, records, first, last, digest.hexdigest())
        told = {name: getattr(manifest, name) for name in Manifest.__slots__}
        out.write(json.dumps({"manifest": {"format": FORMAT, **told}}, separators=(",", ":")).encode() + b"\n")
    return manifest


def _lines(envelope: Envelope) -> Iterator[tuple[str, str]]:
    """Each in two parts: between them comes what the lines before it amount to, so that a change has a place."""
    text, records = pieces(envelope)
    common = {
        "key": envelope.key,
        "seq": envelope.seq,
        "topic": envelope.topic,
        "place": envelope.place,
        "created_at": envelope.created_at,
        "doubtful": int(envelope.doubtful),
        "records": envelope.records,
        "lines": len(records),
        "whole": records == [text],
        "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
    }
    head = json.dumps(common, separators=(",", ":"))[:-1]
    for number, record in enumerate(records):
        yield head, f'"number":{number},"record":{record}}}\n'


@contextmanager
def aside(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its name when all went well. Raises ParcelUnwritable."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            os.chmod(part, 0o600)  # statements of customers
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise ParcelUnwritable(f"{path} ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def check(path: Path) -> Manifest:
    """The manifest, when every byte is as it was written. Raises ParcelDamaged with the place."""
    manifest = None
    for number, found in _read(path):
        if isinstance(found, Manifest):
            manifest = found
        elif manifest is not None:
            raise ParcelDamaged(f"{path}, line {number}: there is something behind the manifest")
    if manifest is None:
        raise ParcelDamaged(f"{path}: its end is missing")
    return manifest


def read(path: Path) -> Iterator[Envelope]:
    """The envelopes of a parcel that was checked, in its order. Raises ParcelDamaged."""
    for _, found in _read(path):
        if isinstance(found, Envelope):
            yield found


def _read(path: Path) -> Iterator[tuple[int, Envelope | Manifest]]:
    digest, count, records = hashlib.sha256(), 0, 0
    waiting: list[dict[str, Any]] = []
    texts: list[str] = []
    for number, line in _numbered(path):
        entry, text = _parsed(path, number, line)
        if "manifest" in entry:
            if waiting:
                raise ParcelDamaged(f"{path}, line {number}: the envelope {waiting[0]['key']} is not whole")
            yield number, _manifest(path, number, entry["manifest"], (count, records, digest.hexdigest()))
            continue
        if entry["chain"] != digest.hexdigest()[:_CHAIN]:
            raise ParcelDamaged(f"{path}, line {number - 1}: it is not what was exported")
        digest.update(line)
        if waiting and entry["key"] != waiting[0]["key"]:
            raise ParcelDamaged(f"{path}, line {number}: the envelope {waiting[0]['key']} is not whole")
        if entry["number"] != len(waiting):
            raise ParcelDamaged(f"{path}, line {number}: record {len(waiting)} of {entry['key']} is missing")
        waiting.append(entry)
        texts.append(text)
        if len(waiting) == entry["lines"]:
            yield number, _envelope(path, number, entry, texts)
            count, records = count + 1, records + entry["records"]
            waiting, texts = [], []


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path, "rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LINE_BYTES), b""), 1):
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        place = f", behind line {number}" if number else ""
        raise ParcelDamaged(f"{path}{place} ({getattr(error, 'strerror', None) or error})") from error


def _parsed(path: Path, number: int, line: bytes) -> tuple[dict[str, Any], str]:
    """The line, and the text of its record as it stands there."""
    try:
        text = line.decode("utf-8")
        entry = json.loads(text)
        if "manifest" in entry:
            _demand_manifest(entry["manifest"])
        else:
            _demand_shape(entry)
            at = text.index(',"record":') + len(',"record":')
            return entry, text[at : text.rindex("}")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ParcelDamaged(f"{path}, line {number}: it is no line of an export ({error})") from error
    return entry, ""


def _demand_shape(entry: dict[str, Any]) -> None:
    """Raises ValueError, TypeError, KeyError."""
    for name, kinds in _SHAPE.items():
        value = entry[name]
        is_plain = value.isascii() and value.isprintable() if isinstance(value, str) else -_LARGEST <= value < _LARGEST
        if type(value) not in kinds or not is_plain:
            raise ValueError(f"{name} is not what it should be")


def _demand_manifest(told: Any) -> None:
    """Raises ValueError, AttributeError."""
    if any(
        type(told.get(name)) not in {int, type(None)} for name in ("format", "envelopes", "records", "first", "last")
    ):
        raise ValueError("the manifest is not what it should be")


def _envelope(path: Path, number: int, entry: dict[str, Any], texts: list[str]) -> Envelope:
    text = texts[0] if entry["whole"] else body_of(texts)
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != entry["sha256"]:
        raise ParcelDamaged(f"{path}, up to line {number}: the envelope {entry['key']} is not what was exported")
    packed = gzip.compress(text.encode("utf-8"), _LEVEL, mtime=0)
    names = (entry["seq"], entry["topic"], entry["place"], entry["key"], entry["records"])
    digest = hashlib.sha256(packed).digest()
    return Envelope(*names, packed, digest, entry["created_at"], bool(entry.get("doubtful")))


def _manifest(path: Path, number: int, told: dict[str, Any], seen: tuple[int, int, str]) -> Manifest:
    if told.get("format") != FORMAT:
        raise ParcelDamaged(f"{path}, line {number}: its format is {told.get('format')}, this program knows {FORMAT}")
    fields: list[Any] = [told.get(name) for name in Manifest.__slots__]
    manifest = Manifest(*fields)
    if (manifest.envelopes, manifest.records, manifest.sha256) != seen:
        raise ParcelDamaged(f"{path}, line {number - 1} or the manifest behind it: not what was exported")
    return manifest
