"""How the agent speaks.

What could go wrong: a field is called like one of `logging`'s own and ends the thread that speaks; a line is no JSON; a
server's message of several lines looks like several lines of ours; everything is said twice; the level does not hold;
the warning of a package is lost, or written past the queue to a standard error that nobody reads; under systemd a
person or a program reads the half of it; another level or style at a reload starts a second writer.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import journal
from agent.logs import LOGGER, is_for_machines, set_up, tell
from tests.fakes.journal_socket import JournalSocket


def written(capfd: pytest.CaptureFixture[str]) -> str:
    """What has reached standard error since the last time, with everything that was told before."""
    for handler in LOGGER.handlers:
        handler.flush()
    return capfd.readouterr().err


def test_a_sentence_with_its_event_and_fields(capfd: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "text")
    tell(logging.INFO, "outbox.opened", "The outbox is open", records=3, path="/data")
    err, out = written(capfd), capfd.readouterr().out
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO outbox\.opened The outbox is open \(records=3, path=/data\)\n",
        err,
    )
    assert out == ""


def test_a_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "json")
    tell(logging.WARNING, "delivery.wrong", "Grüße\nvon drüben", code="BE-01", odd=object, level="mine", time=5)
    (line,) = written(capfd).splitlines()
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
def test_a_field_may_have_any_name(capfd: pytest.CaptureFixture[str], style: str, name: str) -> None:
    set_up("INFO", style)
    tell(logging.INFO, "word", "sentence", **{name: "value"})
    assert "sentence" in written(capfd)


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_message_of_several_lines_is_one_line_of_ours(capfd: pytest.CaptureFixture[str], style: str) -> None:
    set_up("INFO", style)
    tell(logging.INFO, "word", "first\nsecond\r\nthird\u2028fourth", field="a\nb")
    assert written(capfd).count("\n") == 1


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_a_server_says_moves_no_cursor(capfd: pytest.CaptureFixture[str], style: str) -> None:
    set_up("INFO", style)
    evil = "\x1b[2J\x9b31m\u202e\x07\r\x00"
    LOGGER.error("defect %s", evil, exc_info=(ValueError, ValueError(f"said {evil}"), None))
    tell(logging.INFO, "x", f"a{evil}b", said=evil)
    assert [line for line in written(capfd).split("\n") if not line.isprintable()] == []


@pytest.mark.parametrize("style", ["text", "json"])
def test_text_that_is_no_unicode_can_be_said(capfd: pytest.CaptureFixture[str], style: str) -> None:
    set_up("INFO", style)
    tell(logging.INFO, "word", "path \udcff", path="\udcff")
    shown = written(capfd)
    assert "path " in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_defect_is_told_with_its_traceback(capfd: pytest.CaptureFixture[str], style: str) -> None:
    set_up("INFO", style)
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        LOGGER.exception("the thread ended", extra={"event": "worker.died"})
    shown = written(capfd)
    assert [
        word for word in ("worker.died", "the thread ended", "Traceback", "ZeroDivisionError") if word not in shown
    ] == []


def test_what_is_below_the_level_is_not_said(capfd: pytest.CaptureFixture[str]) -> None:
    set_up("WARNING", "text")
    tell(logging.INFO, "word", "quiet")
    tell(logging.WARNING, "word", "loud")
    assert [line.split()[-1] for line in written(capfd).splitlines()] == ["loud"]


def test_setting_up_twice_says_nothing_twice(capfd: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "text")
    set_up("INFO", "json")
    tell(logging.INFO, "word", "once")
    assert len(written(capfd).splitlines()) == 1


def test_a_percent_sign_is_only_a_percent_sign(capfd: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "text")
    tell(logging.INFO, "word", "100 %s")
    assert "100 %s" in written(capfd)


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_warning_of_a_package_takes_the_same_way(capfd: pytest.CaptureFixture[str], style: str) -> None:
    set_up("ERROR", style)
    package = logging.getLogger(f"a_package_{style}")
    package.propagate = False  # here pytest listens at the root
    package.warning("odd header")
    package.info("chatter")
    assert LOGGER.handlers == [logging.lastResort]
    (line,) = written(capfd).splitlines()
    assert all(word in line for word in ("WARNING", package.name, "odd header"))


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_python_itself_warns_of_is_a_line_of_ours(capfd: pytest.CaptureFixture[str], style: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        set_up("ERROR", style)
        logging.getLogger("py.warnings").propagate = False  # here pytest listens at the root
        warnings.warn("this connection is not verified", RuntimeWarning, stacklevel=1)
    (line,) = written(capfd).splitlines()
    assert all(word in line for word in ("WARNING", "py.warnings", "RuntimeWarning: this connection is not verified"))
    assert style == "text" or json.loads(line)["event"] == "py.warnings"


def test_who_reads_it_is_known(capfd: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "text")
    assert not is_for_machines()
    set_up("INFO", "json")
    assert is_for_machines()


# What machines listen to. A word may come to this list and none may go: somebody's alarm hangs on it.
WORDS = {
    *("agent.started", "agent.stopping", "agent.stopped", "agent.abandoned"),
    *("collection.first", "delivery.first", "heartbeat.first"),
    *("command.received", "command.refused", "command.postponed", "config.exposed", "gap.recorded", "word.wrong"),
    *("delivery.gone", "delivery.partial", "delivery.parked", "outbox.damaged", "outbox.not_open", "log.missed"),
    *("budget.stretched", "budget.kept", "thread.stuck", "thread.unstuck", "worker.died", "worker.replaced"),
    *("status.closed", "systemd.wrong", "watch.entered"),
}
ABOUT = {"collection", "delivery", "results", "outbox", "heartbeat", "texts"}  # of these: wrong, right, unsteady ...


def test_the_words_of_events_stay() -> None:
    root = Path(__file__).parents[2] / "agent"
    text = "\n".join(path.read_text() for path in root.rglob("*.py"))
    assert [word for word in sorted(WORDS) if f'"{word}"' not in text] == []
    assert [word for word in sorted(ABOUT) if f'"{word}"' not in text] == []
    assert [word for word in ("wrong", "right", "unsteady", "steady", "still") if f'"{word}"' not in text] == []


def test_a_program_without_standard_error_writes_into_no_file_of_its_own(tmp_path: Path) -> None:
    # The descriptor is free then, and the next file that is opened gets its number.
    program = (
        "import logging, os, sys\n"
        "from agent import logs\n"
        "assert sys.stderr is None\n"
        "assert os.open(sys.argv[1], os.O_RDWR | os.O_CREAT) == 2\n"
        "logs.set_up('INFO', 'text')\n"
        "logs.tell(logging.ERROR, 'word', 'sentence')\n"
    )
    path = tmp_path / "precious"
    script = 'exec "$0" -c "$1" "$2" 2>&-'
    subprocess.run(["sh", "-c", script, sys.executable, program, str(path)], timeout=30, check=True)
    assert path.read_bytes() == b""


# -- the journal -------------------------------------------------------------------------------------------------------


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalSocket]:
    with JournalSocket(tmp_path / "journal") as listening:
        monkeypatch.setattr(journal, "SOCKET", listening.address)
        yield listening


def under_systemd() -> dict[str, str]:
    """What systemd says when it is our standard error that goes to the journal."""
    found = os.fstat(2)
    return {journal.STREAM: f"{found.st_dev}:{found.st_ino}"}


def test_under_systemd_what_is_told_goes_to_the_journal_with_its_fields(
    journald: JournalSocket, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("INFO", "text", under_systemd())
    tell(logging.WARNING, "delivery.wrong", "Away\nfor a while", code="BE-01")
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        LOGGER.exception("the thread ended", extra={"event": "worker.died"})
    assert journald.wait_for(lambda heard: len(heard) == 2, 10)
    wrong, died = journald.entries
    assert (wrong["MESSAGE"], wrong["PRIORITY"]) == ("delivery.wrong Away for a while", "4")
    assert (wrong["DBPOWER_EVENT"], wrong["DBPOWER_CODE"]) == ("delivery.wrong", "BE-01")
    assert died["MESSAGE"].splitlines()[0] == "worker.died the thread ended"
    assert "ZeroDivisionError" in died["MESSAGE"].splitlines()[-1]
    assert written(capfd) == ""


@pytest.mark.parametrize("style", ["text", "json"])
def test_who_asks_for_json_or_is_not_under_systemd_gets_lines(
    journald: JournalSocket, capfd: pytest.CaptureFixture[str], style: str
) -> None:
    set_up("INFO", style, under_systemd() if style == "json" else {journal.STREAM: "1:1"})
    tell(logging.INFO, "word", "sentence")
    assert len(written(capfd).splitlines()) == 1
    assert journald.heard == []


def test_another_level_and_style_take_effect_with_the_same_writer(
    journald: JournalSocket, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("INFO", "text", under_systemd())
    writer = LOGGER.handlers[0]
    tell(logging.DEBUG, "word", "not heard")
    tell(logging.INFO, "word", "first")
    set_up("DEBUG", "json", under_systemd())
    tell(logging.DEBUG, "word", "second")
    assert json.loads(written(capfd))["message"] == "second"
    set_up("ERROR", "text", under_systemd())
    tell(logging.INFO, "word", "not heard")
    tell(logging.ERROR, "word", "third")
    assert journald.wait_for(lambda heard: len(heard) == 2, 10)
    assert journald.messages() == ["word first", "word third"]
    assert LOGGER.handlers == [writer] == [logging.lastResort]
