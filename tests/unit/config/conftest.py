"""A configuration that is right, for tests that spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.config.layers import Layers, load
from agent.config.schema import Config

Tree = dict[str, Any]
Loader = Callable[..., tuple[Config, Layers]]


def valid() -> Tree:
    """The least that a person has to write."""
    return {
        "collector_id": 7,
        "api_key": "collector_7_token",
        "backend_url": "https://backend.example.com",
        "db_type": "mysql",
        "db_config": {"host": "db.example.com", "user": "monitoring", "password": "pa55word"},
    }


def several(*names: str) -> Tree:
    """The same with a list of databases."""
    tree = valid()
    db_type, db_config = tree.pop("db_type"), tree.pop("db_config")
    databases = [{"name": name, "db_type": db_type, "db_config": dict(db_config)} for name in names]
    return {**tree, "databases": databases}


@pytest.fixture
def tree() -> Tree:
    return valid()


@pytest.fixture
def loaded(tmp_path: Path) -> Loader:
    """Writes a tree to tmp_path/config.json and loads it."""

    def loaded(
        tree: Tree, environ: Mapping[str, str] | None = None, options: Mapping[str, object] | None = None
    ) -> tuple[Config, Layers]:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(tree))
        return load(path, environ or {}, options or {})

    return loaded
