"""To whom replay.py delivers, and as whom: what was said is checked as the agent checks its configuration."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from agent.config import complaints
from agent.config.layers import load
from agent.config.schema import Config
from agent.errors import ReplayRefused

_NAMES = ("backend_url", "api_key", "collector_id")
_NO_DATABASE = {"db_type": "mysql", "db_config": {"host": "none", "user": "none"}}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A backend, and the collector as which it is spoken to."""

    url: str
    key: str
    collector: int


def recipient(options: argparse.Namespace, environ: Mapping[str, str]) -> Recipient:
    """From the options, else the environment, else the configuration. Raises ReplayRefused or a ConfigError."""
    given = {name: getattr(options, name) for name in _NAMES if getattr(options, name) is not None}
    if options.config is not None:
        config, _ = load(options.config, environ, given)
    else:
        said = {name: given.get(name, _said(name, environ)) for name in _NAMES}
        if None in said.values():
            raise ReplayRefused("to whom is not said: it needs --config, or --backend-url, --api-key, --collector-id")
        tree = {**said, **_NO_DATABASE}
        try:
            config = Config.model_validate(tree)
        except ValidationError as error:
            raise ReplayRefused("; ".join(complaints.sentences(error, Config, tree))) from None
    return Recipient(config.backend_url, config.api_key.get_secret_value(), config.collector_id)


def _said(name: str, environ: Mapping[str, str]) -> str | None:
    variable = f"DBPOWER_{name.upper()}"
    if variable in environ or f"{variable}_FILE" not in environ:
        return environ.get(variable)
    try:
        return Path(environ[f"{variable}_FILE"]).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ReplayRefused(f"the file named by {variable}_FILE cannot be read") from None
