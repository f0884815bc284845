"""What could go wrong: what heals is given up, what never heals is hurried, one bad record holds up its neighbours or
is blamed for a backend that refuses everything, a backend that just came back gets the whole backlog at once.
"""

from __future__ import annotations

import random

import pytest

from agent.delivery import Delivered, Hold, Refused, Retry, TooLarge, Verdict
from agent.errors import BackendAway, BackendBusy, BodyRefused, KeyRefused
from agent.lane import PROBES, TRIES, Act, Decision, Lane
from storage.envelope import Envelope


class Halfway(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def envelope(seq: int, records: int = 1) -> Envelope:
    return Envelope(seq, "queries", seq, f"key-{seq}", records, b"", b"", 0.0)


def lane() -> Lane:
    return Lane(hold_s=30, rng=Halfway())


def decide(
    one: Lane, seq: int, verdict: Verdict, *, records: int = 1, now_s: float = 0, ok: float | None = None
) -> Decision:
    return one.decide(envelope(seq, records), verdict, now_s=now_s, heartbeat_ok_at_s=ok)


REFUSED = Refused("status 400")


def test_retries_grow_to_five_minutes_with_full_jitter_and_start_anew_after_success() -> None:
    one, waits = lane(), []
    for _ in range(11):
        assert decide(one, 1, Retry(BackendAway())).act is Act.KEEP
        waits.append(one.ready_at_s)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150]
    assert decide(one, 1, Delivered(1)).act is Act.ACCEPT
    decide(one, 2, Retry(BackendAway()))
    assert one.ready_at_s == 0.5


def test_retry_after_is_a_floor_with_the_jitter_on_top() -> None:
    one = lane()
    decide(one, 1, Retry(BackendBusy(), floor_s=120))
    assert one.ready_at_s == 125


def test_hold_waits_for_the_heartbeats_pace_each_time() -> None:
    one = lane()
    for now_s in (0, 30, 60):
        decision = decide(one, 1, Hold(KeyRefused()), now_s=now_s)
        assert (decision.act, one.ready_at_s, type(decision.error)) == (Act.KEEP, now_s + 30, KeyRefused)


def test_what_is_refused_is_split_and_a_single_record_waits_for_another_to_be_accepted() -> None:
    one = lane()
    assert decide(one, 1, REFUSED, records=2).act is Act.SPLIT
    assert decide(one, 2, REFUSED).act is Act.KEEP
    assert one.passed_over == {2}
    decide(one, 3, Delivered(1))
    assert one.passed_over == set()
    assert decide(one, 2, REFUSED).act is Act.PARK


def test_what_is_too_large_is_split_and_a_single_record_is_parked() -> None:
    one = lane()
    assert [decide(one, 1, TooLarge(), records=2).act, decide(one, 2, TooLarge()).act] == [Act.SPLIT, Act.PARK]
    assert one.passed_over == set()


def test_the_half_of_a_refused_body_is_parked_when_it_is_refused_directly_after_an_acceptance() -> None:
    one = lane()
    half = Envelope(2, "queries", 1, "key-1.1", 1, b"", b"", 0.0)
    decide(one, 1, REFUSED, records=2)
    assert one.decide(half, REFUSED, now_s=0, heartbeat_ok_at_s=None).act is Act.KEEP
    decide(one, 3, Delivered(1))
    other = Envelope(4, "queries", 1, "key-1.0", 1, b"", b"", 0.0)
    assert one.decide(other, REFUSED, now_s=0, heartbeat_ok_at_s=None).act is Act.PARK
    assert decide(one, 5, REFUSED).act is Act.KEEP


def test_an_acceptance_of_no_record_at_all_proves_nothing() -> None:
    one = lane()
    decide(one, 2, REFUSED)
    decide(one, 3, Delivered(0, "partial"))
    assert one.passed_over == {2}


def test_a_suspect_that_is_accepted_at_the_second_chance_is_delivered() -> None:
    one = lane()
    decide(one, 2, REFUSED)
    decide(one, 3, Delivered(1))
    assert decide(one, 2, Delivered(1)).act is Act.ACCEPT


def test_when_only_suspects_are_left_it_holds_alarms_and_offers_them_again_later() -> None:
    one = lane()
    assert one.end_round(0) is None
    decide(one, 2, REFUSED)
    assert isinstance(one.end_round(5), BodyRefused)
    assert (one.passed_over, one.ready_at_s) == (set(), 35)
    assert decide(one, 2, REFUSED, now_s=35).act is Act.KEEP


def test_without_tries_bodies_are_passed_over_whole_so_many_at_each_hold() -> None:
    one = lane()
    acts = [decide(one, seq, REFUSED, records=2) for seq in range(TRIES + PROBES)]
    assert [decision.act for decision in acts] == [Act.SPLIT] * TRIES + [Act.KEEP] * PROBES
    assert [decision.error is not None for decision in acts] == [False] * (TRIES + PROBES - 1) + [True]
    assert (len(one.passed_over), one.ready_at_s) == (PROBES, 30)


def test_each_round_without_an_acceptance_allows_one_further_split() -> None:
    one = lane()
    for seq in range(TRIES + 1):
        decide(one, seq, REFUSED, records=2)
    one.end_round(0)
    assert [decide(one, seq, REFUSED, records=2).act for seq in (90, 91)] == [Act.SPLIT, Act.KEEP]


def test_an_acceptance_gives_tries_back_and_more_of_them_after_a_long_run_of_bad_records() -> None:
    one = lane()
    for seq in range(TRIES + 1):
        decide(one, seq, REFUSED, records=2)
    decide(one, 100, Delivered(2))
    assert one.passed_over == set()
    assert [decide(one, seq, REFUSED, records=2).act for seq in range(2 * TRIES + 1)][-2:] == [Act.SPLIT, Act.KEEP]


# -- 5xx: the body or the backend? ---------------------------------------------------------------------------------

FAILED = Retry(BackendBusy("status 500"), blames_body=True)


def five(ok: float | None, verdict: Verdict = FAILED, records: int = 2) -> list[Act]:
    one = lane()
    return [decide(one, 1, verdict, records=records, now_s=10.0 + number, ok=ok).act for number in range(5)]


def test_five_server_errors_while_heartbeats_are_taken_blame_the_body() -> None:
    assert five(ok=12) == [Act.KEEP] * 4 + [Act.SPLIT]


@pytest.mark.parametrize("ok", [None, 9.9])
def test_server_errors_without_a_heartbeat_since_the_first_blame_nobody(ok: float | None) -> None:
    assert five(ok) == [Act.KEEP] * 5


def test_what_is_no_server_error_blames_nobody_however_often() -> None:
    assert five(12, Retry(BackendAway())) == [Act.KEEP] * 5
    assert five(12, Retry(BackendBusy("status 429"), is_failure=False)) == [Act.KEEP] * 5


def test_the_count_belongs_to_one_body() -> None:
    one = lane()
    acts = [decide(one, seq, FAILED, records=2, now_s=10, ok=12).act for seq in (1, 1, 1, 1, 2, 1)]
    assert acts == [Act.KEEP] * 6


def test_a_single_record_that_fails_the_server_is_parked_after_another_was_accepted() -> None:
    one = lane()
    acts = [decide(one, 1, FAILED, now_s=10, ok=12) for _ in range(5)]
    assert (acts[-1].error, one.passed_over) == (None, {1})
    decide(one, 2, Delivered(1), now_s=11)
    acts = [decide(one, 1, FAILED, now_s=20, ok=21) for _ in range(5)]
    assert acts[-1] == Decision(Act.PARK, "refused by the backend (status 500, 5 times)")


# -- after an outage -----------------------------------------------------------------------------------------------


def pauses_after(verdict: Verdict, outage_s: float) -> list[float]:
    one, pauses = lane(), []
    for at_s in (0, outage_s):
        decide(one, 1, verdict, now_s=at_s)
    for seq in range(16):
        decide(one, seq, Delivered(1), now_s=1_000)
        pauses.append(one.ready_at_s - 1_000)
    return pauses


def test_after_a_minute_of_failures_the_pauses_shrink_from_two_seconds_to_none() -> None:
    found = pauses_after(Retry(BackendAway()), 60)
    assert found[1:14] == pytest.approx([2 * 0.7**number for number in range(13)])
    assert (found[0], found[14:]) == (2, [0, 0])


def test_the_first_pause_comes_from_what_the_backoff_had_left_of_its_ceiling() -> None:
    one = lane()
    for number in range(12):
        decide(one, 1, Retry(BackendAway()), now_s=150 * number)
    decide(one, 1, Delivered(1), now_s=2_000)
    assert one.ready_at_s == 2_000 + (300 - 150) / 2


def test_contact_is_no_failure() -> None:
    assert pauses_after(Retry(BackendBusy("status 429"), is_failure=False), 600) == [0] * 16
    assert pauses_after(Hold(KeyRefused()), 600) == [0] * 16


def test_control_a_short_outage_has_no_ramp() -> None:
    one = lane()
    decide(one, 1, Retry(BackendAway()), now_s=0)
    decide(one, 1, Delivered(1), now_s=59)
    assert one.ready_at_s == 59
