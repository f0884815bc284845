"""Envelopes as a file that is carried.

What could go wrong: a body comes back with another byte (numbers, spaces, text beyond ASCII), so its key is that of
another body; a byte that was changed on the way is delivered; half a file is taken for a whole one; a record of one
envelope slips into another; a disk that is full leaves half a file under the name of a whole one, or takes away the
file that was there; others may read it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import parcel
from storage.envelope import Envelope
from storage.errors import OutboxDamaged, ParcelDamaged, ParcelUnwritable

ROOT = Path(__file__).parents[3]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.text(max_size=8), values, min_size=1, max_size=4)


def envelope(seq: int, text: str, records: int, topic: str = "queries", key: str | None = None) -> Envelope:
    packed = gzip.compress(text.encode(), mtime=0)
    digest = hashlib.sha256(packed).digest()
    return Envelope(seq, topic, seq, key or f"inst-{seq}-{digest.hex()[:16]}", records, packed, digest, 1_780_000_000.5)


def bulk(seq: int, *texts: str) -> Envelope:
    return envelope(seq, '{"queries":[' + ",".join(texts) + "]}", len(texts))


def result(seq: int) -> Envelope:
    return envelope(seq, '{"command_id":7,"success":true,"result":{}}', 1, "command_result")


SOME = (bulk(1, '{"id":"a","n":1e16}', '{"id":"b","t":"é \\u0000"}'), result(2), bulk(5, '{"id": "c" , "x":1.0}'))


def told(found: Envelope) -> tuple[object, ...]:
    body = gzip.decompress(found.body)
    return found.key, found.seq, found.topic, found.place, found.records, found.created_at, found.doubtful, body


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    parcel.write(tmp_path / "x.jsonl.gz", SOME)
    return tmp_path / "x.jsonl.gz"


def test_what_was_put_in_comes_out_byte_for_byte(carried: Path) -> None:
    manifest = parcel.check(carried)
    assert (manifest.envelopes, manifest.records, manifest.first, manifest.last) == (3, 4, 1, 5)
    assert [told(each) for each in parcel.read(carried)] == [told(each) for each in SOME]


@given(
    st.lists(st.lists(records, min_size=1, max_size=4), max_size=4), st.sampled_from([None, (",", ":"), (" , ", " : ")])
)
@settings(max_examples=150, deadline=None)
def test_so_it_is_with_any_json(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[list[object]], signs: object
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.jsonl.gz"
    texts = [[json.dumps(each, separators=signs, ensure_ascii=False) for each in body] for body in bodies]  # type: ignore[arg-type]
    envelopes = [bulk(number, *body) for number, body in enumerate(texts, 1)]
    written = parcel.write(path, envelopes)
    assert parcel.check(path) == written
    assert [told(each) for each in parcel.read(path)] == [told(each) for each in envelopes]


def test_one_line_for_each_record_and_a_manifest(carried: Path) -> None:
    *lines, last = [json.loads(line) for line in gzip.decompress(carried.read_bytes()).splitlines()]
    assert [(line["seq"], line["number"]) for line in lines] == [(1, 0), (1, 1), (2, 0), (5, 0)]
    assert {"key", "seq", "sha256", "record"} <= lines[0].keys()
    assert list(last) == ["manifest"]


def test_the_same_is_written_twice_alike(carried: Path, tmp_path: Path) -> None:
    parcel.write(tmp_path / "y.jsonl.gz", SOME)
    assert (tmp_path / "y.jsonl.gz").read_bytes() == carried.read_bytes()


def test_nothing_is_an_export_too(tmp_path: Path) -> None:
    parcel.write(tmp_path / "x.jsonl.gz", ())
    assert (parcel.check(tmp_path / "x.jsonl.gz").records, list(parcel.read(tmp_path / "x.jsonl.gz"))) == (0, [])


# -- what was changed on the way -----------------------------------------------------------------------------------


def altered(path: Path, before: bytes, after: bytes) -> None:
    content = gzip.decompress(path.read_bytes())
    assert before in content
    path.write_bytes(gzip.compress(content.replace(before, after, 1)))


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        (b'"id":"a"', b'"id":"A"', "line 1"),
        (b'"number":1', b'"number":2', "line 2"),
        (b'"records":2', b'"records":3', "line 1"),
        (b'"seq":5', b'"seq":6', "line 4"),
        (b'{"manifest"', b'{"manifesto"', "line 5"),
        (b'"record":', b'"recodr":', "line 1"),
        (b'"envelopes":3', b'"envelopes":4', "manifest"),
        (b'"format":1', b'"format":2', "format"),
    ],
)
def test_a_changed_byte_is_refused_with_its_place(carried: Path, before: bytes, after: bytes, place: str) -> None:
    altered(carried, before, after)
    with pytest.raises(ParcelDamaged, match=place):
        parcel.check(carried)


@pytest.mark.parametrize("number", range(4))
def test_a_line_that_is_missing_or_there_twice_is_refused(carried: Path, number: int) -> None:
    lines = gzip.decompress(carried.read_bytes()).splitlines(keepends=True)
    for changed in (lines[:number] + lines[number + 1 :], [*lines[: number + 1], *lines[number:]]):
        carried.write_bytes(gzip.compress(b"".join(changed)))
        with pytest.raises(ParcelDamaged):
            parcel.check(carried)


def test_a_file_that_was_cut_anywhere_is_refused(carried: Path) -> None:
    content = carried.read_bytes()
    for end in range(len(content)):
        carried.write_bytes(content[:end])
        with pytest.raises(ParcelDamaged):
            parcel.check(carried)


def test_any_flipped_bit_is_refused(carried: Path) -> None:
    content = carried.read_bytes()
    harmless = {4, 5, 6, 7, 8, 9}  # of gzip's head: the time, the level, the system
    for at in sorted(set(range(len(content))) - harmless):
        for bit in (1, 128):
            carried.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            try:
                parcel.check(carried)
            except ParcelDamaged:
                continue
            assert [told(each) for each in parcel.read(carried)] == [told(each) for each in SOME], (at, bit)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Dear diary",
        *(
            gzip.compress(text, mtime=0)
            for text in (b"", b"[]\n", b"\xff\n", b'"manifest"\n', b'{"manifest":5}\n', b"[" * 100_000)
        ),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ParcelDamaged):
        parcel.check(tmp_path / "x")


# -- where it goes -------------------------------------------------------------------------------------------------


def test_it_is_for_its_owner_alone(carried: Path) -> None:
    assert stat.S_IMODE(carried.stat().st_mode) == 0o600


def test_an_export_that_fails_leaves_what_was_there_and_nothing_else(carried: Path) -> None:
    def broken() -> Iterator[Envelope]:
        yield SOME[0]
        raise OutboxDamaged("in the middle")

    before = carried.read_bytes()
    with pytest.raises(OutboxDamaged):
        parcel.write(carried, broken())
    assert (carried.read_bytes(), list(carried.parent.iterdir())) == (before, [carried])


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParcelUnwritable, match="No such file"):
        parcel.write(tmp_path / "nowhere" / "x.jsonl.gz", SOME)


def test_all_of_the_store_is_usable_without_any_package() -> None:
    """`python -S -I` sees no installed package."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import storage.parcel, storage.reader, scripts.replay"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    control = subprocess.run([sys.executable, "-I", "-S", "-c", "import orjson"], capture_output=True, check=False)
    assert control.returncode != 0
