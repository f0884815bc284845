"""Brings the layers together: command line over environment over remote over file. Complains of everything at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config import certificate_files, complaints, environment, remote
from agent.config.places import Tree, child, holds_keys, path_of, put
from agent.config.reading import read
from agent.config.schema import Config
from agent.config.section import DIRECTORY
from agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Layers:
    """Where a configuration comes from; kept, so that a remote change can be laid between them later.

    file: with `${NAME}` filled in; above: environment and command line, which nothing overrides, the databases as an
    object by their names; directory: where relative files that TLS needs are. unusable: why what the backend had
    changed is left out; empty while it is not.
    """

    file: Tree = field(repr=False)
    above: Tree = field(repr=False)
    data_dir: Path
    directory: Path = Path()
    unusable: str = ""

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
            put(tree, path_of(path), value)
        _merge(tree, self.above)
        given = tree.get("data_dir", "")
        if isinstance(given, str) and "\0" not in given:
            tree["data_dir"] = str(self.data_dir)
        wrong = remote.leak(overlay, self.above, self.remote_config)
        try:
            config = Config.model_validate(tree, context={DIRECTORY: self.directory})
        except ValidationError as error:
            wrong = complaints.sentences(error, Config, tree) + wrong
        if wrong:
            raise ConfigError("; ".join(wrong))
        return config


def load(path: Path, environ: Mapping[str, str], options: Mapping[str, object]) -> tuple[Config, Layers]:
    """Reads everything that is said about this agent. `options`: dotted path to value, from the command line.

    Raises ConfigMissing, ConfigMalformed, or ConfigError with all complaints, each with its path.
    """
    return assemble(read(path), path, environ, options)


def assemble(
    tree: Tree, path: Path, environ: Mapping[str, str], options: Mapping[str, object]
) -> tuple[Config, Layers]:
    """The same with `tree` in place of what stands in the file at `path`. Raises as `load` does."""
    wrong: list[str] = []
    file = environment.filled_in(tree, environ, wrong)
    above: Tree = {}
    known = environment.variables(file)
    for place, text in environment.said(known, environ, wrong):
        put(above, place, text)
    wrong += environment.misspelt(known, environ)
    for dotted, value in options.items():
        put(above, path_of(dotted), value)
    layers = Layers(file, above, _data_dir(file, above, path, environ), Path(os.path.abspath(path.parent)))
    try:
        config, layers = _with_remote(layers)
        wrong += certificate_files.unusable(config)
    except ConfigError as error:
        wrong.append(error.detail)
    if wrong:
        raise ConfigError("; ".join(wrong))
    return config, layers


def _with_remote(layers: Layers) -> tuple[Config, Layers]:
    """With what the backend had changed, or without it: what was right by then must keep no agent from starting now."""
    try:
        return layers.build(remote.overlay(layers.data_dir, layers.file, layers.remote_config)), layers
    except ConfigError as error:
        return layers.build({}), replace(layers, unusable=error.detail)


def _data_dir(file: Tree, above: Tree, path: Path, environ: Mapping[str, str]) -> Path:
    given = above.get("data_dir", file.get("data_dir"))
    if isinstance(given, str) and given and "\0" not in given:
        return Path(os.path.abspath(path.parent / given))
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(state) if state else Path(os.path.abspath(path.parent / "data"))


def _merge(tree: Any, above: Tree) -> None:
    for key, value in above.items():
        below = child(tree, key)
        if isinstance(value, dict) and holds_keys(key, below):
            _merge(below, value)
        else:
            tree[key] = deepcopy(value)
