"""What the backend may change (`update_config`), and the file that remembers what was accepted.

`remote.json` lies above the configuration file: {dotted path: {"value": ..., "over": digest}}. `over` is a digest of
what the configuration file said at that time, so a key that a person edits there later wins again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from agent.config.places import DB_CONFIG, find, has_place, path_of
from agent.config.places import Path as Place
from agent.config.schema import DEFAULT, DbConfig
from agent.errors import ConfigMalformed
from storage.errors import OutboxInaccessible

FILE_NAME = "remote.json"
_INTERVALS = ("heartbeat_interval", "collection_interval")
_ADDRESS = frozenset({"host", "port", "user", "database"})
_CREDENTIAL = "password"
_TLS = "tls"
_THRESHOLDS = frozenset({"password", "min_exec_time_ms", "max_sql_text_bytes", "connect_timeout", "read_timeout"})


def refusal(params: Mapping[str, object], mode: str, watches: Sequence[str] = (DEFAULT,)) -> str | None:
    """Why a change is not allowed under `remote_config: mode`; None when it is. Its values are checked elsewhere.

    `safe` keeps the stored password from being sent to an address that the backend chose. `watches`: all there are;
    what is meant for one database must not go to the others.
    """
    if mode == "off":
        return "remote_config is off on this host"
    unknown = [name for name in params if name not in {DB_CONFIG, "target", *_INTERVALS}]
    if unknown:
        return f"unknown: {', '.join(sorted(unknown))}; known are db_config, {', '.join(_INTERVALS)}, target"
    database = params.get(DB_CONFIG, {})
    if not isinstance(database, dict):
        return "db_config should be an object"
    if not flatten(params):
        return "nothing to change was named"
    if database and len(watches) > 1 and params.get("target") is None:
        return f"db_config needs a target, one of {', '.join(watches)}"
    if any("." in name for name in database):
        return "db_config has no key with a dot in its name"
    if _TLS in database:
        return "db_config tls is set on this host only"
    return None if mode == "any" else _unsafe(database)


def _unsafe(database: Mapping[str, object]) -> str | None:
    foreign = [name for name in database if name in DbConfig.model_fields and name not in _ADDRESS | _THRESHOLDS]
    if foreign:
        return f"remote_config is safe on this host: db_config {', '.join(sorted(foreign))} cannot be changed remotely"
    if _ADDRESS & set(database) and _CREDENTIAL not in database:
        return "remote_config is safe on this host: host, port, user or database need a new password beside them"
    return None


def flatten(params: Mapping[str, object], place: Place = ()) -> dict[str, object]:
    """The params as dotted path to value: {"collection_interval": 60, "db_config.host": "h"}.

    `place`: where the keys of the watch stand that they are for, ("databases", "orders") for example.
    """
    database = params.get(DB_CONFIG)
    flat = {name: params[name] for name in _INTERVALS if name in params}
    if isinstance(database, dict):
        flat.update({f"{DB_CONFIG}.{name}": value for name, value in database.items()})
    return {name if name == "heartbeat_interval" else ".".join((*place, name)): flat[name] for name in flat}


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
    held = {
        name: value
        for name, (value, over) in entries.items()
        if over == _digest(file, name) and has_place(file, path_of(name))
    }
    # The password is a person's (changed since, or never remote): it must not go to an address from the backend.
    return {
        name: value
        for name, value in held.items()
        if not _is_address(path_of(name))
        or (credential := _beside(name)) in held
        or (credential not in entries and mode == "any")
    }


def leak(overlay_now: Mapping[str, object], above: Mapping[str, Any], mode: object) -> list[str]:
    """Complaints when a password of environment or command line would go to an address from the backend.

    Such a password is above the one that `refusal` demands beside a new address, and would be sent in its place.
    """
    if mode == "any":
        return []
    reason = "was set remotely, but the password comes from environment or command line, and remote_config is safe"
    found = []
    for name in sorted(overlay_now):
        place = path_of(name)
        database = find(above, place[:-1]) if _is_address(place) else None
        if isinstance(database, dict) and _CREDENTIAL in database and place[-1] not in database:
            found.append(f"{name}: {reason}")
    return found


def _is_address(place: Place) -> bool:
    return place[-2:-1] == (DB_CONFIG,) and place[-1] in _ADDRESS


def _beside(name: str) -> str:
    """The path of the password that goes to the address of which `name` is a part."""
    return f"{name.rpartition('.')[0]}.{_CREDENTIAL}"


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
    # Not orjson: a value from the environment may hold bytes that are no UTF-8, as lone surrogates.
    return hashlib.sha256(json.dumps(find(file, path_of(path)), sort_keys=True).encode()).hexdigest()
