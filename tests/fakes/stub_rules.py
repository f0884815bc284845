"""What the stub answers, by PROTOCOL's table alone. No sockets and no threads; shares no code with agent/dev.

It was written a second time on purpose: a misreading of the protocol then shows as a difference between the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Json = dict[str, Any]
Answer = tuple[int, Any]

_EXPIRY = timedelta(minutes=5)
_OFFLINE = timedelta(minutes=2)
_PATH = re.compile(r"/api/v1/collectors/(?P<id>[^/]+)(?:/(?P<rest>.+))?")


class Refused(Exception):
    """Any answer but 2xx: status, detail."""


@dataclass
class StubState:
    """Everything the stub remembers. Whoever calls `answer` holds the lock."""

    now: Callable[[], datetime]
    collectors: dict[int, Json] = field(default_factory=dict)
    commands: list[Json] = field(default_factory=list)
    records: list[Json] = field(default_factory=list)
    heartbeats: list[Json] = field(default_factory=list)
    results: list[Json] = field(default_factory=list)

    def register(self, name: str, kind: str = "mysql", **more: Any) -> Json:
        """A new collector; its key is `collector_<id>_stub`."""
        if any(other["name"] == name for other in self.collectors.values()):
            raise Refused(400, "duplicate name")
        number = max(self.collectors, default=0) + 1
        settings = {"team_id": 1, "config": {}, "collection_interval_minutes": 5, "auto_collect": True, **more}
        self.collectors[number] = {"id": number, "name": name, "type": kind, "organization_id": 1, **settings}
        return {**self.collectors[number], "api_key": f"collector_{number}_stub", "message": "registered"}

    def queue(self, collector_id: int, command: str, params: Json | None = None) -> int:
        """A command for the next heartbeats; gives its id."""
        number = len(self.commands) + 1
        entry = {"id": number, "command": command, "params": params or {}, "created_at": self.now().isoformat()}
        self.commands.append({**entry, "collector_id": collector_id, "reported": False})
        return number

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Status and JSON for one request."""
        try:
            return self._route(method, path, headers, body)
        except Refused as refused:
            status, detail = refused.args
            return status, {"detail": detail}

    def _route(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if (method, path) == ("POST", "/api/v1/queries/bulk"):
            self._own_id(headers)
            return self._bulk(_parsed(body, "queries", list))
        if path == "/api/v1/collectors":
            self._person(headers)
            return 200, [self._shown(each) for each in self.collectors.values()]
        if path == "/api/v1/collectors/register":
            self._person(headers)
            return self._registered(body)
        match = _PATH.fullmatch(path)
        if match is None:
            raise Refused(404, "Not Found")
        rest = match["rest"] or ""
        if rest == "heartbeat" or rest.endswith("/execute"):
            return self._collector_call(match["id"], rest, headers, body)
        self._person(headers)
        return self._managed(method, match["id"], rest, body)

    def _own_id(self, headers: Mapping[str, str]) -> int:
        key = headers.get("X-Collector-API-Key")
        if key is None:
            raise Refused(401, "Missing X-Collector-API-Key header")
        parts = key.split("_", 2)
        if len(parts) != 3 or parts[0] != "collector" or not parts[1].isdigit():
            raise Refused(401, "Invalid collector API key format")
        if int(parts[1]) not in self.collectors or parts[2] != "stub":
            raise Refused(401, "Invalid collector API key")
        return int(parts[1])

    @staticmethod
    def _person(headers: Mapping[str, str]) -> None:
        if not headers.get("Authorization", "").startswith("Bearer "):
            raise Refused(401, "Not authenticated")

    def _collector_call(self, name: str, rest: str, headers: Mapping[str, str], body: bytes) -> Answer:
        own = self._own_id(headers)
        beating = rest == "heartbeat"
        told = _parsed(body, "stats", dict, required=False) if beating else _parsed(body, "success", bool)
        if name != str(own):
            raise Refused(403, "Collector ID mismatch")
        return self._heartbeat(own, told) if beating else self._execute(own, rest.split("/")[1], told)

    def _pending(self, own: int) -> list[Json]:
        now = self.now()
        return [
            each
            for each in self.commands
            if each["collector_id"] == own
            and not each["reported"]
            and now - datetime.fromisoformat(each["created_at"]) < _EXPIRY
        ]

    def _heartbeat(self, own: int, beat: Json) -> Answer:
        self.heartbeats.append(beat)
        self.collectors[own].update(beat=self.now(), error=beat.get("error"))
        names = ("id", "command", "params", "created_at")
        handed_out = [{name: each[name] for name in names} for each in self._pending(own)]
        return 200, {"status": "ok", "message": "alive", "commands": handed_out}

    def _execute(self, own: int, command_id: str, report: Json) -> Answer:
        for each in self._pending(own):
            if str(each["id"]) == command_id:
                each["reported"] = True
                self.results.append(report)
                return 200, {"status": "ok", "message": "noted"}
        raise Refused(404, "unknown or expired command")

    def _bulk(self, body: Json) -> Answer:
        good: list[Json] = []
        errors: list[Json] = []
        for record in body["queries"]:
            if not isinstance(record, dict):
                raise Refused(422, [{"loc": ["body", "queries"], "msg": "no object", "type": "dict_type"}])
            if not record.get("sql_text"):
                continue
            try:
                numbers = _numbers(record)
            except (TypeError, ValueError, OverflowError) as reason:
                errors.append({"query": record["sql_text"], "error": str(reason)})
                continue
            texts = [str(record.get(name) or "") for name in ("sql_text", "db", "user_host")]
            if "\0" in "".join(texts) or len(texts[2]) > 255 or any(abs(number) >= 2**31 for number in numbers):
                raise Refused(500, "commit failed")
            good.append(record)
        self.records.extend(good)
        skipped = len(body["queries"]) - len(good)
        return 200, {"status": "success", "count": len(good), "skipped": skipped, "errors": errors[:10]}

    def _registered(self, body: bytes) -> Answer:
        wanted = _parsed(body, "name", str)
        if wanted.get("type") not in ("mysql", "postgres") or not isinstance(wanted.get("team_id"), int):
            raise Refused(422, [{"loc": ["body", "type"], "msg": "wrong", "type": "literal_error"}])
        minutes = wanted.get("collection_interval_minutes", 5)
        if not isinstance(minutes, int) or not 1 <= minutes <= 1440:
            where = ["body", "collection_interval_minutes"]
            raise Refused(422, [{"loc": where, "msg": "not within 1..1440", "type": "value_error"}])
        if wanted["team_id"] < 1:
            raise Refused(404, "no such team")
        more = {name: value for name, value in wanted.items() if name not in ("name", "type")}
        return 201, self.register(wanted["name"], wanted["type"], **more)

    def _managed(self, method: str, name: str, rest: str, body: bytes) -> Answer:
        if not name.isdigit() or int(name) not in self.collectors:
            raise Refused(404, "no such collector")
        one = int(name)
        if (method, rest) == ("DELETE", ""):
            del self.collectors[one]
            return 200, {"status": "ok", "message": "deleted"}
        if (method, rest) == ("GET", "commands"):
            return 200, [each for each in self.commands if each["collector_id"] == one]
        if method == "POST" and rest in ("start", "stop", "collect"):
            return 200, {"status": "ok", "message": "queued", "command_id": self.queue(one, rest)}
        if (method, rest) == ("PATCH", ""):
            self.collectors[one].update(_parsed(body, "name", str, required=False))
        elif (method, rest) != ("GET", ""):
            raise Refused(405, "Method Not Allowed")
        return 200, self._shown(self.collectors[one])

    def _shown(self, one: Json) -> Json:
        told = {name: value for name, value in one.items() if name != "beat"}
        silent = "beat" in one and self.now() - one["beat"] > _OFFLINE
        running = "ERROR" if one.get("error") else "ONLINE" if "beat" in one else "PENDING"
        return {**told, "status": "OFFLINE" if silent else running}


def _parsed(body: bytes, name: str, kind: type, *, required: bool = True) -> Json:
    try:
        found = json.loads(body.decode())
    except UnicodeDecodeError:
        raise Refused(400, "There was an error parsing the body") from None
    except ValueError:
        raise Refused(422, [{"loc": ["body", 0], "msg": "JSON decode error", "type": "json_invalid"}]) from None
    fits = isinstance(found, dict) and (isinstance(found[name], kind) if name in found else not required)
    if not fits:
        where = ["body", name] if isinstance(found, dict) else ["body"]
        raise Refused(422, [{"loc": where, "msg": f"{name} is missing or wrong", "type": "missing"}])
    parsed: Json = found
    return parsed


def _numbers(record: Json) -> list[int]:
    for name in ("query_time", "lock_time"):
        float(record.get(name, 0))
    return [int(record.get(name, 0)) for name in ("rows_sent", "rows_examined")]
