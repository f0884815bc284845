"""News is said once.

What could go wrong: an outage fills the log with the same line every second; its end is not said, or said without an
outage; another error behind the first stays hidden; nobody knows of which of several things it is; two errors that take
turns, or outages without end, are said each time; what is counted hides a new kind of error, that it does not come back
any more, or that it is over; it is called steady too early, again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from agent.errors import BackendAway, KeyRefused
from agent.logs import LOGGER
from agent.news import LONGEST_SETTLED_S, OUTAGES, SETTLED_S, WITHIN_S, News
from agent.reminder import FIRST_S
from tests.fakes.clock import ManualClock


class Heard(logging.Handler):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, str, str]] = []
        self.fields: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(record.__dict__["fields"])
        self.said.append((record.levelname, record.__dict__["event"], record.getMessage()))

    @property
    def events(self) -> list[str]:
        """The words alone."""
        return [event for _, event, _ in self.said]

    def forget(self) -> None:
        """As if nothing had been said."""
        self.said.clear()
        self.fields.clear()


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, level = Heard(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield handler
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


def test_the_same_trouble_is_said_once_and_its_end_too(heard: Heard) -> None:
    clock = ManualClock()
    news = News("delivery", clock)
    for _ in range(100):
        news.wrong(BackendAway("refused"))
        clock.turn(2.5)
    news.right("7 records waiting")
    news.right()
    assert heard.said == [
        ("WARNING", "delivery.wrong", str(BackendAway("refused"))),
        ("INFO", "delivery.right", "delivery works again after 250 s, 7 records waiting"),
    ]


def test_nothing_is_said_while_nothing_is_wrong(heard: Heard) -> None:
    News("delivery", ManualClock()).right("7 records waiting")
    assert heard.said == []


def test_the_same_error_with_another_detail_is_no_news(heard: Heard) -> None:
    news = News("delivery", ManualClock())
    for detail in ("refused", "timed out"):
        news.wrong(BackendAway(detail))
    assert heard.events == ["delivery.wrong"]


def test_another_error_is_news_and_the_outage_goes_on(heard: Heard) -> None:
    clock = ManualClock()
    news = News("delivery", clock)
    news.wrong(BackendAway())
    clock.turn(10)
    news.wrong(KeyRefused())
    clock.turn(10)
    news.right()
    assert [sentence[:7] for _, _, sentence in heard.said] == ["[BE-01]", "[BE-02]", "deliver"]
    assert heard.said[-1][2] == "delivery works again after 20 s"


def test_a_second_outage_is_said_again(heard: Heard) -> None:
    news = News("delivery", ManualClock())
    for _ in range(2):
        news.wrong(BackendAway())
        news.right()
    assert heard.events == ["delivery.wrong", "delivery.right"] * 2


def test_trouble_and_its_end_say_of_which_they_are(heard: Heard) -> None:
    news = News("collection", ManualClock(), watch="orders")
    news.wrong(KeyRefused(""))
    news.right()
    assert [fields["watch"] for fields in heard.fields] == ["orders", "orders"]


# -- several errors in one outage --------------------------------------------------------------------------------------


def test_two_errors_that_take_turns_are_said_once_each_and_then_counted(heard: Heard) -> None:
    clock = ManualClock()
    news = News("delivery", clock)
    for number in range(121):
        clock.turn(FIRST_S / 120)
        news.wrong(KeyRefused() if number % 4 == 3 else BackendAway())
    assert heard.events == ["delivery.wrong", "delivery.wrong", "delivery.still"]
    sentence = "delivery is still wrong after 3600 s: [BE-01] 91 times, [BE-02] 30 times; now [BE-01]"
    assert heard.said[-1] == ("WARNING", "delivery.still", sentence)
    news.right()
    assert heard.fields[-1] == {"code": "BE-01", "seconds": 3600, "times": 121, "codes": {"BE-01": 91, "BE-02": 30}}


def test_one_error_alone_is_not_said_again_however_long_it_lasts(heard: Heard) -> None:
    clock = ManualClock()
    news = News("delivery", clock)
    for _ in range(2_000):
        news.wrong(BackendAway())
        clock.turn(60)
    assert heard.events == ["delivery.wrong"]


# -- what fails and heals all the time ---------------------------------------------------------------------------------


def outage(news: News, clock: ManualClock, down_s: float = 60, up_s: float = 60) -> None:
    """It is away and comes back, as somebody sees it who tries every 30 s."""
    for _ in range(round(down_s / 30)):
        news.wrong(BackendAway("refused"))
        clock.turn(30)
    for _ in range(round(up_s / 30)):
        news.right()
        clock.turn(30)


def unsteady(clock: ManualClock) -> News:
    news = News("delivery", clock)
    for _ in range(OUTAGES):
        outage(news, clock)
    return news


def test_the_third_outage_within_some_hours_is_said_as_unsteady_and_then_none(heard: Heard) -> None:
    clock = ManualClock()
    news = unsteady(clock)
    for _ in range(20):
        outage(news, clock)
    assert heard.events == [*["delivery.wrong", "delivery.right"] * 2, "delivery.unsteady"]
    level, _, sentence = heard.said[-1]
    begin = f"delivery is unsteady, this is outage 3 within 240 s: {BackendAway('refused')}"
    assert (level, sentence) == ("WARNING", f"{begin} From now on outages are counted.")
    assert heard.fields[-1] == {"code": "BE-01", "outages": 3, "seconds": 240}


def test_outages_far_from_each_other_are_each_said(heard: Heard) -> None:
    clock = ManualClock()
    news = News("delivery", clock)
    for _ in range(10):
        outage(news, clock, up_s=WITHIN_S / 2)
    assert heard.events == ["delivery.wrong", "delivery.right"] * 10


def test_while_it_is_unsteady_a_line_comes_after_an_hour_then_less_often_with_all_counted(heard: Heard) -> None:
    clock = ManualClock()
    news = unsteady(clock)
    heard.forget()
    for _ in range(29):
        outage(news, clock)
    assert heard.said == []
    for _ in range(9 * 30):
        outage(news, clock)
    assert heard.events == ["delivery.still"] * 3  # of ten hours
    assert heard.said[0][2] == "delivery is still unsteady: 31 outages, 1800 of 3600 s; now [BE-01]"
    assert heard.fields[0] == {"code": "BE-01", "outages": 31, "down_seconds": 1800, "seconds": 3600}
    assert [fields["seconds"] for fields in heard.fields] == [3_600, 3 * 3_600, 7 * 3_600]


def test_a_new_kind_of_error_is_said_at_once_while_it_is_unsteady(heard: Heard) -> None:
    clock = ManualClock()
    news = unsteady(clock)
    heard.forget()
    for _ in range(3):
        news.wrong(KeyRefused("status 401"))
        news.right()
    assert heard.said == [("WARNING", "delivery.wrong", str(KeyRefused("status 401")))]


def test_the_third_outage_may_be_of_a_new_kind(heard: Heard) -> None:
    clock = ManualClock()
    news = News("delivery", clock)
    for error in (BackendAway(), BackendAway(), KeyRefused("status 401")):
        news.wrong(error)
        news.right()
    assert heard.events[-1] == "delivery.unsteady"
    assert str(KeyRefused("status 401")) in heard.said[-1][2]


def test_what_held_for_half_an_hour_is_steady_again_and_its_next_end_is_said_as_ever(heard: Heard) -> None:
    clock = ManualClock()
    news = unsteady(clock)
    heard.forget()
    outage(news, clock, up_s=SETTLED_S + 60)
    assert heard.said == [("INFO", "delivery.steady", "delivery is steady again: 2 outages in 180 s, 120 s in all")]
    assert heard.fields == [{"outages": 2, "down_seconds": 120, "seconds": 180}]
    heard.forget()
    clock.turn(WITHIN_S)
    outage(news, clock)
    assert heard.events == ["delivery.wrong", "delivery.right"]


def test_what_does_not_come_back_is_said_as_an_outage_and_so_is_its_end(heard: Heard) -> None:
    clock = ManualClock()
    news = unsteady(clock)
    heard.forget()
    outage(news, clock, down_s=SETTLED_S + 600)
    whole = f"{BackendAway('refused')} (for {SETTLED_S:.0f} s without a break)"
    assert heard.said[0] == ("WARNING", "delivery.wrong", whole)
    assert heard.said[1:] == [("INFO", "delivery.right", f"delivery works again after {SETTLED_S + 600:.0f} s")]


def test_what_becomes_unsteady_again_and_again_has_to_hold_longer_each_time(heard: Heard) -> None:
    clock = ManualClock()
    news = unsteady(clock)
    heard.forget()
    for _ in range(200):
        outage(news, clock, up_s=2 * SETTLED_S + 60)
    said = [event for event in heard.events if event != "delivery.still"]
    assert said == ["delivery.steady", "delivery.unsteady"] * 2, "once after 30 min, once after an hour, then no more"
    clock.turn(LONGEST_SETTLED_S)
    news.right()
    assert heard.events[-1] == "delivery.steady"
