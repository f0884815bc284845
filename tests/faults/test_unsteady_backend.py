"""What could go wrong: the backend of the plays is never really unwell, writes down something else than it did, honours
keys when it should not, or brings other weather at the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from agent.errors import BackendAway
from agent.transport import Answer, Transport
from tests.faults.mishaps import TROUBLES, Mishap, Weather
from tests.faults.reckoning import Effect
from tests.faults.unsteady_backend import BULK, UnsteadyBackend

STORED, RECOGNISED, NONE = Effect.STORED, Effect.RECOGNISED, Effect.NONE
BODY = b'{"queries":[{"id":"1","sql_text":"SELECT 1"}]}'
SOON_S = 20.0


@contextmanager
def at(backend: UnsteadyBackend, life: int = 0) -> Iterator[Transport]:
    transport = Transport(backend.address(life), backend.api_key)
    yield transport
    transport.close()


def post(transport: Transport, key: str = "k", body: bytes = BODY) -> Answer | None:
    """None: no answer came."""
    try:
        return transport.post(BULK, body, {"Idempotency-Key": key})
    except BackendAway:
        return None


@pytest.mark.parametrize(
    ("mishap", "status", "effect", "told"),
    [
        (Mishap.FINE, 200, STORED, True),
        (Mishap.CUT_BEFORE_BODY, None, NONE, False),
        (Mishap.CUT_IN_BODY, None, NONE, False),
        (Mishap.REFUSED, 503, NONE, False),
        (Mishap.LOST, None, STORED, False),
        (Mishap.CUT_IN_HEAD, None, STORED, False),
        (Mishap.CUT_IN_ANSWER, None, STORED, False),
        (Mishap.HALF_ANSWER, 200, STORED, False),
        (Mishap.LOST_AT_GATEWAY, 503, STORED, False),
    ],
    ids=lambda each: each.name if isinstance(each, Mishap) else "",
)
def test_each_mishap_happens_and_is_written_down(
    mishap: Mishap, status: int | None, effect: Effect, told: bool
) -> None:
    with UnsteadyBackend(honours_keys=False, seed=1) as backend, at(backend, life=3) as transport:
        backend.order(mishap)
        answer = post(transport)
    [found] = backend.exchanges
    assert (answer.status if answer else None) == status
    assert (found.life, found.key, found.mishap, found.effect, found.told) == (3, "k", mishap, effect, told)


@pytest.mark.parametrize(("mishap", "effect"), [(Mishap.HANGS, NONE), (Mishap.ANSWER_HANGS, STORED)])
def test_what_hangs_is_answered_when_the_trouble_is_over(mishap: Mishap, effect: Effect) -> None:
    with (
        UnsteadyBackend(honours_keys=False, seed=1) as backend,
        at(backend) as transport,
        ThreadPoolExecutor() as threads,
    ):
        backend.order(mishap)
        asked = threads.submit(post, transport)
        assert backend.wait_for(
            lambda each: bool(each.exchanges and each.exchanges[0].records and each.exchanges[0].effect is effect),
            SOON_S,
        )
        assert not asked.done()
        backend.recover()
        answer = asked.result(SOON_S)
        assert answer is not None
        assert answer.status == 200
        assert backend.wait_for(lambda each: each.exchanges[0].told, SOON_S)


def test_what_hangs_is_carried_out_also_when_nobody_waits_any_more() -> None:
    with UnsteadyBackend(honours_keys=False, seed=1) as backend:
        backend.order(Mishap.HANGS)
        impatient = Transport(backend.url, backend.api_key, read_timeout_s=0.1, total_timeout_s=0.1)
        assert post(impatient) is None
        impatient.close()
        backend.recover()
        assert backend.wait_for(lambda each: each.exchanges[0].effect is STORED, SOON_S)
    assert [each.told for each in backend.exchanges] == [False]


def test_a_key_that_is_honoured_takes_effect_once_and_one_that_is_not_each_time() -> None:
    for honours_keys, effects in ((True, [STORED, RECOGNISED]), (False, [STORED, STORED])):
        with UnsteadyBackend(honours_keys=honours_keys, seed=1) as backend, at(backend) as transport:
            backend.order(Mishap.LOST)
            post(transport)
            backend.order(Mishap.FINE)
            answer = post(transport)
        assert answer is not None
        assert answer.body == b'{"status": "success", "count": 1, "skipped": 0, "errors": []}'
        assert [each.effect for each in backend.exchanges] == effects


def test_a_key_that_is_in_progress_is_answered_409_where_keys_are_honoured() -> None:
    with (
        UnsteadyBackend(honours_keys=True, seed=1) as backend,
        at(backend) as one,
        at(backend) as other,
        ThreadPoolExecutor() as threads,
    ):
        backend.order(Mishap.HANGS)
        first = threads.submit(post, one)
        assert backend.wait_for(lambda each: bool(each.exchanges and each.exchanges[0].records), SOON_S)
        refused = threads.submit(post, other).result(SOON_S)
        backend.recover()
        taken = first.result(SOON_S)
    assert refused is not None
    assert taken is not None
    assert (refused.status, taken.status) == (409, 200)
    assert [each.effect for each in backend.exchanges] == [STORED, NONE]


def test_a_key_with_another_body_is_a_mistake_that_is_told_at_the_end() -> None:
    backend = UnsteadyBackend(honours_keys=False, seed=1)
    backend.order(Mishap.FINE)
    with at(backend) as transport:
        post(transport)
        answer = post(transport, body=BODY.replace(b"SELECT 1", b"SELECT 2"))
    assert answer is not None
    assert answer.status == 422
    with pytest.raises(AssertionError, match="k came with another body"):
        backend.close()


def test_the_weather_is_the_same_at_the_same_seed_and_brings_everything() -> None:
    def phases(seed: int) -> list[tuple[Mishap, int]]:
        hundredths = iter(range(20_000))
        weather = Weather(seed, lambda: next(hundredths) / 100)
        found = [weather.now() for _ in range(9_000)]
        assert found[0] is not found[-1]
        return [(each.mishap, each.status) for each in found]

    assert phases(1) == phases(1) != phases(2)
    assert {mishap for mishap, _ in phases(1)} == {*TROUBLES, Mishap.FINE}
    assert {status for mishap, status in phases(1) if mishap is Mishap.REFUSED} == {500, 502, 503, 504}
