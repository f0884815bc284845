"""What may stand in a configuration.

What could go wrong: a value that makes no sense is taken (true as 1, NaN seconds, a negative interval) and shows hours
later; a sensible one is refused; a default is not the one that is promised; a secret shows in a repr.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.config.places import path_of, put
from agent.config.schema import DEFAULT, Config
from tests.unit.config.conftest import Tree, valid


def refused(tree: Tree) -> list[str]:
    """The paths that are complained of."""
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(tree)
    return sorted({".".join(map(str, error["loc"])) for error in caught.value.errors()})


def test_the_least_has_the_promised_defaults(tree: Tree) -> None:
    config = Config.model_validate(tree)
    found = {
        "heartbeat_interval": config.heartbeat_interval,
        "collection_interval": config.collection_interval,
        "port": config.watches[0].port,
        "min_exec_time_ms": config.watches[0].db_config.min_exec_time_ms,
        "start": config.watches[0].db_config.start,
        "max_sql_text_bytes": config.watches[0].db_config.max_sql_text_bytes,
        "max_bytes": config.outbox.max_bytes,
        "min_free_bytes": config.outbox.min_free_bytes,
        "batch_max_records": config.outbox.batch_max_records,
        "batch_max_bytes": config.outbox.batch_max_bytes,
        "redact": config.redact,
        "remote_config": config.remote_config,
    }
    assert found == {
        "heartbeat_interval": 30,
        "collection_interval": 300,
        "port": 3306,
        "min_exec_time_ms": 500,
        "start": "beginning",
        "max_sql_text_bytes": 1 << 20,
        "max_bytes": 1 << 30,
        "min_free_bytes": 64 << 20,
        "batch_max_records": 500,
        "batch_max_bytes": 1 << 20,
        "redact": "secrets",
        "remote_config": "safe",
    }


def test_the_port_follows_the_kind_of_database_unless_it_is_given(tree: Tree) -> None:
    assert Config.model_validate({**tree, "db_type": "postgres"}).watches[0].port == 5432
    tree["db_config"]["port"] = 6543
    assert Config.model_validate(tree).watches[0].port == 6543


def test_mysql_takes_and_ignores_what_only_postgres_needs(tree: Tree) -> None:
    tree["db_config"] |= {"database": "shop", "min_exec_time_ms": 100}
    assert Config.model_validate(tree).watches[0].db_type == "mysql"


@pytest.mark.parametrize("missing", ["collector_id", "api_key", "backend_url", "db_type", "db_config"])
def test_what_is_required_is_required(tree: Tree, missing: str) -> None:
    del tree[missing]
    assert refused(tree) == [missing]


@pytest.mark.parametrize("missing", ["host", "user"])
def test_a_database_needs_a_host_and_a_user(tree: Tree, missing: str) -> None:
    del tree["db_config"][missing]
    assert refused(tree) == [f"db_config.{missing}"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("heartbeat_interval", 0.5),
        ("collection_interval", "60"),  # the environment only has texts
        ("collector_id", "12"),
        ("db_config.start", "now"),
        ("db_config.start", 3600),
        ("db_config.password", ""),
        ("backend_url", "http://127.0.0.1:8000/base/"),
        ("backend_url", "http://[::1]:8000"),
        ("outbox", {"max_bytes": 1 << 20}),
        ("redact", "secrets"),
        ("redact", "literals"),
        ("redact", "fingerprint"),
    ],
)
def test_sensible_values_are_taken(tree: Tree, path: str, value: Any) -> None:
    put(tree, path_of(path), value)
    Config.model_validate(tree)


_NUMBERS = ("heartbeat_interval", "collection_interval", "db_config.connect_timeout", "db_config.read_timeout")
_BAD_NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    -0.001,
    float("nan"),
    float("inf"),
    "NaN",
    "inf",
    1e300,
    True,
    False,
    "",
    "soon",
    None,
    [],
    {},
)
_BAD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(_NUMBERS, _BAD_NUMBERS),
    "collector_id": (0, -1, 1.5, True, "", "x", None),
    "api_key": ("", " key", "key\n", "schlüssel", 5, True, None),
    "db_type": ("", "oracle", "MySQL", 1, True, None),
    "db_config": ("", "host=x", [], 5, None),
    "db_config.host": ("", 5, True, None),
    "db_config.user": ("", 5, None),
    "db_config.port": (0, -1, 65_536, True, "x"),
    "db_config.password": (5, True, None, ["x"]),
    "db_config.min_exec_time_ms": (-1, float("nan"), True, ""),
    "db_config.max_sql_text_bytes": (0, 1_023, 1 << 40, True),
    "outbox.max_bytes": (0, 1_000, True),
    "outbox.min_free_bytes": (-1, True),
    "outbox.batch_max_records": (0, 10_001, True),
    "log.level": ("", "LOUD", True),
    "redact": ("", "nothing", "LITERALS", True, None),
    "remote_config": ("", "on", True),
    "data_dir": (5, True, None),
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in _BAD.items() for value in values])
def test_senseless_values_are_refused_at_their_place(path: str, value: Any) -> None:
    tree = valid()
    put(tree, path_of(path), value)
    assert refused(tree) == [path]


@pytest.mark.parametrize("value", [-1, True, "later", float("nan"), None])
def test_a_senseless_start_is_refused(tree: Tree, value: object) -> None:
    tree["db_config"]["start"] = value
    assert {place.split(".")[1] for place in refused(tree)} == {"start"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "backend.example.com",
        "ftp://backend.example.com",
        "http://",
        "http://:80",
        "http://host:0",
        "http://host:99999",
        "http://host:x",
        "http://[::1",
        "http://user:password@host",
        "http://user@host",
        "http://host/?key=1",
        "http://host/#x",
        "http://ho st",
        "http://host\n.example.com",
        "http:\\\\host",
        5,
        True,
        None,
    ],
)
def test_what_is_no_plain_address_is_refused(tree: Tree, url: object) -> None:
    tree["backend_url"] = url
    assert refused(tree) == ["backend_url"]


def test_an_address_is_kept_without_its_last_slash(tree: Tree) -> None:
    tree["backend_url"] = " https://backend.example.com/base/ "
    assert Config.model_validate(tree).backend_url == "https://backend.example.com/base"


def test_no_secret_shows_in_a_configuration(tree: Tree) -> None:
    config = Config.model_validate(tree)
    shown = f"{config!r} {config} {config.model_dump_json()}"
    assert "db.example.com" in shown  # the control: other values do show
    assert [secret for secret in ("pa55word", "collector_7_token") if secret in shown] == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["a", "b$1"], ("a", "b$1")), ("a, b", ("a", "b")), ("", ()), ([], ()), (["x" * 64], ("x" * 64,))],
)
def test_names_of_backups_are_a_list_or_text_with_commas(tree: Tree, given: object, expected: tuple[str, ...]) -> None:
    tree["db_config"]["slow_log_backups"] = given
    assert Config.model_validate(tree).watch(DEFAULT).db_config.slow_log_backups == expected


@pytest.mark.parametrize("name", ["", "a`b", "a b", "a.b", "a\n", "é", "x" * 65, "slow_log", "SLOW_LOG"])
def test_what_is_no_plain_name_of_another_table_is_no_backup(tree: Tree, name: str) -> None:
    tree["db_config"]["slow_log_backups"] = [name]
    assert refused(tree)[0].startswith("db_config.slow_log_backups")


def test_the_agent_rotates_only_where_it_is_told_to(tree: Tree) -> None:
    assert Config.model_validate(tree).watch(DEFAULT).db_config.rotate is False
    tree["db_config"]["rotate"] = "true"  # as the environment says it
    assert Config.model_validate(tree).watch(DEFAULT).db_config.rotate is True
