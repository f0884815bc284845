"""Every source keeps the promises of `Source`; a new one is found by itself and only needs a way to be made busy.

What could go wrong: a source is not found by its file's name; it reads again what stands behind a bookmark, or nothing;
its ids change; it moves a bookmark ahead of its records; it cannot be closed, closed twice or used after a close; after
an error it stays broken; a bookmark of nonsense is taken for a beginning; what is skipped is read all the same, or more
than that is skipped; more of a text leaves than the level allows, or its fingerprint depends on the level.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

from agent import sources
from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.dev.server_process import free_port
from agent.pulse import SLACK_S
from agent.record import Record
from agent.redact import Level
from agent.redact.normal import DIGEST_CHARACTERS, digest
from agent.source_errors import BookmarkUnreadable, DatabaseAway
from agent.sources import BOOKMARK_LOST, READING, Source, SourceSettings


@dataclass(frozen=True)
class Bench:
    """A server for a source: `busy(first, count)` makes so many slow queries with texts of their own."""

    db_config: dict[str, Any]
    busy: Callable[[int, int], None]


def _mysql_slow_log(request: pytest.FixtureRequest) -> Bench:
    server = request.getfixturevalue("clean_mariadb")
    return Bench(server.monitor(), lambda first, count: server.slow(count, first=first))


def _pg_stat_statements(request: pytest.FixtureRequest) -> Bench:
    server = request.getfixturevalue("postgres18")
    server.reset()

    def busy(first: int, count: int) -> None:
        for number in range(first, first + count):
            server.slow_workload(f"contract{number}", sleep_s=0.02)

    return Bench({**server.monitor(), "min_exec_time_ms": 15}, busy)


BENCHES = {"mysql_slow_log": _mysql_slow_log, "pg_stat_statements": _pg_stat_statements}


@pytest.fixture(params=sources.kinds())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(request: pytest.FixtureRequest, kind: str) -> Bench:
    return BENCHES[kind](request)


def make(kind: str, db_config: dict[str, Any]) -> Source:
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 10, **db_config})
    found: type[Source] = import_module(f"agent.sources.{kind}").SOURCE
    return found(SourceSettings("default", db, db.port or 0), Clock())


@pytest.fixture
def source(kind: str, bench: Bench) -> Iterator[Source]:
    with closing(make(kind, bench.db_config)) as made:
        yield made


def look(source: Source, bookmark: bytes | None) -> tuple[list[Record], bytes | None]:
    records: list[Record] = []
    for reading in source.read(bookmark):
        records += reading.records
        bookmark = reading.bookmark
    return records, bookmark


def texts(records: list[Record]) -> set[str]:
    return {record.sql_text for record in records}


def test_every_kind_has_a_bench() -> None:
    assert sources.kinds() == sorted(BENCHES)


def test_a_source_is_found_by_its_database_and_named_like_its_file(kind: str) -> None:
    found: type[Source] = import_module(f"agent.sources.{kind}").SOURCE
    assert found.kind == kind
    assert sources.find(found.db_type) is found


def test_there_is_no_source_for_an_unknown_database() -> None:
    with pytest.raises(LookupError):
        sources.find("abacus")


def test_making_a_source_connects_to_nothing(kind: str) -> None:
    make(kind, {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}).close()


def test_a_second_look_begins_behind_the_first(source: Source, bench: Bench) -> None:
    bench.busy(0, 5)
    first, bookmark = look(source, None)
    bench.busy(5, 3)
    second, bookmark = look(source, bookmark)
    third, _ = look(source, bookmark)
    assert (len(texts(first)) >= 5, len(second), third) == (True, 3, [])
    assert texts(first) & texts(second) == set()


def test_the_same_record_keeps_its_id_in_another_source(kind: str, source: Source, bench: Bench) -> None:
    bench.busy(0, 3)
    with closing(make(kind, bench.db_config)) as other:
        ids = {record.id for record in look(source, None)[0]}
        again = {record.id for record in look(other, None)[0]}
    assert (ids == again, len(ids) >= 3) == (True, True)


def test_every_record_is_whole(kind: str, source: Source, bench: Bench) -> None:
    bench.busy(0, 2)
    for record in look(source, None)[0]:
        assert record.source == kind
        assert record.sql_text
        assert record.query_time_s >= 0
        assert record.start_time.utcoffset() is not None
        assert record.collected_at.utcoffset() is not None


def test_a_closed_source_can_be_closed_again_and_used_again(source: Source, bench: Bench) -> None:
    source.close()
    source.check()
    source.close()
    source.close()
    bench.busy(0, 1)
    assert len(look(source, None)[0]) >= 1


def test_a_look_that_is_closed_early_is_repeated_from_the_same_place(source: Source, bench: Bench) -> None:
    bench.busy(0, 3)
    readings = source.read(None)
    first = next(readings)
    readings.close()
    again, _ = look(source, None)
    assert {record.id for record in first.records} <= {record.id for record in again}


def test_nonsense_is_no_bookmark(source: Source) -> None:
    for nonsense in (b"nonsense", b"{}", b"[]", b'{"v":99}', b'{"v":1,"foreign":true}'):
        with pytest.raises(BookmarkUnreadable):
            look(source, nonsense)


def test_a_database_that_is_away_is_told_each_time(kind: str, bench: Bench) -> None:
    with closing(make(kind, {**bench.db_config, "port": free_port()})) as lonely:
        for _ in range(2):
            with pytest.raises(DatabaseAway):
                look(lonely, None)
            with pytest.raises(DatabaseAway):
                lonely.check()


def test_it_says_before_each_wait_for_the_server_what_it_is_and_how_long_it_may_take(kind: str, bench: Bench) -> None:
    steps: list[tuple[str, float]] = []
    bench.busy(0, 3)
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 10, **bench.db_config})
    found: type[Source] = import_module(f"agent.sources.{kind}").SOURCE
    settings = SourceSettings(
        "default", db, db.port or 0, step=lambda doing, at_most_s: steps.append((doing, at_most_s))
    )
    with closing(found(settings, Clock())) as source:
        assert len(look(source, None)[0]) >= 3
    connecting, *rest = steps
    assert connecting[0] == "connecting to the database"
    assert connecting[1] >= 2
    assert set(rest) == {(READING, 10)}
    assert len(rest) >= 5  # each statement is one of them


def test_a_server_that_hangs_ends_within_what_was_said(kind: str, bench: Bench, request: pytest.FixtureRequest) -> None:
    clock, steps = Clock(), list[tuple[float, float]]()
    server = request.getfixturevalue("mariadb" if kind == "mysql_slow_log" else "postgres18")
    db = DbConfig(**{**bench.db_config, "connect_timeout": 1, "read_timeout": 1})
    found: type[Source] = import_module(f"agent.sources.{kind}").SOURCE
    settings = SourceSettings(
        "default", db, db.port or 0, lambda _, at_most_s: steps.append((clock.monotonic(), at_most_s))
    )
    with closing(found(settings, clock)) as source:
        source.check()
        server.freeze()
        try:
            with pytest.raises(DatabaseAway):
                source.check()
            ended_s = clock.monotonic()
        finally:
            server.thaw()
    began_s, at_most_s = steps[-1]
    assert ended_s - began_s < at_most_s + SLACK_S


def test_every_level_gives_the_same_fingerprints_and_only_the_texts_it_allows(kind: str, bench: Bench) -> None:
    bench.busy(0, 3)
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 10, **bench.db_config})
    found: type[Source] = import_module(f"agent.sources.{kind}").SOURCE
    told: dict[Level, list[Record]] = {"secrets": [], "literals": [], "fingerprint": []}
    for level in told:
        with closing(found(SourceSettings("default", db, db.port or 0, redact=level), Clock())) as source:
            told[level] = look(source, None)[0]
    fingerprints = [{record.fingerprint for record in records} for records in told.values()]
    assert fingerprints[0] == fingerprints[1] == fingerprints[2]
    assert all(len(fingerprint) == DIGEST_CHARACTERS for fingerprint in fingerprints[0])
    assert texts(told["secrets"]) != texts(told["fingerprint"])  # the control: there is something to redact
    assert all(digest(record.sql_text) == record.fingerprint for record in told["fingerprint"])
    assert not any(re.search(r"[0-9]\.[0-9]|tag-|\b1\b(?<!\$1)", text) for text in texts(told["literals"]))


def test_a_skip_reads_nothing_tells_a_gap_and_the_next_look_begins_behind_it(source: Source, bench: Bench) -> None:
    bench.busy(0, 4)
    reading = source.skip()
    assert reading.records == ()
    assert [(gap.source, gap.reason, gap.estimate) for gap in reading.gaps] == [("default", BOOKMARK_LOST, None)]
    bench.busy(4, 3)
    records, bookmark = look(source, reading.bookmark)
    assert len(records) == 3
    assert look(source, bookmark)[0] == []


def test_a_skip_of_a_database_where_nothing_happened_is_a_bookmark_too(source: Source, bench: Bench) -> None:
    bookmark = source.skip().bookmark
    assert bookmark is not None
    bench.busy(0, 2)
    assert len(look(source, bookmark)[0]) == 2


def test_a_skip_after_which_nothing_was_saved_can_be_repeated(kind: str, source: Source, bench: Bench) -> None:
    bench.busy(0, 3)
    source.skip()
    bench.busy(3, 2)
    with closing(make(kind, bench.db_config)) as other:
        assert look(other, other.skip().bookmark)[0] == []


def test_a_skip_while_the_database_is_away_is_told_each_time(kind: str, bench: Bench) -> None:
    with closing(make(kind, {**bench.db_config, "port": free_port()})) as lonely:
        for _ in range(2):
            with pytest.raises(DatabaseAway):
                lonely.skip()
