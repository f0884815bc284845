"""A real agent process with a thread that lives and stands still.

What could go wrong: the agent looks healthy for ever, to the backend, to systemd, in the log; what is stuck is told,
but not that it goes on; systemd's ticks go on while it is stuck, or do not come back; a healthy agent, or one that was
stopped and continued as a whole, is called stuck; it cannot be ended.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from agent.dev.server_process import free_port, wait_until
from agent.status_door import ask
from tests.fakes.notify_socket import NotifySocket
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import AgentProcess, run_agent, settings, write
from tests.servers.frozen_agent import DOOR

SOON_S = 60.0
WATCHDOG_S = 0.9
SLACK_S, LONG_SLACK_S = 2.0, 6.0
TICK, STUCK, UNSTUCK = "WATCHDOG=1", "thread.stuck", "thread.unstuck"
THREADS = {
    "watch": ("watch default", "reading the database"),
    "flusher": ("flusher", "sending to the backend"),
    "heartbeat": ("heartbeat", "speaking to the backend"),
}


@dataclass
class Play:
    """An agent under systemd's eyes. `door`: the FIFO that freezes its thread."""

    agent: AgentProcess
    stub: StubBackend
    systemd: NotifySocket
    door: Path

    def beats(self, count: int) -> None:
        """Waits for so many more heartbeats, which is time that goes by."""
        goal = len(self.stub.heartbeats) + count
        assert self.stub.wait_for(lambda each: len(each.heartbeats) >= goal, SOON_S)

    def ticks(self, count: int) -> None:
        """Waits for so many more of systemd's ticks."""
        goal = self.systemd.count(TICK) + count
        assert self.systemd.wait_for(lambda heard: heard.count(TICK) >= goal, SOON_S)

    def told(self, event: str) -> list[str]:
        """The threads of which that was said."""
        return [each["thread"] for each in self.agent.events() if each.get("event") == event]

    def release(self) -> None:
        """The door opens; nobody stops at it again."""
        held = os.open(self.door, os.O_WRONLY)
        self.door.unlink()
        os.close(held)


@pytest.fixture
def play(request: pytest.FixtureRequest, stub: StubBackend, tmp_path: Path) -> Iterator[Play]:
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}
    path = write(tmp_path, settings(stub, "mysql", db_config))
    with NotifySocket(tmp_path / "notify") as systemd:
        variables = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
        program = ("-m", "tests.servers.frozen_agent", str(path), *map(str, request.param))
        with AgentProcess(path, *program, variables=variables) as agent:
            made = Play(agent, stub, systemd, tmp_path / DOOR)
            made.ticks(3)
            yield made


@pytest.mark.parametrize("play", [("watch", SLACK_S), ("flusher", SLACK_S)], indirect=True)
def test_a_frozen_thread_shows_in_the_heartbeat_and_ends_the_ticks_until_it_goes_on(
    play: Play, request: pytest.FixtureRequest
) -> None:
    thread, doing = THREADS[request.node.callspec.params["play"][0]]
    process = psutil.Process(play.agent.pid)
    alive = process.num_threads()
    os.mkfifo(play.door)
    assert play.agent.heard(STUCK, timeout_s=SOON_S)
    assert play.told(STUCK) == [thread]
    assert play.stub.wait_for(lambda each: each.heartbeats[-1]["stats"]["stuck"] is not None, SOON_S)
    last = play.stub.heartbeats[-1]
    assert last["stats"]["stuck"].startswith(f"{thread}: {doing} for ")
    assert f"{thread} is stuck: {doing} for " in last["error"]
    ticks = play.systemd.count(TICK)
    play.beats(10)  # three times the watchdog's patience: systemd would have ended it
    assert play.systemd.count(TICK) == ticks
    assert any(said.startswith(f"STATUS={thread} is stuck: ") for said in play.systemd.heard)
    asked = run_agent("status", "--alive", play.agent.data_dir)
    assert (asked.returncode, asked.stdout.startswith(f"Process {play.agent.pid} hangs: {thread}: {doing} for ")) == (
        1,
        True,
    )
    # CONTROL: all threads are there, and the heartbeat goes on: whoever asks for life only sees a healthy agent.
    assert (process.num_threads(), play.agent.count("worker.died")) == (alive, 0)
    play.release()
    play.ticks(3)
    assert play.stub.wait_for(lambda each: each.heartbeats[-1]["stats"]["stuck"] is None, SOON_S)
    assert play.stub.wait_for(lambda each: each.heartbeats[-1]["error"] is None, SOON_S)
    assert (play.told(STUCK), play.told(UNSTUCK)) == ([thread], [thread])
    assert run_agent("status", "--alive", play.agent.data_dir).returncode == 0
    assert play.agent.end() == 0
    assert (play.systemd.heard[0], play.systemd.heard[-1]) == ("READY=1", "STOPPING=1")


@pytest.mark.parametrize("play", [("heartbeat", SLACK_S)], indirect=True)
def test_a_frozen_heartbeat_ends_the_ticks_and_is_in_the_log(play: Play) -> None:
    os.mkfifo(play.door)
    play.stub.queue("start")
    assert play.agent.heard(STUCK, timeout_s=SOON_S)
    ticks, beats = play.systemd.count(TICK), len(play.stub.heartbeats)
    status = f"STATUS={THREADS['heartbeat'][0]} is stuck: {THREADS['heartbeat'][1]} for "
    # Each second of it is another status: as long as they come, the conductor lives and could tick.
    assert play.systemd.wait_for(lambda heard: sum(said.startswith(status) for said in heard) >= 3, SOON_S)
    assert (play.systemd.count(TICK), len(play.stub.heartbeats)) == (ticks, beats)
    play.release()
    play.ticks(3)
    play.beats(3)
    assert (play.told(STUCK), play.told(UNSTUCK)) == (["heartbeat"], ["heartbeat"])
    assert play.agent.end() == 0


@pytest.mark.parametrize("play", [("watch", SLACK_S)], indirect=True)
def test_an_agent_with_a_frozen_thread_can_be_ended(play: Play) -> None:
    os.mkfifo(play.door)
    assert play.agent.heard(STUCK, timeout_s=SOON_S)
    assert play.agent.end(signal.SIGTERM, timeout_s=10.0) == 0
    assert play.agent.count("agent.abandoned") == 1


@pytest.mark.parametrize("play", [("watch", LONG_SLACK_S)], indirect=True)
def test_a_process_that_was_stopped_as_a_whole_and_goes_on_has_nobody_stuck(play: Play) -> None:
    process = psutil.Process(play.agent.pid)
    os.mkfifo(play.door)  # so that a step is in the middle when everything stops
    assert play.stub.wait_for(
        lambda each: [beat["stats"]["state"] for beat in each.heartbeats[-2:]] == ["collecting"] * 2, SOON_S
    )
    process.suspend()
    assert wait_until(lambda: process.status() == psutil.STATUS_STOPPED, SOON_S)
    beats = len(play.stub.heartbeats)
    # Nobody does anything for so long.
    assert not play.stub.wait_for(lambda each: len(each.heartbeats) > beats + 1, 1.5 * LONG_SLACK_S)
    process.resume()
    play.ticks(2)
    play.release()
    play.ticks(3)
    play.beats(3)
    assert (play.told(STUCK), {beat["stats"]["stuck"] for beat in play.stub.heartbeats}) == ([], {None})
    assert play.agent.end() == 0


def has_been_quiet(agent: AgentProcess) -> bool:
    """Whether the last heartbeat was a moment ago and the next is far away."""
    told = ask(agent.data_dir)
    return told is not None and (told["heartbeat"]["accepted_seconds_ago"] or 0) >= 0.3


def test_the_watchdogs_signal_ends_it_and_leaves_the_place_of_each_thread_in_the_log(
    stub: StubBackend, tmp_path: Path
) -> None:
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}
    names = ("watch_loop.py", "flusher.py", "heartbeat.py", "conductor.py")
    for _ in range(5):
        with AgentProcess(write(tmp_path, settings(stub, "mysql", db_config, heartbeat_interval=60))) as agent:
            # Python looks at threads while they run, and may stumble over one: here none does.
            assert wait_until(lambda: has_been_quiet(agent), SOON_S)
            ended_by = agent.end(signal.SIGABRT)
        said = agent.said()
        if all(name in said for name in names):
            break
        agent.log.unlink()
    assert ended_by == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in said
    assert [name for name in names if name not in said] == []
