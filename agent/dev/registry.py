"""Who may send, and what they were told to do: collectors and their commands. Knows no HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from threading import RLock
from typing import Any

from agent.dev.store import Json, Store

SILENCE_UNTIL_OFFLINE = timedelta(minutes=2)
COMMAND_LIFE = timedelta(minutes=5)
ORGANIZATION_ID = 1
_SETTABLE = ("name", "config", "collection_interval_minutes", "auto_collect")


class DuplicateNameError(Exception):
    """Another collector has this name."""


@dataclass(slots=True)
class Collector:
    """One registered collector. Times are aware UTC; `error` is what its last heartbeat complained of."""

    id: int
    name: str
    type: str
    team_id: int
    config: Json
    collection_interval_minutes: int
    auto_collect: bool
    api_key: str
    created_at: datetime
    deleted: bool = False
    last_heartbeat: datetime | None = None
    stats: Json = field(default_factory=dict)
    error: str | None = None

    def status(self, now: datetime) -> str:
        """PENDING before the first heartbeat, OFFLINE after two silent minutes, ERROR, or ONLINE."""
        if self.last_heartbeat is None:
            return "PENDING"
        if now - self.last_heartbeat > SILENCE_UNTIL_OFFLINE:
            return "OFFLINE"
        return "ONLINE" if self.error is None else "ERROR"


@dataclass(slots=True)
class Command:
    """One command. `success` and `result` are None until the collector reported them."""

    id: int
    collector_id: int
    command: str
    params: Json
    created_at: datetime
    success: bool | None = None
    result: Json | None = None

    def state(self, now: datetime) -> str:
        """pending, expired, completed or failed."""
        if self.success is None:
            return "expired" if now - self.created_at >= COMMAND_LIFE else "pending"
        return "completed" if self.success else "failed"


def _time(text: Any) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class Registry:
    """Collectors and commands, kept in the store. Safe for many threads. `now` gives aware UTC."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._lock = RLock()
        self._collectors: dict[int, Collector] = {}
        self._commands: dict[int, Command] = {}
        self._open: dict[int, list[Command]] = {}
        for row in store.rows("collector"):
            times = {name: _time(row[name]) for name in ("created_at", "last_heartbeat")}
            self._collectors[row["id"]] = Collector(**{**row, **times})
        for row in store.rows("command"):
            command = Command(**{**row, "created_at": _time(row["created_at"])})
            self._commands[command.id] = command
            self._open.setdefault(command.collector_id, []).append(command)

    def register(
        self,
        name: str,
        kind: str = "mysql",
        *,
        team_id: int = 1,
        settings: Json | None = None,
    ) -> Collector:
        """A new collector with a fresh API key. Raises DuplicateNameError.

        `settings`: config, collection_interval_minutes, auto_collect; each may be missing.
        """
        given = {"config": {}, "collection_interval_minutes": 5, "auto_collect": True, **(settings or {})}
        with self._lock:
            self._refuse_duplicate(name)
            number = len(self._collectors) + 1
            collector = Collector(
                id=number,
                name=name,
                type=kind,
                team_id=team_id,
                api_key=f"collector_{number}_{secrets.token_urlsafe(24)}",
                created_at=self._now(),
                **given,
            )
            self._save(collector)
            return collector

    def _refuse_duplicate(self, name: str) -> None:
        if any(other.name == name for other in self.collectors()):
            raise DuplicateNameError(name)

    def _save(self, collector: Collector) -> None:
        self._collectors[collector.id] = collector
        self._store.put("collector", collector.id, asdict(collector))

    def collectors(self) -> list[Collector]:
        """Those that were not deleted, oldest first."""
        with self._lock:
            return [each for each in self._collectors.values() if not each.deleted]

    def collector(self, collector_id: int) -> Collector | None:
        """None when there is no such collector (any more)."""
        with self._lock:
            found = self._collectors.get(collector_id)
            return None if found is None or found.deleted else found

    def change(self, collector: Collector, changes: Mapping[str, Any]) -> None:
        """Set name, config, collection_interval_minutes or auto_collect. Raises DuplicateNameError."""
        with self._lock:
            if changes.get("name", collector.name) != collector.name:
                self._refuse_duplicate(changes["name"])
            for name in _SETTABLE:
                setattr(collector, name, changes.get(name, getattr(collector, name)))
            self._save(collector)

    def delete(self, collector: Collector) -> None:
        """Its key is refused from now on; its number is not given again."""
        with self._lock:
            collector.deleted = True
            self._save(collector)

    def beat(self, collector: Collector, stats: Json, error: str | None) -> list[Command]:
        """Note a heartbeat; gives the commands that still wait for a result, oldest first."""
        with self._lock:
            collector.last_heartbeat = self._now()
            collector.stats = stats
            collector.error = error
            self._save(collector)
            return self.pending(collector.id)

    def queue(self, collector_id: int, word: str, params: Json | None = None) -> Command:
        """A new command; every heartbeat gets it until its result is reported or 5 minutes passed."""
        with self._lock:
            command = Command(len(self._commands) + 1, collector_id, word, params or {}, self._now())
            self._commands[command.id] = command
            self._open.setdefault(collector_id, []).append(command)
            self._store.put("command", command.id, asdict(command))
            return command

    def pending(self, collector_id: int) -> list[Command]:
        """Commands without a result that have not expired, oldest first."""
        with self._lock:
            now = self._now()
            waiting = [each for each in self._open.get(collector_id, ()) if each.state(now) == "pending"]
            self._open[collector_id] = waiting
            return list(waiting)

    def commands(self, collector_id: int) -> list[Command]:
        """All commands of a collector, oldest first."""
        with self._lock:
            return [each for each in self._commands.values() if each.collector_id == collector_id]

    def report(self, collector_id: int, command_id: int, *, success: bool, result: Json) -> bool:
        """Note a result. False when the command is unknown, expired or was reported before."""
        with self._lock:
            command = self._commands.get(command_id)
            if command is None or command not in self.pending(collector_id):
                return False
            command.success, command.result = success, result
            self._store.put("command", command.id, asdict(command))
            return True
