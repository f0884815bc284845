"""The canary's name, and which of them somebody still waits for.

What could go wrong: a customer's statement passes for a canary; one that was accepted is searched for in every body
that is sent from then on, or one that never comes is searched for for ever; an old acceptance counts for a new one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.canary import FOLLOWED, Sighting, awaited, name_in

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_the_name_is_found_in_any_form_of_the_statement() -> None:
    assert name_in("SELECT SLEEP(0.2) AS dbpower_canary_0a1b2c3d") == "dbpower_canary_0a1b2c3d"
    assert name_in("select sleep(?) as dbpower_canary_0a1b2c3d") == "dbpower_canary_0a1b2c3d"
    assert name_in("SELECT pg_sleep($1) AS dbpower_canary") == "dbpower_canary"
    assert name_in("SELECT 1") is None


def test_one_is_awaited_until_it_is_accepted() -> None:
    one = Sighting("a", NOON)
    assert awaited([one], {}, NOON + SECOND) == {"a"}
    assert awaited([one], {"a": NOON + SECOND}, NOON + SECOND) == set()
    assert awaited([one], {"b": NOON + SECOND}, NOON + SECOND) == {"a"}


def test_the_acceptance_of_an_earlier_one_does_not_count() -> None:
    assert awaited([Sighting("a", NOON)], {"a": NOON - SECOND}, NOON + SECOND) == {"a"}


def test_nobody_waits_for_ever() -> None:
    assert awaited([Sighting("a", NOON)], {}, NOON + FOLLOWED) == set()
