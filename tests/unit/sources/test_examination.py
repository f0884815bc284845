"""What the examinations of all databases have in common.

What could go wrong: a connection that can be read by others passes, or one that never leaves the host is complained of;
a small difference of clocks is told, or a large one with the wrong sign; an error escapes.
"""

from __future__ import annotations

import pytest

from agent.finding import Finding, right
from agent.skew import SLACK_S, compared_times
from agent.source_errors import SlowLogOff
from agent.sources._examination import encryption, tried


@pytest.mark.parametrize(
    ("host", "tls", "code"),
    [
        ("db.example.com", None, "DB-07"),
        ("db.example.com", "", "DB-07"),
        ("10.0.0.7", None, "DB-07"),
        ("db.example.com", "TLSv1.3", ""),
        ("localhost", None, ""),
        ("127.0.0.1", None, ""),
        ("::1", None, ""),
        ("/var/run/postgresql", None, ""),
    ],
)
def test_a_connection_that_others_can_read(host: str, tls: str | None, code: str) -> None:
    found = encryption(host, tls)
    assert (found.subject, found.code, found.verdict) == ("encryption", code, "hint" if code else "right")


@pytest.mark.parametrize(
    ("ours_s", "said"),
    [(1_000.0, "by 0.0 s"), (1_000 + SLACK_S, "by 5.0 s"), (1_090.0, "90 s ahead of"), (910.0, "90 s behind")],
)
def test_two_clocks(ours_s: float, said: str) -> None:
    assert said in compared_times(1_000.0, ours_s).sentence


def test_what_a_look_meets_is_a_finding() -> None:
    def meets() -> Finding:
        raise SlowLogOff("slow_query_log=OFF")

    (found,) = tried("log", meets)
    assert (found.subject, found.verdict, found.code) == ("log", "wrong", "MY-05")
    assert list(tried("log", lambda: right("log", "on"))) == [right("log", "on")]
    assert list(tried("log", lambda: None)) == []
