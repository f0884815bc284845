"""What could go wrong: something that is no acceptance is taken for one (a captive portal, a cut answer, a true for a
number), something that heals is given up, something that never heals is hurried, one bad record holds up its
neighbours or is blamed for a backend that refuses everything, a Retry-After is ignored or stops delivery for ever.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime

import orjson
import pytest

from agent.delivery import (
    PROBES,
    RETRY_AFTER_CAP_S,
    TRIES,
    Act,
    Decision,
    Delivered,
    Hold,
    Lane,
    Refused,
    Retry,
    TooLarge,
    Verdict,
    heartbeat_error,
    judge_bulk,
    judge_execute,
    retry_after_s,
)
from agent.errors import BackendAway, BackendBusy, BodyRefused, KeyRefused, NotTheBackend
from agent.transport import Answer
from storage.envelope import Envelope

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
PORTAL = b"<html><body>Welcome to the hotel</body></html>"


def answer(status: int, content: object = None, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def success(**changes: object) -> dict[str, object]:
    return {"status": "success", "count": 3, "skipped": 0, "errors": [], **changes}


# -- answers to a bulk call ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202])
def test_the_answer_of_the_contract_is_an_acceptance(status: int) -> None:
    assert judge_bulk(answer(status, success()), 3, NOW) == Delivered(3)


def test_skipped_records_are_counted_and_the_first_reason_is_kept() -> None:
    content = success(count=1, skipped=2, errors=[{"query": "SELECT 1", "error": "bad float " + "x" * 500}])
    assert judge_bulk(answer(200, content), 3, NOW) == Delivered(1, f"partial: {('bad float ' + 'x' * 500)[:200]}")


@pytest.mark.parametrize("errors", [None, [], "x", [5], [{"error": None}]])
def test_skipped_records_without_a_reason_are_counted_too(errors: object) -> None:
    verdict = judge_bulk(answer(200, success(count=0, skipped=3, errors=errors)), 3, NOW)
    assert verdict == Delivered(0, "partial: the backend gave no reason")


@pytest.mark.parametrize(
    "content",
    [
        PORTAL,
        b"",
        b"null",
        b"[]",
        b"3",
        b'"success"',
        orjson.dumps(success())[:-1],
        orjson.dumps(success()) + b"x",
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"status": "success"},
        success(status="ok"),
        success(status=None),
        success(count=True, skipped=2),
        success(count=3.0),
        success(count="3"),
        success(count=None),
        success(skipped=False),
        success(skipped=0.0),
        success(skipped=None),
        success(count=2),
        success(count=4),
        success(count=4, skipped=-1),
        success(count=-1, skipped=4),
        {"status": "ok", "message": "noted"},
    ],
    ids=lambda content: repr(content)[:40],
)
@pytest.mark.parametrize("status", [200, 204])
def test_any_other_2xx_is_held_and_never_taken_for_an_acceptance(status: int, content: object) -> None:
    verdict = judge_bulk(answer(status, content), 3, NOW)
    assert isinstance(verdict, Hold)
    assert isinstance(verdict.error, NotTheBackend)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (408, Retry(BackendBusy("status 408"), is_failure=False)),
        (409, Retry(BackendBusy("status 409"), is_failure=False)),
        (425, Retry(BackendBusy("status 425"), is_failure=False)),
        (429, Retry(BackendBusy("status 429"), is_failure=False)),
        (500, Retry(BackendBusy("status 500"), blames_body=True)),
        (502, Retry(BackendBusy("status 502"), blames_body=True)),
        (503, Retry(BackendBusy("status 503"), blames_body=True)),
        (599, Retry(BackendBusy("status 599"), blames_body=True)),
        (401, Hold(KeyRefused("status 401"))),
        (403, Hold(KeyRefused("status 403"))),
        (413, TooLarge()),
        (400, Refused("status 400")),
        (422, Refused("status 422")),
        (301, Hold(NotTheBackend("status 301"))),
        (302, Hold(NotTheBackend("status 302"))),
        (307, Hold(NotTheBackend("status 307"))),
        (404, Hold(NotTheBackend("status 404"))),
        (405, Hold(NotTheBackend("status 405"))),
        (410, Hold(NotTheBackend("status 410"))),
        (418, Hold(NotTheBackend("status 418"))),
    ],
)
@pytest.mark.parametrize("content", [b"", PORTAL, {"detail": "x"}, {"detail": ["unhashable"]}, {"detail": {}}, [1]])
def test_each_row_of_the_table(status: int, expected: Verdict, content: object) -> None:
    for verdict in (judge_bulk(answer(status, content), 3, NOW), judge_execute(answer(status, content), NOW)):
        if status == 404 and isinstance(verdict, Delivered):
            continue  # an execute call's own row
        assert comparable(verdict) == comparable(expected)


def comparable(verdict: Verdict) -> object:
    if isinstance(verdict, Retry):
        return (Retry, str(verdict.error), verdict.floor_s, verdict.blames_body, verdict.is_failure)
    if isinstance(verdict, Hold):
        return (Hold, str(verdict.error))
    return verdict


def test_only_the_backends_own_complaint_about_the_key_is_repeated() -> None:
    known = judge_bulk(answer(401, {"detail": "Invalid collector API key"}), 3, NOW)
    foreign = judge_bulk(answer(403, {"detail": "collector_7_secret is not welcome"}), 3, NOW)
    assert [verdict.error.detail for verdict in (known, foreign) if isinstance(verdict, Hold)] == [
        "status 401, Invalid collector API key",
        "status 403",
    ]


# -- answers to a result and to a heartbeat ------------------------------------------------------------------------


def test_a_result_is_accepted_by_ok_and_by_404() -> None:
    assert judge_execute(answer(200, {"status": "ok", "message": "m"}), NOW) == Delivered(1)
    assert judge_execute(answer(404, {"detail": "unknown"}), NOW) == Delivered(1, "the command has expired")


@pytest.mark.parametrize("content", [PORTAL, b"", b"[]", b"null", {"status": "success"}, {"status": True}, {}])
def test_a_result_is_accepted_by_nothing_else(content: object) -> None:
    assert isinstance(judge_execute(answer(200, content), NOW), Hold)


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (200, {"status": "ok", "commands": []}, None),
        (200, {"status": "ok"}, None),
        (200, {"status": "no"}, NotTheBackend),
        (200, PORTAL, NotTheBackend),
        (200, b"[]", NotTheBackend),
        (204, b"", NotTheBackend),
        (302, b"", NotTheBackend),
        (404, {"status": "ok"}, NotTheBackend),
        (401, {"detail": ["x"]}, KeyRefused),
        (403, {"detail": "Collector ID mismatch"}, KeyRefused),
        (429, b"", BackendBusy),
        (500, b"", BackendBusy),
    ],
)
def test_what_an_answer_to_a_heartbeat_says(status: int, content: object, expected: type | None) -> None:
    wrong = heartbeat_error(answer(status, content))
    assert (type(wrong) if wrong else None) == expected


# -- Retry-After ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("-7", 0),
        ("7.5", 0),
        ("1_0", 0),
        ("soon", 0),
        ("Wed, 01 May 2024 12:02:00 GMT", 120),
        ("Wed, 01 May 2024 14:02:00 +0200", 120),
        ("Wed, 01 May 2024 12:02:00 -0000", 120),
        ("Wed, 01 May 2024 11:00:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 +2300", 0),
        ("Wed, 01 May 99999 12:02:00 GMT", 0),
        ("9" * 400, RETRY_AFTER_CAP_S),
        ("Wed, 01 May 2124 12:00:00 GMT", RETRY_AFTER_CAP_S),
    ],
)
def test_retry_after_in_all_its_forms(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, NOW) == seconds


def test_a_date_is_measured_by_the_backends_own_clock_when_it_tells_it() -> None:
    headers = {"retry-after": "Fri, 02 Jan 2026 00:01:00 GMT", "date": "Fri, 02 Jan 2026 00:00:00 GMT"}
    verdict = judge_bulk(Answer(429, headers, b""), 3, NOW)
    assert isinstance(verdict, Retry)
    assert verdict.floor_s == 60


# -- the lane: what follows ----------------------------------------------------------------------------------------


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
    decide(one, 1, Retry(BackendBusy(), floor_s=100))
    assert one.ready_at_s == 100.5


def test_hold_waits_for_the_heartbeats_pace_each_time() -> None:
    one = lane()
    for now_s in (0, 30, 60):
        decision = decide(one, 1, Hold(KeyRefused()), now_s=now_s)
        assert (decision.act, one.ready_at_s, type(decision.error)) == (Act.KEEP, now_s + 30, KeyRefused)


def test_what_is_refused_is_split_and_a_single_record_waits_for_another_to_be_accepted() -> None:
    one = lane()
    assert decide(one, 1, REFUSED, records=2).act is Act.SPLIT
    assert decide(one, 2, REFUSED).act is Act.KEEP
    assert one.skipped == {2}
    decide(one, 3, Delivered(1))
    assert one.skipped == set()
    assert decide(one, 2, REFUSED).act is Act.PARK


def test_what_is_too_large_is_split_and_a_single_record_is_parked() -> None:
    one = lane()
    assert [decide(one, 1, TooLarge(), records=2).act, decide(one, 2, TooLarge()).act] == [Act.SPLIT, Act.PARK]
    assert one.skipped == set()


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
    assert one.skipped == {2}


def test_a_suspect_that_is_accepted_at_the_second_chance_is_delivered() -> None:
    one = lane()
    decide(one, 2, REFUSED)
    decide(one, 3, Delivered(1))
    assert decide(one, 2, Delivered(1)).act is Act.ACCEPT


def test_when_only_suspects_are_left_it_holds_alarms_and_offers_them_again_later() -> None:
    one = lane()
    assert one.nothing_but_skipped(0) is None
    decide(one, 2, REFUSED)
    assert isinstance(one.nothing_but_skipped(5), BodyRefused)
    assert (one.skipped, one.ready_at_s) == (set(), 35)
    assert decide(one, 2, REFUSED, now_s=35).act is Act.KEEP


def test_without_tries_bodies_are_passed_over_whole_so_many_at_each_hold() -> None:
    one = lane()
    acts = [decide(one, seq, REFUSED, records=2) for seq in range(TRIES + PROBES)]
    assert [decision.act for decision in acts] == [Act.SPLIT] * TRIES + [Act.KEEP] * PROBES
    assert [decision.error is not None for decision in acts] == [False] * (TRIES + PROBES - 1) + [True]
    assert (len(one.skipped), one.ready_at_s) == (PROBES, 30)


def test_each_round_without_an_acceptance_allows_one_further_split() -> None:
    one = lane()
    for seq in range(TRIES + 1):
        decide(one, seq, REFUSED, records=2)
    one.nothing_but_skipped(0)
    assert [decide(one, seq, REFUSED, records=2).act for seq in (90, 91)] == [Act.SPLIT, Act.KEEP]


def test_an_acceptance_gives_tries_back_and_more_of_them_after_a_long_run_of_bad_records() -> None:
    one = lane()
    for seq in range(TRIES + 1):
        decide(one, seq, REFUSED, records=2)
    decide(one, 100, Delivered(2))
    assert one.skipped == set()
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
    assert (acts[-1].error, one.skipped) == (None, {1})
    decide(one, 2, Delivered(1), now_s=11)
    acts = [decide(one, 1, FAILED, now_s=20, ok=21) for _ in range(5)]
    assert acts[-1] == Decision(Act.PARK, "refused by the backend (status 500, 5 times)")


# -- after an outage -----------------------------------------------------------------------------------------------


def pauses_after(verdict: Verdict, outage_s: float) -> list[float]:
    one, pauses = lane(), []
    for at_s in (0, outage_s):
        decide(one, 1, verdict, now_s=at_s)
    for seq in range(9):
        decide(one, seq, Delivered(1), now_s=1_000)
        pauses.append(one.ready_at_s - 1_000)
    return pauses


def test_after_a_minute_of_failures_the_pauses_shrink_from_two_seconds_to_none() -> None:
    expected = [2, 1, 0.5, 0.25, 0.125, 0.0625, 0, 0, 0]
    assert pauses_after(Retry(BackendAway()), 60) == pytest.approx(expected)


def test_contact_is_no_failure() -> None:
    assert pauses_after(Retry(BackendBusy("status 429"), is_failure=False), 600) == [0] * 9
    assert pauses_after(Hold(KeyRefused()), 600) == [0] * 9


def test_control_a_short_outage_has_no_ramp() -> None:
    one = lane()
    decide(one, 1, Retry(BackendAway()), now_s=0)
    decide(one, 1, Delivered(1), now_s=59)
    assert one.ready_at_s == 59
