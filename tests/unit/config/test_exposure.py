"""Whether others may read the configuration.

What could go wrong: a file with a password that everyone can read is taken for fine; one without secrets, or that only
a group reads, is complained of; the complaint shows the secret; a file that is missing or no JSON is a traceback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.config.exposure import exposed

SECRET = "hunter2"
PLAIN = {"api_key": SECRET, "db_config": {"host": "h", "password": SECRET}}


def put(directory: Path, tree: Any, mode: int) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps(tree))
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o444])
def test_a_secret_that_everyone_can_read_is_told_with_its_places_and_how_to_mend_it(tmp_path: Path, mode: int) -> None:
    path = put(tmp_path, PLAIN, mode)
    expected = f"{path} can be read by every user of this machine (mode {mode:04o}) and holds api_key, password"
    assert exposed(path) == f"{expected}: chmod o-rwx {path}"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o400])
def test_what_only_owner_and_group_read_is_fine(tmp_path: Path, mode: int) -> None:
    assert exposed(put(tmp_path, PLAIN, mode)) is None


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"collector_id": 1, "db_config": {"host": "h", "user": "u", "database": "tokens"}},
        {"api_key": "${KEY}", "db_config": {"password": "${A}${B}"}},
        {"db_config": {"password": ""}},
        {"backend_url": "https://backend.example:8443/path@home"},
        [],
        "text",
    ],
)
def test_everyone_may_read_what_holds_no_secret(tmp_path: Path, tree: Any) -> None:
    assert exposed(put(tmp_path, tree, 0o644)) is None


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({"db_config": {"password": f"x${{SALT}}{SECRET}"}}, "password"),
        ({"databases": [{"db_config": {"password": SECRET}}]}, "password"),
        ({"proxy": f"http://user:{SECRET}@proxy:3128"}, "proxy"),
        ({"tls": {"key_password": SECRET}}, "key_password"),
    ],
)
def test_a_secret_is_found_wherever_it_stands_and_not_shown(tmp_path: Path, tree: Any, name: str) -> None:
    told = exposed(put(tmp_path, tree, 0o644))
    assert told is not None
    assert (f"holds {name}: " in told, SECRET in told) == (True, False)


def test_a_file_that_everyone_may_change_is_told_whatever_is_in_it(tmp_path: Path) -> None:
    told = exposed(put(tmp_path, {}, 0o666))
    assert told is not None
    assert "can be changed by every user of this machine (mode 0666)" in told


def test_what_cannot_be_read_or_understood_is_somebody_elses_complaint(tmp_path: Path) -> None:
    assert exposed(tmp_path / "none.json") is None
    path = tmp_path / "config.json"
    path.write_text('{"password": "hunter2"')
    path.chmod(0o644)
    assert exposed(path) is None
