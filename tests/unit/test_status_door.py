"""The socket on which a running agent tells its status.

What could go wrong: somebody else may ask; a guest who reads nothing, or says something, holds up the next one; what an
agent left that was killed keeps the next one from opening; a long path is refused; no room for the socket ends the
thread; the end is not heard; who asks waits for ever, or takes half an answer for a whole one; a thread that hangs is
left with the number of a descriptor that is another file's by then.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from agent import status_door
from agent.clock import Clock
from agent.errors import AgentSilent
from agent.status import Scoreboard
from agent.status_door import SOCKET_NAME, StatusDoor, ask

WAIT_S = 20.0


@contextmanager
def running(directory: Path, board: Scoreboard | None = None) -> Iterator[StatusDoor]:
    with closing(StatusDoor(directory, board or Scoreboard(0.0), Clock())) as door:
        thread = threading.Thread(target=door.run, daemon=True)
        thread.start()
        try:
            yield door
        finally:
            door.stop()
            thread.join(WAIT_S)
            assert not thread.is_alive()


def wait_until(met: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if met():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")


def opened(directory: Path) -> bool:
    """Whether somebody listens: the name is there before."""
    with suppress(OSError), guest(directory):
        return True
    return False


@contextmanager
def guest(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_S)
        connection.connect(str(directory / SOCKET_NAME))
        yield connection


def test_who_asks_is_told_what_the_board_shows_at_that_moment(tmp_path: Path) -> None:
    board = Scoreboard(0.0)
    board.report("default", state="collecting", reason="why")
    with running(tmp_path, board):
        wait_until(lambda: opened(tmp_path))
        first = ask(tmp_path)
        board.report("default", state="idle")
        second = ask(tmp_path)
    assert first is not None
    assert second is not None
    assert (first["pid"], first["watches"]["default"]["state"]) == (os.getpid(), "collecting")
    assert second["watches"]["default"]["state"] == "idle"


def test_only_its_own_user_may_ask(tmp_path: Path) -> None:
    with running(tmp_path):
        wait_until(lambda: opened(tmp_path))
        mode = (tmp_path / SOCKET_NAME).stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)


def test_the_end_takes_the_socket_away_and_nobody_answers(tmp_path: Path) -> None:
    with running(tmp_path):
        wait_until(lambda: opened(tmp_path))
    assert not (tmp_path / SOCKET_NAME).exists()
    assert ask(tmp_path) is None
    assert ask(tmp_path / "nowhere") is None


def test_what_a_killed_agent_left_is_no_answer_and_no_obstacle(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET_NAME))
    assert (tmp_path / SOCKET_NAME).exists()
    assert ask(tmp_path) is None
    with running(tmp_path):
        wait_until(lambda: ask(tmp_path) is not None)


def test_the_end_leaves_the_socket_of_another_agent_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        wait_until(lambda: opened(tmp_path))
        (tmp_path / SOCKET_NAME).unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / SOCKET_NAME))
    assert (tmp_path / SOCKET_NAME).exists()


def test_a_guest_that_does_not_read_holds_up_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_door, "READER_S", 0.5)
    board = Scoreboard(0.0)
    board.report("default", reason="x" * 1_000_000)  # more than a socket takes without a reader
    with running(tmp_path, board):
        wait_until(lambda: opened(tmp_path))
        with guest(tmp_path) as deaf, guest(tmp_path) as other:
            answer = b""
            while piece := other.recv(1_048_576):
                answer += piece
            assert len(answer) > 1_000_000
            received = 0
            while piece := deaf.recv(1_048_576):
                received += len(piece)
            assert 0 < received < 1_000_000  # it was left in the middle: the fault did happen


def test_what_a_guest_says_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path):
        wait_until(lambda: opened(tmp_path))
        with guest(tmp_path) as talker, suppress(OSError):  # it may have been answered and left already
            talker.sendall(b'{"command": "stop"}')
        assert ask(tmp_path) is not None


def test_a_path_longer_than_the_name_of_a_socket_may_be(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with pytest.raises(OSError, match="too long"), socket.socket(socket.AF_UNIX) as plain:
        plain.bind(str(deep / SOCKET_NAME))
    with running(deep):
        wait_until(lambda: ask(deep) is not None)


def test_without_room_it_is_tried_again_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("dbpower").propagate = True
    tries = []

    def full(self: Path, mode: int) -> None:
        tries.append(mode)
        if len(tries) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", full)
    monkeypatch.setattr(status_door, "RETRY_S", 0.01)
    with running(tmp_path):
        wait_until(lambda: ask(tmp_path) is not None)
    assert len(tries) == 3
    told = [record.getMessage() for record in caplog.records if record.name == "dbpower"]
    assert told == ["`status` sees the outbox only: no agent.sock (No space left on device)"]


@pytest.mark.parametrize("said", [b"", b'{"pid": 1', b"<html>"])
def test_half_an_answer_is_none(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(AgentSilent, match=SOCKET_NAME):
            ask(tmp_path)
        thread.join(WAIT_S)


def test_who_asks_an_agent_that_hangs_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_door, "ANSWER_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen()
        with pytest.raises(AgentSilent, match="timed out"):
            ask(tmp_path)


def test_an_answer_without_end_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_door, "LARGEST_ANSWER", 1_000)
    board = Scoreboard(0.0)
    board.report("default", reason="x" * 100_000)
    with running(tmp_path, board):
        wait_until(lambda: opened(tmp_path))
        with pytest.raises(AgentSilent):
            ask(tmp_path)


def test_a_thread_that_hangs_keeps_its_descriptor_and_one_that_has_ended_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, go_on = threading.Event(), threading.Event()

    @contextmanager
    def hang(_: Path) -> Iterator[socket.socket]:
        hung.set()
        go_on.wait(WAIT_S)
        raise OSError(errno.EIO, "the disk")
        yield

    monkeypatch.setattr(status_door, "_listening", hang)
    door = StatusDoor(tmp_path, Scoreboard(0.0), Clock())
    thread = threading.Thread(target=door.run, daemon=True)
    thread.start()
    assert hung.wait(WAIT_S)
    door.stop()
    door.close()
    os.fstat(door._word)  # it is still there
    go_on.set()
    thread.join(WAIT_S)
    door.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(door._word)
