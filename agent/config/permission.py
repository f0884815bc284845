"""What the backend may change (`update_config`), as this host allows it. Reads no file and checks no types.

Lists of what is allowed: a key that stands in none of them is this host's own, also one that a later version adds. So
nobody can switch off TLS from afar, name a proxy, or have more of the texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from agent.config.places import DATABASES, DB_CONFIG, Path, find
from agent.config.schema import DEFAULT
from storage.plain import plain

SAFE, ANY, OFF = "safe", "any", "off"
SWITCHED_OFF = "remote_config is off on this host"
CREDENTIAL, TARGET = "password", "target"
ADDRESS = ("host", "port", "user", "database")
THRESHOLDS = ("min_exec_time_ms", "max_sql_text_bytes", "connect_timeout", "read_timeout")
ON_TRUST = ("start", "max_load", "slow_log_backups", "rotate")  # what a look may cost, and what is written: `any` only
INTERVALS = ("heartbeat_interval", "collection_interval")
# Under `safe`, as far as the file itself does not go beyond: so that a backend can neither wear out the database and
# this host with looks, nor put an agent to sleep that still looks as if it worked.
LIMITS: Mapping[str, tuple[float, float]] = {
    "heartbeat_interval": (5, 3_600),
    "collection_interval": (10, 86_400),
    "connect_timeout": (1, 60),
    "read_timeout": (1, 120),
    "min_exec_time_ms": (0, 60_000),
    "max_sql_text_bytes": (1_024, 4 * 1_048_576),
}
_NAMES_SHOWN, _NAME_CHARACTERS = 5, 40


def refusal(params: Mapping[str, object], mode: object, watches: Sequence[str] = (DEFAULT,)) -> str | None:
    """Why a change is not allowed under `remote_config: mode`; None when it is, as far as its names tell.

    `safe` keeps the stored password from being sent to an address that the backend chose. `watches`: all there are;
    what is meant for one database must not go to the others.
    """
    if mode not in {SAFE, ANY}:
        return SWITCHED_OFF
    known = (DB_CONFIG, *INTERVALS, TARGET)
    if strange := _beside(params, known):
        return f"unknown: {strange}; known are {', '.join(known)}"
    database = params.get(DB_CONFIG, {})
    if not isinstance(database, dict):
        return "db_config should be an object"
    if not database and not any(name in params for name in INTERVALS):
        return "nothing to change was named"
    if database and len(watches) > 1 and params.get(TARGET) is None:
        return f"db_config needs a target, one of {', '.join(watches)}"
    return _of_database(database, mode)


def _of_database(database: Mapping[str, object], mode: object) -> str | None:
    known = (*ADDRESS, CREDENTIAL, *THRESHOLDS, *ON_TRUST)
    if strange := _beside(database, known):
        near = get_close_matches(strange, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "it is unknown, or this host's own"
        return f"db_config {strange} cannot be changed remotely; {hint}"
    if mode == ANY:
        return None
    if foreign := _beside(database, (*ADDRESS, CREDENTIAL, *THRESHOLDS)):
        return f"remote_config is safe on this host: db_config {foreign} cannot be changed remotely"
    # An empty one is none: a driver may look for another one on this host then.
    if not database.get(CREDENTIAL) and any(name in database for name in ADDRESS):
        return "remote_config is safe on this host: host, port, user or database need a new password beside them"
    if CREDENTIAL in database and not database[CREDENTIAL]:
        return "remote_config is safe on this host: the password cannot become an empty one"
    return None


def beyond(path: Path, value: object, file: Mapping[str, Any], mode: object) -> str | None:
    """Why the value is not allowed at that place under `remote_config: mode`, where its key is; None when it is."""
    limits = LIMITS.get(path[-1])
    number, own = _number(value), _number(_own(path, file))
    if mode == ANY or limits is None or number is None:
        return None
    low, high = limits if own is None else (min(limits[0], own), max(limits[1], own))
    if low <= number <= high:
        return None
    return f"remote_config is safe on this host: {path[-1]} should lie between {low:g} and {high:g}"


def holds(path: Path, value: object, file: Mapping[str, Any], mode: object) -> bool:
    """Whether what was accepted earlier is allowed now: this host may have become stricter since."""
    if mode not in {SAFE, ANY}:
        return False
    if path[-2:-1] == (DB_CONFIG,):
        whose, allowed = path[:-2], (*ADDRESS, CREDENTIAL, *THRESHOLDS, *(ON_TRUST if mode == ANY else ()))
    else:
        whose, allowed = path[:-1], INTERVALS if len(path) == 1 else INTERVALS[1:]
    is_somebodys = not whose or (len(whose) == 2 and whose[0] == DATABASES)
    is_empty = path[-1] == CREDENTIAL and not value and mode == SAFE
    return is_somebodys and path[-1] in allowed and not is_empty and beyond(path, value, file, mode) is None


def _own(path: Path, file: Mapping[str, Any]) -> object:
    own = find(file, path)
    # A database without an interval of its own has that of the agent.
    return find(file, path[-1:]) if own is None and path[0] == DATABASES else own


def _number(value: object) -> float | None:
    """The number that the text or number stands for: those of the environment are texts."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _beside(given: Mapping[str, object], known: Sequence[str]) -> str:
    """The names that are not among the known ones; a few of them, and as they may be shown."""
    strange = [name for name in given if name not in known]
    shown = ", ".join(sorted(plain(name, _NAME_CHARACTERS) or '""' for name in strange[:_NAMES_SHOWN]))
    return f"{shown} and {len(strange) - _NAMES_SHOWN:,} more" if len(strange) > _NAMES_SHOWN else shown
