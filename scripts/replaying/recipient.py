"""To whom replay.py delivers, and as whom: what was said is checked as the agent checks its configuration."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from agent.config import certificate_files, complaints
from agent.config.layers import load
from agent.config.places import Tree, path_of, put
from agent.config.schema import Config
from agent.errors import ReplayRefused
from agent.transport import Transport
from agent.wiring import make_transport

_NAMES = ("backend_url", "api_key", "collector_id")
_WAY = ("tls.ca", "tls.cert", "tls.key", "tls.verify", "proxy")
_NO_DATABASE = {"db_type": "mysql", "db_config": {"host": "none", "user": "none"}}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A backend, and the collector as which it is spoken to."""

    url: str
    collector: int
    make_transport: Callable[[], Transport]


def recipient(options: argparse.Namespace, environ: Mapping[str, str]) -> Recipient:
    """From the options, else the environment, else the configuration. Raises ReplayRefused or a ConfigError."""
    given = _given(options)
    if options.config is not None:
        config, _ = load(options.config, environ, given)
    else:
        said = {name: given.get(name, _said(name, environ)) for name in (*_NAMES, *_WAY)}
        if None in [said[name] for name in _NAMES]:
            raise ReplayRefused("to whom is not said: it needs --config, or --backend-url, --api-key, --collector-id")
        config = _without_file({name: value for name, value in said.items() if value is not None})
    return Recipient(config.backend_url, config.collector_id, lambda: make_transport(config))


def _given(options: argparse.Namespace) -> dict[str, object]:
    """What the options say, by the dotted names of the configuration; files as seen from here."""
    given = {name: getattr(options, name) for name in _NAMES}
    files = {name: getattr(options, name) for name in ("ca", "cert", "key")}
    given |= {f"tls.{name}": None if path is None else os.path.abspath(path) for name, path in files.items()}
    given["tls.verify"] = False if options.insecure else None
    return {name: value for name, value in given.items() if value is not None}


def _without_file(said: Mapping[str, object]) -> Config:
    tree: Tree = dict(_NO_DATABASE)
    for name, value in said.items():
        put(tree, path_of(name), value)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ReplayRefused("; ".join(complaints.sentences(error, Config, tree))) from None
    wrong = certificate_files.unusable(config)
    if wrong:
        raise ReplayRefused("; ".join(wrong))
    return config


def _said(name: str, environ: Mapping[str, str]) -> str | None:
    variable = f"DBPOWER_{name.upper().replace('.', '_')}"
    if variable in environ or f"{variable}_FILE" not in environ:
        return environ.get(variable)
    try:
        return Path(environ[f"{variable}_FILE"]).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ReplayRefused(f"the file named by {variable}_FILE cannot be read") from None
