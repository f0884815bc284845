"""How the agent speaks: a sentence for people, an `event` word and fields for machines. Never a statement's text."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from agent.log_queue import LineQueue

LOGGER = logging.getLogger("dbpower")
STANDARD_ERROR = 2


def tell(level: int, event: str, sentence: str, /, **fields: object) -> None:
    """Says one sentence. `event`: a stable word; `fields`: what a machine would want, no secrets."""
    # In one attribute: `logging` refuses fields that are called like one of its own (name, thread, process ...).
    LOGGER.log(level, "%s", sentence, extra={"event": event, "fields": fields})


class _Text(logging.Formatter):
    """`2026-01-31T12:00:00Z INFO outbox.opened The outbox ... (records=3)`"""

    def format(self, record: logging.LogRecord) -> str:
        fields = ", ".join(f"{name}={value}" for name, value in _fields(record).items())
        line = f"{_stamp(record)} {record.levelname} {getattr(record, 'event', record.name)} {record.getMessage()}"
        line += f" ({fields})" if fields else ""
        line = " ".join(line.splitlines())  # a server's message of several lines must not look like several of ours
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            **_fields(record),
            "time": _stamp(record),
            "level": record.levelname,
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def set_up(level: str, style: str) -> None:
    """Sends what is told to standard error, from `level` on, as `text` or `json`; nobody ever waits for its reader."""
    for earlier in LOGGER.handlers:
        earlier.close()
    # A program that was started without standard error may have a file of its own there.
    handler = LineQueue(STANDARD_ERROR) if sys.stderr is not None else logging.NullHandler()
    handler.setFormatter(_Json() if style == "json" else _Text())
    LOGGER.handlers[:] = [handler]
    logging.lastResort = handler  # where the warnings of our packages go: it would write to standard error itself
    logging.captureWarnings(capture=True)  # and those of `warnings`, which Python writes past everything
    logging.getLogger("py.warnings").handlers[:] = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def is_for_machines() -> bool:
    """Whether the lines are JSON."""
    return any(isinstance(handler.formatter, _Json) for handler in LOGGER.handlers)


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields
