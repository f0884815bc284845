"""A raw row of the slow log becomes a record.

What could go wrong: times in the wrong zone or off by the length of the statement; a TIME of many hours misread; a cut
inside a character; NULLs and nonsense that stop the look; ids that repeat; a password that is kept; a text that leaves
at another level than was asked for, or without its fingerprint.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.redact import Level, Redactor
from agent.redact.normal import digest
from agent.sources._slow_log_rows import OURS, Mapper, cut_at_character, seconds
from agent.sources._slow_log_times import Window, Zone

LEVELS: tuple[Level, ...] = ("secrets", "literals", "fingerprint")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
WINDOW = Window(NOW.timestamp() - 86_400, NOW.timestamp())
MARIADB = Mapper(
    watch="default",
    generation="gen",
    collected_at=NOW,
    window=WINDOW,
    zone=Zone(3_600, stamps_start=True),
    max_text_bytes=1_024,
    redactor=Redactor("secrets", "mysql"),
)
ROW = (
    b"2026-01-01 12:00:00.500000",
    b"u@h",
    b"00:01:15.250000",
    b"00:00:00.5",
    b"3",
    b"4",
    b"db",
    b"7",
    b"SELECT 1",
    None,
)


def test_every_column_finds_its_field() -> None:
    [record] = MARIADB.records([ROW], 5)
    assert (record.sql_text, record.user_host, record.db, record.source) == ("SELECT 1", "u@h", "db", "mysql_slow_log")
    assert (record.query_time_s, record.lock_time_s, record.rows_sent, record.rows_examined) == (75.25, 0.5, 3, 4)
    assert (record.collected_at, record.text_sha256, record.window) == (NOW, None, None)


def test_mariadb_stamps_the_start_and_mysql_the_end() -> None:
    [start] = MARIADB.records([ROW], 0)
    [end] = replace(MARIADB, zone=Zone(3_600, stamps_start=False)).records([ROW], 0)
    assert start.start_time == datetime(2026, 1, 1, 11, 0, 0, 500_000, tzinfo=UTC)
    assert end.start_time == datetime(2026, 1, 1, 10, 58, 45, 250_000, tzinfo=UTC)


@pytest.mark.parametrize("stamp", [b"0000-00-00 00:00:00", b"", None])
def test_a_time_that_is_none_ended_when_it_was_seen(stamp: bytes | None) -> None:
    assert MARIADB.records([(stamp, *ROW[1:])], 0)[0].start_time == NOW - timedelta(seconds=75.25)


def test_a_time_that_was_repaired_in_another_way_does_not_change_the_id() -> None:
    narrow, other = Window(NOW.timestamp() - 60, NOW.timestamp()), Zone(-7_200, stamps_start=False)
    [usual], [repaired] = MARIADB.records([ROW], 0), replace(MARIADB, window=narrow, zone=other).records([ROW], 0)
    assert (usual.id == repaired.id, usual.start_time == repaired.start_time) == (True, False)


def test_our_own_reads_are_no_records_and_do_not_shift_the_others() -> None:
    ours = (*ROW[:8], OURS + b" start_time FROM mysql.slow_log", None)
    [found] = MARIADB.records([ours, ROW], 5)
    assert found.id == MARIADB.records([ROW], 6)[0].id


def test_what_started_before_the_cutoff_is_left_out_up_to_a_position() -> None:
    late = replace(MARIADB, cutoff=NOW.timestamp(), cutoff_until=2)
    assert [record.id for record in late.records([ROW, ROW, ROW], 0)] == [MARIADB.records([ROW], 2)[0].id]


def test_ids_differ_by_position_generation_watch_and_row() -> None:
    twins = MARIADB.records([ROW, ROW], 0)
    moved = MARIADB.records([ROW], 1)
    others = [
        replace(MARIADB, generation="other").records([ROW], 0)[0].id,
        replace(MARIADB, watch="other").records([ROW], 0)[0].id,
        MARIADB.records([(*ROW[:8], b"SELECT 2", None)], 0)[0].id,
    ]
    assert twins[1].id == moved[0].id
    assert len({twins[0].id, twins[1].id, *others}) == 5


def test_missing_values_read_as_nothing() -> None:
    [record] = MARIADB.records([(ROW[0], None, None, None, None, None, None, None, None, None)], 0)
    assert (record.query_time_s, record.rows_sent, record.db, record.user_host, record.sql_text) == (0.0, 0, "", "", "")


def test_invalid_bytes_are_replaced_and_passwords_masked() -> None:
    broken, secret = (*ROW[:8], b"SELECT '\xff'", None), (*ROW[:8], b"SET PASSWORD = 'hunter2'", None)
    texts = [record.sql_text for record in MARIADB.records([broken, secret], 0)]
    assert texts == ["SELECT '\ufffd'", "SET PASSWORD = '***'"]


def test_a_cut_text_carries_the_digest_of_the_whole() -> None:
    text = b"a" * 1_023 + "é".encode() + b"more"
    [record] = MARIADB.records([(*ROW[:8], text, b"9999 " + b"ab" * 32)], 0)
    assert (record.sql_text, record.text_sha256) == ("a" * 1_023, "ab" * 32)


def test_a_cut_text_that_was_redacted_carries_no_digest_by_which_the_rest_could_be_guessed() -> None:
    text = b"SET PASSWORD = 'hunter2' /* " + b"a" * 1_000
    [record] = MARIADB.records([(*ROW[:8], text, b"9999 " + b"ab" * 32)], 0)
    assert (record.sql_text[:24], record.text_sha256) == ("SET PASSWORD = '***' /* ", "")


def test_the_text_leaves_as_the_level_says_and_its_fingerprint_at_every_level() -> None:
    row = (*ROW[:8], b"SELECT  * FROM t WHERE id IN (1, 2)", None)
    found = [replace(MARIADB, redactor=Redactor(level, "mysql")).records([row], 0)[0] for level in LEVELS]
    assert [record.sql_text for record in found] == [
        "SELECT  * FROM t WHERE id IN (1, 2)",
        "SELECT  * FROM t WHERE id IN (?, ?)",
        "select * from t where id in (?)",
    ]
    assert [record.fingerprint for record in found] == [digest("select * from t where id in (?)")] * 3
    assert len({record.id for record in found}) == 1


def test_a_cut_text_has_the_fingerprint_of_what_is_there() -> None:
    rows = [(*ROW[:8], b"INSERT INTO t VALUES (1, 'a'), (2, '" + b"b" * size, b"9999 ab") for size in (2_000, 3_000)]
    mapper = replace(MARIADB, redactor=Redactor("literals", "mysql"))
    found = mapper.records(rows, 0)
    assert {record.sql_text for record in found} == {"INSERT INTO t VALUES (?, ?), (?, ?"}
    assert {record.fingerprint for record in found} == {digest("insert into t values (?, ?)")}


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [("abc", 3, "abc"), ("abc", 2, "ab"), ("aé", 2, "a"), ("aé", 3, "aé"), ("a🙂b", 4, "a"), ("a🙂b", 5, "a🙂")],
)
def test_a_cut_never_splits_a_character(text: str, limit: int, expected: str) -> None:
    assert cut_at_character(text.encode(), limit) == expected.encode()


@pytest.mark.parametrize(
    ("time", "expected"),
    [(b"00:00:00", 0.0), (b"00:00:01.5", 1.5), (b"838:59:59.999999", 3_020_399.999999), (None, 0.0)],
)
def test_a_time_of_the_server_in_seconds(time: bytes | None, expected: float) -> None:
    assert seconds(time) == pytest.approx(expected)
