"""Where something stands in a configuration.

What could go wrong: a dotted path is read in another way than it was written, so that a change meets another database;
a value is put beside the list in place of into it; garbage in the file ends in a traceback.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.places import find, has_place, path_of, place_of, put
from agent.config.schema import NAME

NAMES = st.from_regex(NAME, fullmatch=True)
KEYS = st.sampled_from(["host", "password", "collection_interval", "db_config", "name"])


@pytest.mark.parametrize(
    ("dotted", "path"),
    [
        ("heartbeat_interval", ("heartbeat_interval",)),
        ("db_config.host", ("db_config", "host")),
        ("databases.orders.collection_interval", ("databases", "orders", "collection_interval")),
        ("databases.orders.db_config.host", ("databases", "orders", "db_config", "host")),
        ("databases.eu.orders.db_config.host", ("databases", "eu.orders", "db_config", "host")),
        ("databases.db_config.db_config.host", ("databases", "db_config", "db_config", "host")),
        ("databases.db_config.collection_interval", ("databases", "db_config", "collection_interval")),
    ],
)
def test_a_dotted_path_has_these_steps(dotted: str, path: tuple[str, ...]) -> None:
    assert path_of(dotted) == path


@given(name=NAMES, key=KEYS, deep=st.booleans())
def test_whatever_the_name_of_a_database_a_path_is_read_as_it_was_written(name: str, key: str, deep: bool) -> None:
    path = ("databases", name, *(("db_config",) if deep else ()), key)
    assert path_of(".".join(path)) == path


def test_control_a_name_that_is_refused_would_be_read_in_another_way() -> None:
    assert NAME.fullmatch("x.db_config") is None
    path = ("databases", "x.db_config", "collection_interval")
    assert path_of(".".join(path)) != path


@given(text=st.text() | st.lists(st.sampled_from(["databases", "db_config", "x", ""])).map(".".join))
def test_any_text_is_a_path_that_can_be_looked_for(text: str) -> None:
    trees: list[dict[str, Any]] = [{}, {"databases": []}, {"databases": [{"name": "x"}]}, {"databases": 5}]
    for tree in trees:
        assert find(tree, path_of(text)) in (None, *tree.values(), {"name": "x"}, "x")
        assert has_place(tree, path_of(text)) in {True, False}


def test_a_value_is_put_into_the_database_of_that_name() -> None:
    tree: dict[str, Any] = {"databases": [5, {"name": "a"}, {"name": "b", "db_config": {"port": 1}}]}
    put(tree, path_of("databases.b.db_config.host"), "h")
    put(tree, path_of("databases.a.collection_interval"), 5)
    assert tree == {
        "databases": [
            5,
            {"name": "a", "collection_interval": 5},
            {"name": "b", "db_config": {"port": 1, "host": "h"}},
        ]
    }
    assert find(tree, path_of("databases.b.db_config.host")) == "h"


@pytest.mark.parametrize("garbage", [[5], "x", None, 5])
def test_what_is_no_object_is_replaced_by_one(garbage: object) -> None:
    tree: dict[str, Any] = {"db_config": garbage}
    put(tree, ("db_config", "host"), "h")
    assert tree == {"db_config": {"host": "h"}}


def test_keys_belong_to_the_pair_or_to_the_list() -> None:
    pair: dict[str, Any] = {"db_type": "mysql", "db_config": {}}
    several = {"databases": [{"name": "orders"}]}
    assert (place_of(pair, "default"), place_of(several, "orders")) == ((), ("databases", "orders"))
    paths = ["db_config.host", "databases.orders.db_config.host", "databases.gone.db_config.host", "heartbeat_interval"]
    assert [has_place(pair, path_of(path)) for path in paths] == [True, False, False, True]
    assert [has_place(several, path_of(path)) for path in paths] == [False, True, False, True]
