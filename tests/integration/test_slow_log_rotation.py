"""A slow log that is rotated to a backup, on a real MariaDB and a real MySQL.

What could go wrong: the rest of a table that was rotated away is lost although it can be read, or told as lost although
it was read, or read twice, or under other ids; another table under the name of the backup is taken for it; a second
rotation, a restart or a missing grant in the middle loses in silence.
"""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest

from agent.sources import Reading
from agent.sources.mysql_slow_log import SlowLogTable
from tests.integration.test_mysql_slow_log import Look, client, look, make, run
from tests.servers.slow_log_server import SlowLogServer

BACKUP = "slow_log_backup"
GRANTS = ["SELECT ON mysql.slow_log"]


@pytest.fixture
def server(clean_slow_log: SlowLogServer) -> Iterator[SlowLogServer]:
    """With a backup as a managed service has it, which the agent may read."""
    clean_slow_log.execute(
        f"DROP TABLE IF EXISTS mysql.{BACKUP}, mysql.slow_log_new, mysql.slow_log_spare",
        f"CREATE TABLE mysql.{BACKUP} LIKE mysql.slow_log",
    )
    yield clean_slow_log
    clean_slow_log.execute(f"DROP TABLE IF EXISTS mysql.{BACKUP}, mysql.slow_log_new, mysql.slow_log_spare")


@pytest.fixture
def source(server: SlowLogServer) -> Iterator[SlowLogTable]:
    with closing(make(server.monitor([*GRANTS, f"SELECT ON mysql.{BACKUP}"]))) as found:
        yield found


def rotate(server: SlowLogServer, to: str = BACKUP) -> None:
    """As a managed service does it: the earlier backup is gone."""
    server.execute(
        f"DROP TABLE IF EXISTS mysql.slow_log_new, mysql.{to}",
        "CREATE TABLE mysql.slow_log_new LIKE mysql.slow_log",
        f"RENAME TABLE mysql.slow_log TO mysql.{to}, mysql.slow_log_new TO mysql.slow_log",
    )


def test_the_rest_of_a_rotated_table_is_read_from_its_backup_under_the_same_ids(
    server: SlowLogServer, source: SlowLogTable
) -> None:
    with client(server) as cursor:
        run(cursor, 0, 5)
        first = look(source)
        rest = run(cursor, 5, 4)
        unrotated = look(source, first.bookmark)
        rotate(server)
        fresh = run(cursor, 9, 2)
        second = look(source, first.bookmark)
        third = look(source, second.bookmark)
    assert (second.texts, second.gaps) == (rest + fresh, [])
    assert [record.id for record in second.records[:4]] == [record.id for record in unrotated.records]
    assert {record.start_time_confidence for record in second.records} == {"exact"}
    assert (third.texts, third.gaps) == ([], [])


def test_a_backup_that_may_not_be_read_is_a_gap(server: SlowLogServer) -> None:
    with closing(make(server.monitor(GRANTS))) as source, client(server) as cursor:
        run(cursor, 0, 5)
        first = look(source)
        run(cursor, 5, 4)
        rotate(server)
        fresh = run(cursor, 9, 2)
        second = look(source, first.bookmark)
    assert (second.texts, second.told) == (fresh, [("rotated", 4)])


def test_names_of_backups_are_taken_from_the_configuration(server: SlowLogServer) -> None:
    config = server.monitor([*GRANTS, f"SELECT ON mysql.{BACKUP}"])
    server.execute("CREATE TABLE mysql.slow_log_spare LIKE mysql.slow_log")
    server.execute("GRANT SELECT ON mysql.slow_log_spare TO monitoring")
    with closing(make(config, slow_log_backups=["missing", "slow_log_spare"])) as source, client(server) as cursor:
        run(cursor, 0, 5)
        first = look(source)
        rest = run(cursor, 5, 4)
        rotate(server, to="slow_log_spare")
        second = look(source, first.bookmark)
    assert (second.texts, second.gaps) == (rest, [])


def test_two_rotations_between_two_looks_are_a_gap_and_the_other_backup_is_not_taken_for_it(
    server: SlowLogServer, source: SlowLogTable
) -> None:
    with client(server) as cursor:
        run(cursor, 0, 5)
        first = look(source)
        run(cursor, 5, 4)
        rotate(server)
        run(cursor, 9, 6)
        rotate(server)
        fresh = run(cursor, 15, 2)
        second = look(source, first.bookmark)
    assert (second.texts, second.told) == (fresh, [("rotated", 10)])


def some(source: SlowLogTable, bookmark: bytes | None, readings: int) -> Look:
    """A look that is cut off after so many readings, as by a crash of the agent."""
    found: list[Reading] = []
    with closing(source.read(bookmark)) as each:
        found += islice(each, readings)
    source.close()
    return Look(found, bookmark)


def test_a_restart_in_the_middle_of_a_backup_goes_on_there(server: SlowLogServer, source: SlowLogTable) -> None:
    texts = server.slow(2_000)
    part = some(source, None, 2)
    rotate(server)
    fresh = server.slow(3, first=2_000)
    found = list(part.texts)
    for _ in range(3):
        part = some(source, part.bookmark, 2)
        found += part.texts
        assert part.gaps == []
    rest = look(source, part.bookmark)
    assert 200 < len(found) < 2_000  # the crashes were in the middle
    assert (found + rest.texts, rest.gaps) == (texts + fresh, [])


def test_a_rotation_in_the_middle_of_a_backup_is_a_gap_with_what_was_not_read(
    server: SlowLogServer, source: SlowLogTable
) -> None:
    with client(server) as cursor:
        run(cursor, 0, 1)
        first = look(source)
        texts = run(cursor, 1, 300)
        rotate(server)
        lost = run(cursor, 301, 5)
        part = some(source, first.bookmark, 2)
        rotate(server)
        fresh = run(cursor, 306, 3)
        rest = look(source, part.bookmark)
    assert part.texts == texts[: len(part.texts)]
    assert 0 < len(part.texts) < 300
    assert (rest.texts, rest.told) == (fresh, [("rotated", 300 - len(part.texts) + len(lost))])


def test_rows_that_vanish_behind_a_backup_are_told(server: SlowLogServer, source: SlowLogTable) -> None:
    with client(server) as cursor:
        run(cursor, 0, 5)
        first = look(source)
        rest = run(cursor, 5, 4)
        rotate(server)
        run(cursor, 9, 6)
        server.execute("TRUNCATE TABLE mysql.slow_log")
        fresh = run(cursor, 15, 2)
        second = look(source, first.bookmark)
    assert (second.texts, second.told) == (rest + fresh, [("rotated", 6)])
