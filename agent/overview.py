"""How an agent is, in words: from what it says of itself, or from its outbox when nobody answers. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from agent import losses
from agent.body import dumps
from agent.clock import Clock
from agent.command_desk import PAUSED_NOTE
from agent.sinks import QUERIES
from agent.status import PAUSED, Scoreboard
from agent.status_door import SOCKET_NAME, ask
from storage.errors import CodedError
from storage.lock import holder
from storage.view import OutboxView

GAPS_SHOWN = 5
Row = tuple[str, str]


def look(directory: Path, clock: Clock) -> dict[str, Any]:
    """What the agent of that data directory says, with `pid`; else what its outbox says, with `pid` None and `silent`.

    `silent`: why it gives no answer, None when there is none to ask. Raises OutboxForeign, OutboxNewer,
    OutboxInaccessible, OutboxBroken.
    """
    silent = None
    try:
        if (found := ask(directory)) is not None:
            return {"silent": None, **found}
        if (process := holder(directory)) is not None:
            silent = f"runs as process {process} and has no room for {SOCKET_NAME}; this is what its outbox says"
    except CodedError as error:
        silent = str(error)
    board = Scoreboard(clock.monotonic())
    with OutboxView(directory) as outbox:
        board.books, board.losses = outbox.tally(QUERIES), outbox.losses()
        for name in outbox.notes(f"{PAUSED_NOTE}/"):
            board.report(name.removeprefix(f"{PAUSED_NOTE}/"), state=PAUSED)
    status = board.status(now_s=clock.monotonic(), now_unix=clock.unix())
    found = orjson.loads(dumps(status.overview()))
    return {"pid": None, "silent": silent, **found}


def alive(directory: Path) -> tuple[bool, str]:
    """Whether an agent answers in that data directory whose threads all get on, whatever database and backend do; and
    that in a sentence."""
    try:
        found = ask(directory)
    except CodedError as error:
        return False, str(error)
    if found is None:
        return False, f"No agent answers in {directory}."
    if found["stuck"]:
        return False, f"Process {found['pid']} hangs: {found['stuck']}."
    return True, f"Process {found['pid']} lives, and all its threads get on."


def is_well(found: Mapping[str, Any]) -> bool:
    """Whether an agent answers and has nothing to complain of."""
    return found["pid"] is not None and found["error"] is None and found["heartbeat"]["error"] is None


def rows(found: Mapping[str, Any], now: datetime) -> Iterator[Row]:
    """What a person reads, as pairs of what and how; a few of them."""
    yield "agent", _agent(found)
    if found["error"]:
        yield "wrong now", found["error"]
    for name, watch in found["watches"].items():
        yield from _watch(f"database {name}", watch, now, runs=found["pid"] is not None)
    yield "outbox", _outbox(found)
    if found["pid"] is not None:
        yield "delivery", _link(found["delivery"])
        yield "heartbeat", _link(found["heartbeat"])
    if found["parked"]:
        yield "parked", f"{found['parked']:,} records that the backend refused are kept aside"
    if found["possible_duplicates"]:
        yield "perhaps twice", f"{found['possible_duplicates']:,} records, at a backend that ignores keys"
    if found.get("remote_changes"):
        yield "remote changes", found["remote_changes"]
    yield from _gaps(found)


def _agent(found: Mapping[str, Any]) -> str:
    if found["pid"] is None:
        return found["silent"] or "does not run; this is what its outbox says"
    return f"runs as process {found['pid']}, version {found['version']}, for {duration(found['uptime_seconds'])}"


def _watch(name: str, watch: Mapping[str, Any], now: datetime, *, runs: bool) -> Iterator[Row]:
    if not runs:
        yield name, f"{watch['state']} by a `stop` of the backend"
        return
    why = f" ({watch['state_reason']})" if watch["state_reason"] else ""
    yield name, f"{watch['state']} for {_since(watch['since'], now)}{why}"
    yield "  next look", "when a command says so" if watch["due"] is None else _until(watch["due"], now)
    last = watch["last_collection_at"]
    yield "  last look", "none since the start" if last is None else f"{_since(last, now)} ago, {_cost(watch)}"
    if watch["coverage"] is not None:
        yield "  coverage", f"{watch['coverage']:.1%} of what the server counted"
    if watch["last_error"]:
        yield "  last error", f"{watch['last_error']} ({watch['errors_count']:,} since the start)"


def _cost(watch: Mapping[str, Any]) -> str:
    seconds, rows_read = watch["look_seconds"], watch["look_rows"]
    return f"it took {seconds:g} s and {rows_read:,} rows; {watch['database_load']:.2%} of the last hour"


def _outbox(found: Mapping[str, Any]) -> str:
    waiting = f"{found['outbox_records']:,} records wait ({found['outbox_bytes']:,} bytes"
    if found["outbox_records"]:
        waiting += f", the oldest for {duration(found['outbox_oldest_seconds'])}"
    return f"{waiting}); collected {found['queries_collected']:,}, delivered {found['queries_delivered']:,}"


def _link(link: Mapping[str, Any]) -> str:
    ago_s = link["accepted_seconds_ago"]
    accepted = "nothing accepted since the start" if ago_s is None else f"accepted {duration(ago_s)} ago"
    return f"{link['error']} ({accepted})" if link["error"] else accepted


def _gaps(found: Mapping[str, Any]) -> Iterator[Row]:
    first, *others = losses.lines(losses.from_stats(found), GAPS_SHOWN)
    yield "gaps", first.removeprefix("gaps: ")
    yield from (("", line.strip()) for line in others)


def _since(stamp: str | None, now: datetime) -> str:
    return "?" if stamp is None else duration((now - _moment(stamp)).total_seconds())


def _until(stamp: str, now: datetime) -> str:
    seconds = (_moment(stamp) - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "now"


def _moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp).astimezone(UTC)


def duration(seconds: float) -> str:
    """The two largest units: `3 d 4 h`, `12 s`."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, parts[:2])) or "0 s"
