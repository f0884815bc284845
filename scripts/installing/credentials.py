"""What a service still lacks to be started, and how systemd hands it its secrets. Pure: text in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CREDENTIALS_SINCE = 250  # the version of systemd from which on %d is known
_KEY = re.compile(r"[a-z_]+(\.[A-Za-z0-9_.-]+)*")
_PATH = re.compile(r"/[^\s:\"'\\]+")
_LOADED = re.compile(r"^LoadCredential=([^:\n]+):(.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def parsed(option: str) -> tuple[str, str]:
    """Key and file of `--credential api_key=/path`. Raises ValueError with a sentence."""
    key, equals, path = option.partition("=")
    if not equals or not _KEY.fullmatch(key) or not _PATH.fullmatch(path):
        raise ValueError(f"--credential {option}: should be KEY=/PATH, for example api_key=/etc/dbpower/api_key")
    return key, path


def variable(key: str) -> str:
    """The variable of the agent for that key: `db_config.password` is DBPOWER_DB_CONFIG_PASSWORD."""
    return f"DBPOWER_{re.sub(r'[^A-Za-z0-9]', '_', key)}".upper()


def drop_in(credentials: Mapping[str, str]) -> str:
    """What is added to the unit: systemd reads each file as root, and only the agent can read what it makes of it."""
    lines = ["# Written by scripts/install-service.", "[Service]"]
    for key, path in sorted(credentials.items()):
        lines.append(f"LoadCredential={key}:{path.replace('%', '%%')}")
        lines.append(f"Environment={variable(key)}_FILE=%d/{key}")
    return "\n".join(lines) + "\n"


def loaded(text: str) -> dict[str, str]:
    """Key to file of what such a text says."""
    return {key: path.replace("%%", "%") for key, path in _LOADED.findall(text)}


def first_config(example: str, credentials: Mapping[str, str]) -> str:
    """The example, without what comes by a credential."""
    tree = json.loads(example)
    for key in credentials:
        *way, last = key.split(".")
        node: Any = tree
        for step in way:
            node = node.get(step) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return json.dumps(tree, indent=2) + "\n"


def lacks(config: str, example: str, environment: str, credentials: Mapping[str, str]) -> list[str]:
    """Why a service with that configuration would not start: what is still the example's, and what nobody says."""
    names = set(re.findall(r"^\s*(\w+)=", environment, flags=re.MULTILINE))
    try:
        tree, sample = json.loads(config), json.loads(example)
    except ValueError as error:
        return [f"config.json is no JSON: {error}"]
    wrong = []
    key = variable("api_key")
    has_key = not names.isdisjoint({key, f"{key}_FILE"}) or "api_key" in credentials
    if not has_key and (not isinstance(tree, dict) or tree.get("api_key") in {None, sample["api_key"]}):
        wrong.append("api_key in config.json is none yet")
    missing = sorted(set(_PLACEHOLDER.findall(config)) - names)
    wrong += [f"${{{name}}} in config.json is said nowhere: put {name}='...' into `environment`" for name in missing]
    return wrong


def is_at_least(said: str, version: int) -> bool:
    """Whether `systemctl --version` tells of that version or a later one."""
    found = re.match(r"systemd (\d+)", said)
    return found is not None and int(found[1]) >= version


def is_open(path: Path) -> bool:
    """Whether others than its owner may read that file."""
    return bool(path.stat().st_mode & 0o077)
