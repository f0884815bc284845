"""The calls of a collector: heartbeat, execute, bulk."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from flask import Blueprint, Response, request

from agent.dev.acceptance import CommitFailedError, judge
from agent.dev.bodies import BulkBody, ExecuteBody, HeartbeatBody, RefusalError, read_integer, read_model
from agent.dev.context import Context, answer
from agent.dev.registry import Command
from agent.dev.store import Json, KeyBusyError, Keyed, KeyReusedError


class CollectorRoutes:
    """Each method is one call; each raises RefusalError for what it does not accept."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def blueprint(self) -> Blueprint:
        """The routes, to be registered with the application."""
        routes = Blueprint("collector", __name__)
        one = "/api/v1/collectors/<collector_id>"
        routes.add_url_rule(f"{one}/heartbeat", view_func=self.heartbeat, methods=["POST"])
        execute = f"{one}/commands/<command_id>/execute"
        routes.add_url_rule(execute, view_func=self.execute, methods=["POST"])
        routes.add_url_rule("/api/v1/queries/bulk", view_func=self.bulk, methods=["POST"])
        return routes

    def heartbeat(self, collector_id: str) -> Response:
        """Note the collector's state; hand out every command that waits for a result."""
        sender = self._context.sender()
        body = read_model(self._context.body(), HeartbeatBody)
        self._context.require_same(sender, collector_id)
        waiting = self._context.registry.beat(sender, body.stats, body.error)
        commands = [handed_out(each) for each in waiting]
        return answer({"status": "ok", "message": "Heartbeat received", "commands": commands})

    def execute(self, collector_id: str, command_id: str) -> Response:
        """Note the result of a command; 404 when it is unknown, expired or was reported before."""
        sender = self._context.sender()
        body = read_model(self._context.body(), ExecuteBody)
        self._context.require_same(sender, collector_id)
        number = read_integer(command_id, "path", "command_id")
        known = self._context.registry.report(sender.id, number, success=body.success, result=body.result)
        if not known:
            raise RefusalError(404, "Command not found or expired")
        return answer({"status": "ok", "message": "Command result recorded"})

    def bulk(self) -> Response:
        """Store what is acceptable; a repeated key gets the answer of the first time."""
        sender = self._context.sender()
        body = self._context.body()
        queries = read_model(body, BulkBody).queries
        keyed = self._keyed(sender.id, body.read())
        try:
            with self._context.store.claim(keyed) as earlier:
                text = self._store(sender.id, queries, keyed) if earlier is None else earlier
        except KeyReusedError:
            raise RefusalError(422, "Idempotency-Key was used with another body") from None
        except KeyBusyError:
            raise RefusalError(409, "A request with this Idempotency-Key is in progress") from None
        except CommitFailedError as reason:
            raise RefusalError(500, f"Failed to store queries: {reason}") from None
        return Response(text, mimetype="application/json")

    def _keyed(self, collector_id: int, text: bytes) -> Keyed | None:
        key = request.headers.get("Idempotency-Key")
        if key is None or not self._context.extensions:
            return None
        if not key:
            raise RefusalError(400, "Idempotency-Key is empty")
        return Keyed(collector_id, key, hashlib.sha256(text).hexdigest())

    def _store(self, collector_id: int, queries: list[dict[str, Any]], keyed: Keyed | None) -> bytes:
        verdict = judge(queries)
        text = orjson.dumps(verdict.answer())
        self._context.store.append(
            collector_id, verdict.accepted, received_at=self._context.now(), answer=text, keyed=keyed
        )
        return text


def handed_out(command: Command) -> Json:
    """A command as a heartbeat's answer carries it."""
    return {
        "id": command.id,
        "command": command.command,
        "params": command.params,
        "created_at": command.created_at.isoformat(),
    }
