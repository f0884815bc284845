"""How the agent speaks: a sentence for people, an `event` word and fields for machines. Never a statement's text."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from agent import journal
from agent.log_queue import LineQueue
from storage.plain import plain

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
        line = f"{_stamp(record)} {record.levelname} {_event(record)} {record.getMessage()}"
        line += f" ({fields})" if fields else ""
        line = plain(line)  # a server's message must not look like several of ours, nor move the cursor
        if not record.exc_info:
            return line
        return "\n".join([line, *map(plain, self.formatException(record.exc_info).splitlines())])


class _Entry(logging.Formatter):
    """One entry of the journal."""

    def of(self, record: logging.LogRecord) -> bytes:
        message = " ".join(record.getMessage().splitlines())
        message += f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return journal.entry(record.levelno, message, _event(record), _fields(record))


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            **_fields(record),
            "time": _stamp(record),
            "level": record.levelname,
            "event": _event(record),
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def set_up(level: str, style: str, environment: Mapping[str, str] = os.environ) -> None:
    """Sends what is told to standard error, from `level` on, as `text` or `json`; nobody ever waits for its reader.

    Text goes to the journal itself, with its fields, where systemd says that it is at the other end. May be called
    again, for another level or style.
    """
    handler = next((each for each in LOGGER.handlers if isinstance(each, LineQueue)), None) or _first_handler()
    handler.setFormatter(_Json() if style == "json" else _Text())
    if isinstance(handler, LineQueue):
        is_for_journal = style != "json" and journal.hears(STANDARD_ERROR, environment)
        handler.make_entry = _Entry().of if is_for_journal else None
    LOGGER.handlers[:] = [handler]
    logging.lastResort = handler  # where the warnings of our packages go: it would write to standard error itself
    logging.captureWarnings(capture=True)  # and those of `warnings`, which Python writes past everything
    logging.getLogger("py.warnings").handlers[:] = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def _first_handler() -> logging.Handler:
    # A program that was started without standard error may have a file of its own there.
    return LineQueue(STANDARD_ERROR) if sys.stderr is not None else logging.NullHandler()


def _event(record: logging.LogRecord) -> str:
    event: str = getattr(record, "event", record.name)
    return event


def is_for_machines() -> bool:
    """Whether the lines are JSON."""
    return any(isinstance(handler.formatter, _Json) for handler in LOGGER.handlers)


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields
