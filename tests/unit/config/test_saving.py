"""Writing a configuration file.

What could go wrong: others can read it, if only for a moment; a crash or a full disk leaves half of it; the service
cannot read its own configuration any more; a link is replaced by a file; a placeholder is written as a secret.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.config.saving import held, read, write
from agent.errors import ConfigMalformed, ConfigUnwritable

TREE = {"collector_id": 1, "api_key": "${KEY}"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read_and_nobody_else_can(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert read(path) == {}
    old = os.umask(0)
    try:
        write(path, TREE)
    finally:
        os.umask(old)
    assert (read(path), mode(path)) == (TREE, 0o600)
    assert path.read_text().endswith("}\n")
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(("before", "after"), [(0o640, 0o640), (0o600, 0o600), (0o644, 0o640), (0o666, 0o640)])
def test_a_group_that_may_read_it_still_may_and_others_no_more(tmp_path: Path, before: int, after: int) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(before)
    write(path, TREE)
    assert (read(path), mode(path)) == (TREE, after)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_its_owner_stays(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    os.chown(path, 0, 65_534)
    path.chmod(0o640)
    write(path, TREE)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (0, 65_534, 0o640)


def test_it_says_how_open_it_is(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert write(path, TREE) == 0o600
    path.chmod(0o640)
    assert write(path, TREE) == 0o640


def test_what_the_agent_runs_with_is_read_here_too(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"api_key": "${KEY}", "collector_id": 1}')
    assert read(path) == TREE


def test_two_do_not_write_it_at_once_and_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with held(path), pytest.raises(ConfigUnwritable, match="another `init` or `register`"), held(path):
        pytest.fail("it is held")
    with held(path):
        write(path, TREE)
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"], "the probe is gone"
    with pytest.raises(ConfigUnwritable, match="No such file"), held(tmp_path / "nowhere" / "config.json"):
        pytest.fail("there is no such place")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "config.json"
    link.symlink_to(real)
    write(link, TREE)
    assert (link.is_symlink(), read(real)) == (True, TREE)


def test_what_cannot_be_written_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ConfigUnwritable, match="CF-05"):
        write(tmp_path / "missing" / "config.json", TREE)
    path = tmp_path / "config.json"
    path.mkdir()
    with pytest.raises(ConfigUnwritable):
        write(path, TREE)
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["{", "[]", "1"])
def test_what_is_no_object_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigMalformed):
        read(path)
