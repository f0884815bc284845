"""What could go wrong: an envelope is deleted without an acceptance or sent again after one, a bad record takes its
neighbours along, a backend that refuses everything empties the outbox into the parking lot or is flooded, one topic
holds up the other, a full disk lets an acceptance be forgotten, an error is told for ever, a stop is not heard.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from agent import body
from agent.backoff import DELIVERY_CAP_S, RAMP_FACTOR, RAMP_START_S
from agent.delivery import Delivered, Hold, Refused, Retry, TooLarge, Verdict
from agent.errors import BackendAway, BackendBusy, KeyRefused
from agent.flusher import FAILED_OUTBOX_PAUSE_S, LOOK_S, SEND_S, Flusher
from agent.lane import PROBES, TRIES
from agent.pulse import Step
from agent.sinks import COMMAND_RESULT, QUERIES
from agent.status import LinkStatus, Scoreboard
from storage.envelope import Change, Draft, Envelope, Gap, Tally
from storage.errors import OutboxFull
from storage.outbox import Outbox
from tests.fakes.clock import ManualClock
from tests.fakes.sink import FakeSink

HOLD_S = 30.0


class FullOutbox(Outbox):
    """The real one, whose next so many records of an answer fail for want of room."""

    full = 0
    failures = 0

    def accept(self, envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        """As the real one, unless there is no room."""
        if self.full:
            self.full -= 1
            self.failures += 1
            raise OutboxFull("says the test")
        super().accept(envelope, delivered=delivered, reason=reason)


class Bench:
    def __init__(self, directory: Path, sink: FakeSink | None = None) -> None:
        self.clock = ManualClock()
        self.board = Scoreboard(0.0)
        self.outbox = FullOutbox(directory, now=self.clock.unix, on_books=self._books)
        self.sink = sink or FakeSink()
        rng = random.Random(1)
        self.flusher = Flusher(self.outbox, self.sink, self.board, clock=self.clock, rng=rng, hold_s=HOLD_S)

    def _books(self, topic: str, books: Tally) -> None:
        if topic == QUERIES:
            self.board.books = books

    def fill(self, count: int, batch: int = 500, first: int = 0) -> None:
        ids = [orjson.dumps({"id": f"r{number}"}) for number in range(first, first + count)]
        batches = [ids[at : at + batch] for at in range(0, count, batch)]
        self.outbox.commit(Change(drafts=tuple(Draft(QUERIES, len(part), body.queries(part)) for part in batches)))

    def result(self, number: int) -> None:
        draft = Draft(COMMAND_RESULT, 1, body.pack(orjson.dumps({"command_id": number})))
        self.outbox.commit(Change(drafts=(draft,)))

    def drain(self, steps: int = 100_000) -> float | None:
        """Steps until there is something to wait for, and gives it."""
        for _ in range(steps):
            wait_s = self.flusher.step()
            if wait_s != 0:
                return wait_s
        raise AssertionError("it never waits")

    def live(self, seconds: float) -> None:
        """Steps through so much time."""
        end_s = self.clock.monotonic() + seconds
        while (wait_s := self.drain()) is not None and self.clock.monotonic() + wait_s <= end_s:
            self.clock.turn(wait_s)

    def heartbeat_is_fine(self) -> None:
        self.board.heartbeat = LinkStatus(None, self.clock.monotonic() + 1e9)

    @property
    def books(self) -> Tally:
        return self.outbox.tally(QUERIES)

    @property
    def envelopes(self) -> int:
        return self.books.envelopes


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.outbox.close()


def numbered(count: int, first: int = 0) -> list[str]:
    return [f"r{number}" for number in range(first, first + count)]


# -- delivery --------------------------------------------------------------------------------------------------------


def test_everything_is_delivered_once_in_order_and_then_it_waits_for_news(bench: Bench) -> None:
    bench.fill(2_000)
    assert bench.drain() is None
    assert (bench.sink.stored, len(bench.sink.requests)) == (numbered(2_000), 4)
    assert (bench.books.delivered, bench.books.pending, bench.books.balances) == (2_000, 0, True)


def test_when_the_backend_accepted_last_is_known_also_while_it_is_away(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dbpower")
    assert bench.board.delivery.accepted_at_s is None
    bench.fill(2, batch=1)
    bench.drain()
    accepted_at_s = bench.clock.monotonic()
    assert bench.board.delivery == LinkStatus(accepted_at_s=accepted_at_s)
    bench.clock.turn(60)
    bench.fill(1)
    bench.sink.verdict = lambda _: Retry(BackendAway("says the test"))
    bench.flusher.step()
    away = bench.board.delivery
    assert (away.accepted_at_s, "BE-01" in (away.error or "")) == (accepted_at_s, True)
    assert [record.message for record in caplog.records].count("The backend has taken the first envelope") == 1


def test_results_of_commands_go_first(bench: Bench) -> None:
    bench.fill(1)
    bench.result(5)
    bench.drain()
    assert [envelope.topic for envelope in bench.sink.requests] == [COMMAND_RESULT, QUERIES]


def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_bytes(bench: Bench) -> None:
    bench.fill(10)
    bench.sink.lose_answers = 2
    bench.live(60)
    assert bench.sink.lost == 1  # the second time the key was known
    assert len({(envelope.key, envelope.body) for envelope in bench.sink.requests}) == 1
    assert (bench.sink.stored, bench.books.delivered) == (numbered(10), 10)


def test_skipped_records_are_kept_aside_and_never_sent_again(bench: Bench) -> None:
    bench.fill(10)
    bench.sink.verdict = lambda _: Delivered(7, "partial: bad float")
    bench.live(600)
    assert (bench.books.delivered, bench.books.parked, len(bench.sink.requests)) == (7, 3, 1)
    assert bench.outbox.parked() == [(1, 3, "partial: bad float")]


def test_a_body_damaged_on_the_disk_is_lost_unsent_and_named_and_the_next_one_goes(
    bench: Bench, tmp_path: Path
) -> None:
    bench.fill(2, batch=1)
    damaged = sqlite3.connect(tmp_path / "outbox.sqlite3")
    with damaged:
        damaged.execute("UPDATE envelope SET body = zeroblob(10) WHERE seq = 1")
    damaged.close()
    bench.drain()
    assert (bench.sink.stored, len(bench.sink.requests)) == (["r1"], 1)
    gap = Gap("outbox", "damaged", estimate=1, detail="envelope 1 was damaged on the disk")
    assert (bench.books.lost, bench.outbox.gaps(), bench.books.balances) == (1, [gap], True)


def test_an_envelope_discarded_by_a_person_meanwhile_is_no_error(bench: Bench) -> None:
    bench.fill(2, batch=1)

    def discard(envelope: Envelope) -> Verdict | None:
        if envelope.seq == 1:
            bench.outbox.park(envelope, "discarded")
        return None

    bench.sink.verdict = discard
    assert bench.drain() is None
    assert (bench.flusher.error, bench.books.pending, bench.books.balances) == (None, 0, True)


# -- bad records -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {0},
        {9_999},
        {4_999, 5_000},
        set(range(9)),
        set(range(700, 740)),
        set(range(0, 10_000, 997)),
        set(range(600)),
    ],
    ids=["first", "last", "neighbours", "nine in a row", "forty in a row", "scattered", "more than a body"],
)
def test_k_bad_records_among_ten_thousand_cost_k_records(bench: Bench, bad: set[int]) -> None:
    bench.fill(10_000)
    bench.sink.bad = {f"r{number}" for number in bad}
    bench.live(600)
    assert bench.drain() is None
    assert sorted(bench.sink.stored) == sorted(set(numbered(10_000)) - bench.sink.bad)
    assert (bench.books.delivered, bench.books.parked) == (10_000 - len(bad), len(bad))
    assert len(bench.sink.requests) <= 20 + len(bad) * (2 * 9 + 4)  # k log n: 2^9 is more than a body holds


def test_a_body_that_is_too_large_is_halved_until_it_fits(bench: Bench) -> None:
    bench.fill(1_000)
    bench.sink.verdict = lambda envelope: TooLarge() if envelope.records > 100 else None
    bench.drain()
    assert (bench.sink.stored, bench.books.parked) == (numbered(1_000), 0)


@pytest.mark.parametrize("batch", [500, 1])
@pytest.mark.parametrize("kind", ["400", "500"])
def test_a_backend_that_refuses_everything_parks_nothing_and_when_it_heals_all_is_delivered(
    tmp_path: Path, kind: str, batch: int
) -> None:
    verdicts: dict[str, Verdict] = {
        "400": Refused("status 400"),
        "500": Retry(BackendBusy("status 500"), blames_body=True),
    }
    bench = Bench(tmp_path)
    bench.fill(1_000 if batch == 500 else 60, batch=batch)
    bench.heartbeat_is_fine()
    bench.sink.verdict = lambda _: verdicts[kind]
    bench.live(3_600)
    count, asked = bench.envelopes, len(bench.sink.requests)
    assert bench.flusher.error is not None
    assert (bench.books.parked, bench.sink.stored) == (0, [])
    if kind != "500":
        assert asked <= TRIES + (PROBES + 1) * 3_600 / HOLD_S
        assert count <= (2 if batch == 500 else 60) + TRIES + 3_600 / HOLD_S / (TRIES / PROBES) + 2
    bench.sink.verdict = lambda _: None
    bench.live(1_200)
    assert sorted(bench.sink.stored) == sorted(numbered(bench.books.captured))
    assert bench.board.delivery.error is None
    assert (bench.books.parked, bench.books.pending) == (0, 0)
    bench.outbox.close()


def test_server_errors_for_one_record_are_isolated_while_heartbeats_are_fine(bench: Bench) -> None:
    bench.fill(100, batch=50)
    bench.heartbeat_is_fine()
    bench.sink.bad, bench.sink.refuses_with = {"r20"}, Retry(BackendBusy("status 500"), blames_body=True)
    bench.live(3_600)
    assert (sorted(bench.sink.stored), bench.books.parked) == (sorted(set(numbered(100)) - {"r20"}), 1)


def test_without_heartbeats_server_errors_split_nothing(bench: Bench) -> None:
    bench.fill(100, batch=50)
    bench.sink.verdict = lambda _: Retry(BackendBusy("status 500"), blames_body=True)
    bench.live(3_600)
    assert (bench.envelopes, len(bench.sink.requests) > 5) == (2, True)


def test_heartbeats_that_were_fine_once_but_fail_now_prove_nothing(bench: Bench) -> None:
    bench.fill(100, batch=50)
    bench.heartbeat_is_fine()
    bench.board.heartbeat = LinkStatus("away", bench.board.heartbeat.accepted_at_s)
    bench.sink.verdict = lambda _: Retry(BackendBusy("status 500"), blames_body=True)
    bench.live(3_600)
    assert bench.envelopes == 2


# -- the two topics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stuck", [QUERIES, COMMAND_RESULT])
@pytest.mark.parametrize("verdict", [Hold(KeyRefused()), Retry(BackendAway()), Retry(BackendBusy(), floor_s=900)])
def test_a_topic_that_is_stuck_never_delays_the_other(bench: Bench, stuck: str, verdict: Verdict) -> None:
    bench.fill(10)
    bench.result(1)
    bench.sink.verdict = lambda envelope: verdict if envelope.topic == stuck else None
    bench.drain()
    other = bench.sink.stored if stuck == COMMAND_RESULT else bench.sink.results
    assert len(other) == (10 if stuck == COMMAND_RESULT else 1)
    assert bench.flusher.error is not None  # what works does not hide what does not


def test_the_error_is_null_when_every_topic_works_again(bench: Bench) -> None:
    bench.fill(10)
    bench.result(1)
    bench.sink.verdict = lambda _: Hold(KeyRefused())
    bench.drain()
    assert "BE-02" in str(bench.board.delivery.error)
    bench.sink.verdict = lambda _: None
    bench.live(HOLD_S + 1)
    assert (bench.board.delivery.error, bench.books.pending) == (None, 0)


def test_an_error_that_lasts_keeps_no_body_in_memory(bench: Bench) -> None:
    def fall() -> None:
        raise TimeoutError

    def fail() -> None:
        try:
            fall()
        except TimeoutError:
            raise BackendAway from None

    with pytest.raises(BackendAway) as raised:
        fail()
    error = raised.value
    held = [error.__traceback__, error.__context__]  # and through them everything that was at hand there
    assert None not in held
    bench.fill(1)
    bench.sink.verdict = lambda _: Retry(error)
    bench.drain()
    assert bench.flusher.error is error
    assert [error.__traceback__, error.__context__, error.__cause__] == [None, None, None]


def test_an_error_about_an_envelope_that_a_person_discarded_is_over(bench: Bench) -> None:
    bench.fill(1)
    bench.sink.verdict = lambda _: Hold(KeyRefused())
    bench.drain()
    head = bench.outbox.head(QUERIES)
    assert head is not None
    bench.outbox.park(head, "discarded")
    bench.live(HOLD_S + 1)
    assert bench.flusher.error is None


def test_held_bodies_are_tried_at_the_pace_of_the_heartbeat_even_when_it_changes(bench: Bench) -> None:
    bench.fill(1)
    bench.sink.verdict = lambda _: Hold(KeyRefused())
    bench.live(299)
    assert len(bench.sink.requests) == 10
    bench.flusher.set_hold(60)
    bench.live(600)
    assert len(bench.sink.requests) == 20


# -- a full disk -----------------------------------------------------------------------------------------------------


def test_an_acceptance_that_cannot_be_recorded_is_recorded_before_anything_else_is_sent(bench: Bench) -> None:
    bench.fill(3, batch=1)
    bench.outbox.full = 3
    assert bench.drain() == FAILED_OUTBOX_PAUSE_S
    assert (len(bench.sink.requests), "OB-06" in str(bench.board.delivery.error)) == (1, True)
    bench.result(1)
    assert [bench.flusher.step(), bench.flusher.step()] == [FAILED_OUTBOX_PAUSE_S] * 2
    assert (bench.outbox.failures, len(bench.sink.requests)) == (3, 1)
    bench.drain()
    assert (bench.sink.stored, [len(bench.sink.requests), bench.books.delivered]) == (numbered(3), [4, 3])
    assert bench.flusher.error is None


# -- pace and threads --------------------------------------------------------------------------------------------------


def test_after_a_long_outage_the_backlog_is_not_thrown_at_the_backend(bench: Bench) -> None:
    bench.fill(20, batch=1)
    bench.sink.verdict = lambda _: Retry(BackendAway())
    bench.live(600)
    bench.sink.verdict = lambda _: None
    before = len(bench.sink.requests)
    bench.clock.turn(300)
    waits: list[float | None] = []
    while (wait_s := bench.drain()) is not None:
        waits.append(wait_s)
        bench.clock.turn(wait_s)
    highest = [DELIVERY_CAP_S, *(RAMP_START_S * RAMP_FACTOR**number for number in range(13))]
    assert len(waits) == len(highest)
    assert all(0 < (wait_s or 0) <= most_s for wait_s, most_s in zip(waits, highest, strict=True))
    assert (len(bench.sink.requests) - before, bench.sink.stored) == (20, numbered(20))


def test_a_thread_that_waits_is_woken_and_stops_with_its_sink_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    arrived = threading.Event()
    bench.sink.verdict = lambda _: arrived.set()
    thread = threading.Thread(target=bench.flusher.run)
    thread.start()
    bench.fill(1)
    bench.flusher.wake()
    assert arrived.wait(10)
    bench.flusher.stop(bench.clock.monotonic() + 5)
    thread.join(10)
    assert (thread.is_alive(), bench.sink.closes, bench.sink.stored) == (False, 1, ["r0"])
    bench.outbox.close()


def test_the_last_drain_sends_what_it_can_and_ends_at_the_deadline(bench: Bench) -> None:
    bench.fill(10, batch=1)
    bench.flusher.stop(bench.clock.monotonic() + 5)

    def second_by_second(_: Envelope) -> None:
        bench.clock.turn(1)

    bench.sink.verdict = second_by_second
    bench.flusher.run()
    assert (bench.sink.stored, bench.books.pending) == (numbered(5), 5)


def test_the_last_drain_does_not_wait_for_a_backend_that_is_away(bench: Bench) -> None:
    bench.fill(10, batch=1)
    bench.sink.verdict = lambda _: Retry(BackendAway())
    bench.flusher.stop(bench.clock.monotonic() + 5)
    bench.flusher.run()
    assert (len(bench.sink.requests), bench.books.pending) == (1, 10)


def test_after_a_defect_it_goes_on_where_it_was(bench: Bench) -> None:
    bench.fill(2, batch=1)

    def defect(_: Envelope) -> None:
        raise ZeroDivisionError

    bench.sink.verdict = defect
    with pytest.raises(ZeroDivisionError):
        bench.flusher.run()
    bench.sink.verdict = lambda _: None
    bench.flusher.stop(bench.clock.monotonic() + 5)
    bench.flusher.run()
    assert (bench.sink.stored, bench.sink.closes) == (numbered(2), 2)


def test_news_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dbpower")
    bench.fill(2, batch=1)
    bench.sink.verdict = lambda _: Retry(BackendAway())
    bench.live(1_000)
    bench.sink.verdict = lambda _: None
    bench.live(1_000)
    assert len(bench.sink.requests) > 5
    assert [getattr(line, "event", "") for line in caplog.records] == [
        "delivery.wrong",
        "delivery.first",
        "delivery.right",
    ]


def test_a_single_record_that_is_too_large_is_parked_and_its_neighbours_are_delivered(bench: Bench) -> None:
    bench.fill(100)
    bench.sink.bad, bench.sink.refuses_with = {"r20"}, TooLarge()
    bench.drain()
    assert (sorted(bench.sink.stored), bench.books.parked) == (sorted(set(numbered(100)) - {"r20"}), 1)


def test_what_a_person_has_put_back_is_found_without_a_wake(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.flusher.LOOK_S", 0.01)
    bench.fill(1)
    bench.outbox.park(bench.outbox.head(QUERIES), "refused")  # type: ignore[arg-type]
    thread = threading.Thread(target=bench.flusher.run)
    thread.start()
    came = threading.Event()
    bench.sink.verdict = lambda _: came.set()
    assert not came.wait(0.1), "it waits"
    bench.outbox.retry(1)
    assert came.wait(10)
    bench.flusher.stop(bench.clock.monotonic())
    thread.join()
    assert bench.sink.stored == ["r0"]


# -- its pulse -------------------------------------------------------------------------------------------------------


def test_each_request_and_each_wait_is_a_step_with_the_time_that_it_may_take(bench: Bench) -> None:
    steps: list[Step | None] = []

    class Waits(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            steps.append(bench.flusher.pulse.step)
            bench.clock.turn(timeout or 0.0)
            bench.flusher.stop(bench.clock.monotonic())
            return True

    def verdict(_: Envelope) -> None:
        steps.append(bench.flusher.pulse.step)
        bench.clock.turn(1)

    bench.fill(2, batch=1)
    bench.sink.verdict = verdict
    bench.flusher._woken = Waits()
    bench.flusher.run()
    began_s = bench.clock.monotonic() - LOOK_S - 2
    assert steps == [
        Step("sending to the backend", SEND_S, began_s),
        Step("sending to the backend", SEND_S, began_s + 1),
        Step("waiting", LOOK_S, began_s + 2),
    ]


def test_an_outbox_that_holds_it_is_a_step_too(bench: Bench) -> None:
    steps: list[Step | None] = []
    real = bench.outbox.accept

    def accept(envelope: Envelope, *, delivered: int, reason: str = "") -> None:
        steps.append(bench.flusher.pulse.step)
        real(envelope, delivered=delivered, reason=reason)

    bench.outbox.accept = accept  # type: ignore[method-assign]
    bench.fill(1)
    bench.drain()
    steps.append(bench.flusher.pulse.step)
    assert [step and (step.doing, step.at_most_s) for step in steps] == [
        ("writing the outbox", 0.0),
        ("reading the outbox", 0.0),
    ]
