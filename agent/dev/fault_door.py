"""The answers that faults give, and the one that is none: a connection that is cut."""

from __future__ import annotations

from typing import Protocol

from flask import Flask, Response, g, request

from agent.dev.context import Context, answer
from agent.dev.faults import Fault

CONNECTION = "agent.dev.connection"
PORTAL = "<!doctype html><title>Welcome</title><p>Please accept our terms to use this network."


class Connection(Protocol):
    """The client's connection, put into the WSGI environment by a server that can cut it."""

    def cut(self) -> None:
        """Close both directions at once; nothing that is answered later gets out."""

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""


class NoConnection:
    """Stands in for a connection where there is none to cut, as in Flask's test client."""

    def cut(self) -> None:
        """Nothing can be cut; the 502 that follows is then what the client sees."""

    def gone(self) -> bool:
        """The client waits in the same thread."""
        return False


def install(app: Flask, context: Context) -> None:
    """Let every request of `app` pass by the faults, before it is carried out and after."""

    def before() -> Response | None:
        fault = context.faults.take(request.path, context.body())
        if fault is not None and fault.after_storing:
            g.fault = fault
            return None
        return None if fault is None else spoil(context, fault, None)

    def after(response: Response) -> Response:
        fault: Fault | None = g.pop("fault", None)
        return response if fault is None else spoil(context, fault, response) or response

    app.before_request(before)
    app.after_request(after)


def spoil(context: Context, fault: Fault, good: Response | None) -> Response | None:
    """What is answered instead of `good` (None: not carried out yet). None: go on as if nothing had been."""
    connection: Connection = request.environ.get(CONNECTION, NoConnection())
    if fault.kind == "hang":
        return None if context.faults.hold(fault, connection.gone) else _cut(connection)
    if fault.kind == "drop":
        return _cut(connection)
    return _answer(fault, good)


def _cut(connection: Connection) -> Response:
    connection.cut()
    return answer({"detail": "The connection was cut"}, 502)


def _answer(fault: Fault, good: Response | None) -> Response:
    if fault.kind == "html":
        return Response(PORTAL, mimetype="text/html")
    if fault.kind == "redirect":
        return Response(status=302, headers={"Location": "/dev/portal"})
    if fault.kind == "garbage":
        whole = good.get_data() if good is not None else b'{"status": "success", "count": 1, "skipped": 0}'
        return Response(whole[: len(whole) // 2], mimetype="application/json")
    status = {"too_many": 429, "too_large": 413}.get(fault.kind, fault.status)
    response = answer({"detail": f"Ordered fault: {fault.kind}"}, status)
    if fault.kind == "too_many" and fault.retry_after is not None:
        response.headers["Retry-After"] = fault.retry_after
    return response
