"""What could go wrong: something that is no acceptance is taken for one (a captive portal, a cut answer, a true for a
number), something that heals is taken for something that does not, a Retry-After is ignored or stops delivery for ever.
"""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from agent.delivery import (
    RETRY_AFTER_CAP_S,
    Delivered,
    Hold,
    Refused,
    Retry,
    TooLarge,
    Verdict,
    heartbeat_error,
    judge_bulk,
    judge_execute,
    retry_after_s,
)
from agent.errors import BackendBusy, KeyRefused, NotTheBackend
from agent.transport import Answer

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
    assert judge_bulk(answer(200, content), 3, NOW) == Delivered(1, f"partial: bad float {'x' * 187}...")


def test_a_reason_is_shown_as_one_plain_line() -> None:
    content = success(count=2, skipped=1, errors=[{"error": "\x1b[2Jgone\n2026 INFO forged\x9b"}])
    assert judge_bulk(answer(200, content), 3, NOW) == Delivered(2, "partial: ?[2Jgone 2026 INFO forged?")


@pytest.mark.parametrize("levels", [40, 1_000, 1_024, 100_000])
def test_a_reason_as_deep_as_it_can_be_parsed_ends_no_delivery(levels: int) -> None:
    deep = orjson.dumps(success(count=2, skipped=1, errors=[{"error": "X"}]))
    content = deep.replace(b'"X"', b"[" * levels + b"]" * levels)
    assert isinstance(judge_bulk(answer(200, content), 3, NOW), Hold)


@pytest.mark.parametrize(
    "errors",
    [
        *(None, [], "x", [5], [{"error": None}], [{"error": ""}], [{"error": 5}], [{"error": {"deep": []}}], [[]]),
        [{"error": ["not", "a", "text"]}],
    ],
)
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
