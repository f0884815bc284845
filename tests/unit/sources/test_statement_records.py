"""What a statement did in a window becomes a record.

What could go wrong: a text leaves at another level than was asked for; a placeholder for a missing text is redacted as
if it were SQL, or all placeholders share one fingerprint; what another version of the server makes of a list changes
the fingerprint.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.record import Record
from agent.redact import Level, Redactor, fingerprint_of_queryid
from agent.redact.normal import digest
from agent.sources._statement_counters import Delta
from agent.sources._statement_records import Look, Text, Texts
from agent.sources._statement_servers import NORMAL

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LEVELS: tuple[Level, ...] = ("secrets", "literals", "fingerprint")


def record(texts: Texts, level: Level = "literals", queryid: int = 7) -> Record:
    row = (10, 5, queryid, True, 2, 3.0, 2.0, 4, None)
    delta = Delta(row=row, reason=NORMAL, since=NOW, calls=2, total_ms=3.0, rows=4)
    look = Look(
        kind="pg_stat_statements",
        watch="default",
        at=NOW,
        counting="1 2",
        databases={5: "shop"},
        roles={10: "app"},
        marker="/* ours */",
        redactor=Redactor(level, "postgres"),
    )
    [found] = look.records([delta], texts)
    return found


def known(text: str, queryid: int = 7, sha256: str | None = None) -> Texts:
    return Texts({(10, 5, queryid, True): Text(text, sha256)}, otherwise="evicted")


def test_the_text_leaves_as_the_level_says_and_its_fingerprint_at_every_level() -> None:
    found = [record(known("COPY  t FROM 'it''s' WHERE \"A\" IN ($1, $2)"), level) for level in LEVELS]
    assert [each.sql_text for each in found] == [
        "COPY  t FROM 'it''s' WHERE \"A\" IN ($1, $2)",
        'COPY  t FROM ? WHERE "A" IN ($1, $2)',
        'copy t from ? where "A" in (?)',
    ]
    assert [each.fingerprint for each in found] == [digest('copy t from ? where "A" in (?)')] * 3
    assert len({each.id for each in found}) == 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("texts", [Texts({}, "evicted"), Texts({(10, 5, -9, True): Text(missing="lost")}, "evicted")])
def test_a_missing_text_is_told_at_every_level_and_has_the_fingerprint_of_its_queryid(
    texts: Texts, level: Level
) -> None:
    reason = "lost" if texts.found else "evicted"
    found = record(texts, level, -9)
    assert found.sql_text == f"<text unavailable: {reason}> queryid -9"
    assert found.fingerprint == fingerprint_of_queryid(-9) != record(Texts({}, "evicted"), level, 9).fingerprint


def test_an_empty_text_has_the_fingerprint_of_its_queryid_too() -> None:
    assert record(known("")).fingerprint == fingerprint_of_queryid(7)


def test_versions_that_write_lists_differently_agree() -> None:
    texts = [
        "SELECT a FROM t WHERE b IN ($1 /*, ... */)",
        "SELECT a FROM t WHERE b IN ($1, $2)",
        "select a from t where b in ($1)",
    ]
    assert len({record(known(text, number), queryid=number).fingerprint for number, text in enumerate(texts)}) == 1


def test_a_text_that_was_cut_is_read_as_such() -> None:
    found = record(known("COPY t FROM 'hunter2", sha256="ab" * 32))
    assert (found.sql_text, found.text_sha256) == ("COPY t FROM ?", "")  # by the digest the rest could be guessed
    plain = record(known("SELECT a FROM b", sha256="ab" * 32))
    assert (plain.sql_text, plain.text_sha256) == ("SELECT a FROM b", "ab" * 32)
