"""What can be read of a damaged outbox, and which of it still waits.

What could go wrong: a row whose checksum does not hold is believed; a row that holds is not recognised, or taken for
one of another table; an older version wins over a newer one; what was settled, split or parked is taken for waiting;
an envelope whose row is damaged is given up though its body is whole, or gets another key than it had.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storage.books import FIELDS
from storage.envelope import Change, Draft, Envelope, Gap
from storage.errors import OutboxDamaged
from storage.findings import Findings, Found, find, load, mended, pending
from storage.images import Images, opened
from storage.outbox import Outbox
from storage.pages import Row
from storage.schema import INSTALLATION, PROBE
from tests.fakes.inside import sql_of

NAME, TOPIC = "0123456789abcdef", "queries"


def describe(body: bytes) -> tuple[str, int] | None:
    """Bodies of these tests say their count."""
    count, _, _ = body.partition(b" ")
    return (TOPIC, int(count)) if count.isdigit() else None


def envelope(seq: int, records: int = 3, *, half: str = "", topic: str = TOPIC) -> Envelope:
    body = b"%d records of %d%s" % (records, seq, half.encode())
    digest = hashlib.sha256(body)
    made = Envelope(
        seq, topic, seq, f"{NAME}-{seq}-{digest.hexdigest()[:16]}{half}", records, body, digest.digest(), 5.0
    )
    return replace(made, guard=made.guard_now)


# -- from a real file ------------------------------------------------------------------------------------------------


def closed(directory: Path) -> tuple[Path, Outbox]:
    """A file with a row of every kind."""
    outbox = Outbox(directory, topics=(TOPIC, "command_result"), now=lambda: 7.0)
    for number in range(3):
        drafts = (Draft(TOPIC, 3, b"3 records of look %d" % number),)
        outbox.commit(Change(drafts, {"watch": b"%d" % number}, notes={"mood": f"{number}"}, marks=(f"m{number}",)))
    outbox.commit(Change(gaps=(Gap("watch", "rotated", "a", None, 4, "why"),)))
    head = outbox.head(TOPIC)
    assert head is not None
    outbox.park(head, "bad")
    outbox.close()
    return outbox.path, outbox


def findings(path: Path) -> Findings:
    with opened(path) as there:
        return find(there, describe, None)


def test_every_kind_of_row_is_found_for_what_it_is(tmp_path: Path) -> None:
    path, outbox = closed(tmp_path)
    found = findings(path)
    assert [each.envelope.seq for each in found.envelopes.values()] == [2, 3]
    assert [row[0] for row in found.parked.values()] == [1]
    assert found.books[TOPIC] == (9, 0, 0, 0, 3, 6, 38, 2, 0)
    assert found.books["command_result"] == (0,) * len(FIELDS)
    assert found.bookmarks == {"watch": (3, 0, b"2")}
    assert found.notes.keys() == {INSTALLATION, PROBE, "mood"}
    assert (found.notes[INSTALLATION], found.notes["mood"]) == ((0, outbox.installation), (0, "2"))
    assert found.marks == {1: "m0", 2: "m1", 3: "m2"}
    assert found.known_gaps() == [(1, "watch", "rotated", "a", None, 4, "why", 7.0, 1)]
    assert not found.is_empty


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("tally", "lost"), ("bookmark", "value"), ("bookmark", "at_seq"), ("note", "value"), ("mark", "name")),
        *(("gap", "reason"), ("gap", "estimate"), ("parked", "body"), ("parked", "sha256")),
    ],
)
def test_a_row_whose_checksum_does_not_hold_is_not_believed(tmp_path: Path, table: str, column: str) -> None:
    outbox = Outbox(closed(tmp_path)[0].parent)
    sql_of(outbox).execute(
        f"UPDATE {table} SET {column} = CASE typeof({column}) WHEN 'integer' THEN 77 ELSE hex({column}) END"
    )
    outbox.close()
    found = findings(outbox.path)
    assert not {"tally": found.books, "bookmark": found.bookmarks, "note": found.notes, "mark": found.marks,
                "gap": found.gaps, "parked": found.parked}[table]  # fmt: skip
    assert len(found.envelopes) == 2


@pytest.mark.parametrize("known", [None, "f" * 16], ids=["no mark", "the mark of another outbox"])
@pytest.mark.parametrize("lost", [(), (INSTALLATION,)], ids=["with its note", "without its note"])
def test_a_key_that_lost_the_name_of_its_installation_gets_it_back(
    tmp_path: Path, known: str | None, lost: tuple[str, ...]
) -> None:
    path, outbox = closed(tmp_path)
    keys = set(findings(path).envelopes)
    with closing(sqlite3.connect(path)) as sql, sql:
        sql.execute("UPDATE envelope SET key = 'k' || substr(key, 2) WHERE seq = 3")
        for name in lost:
            sql.execute("DELETE FROM note WHERE name = ?", (name,))
    with opened(path) as there:
        found = find(there, describe, known)
    assert (set(found.envelopes), found.installation) == (keys, outbox.installation)


def test_another_programs_file_has_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(bytes(range(256)) * 64)
    assert findings(tmp_path / "db").is_empty


def test_what_was_found_can_be_loaded_with_its_body(tmp_path: Path) -> None:
    path, _ = closed(tmp_path)
    with opened(path) as there:
        found = find(there, describe, None)
        loaded = [load(there, each, describe, None) for each in found.envelopes.values()]
    assert [(each.seq, each.body, each.is_intact) for each in loaded] == [
        (2, b"3 records of look 1", True),
        (3, b"3 records of look 2", True),
    ]


def test_what_is_not_there_a_second_time_is_told(tmp_path: Path) -> None:
    path, _ = closed(tmp_path)
    (first, *_) = findings(path).envelopes.values()
    with pytest.raises(OutboxDamaged, match="was there and is not any more"):
        load(Images(bytes(20_000), 4_096), first, describe, None)


# -- mending ---------------------------------------------------------------------------------------------------------

WHOLE = envelope(4)


@pytest.mark.parametrize(
    "damage",
    [
        {"records": 77}, {"topic": "querier"}, {"created_at": 9.0}, {"doubtful": True}, {"guard": b"12345678"},
        {"seq": 77}, {"sha256": bytes(32)}, {"key": "nonsense"}, {"key": WHOLE.key.replace("-4-", "-5-")[:-1] + "0"},
        {"key": WHOLE.key.upper()},
    ],
)  # fmt: skip
def test_a_row_whose_body_is_whole_is_mended(damage: Mapping[str, object]) -> None:
    damaged = replace(WHOLE, **damage)  # type: ignore[arg-type]
    assert not damaged.is_intact
    found = mended(damaged, describe, NAME)
    assert found is not None
    assert replace(found, doubtful=False, created_at=5.0) == WHOLE
    assert found == WHOLE or found.doubtful  # without its checksum nobody knows whether it was offered


def test_a_whole_row_is_left_as_it_is() -> None:
    assert mended(WHOLE, describe, "another") is WHOLE
    assert mended(WHOLE, lambda _: None, None) is WHOLE


def test_a_body_that_was_hit_is_given_up() -> None:
    assert mended(replace(WHOLE, body=WHOLE.body + b"!"), describe, NAME) is None
    assert mended(replace(WHOLE, body=b"!" + WHOLE.body), describe, NAME) is None


def test_a_body_that_says_nothing_is_given_up_with_its_row() -> None:
    assert mended(replace(WHOLE, records=77), lambda _: None, NAME) is None


def test_the_key_of_a_half_is_kept_because_its_parents_body_is_gone() -> None:
    half = envelope(9, half=".0")
    half = replace(half, key=f"{WHOLE.key}.0", place=4)
    found = mended(replace(half, guard=b"12345678"), describe, NAME)
    assert found is not None
    assert (found.key, found.seq, found.place) == (f"{WHOLE.key}.0", 9, 4)


@pytest.mark.parametrize("damage", [{"records": 77}, {"topic": "x"}, {"seq": 5}, {"key": f"{NAME}-4-{'0' * 16}"}])
def test_a_row_of_format_1_has_no_checksum_and_is_put_right_by_its_body(damage: Mapping[str, object]) -> None:
    old = replace(WHOLE, guard=None)
    assert mended(old, describe, NAME) == old
    found = mended(replace(old, **damage), describe, NAME)  # type: ignore[arg-type]
    assert found is not None
    assert (found.topic, found.records, found.doubtful) == (TOPIC, 3, True)


def test_a_row_of_format_1_whose_body_says_nothing_is_believed() -> None:
    old = replace(WHOLE, guard=None)
    assert mended(old, lambda _: None, NAME) is old


# -- what still waits ------------------------------------------------------------------------------------------------


def found_of(*there: tuple[Envelope, int], parked: tuple[str, ...] = ()) -> Findings:
    """`there`: envelopes and their ages; -1: in a stray page."""
    found = Findings(NAME)
    for each, age in there:
        where = (7, age, 0) if age >= 0 else (0, 0, 0)
        found.envelopes[each.key] = Found(each, len(each.body), where)
    found.parked.update(dict.fromkeys(parked, (0,)))
    return found


def waiting(found: Findings, pending_records: int | None = None, **first: int) -> list[int]:
    books = {TOPIC: tuple(pending_records if name == "pending" else 0 for name in FIELDS)}
    return [
        each.envelope.seq
        for each in pending(found, books if pending_records is not None else {}, first)  # type: ignore[arg-type]
    ]


def test_what_stands_before_the_first_place_of_its_topic_was_settled() -> None:
    found = found_of((envelope(3), 0), (envelope(4), 0), (envelope(2, topic="other"), 0))
    assert waiting(found) == [2, 3, 4]
    assert waiting(found, queries=4) == [2, 4]
    half = replace(envelope(9, half=".1"), place=3)
    assert waiting(found_of((half, 0), (envelope(4), 0)), queries=4) == [4]


def test_what_was_parked_or_split_does_not_wait() -> None:
    whole, parked = envelope(3), envelope(4)
    half = replace(envelope(8), key=f"{whole.key}.1")
    assert waiting(found_of((whole, 0), (half, 0), (parked, 0), parked=(parked.key,))) == [8]
    assert waiting(found_of((whole, 0), parked=(f"{whole.key}.0",))) == []
    assert waiting(found_of((whole, 0))) == [3]


def test_of_older_versions_as_many_are_taken_as_the_books_miss_the_newest_first() -> None:
    found = found_of((envelope(6), 0), (envelope(3), 1), (envelope(4), 2), (envelope(5), 1))
    assert waiting(found, 3) == [6]
    assert waiting(found, 6) == [5, 6]
    assert waiting(found, 9) == [4, 5, 6]
    assert waiting(found, 100) == [3, 4, 5, 6]
    assert waiting(found, 5) == [6]  # 2 are missing, and each has 3


def test_without_books_all_of_them_are_taken() -> None:
    assert waiting(found_of((envelope(6), 0), (envelope(3), 1))) == [3, 6]


def test_of_two_with_the_same_number_one_waits() -> None:
    assert waiting(found_of((envelope(6), 0), (replace(envelope(7), seq=6), 0))) == [6]


@pytest.mark.parametrize(("age", "is_old"), [(0, False), (1, True), (-1, True)])
def test_what_stands_in_no_newest_page_may_have_been_settled(age: int, is_old: bool) -> None:
    (found,) = found_of((envelope(6), age)).envelopes.values()
    assert found.is_old is is_old


def test_a_row_that_looks_like_none_of_ours_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = [Row(1, (None,)), Row(1, ("a", 1)), Row(1, (None, b"", 1, "", 1, b"", b"", 1.0)), Row(0, (b"x",) * 12)]
    monkeypatch.setattr("storage.pages.rows", lambda *_, **__: iter(strange))
    assert find(Images(bytes(4_096), 4_096), describe, None).is_empty
