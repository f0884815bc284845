"""A whole life of the real agent in the sandbox that the systemd unit describes, beside real servers.

What could go wrong: a system call that the unit forbids is needed once in a while, for a reload, a reconnection or an
end; a package that is imported wants memory that can be written and executed; the agent needs a file of /proc, a place
for temporary files, a right of root or a family of addresses that is not open to it. Where systemd would answer with an
error this sandbox ends the process; each of its walls has a control that runs into it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path
from shutil import which

import pytest

from agent.dev.server_process import ServerProcess
from tests.fakes.notify_socket import NotifySocket
from tests.fakes.stub_backend import StubBackend
from tests.servers.agent_process import ROOT, AgentProcess, environment, run_agent, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres

SOON_S, END_S = 60.0, 10.0
SANDBOX = ("-m", "tests.servers.sandbox")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make other mounts")


@pytest.fixture(autouse=True)
def tools_are_there() -> None:
    missing = [name for name, there in (("systemd-analyze", which), ("seccomp", find_library)) if not there(name)]
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"not installed here: {', '.join(missing)}")


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the agent's account can go, with a directory `data` that is its own."""
    server = ServerProcess("dbpower-sandbox")
    data = server.directory / "data"
    data.mkdir()
    server.own(data, 0o700)
    yield server.directory
    server.close()


def test_a_whole_life_needs_nothing_that_the_unit_forbids(
    clean_mariadb: MariaDBServer, postgres18: WatchedPostgres, place: Path, stub: StubBackend
) -> None:
    postgres18.thaw()
    postgres18.reset()
    common = {name: value for name, value in settings(stub, "mysql", {}).items() if not name.startswith("db_")}
    databases = [
        {"name": "orders", "db_type": "mysql", "db_config": {**clean_mariadb.monitor(), "max_load": 0}},
        {
            "name": "stock",
            "db_type": "postgres",
            "db_config": {**postgres18.monitor(), "max_load": 0, "min_exec_time_ms": 5},
        },
    ]
    path = write(place, {**common, "databases": databases})
    path.chmod(0o644)  # the directory is the test's own
    with NotifySocket(place / "notify") as systemd:
        if os.geteuid() == 0:
            os.chmod(systemd.address, 0o666)
        variables = {
            "STATE_DIRECTORY": str(place / "data"),
            "NOTIFY_SOCKET": systemd.address,
            "WATCHDOG_USEC": "900000",
        }
        words = (*SANDBOX, str(place / "data"), sys.executable, "-m", "agent", "--config", str(path))
        with AgentProcess(path, *words, "--log-format", "json", variables=variables) as agent:
            expected = clean_mariadb.slow(20)
            postgres18.slow_workload("shut_in", calls=3)
            assert stub.wait_for(lambda each: arrived(each) >= {*expected, "shut_in"}, SOON_S), agent.said()
            assert run_agent("status", "--alive", place / "data").returncode == 0
            for word, params in (
                ("update_config", {"collection_interval": 10, "target": "orders"}),
                ("stop", {}),
                ("collect", {}),
                ("start", {}),
            ):
                known = len(stub.results)
                stub.queue(word, params)
                assert stub.wait_for(lambda each: len(each.results) == known + 1, SOON_S), word  # noqa: B023
            assert [result["success"] for result in stub.results] == [True] * 4
            clean_mariadb.restart()
            stub.break_down("refused")
            assert agent.heard("heartbeat.wrong")
            stub.recover()
            path.write_text(json.dumps({**json.loads(path.read_text()), "heartbeat_interval": 0.2}))
            agent.send(signal.SIGHUP)
            assert agent.heard("agent.reloaded", timeout_s=SOON_S), agent.said()
            expected += clean_mariadb.slow(20, first=100)
            assert stub.wait_for(lambda each: arrived(each) >= set(expected), SOON_S), agent.said()
            assert agent.end(timeout_s=END_S) == 0
        assert {"READY=1", "WATCHDOG=1", "STOPPING=1"} <= set(systemd.heard)
    assert [each for each in agent.events() if "raw" in each] == []
    assert [each for each in agent.events() if "ermitted" in str(each) or "ermission" in str(each)] == []
    assert sum(text.startswith("SELECT /* tag-") for text in texts(stub)) == len(expected)


def texts(stub: StubBackend) -> list[str]:
    return [record["sql_text"] for record in stub.records]


def arrived(stub: StubBackend) -> set[str]:
    """The texts; of those of PostgreSQL the name."""
    return {text.split()[1] if text.startswith("WITH ") else text for text in texts(stub)}


def ran(place: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A program of Python in the sandbox; it prints `fine` when nothing held it up."""
    argv = [sys.executable, *SANDBOX, *options, str(place / "data"), sys.executable, "-c", f"{program}\nprint('fine')"]
    return subprocess.run(argv, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "program",
    [
        "import mmap; mmap.mmap(-1, 4_096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 5)",
        "import os; os.chown('.', 0, 0)",
        "import ctypes; ctypes.CDLL(None).unshare(0x10000000)",
    ],
)
def test_control_what_the_unit_forbids_ends_a_program(place: Path, program: str) -> None:
    done = ran(place, program)
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, ""), done.stderr


def test_control_a_call_that_is_missing_ends_the_program_that_needs_it(place: Path, stub: StubBackend) -> None:
    program = f"import os; os.fdatasync(os.open({str(place / 'data' / 'x')!r}, os.O_CREAT | os.O_WRONLY))"
    assert ran(place, program).stdout == "fine\n"
    assert ran(place, program, "--without", "fdatasync").returncode == -signal.SIGSYS


def test_control_other_families_of_addresses_are_closed(place: Path) -> None:
    done = ran(place, "import socket; socket.getaddrinfo('localhost', 80); socket.socket(socket.AF_NETLINK)")
    assert (done.returncode, "Errno 97" in done.stderr) == (1, True)


@needs_root
def test_control_it_may_write_its_state_and_nothing_else_and_sees_no_other_process(place: Path) -> None:
    program = f"""
import os
open({str(place / "data" / "x")!r}, "w").close()
for place in ({str(place)!r}, "/tmp", "/var/tmp", {str(ROOT)!r}):
    try:
        open(f"{{place}}/{place.name}.x", "w")
    except OSError as error:
        assert error.errno == 30, error
    else:
        raise AssertionError(place)
assert os.getuid() != 0
assert [name for name in os.listdir("/proc") if not name.isdigit()] == ["self", "thread-self"]
assert [name for name in os.listdir("/proc") if name.isdigit()] == [str(os.getpid())]
"""
    done = ran(place, program)
    assert (done.stdout, done.stderr) == ("fine\n", "")
