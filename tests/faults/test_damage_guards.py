"""What keeps a damage small, taken away piece by piece: each of these guards has something to do.

What could go wrong: the judgement of the other tests sees nothing; a guard guards nothing and nobody would miss it.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage import gaps, salvage
from storage.envelope import Envelope
from storage.findings import pending
from tests.faults.damage import damage_and_judge, roll_back, spread
from tests.faults.judgement import Verdict, judge, start
from tests.faults.played import DB, FRAME_BYTES, MARK, OLD_FORMATS, PAGE_BYTES, WAL, WATCH, Play, waiting


def hit_a_body(played: Play, directory: Path) -> Envelope:
    """Flips one bit of one body in the file."""
    spread(played, directory)
    key, places = next(item for item in played.now.places.items() if item[1][1][0] == DB)
    name, at, piece = places[1]
    content = bytearray((directory / name).read_bytes())
    content[at + len(piece) // 2] ^= 1
    (directory / name).write_bytes(content)
    return played.now.waiting[key]


@pytest.fixture
def in_the_file(plays: list[Play]) -> Play:
    return next(played for played in plays if played.kind == "in the file")


def test_a_body_that_was_hit_is_lost_alone_and_is_no_reason_to_rebuild(in_the_file: Play, place: Path) -> None:
    hit = hit_a_body(in_the_file, place / "data")
    verdict = judge(in_the_file, place / "data", "one bit of a body")
    assert verdict.is_fine
    assert (verdict.rebuilds, verdict.lost) == (0, hit.records)


def test_without_the_checksums_it_would_be_delivered(
    in_the_file: Play, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit_a_body(in_the_file, place / "data")
    monkeypatch.setattr(Envelope, "is_intact", property(lambda _: True))
    verdict = judge(in_the_file, place / "data", "one bit of a body")
    assert (verdict.invented, verdict.lost) == (1, 0)


def hit_the_wal(played: Play, directory: Path) -> None:
    """Flips one bit in the third frame: SQLite takes nothing of what comes behind."""
    spread(played, directory)
    content = bytearray((directory / WAL).read_bytes())
    content[32 + 2 * (PAGE_BYTES + 24) + 1_000] ^= 1
    (directory / WAL).write_bytes(content)


def test_with_the_mark_a_bit_in_the_wal_loses_what_it_hit(plays: list[Play], place: Path) -> None:
    hit_the_wal(plays[0], place / "data")
    verdict = judge(plays[0], place / "data", "one bit of the WAL")
    assert verdict.is_fine
    assert verdict.rebuilds == 1
    assert verdict.lost <= max(each.records for each in plays[0].now.waiting.values())


def test_without_the_mark_it_loses_whole_commits_and_nobody_notices(plays: list[Play], place: Path) -> None:
    hit_the_wal(plays[0], place / "data")
    (place / "data" / MARK).unlink()
    opened = start(place / "data")
    with closing(opened.outbox):
        assert len(waiting(opened.outbox)) < len(plays[0].now.waiting) // 2
        assert (opened.told, opened.kept) == ([], {})


def rolled_back(plays: list[Play], directory: Path) -> Verdict:
    """File and WAL of the middle beside the mark of the end, where most was read and something settled since."""
    played = next(each for each in plays if each.kind == "in the file")
    return damage_and_judge(played, directory, roll_back, random.Random(1))


def hit_the_bookmark(plays: list[Play], directory: Path) -> Play:
    """Zeroes every version of its page in the WAL: an old one is left in the file, and all that was read since."""
    played = next(each for each in plays if each.kind == "in both")
    spread(played, directory)
    with closing(sqlite3.connect(directory / DB)) as sql:
        (page,) = sql.execute("SELECT rootpage FROM sqlite_master WHERE name = 'bookmark'").fetchone()
    for name in (DB, WAL):
        (directory / name).write_bytes(played.now.files[name])
    content = bytearray(played.now.files[WAL])
    for at in range(32, len(content), FRAME_BYTES):
        if int.from_bytes(content[at : at + 4], "big") == page:
            content[at + 24 : at + FRAME_BYTES] = bytes(PAGE_BYTES)
    (directory / WAL).write_bytes(content)
    return played


def test_a_bookmark_that_is_older_than_what_was_kept_is_given_up(plays: list[Play], place: Path) -> None:
    played = hit_the_bookmark(plays, place / "data")
    verdict = judge(played, place / "data", "the page of the bookmark")
    assert verdict.is_fine, verdict
    assert (verdict.rebuilds, verdict.lost) == (1, 0)
    opened = start(place / "data")
    with closing(opened.outbox):
        assert (opened.outbox.bookmark(WATCH), opened.outbox.has_lost_bookmark(WATCH)) == (None, True)


def test_were_it_gone_on_from_what_was_kept_would_be_read_twice(
    plays: list[Play], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage._Rebuilding, "_may_go_on", lambda *_: True)
    verdict = judge(hit_the_bookmark(plays, place / "data"), place / "data", "the page of the bookmark")
    assert ["would be read again" in sentence for sentence in verdict.wrong] == [True]


def test_without_its_gap_the_loss_would_have_no_name(
    plays: list[Play], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rolled_back(plays, place / "named").is_fine
    monkeypatch.setattr(gaps, "enter", lambda *_: None)
    verdict = rolled_back(plays, place / "data")
    assert verdict.unnamed >= verdict.lost > 0


def test_without_doubt_and_the_places_in_the_mark_settled_envelopes_would_come_twice(
    plays: list[Play], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "pending", lambda found, known, _first: pending(found, known, {}))
    monkeypatch.setattr(salvage._Rebuilding, "_may_be_settled", lambda *_: False)
    assert sum(damage_and_judge(each, place / str(number), roll_back, random.Random(1)).doubled
               for number, each in enumerate(plays) if each.kind not in OLD_FORMATS) > 0  # fmt: skip
