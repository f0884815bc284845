"""A real agent process whose standard error is a full pipe that nobody reads.

What could go wrong: a thread that has something to say waits for the reader, so that the heartbeat stops and the
backend shows OFFLINE; the end waits for the reader and the service manager has to kill; what was said meanwhile is gone
when the reader comes back.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from agent.dev.server_process import free_port
from tests.fakes.pipe import Pipe
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, settings, write

SOON_S, END_S = 30.0, 10.0

# The agent as it is, but with the handler of the standard library.
WITH_A_PLAIN_HANDLER = """
import logging, sys
from agent import cli, logs

def plain(level, style):
    logs.LOGGER.handlers[:] = [logging.StreamHandler(sys.stderr)]
    logs.LOGGER.setLevel(level)

logs.set_up = plain
cli.main()
"""


def config(directory: Path, stub: StubBackend) -> Path:
    return write(directory, settings(stub, "mysql", {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}))


def has_something_to_say(stub: StubBackend) -> None:
    """The backend goes wrong and comes back, and each heartbeat that notices it tells so in the log."""
    stub.break_down("500")
    before = stub.requests
    assert stub.wait_for(lambda each: each.requests > before + 1, SOON_S)
    stub.recover()


def go_on(stub: StubBackend, count: int, timeout_s: float) -> bool:
    """Whether so many more heartbeats come in time."""
    goal = len(stub.heartbeats) + count
    return stub.wait_for(lambda each: len(each.heartbeats) >= goal, timeout_s)


def test_heartbeats_go_on_it_ends_in_time_and_what_it_said_is_there_for_a_late_reader(
    stub: StubBackend, pipe: Pipe, tmp_path: Path
) -> None:
    path = config(tmp_path, stub)
    pipe.fill()
    with AgentProcess(path, standard_error=pipe.writer) as agent:
        assert go_on(stub, 3, SOON_S)
        has_something_to_say(stub)
        assert go_on(stub, 10, SOON_S)
        pipe.read()
        assert agent.end(timeout_s=END_S) == 0
    events = [json.loads(line)["event"] for line in pipe.close()]
    assert events[0] == "agent.started"
    assert events[-1] == "agent.stopped"
    assert {"collection.wrong", "heartbeat.wrong", "heartbeat.right"} <= set(events)


@pytest.mark.parametrize("hangs", ["nothing", "backend"])
def test_it_ends_in_time_also_when_the_reader_never_comes(
    stub: StubBackend, pipe: Pipe, tmp_path: Path, hangs: str
) -> None:
    pipe.fill()
    with AgentProcess(config(tmp_path, stub), standard_error=pipe.writer) as agent:
        assert go_on(stub, 3, SOON_S)
        if hangs == "backend":
            before = stub.requests
            stub.break_down("hanging")
            assert stub.wait_for(lambda each: each.requests > before, SOON_S)
        assert agent.end(timeout_s=END_S) == 0
    stub.recover()


def test_control_with_a_plain_handler_the_heartbeats_stop_and_it_does_not_end(
    stub: StubBackend, pipe: Pipe, tmp_path: Path
) -> None:
    words = ("-c", WITH_A_PLAIN_HANDLER, "--config", str(config(tmp_path, stub)))
    with AgentProcess(tmp_path / "config.json", *words, standard_error=pipe.writer) as agent:
        assert go_on(stub, 3, SOON_S)
        pipe.fill()
        before = stub.requests
        stub.break_down("500")
        assert stub.wait_for(lambda each: each.requests > before, SOON_S)  # this heartbeat has something to say
        stub.recover()
        assert not go_on(stub, 2, 5.0)
        with pytest.raises(subprocess.TimeoutExpired):
            agent.end(timeout_s=END_S)
