"""The development backend as a WSGI application: its parts put together. No port, no thread."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from agent.clock import Clock
from agent.dev import fault_door
from agent.dev.bodies import RefusalError
from agent.dev.collector_routes import CollectorRoutes
from agent.dev.context import Context, answer
from agent.dev.dev_routes import DevRoutes
from agent.dev.faults import Faults
from agent.dev.person_routes import PersonRoutes
from agent.dev.registry import Registry
from agent.dev.store import Store


def build_context(
    store: Store,
    *,
    faults: Faults | None = None,
    now: Callable[[], datetime] | None = None,
    extensions: bool = True,
    token: str | None = None,
) -> Context:
    """The parts. `now` gives aware UTC; `extensions=False`: gzip bodies are refused and keys ignored."""
    now = now or Clock().now
    return Context(store, Registry(store, now), faults or Faults(), now, extensions, token)


def create_app(context: Context) -> Flask:
    """The application around these parts; several may share them."""
    app = Flask("agent.dev", static_folder=None)
    app.url_map.strict_slashes = False
    if context.extensions:
        app.after_request(_announce)  # registered first, so it runs last: also on what a fault answered
    fault_door.install(app, context)
    for routes in (CollectorRoutes(context), PersonRoutes(context), DevRoutes(context)):
        app.register_blueprint(routes.blueprint())
    app.register_error_handler(RefusalError, _refused)
    app.register_error_handler(HTTPException, _plain)
    return app


def _refused(refusal: RefusalError) -> Response:
    return answer({"detail": refusal.detail}, refusal.status)


def _plain(wrong: HTTPException) -> Response:
    # Flask's own answers (404, 405, an error of ours) as JSON, with their headers (Allow).
    response = answer({"detail": wrong.name}, wrong.code or 500)
    kept = [(name, value) for name, value in wrong.get_headers() if name.lower() != "content-type"]
    response.headers.extend(kept)
    return response


def _announce(response: Response) -> Response:
    if response.mimetype == "application/json":  # a captive portal announces nothing
        response.headers["Accept-Encoding"] = "gzip"
    return response
