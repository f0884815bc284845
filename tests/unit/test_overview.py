"""How an agent is, in words.

What could go wrong: a dead agent looks alive, or a silent one dead; what is wrong now is missing; a time is told
against the wrong clock; a loss is counted and not named; a paused watch of a dead agent is forgotten; the exit code
says the contrary of the words.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent import status_door
from agent.body import dumps
from agent.clock import Clock
from agent.command_desk import PAUSED_NOTE
from agent.cost import Cost, Load, Spent
from agent.overview import duration, is_well, look, rows
from agent.status import LinkStatus, Scoreboard
from agent.status_door import SOCKET_NAME, StatusDoor
from storage.envelope import Change, Draft, Gap, Losses, LossSum, Tally
from storage.lock import DirectoryLock
from storage.outbox import FILE_NAME, Outbox
from tests.fakes.clock import ManualClock

GOLDEN = Path(__file__).parents[1] / "golden" / "outbox-format-1.sqlite3"
BOOKS = Tally(
    *(1_021, 1_000),
    parked=5,
    pending=16,
    pending_bytes=2_048,
    envelopes=2,
    possible_duplicates=3,
    gaps=2,
    oldest_at=1_000.0,
)
LOSSES = Losses(
    (Gap("default", "rotated", "2026-01-01T00:00:00", "2026-01-02T00:00:00", None, "why", 1, 1_000.0),),
    (LossSum("default", "rotated", 2, 7, 1),),
)


def told(board: Scoreboard, clock: ManualClock, now_unix: float = 1_090.0) -> dict[str, Any]:
    """As the socket tells it."""
    status = board.status(now_s=clock.monotonic(), now_unix=now_unix)
    found = orjson.loads(dumps({"pid": 77, **status.overview()}))
    return {"silent": None, **found}


def words(found: dict[str, Any], clock: ManualClock) -> list[tuple[str, str]]:
    return list(rows(found, clock.now()))


def test_a_running_agent_tells_everything(clock: ManualClock) -> None:
    board = Scoreboard(clock.monotonic() - 90_000)
    board.books, board.losses = BOOKS, LOSSES
    board.delivery = LinkStatus(accepted_at_s=clock.monotonic() - 3)
    board.heartbeat = LinkStatus("refused", None)
    now = clock.now()
    board.report(
        "orders",
        state="idle",
        since=now - timedelta(seconds=61),
        due_at=now + timedelta(seconds=200),
        last_collection_at=now - timedelta(seconds=62),
        coverage=0.5,
        last_error="[DB-01] away",
        last_error_at=now,
        errors_count=2,
        spent=Spent(Cost(0.25, 0.2, 0.1, 5_000, 9), Load(36.0, clock.monotonic())),
    )
    board.report("billing", state="paused", since=now, reason="stopped")
    found = words(told(board, clock), clock)
    assert found == [
        ("agent", f"runs as process 77, version {found[0][1].split()[5].rstrip(',')}, for 1 d 1 h"),
        ("database orders", "idle for 1 min 1 s"),
        ("  next look", "in 3 min 20 s"),
        ("  last look", "1 min 2 s ago, it took 0.25 s and 5,000 rows; 1.00% of the last hour"),
        ("  coverage", "50.0% of what the server counted"),
        ("  last error", "[DB-01] away (2 since the start)"),
        ("database billing", "paused for 0 s (stopped)"),
        ("  next look", "when a command says so"),
        ("  last look", "none since the start"),
        ("outbox", "16 records wait (2,048 bytes, the oldest for 1 min 30 s); collected 1,021, delivered 1,000"),
        ("delivery", "accepted 3 s ago"),
        ("heartbeat", "refused (nothing accepted since the start)"),
        ("parked", "5 records that the backend refused are kept aside"),
        ("perhaps twice", "3 records, at a backend that ignores keys"),
        ("gaps", "2"),
        ("", "default: rotated, 2 times, about 7 and an unknown number once"),
        ("", "the last 1 of them:"),
        ("", "default: an unknown number (rotated: why), 2026-01-01T00:00:00 to 2026-01-02T00:00:00"),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"pid": None}, False),
        ({"error": "the disk is full"}, False),
        ({"heartbeat": {"error": "refused", "accepted_seconds_ago": None}}, False),
    ],
)
def test_well_is_who_answers_and_has_nothing_to_complain_of(
    changes: dict[str, Any], expected: bool, clock: ManualClock
) -> None:
    assert is_well({**told(Scoreboard(0.0), clock), **changes}) is expected


def test_what_is_wrong_now_comes_second(clock: ManualClock) -> None:
    board = Scoreboard(0.0)
    board.delivery = LinkStatus("the backend is away")
    assert words(told(board, clock), clock)[1] == ("wrong now", "the backend is away")


@pytest.fixture
def left_behind(tmp_path: Path) -> Path:
    """The directory of an agent that is no more."""
    with closing(Outbox(tmp_path, topics=("queries",))) as outbox:
        gap = Gap("default", "rotated", estimate=4, detail="why")
        outbox.commit(Change((Draft("queries", 3, b"body"),), gaps=(gap,), notes={f"{PAUSED_NOTE}/orders": "1"}))
    return tmp_path


def test_of_a_dead_agent_the_outbox_tells(left_behind: Path, clock: ManualClock) -> None:
    found = look(left_behind, clock)
    assert (found["pid"], found["silent"], is_well(found)) == (None, None, False)
    said = dict(words(found, clock))
    assert said["agent"] == "does not run; this is what its outbox says"
    assert said["database orders"] == "paused by a `stop` of the backend"
    assert said["outbox"].startswith("3 records wait (4 bytes, the oldest for ")
    assert said["gaps"] == "1"
    assert "delivery" not in said


def test_an_agent_that_has_no_socket_is_not_called_dead(left_behind: Path, clock: ManualClock) -> None:
    with DirectoryLock(left_behind):
        found = look(left_behind, clock)
    assert (found["pid"], is_well(found)) == (None, False)
    assert words(found, clock)[0][1].startswith(f"runs as process {os.getpid()} and has no room for agent.sock")


def test_of_a_silent_agent_the_outbox_tells_and_why(left_behind: Path, clock: ManualClock) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left_behind / SOCKET_NAME))
        listener.listen()

        def leave() -> None:
            listener.accept()[0].close()

        accepted = threading.Thread(target=leave)
        accepted.start()
        found = look(left_behind, clock)
        accepted.join()
    assert found["pid"] is None
    assert words(found, clock)[0][1].startswith("[AG-01] ")
    assert found["outbox_records"] == 3


def test_of_a_running_agent_the_socket_tells_and_not_the_outbox(left_behind: Path, clock: ManualClock) -> None:
    board = Scoreboard(0.0)
    board.books = replace(BOOKS, pending=9)
    with closing(StatusDoor(left_behind, board, Clock())) as door:
        thread = threading.Thread(target=door.run)
        thread.start()
        try:
            for _ in range(2_000):
                if (found := look(left_behind, clock))["pid"] is not None:
                    break
                threading.Event().wait(0.005)
        finally:
            door.stop()
            thread.join()
    assert (found["pid"], found["outbox_records"]) == (os.getpid(), 9)


def test_where_nothing_is_nothing_is_told_and_nothing_made(tmp_path: Path, clock: ManualClock) -> None:
    found = look(tmp_path / "nowhere", clock)
    assert (found["pid"], found["outbox_records"], list(tmp_path.iterdir())) == (None, 0, [])


def test_an_outbox_of_format_1_is_looked_at_too(tmp_path: Path, clock: ManualClock) -> None:
    shutil.copy(GOLDEN, tmp_path / FILE_NAME)
    assert look(tmp_path, clock)["outbox_records"] == 49
    assert (tmp_path / FILE_NAME).read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0 s"), (0.4, "0 s"), (59.6, "1 min"), (3_599, "59 min 59 s"), (3_605, "1 h"), (200_000, "2 d 7 h")],
)
def test_durations_have_their_two_largest_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_the_socket_has_the_name_that_the_readme_says() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"`{status_door.SOCKET_NAME}`" in readme
