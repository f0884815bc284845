"""The file that remembers what the backend changed, and how much of it holds. What may be changed is `permission`.

`remote.json` lies above the configuration file: {dotted path: {"value": ..., "over": digest}}. `over` is a digest of
what the configuration file said at that time, so a key that a person edits there later wins again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from agent.config.permission import ADDRESS, ANY, CREDENTIAL, INTERVALS, OFF, holds
from agent.config.places import DB_CONFIG, find, has_place, path_of
from agent.config.places import Path as Place
from agent.errors import ConfigMalformed
from agent.foreign_json import loads
from storage.errors import OutboxInaccessible

FILE_NAME = "remote.json"
MAX_BYTES = 1_048_576


def flatten(params: Mapping[str, object], place: Place = ()) -> dict[str, object]:
    """The params as dotted path to value: {"collection_interval": 60, "db_config.host": "h"}.

    `place`: where the keys of the watch stand that they are for, ("databases", "orders") for example.
    """
    database = params.get(DB_CONFIG)
    flat = {name: params[name] for name in INTERVALS if name in params}
    if isinstance(database, dict):
        flat.update({f"{DB_CONFIG}.{name}": value for name, value in database.items()})
    return {name if name == "heartbeat_interval" else ".".join((*place, name)): flat[name] for name in flat}


def overlay(data_dir: Path, file: Mapping[str, Any], mode: object) -> dict[str, object]:
    """What was accepted earlier and still holds under `remote_config: mode`: dotted path to value.

    Raises ConfigMalformed, or OutboxInaccessible when the directory cannot be read.
    """
    entries = {} if mode == OFF else _entries(data_dir)
    held = {
        name: value
        for name, (value, over) in entries.items()
        if over == _digest(file, name) and has_place(file, path_of(name)) and holds(path_of(name), value, file, mode)
    }
    return {name: value for name, value in held.items() if _has_its_company(name, held, entries, mode)}


def _entries(data_dir: Path) -> dict[str, tuple[object, object]]:
    path = data_dir / FILE_NAME
    try:
        with path.open("rb") as file:
            stored = loads(file.read(MAX_BYTES + 1))
        return {name: (entry["value"], entry["over"]) for name, entry in stored.items()}
    except FileNotFoundError:
        return {}
    except (PermissionError, NotADirectoryError) as error:
        raise OutboxInaccessible(f"{data_dir} ({error.strerror})") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ConfigMalformed(f"{path} (written by update_config; delete it to forget remote changes)") from None


def _has_its_company(
    name: str, held: Mapping[str, object], entries: Mapping[str, tuple[object, object]], mode: object
) -> bool:
    """Address and password were accepted together and hold together, or the password of one would go to the other.

    A password that a person has changed since, or that never came from afar, must not go to an address of the backend;
    and one of the backend's is not for the address that a person has written down since.
    """
    place = path_of(name)
    if place[-2:-1] != (DB_CONFIG,):
        return True
    credential = _beside(name, CREDENTIAL)
    if place[-1] in ADDRESS and credential not in held and not (credential not in entries and mode == ANY):
        return False
    addresses = [_beside(name, each) for each in ADDRESS]
    return (place[-1] not in {*ADDRESS, CREDENTIAL}) or all(each in held for each in addresses if each in entries)


def leak(overlay_now: Mapping[str, object], above: Mapping[str, Any], mode: object) -> list[str]:
    """Complaints when a password of environment or command line would go to an address from the backend.

    Such a password is above the one that `permission` demands beside a new address, and would be sent in its place.
    """
    if mode == ANY:
        return []
    reason = "was set remotely, but the password comes from environment or command line, and remote_config is safe"
    found = []
    for name in sorted(overlay_now):
        place = path_of(name)
        is_address = place[-2:-1] == (DB_CONFIG,) and place[-1] in ADDRESS
        database = find(above, place[:-1]) if is_address else None
        if isinstance(database, dict) and CREDENTIAL in database and place[-1] not in database:
            found.append(f"{name}: {reason}")
    return found


def _beside(name: str, key: str) -> str:
    """The path of another key of the same database."""
    return f"{name.rpartition('.')[0]}.{key}"


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
    _sync(data_dir)


def put_aside(data_dir: Path, at: datetime) -> Path:
    """Gives remote.json another name, under which nobody reads it and a person can. Raises OSError."""
    aside = data_dir / f"{FILE_NAME}.unusable-{at:%Y%m%dT%H%M%SZ}"
    (data_dir / FILE_NAME).replace(aside)
    _sync(data_dir)
    return aside


def _sync(data_dir: Path) -> None:
    directory = os.open(data_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _digest(file: Mapping[str, Any], path: str) -> str:
    # Not orjson: a value from the environment may hold bytes that are no UTF-8, as lone surrogates.
    return hashlib.sha256(json.dumps(find(file, path_of(path)), sort_keys=True).encode()).hexdigest()
