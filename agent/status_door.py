"""The socket `agent.sock` in the data directory: whoever connects is told the agent's status, and can say nothing.

Shares no lock with what collects or delivers; who does not read is left after a second. One side runs in the agent,
the other asks.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import orjson

from agent.body import dumps
from agent.clock import Clock
from agent.errors import AgentSilent
from agent.logs import tell
from agent.pulse import Pulse
from agent.status import Scoreboard

SOCKET_NAME = "agent.sock"
RETRY_S = 60.0  # until the next try, where there is no room for the socket
READER_S, ANSWER_S = 1.0, 5.0
LARGEST_ANSWER = 16 * 1_048_576
_PATH_BYTES = 107  # of the name of a socket


class StatusDoor:
    """Runs in its own thread; `stop` may be called from any."""

    def __init__(self, directory: Path, board: Scoreboard, clock: Clock) -> None:
        self.pulse = Pulse("status", clock)
        self._directory, self._board, self._clock = directory, board, clock
        self._word = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = self._is_running = False
        self._has_told = False

    def stop(self) -> None:
        """Ends at once."""
        self._stopping = True
        os.eventfd_write(self._word, 1)

    def close(self) -> None:
        """Gives back what `stop` needs, unless `run` hangs: then it keeps that."""
        if not self._is_running:
            os.close(self._word)

    def run(self) -> None:
        """Tells everyone who comes until it is stopped. May be called again after it died of a defect."""
        self._is_running = True
        try:
            while not self._stopping:
                self._listen()
        finally:
            self._is_running = False

    def _listen(self) -> None:
        try:
            with _listening(self._directory) as listener:
                self._has_told = False
                self._serve(listener)
        except OSError as error:
            self._cannot(error)
            self._wait(self._word, timeout_s=RETRY_S)

    def _serve(self, listener: socket.socket) -> None:
        while not self._stopping:
            if not self._wait(self._word, listener.fileno()):
                continue
            with suppress(OSError):  # it went again, or it does not read
                guest, _ = listener.accept()
                with guest:
                    guest.settimeout(READER_S)
                    guest.sendall(self._answer())

    def _answer(self) -> bytes:
        status = self._board.status(now_s=self._clock.monotonic(), now_unix=self._clock.unix())
        return dumps({"pid": os.getpid(), **status.overview()})

    def _wait(self, *descriptors: int, timeout_s: float | None = None) -> bool:
        """Whether the last of them has something to say."""
        self.pulse.beat("waiting", None)
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        return descriptors[-1] in dict(poll.poll(None if timeout_s is None else timeout_s * 1000))

    def _cannot(self, error: OSError) -> None:
        if not self._has_told:
            sentence = f"`status` sees the outbox only: no {SOCKET_NAME} ({error.strerror})"
            tell(logging.WARNING, "status.closed", sentence, seconds=RETRY_S)
        self._has_told = True


def ask(directory: Path) -> dict[str, Any] | None:
    """What the agent whose data directory that is says of itself; None when none listens there.

    Raises AgentSilent when one does and gives no whole answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(ANSWER_S)
        try:
            with _address(directory) as address:
                asking.connect(address)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        except OSError as error:  # another user's
            raise AgentSilent(f"{directory / SOCKET_NAME} ({error.strerror or error})") from None
        answer = bytearray()
        try:
            while len(answer) <= LARGEST_ANSWER and (piece := asking.recv(65_536)):
                answer += piece
            return cast("dict[str, Any]", orjson.loads(answer))
        except (OSError, orjson.JSONDecodeError) as error:
            raise AgentSilent(f"{directory / SOCKET_NAME} ({error})") from None


@contextmanager
def _listening(directory: Path) -> Iterator[socket.socket]:
    path = directory / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path.unlink(missing_ok=True)  # of an agent that was killed: the lock on the directory is ours
        with _address(directory) as address:
            listener.bind(address)
        ours = path.lstat().st_ino
        try:
            path.chmod(0o600)  # until then the directory keeps others away
            listener.listen()
            yield listener
        finally:
            with suppress(OSError):
                if path.lstat().st_ino == ours:  # and not that of an agent that came meanwhile
                    path.unlink()


@contextmanager
def _address(directory: Path) -> Iterator[str]:
    """The name of the socket, also where the path is longer than such names may be."""
    path = str(directory / SOCKET_NAME)
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield path
        return
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
