"""Where something stands in a configuration: `db_config.port`, `databases.orders.db_config.port`. Pure: no file.

A database is found by its name, in the list of the file as in an object that has names as keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DATABASES, DB_CONFIG = "databases", "db_config"

Path = tuple[str, ...]
Tree = dict[str, Any]


def path_of(dotted: str) -> Path:
    """The steps of a dotted path; the name of a database is one step, whatever dots it has.

    No key has a dot and no name ends in `.db_config`, so there is one way to read it. Inside the list nothing names the
    keys of a section in db_config by dots.
    """
    if not dotted.startswith(f"{DATABASES}."):
        return tuple(dotted.split("."))
    before, _, key = dotted.removeprefix(f"{DATABASES}.").rpartition(".")
    name = before.removesuffix(f".{DB_CONFIG}")
    return (DATABASES, name, key) if name == before else (DATABASES, name, DB_CONFIG, key)


def find(tree: Any, path: Path) -> Any:
    """What stands there; None when nothing does."""
    for step in path:
        tree = child(tree, step)
    return tree


def child(node: Any, step: str) -> Any:
    """What stands one step below: the value of a key, or the database of that name; None when there is none."""
    if isinstance(node, list):
        return next((each for each in node if isinstance(each, dict) and each.get("name") == step), None)
    return node.get(step) if isinstance(node, dict) else None


def put(tree: Tree, path: Path, value: object) -> None:
    """Sets the value at `path`, making the objects on the way."""
    node: Any = tree
    for step in path[:-1]:
        below = child(node, step)
        if isinstance(node, list) and below is None:
            below = {"name": step}
            node.append(below)
        elif not holds_keys(step, below):
            below = node[step] = {}
        node = below
    node[path[-1]] = value


def holds_keys(step: str, below: Any) -> bool:
    """Whether keys can stand in what stands at `step`: in an object, or in the list of databases by their names."""
    return isinstance(below, dict) or (step == DATABASES and isinstance(below, list))


def place_of(tree: Mapping[str, Any], watch: str) -> Path:
    """Where the keys of that watch stand: at the top for the single pair, else below its name."""
    return (DATABASES, watch) if tree.get(DATABASES) else ()


def has_place(tree: Mapping[str, Any], path: Path) -> bool:
    """Whether a key of a database still belongs to one: to the single pair, or to one that the list has."""
    if path[0] == DATABASES:
        return len(path) > 1 and isinstance(tree.get(DATABASES), list) and child(tree[DATABASES], path[1]) is not None
    return path[0] != DB_CONFIG or not tree.get(DATABASES)
