"""What the backend may change (`update_config`), and the file that remembers what was accepted.

`remote.json` lies above the configuration file: {dotted path: {"value": ..., "over": digest}}. `over` is a digest of
what the configuration file said at that time, so a key that a person edits there later wins again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from agent.config.schema import DbConfig
from agent.errors import ConfigMalformed
from storage.errors import OutboxInaccessible

FILE_NAME = "remote.json"
_INTERVALS = ("heartbeat_interval", "collection_interval")
_ADDRESS = frozenset({"host", "port", "user", "database"})
_ADDRESS_PATHS = frozenset(f"db_config.{name}" for name in _ADDRESS)
_CREDENTIAL = "db_config.password"
_THRESHOLDS = frozenset({"password", "min_exec_time_ms", "max_sql_text_bytes", "connect_timeout", "read_timeout"})


def refusal(params: Mapping[str, object], mode: str) -> str | None:
    """Why a change is not allowed under `remote_config: mode`; None when it is. Its values are checked elsewhere.

    `safe` keeps the stored password from being sent to an address that the backend chose.
    """
    if mode == "off":
        return "remote_config is off on this host"
    unknown = [name for name in params if name not in {"db_config", "target", *_INTERVALS}]
    if unknown:
        return f"unknown: {', '.join(sorted(unknown))}; known are db_config, {', '.join(_INTERVALS)}, target"
    database = params.get("db_config", {})
    if not isinstance(database, dict):
        return "db_config should be an object"
    if not flatten(params):
        return "nothing to change was named"
    if mode == "any":
        return None
    foreign = [name for name in database if name in DbConfig.model_fields and name not in _ADDRESS | _THRESHOLDS]
    if foreign:
        return f"remote_config is safe on this host: db_config {', '.join(sorted(foreign))} cannot be changed remotely"
    if _ADDRESS & set(database) and "password" not in database:
        return "remote_config is safe on this host: host, port, user or database need a new password beside them"
    return None


def flatten(params: Mapping[str, object]) -> dict[str, object]:
    """The params as dotted path to value: {"collection_interval": 60, "db_config.host": "h"}."""
    database = params.get("db_config")
    flat = {name: params[name] for name in _INTERVALS if name in params}
    if isinstance(database, dict):
        flat.update({f"db_config.{name}": value for name, value in database.items()})
    return flat


def overlay(data_dir: Path, file: Mapping[str, Any], mode: object) -> dict[str, object]:
    """What was accepted earlier and still holds under `remote_config: mode`: dotted path to value.

    Raises ConfigMalformed, or OutboxInaccessible when the directory cannot be read.
    """
    if mode == "off":
        return {}
    path = data_dir / FILE_NAME
    try:
        stored = orjson.loads(path.read_bytes())
        entries = {str(name): (entry["value"], entry["over"]) for name, entry in stored.items()}
    except FileNotFoundError:
        return {}
    except (PermissionError, NotADirectoryError) as error:
        raise OutboxInaccessible(f"{data_dir} ({error.strerror})") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ConfigMalformed(f"{path} (written by update_config; delete it to forget remote changes)") from None
    held = {name: value for name, (value, over) in entries.items() if over == _digest(file, name)}
    if _CREDENTIAL not in held and (_CREDENTIAL in entries or mode != "any"):
        # The password is a person's (changed since, or never remote): it must not go to an address from the backend.
        held = {name: value for name, value in held.items() if name not in _ADDRESS_PATHS}
    return held


def leak(overlay_now: Mapping[str, object], above: Mapping[str, Any], mode: object) -> list[str]:
    """Complaints when a password of environment or command line would go to an address from the backend.

    Such a password is above the one that `refusal` demands beside a new address, and would be sent in its place.
    """
    database = above.get("db_config")
    if mode == "any" or not isinstance(database, dict) or "password" not in database:
        return []
    foreign = (
        name for name in overlay_now if name in _ADDRESS_PATHS and name.removeprefix("db_config.") not in database
    )
    reason = "was set remotely, but the password comes from environment or command line, and remote_config is safe"
    return [f"{name}: {reason}" for name in sorted(foreign)]


def save(data_dir: Path, file: Mapping[str, Any], overlay_now: Mapping[str, object]) -> None:
    """Replaces remote.json, durable and readable by its owner only. Raises OSError."""
    entries = {name: {"value": value, "over": _digest(file, name)} for name, value in overlay_now.items()}
    path, fresh = data_dir / FILE_NAME, data_dir / f"{FILE_NAME}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        os.fchmod(descriptor, 0o600)  # a file left over by a crash keeps its mode
        target.write(orjson.dumps(entries, option=orjson.OPT_INDENT_2))
        target.flush()
        os.fsync(target.fileno())
    fresh.replace(path)
    directory = os.open(data_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _digest(file: Mapping[str, Any], path: str) -> str:
    node: Any = file
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    # Not orjson: a value from the environment may hold bytes that are no UTF-8, as lone surrogates.
    return hashlib.sha256(json.dumps(node, sort_keys=True).encode()).hexdigest()
