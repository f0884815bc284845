"""News is said once.

What could go wrong: an outage fills the log with the same line every second; its end is not said, or said without an
outage; another error behind the first stays hidden; nobody knows of which of several things it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from agent.errors import BackendAway, KeyRefused
from agent.logs import LOGGER
from agent.news import News
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
    assert [event for _, event, _ in heard.said] == ["delivery.wrong"]


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
    assert [event for _, event, _ in heard.said] == ["delivery.wrong", "delivery.right"] * 2


def test_trouble_and_its_end_say_of_which_they_are(heard: Heard) -> None:
    news = News("collection", ManualClock(), watch="orders")
    news.wrong(KeyRefused(""))
    news.right()
    assert [fields["watch"] for fields in heard.fields] == ["orders", "orders"]
