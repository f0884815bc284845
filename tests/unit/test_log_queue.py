"""Lines on their way to a standard error or a journal that is slow, full, or gone; over real pipes and sockets.

What could go wrong: who speaks waits for who reads; memory grows with what nobody reads; lines are left out in
silence, or more or fewer than was said; the order is lost; the end waits for a reader that never comes; what the
journal does not take is said nowhere, or twice.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.journal import Journal, entry
from agent.log_queue import LINES, LineQueue
from tests.fakes.journal_socket import JournalSocket, parsed
from tests.fakes.pipe import Pipe

WAIT_S = 10.0


def logger_to(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("mine", logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return logger


def in_time(what: Callable[[], object], seconds: float = WAIT_S) -> bool:
    """Whether it comes to its end, in a thread of its own."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def told(handler: logging.Handler, count: int, first: int = 0) -> None:
    logger = logger_to(handler)
    for number in range(first, first + count):
        logger.info("line %s", number)


def drain(handler: LineQueue) -> None:
    """As its `flush`, with more patience."""
    written = threading.Event()
    handler._lines.put(written, timeout=WAIT_S)
    assert written.wait(WAIT_S)


def end(handler: LineQueue) -> None:
    """As its `close`, with more patience."""
    handler._lines.put(None, timeout=WAIT_S)
    handler._thread.join(WAIT_S)
    assert not handler._thread.is_alive()


def missing(lines: list[str]) -> int:
    """How many lines are said to be missing."""
    notes = [re.match(r"([\d,]+) lines? (?:was|were) not written", line) for line in lines]
    return sum(int(note[1].replace(",", "")) for note in notes if note)


def numbers(lines: list[str]) -> list[int]:
    return [int(line.removeprefix("line ")) for line in lines if line.startswith("line ")]


def test_lines_come_in_order_and_all_of_them(pipe: Pipe) -> None:
    handler = LineQueue(pipe.writer)
    pipe.read()
    told(handler, LINES)
    end(handler)
    assert numbers(pipe.close()) == list(range(LINES))


def test_who_speaks_does_not_wait_and_control_with_a_plain_handler_does(pipe: Pipe) -> None:
    pipe.fill()
    handler = LineQueue(pipe.writer)
    assert in_time(lambda: told(handler, 3 * LINES))
    with os.fdopen(os.dup(pipe.writer), "w") as stream:
        plain = logging.StreamHandler(stream)
        assert not in_time(lambda: told(plain, 1), seconds=1.0)
        pipe.read()  # and the plain one goes on
        plain.flush()
    end(handler)
    assert "line 0" in pipe.close()


def test_what_was_not_written_is_counted_and_said_when_the_reader_is_back(pipe: Pipe) -> None:
    pipe.fill()
    handler = LineQueue(pipe.writer, lines=100)
    told(handler, 1_000)
    assert handler._lines.qsize() <= 100  # memory does not grow with what nobody reads
    pipe.read()
    end(handler)
    lines = pipe.close()
    found = numbers(lines)
    assert found == list(range(len(found)))
    assert len(found) in {100, 101}  # one is in the hand of the writer, if it was quick
    assert (missing(lines), lines[-1]) == (
        1_000 - len(found),
        f"{missing(lines)} lines were not written: nobody took them",
    )


def test_it_is_said_where_they_are_missing_and_what_follows_is_whole(pipe: Pipe) -> None:
    pipe.fill()
    handler = LineQueue(pipe.writer, lines=100)
    told(handler, 500)
    pipe.read()
    drain(handler)
    told(handler, 50, first=500)
    end(handler)
    lines = pipe.close()
    note = next(at for at, line in enumerate(lines) if missing([line]))
    assert numbers(lines[:note]) == list(range(note))
    assert numbers(lines[note + 1 :]) == list(range(500, 550))
    assert note + missing(lines) == 500


def test_every_line_is_written_or_counted_also_while_a_slow_reader_comes_and_goes(pipe: Pipe) -> None:
    handler = LineQueue(pipe.writer, lines=50)
    speakers = [threading.Thread(target=told, args=(handler, 2_000, 10_000 * number)) for number in range(4)]
    # One handler for four loggers: `told` only sets the same format again.
    pipe.read()
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
    end(handler)
    lines = pipe.close()
    found = numbers(lines)
    assert len(found) + missing(lines) == 8_000
    assert len(set(found)) == len(found)
    for number in range(4):
        mine = [each for each in found if each // 10_000 == number]
        assert mine == sorted(mine)


def test_a_reader_that_is_gone_ends_nobody_and_what_it_missed_is_counted(pipe: Pipe) -> None:
    pipe.end(pipe.reader)
    handler = LineQueue(pipe.writer)
    told(handler, 10)
    drain(handler)
    assert (handler._missed, handler._thread.is_alive()) == (10, True)
    end(handler)


def test_a_full_disk_loses_lines_and_says_so_when_there_is_room(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    handler = LineQueue(full)
    told(handler, 7)
    drain(handler)
    assert handler._missed == 7
    path = tmp_path / "log"
    with path.open("wb") as log:
        os.dup2(log.fileno(), full)
    told(handler, 2, first=7)
    end(handler)
    assert path.read_text().splitlines() == ["7 lines were not written: nobody took them", "line 7", "line 8"]
    os.close(full)


def test_the_end_waits_for_a_reader_but_not_for_ever(pipe: Pipe) -> None:
    pipe.fill()
    handler = LineQueue(pipe.writer, lines=10)
    told(handler, 100)
    assert in_time(handler.flush)
    assert in_time(handler.close)
    assert (handler._thread.is_alive(), pipe.text) == (True, b"")  # it came to an end although nothing was written
    pipe.read()
    end(handler)
    assert numbers(pipe.close())[:10] == list(range(10))


AT_THE_END = """
import logging, sys
from agent import logs
logs.set_up("INFO", "text")
if sys.argv[1] == "plain":
    logs.LOGGER.handlers[:] = [logging.StreamHandler(sys.stderr)]
for number in range(int(sys.argv[2])):
    logs.tell(logging.INFO, "word", f"line {number}")
"""


def ended(pipe: Pipe, handler: str, lines: int, seconds: float) -> int:
    """The exit code of a program that says so many lines to that pipe and ends. Raises TimeoutExpired."""
    argv = [sys.executable, "-c", AT_THE_END, handler, str(lines)]
    return subprocess.run(argv, stderr=pipe.writer, timeout=seconds, check=False).returncode


def test_a_process_ends_with_a_standard_error_that_nobody_reads_and_control_a_plain_one_does_not(pipe: Pipe) -> None:
    pipe.fill()
    assert ended(pipe, "queue", 5_000, seconds=30) == 0
    with pytest.raises(subprocess.TimeoutExpired):
        ended(pipe, "plain", 1, seconds=5)


def test_a_process_that_ends_at_once_has_said_everything(pipe: Pipe) -> None:
    pipe.read()
    assert ended(pipe, "queue", 300, seconds=30) == 0
    lines = pipe.close()
    assert [int(line.rsplit(" ", 1)[1]) for line in lines] == list(range(300))


# -- the journal -------------------------------------------------------------------------------------------------------


def as_entry(record: logging.LogRecord) -> bytes:
    return entry(record.levelno, record.getMessage(), "e", {})


def queue_to(descriptor: int, address: Path, **options: int) -> LineQueue:
    handler = LineQueue(descriptor, journal=Journal(str(address)), **options)
    handler.make_entry = as_entry
    return handler


def test_entries_go_to_the_journal_in_order_and_no_line_beside_them(pipe: Pipe, tmp_path: Path) -> None:
    with JournalSocket(tmp_path / "journal") as journal:
        handler = queue_to(pipe.writer, tmp_path / "journal")
        told(handler, LINES)
        end(handler)
        assert journal.wait_for(lambda heard: len(heard) == LINES, WAIT_S)
        assert journal.messages() == [f"e line {number}" for number in range(LINES)]
    pipe.read()
    assert pipe.close() == []


def test_where_the_journal_is_away_lines_go_where_they_went_without_it_and_back_again(
    pipe: Pipe, tmp_path: Path
) -> None:
    pipe.read()
    handler = queue_to(pipe.writer, tmp_path / "journal")
    told(handler, 5)
    drain(handler)
    with JournalSocket(tmp_path / "journal") as journal:
        told(handler, 5, first=5)
        drain(handler)
        assert journal.wait_for(lambda heard: len(heard) == 5, WAIT_S)
        assert journal.messages() == [f"e line {number}" for number in range(5, 10)]
    told(handler, 5, first=10)
    end(handler)
    assert numbers(pipe.close()) == [*range(5), *range(10, 15)]


def test_a_journal_that_does_not_read_holds_up_nobody_and_what_it_missed_is_counted(pipe: Pipe, tmp_path: Path) -> None:
    pipe.read()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "journal"))
        handler = queue_to(pipe.writer, tmp_path / "journal", lines=100)
        assert in_time(lambda: told(handler, 5_000))
        assert handler._lines.qsize() <= 100
        assert in_time(handler.flush)
        deaf.settimeout(WAIT_S)
        heard: list[str] = []
        while not missing([each.removeprefix("e ") for each in heard[-1:]]):
            heard.append(parsed(deaf.recv(65_536))["MESSAGE"])
        end(handler)
    lines = [each.removeprefix("e ") for each in heard]
    found = numbers(lines)
    assert found == list(range(len(found)))
    assert len(found) + missing(lines) == 5_000
    assert pipe.close() == []


def test_a_journal_that_goes_away_while_it_does_not_read_holds_up_nobody(pipe: Pipe, tmp_path: Path) -> None:
    pipe.read()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "journal"))
        handler = queue_to(pipe.writer, tmp_path / "journal")
        told(handler, 1_000)
        assert not in_time(lambda: drain(handler), seconds=1.0)  # it hangs
    end(handler)
    found = numbers(pipe.close())
    assert found == list(range(found[0], 1_000))  # what it had taken is its own
