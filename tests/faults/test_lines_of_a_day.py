"""A day of trouble writes fewer than 50 lines, and none of it is hidden. In virtual time, over the real runners.

What could go wrong: what fails and heals all day writes two lines each time; two errors that take turns are each news
to the other; an error with a number in its sentence is new each time; a gap at each look, a refused record in each
envelope, or a command that cannot be stored, is told each time; what was quietened hides a new kind of error, its
beginning, or how things are now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.errors import BackendAway, BackendBusy, KeyRefused
from agent.logs import tell
from agent.news import News
from agent.source_errors import BookmarkUnreadable, DatabaseAway, LoginRefused, SlowLogCrashed
from storage.envelope import Gap
from storage.errors import CodedError
from tests.fakes.day import DAY_S, INTERVAL_S, Day

LINES = 50
HALF_S = 60.0  # of two minutes
FROM_S = 590.0  # the trouble begins


def flaps(seconds: float) -> bool:
    """Whether it is away at this second: every other minute."""
    return seconds > FROM_S and int(seconds // HALF_S) % 2 == 1


def backend_away(day: Day) -> None:
    day.backend = lambda s: BackendAway("Connection refused") if s > FROM_S else None


def database_away(day: Day) -> None:
    # A look later than the backend, so that something waits for that.
    day.days_source.wrong = lambda s: DatabaseAway("Connection refused") if s > FROM_S + INTERVAL_S else None


def both_away(day: Day) -> None:
    backend_away(day)
    database_away(day)


def backend_flaps(day: Day) -> None:
    # In the other minutes than the database, so that there is always something to send when it is away.
    day.backend = lambda s: BackendAway("Connection refused") if s > FROM_S and not flaps(s) else None


def database_flaps(day: Day) -> None:
    day.days_source.wrong = lambda s: DatabaseAway("Connection refused") if flaps(s) else None


def both_flap(day: Day) -> None:
    backend_flaps(day)
    database_flaps(day)


def each_look_finds_it_other_than_the_last(day: Day) -> None:
    day.days_source.wrong = lambda s: SlowLogCrashed("error 1194") if s > FROM_S and int(s // INTERVAL_S) % 2 else None


def wrong_password(day: Day) -> None:
    day.days_source.wrong = lambda s: LoginRefused("error 1045") if s > FROM_S else None


def wrong_key(day: Day) -> None:
    day.backend = lambda s: KeyRefused("status 401") if s > FROM_S else None


def full_disk(day: Day) -> None:
    day.at(FROM_S, lambda: setattr(day.days_outbox, "is_full", True))
    day.backend = lambda s: BackendAway() if FROM_S - 400 < s < FROM_S + 1 else None  # so that something waits
    stop = {"id": 5, "command": "stop", "params": {}, "created_at": "2024-05-01T12:00:00"}
    day.at(FROM_S, lambda: day.line.commands.append(stop))


def a_poisoned_record(day: Day) -> None:
    day.sink.bad = {"r7"}


def a_poisoned_record_at_each_look(day: Day) -> None:
    day.sink.bad = {f"r{number}" for number in range(4, 10_000, 3)}


def an_error_whose_text_is_another_each_time(day: Day) -> None:
    day.backend = lambda s: BackendAway(f"from port {40_000 + s:g}") if s > FROM_S else None
    day.days_source.wrong = lambda s: DatabaseAway(f"connection {s:g}") if s > FROM_S + INTERVAL_S else None


def two_errors_take_turns(day: Day) -> None:
    tries = iter(range(10**9))

    def backend(seconds: float) -> CodedError | None:
        if seconds <= FROM_S:
            return None
        return BackendAway() if next(tries) % 2 else BackendBusy("status 503")

    day.backend = backend
    day.days_source.wrong = lambda s: (
        None
        if s <= FROM_S + INTERVAL_S
        else LoginRefused("error 1045")
        if int(s // INTERVAL_S) % 2
        else SlowLogCrashed("")
    )


def a_gap_at_each_look(day: Day) -> None:
    day.days_source.gap = Gap("default", "evicted", detail="statements were evicted")


@dataclass(frozen=True)
class Case:
    """`codes`: what was wrong, as the status must show it; `happened`: how often it must have come about."""

    make: Callable[[Day], None]
    happened: Callable[[Day], int]
    at_least: int
    codes: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)


def refused(day: Day) -> int:
    return day.refused


def failures(day: Day) -> int:
    return day.days_source.failures


CASES = (
    Case(backend_away, refused, 288, {"BE-01"}, {"delivery.wrong", "heartbeat.wrong"}),
    Case(database_away, failures, 1_000, {"DB-01"}, {"collection.wrong"}),
    Case(both_away, lambda day: min(day.refused, day.days_source.failures), 280, {"BE-01", "DB-01"}),
    Case(backend_flaps, refused, 100, {"BE-01"}, {"heartbeat.unsteady", "heartbeat.still"}),
    Case(database_flaps, failures, 100, {"DB-01"}, {"collection.unsteady", "collection.still"}),
    Case(both_flap, lambda day: min(day.refused, day.days_source.failures), 50, {"BE-01", "DB-01"}),
    Case(each_look_finds_it_other_than_the_last, failures, 100, {"MY-02"}, {"collection.unsteady"}),
    Case(wrong_password, failures, 280, {"DB-03"}, {"collection.wrong"}),
    Case(wrong_key, refused, 280, {"BE-02"}, {"delivery.wrong", "heartbeat.wrong"}),
    Case(
        full_disk,
        lambda day: day.days_outbox.refusals,
        1_000,
        {"OB-06", "BE-01"},
        {"outbox.wrong", "command.postponed"},
    ),
    Case(a_poisoned_record, lambda day: day.outbox.tally("queries").parked, 1, set(), {"delivery.parked"}),
    Case(a_poisoned_record_at_each_look, lambda day: day.outbox.tally("queries").parked, 280),
    Case(an_error_whose_text_is_another_each_time, failures, 1_000, {"BE-01", "DB-01"}),
    Case(two_errors_take_turns, refused, 280, {"BE-01", "BE-05", "DB-03", "MY-02"}, {"delivery.still"}),
    Case(a_gap_at_each_look, lambda day: day.outbox.tally("queries").gaps, 280, set(), {"gap.recorded"}),
)


def code_of(shown: str | None) -> set[str]:
    """The codes in what a status shows."""
    return set() if shown is None else {part.split("]")[0] for part in shown.split("[")[1:]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_a_day_of_trouble_writes_fewer_than_50_lines_and_the_status_shows_it_all_the_time(
    tmp_path: Path, case: Case
) -> None:
    day = Day(tmp_path)
    case.make(day)
    happened: list[int] = []
    day.at(DAY_S - 1, lambda: happened.append(case.happened(day)))
    log = day.live()
    assert happened[0] >= case.at_least, "the trouble has happened"
    assert len(log.text) < LINES, "\n".join(log.text)
    assert case.events <= {*log.events}
    shown = {code for each in day.shown for code in code_of(each)}
    told = {code for each in day.line.errors for code in code_of(each)}
    assert shown == case.codes
    assert told == case.codes
    said = {code for line in log.text for code in code_of(line)}
    assert case.codes <= said, "each kind was said"


class Talkative(News):
    """Says each change, as one would without counting."""

    def wrong(self, error: CodedError) -> None:
        if self._code != error.code:
            tell(30, "talkative.wrong", str(error))
        self._code = error.code

    def right(self, note: str = "") -> None:
        if self._code:
            tell(20, "talkative.right", note)
        self._code = ""


@pytest.mark.parametrize("make", [backend_flaps, database_flaps, two_errors_take_turns])
def test_control_one_that_says_each_change_writes_hundreds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Day], None]
) -> None:
    for runner in ("watch_loop", "flusher", "heartbeat"):
        monkeypatch.setattr(f"agent.{runner}.News", Talkative)
    day = Day(tmp_path)
    make(day)
    assert len(day.live().text) > 4 * LINES


def test_the_first_news_comes_at_once_and_a_new_kind_of_error_is_said_in_the_middle_of_it(tmp_path: Path) -> None:
    day = Day(tmp_path)
    database_flaps(day)
    flapping = day.days_source.wrong
    noon_s = DAY_S / 2
    day.days_source.wrong = lambda s: BookmarkUnreadable("") if noon_s < s < noon_s + 400 else flapping(s)
    at: dict[str, float] = {}

    def watch() -> None:
        for code in {code for line in day.lines.text for code in code_of(line)}:
            at.setdefault(code, day.seconds)
        day.at(5, watch)

    day.at(0, watch)
    log = day.live()
    assert FROM_S <= at["DB-01"] <= FROM_S + INTERVAL_S + HALF_S
    assert noon_s <= at["DB-04"] <= noon_s + INTERVAL_S + HALF_S
    assert len(log.text) < LINES
