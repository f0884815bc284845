"""Whether a configuration file tells others what it should not. Looks at the file alone; complains of nothing else."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

_SECRETS = re.compile(r"password|secret|token|api_?key", re.IGNORECASE)
_TAKEN_FROM_ELSEWHERE = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})*")
_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # an address, as of a proxy


def exposed(path: Path) -> str | None:
    """What is wrong with who may read or write the file, and how to mend it; None when nothing is.

    A file that every user may read is fine when no secret stands in it. One that cannot be read is not exposed.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & stat.S_IWOTH:
            return f"{path} can be changed by every user of this machine (mode {mode:04o}): chmod o-rwx {path}"
        if not mode & stat.S_IROTH:
            return None
        secrets = sorted(set(_secrets(orjson.loads(path.read_bytes()), "")))
    except (OSError, ValueError):
        return None
    if not secrets:
        return None
    told = f"{path} can be read by every user of this machine (mode {mode:04o}) and holds {', '.join(secrets)}"
    return f"{told}: chmod o-rwx {path}"


def _secrets(node: Any, name: str) -> Iterator[str]:
    """The keys under which a secret stands as it is."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _secrets(value, str(key))
    elif isinstance(node, list):
        for value in node:
            yield from _secrets(value, name)
    elif isinstance(node, str) and not _TAKEN_FROM_ELSEWHERE.fullmatch(node) and _is_secret(name, node):
        yield name


def _is_secret(name: str, value: str) -> bool:
    return bool(_SECRETS.search(name) or _WITH_PASSWORD.search(value))
