"""What signals mean, to real processes.

What could go wrong: a hangup ends a service that should read its configuration again, or leaves a process alive whose
terminal was closed; `nohup` counts for nothing; a signal that comes before anybody conducts is lost, or ends a process
that was only asked to reload; an end is not heard while nobody conducts.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.servers.agent_process import ROOT

WAIT_S = 20.0
PROGRAM = """
import queue, sys
from agent.signals import Signals

inbox = queue.SimpleQueue()
signals = Signals(inbox.put)
print("waiting", flush=True)
if "conducts" in sys.argv:
    signals.put_words()
    print("conducting", flush=True)
elif "late" in sys.argv:  # nobody conducts until somebody says so
    sys.stdin.readline()
    signals.put_words()
    print("conducting", flush=True)
while True:
    print(type(inbox.get(timeout=60)).__name__, flush=True)
"""


class Child:
    def __init__(self, process: subprocess.Popen[str], last_line: str) -> None:
        self.process = process
        while self.line() != last_line:
            pass

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        return self.process.wait(WAIT_S)


@contextmanager
def child(word: str, *, prepare: Callable[[], None] | None = None, terminal: int | None = None) -> Iterator[Child]:
    """The program, in a session of its own: without a terminal, or with that one."""

    def begin() -> None:
        os.setsid()
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        if prepare is not None:
            prepare()

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, word],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=begin,  # noqa: PLW1509 - no thread runs beside
    )
    with process:
        try:
            yield Child(process, "conducting" if word == "conducts" else "waiting")
        finally:
            process.kill()


@contextmanager
def pty() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal; the first one may be closed meanwhile."""
    ours, theirs = os.openpty()
    try:
        yield ours, theirs
    finally:
        for end in (ours, theirs):
            with suppress(OSError):
                os.close(end)


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGHUP, "Reload"), (signal.SIGTERM, "Stop"), (signal.SIGINT, "Stop")]
)
def test_each_signal_is_a_word_for_whoever_conducts(number: signal.Signals, word: str) -> None:
    with child("conducts") as process:
        for _ in range(3):
            process.send(number)
            assert process.line() == word


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_nobody_conducts_an_end_is_one_at_once(number: signal.Signals) -> None:
    with child("waits") as process:
        process.send(number)
        assert process.ends() == 0


def test_a_reload_that_is_asked_for_before_anybody_conducts_is_kept_until_then() -> None:
    with child("late") as process:
        process.send(signal.SIGHUP)
        assert process.process.stdin is not None
        process.process.stdin.write("go on\n")
        process.process.stdin.flush()
        assert [process.line(), process.line()] == ["conducting", "Reload"]


def ignore_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_where_a_hangup_was_ignored_it_is_left_so() -> None:
    with child("conducts", prepare=ignore_hangups) as process:
        process.send(signal.SIGHUP)
        process.send(signal.SIGTERM)
        assert process.line() == "Stop"
    with pty() as (_, theirs), child("waits", prepare=ignore_hangups, terminal=theirs) as process:
        process.send(signal.SIGHUP)
        process.send(signal.SIGTERM)
        assert process.ends() == 0
        assert process.line() == ""


@pytest.mark.parametrize("word", ["conducts", "waits"])
def test_the_terminal_that_is_closed_means_the_end(word: str) -> None:
    with pty() as (ours, theirs), child(word, terminal=theirs) as process:
        os.close(theirs)
        os.close(ours)  # the kernel sends the hangup
        if word == "conducts":
            assert process.line() == "Stop"
        else:
            assert process.ends() == 0


def test_control_without_a_terminal_nothing_happens_when_another_one_is_closed() -> None:
    with child("conducts") as process:
        with pty():
            pass
        process.send(signal.SIGHUP)
        assert process.line() == "Reload"


def test_control_without_us_a_hangup_ends_a_process() -> None:
    argv = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.wait(WAIT_S) == -signal.SIGHUP
