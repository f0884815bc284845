"""What is said to systemd, over real unix datagram sockets.

What could go wrong: a message is malformed and systemd ends a healthy agent; the ticks of another process are sent; a
broken variable ends the agent; a listener that is gone or does not read holds or ends the thread that speaks; without
systemd something is said all the same.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.sd_notify import STATUS_CHARACTERS, SdNotify, from_environment
from tests.fakes.notify_socket import NotifySocket

WAIT_S = 10.0


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    address = tmp_path / "notify" if request.param == "path" else f"@dbpower-test-{os.getpid()}"
    with NotifySocket(address) as listening:
        yield listening


def heard(systemd: NotifySocket, count: int) -> list[str]:
    assert systemd.wait_for(lambda messages: len(messages) >= count, WAIT_S)
    return systemd.heard


def test_every_word_is_one_datagram(systemd: NotifySocket) -> None:
    with closing(from_environment({"NOTIFY_SOCKET": systemd.address})) as notify:
        assert (notify.ready(), notify.alive(), notify.stopping()) == (True, True, True)
        assert heard(systemd, 3) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_a_reload_is_told_with_its_moment_on_the_clock_that_systemd_looks_at(systemd: NotifySocket) -> None:
    now_s = Clock().monotonic()
    with closing(SdNotify(systemd.address)) as notify:
        assert notify.reloading(now_s)
        word, moment = heard(systemd, 1)[0].splitlines()
    assert (word, moment.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
    then = int(moment.partition("=")[2])
    assert abs(then - now_s * 1e6) <= 1
    assert 0 <= time.clock_gettime(time.CLOCK_MONOTONIC) - then / 1e6 < 60


def test_a_status_is_one_line_and_said_when_it_is_new(systemd: NotifySocket) -> None:
    with closing(SdNotify(systemd.address)) as notify:
        for sentence in ("idle", "idle", "[DB-01] away:\nREADY=1\n\udcff", "x" * 10_000, "idle"):
            notify.status(sentence)
        expected = ["STATUS=idle", "STATUS=[DB-01] away: READY=1 ?", f"STATUS={'x' * STATUS_CHARACTERS}", "STATUS=idle"]
        assert heard(systemd, 4) == expected


def test_nothing_is_said_where_nobody_listens() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "relative"}):
        notify = from_environment({**environment, "WATCHDOG_USEC": "1000000"})
        assert (notify.ready(), notify.alive(), notify.watchdog_s) == (False, False, None)
        notify.status("idle")
        assert notify._socket is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WATCHDOG_USEC": "120000000"}, 120.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "77"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_PID": "77"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 5_000}, None),
        ({"WATCHDOG_USEC": "\u0663"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_as_the_variables_say_and_only_for_us(
    variables: dict[str, str], expected: float | None
) -> None:
    assert from_environment({"NOTIFY_SOCKET": "/run/x", **variables}, pid=77).watchdog_s == expected


def test_by_default_the_watchdog_is_meant_for_this_process() -> None:
    variables = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1000000"}
    assert from_environment({**variables, "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 1.0
    assert from_environment({**variables, "WATCHDOG_PID": str(os.getppid())}).watchdog_s is None


def test_a_listener_that_is_gone_is_told_once_and_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = tmp_path / "notify"
    with closing(SdNotify(str(address))) as notify:
        assert [notify.alive() for _ in range(3)] == [False] * 3
        assert [getattr(line, "event", "") for line in caplog.records] == ["systemd.wrong"]
        with NotifySocket(address) as systemd:
            assert notify.alive()
            assert heard(systemd, 1) == ["WATCHDOG=1"]
        assert not notify.alive()
    assert [getattr(line, "event", "") for line in caplog.records] == ["systemd.wrong"] * 2


def test_a_listener_that_does_not_read_holds_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(address)
        with closing(SdNotify(address)) as notify:
            said = 0
            while notify.alive():  # until its queue is full; then at once False, and not a wait
                said += 1
                assert said < 100_000
            assert said > 0
            assert deaf.recv(64) == b"WATCHDOG=1"
            assert notify.alive()
    # CONTROL: a plain socket would wait for ever where this one does not.
    program = (
        "import socket, sys; own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "while True: own.sendto(b'WATCHDOG=1', sys.argv[1])"
    )
    other = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(other)
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", program, other], timeout=2, check=True)


def test_an_address_that_is_too_long_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with closing(SdNotify("/" + "x" * 200)) as notify:
        assert notify.ready() is False
    assert [getattr(line, "event", "") for line in caplog.records] == ["systemd.wrong"]


@pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="systemd-notify is not installed here")
def test_systemds_own_tool_says_the_same(tmp_path: Path) -> None:
    with NotifySocket(tmp_path / "theirs") as theirs, NotifySocket(tmp_path / "ours") as ours:
        environment = {**os.environ, "NOTIFY_SOCKET": theirs.address}
        for word in ("--ready", "--status=idle", "WATCHDOG=1"):
            subprocess.run(["systemd-notify", word], env=environment, timeout=WAIT_S, check=True)
        with closing(SdNotify(ours.address)) as notify:
            notify.ready()
            notify.status("idle")
            notify.alive()
            expected = heard(ours, 3)
        lines = [line for message in theirs.heard for line in message.splitlines()]
    assert [line for line in lines if line in expected] == expected
