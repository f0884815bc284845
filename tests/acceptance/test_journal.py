"""A real agent whose standard error is the journal's, as systemd starts it.

What could go wrong: what it tells loses its fields on the way; it waits for a journal that does not read, so that
heartbeats stop or it cannot be ended; without a journal it is mute; a secret is in a field.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from agent.dev.server_process import free_port
from agent.journal import STREAM
from tests.fakes.journal_socket import JournalSocket
from tests.fakes.pipe import Pipe
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, settings, write

SOON_S, END_S = 30.0, 10.0
SECRET = "hunter2-is-secret"

# The agent as it is, but for the place where the journal listens.
PROGRAM = """
import sys
from agent import cli, journal

journal.SOCKET = sys.argv.pop(1)
cli.main()
"""


def started(directory: Path, stub: StubBackend, pipe: Pipe, *words: str) -> AgentProcess:
    """Standard error is that pipe, and systemd says that the journal is behind it."""
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "nobody", "password": SECRET}
    path = write(directory, settings(stub, "mysql", db_config))
    found = os.fstat(pipe.writer)
    variables = {STREAM: f"{found.st_dev}:{found.st_ino}"}
    program = ("-c", PROGRAM, str(directory / "journal"), "--config", str(path), *words)
    return AgentProcess(path, *program, standard_error=pipe.writer, variables=variables)


def beats(stub: StubBackend, count: int) -> bool:
    goal = len(stub.heartbeats) + count
    return stub.wait_for(lambda each: len(each.heartbeats) >= goal, SOON_S)


def test_what_it_tells_comes_with_its_fields_and_nothing_goes_beside(
    stub: StubBackend, pipe: Pipe, tmp_path: Path
) -> None:
    pipe.read()
    with JournalSocket(tmp_path / "journal") as journal, started(tmp_path, stub, pipe) as agent:
        assert beats(stub, 3)
        assert agent.end(timeout_s=END_S) == 0
        entries = {entry["DBPOWER_EVENT"]: entry for entry in journal.entries}
    assert entries["agent.started"]["MESSAGE"].startswith("agent.started Watching mysql at 127.0.0.1:")
    assert (entries["agent.started"]["PRIORITY"], entries["agent.started"]["DBPOWER_PID"]) == ("6", str(agent.pid))
    wrong = entries["collection.wrong"]
    assert (wrong["PRIORITY"], wrong["DBPOWER_CODE"], wrong["DBPOWER_WATCH"]) == ("4", "DB-01", "default")
    assert "agent.stopped" in entries
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries.values()} == {"dbpower-agent"}
    assert SECRET not in str(entries)
    assert stub.api_key not in str(entries)
    assert pipe.close() == []


def test_a_journal_that_does_not_read_stops_neither_heartbeats_nor_the_end(
    stub: StubBackend, pipe: Pipe, tmp_path: Path
) -> None:
    pipe.read()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "journal"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            filler.connect(str(tmp_path / "journal"))
            with suppress(BlockingIOError):
                while True:
                    filler.send(b"x")
            with pytest.raises(BlockingIOError):  # nothing fits any more
                filler.send(b"x")
        with started(tmp_path, stub, pipe) as agent:
            assert beats(stub, 10)
            assert agent.end(timeout_s=END_S) == 0
    assert pipe.close() == []


def test_without_a_journal_the_lines_are_on_standard_error(stub: StubBackend, pipe: Pipe, tmp_path: Path) -> None:
    pipe.read()
    with started(tmp_path, stub, pipe) as agent:
        assert beats(stub, 3)
        assert agent.end(timeout_s=END_S) == 0
    lines = pipe.close()
    assert [line.split()[2] for line in (lines[0], lines[-1])] == ["agent.started", "agent.stopped"]


def test_who_asks_for_json_gets_lines_of_json(stub: StubBackend, pipe: Pipe, tmp_path: Path) -> None:
    pipe.read()
    with JournalSocket(tmp_path / "journal") as journal:
        with started(tmp_path, stub, pipe, "--log-format", "json") as agent:
            assert beats(stub, 3)
            assert agent.end(timeout_s=END_S) == 0
        assert journal.heard == []
    assert all(line.startswith("{") for line in pipe.close())
