"""How it is remembered what the backend has changed.

What could go wrong: the password that is stored here is sent to a host that the backend chose, or the backend's to one
that a person chose; a key that a person edits in the file is overridden for ever; what was accepted is forgotten in a
crash, or can be read by others; what this host does not allow any more goes on; a damaged file of changes ends in a
traceback, or takes the memory of the machine.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.remote import FILE_NAME, flatten, leak, overlay, put_aside, save
from agent.errors import ConfigMalformed
from tests.unit.config.conftest import Tree


def test_params_become_paths() -> None:
    params = {"db_config": {"host": "h", "port": 1}, "heartbeat_interval": 5, "target": "default"}
    assert flatten(params) == {"db_config.host": "h", "db_config.port": 1, "heartbeat_interval": 5}


def test_what_was_saved_is_remembered(tmp_path: Path, tree: Tree) -> None:
    changes: dict[str, object] = {"collection_interval": 15, "db_config.host": "h", "db_config.password": "p"}
    save(tmp_path, tree, changes)
    assert overlay(tmp_path, tree, "any") == changes


def test_nothing_is_remembered_at_first(tmp_path: Path, tree: Tree) -> None:
    assert overlay(tmp_path, tree, "any") == {}
    assert overlay(tmp_path / "missing", tree, "any") == {}


def test_a_key_that_is_edited_in_the_file_wins_again_and_only_that_one(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"collection_interval": 15, "heartbeat_interval": 16})
    tree["collection_interval"] = 7
    assert overlay(tmp_path, tree, "any") == {"heartbeat_interval": 16}
    del tree["collection_interval"]  # as it was when the change came: it holds again
    assert overlay(tmp_path, tree, "any") == {"collection_interval": 15, "heartbeat_interval": 16}


def test_a_password_that_is_edited_here_does_not_go_to_a_remote_address(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"db_config.host": "theirs", "db_config.password": "theirs", "db_config.read_timeout": 9})
    tree["db_config"]["password"] = "edited"
    assert overlay(tmp_path, tree, "any") == {"db_config.read_timeout": 9}


def test_an_address_alone_stays_when_the_password_is_edited(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"db_config.host": "theirs"})  # only the mode `any` accepts that
    tree["db_config"]["password"] = "edited"
    assert overlay(tmp_path, tree, "any") == {"db_config.host": "theirs"}


@pytest.mark.parametrize("edited", ["host", "port"])
def test_a_password_of_the_backend_does_not_go_to_an_address_that_is_edited_here(
    tmp_path: Path, tree: Tree, edited: str
) -> None:
    """Address and password came together and go together: what is left of them would fit nowhere."""
    theirs: dict[str, object] = {"db_config.host": "theirs", "db_config.port": 5, "db_config.password": "theirs"}
    save(tmp_path, tree, {**theirs, "collection_interval": 15})
    tree["db_config"][edited] = "6"
    for mode in ("safe", "any"):
        assert overlay(tmp_path, tree, mode) == {"collection_interval": 15}


def test_a_new_password_stays_when_the_address_is_edited_that_was_always_this_hosts(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"db_config.password": "rotated"})
    tree["db_config"]["host"] = "moved"
    assert overlay(tmp_path, tree, "safe") == {"db_config.password": "rotated"}


def test_what_this_host_does_not_allow_any_more_falls_and_comes_back_with_the_permission(
    tmp_path: Path, tree: Tree
) -> None:
    changes: dict[str, object] = {
        "db_config.rotate": True,
        "db_config.max_load": None,
        "db_config.host": "theirs",
        "collection_interval": 0.1,
        "heartbeat_interval": 15,
    }
    save(tmp_path, tree, changes)
    assert [overlay(tmp_path, tree, mode) for mode in ("any", "safe", "off")] == [
        changes,
        {"heartbeat_interval": 15},
        {},
    ]


def test_off_does_not_even_look_at_it(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / FILE_NAME).write_text("{")
    assert overlay(tmp_path, tree, "off") == {}


def test_keys_that_no_command_can_set_are_passed_over(tmp_path: Path, tree: Tree) -> None:
    foreign: dict[str, object] = {"api_key": "x", "backend_url": "http://theirs", "db_config.tls": None, "redact": "x"}
    save(tmp_path, tree, {**foreign, "heartbeat_interval": 15})
    assert overlay(tmp_path, tree, "any") == {"heartbeat_interval": 15}


def test_a_later_save_replaces_the_earlier(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"collection_interval": 15})
    save(tmp_path, tree, {"heartbeat_interval": 16})
    assert overlay(tmp_path, tree, "any") == {"heartbeat_interval": 16}
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_only_the_owner_may_read_it(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / f"{FILE_NAME}.new").touch(0o644)  # left over by a crash
    before = os.umask(0)
    try:
        save(tmp_path, tree, {"db_config.password": "p"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_what_the_file_said_is_not_written_out(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"db_config.password": "theirs"})
    assert "pa55word" not in (tmp_path / FILE_NAME).read_text()


def test_a_crash_in_the_middle_leaves_the_earlier_one(
    tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, tree, {"collection_interval": 15})

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, tree, {"collection_interval": 16})
    assert overlay(tmp_path, tree, "any") == {"collection_interval": 15}


def test_text_that_is_no_unicode_can_be_remembered_over(tmp_path: Path, tree: Tree) -> None:
    tree["db_config"]["password"] = "\udcff"  # from the environment, through ${NAME}
    save(tmp_path, tree, {"db_config.password": "p"})
    assert overlay(tmp_path, tree, "any") == {"db_config.password": "p"}


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"5", b'{"a": 1}', b'{"a": {}}', b'{"a": {"value": 1}}', b'{"a": []}', b"\xff", b"null"),
        *(b"[" * 100_000, b'{"a":{"value":' + b"[" * 500 + b"]" * 500 + b',"over":""}}'),
        *(b'{"a":{"value":[' + b"[]," * 200_000 + b'1],"over":""}}', b'{"a":"' + b"x" * 2_000_000 + b'"}'),
    ],
    ids=lambda text: text[:20].decode("latin1"),
)
def test_a_damaged_memory_is_told_by_its_name(tmp_path: Path, tree: Tree, text: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(text)
    with pytest.raises(ConfigMalformed, match=FILE_NAME):
        overlay(tmp_path, tree, "any")


def test_a_memory_that_is_a_directory_is_told_too(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ConfigMalformed, match=FILE_NAME):
        overlay(tmp_path, tree, "any")


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_of_no_use_any_more_is_kept_under_another_name(tmp_path: Path, tree: Tree, kind: str) -> None:
    path = tmp_path / FILE_NAME
    path.mkdir() if kind == "directory" else path.write_text("{")
    aside = put_aside(tmp_path, datetime(2026, 1, 31, 12, 5, tzinfo=UTC))
    assert [each.name for each in tmp_path.iterdir()] == [aside.name] == ["remote.json.unusable-20260131T120500Z"]
    assert overlay(tmp_path, tree, "safe") == {}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["value", "over", "db_config.password", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(content=_JSON)
def test_whatever_stands_in_it_is_understood_or_told(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    directory = tmp_path_factory.mktemp("data")
    (directory / FILE_NAME).write_bytes(orjson.dumps(content))
    with suppress(ConfigMalformed):
        assert overlay(directory, {}, "any") == {}  # no digest fits


def test_no_leak_without_a_password_of_this_host() -> None:
    address: dict[str, object] = {"db_config.host": "h"}
    assert leak(address, {}, "safe") == []
    assert leak(address, {"db_config": {"port": 1}}, "safe") == []
    assert leak({"heartbeat_interval": 1}, {"db_config": {"password": "p"}}, "safe") == []
    assert leak(address, {"db_config": {"password": "p"}}, "any") == []
    assert len(leak(address, {"db_config": {"password": "p"}}, "safe")) == 1
