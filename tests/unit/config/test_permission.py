"""What the backend may change.

What could go wrong: in the `safe` mode the password that is stored here is sent to a host that the backend chose; TLS
is switched off, a proxy is put in between, or another key that nobody thought of is changed (one that a later version
adds, above all); looks come so often that the database suffers, or so seldom that nothing is collected while all looks
well; `off` leaves something open; a million unknown keys fill the log.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.permission import (
    ADDRESS,
    INTERVALS,
    LIMITS,
    ON_TRUST,
    SWITCHED_OFF,
    THRESHOLDS,
    beyond,
    holds,
    refusal,
)
from agent.config.places import path_of
from agent.config.schema import Config, DbConfig
from tests.unit.config.conftest import several, valid

PASSWORD = {"password": "new"}


@pytest.mark.parametrize(
    "params",
    [
        {"heartbeat_interval": 15},
        {"collection_interval": 15, "target": "default"},
        {"db_config": {"min_exec_time_ms": 5, "max_sql_text_bytes": 5_000}},
        {"db_config": {"connect_timeout": 5, "read_timeout": 5}},
        {"db_config": PASSWORD},
        {"db_config": {"host": "h", **PASSWORD}},
        {"db_config": {"host": "h", "port": 1, "user": "u", "database": "d", **PASSWORD}},
    ],
)
def test_what_is_safe_is_allowed(params: dict[str, object]) -> None:
    assert (refusal(params, "safe"), refusal(params, "any")) == (None, None)


@pytest.mark.parametrize("name", ADDRESS)
@pytest.mark.parametrize("beside", [{}, {"password": ""}, {"password": None}, {"password": []}])
def test_an_address_needs_a_new_password_beside_it(name: str, beside: dict[str, object]) -> None:
    params = {"db_config": {name: "x", **beside}, "heartbeat_interval": 15}
    assert "need a new password" in (refusal(params, "safe") or "")
    assert refusal(params, "any") is None


@pytest.mark.parametrize("password", ["", None, []])
def test_a_password_cannot_become_an_empty_one(password: object) -> None:
    # The driver would look for another one on this host (~/.pgpass), and send it to where an earlier command led.
    assert "empty" in (refusal({"db_config": {"password": password}}, "safe") or "")
    assert refusal({"db_config": {"password": password}}, "any") is None
    assert not holds(("db_config", "password"), password, valid(), "safe")
    assert holds(("db_config", "password"), password, valid(), "any")


@pytest.mark.parametrize(
    ("name", "value"), [("start", "now"), ("rotate", True), ("slow_log_backups", ["x"]), ("max_load", None)]
)
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
        ({"redact": "secrets", "heartbeat_interval": 15}, "unknown: redact"),
        ({"tls": {"verify": False}, "heartbeat_interval": 15}, "unknown: tls"),
        ({"proxy": "http://theirs"}, "unknown: proxy"),
        ({"db_config": {"tls": {"mode": "disable"}}}, "db_config tls cannot be changed remotely"),
        ({"db_config": {"tls": None, "host": "h", **PASSWORD}}, "db_config tls cannot be changed remotely"),
        ({"db_config": {"tls.mode": "disable"}}, "db_config tls.mode cannot be changed remotely"),
        ({"db_config": {"sslmode": "disable"}}, "db_config sslmode cannot be changed remotely"),
        ({"db_config": {"proxy": "socks5://theirs"}}, "db_config proxy cannot be changed remotely"),
        ({"db_config": {"hots": "h"}}, "did you mean host?"),
        ({"db_config.host": "h", "db_config": PASSWORD}, "unknown: db_config.host"),
    ],
)
@pytest.mark.parametrize("mode", ["safe", "any"])
def test_what_is_never_allowed(params: dict[str, object], reason: str, mode: str) -> None:
    assert reason in (refusal(params, mode) or "")


def test_every_key_that_there_is_was_thought_of() -> None:
    """A key that the schema gets stays with this host until somebody adds it here."""
    known = {*ADDRESS, "password", *THRESHOLDS, *ON_TRUST}
    for name in {*DbConfig.model_fields, "brand_new"} - known:
        for mode in ("safe", "any"):
            assert refusal({"db_config": {name: "x", **PASSWORD}}, mode) is not None
    for name in {*Config.model_fields, "brand_new"} - {"db_config", *INTERVALS}:
        for mode in ("safe", "any"):
            assert refusal({name: "x", "heartbeat_interval": 15}, mode) is not None


@given(
    params=st.dictionaries(st.sampled_from(["db_config", "heartbeat_interval", "x"]), st.integers()),
    mode=st.sampled_from(["off", "offf", "", None, 5]),
)
def test_off_means_off_and_so_does_what_is_no_mode(params: dict[str, object], mode: object) -> None:
    assert refusal(params, mode) == SWITCHED_OFF


@pytest.mark.parametrize("place", ["top", "db_config"])
def test_a_refusal_is_short_and_plain_whatever_the_names_are(place: str) -> None:
    names = {f"{number}\x1b[2J\n{'x' * 1_000}": 1 for number in range(10_000)}
    reason = refusal(names if place == "top" else {"db_config": names}, "any") or ""
    assert (len(reason) < 500, reason.isprintable(), "9,995 more" in reason) == (True, True, True)


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "limits"), LIMITS.items())
def test_in_safe_a_number_has_limits_and_in_any_those_of_the_schema(name: str, limits: tuple[float, float]) -> None:
    path = ("db_config", name) if name in THRESHOLDS else (name,)
    low, high = limits
    for value in (low, high, (low + high) / 2, str(low), f" {high} "):
        assert beyond(path, value, valid(), "safe") is None
    for value in (low - 0.01, high + 1, low - 1, 1e300, str(low - 0.01), "nan", "inf"):
        assert "remote_config is safe on this host" in (beyond(path, value, valid(), "safe") or "")
        assert beyond(path, value, valid(), "any") is None


@pytest.mark.parametrize("value", [None, "x", [], {}, True, ""])
def test_what_is_no_number_is_for_the_schema_to_refuse(value: object) -> None:
    assert beyond(("collection_interval",), value, valid(), "safe") is None


def test_as_far_as_the_file_goes_the_backend_may_go_too() -> None:
    tree = {**valid(), "collection_interval": "0.5", "heartbeat_interval": 7_200}
    assert beyond(("collection_interval",), 0.5, tree, "safe") is None
    assert beyond(("heartbeat_interval",), 7_200, tree, "safe") is None
    assert beyond(("collection_interval",), 0.4, tree, "safe") is not None
    assert beyond(("heartbeat_interval",), 7_201, tree, "safe") is not None


def test_a_database_without_an_interval_of_its_own_has_that_of_the_agent() -> None:
    tree = {**several("orders", "billing"), "collection_interval": 2}
    tree["databases"][1]["collection_interval"] = 5
    assert beyond(("databases", "orders", "collection_interval"), 2, tree, "safe") is None
    assert beyond(("databases", "billing", "collection_interval"), 2, tree, "safe") is not None


# -- what was accepted earlier ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [*INTERVALS, *(f"db_config.{name}" for name in (*ADDRESS, "password", *THRESHOLDS))])
def test_what_may_be_changed_holds_later_in_both_modes_and_not_in_off(key: str) -> None:
    held = [holds(path_of(key), "60", valid(), mode) for mode in ("safe", "any", "off", "of")]
    assert held == [True, True, False, False] or (key.endswith("bytes") and held == [False, True, False, False])


@pytest.mark.parametrize("name", ON_TRUST)
def test_what_any_had_allowed_falls_when_the_host_becomes_stricter(name: str) -> None:
    path = ("db_config", name)
    assert [holds(path, None, valid(), mode) for mode in ("any", "safe")] == [True, False]


def test_a_number_beyond_the_limits_falls_too() -> None:
    assert [holds(("collection_interval",), 0.1, valid(), mode) for mode in ("any", "safe")] == [True, False]


@pytest.mark.parametrize(
    "key",
    [
        *("api_key", "backend_url", "redact", "remote_config", "data_dir", "tls.verify", "proxy", "databases", ""),
        *("db_config", "db_config.tls", "db_config.tls.mode", "x.db_config.host", "a.b.c.db_config.host"),
        *("databases.orders.name", "databases.orders.heartbeat_interval", "databases.orders.db_config.tls"),
    ],
)
def test_whoever_writes_into_the_memory_of_changes_has_no_more_rights_than_the_backend(key: str) -> None:
    for tree in (valid(), several("orders")):
        assert [holds(path_of(key), "x", tree, mode) for mode in ("safe", "any")] == [False, False]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_DATABASE = st.dictionaries(
    st.sampled_from([*ADDRESS, "password", *THRESHOLDS, *ON_TRUST, "tls", "x"]) | st.text(max_size=5), _JSON, max_size=4
)


def says_yes_to_everything_new(params: dict[str, Any], mode: str) -> str | None:
    """A list of what is forbidden, in place of what is allowed: the careless one."""
    database = params["db_config"]
    if mode == "safe" and "host" in database and "password" not in database:
        return "no"
    return None


def leaves_a_hole(params: dict[str, Any], decide: Any) -> bool:
    """Whether what was allowed could change what is this host's own, or show the stored password to somebody."""
    if decide(params, "safe") is not None:
        return False
    database = params["db_config"]
    moves = bool({*ADDRESS} & {*database})
    return bool({*database} - {*ADDRESS, "password", *THRESHOLDS}) or (moves and not database.get("password"))


@given(database=_DATABASE)
def test_whatever_comes_leaves_no_hole(database: dict[str, Any]) -> None:
    params = {"db_config": database, "heartbeat_interval": 15}
    assert not leaves_a_hole(params, refusal)
    json.dumps(refusal(params, "any"))


@pytest.mark.parametrize("database", [{"tls": None}, {"port": 1}, {"user": "x", "password": ""}])
def test_a_careless_judge_is_found_out(database: dict[str, Any]) -> None:
    assert leaves_a_hole({"db_config": database}, says_yes_to_everything_new)
