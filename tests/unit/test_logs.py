"""How the agent speaks.

What could go wrong: a field is called like one of `logging`'s own and ends the thread that speaks; a line is no JSON; a
server's message of several lines looks like several lines of ours; everything is said twice; the level does not hold.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from agent.logs import LOGGER, set_up, tell


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[None]:
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:], LOGGER.level, LOGGER.propagate = before


def test_a_sentence_with_its_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "text")
    tell(logging.INFO, "outbox.opened", "The outbox is open", records=3, path="/data")
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO outbox\.opened The outbox is open \(records=3, path=/data\)\n",
        captured.err,
    )
    assert captured.out == ""


def test_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "json")
    tell(logging.WARNING, "delivery.wrong", "Grüße\nvon drüben", code="BE-01", odd=object, level="mine", time=5)
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    stamp = entry.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert entry == {
        "level": "WARNING",
        "event": "delivery.wrong",
        "message": "Grüße\nvon drüben",
        "code": "BE-01",
        "odd": "<class 'object'>",
    }


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("name", sorted({*logging.makeLogRecord({}).__dict__, "message", "asctime", "fields"}))
def test_a_field_may_have_any_name(capsys: pytest.CaptureFixture[str], style: str, name: str) -> None:
    set_up("INFO", style)
    tell(logging.INFO, "word", "sentence", **{name: "value"})
    assert "sentence" in capsys.readouterr().err


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_message_of_several_lines_is_one_line_of_ours(capsys: pytest.CaptureFixture[str], style: str) -> None:
    set_up("INFO", style)
    tell(logging.INFO, "word", "first\nsecond\r\nthird\u2028fourth", field="a\nb")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("style", ["text", "json"])
def test_text_that_is_no_unicode_can_be_said(capfd: pytest.CaptureFixture[str], style: str) -> None:
    set_up("INFO", style)
    tell(logging.INFO, "word", "path \udcff", path="\udcff")
    shown = capfd.readouterr().err
    assert "path " in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_defect_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str], style: str) -> None:
    set_up("INFO", style)
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        LOGGER.exception("the thread ended", extra={"event": "worker.died"})
    shown = capsys.readouterr().err
    assert [
        word for word in ("worker.died", "the thread ended", "Traceback", "ZeroDivisionError") if word not in shown
    ] == []


def test_what_is_below_the_level_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("WARNING", "text")
    tell(logging.INFO, "word", "quiet")
    tell(logging.WARNING, "word", "loud")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_setting_up_twice_says_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "text")
    set_up("INFO", "json")
    tell(logging.INFO, "word", "once")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_percent_sign_is_only_a_percent_sign(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "text")
    tell(logging.INFO, "word", "100 %s")
    assert "100 %s" in capsys.readouterr().err
