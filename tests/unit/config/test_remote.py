"""What the backend may change, and how that is remembered.

What could go wrong: in the `safe` mode the password that is stored here is sent to a host that the backend chose; a
key that a person edits in the file is overridden for ever; what was accepted is forgotten in a crash, or can be read
by others; a damaged file of changes ends in a traceback.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.remote import FILE_NAME, flatten, leak, overlay, refusal, save
from agent.errors import ConfigMalformed
from tests.unit.config.conftest import Tree

PASSWORD = {"password": "new"}


@pytest.mark.parametrize(
    "params",
    [
        {"heartbeat_interval": 5},
        {"collection_interval": 5, "target": "default"},
        {"db_config": {"min_exec_time_ms": 5, "max_sql_text_bytes": 5_000}},
        {"db_config": {"connect_timeout": 5, "read_timeout": 5}},
        {"db_config": PASSWORD},
        {"db_config": {"host": "h", **PASSWORD}},
        {"db_config": {"host": "h", "port": 1, "user": "u", "database": "d", **PASSWORD}},
        {"db_config": {"hots": "h"}},  # its name is refused where everything is checked, with the nearest one
    ],
)
def test_what_is_safe_is_allowed(params: dict[str, object]) -> None:
    assert (refusal(params, "safe"), refusal(params, "any")) == (None, None)


@pytest.mark.parametrize("name", ["host", "port", "user", "database"])
def test_an_address_needs_a_new_password_beside_it(name: str) -> None:
    params = {"db_config": {name: "x"}, "heartbeat_interval": 5}
    assert "need a new password" in (refusal(params, "safe") or "")
    assert refusal(params, "any") is None


@pytest.mark.parametrize(("name", "value"), [("start", "now"), ("rotate", True), ("slow_log_backups", ["x"])])
def test_what_decides_how_much_is_read_and_what_is_written_stays_with_this_host(name: str, value: object) -> None:
    params = {"db_config": {name: value, **PASSWORD}}
    assert f"db_config {name} cannot be changed remotely" in (refusal(params, "safe") or "")
    assert refusal(params, "any") is None


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({}, "nothing to change"),
        ({"target": "x"}, "nothing to change"),
        ({"db_config": {}}, "nothing to change"),
        ({"db_config": "x"}, "should be an object"),
        ({"db_config": None}, "should be an object"),
        ({"api_key": "x"}, "unknown: api_key"),
        ({"backend_url": "x", "heartbeat_interval": 1}, "unknown: backend_url"),
        ({"data_dir": "/", "remote_config": "any"}, "unknown: data_dir, remote_config"),
        ({"redact": "secrets"}, "unknown: redact"),
        ({"redact": "secrets", "heartbeat_interval": 5}, "unknown: redact"),
        ({"tls": {"verify": False}}, "unknown: tls"),
        ({"proxy": "http://theirs"}, "unknown: proxy"),
        ({"db_config": {"tls": {"mode": "disable"}, **PASSWORD}}, "tls is set on this host only"),
        ({"db_config": {"tls": None, "host": "h", **PASSWORD}}, "tls is set on this host only"),
        ({"db_config": {"tls.mode": "disable"}}, "no key with a dot"),
    ],
)
@pytest.mark.parametrize("mode", ["safe", "any"])
def test_what_is_never_allowed(params: dict[str, object], reason: str, mode: str) -> None:
    assert reason in (refusal(params, mode) or "")


@given(params=st.dictionaries(st.sampled_from(["db_config", "heartbeat_interval", "x"]), st.integers()))
def test_off_means_off(params: dict[str, object]) -> None:
    assert refusal(params, "off") == "remote_config is off on this host"


def test_params_become_paths() -> None:
    params = {"db_config": {"host": "h", "port": 1}, "heartbeat_interval": 5, "target": "default"}
    assert flatten(params) == {"db_config.host": "h", "db_config.port": 1, "heartbeat_interval": 5}


# -- the memory ------------------------------------------------------------------------------------------------------


def test_what_was_saved_is_remembered(tmp_path: Path, tree: Tree) -> None:
    changes: dict[str, object] = {"collection_interval": 5, "db_config.host": "h", "db_config.password": "p"}
    save(tmp_path, tree, changes)
    assert overlay(tmp_path, tree, "any") == changes


def test_nothing_is_remembered_at_first(tmp_path: Path, tree: Tree) -> None:
    assert overlay(tmp_path, tree, "any") == {}
    assert overlay(tmp_path / "missing", tree, "any") == {}


def test_a_key_that_is_edited_in_the_file_wins_again_and_only_that_one(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"collection_interval": 5, "heartbeat_interval": 6})
    tree["collection_interval"] = 7
    assert overlay(tmp_path, tree, "any") == {"heartbeat_interval": 6}
    del tree["collection_interval"]  # as it was when the change came: it holds again
    assert overlay(tmp_path, tree, "any") == {"collection_interval": 5, "heartbeat_interval": 6}


def test_a_password_that_is_edited_here_does_not_go_to_a_remote_address(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"db_config.host": "theirs", "db_config.password": "theirs", "db_config.read_timeout": 9})
    tree["db_config"]["password"] = "edited"
    assert overlay(tmp_path, tree, "any") == {"db_config.read_timeout": 9}


def test_an_address_alone_stays_when_the_password_is_edited(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"db_config.host": "theirs"})  # only the mode `any` accepts that
    tree["db_config"]["password"] = "edited"
    assert overlay(tmp_path, tree, "any") == {"db_config.host": "theirs"}


def test_a_later_save_replaces_the_earlier(tmp_path: Path, tree: Tree) -> None:
    save(tmp_path, tree, {"collection_interval": 5})
    save(tmp_path, tree, {"heartbeat_interval": 6})
    assert overlay(tmp_path, tree, "any") == {"heartbeat_interval": 6}
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
    save(tmp_path, tree, {"collection_interval": 5})

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, tree, {"collection_interval": 6})
    assert overlay(tmp_path, tree, "any") == {"collection_interval": 5}


def test_text_that_is_no_unicode_can_be_remembered_over(tmp_path: Path, tree: Tree) -> None:
    tree["db_config"]["password"] = "\udcff"  # from the environment, through ${NAME}
    save(tmp_path, tree, {"db_config.password": "p"})
    assert overlay(tmp_path, tree, "any") == {"db_config.password": "p"}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"5", b'{"a": 1}', b'{"a": {}}', b'{"a": {"value": 1}}', b'{"a": []}', b"\xff", b"null"],
)
def test_a_damaged_memory_is_told_by_its_name(tmp_path: Path, tree: Tree, text: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(text)
    with pytest.raises(ConfigMalformed, match=FILE_NAME):
        overlay(tmp_path, tree, "any")


def test_a_memory_that_is_a_directory_is_told_too(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ConfigMalformed, match=FILE_NAME):
        overlay(tmp_path, tree, "any")


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
