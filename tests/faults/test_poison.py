"""Bad records and bad answers, through the real transport, flusher and outbox, over real sockets.

What could go wrong: one bad record holds up its neighbours, is sent for ever, or costs a request for each of them; what
is no acceptance deletes records; records that were left out are neither told nor kept; a lost answer is not counted as
a possible duplicate, or one is counted where nothing can have arrived.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, log2
from pathlib import Path

import orjson
import pytest

from agent import body
from agent.dev.server_process import free_port
from agent.flusher import Flusher
from agent.lane import SERVER_ERRORS_TO_SUSPECT
from agent.sinks import QUERIES
from agent.sinks.http import BULK_PATH, HttpSink
from agent.status import LinkStatus, Scoreboard
from agent.transport import Transport
from storage.envelope import Change, Draft, Tally
from storage.outbox import Outbox
from tests.fakes.clock import ManualClock
from tests.fakes.inside import sql_of
from tests.fakes.stub_backend import StubBackend
from tests.faults.scripted_backend import Json, Script, ScriptedBackend, answer, success

COUNT = 10_000
HOLD_S = 30.0
READ_TIMEOUT_S, IMPATIENT_S = 10.0, 0.3
HOUR_S = 3_600.0
PORTAL = b"<html><body>Welcome to the hotel</body></html>"
POSITIONS = {
    "at the beginning": (0, 1_200, 2_900),
    "adjacent at the beginning": (0, 1, 2),
    "in the middle": (4_321, 5_250, 6_789),
    "adjacent across two bodies": (4_999, 5_000, 5_001),
    "at the end": (7_700, 8_888, 9_999),
    "adjacent at the end": (9_997, 9_998, 9_999),
}


class Sender:
    """An outbox and what drains it, at an address; its clock is turned by hand."""

    def __init__(self, directory: Path, url: str, api_key: str, read_timeout_s: float) -> None:
        self.clock = ManualClock()
        self.board = Scoreboard(self.clock.monotonic())
        self.outbox = Outbox(directory, now=self.clock.unix)
        self.transport = Transport(url, api_key, read_timeout_s=read_timeout_s, total_timeout_s=60)
        sink = HttpSink(self.transport, 1, self.clock)
        self.flusher = Flusher(self.outbox, sink, self.board, clock=self.clock, rng=random.Random(1), hold_s=HOLD_S)

    def fill(self, count: int, batch: int, bad: tuple[int, ...] = (), first: int = 0) -> None:
        """Records r0, r1 ...; what is bad about a bad one is that its user has 300 characters."""
        records = [
            orjson.dumps({"id": f"r{number}", "sql_text": "SELECT 1", "user_host": "u" * (300 if number in bad else 3)})
            for number in range(first, first + count)
        ]
        parts = [records[at : at + batch] for at in range(0, count, batch)]
        self.outbox.commit(Change(tuple(Draft(QUERIES, len(part), body.queries(part)) for part in parts)))

    def live(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Steps through so much time; heartbeats are taken meanwhile."""
        end_s = self.clock.monotonic() + seconds
        while not until():
            self.board.heartbeat = LinkStatus(None, self.clock.monotonic())
            wait_s = self.flusher.step()
            if wait_s is None or self.clock.monotonic() + wait_s > end_s:
                return
            self.clock.turn(wait_s)

    @property
    def books(self) -> Tally:
        return self.outbox.tally(QUERIES)

    @property
    def parked(self) -> list[tuple[str, str]]:
        """Id and reason of each; there is one record in each."""
        rows = sql_of(self.outbox).execute("SELECT body, reason FROM parked").fetchall()
        return sorted(((_id(packed), reason) for packed, reason in rows), key=lambda each: int(each[0][1:]))

    def close(self) -> None:
        self.transport.close()
        self.outbox.close()


def _id(packed: bytes) -> str:
    [record] = orjson.loads(body.unpack(packed))["queries"]
    return str(record["id"])


@contextmanager
def sending(
    directory: Path, url: str, api_key: str = "k", *, read_timeout_s: float = READ_TIMEOUT_S
) -> Iterator[Sender]:
    sender = Sender(directory, url, api_key, read_timeout_s)
    yield sender
    sender.close()


# -- three bad ones among ten thousand -------------------------------------------------------------------------------


def refuses_bad(records: list[Json]) -> bytes:
    """A 400 for the whole body."""
    is_bad = any(len(record["user_host"]) > 255 for record in records)
    return answer(400, {"detail": "bad"}) if is_bad else success(len(records))


def most_requests(bad: int, batch: int) -> int:
    """For each body one, one for the good one, and for each bad record: at each halving its half and the other one,
    and one more to park it when it was refused before anything was accepted."""
    return 1 + -(-COUNT // batch) + bad * (2 * ceil(log2(batch)) + 2)


@pytest.mark.parametrize(
    ("batch", "where"), [*((500, where) for where in POSITIONS), (50, "in the middle"), (50, "adjacent at the end")]
)
def test_three_bad_records_cost_three_records_and_a_logarithm_of_requests(
    tmp_path: Path, batch: int, where: str
) -> None:
    bad = POSITIONS[where]
    with ScriptedBackend(refuses_bad) as backend, sending(tmp_path, backend.url) as sender:
        sender.fill(COUNT, batch, bad)
        sender.live(HOUR_S, until=lambda: sender.board.delivery.error is not None)
        sender.fill(1, 1, first=COUNT)  # bad ones at the very end wait for a good one
        sender.live(HOUR_S)
        books, parked = sender.books, sender.parked
        refused = sum(b"u" * 300 in sent for _, _, sent in backend.requests)
        asked = len(backend.requests)
    assert parked == [(f"r{number}", "refused by the backend (status 400)") for number in bad]
    assert (books.delivered, books.parked, books.pending) == (COUNT - 2, 3, 0)
    assert refused >= 3 + ceil(log2(batch)), "they were not refused"
    assert asked <= most_requests(3, batch)
    assert books.possible_duplicates == 0


@pytest.mark.parametrize("bad", [(0, 1, 2), (4_321, 5_250, 6_789)], ids=["adjacent", "scattered"])
def test_the_same_with_a_backend_that_answers_500_to_a_whole_body_for_one_bad_record(
    tmp_path: Path, bad: tuple[int, ...]
) -> None:
    with StubBackend() as backend, sending(tmp_path, backend.url, backend.api_key) as sender:
        sender.fill(COUNT, 500, bad)
        sender.live(24 * HOUR_S)
        books, parked, asked, stored = sender.books, sender.parked, backend.requests, backend.records
    assert parked == [(f"r{number}", "refused by the backend (status 500, 5 times)") for number in bad]
    assert (books.delivered, books.pending, len(stored)) == (COUNT - 3, 0, COUNT - 3)
    assert asked <= SERVER_ERRORS_TO_SUSPECT * most_requests(3, 500)


def test_control_one_request_for_each_record_would_break_the_bound() -> None:
    assert most_requests(3, 500) < COUNT / 100
    assert most_requests(3, 50) - COUNT // 50 < 50


def test_bad_records_at_the_very_end_with_nothing_behind_them_wait_for_a_good_one(tmp_path: Path) -> None:
    with ScriptedBackend(refuses_bad) as backend, sending(tmp_path, backend.url) as sender:
        sender.fill(1, 1, (0,))
        sender.live(HOUR_S)
        alone = sender.books
        assert sender.board.delivery.error is not None
        assert "[BE-04]" in sender.board.delivery.error
        sender.fill(1, 1, first=1)
        sender.live(HOUR_S)
        then = sender.books
    assert (alone.parked, alone.pending) == (0, 1)
    assert (then.parked, then.delivered, then.pending) == (1, 1, 0)


# -- what is no acceptance -------------------------------------------------------------------------------------------

NO_ACCEPTANCE = {
    "captive portal": (answer(200, PORTAL, "Content-Type: text/html"), "BE-03"),
    "captive portal as JSON": (answer(200, PORTAL, "Content-Type: application/json"), "BE-03"),
    "redirect": (answer(302, PORTAL, "Location: /portal"), "BE-03"),
    "redirect that keeps the method": (answer(307, b"", "Location: /portal"), "BE-03"),
    "redirect for ever": (answer(308, b"", f"Location: {BULK_PATH}"), "BE-03"),
    "not found": (answer(404, {"detail": "Not Found"}), "BE-03"),
    "method not allowed": (answer(405, {"detail": "Method Not Allowed"}), "BE-03"),
    "empty 200": (answer(200, b""), "BE-03"),
    "204": (answer(204, b""), "BE-03"),
    "garbage in a 200": (answer(200, bytes(range(256))), "BE-03"),
    "another program's success": (answer(200, {"status": "ok"}), "BE-03"),
    "too few records": (success(2), "BE-03"),
    "too many records": (success(4), "BE-03"),
    "half of the JSON in a whole answer": (answer(200, b'{"status": "success", "count": 3, "ski'), "BE-03"),
    "cut in its body": (answer(200, b'{"status": "success", "count": 3', announced=60), "BE-01"),
    "cut in its head": (b"HTTP/1.1 200 OK\r\nContent-Le", "BE-01"),
    "cut in its first line": (b"HTTP/1.1 2", "BE-01"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "BE-01"),
    "nothing": (b"", "BE-01"),
    "401": (answer(401, {"detail": "Invalid collector API key"}), "BE-02"),
    "403": (answer(403, {"detail": "Collector ID mismatch"}), "BE-02"),
    "429": (answer(429, b""), "BE-05"),
    "503": (answer(503, PORTAL), "BE-05"),
}


@pytest.mark.parametrize(("said", "code"), NO_ACCEPTANCE.values(), ids=NO_ACCEPTANCE)
def test_what_is_no_acceptance_deletes_parks_and_splits_nothing_and_is_told(
    tmp_path: Path, said: bytes, code: str
) -> None:
    with ScriptedBackend(lambda _: said) as backend, sending(tmp_path, backend.url) as sender:
        sender.fill(3, 3)
        sender.live(HOUR_S, until=lambda: len(backend.requests) >= 4)
        wrong, books = sender.board.delivery.error, sender.books
        assert len(backend.requests) >= 4, "it was not tried again"
        assert (books.pending, books.envelopes, books.delivered, books.parked) == (3, 1, 0, 0)
        assert wrong is not None
        assert f"[{code}]" in wrong
        backend.script = lambda records: success(len(records))
        sender.live(2 * HOUR_S)
        assert (sender.books.delivered, sender.books.pending, sender.board.delivery.error) == (3, 0, None)
        assert {path for path, _, _ in backend.requests} == {BULK_PATH}, "a redirect was followed"
        assert len({(key, sent) for _, key, sent in backend.requests}) == 1, "not the same key and bytes"


# -- left out --------------------------------------------------------------------------------------------------------


def test_records_that_were_left_out_are_counted_told_kept_and_never_sent_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = success(2, 1, errors=[{"query": "SELECT 1", "error": "could not convert string to float"}])
    with ScriptedBackend(lambda _: said) as backend, sending(tmp_path, backend.url) as sender:
        sender.fill(3, 3)
        with caplog.at_level(logging.WARNING):
            sender.live(24 * HOUR_S)
        books, kept = sender.books, sender.outbox.parked()
        assert len(backend.requests) == 1
    assert (books.delivered, books.parked, books.pending, books.balances) == (2, 1, 0, True)
    assert kept == [(1, 1, "partial: could not convert string to float")]
    assert [record.getMessage() for record in caplog.records] == ["The backend left out records"]


# -- in doubt --------------------------------------------------------------------------------------------------------

IN_DOUBT: dict[str, bytes | None] = {
    "closed without an answer": b"",
    "timeout": None,
    "502": answer(502, b""),
    "504": answer(504, b""),
    "cut 200": answer(200, b'{"status": "success", "count": 3', announced=60),
    "half of the JSON": answer(200, b'{"status": "success", "count": 3, "ski'),
    "captive portal": answer(200, PORTAL),
}
NO_DOUBT: dict[str, bytes] = {
    "503": answer(503, b""),
    "503 with Retry-After": answer(503, b"", "Retry-After: 5"),
    "429": answer(429, b"", "Retry-After: 5"),
    "500": answer(500, b""),
    "401": answer(401, b""),
    "404": answer(404, b""),
    "302": answer(302, b"", "Location: /portal"),
}


def then_well(said: bytes | None) -> Script:
    """Says that once, and then what the contract says."""
    asked = itertools.count()
    return lambda records: said if next(asked) == 0 else success(len(records))


@pytest.mark.parametrize("said", IN_DOUBT.values(), ids=IN_DOUBT)
def test_an_answer_that_was_lost_makes_its_records_possible_duplicates(tmp_path: Path, said: bytes | None) -> None:
    assert _duplicates_after(tmp_path, said) == 3


@pytest.mark.parametrize("said", NO_DOUBT.values(), ids=NO_DOUBT)
def test_an_answer_that_says_no_makes_none(tmp_path: Path, said: bytes) -> None:
    assert _duplicates_after(tmp_path, said) == 0


def _duplicates_after(directory: Path, said: bytes | None) -> int:
    patience_s = IMPATIENT_S if said is None else READ_TIMEOUT_S
    with (
        ScriptedBackend(then_well(said)) as backend,
        sending(directory, backend.url, read_timeout_s=patience_s) as sender,
    ):
        sender.fill(3, 3)
        sender.fill(4, 4, first=3)
        sender.live(HOUR_S)
        books = sender.books
        assert len(backend.requests) == 3, "the first one was not refused once"
    assert (books.delivered, books.pending) == (7, 0)
    return books.possible_duplicates


def test_a_connection_that_was_refused_makes_none(tmp_path: Path) -> None:
    with sending(tmp_path, f"http://127.0.0.1:{free_port()}") as sender:
        sender.fill(3, 3)
        sender.live(HOUR_S, until=lambda: sender.board.delivery.error is not None)
        assert "[BE-01]" in (sender.board.delivery.error or "")
    with ScriptedBackend(lambda records: success(len(records))) as backend, sending(tmp_path, backend.url) as sender:
        sender.live(HOUR_S)
        assert (sender.books.delivered, sender.books.possible_duplicates) == (3, 0)


def test_a_real_backend_that_stores_and_loses_the_answer_doubles_what_is_counted(tmp_path: Path) -> None:
    with StubBackend() as backend, sending(tmp_path, backend.url, backend.api_key) as sender:
        sender.fill(9, 3)
        backend.drop_answers(2)
        sender.live(HOUR_S)
        assert (backend.dropped, sender.books.delivered) == (2, 9)
        doubled = len(backend.records) - len({record["id"] for record in backend.records})
    assert doubled == 6
