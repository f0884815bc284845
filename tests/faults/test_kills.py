"""What could go wrong: a SIGKILL at some moment loses a slow statement or brings it twice, while the backend fails too.

Each play is told by its seed; `tests.faults.kills.torture` plays the same with hundreds of kills. The controls are the
same plays with an agent that has a tear (torn_agent): there something must be lost or doubled.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import torn_agent
from tests.faults.kills import REFUSED, Moment, Outcome, Play, moments
from tests.faults.mishaps import Mishap
from tests.faults.reckoning import Effect, may_have_come_twice
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres
from tests.servers.traffic import Customer, MariaDBCustomer, PostgresCustomer

IN_THE_TEAR = Moment("in the tear", 0.1, hears="tear.opened")


@pytest.fixture
def mariadb_customer(clean_mariadb: MariaDBServer) -> Customer:
    return MariaDBCustomer(clean_mariadb)


@pytest.fixture
def postgres_customer(postgres18: WatchedPostgres) -> Customer:
    postgres18.thaw()
    if postgres18.pid is None:
        postgres18.start()
    postgres18.reset()
    return PostgresCustomer(postgres18)


def demand_faults(outcome: Outcome) -> None:
    """That the play was one: answers were lost, requests outlived their process, sent again was what had arrived."""
    assert outcome.count.executions > 100, outcome
    assert outcome.answers_lost > 0, outcome
    assert outcome.mishaps[Mishap.HANGS] > 0, outcome
    assert outcome.mishaps[Mishap.ANSWER_HANGS] > 0, outcome
    assert may_have_come_twice(outcome.exchanges).total() > 0, outcome


def demand_nothing_lost_or_doubled(outcome: Outcome) -> None:
    demand_faults(outcome)
    assert (outcome.count.lost, outcome.count.unexcused, outcome.stats["gaps"]) == (0, 0, 0), outcome
    # Each record once, however often it came: the agent counts what may be there twice, not how often.
    assert outcome.stats["possible_duplicates"] >= len(may_have_come_twice(outcome.exchanges)), outcome
    effects = {each.effect for each in outcome.exchanges}
    if outcome.honours_keys:
        assert Effect.RECOGNISED in effects, outcome
        assert outcome.count.doubled == 0, outcome
    else:  # the control of the keys: without them the lost answers do double
        assert Effect.RECOGNISED not in effects, outcome
        assert outcome.count.doubled == may_have_come_twice(outcome.exchanges).total() > 0, outcome


@pytest.mark.parametrize(("honours_keys", "seed"), [(True, 20), (False, 17)])
def test_four_kills_lose_and_double_no_row_of_the_slow_log(
    mariadb_customer: Customer, tmp_path: Path, honours_keys: bool, seed: int
) -> None:
    play = Play(mariadb_customer, honours_keys, seed, tmp_path)
    demand_nothing_lost_or_doubled(play.run(moments(4, seed)))


@pytest.mark.parametrize(("honours_keys", "seed", "kills"), [(True, 19, 4), (False, 4, 3)])
def test_kills_lose_and_double_no_call_of_postgres(
    postgres_customer: Customer, tmp_path: Path, honours_keys: bool, seed: int, kills: int
) -> None:
    play = Play(postgres_customer, honours_keys, seed, tmp_path)
    demand_nothing_lost_or_doubled(play.run(moments(kills, seed)))


@pytest.mark.parametrize(
    ("tear", "kills", "loses"),
    [
        ("bookmark first", (IN_THE_TEAR, IN_THE_TEAR), True),
        ("bookmark last", (IN_THE_TEAR, IN_THE_TEAR), False),
        ("deletes before the answer", (REFUSED, REFUSED), True),
    ],
)
def test_control_an_agent_with_a_tear_loses_or_doubles_in_the_same_play(
    mariadb_customer: Customer, tmp_path: Path, tear: str, kills: tuple[Moment, ...], loses: bool
) -> None:
    play = Play(mariadb_customer, True, 5, tmp_path)
    play.program, play.variables = torn_agent.__name__, {torn_agent.VARIABLE: tear}
    outcome = play.run(kills)
    assert (outcome.count.lost > 0, outcome.count.unexcused > 0) == (loses, not loses), outcome
