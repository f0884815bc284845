"""The contract of the development backend as an OpenAPI 3.1 document, written by hand. Data only."""

from __future__ import annotations

from typing import Any

from agent import __version__
from agent.dev.faults import Fault
from agent.dev.store import Json

_TEXT: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_OBJECT: Json = {"type": "object"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_INTEGER: Json = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_ID: Json = {"type": "integer", "minimum": 1}
_NAME: Json = {"type": "string", "minLength": 1, "maxLength": 255}
_MINUTES: Json = {"type": "integer", "minimum": 1, "maximum": 1440}
_COLLECTOR_KEY: list[Json] = [{"collectorKey": []}]
_PERSON: list[Json] = [{"bearer": []}]


def _shape(required: Json, optional: Json | None = None) -> Json:
    """An object; names that are not told are allowed."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_COMMAND = {"id": _ID, "command": _TEXT, "params": _OBJECT, "created_at": _TEXT}
_SETTINGS: Json = {
    "config": _OBJECT,
    "collection_interval_minutes": _MINUTES,
    "auto_collect": {"type": "boolean"},
}
_COLLECTOR: Json = {
    "id": _ID,
    "name": _NAME,
    "type": {"enum": ["mysql", "postgres"]},
    "team_id": _ID,
    "organization_id": _ID,
    "status": {"enum": ["PENDING", "ONLINE", "OFFLINE", "ERROR"]},
    **_SETTINGS,
    "created_at": _TEXT,
    "last_heartbeat": _TEXT_OR_NULL,
    "stats": _OBJECT,
    "last_error": _TEXT_OR_NULL,
}
# No types: the backend applies float(), int() and fromisoformat() to whatever comes.
_RECORD: Json = {
    "type": "object",
    "properties": {
        "sql_text": {"description": "Text; a record without one is skipped silently."},
        "query_time": {"description": "Seconds, read by float(); default 0."},
        "lock_time": {"description": "Seconds, read by float(); default 0."},
        "rows_sent": {"description": "Read by int(), below 2^31; default 0."},
        "rows_examined": {"description": "Read by int(), below 2^31; default 0."},
        "db": {"description": "Text or null."},
        "user_host": {"description": "Text or null, at most 255 characters."},
        "start_time": {"description": "Read by datetime.fromisoformat; now when that fails."},
    },
    "examples": [
        {
            "id": "3f1c",
            "sql_text": "SELECT SLEEP(2)",
            "query_time": 2.0,
            "lock_time": 0.0,
            "rows_sent": 1,
            "rows_examined": 0,
            "db": "shop",
            "user_host": "app[app] @ [10.0.0.7]",
            "start_time": "2024-05-01T12:00:00+00:00",
        }
    ],
}
_PROBLEM = _shape({"loc": _list({"type": ["string", "integer"]}), "msg": _TEXT, "type": _TEXT})
_SCHEMAS: Json = {
    "Detail": _shape({"detail": _TEXT}),
    "Invalid": _shape({"detail": {"anyOf": [_TEXT, _list(_PROBLEM)]}}),
    "Done": _shape({"status": {"const": "ok"}, "message": _TEXT}),
    "Queued": _shape({"status": {"const": "ok"}, "message": _TEXT, "command_id": _ID}),
    "Register": _shape(
        {
            "name": _NAME,
            "type": {"type": "string", "enum": ["mysql", "postgres"]},
            "team_id": _INTEGER,
        },
        _SETTINGS,
    ),
    "Registered": _shape(
        {
            **{name: _COLLECTOR[name] for name in ("id", "name", "type", "team_id", "organization_id")},
            "api_key": {"type": "string", "pattern": "^collector_[0-9]+_.+$"},
            "message": _TEXT,
        }
    ),
    "Collector": _shape(_COLLECTOR),
    "Change": _shape({}, {"name": _NAME, **_SETTINGS}),
    "Heartbeat": _shape({}, {"stats": _OBJECT, "error": _TEXT_OR_NULL}),
    "HeartbeatAnswer": _shape({"status": {"const": "ok"}, "message": _TEXT, "commands": _list(_shape(_COMMAND))}),
    "NewCommand": _shape({"command": _NAME}, {"params": _OBJECT}),
    "Command": _shape(
        {
            **_COMMAND,
            "status": {"enum": ["pending", "expired", "completed", "failed"]},
            "success": {"type": ["boolean", "null"]},
            "result": {"type": ["object", "null"]},
        }
    ),
    "Execute": _shape({"command_id": _INTEGER, "success": {"type": "boolean"}}, {"result": _OBJECT}),
    "Bulk": _shape({"queries": _list(_RECORD)}),
    "BulkAnswer": _shape(
        {
            "status": {"const": "success"},
            "count": _COUNT,
            "skipped": _COUNT,
            "errors": {**_list(_shape({"query": _TEXT, "error": _TEXT})), "maxItems": 10},
        }
    ),
    "Stored": _shape(
        {"number": _ID, "collector_id": _ID, "received_at": _TEXT, "start_time": _TEXT, "record": _OBJECT}
    ),
    "Summary": _shape(dict.fromkeys(("records", "distinct_ids", "duplicates", "collectors", "keys"), _COUNT)),
    "Key": _shape({"collector_id": _ID, "key": _TEXT, "digest": _TEXT}),
    "Fault": Fault.model_json_schema(),
    "Faults": _shape({"faults": _list(_OBJECT), "hits": {"type": "object", "additionalProperties": _COUNT}}),
}

_WHY = {
    400: "Refused: a name that is taken, an empty key, a body that is no text",
    401: "Who is asking is not told, or unknown",
    403: "Not for you",
    404: "Unknown or expired",
    409: "The first request with this key is in progress",
    413: "Larger than 64 MiB, decompressed",
    415: "A content coding that is not supported",
    422: "Not the shape that is asked for, or a key used with another body",
    500: "PostgreSQL refused a record, and with it the whole body",
}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _call(summary: str, answer: Json, problems: tuple[int, ...] = (), *, body: str = "", **more: Any) -> Json:
    """One operation. `problems`: the statuses beside success; those of any body come with `body`."""
    status = str(more.pop("status", 200))
    if body:
        more["requestBody"] = {"required": True, "content": _content(_ref(body))}
        problems = tuple({*problems, 400, 413, 415, 422})
    responses: Json = {status: {"description": "Done", "content": _content(answer)}}
    for number in sorted(problems):
        name = "Invalid" if number == 422 else "Detail"
        responses[str(number)] = {"description": _WHY[number], "content": _content(_ref(name))}
    return {"summary": summary, "responses": responses, **more}


def _in_path(*names: str) -> list[Json]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "integer"}} for name in names]


def _in_query(name: str, default: int, **limits: int) -> Json:
    return {"name": name, "in": "query", "schema": {"type": "integer", "default": default, **limits}}


def _collector_calls(*, extensions: bool) -> Json:
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1}}
    bulk_problems = (401, 409, 500) if extensions else (401, 500)
    extra = {"parameters": [key]} if extensions else {}
    own: Json = {"security": _COLLECTOR_KEY}
    one = "/api/v1/collectors/{collector_id}"
    beat = _call("Tell the state, get commands", _ref("HeartbeatAnswer"), (401, 403), body="Heartbeat", **own)
    done = _call("Report a result", _ref("Done"), (401, 403, 404), body="Execute", **own)
    bulk = _call("Store records", _ref("BulkAnswer"), bulk_problems, body="Bulk", **own, **extra)
    ids = _in_path("collector_id", "command_id")
    return {
        f"{one}/heartbeat": {"parameters": _in_path("collector_id"), "post": beat},
        f"{one}/commands/{{command_id}}/execute": {"parameters": ids, "post": done},
        "/api/v1/queries/bulk": {"post": bulk},
    }


def _person_calls() -> Json:
    own: Json = {"security": _PERSON}
    every, one = "/api/v1/collectors", "/api/v1/collectors/{collector_id}"
    ids, known = _in_path("collector_id"), (401, 403, 404, 422)
    registered = _call("Register", _ref("Registered"), (401, 403, 404), body="Register", status=201, **own)
    paths: Json = {
        f"{every}/register": {"post": registered},
        every: {"get": _call("All collectors", _list(_ref("Collector")), (401, 403), **own)},
        one: {
            "parameters": ids,
            "get": _call("One collector", _ref("Collector"), known, **own),
            "patch": _call("Change a collector", _ref("Collector"), known, body="Change", **own),
            "delete": _call("Remove a collector", _ref("Done"), known, **own),
        },
        f"{one}/commands": {
            "parameters": ids,
            "get": _call("Its commands", _list(_ref("Command")), known, **own),
            "post": _call("Queue any command", _ref("Queued"), known, body="NewCommand", **own),
        },
    }
    for word in ("start", "stop", "collect"):
        paths[f"{one}/{word}"] = {
            "parameters": ids,
            "post": _call(f"Queue {word}", _ref("Queued"), known, **own),
        }
    return paths


def _dev_calls() -> Json:
    queries = _call("Stored records", _list(_ref("Stored")), (422,))
    queries["parameters"] = [
        _in_query("after", 0, minimum=0, maximum=2**63 - 1),
        _in_query("limit", 1000, minimum=0, maximum=10_000),
    ]
    return {
        "/dev/queries": {"get": queries},
        "/dev/summary": {"get": _call("How much is stored", _ref("Summary"))},
        "/dev/keys": {"get": _call("Idempotency keys", _list(_ref("Key")))},
        "/dev/faults": {
            "get": _call("Faults in force", _ref("Faults")),
            "post": _call("Order a fault", _ref("Faults"), body="Fault"),
            "delete": _call("End all faults", _ref("Faults")),
        },
    }


def document(*, extensions: bool = True) -> Json:
    """The whole document, ready for JSON."""
    bearer = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    collector_key = {"type": "apiKey", "in": "header", "name": "X-Collector-API-Key"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "DBPower development backend", "version": __version__},
        "paths": {**_collector_calls(extensions=extensions), **_person_calls(), **_dev_calls()},
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"collectorKey": collector_key, "bearer": bearer},
        },
    }
