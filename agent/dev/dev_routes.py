"""What only a development backend has: looking at what is stored, and ordering faults. Without any key."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from flask import Blueprint, Response, request

from agent.dev.acceptance import start_time
from agent.dev.bodies import RefusalError, read_integer, read_model
from agent.dev.context import Context, answer
from agent.dev.fault_door import PORTAL
from agent.dev.faults import Fault
from agent.dev.openapi import document
from agent.dev.store import Json

MAX_PAGE = 10_000


class DevRoutes:
    """Each method is one call; each raises RefusalError for what it does not accept."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def blueprint(self) -> Blueprint:
        """The routes, to be registered with the application."""
        routes = Blueprint("dev", __name__)
        routes.add_url_rule("/openapi.json", view_func=self.openapi, methods=["GET"])
        routes.add_url_rule("/dev/queries", view_func=self.queries, methods=["GET"])
        routes.add_url_rule("/dev/summary", view_func=self.summary, methods=["GET"])
        routes.add_url_rule("/dev/keys", view_func=self.keys, methods=["GET"])
        routes.add_url_rule("/dev/portal", view_func=self.portal, methods=["GET"])
        routes.add_url_rule("/dev/faults", view_func=self.list_faults, methods=["GET"])
        routes.add_url_rule("/dev/faults", view_func=self.add_fault, methods=["POST"])
        routes.add_url_rule("/dev/faults", view_func=self.clear_faults, methods=["DELETE"])
        return routes

    def openapi(self) -> Response:
        """The contract of this backend."""
        return answer(document(extensions=self._context.extensions))

    def queries(self) -> Response:
        """Stored records, oldest first; `start_time` beside the record is what the backend makes of it."""
        after, limit = _number("after", 0, 2**63 - 1), _number("limit", 1000, MAX_PAGE)
        page = self._context.store.page(after, limit)
        return answer([_with_start(entry) for entry in page])

    def summary(self) -> Response:
        """How much is stored."""
        collectors = len(self._context.registry.collectors())
        return answer({**asdict(self._context.store.summary()), "collectors": collectors})

    def keys(self) -> Response:
        """The idempotency keys that were honoured."""
        return answer(self._context.store.keys())

    def portal(self) -> Response:
        """Where the fault `redirect` leads."""
        return Response(PORTAL, mimetype="text/html")

    def list_faults(self) -> Response:
        """Faults in force and how often each kind happened."""
        faults = self._context.faults
        active = [fault.model_dump(mode="json", exclude_none=True) for fault in faults.active()]
        return answer({"faults": active, "hits": faults.hits})

    def add_fault(self) -> Response:
        """Order one fault."""
        self._context.faults.add(read_model(self._context.body(), Fault))
        return self.list_faults()

    def clear_faults(self) -> Response:
        """End all faults; whatever hangs goes on."""
        self._context.faults.clear()
        return self.list_faults()


def _number(name: str, default: int, highest: int) -> int:
    number = read_integer(request.args.get(name, str(default)), "query", name)
    if 0 <= number <= highest:
        return number
    msg = f"Input should be between 0 and {highest}"
    raise RefusalError(422, [{"loc": ["query", name], "msg": msg, "type": "value_error"}])


def _with_start(entry: Json) -> Json:
    began = start_time(entry["record"].get("start_time"), datetime.fromisoformat(entry["received_at"]))
    return {**entry, "start_time": began.isoformat()}
