"""What is wrong with a configuration, in sentences.

What could go wrong: only the first fault is told, and the person comes back ten times; a path is not the one of the
file; a typing error is not recognised; a value, which may be a secret, is repeated on a screen or in a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent.config.complaints import section, sentences
from agent.config.places import DATABASES, path_of, put
from agent.config.schema import Config, DbConfig, OutboxConfig
from tests.unit.config.conftest import Tree, valid

MARK = "S3CR3T"


def complaints(tree: Tree) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(tree)
    return sentences(caught.value, Config, tree)


def test_everything_is_told_at_once(tree: Tree) -> None:
    del tree["collector_id"]
    tree["heartbeat_interval"] = -1
    tree["db_config"]["prot"] = 3306
    tree["db_config"]["host"] = ""
    assert sorted(line.split(":")[0] for line in complaints(tree)) == [
        "collector_id",
        "db_config.host",
        "db_config.prot",
        "heartbeat_interval",
    ]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("colector_id", 1, "colector_id: unknown key; did you mean collector_id?"),
        ("db_config.prot", 1, "db_config.prot: unknown key; did you mean port?"),
        ("db_config.passwort", "x", "db_config.passwort: unknown key; did you mean password?"),
        ("log.levle", "x", "log.levle: unknown key; did you mean level?"),
        ("log.zzzzzz", "x", "log.zzzzzz: unknown key; known are level, format"),
        ("db_type", "oracle", "db_type: should be 'mysql' or 'postgres'"),
        ("db_config", "x", "db_config: should be an object"),
        ("heartbeat_interval", 0, "heartbeat_interval: should be greater than or equal to 0.1"),
        ("heartbeat_interval", True, "heartbeat_interval: should not be true or false"),
        ("backend_url", "x", "backend_url: should be an address like https://backend.example.com"),
        ("db_config.host", "", "db_config.host: string should have at least 1 character"),
    ],
)
def test_a_complaint_names_its_place_and_what_is_right(tree: Tree, path: str, value: Any, expected: str) -> None:
    put(tree, path_of(path), value)
    assert complaints(tree) == [expected]


def test_a_missing_key_is_told(tree: Tree) -> None:
    del tree["db_config"]["user"]
    assert complaints(tree) == ["db_config.user: is required and missing"]


def test_alternatives_are_told_at_the_place_of_the_file(tree: Tree) -> None:
    tree["db_config"]["start"] = "later"
    assert {line.split(":")[0] for line in complaints(tree)} == {"db_config.start"}


def test_the_section_of_a_path() -> None:
    assert section(Config, ("db_config",)) is DbConfig
    assert section(Config, ("outbox",)) is OutboxConfig
    assert (section(Config, ("db_config", "host")), section(Config, ("nothing",))) == (None, None)


def leaves(schema: type[BaseModel] = Config, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in schema.model_fields:
        below = section(schema, (name,))
        yield (*path, name)
        if below is not None:
            # The keys of a database stand below its name.
            yield from leaves(below, (*path, name, "orders") if name == DATABASES else (*path, name))


_SECRETS = st.one_of(
    st.just(MARK),
    st.text(max_size=20).map(lambda text: f"{text}{MARK}{text}"),
    st.just([MARK]),
    st.just({"x": MARK}),
    st.just({MARK: 1}) | st.just(f"http://{MARK}:{MARK}@host"),
)


@given(places=st.lists(st.tuples(st.sampled_from(list(leaves())), _SECRETS), min_size=1, max_size=8))
def test_no_value_shows_in_a_complaint(places: list[tuple[tuple[str, ...], Any]]) -> None:
    tree = valid()
    if any(path[0] == DATABASES for path, _ in places):
        tree[DATABASES] = [{"name": "orders"}]
    for path, value in places:
        if path[-1] == "name":
            continue  # a name is no secret, and is where things are
        if isinstance(value, dict) and section(Config, path) is not None:
            continue  # there it would be a key, and keys are named
        put(tree, path, deepcopy(value))
    told = ""
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        told = f"{sentences(error, Config, tree)} {error}"
    assert MARK not in told


def test_the_control_of_the_mark_a_key_that_nobody_knows_is_named(tree: Tree) -> None:
    tree[MARK] = 1
    assert any(MARK in line for line in complaints(tree))
