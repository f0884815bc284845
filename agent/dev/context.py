"""What the routes of the development backend share: its parts, who is asking, and how it answers."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from flask import Response, g, request

from agent.dev.bodies import RefusalError, RequestBody, read_integer
from agent.dev.faults import Faults
from agent.dev.registry import Collector, Registry
from agent.dev.store import Store

_KEY = re.compile(r"collector_(\d{1,18})_.+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Context:
    """The parts. `token`: the only JWT let in (None: any). `extensions`: gzip bodies and keys are used."""

    store: Store
    registry: Registry
    faults: Faults
    now: Callable[[], datetime]
    extensions: bool = True
    token: str | None = None

    def body(self) -> RequestBody:
        """The body of the request at hand."""
        if "body" not in g:
            g.body = RequestBody(request, extensions=self.extensions)
        found: RequestBody = g.body
        return found

    def sender(self) -> Collector:
        """The collector whose key came along. Raises RefusalError 401."""
        key = request.headers.get("X-Collector-API-Key")
        if key is None:
            raise RefusalError(401, "Missing X-Collector-API-Key header")
        match = _KEY.fullmatch(key)
        if match is None:
            raise RefusalError(401, "Invalid collector API key format")
        collector = self.registry.collector(int(match[1]))
        if collector is None or not hmac.compare_digest(collector.api_key.encode(), key.encode()):
            raise RefusalError(401, "Invalid collector API key")
        return collector

    def require_same(self, sender: Collector, collector_id: str) -> None:
        """Raises RefusalError: 422 when the path holds no number, 403 when it names another collector."""
        if read_integer(collector_id, "path", "collector_id") != sender.id:
            raise RefusalError(403, "Collector ID mismatch")

    def require_person(self) -> None:
        """Raises RefusalError: 401 without a bearer token, 403 when it is not the one that is let in."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise RefusalError(401, "Not authenticated")
        if self.token is not None and not hmac.compare_digest(self.token.encode(), token.strip().encode()):
            raise RefusalError(403, "Not authorized")

    def named(self, collector_id: str) -> Collector:
        """The collector of the path, for a person. Raises RefusalError 404, 422."""
        found = self.registry.collector(read_integer(collector_id, "path", "collector_id"))
        if found is None:
            raise RefusalError(404, "Collector not found")
        return found


def answer(value: Any, status: int = 200) -> Response:
    """JSON. `value`: what orjson can write."""
    return Response(orjson.dumps(value), status, mimetype="application/json")
