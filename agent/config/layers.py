"""Brings the layers together: command line over environment over remote over file. Complains of everything at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from agent.config import complaints, remote
from agent.config.schema import Config
from agent.errors import ConfigError, ConfigMalformed, ConfigMissing

PREFIX = "DBPOWER_"
MAX_DEPTH = 16  # ours has three levels; what is deeper is a mistake, and recursion ends somewhere
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors of Windows begin every file with it
_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layers:
    """Where a configuration comes from; kept, so that a remote change can be laid between them later.

    file: with `${NAME}` filled in; above: environment and command line, which nothing overrides.
    """

    file: Tree = field(repr=False)
    above: Tree = field(repr=False)
    data_dir: Path

    @property
    def remote_config(self) -> object:
        """How much `update_config` may do here, as this host says it."""
        return self.above.get("remote_config", self.file.get("remote_config", "safe"))

    def build(self, overlay: Mapping[str, object]) -> Config:
        """The configuration with `overlay` (dotted path to value) between file and environment.

        Raises ConfigError that names everything that is wrong.
        """
        tree = deepcopy(self.file)
        for path, value in overlay.items():
            put(tree, path.split("."), value)
        _merge(tree, self.above)
        if isinstance(tree.get("data_dir", ""), str):
            tree["data_dir"] = str(self.data_dir)
        wrong = remote.leak(overlay, self.above, self.remote_config)
        try:
            config = Config.model_validate(tree)
        except ValidationError as error:
            wrong = complaints.sentences(error, Config) + wrong
        if wrong:
            raise ConfigError("; ".join(wrong))
        return config


def load(path: Path, environ: Mapping[str, str], options: Mapping[str, object]) -> tuple[Config, Layers]:
    """Reads everything that is said about this agent. `options`: dotted path to value, from the command line.

    Raises ConfigMissing, ConfigMalformed, or ConfigError with all complaints, each with its path.
    """
    wrong: list[str] = []
    file = _fill(_read(path), environ, wrong, ())
    above: Tree = {}
    for place, text in _from_environment(environ, wrong):
        put(above, place, text)
    wrong += _misspelt(environ)
    for dotted, value in options.items():
        put(above, dotted.split("."), value)
    layers = Layers(file, above, _data_dir(file, above, path, environ))
    try:
        config = layers.build(remote.overlay(layers.data_dir, file, layers.remote_config))
    except ConfigError as error:
        wrong.append(error.detail)
    if wrong:
        raise ConfigError("; ".join(wrong))
    return config, layers


def put(tree: Tree, path: list[str] | tuple[str, ...], value: object) -> None:
    """Sets the value at `path`, making the objects on the way."""
    for name in path[:-1]:
        child = tree.get(name)
        if not isinstance(child, dict):
            child = tree[name] = {}
        tree = child
    tree[path[-1]] = value


def _read(path: Path) -> Tree:
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


def _fill(node: Any, environ: Mapping[str, str], wrong: list[str], path: tuple[str, ...]) -> Any:
    if len(path) > MAX_DEPTH:
        raise ConfigMalformed(f"objects and lists stand in one another more than {MAX_DEPTH} deep")
    if isinstance(node, dict):
        return {key: _fill(value, environ, wrong, (*path, key)) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, environ, wrong, (*path, str(number))) for number, value in enumerate(node)]
    if not isinstance(node, str):
        return node

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:  # $${ is a literal ${
            return "${"
        if name not in environ:
            wrong.append(f"{'.'.join(path)}: the environment has no variable {name}")
        return environ.get(name, "")

    return _PLACEHOLDER.sub(value_of, node)


def _leaves(schema: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name in schema.model_fields:
        section = complaints.section(schema, (name,))
        if section is None:
            yield (*path, name)
        else:
            yield from _leaves(section, (*path, name))


def _from_environment(environ: Mapping[str, str], wrong: list[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    for place in _leaves(Config, ()):
        variable = PREFIX + "_".join(place).upper()
        if variable in environ:
            yield place, environ[variable]
        elif f"{variable}_FILE" in environ:
            try:
                text = Path(environ[f"{variable}_FILE"]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                wrong.append(f"{'.'.join(place)}: the file named by {variable}_FILE cannot be read")
            else:
                yield place, text.rstrip("\r\n")


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    """Complaints about variables that are nearly ours; what is far from all of ours is somebody else's."""
    names = [PREFIX + "_".join(place).upper() for place in _leaves(Config, ())]
    known = {*names, *(f"{name}_FILE" for name in names)}
    complaints_found = []
    for name in sorted(environ):
        near = get_close_matches(name, known, n=1, cutoff=0.8) if name.startswith(PREFIX) and name not in known else []
        if near:
            complaints_found.append(f"{name}: unknown variable; did you mean {near[0]}?")
    return complaints_found


def _data_dir(file: Tree, above: Tree, path: Path, environ: Mapping[str, str]) -> Path:
    given = above.get("data_dir", file.get("data_dir"))
    if isinstance(given, str) and given:
        return Path(os.path.abspath(path.parent / given))
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(state) if state else Path(os.path.abspath(path.parent / "data"))


def _merge(tree: Tree, above: Tree) -> None:
    for key, value in above.items():
        below = tree.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _merge(below, value)
        else:
            tree[key] = deepcopy(value)
