"""A list of databases in place of the single pair.

What could go wrong: both are given and one of them is passed over in silence; two databases share a name and so a
bookmark; only the first of several faults is told, or a fault is told at a number that nobody counts; a change that was
accepted for one database reaches another one; a password of one goes to the address of another; what was accepted for a
database that is gone keeps the agent from starting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.config import permission, remote
from agent.config.complaints import sentences
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.errors import ConfigError
from tests.unit.config.conftest import Loader, Tree, several, valid


def complaints(tree: Tree) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(tree)
    return sentences(caught.value, Config, tree)


# -- what may stand there --------------------------------------------------------------------------------------------


def test_the_rest_of_the_program_sees_watches_in_either_case() -> None:
    (single,) = Config.model_validate(valid()).watches
    assert (single.name, single.db_type, single.port, single.collection_interval) == ("default", "mysql", 3306, 300)
    tree = several("orders", "billing")
    tree["databases"][1] |= {"db_type": "postgres", "collection_interval": 60}
    orders, billing = Config.model_validate(tree).watches
    assert (orders.name, orders.port, orders.collection_interval) == ("orders", 3306, 300)
    assert (billing.name, billing.port, billing.collection_interval) == ("billing", 5432, 60)
    assert Config.model_validate(tree).watch("billing") == billing
    with pytest.raises(LookupError):
        Config.model_validate(tree).watch("stock")


@pytest.mark.parametrize("key", ["db_type", "db_config"])
def test_the_pair_beside_the_list_is_an_error(key: str) -> None:
    reason = "stands beside databases; give either databases, or db_type and db_config"
    assert complaints({**several("orders"), key: valid()[key]}) == [f"{key}: {reason}"]


def test_neither_is_an_error() -> None:
    missing = [f"{key}: is required and missing" for key in ("db_type", "db_config")]
    assert complaints(several()) == missing
    assert complaints({**several(), "databases": []}) == missing


def test_a_list_in_which_something_is_wrong_is_not_taken_for_none() -> None:
    tree = several("orders")
    tree["databases"][0]["db_type"] = "oracle"
    assert complaints(tree) == ["databases.orders.db_type: should be 'mysql' or 'postgres'"]


@pytest.mark.parametrize("entries", [5, "x", {"orders": {}}, None, True])
def test_what_is_no_list_is_no_list_of_databases(entries: object) -> None:
    (complaint,) = (line for line in complaints({**several(), "databases": entries}) if line.startswith("databases"))
    assert complaint in {"databases: should be a list", "databases: should not be true or false"}


def test_everything_is_told_at_once_by_the_name_where_it_is_one_and_else_by_its_number() -> None:
    tree = several("orders", "orders", "a/b", "billing", "stock")
    tree["databases"][0]["db_config"]["port"] = 0
    tree["databases"][3] |= {"collection_interval": -1, "db_confg": {}}
    tree["databases"][3]["db_config"]["prot"] = 1
    tree["databases"][4]["db_config"] = "x"
    tree["databases"].append(5)
    tree["colector_id"] = 1
    assert sorted(complaints(tree)) == [
        "colector_id: unknown key; did you mean collector_id?",
        "databases.0.db_config.port: should be greater than or equal to 1",
        "databases.1.name: another database has this name",
        "databases.2.name: should be 1 to 64 letters, digits, _ . - and not end in .db_config",
        "databases.5: should be an object",
        "databases.billing.collection_interval: should be greater than or equal to 0.1",
        "databases.billing.db_confg: unknown key; did you mean db_config?",
        "databases.billing.db_config.prot: unknown key; did you mean port?",
        "databases.stock.db_config: should be an object",
    ]


def test_alternatives_are_told_at_the_place_of_the_file() -> None:
    tree = several("orders")
    tree["databases"][0]["db_config"]["start"] = "later"
    assert {line.split(":")[0] for line in complaints(tree)} == {"databases.orders.db_config.start"}


@pytest.mark.parametrize("name", ["orders", "Orders", "a", "0", "eu.orders-2_b", "x" * 64, "default", "flusher"])
def test_a_name_is_taken_as_it_is_written(name: str) -> None:
    assert [each.name for each in Config.model_validate(several(name)).watches] == [name]


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "ä", "a\n", "*", "x.db_config", None, 5, True])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    (complaint,) = complaints(several(name))
    assert complaint.startswith("databases.0.name: ")


def test_names_that_differ_by_their_letters_are_two() -> None:
    assert len(Config.model_validate(several("orders", "Orders")).watches) == 2


def test_no_secret_shows_in_a_configuration_with_databases() -> None:
    config = Config.model_validate(several("orders"))
    shown = f"{config!r} {config.watches!r}"
    assert ("db.example.com" in shown, "pa55word" in shown) == (True, False)


# -- what the backend may change -------------------------------------------------------------------------------------

ADDRESS = ["host", "port", "user", "database"]
ORDERS, BILLING = ("databases", "orders"), ("databases", "billing")


def test_without_a_target_no_database_is_changed_when_there_are_several() -> None:
    params: dict[str, object] = {"db_config": {"host": "h", "password": "new"}}
    for mode in ("safe", "any"):
        assert (
            permission.refusal(params, mode, ["orders", "billing"])
            == "db_config needs a target, one of orders, billing"
        )
        assert permission.refusal({**params, "target": "orders"}, mode, ["orders", "billing"]) is None
        assert permission.refusal(params, mode, ["orders"]) is None
        assert permission.refusal({"collection_interval": 15}, mode, ["orders", "billing"]) is None


@pytest.mark.parametrize("mode", ["safe", "any"])
def test_a_key_of_db_config_that_would_read_as_a_path_is_refused(mode: str) -> None:
    params = {"db_config": {"x.db_config.host": "theirs"}, "target": "orders"}
    assert "db_config x.db_config.host cannot be changed remotely" in (
        permission.refusal(params, mode, ["orders", "orders.x"]) or ""
    )


def test_params_become_paths_below_the_watch_and_the_agents_own_stay_at_the_top() -> None:
    params = {"db_config": {"host": "h"}, "heartbeat_interval": 5, "collection_interval": 6, "target": "orders"}
    assert remote.flatten(params, ORDERS) == {
        "heartbeat_interval": 5,
        "databases.orders.collection_interval": 6,
        "databases.orders.db_config.host": "h",
    }


def test_an_overlay_lies_on_its_database_only_and_below_the_environment() -> None:
    above: Tree = {"databases": {"billing": {"collection_interval": "9"}}}
    layers = Layers(several("orders", "billing"), above, Path("/data"))
    config = layers.build(
        {
            "databases.orders.db_config.min_exec_time_ms": 8,
            "databases.orders.collection_interval": 7,
            "databases.billing.collection_interval": 7,
        }
    )
    assert [each.collection_interval for each in config.watches] == [7, 9]
    assert [each.db_config.min_exec_time_ms for each in config.watches] == [8, 500]
    assert (layers.file, above) == (
        several("orders", "billing"),
        {"databases": {"billing": {"collection_interval": "9"}}},
    )


def test_an_edited_key_wins_again_in_its_database_only(tmp_path: Path) -> None:
    tree = several("orders", "billing")
    for name in ("orders", "billing"):
        tree["databases"][name == "billing"]["collection_interval"] = 100
    changes: dict[str, object] = {f"databases.{name}.collection_interval": 15 for name in ("orders", "billing")}
    remote.save(tmp_path, tree, changes)
    tree["databases"][0]["collection_interval"] = 7
    assert remote.overlay(tmp_path, tree, "safe") == {"databases.billing.collection_interval": 15}


def test_the_place_in_the_list_does_not_matter(tmp_path: Path) -> None:
    tree = several("orders", "billing")
    changes: dict[str, object] = {"databases.orders.db_config.password": "p"}
    remote.save(tmp_path, tree, changes)
    tree["databases"].reverse()
    assert remote.overlay(tmp_path, tree, "safe") == changes


def test_what_was_accepted_for_a_database_that_is_gone_is_passed_over(tmp_path: Path, loaded: Loader) -> None:
    single, list_of_two = valid(), several("orders", "billing")
    (tmp_path / "data").mkdir()
    remote.save(tmp_path / "data", list_of_two, {"databases.orders.db_config.port": 5, "heartbeat_interval": 9})
    for tree in (single, several("billing")):
        config = loaded(tree)[0]
        assert (config.heartbeat_interval, [each.port for each in config.watches]) == (9, [3306])
    assert [each.port for each in loaded({**list_of_two, "remote_config": "any"})[0].watches] == [5, 3306]
    remote.save(tmp_path / "data", single, {"db_config.port": 5, "collection_interval": 19})
    assert [each.port for each in loaded(list_of_two)[0].watches] == [3306, 3306]


@pytest.mark.parametrize("key", ADDRESS)
def test_a_password_that_is_edited_here_does_not_go_to_a_remote_address_of_its_database(
    tmp_path: Path, key: str
) -> None:
    tree = several("orders", "billing")
    changes: dict[str, object] = {
        f"databases.{name}.db_config.{part}": "theirs" for name in ("orders", "billing") for part in (key, "password")
    }
    remote.save(tmp_path, tree, changes)
    tree["databases"][0]["db_config"]["password"] = "edited"
    for mode in ("safe", "any"):
        held = remote.overlay(tmp_path, tree, mode)
        assert held == {name: value for name, value in changes.items() if ".billing." in name}


def test_the_remote_password_of_one_database_is_none_for_the_address_of_another(tmp_path: Path) -> None:
    """As if somebody had written it: an address of `orders`, and only `billing` has a password from the backend."""
    tree = several("orders", "billing")
    remote.save(tmp_path, tree, {"databases.orders.db_config.host": "t", "databases.billing.db_config.password": "t"})
    assert remote.overlay(tmp_path, tree, "safe") == {"databases.billing.db_config.password": "t"}


@pytest.mark.parametrize("key", ADDRESS)
def test_a_password_of_this_host_never_goes_to_an_address_of_the_backend(key: str) -> None:
    above: Tree = {"databases": {"orders": {"db_config": {"password": "of this host"}}}}
    tree = several("orders", "billing")
    layers = Layers(tree, above, Path("/data"))
    theirs: dict[str, object] = {f"databases.orders.db_config.{key}": "5", "databases.orders.db_config.password": "t"}
    with pytest.raises(ConfigError, match=rf"databases\.orders\.db_config\.{key}: was set remotely"):
        layers.build(theirs)
    layers.build({name.replace("orders", "billing"): value for name, value in theirs.items()})
    tree["remote_config"] = "any"
    layers.build(theirs)


_PATHS = st.sampled_from(
    [
        *(f"databases.{name}.db_config.{key}" for name in ("orders", "billing") for key in (*ADDRESS, "password")),
        *("db_config.host", "db_config.password", "databases.orders.collection_interval", "heartbeat_interval"),
    ]
)


@given(saved=st.sets(_PATHS), edited=st.sets(st.sampled_from([0, 1])), listed=st.booleans())
def test_an_address_from_the_backend_is_held_only_beside_the_backends_password_of_the_same_database(
    tmp_path_factory: pytest.TempPathFactory, saved: set[str], edited: set[int], listed: bool
) -> None:
    directory = tmp_path_factory.mktemp("data")
    tree = several("orders", "billing")
    remote.save(directory, tree if listed else valid(), dict.fromkeys(saved, "theirs"))
    for number in edited:
        tree["databases"][number]["db_config"]["password"] = "edited"
    held = remote.overlay(directory, tree if listed else valid(), "safe")
    assert set(held) <= saved
    for path in held:
        base, _, key = path.rpartition(".")
        assert key not in ADDRESS or f"{base}.password" in held
        assert path.startswith("databases.") == listed or path == "heartbeat_interval"
