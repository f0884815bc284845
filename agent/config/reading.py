"""Reads a configuration file as it stands: one object of JSON. Judges nothing in it and fills in nothing."""

from __future__ import annotations

from pathlib import Path

import orjson

from agent.config.places import Tree
from agent.errors import ConfigMalformed, ConfigMissing

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors of Windows begin every file with it


def read(path: Path) -> Tree:
    """What stands in the file, with its `${NAME}` as they are. Raises ConfigMissing, ConfigMalformed."""
    try:
        text = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise ConfigMissing(f"{path} ({error.strerror})") from None
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigMalformed(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(tree, dict):
        raise ConfigMalformed(f"{path} should hold one object")
    return tree
