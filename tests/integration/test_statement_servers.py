"""Real primaries and physical replicas, 15 and 18, read through one bookmark as after a failover.

What could go wrong: the counters of two servers with the same system_identifier are subtracted from each other, doubled
or negative, there or back; a replica cannot be read without writing; a promotion or a restart is taken for another
server; the loss that a switch may be is not told.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from agent.dev.postgres import PostgresServer
from tests.integration.statement_looks import Look, calls, look, make
from tests.servers.postgres import WatchedPostgres
from tests.servers.postgres_replica import PRIMARY, Replica


@pytest.fixture(scope="module", params=["postgres15", "postgres18"])
def primary(request: pytest.FixtureRequest) -> Iterator[WatchedPostgres]:
    shared = request.getfixturevalue(request.param)  # for its programs only
    with WatchedPostgres(shared.bin_dir, settings=PRIMARY) as server:
        yield server


@pytest.fixture
def replica(primary: WatchedPostgres) -> Iterator[Replica]:
    primary.reset()
    primary.monitor()
    with Replica(primary) as server:
        assert server.execute("SELECT pg_is_in_recovery()") == [(True,)]
        assert system(server) == system(primary)
        yield server


def system(server: PostgresServer) -> Any:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT system_identifier FROM pg_control_system()")
        return cursor.fetchone()


class Agent:
    """What an agent does that is led to one server or another; `looks` are all that it saved."""

    def __init__(self, db_config: dict[str, Any]) -> None:
        self.db_config = db_config
        self.looks: list[Look] = []

    def look_at(self, server: WatchedPostgres) -> Look:
        with closing(make({**self.db_config, "port": server.port})) as source:
            self.looks.append(look(source, self.looks[-1].bookmark if self.looks else None))
        return self.looks[-1]


def reason(seen: Look, name: str) -> tuple[str, int, list[str]]:
    _, window = seen.one(name)
    return window.reason, window.calls, [gap.reason for gap in seen.gaps]


def test_there_and_back_neither_doubles_nor_mixes(primary: WatchedPostgres, replica: Replica) -> None:
    agent = Agent(primary.monitor())
    primary.slow_workload("elm", calls=7)
    replica.slow_workload("elm", calls=2)
    first = agent.look_at(primary)
    primary.slow_workload("elm", calls=4)
    there = agent.look_at(replica)
    replica.slow_workload("elm", calls=1)
    back = agent.look_at(primary)
    again = agent.look_at(replica)
    assert [reason(seen, "elm") for seen in (first, there, back, again)] == [
        ("first_look", 7, []),
        ("other_server", 2, ["other_server"]),
        ("normal", 4, ["other_server"]),
        ("normal", 1, ["other_server"]),
    ]
    assert calls(agent.looks, "elm") == primary.counters("elm")[0].calls + replica.counters("elm")[0].calls == 14
    assert back.one("elm")[1].start == first.one("elm")[1].end
    assert agent.look_at(replica).gaps == []


def test_a_replica_is_read_without_writing_and_goes_on_when_it_is_promoted(
    primary: WatchedPostgres, replica: Replica
) -> None:
    agent = Agent(primary.monitor())
    agent.look_at(primary)
    replica.slow_workload("oak", calls=3)
    before = agent.look_at(replica)
    replica.promote()
    replica.slow_workload("oak", calls=2)
    behind = agent.look_at(replica)
    assert (reason(before, "oak"), reason(behind, "oak")) == (
        ("other_server", 3, ["other_server"]),
        ("normal", 2, []),
    )


def test_a_replica_that_takes_over_the_address_of_its_primary(primary: WatchedPostgres, replica: Replica) -> None:
    agent = Agent(primary.monitor())
    address, elsewhere = primary.port, replica.port
    replica.slow_workload("ash", calls=2)
    primary.slow_workload("ash", calls=5)
    first = agent.look_at(primary)
    primary.stop()
    replica.stop()
    replica.move_to(address)
    replica.start()
    there = agent.look_at(replica)
    replica.stop()
    replica.move_to(elsewhere)
    primary.start()
    primary.slow_workload("ash", calls=1)
    back = agent.look_at(primary)
    assert [reason(seen, "ash") for seen in (first, there, back)] == [
        ("first_look", 5, []),
        ("other_server", 2, ["other_server"]),
        ("normal", 1, ["other_server"]),
    ]


def test_a_replica_that_is_new_at_the_address_passes_for_a_crash_and_doubles_nothing(
    primary: WatchedPostgres,
) -> None:
    primary.reset()
    agent = Agent(primary.monitor())
    primary.slow_workload("fir", calls=5)
    agent.look_at(primary)
    with Replica(primary) as replica:
        address = primary.port
        primary.stop()
        replica.kill()  # what it has counted is gone
        replica.move_to(address)
        replica.start()
        replica.slow_workload("fir", calls=9)
        there = agent.look_at(replica)
    primary.start()
    primary.slow_workload("fir", calls=1)
    back = agent.look_at(primary)
    assert [reason(seen, "fir") for seen in (there, back)] == [
        ("crash_reset", 9, ["crash_reset"]),
        ("normal", 1, ["other_server"]),
    ]


def test_another_cluster_at_the_address_is_another_server(
    postgres15: WatchedPostgres, postgres18: WatchedPostgres
) -> None:
    for server in (postgres15, postgres18):
        server.reset()
    agent = Agent(postgres15.monitor())
    postgres15.slow_workload("yew", calls=3)
    first = agent.look_at(postgres15)
    agent.db_config |= {"password": postgres18.monitor()["password"]}
    postgres18.slow_workload("yew", calls=8)
    there = agent.look_at(postgres18)
    assert (reason(first, "yew"), reason(there, "yew")) == (
        ("first_look", 3, []),
        ("other_server", 8, ["other_server"]),
    )


def test_without_the_system_identifier_the_rest_has_to_do(primary: WatchedPostgres, replica: Replica) -> None:
    agent = Agent(primary.monitor())
    primary.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
    try:
        primary.slow_workload("bay", calls=4)
        first = agent.look_at(primary)
        replica.slow_workload("bay", calls=2)
        there = agent.look_at(replica)
        primary.slow_workload("bay", calls=3)
        back = agent.look_at(primary)
    finally:
        primary.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO public")
    assert [reason(seen, "bay") for seen in (first, there, back)] == [
        ("first_look", 4, []),
        ("other_server", 2, ["other_server"]),
        ("normal", 3, ["other_server"]),
    ]
