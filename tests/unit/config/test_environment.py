"""What the environment says about the databases of a list; tests/unit/config/test_layers.py has the rest.

What could go wrong: a password goes to another database than the one that was meant; a variable of two databases is
taken for one of them; a misspelt name is passed over and the agent runs without its password; a secret shows.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.environment import variables
from agent.errors import ConfigError
from tests.unit.config.conftest import Loader, Tree, several

PASSWORD = "DBPOWER_DATABASES_ORDERS_DB_CONFIG_PASSWORD"


def passwords(loaded: Loader, tree: Tree, environ: dict[str, str]) -> list[str]:
    return [each.db_config.password.get_secret_value() for each in loaded(tree, environ)[0].watches]


def test_each_key_of_each_database_has_a_variable(loaded: Loader) -> None:
    config, _ = loaded(
        several("orders", "eu.billing-2"),
        {
            PASSWORD: "one",
            "DBPOWER_DATABASES_EU_BILLING_2_DB_CONFIG_PASSWORD": "two",
            "DBPOWER_DATABASES_EU_BILLING_2_DB_CONFIG_PORT": "3307",
            "DBPOWER_DATABASES_ORDERS_DB_TYPE": "postgres",
            "DBPOWER_DATABASES_ORDERS_COLLECTION_INTERVAL": "7",
        },
    )
    orders, billing = config.watches
    assert [each.db_config.password.get_secret_value() for each in config.watches] == ["one", "two"]
    assert (orders.db_type, orders.port, orders.collection_interval) == ("postgres", 5432, 7)
    assert (billing.db_type, billing.port, billing.collection_interval) == ("mysql", 3307, 300)


def test_a_mounted_secret_belongs_to_its_database(tmp_path: Path, loaded: Loader) -> None:
    (tmp_path / "secret").write_text("mounted\n")
    environ = {f"{PASSWORD}_FILE": str(tmp_path / "secret")}
    assert passwords(loaded, several("orders", "billing"), environ) == ["mounted", "pa55word"]


def test_a_mounted_secret_that_cannot_be_read_is_told_with_its_place(loaded: Loader) -> None:
    with pytest.raises(ConfigError, match=r"databases\.orders\.db_config\.password: the file named by "):
        loaded(several("orders"), {f"{PASSWORD}_FILE": "/nonexistent"})


def test_a_database_may_have_everything_but_its_name_from_the_environment(loaded: Loader) -> None:
    tree = {**several(), "databases": [{"name": "orders"}]}
    given = {"DB_TYPE": "mysql", "DB_CONFIG_HOST": "h", "DB_CONFIG_USER": "u"}
    config, _ = loaded(tree, {f"DBPOWER_DATABASES_ORDERS_{key}": value for key, value in given.items()})
    assert [(each.name, each.db_config.host) for each in config.watches] == [("orders", "h")]


@pytest.mark.parametrize("names", [("a.b", "a-b"), ("a", "A")])
def test_a_variable_that_could_mean_two_databases_is_refused_and_other_ones_are_not(
    loaded: Loader, names: tuple[str, str]
) -> None:
    tree = several(*names)
    assert len(loaded(tree)[0].watches) == 2
    variable = f"DBPOWER_DATABASES_{names[0].upper().replace('.', '_')}_DB_CONFIG_PASSWORD"
    with pytest.raises(ConfigError, match=rf"{variable}: could mean each of {', '.join(names)}; use \$\{{NAME\}}"):
        loaded(tree, {variable: "S3CR3T"})


@pytest.mark.parametrize(
    ("variable", "complaint"),
    [
        ("DBPOWER_DATABASES_ORDER_DB_CONFIG_PASSWORD", f"did you mean {PASSWORD}?"),
        ("DBPOWER_DATABASES_ORDERS_DB_CONFIG_PASWORD", f"did you mean {PASSWORD}?"),
        ("DBPOWER_DATABASES_ORDERS_PASSWORD", "did you mean"),
        ("DBPOWER_DATABASES", "unknown variable"),
        ("DBPOWER_DATABASES_ORDERS_NAME", "unknown variable"),
        ("DBPOWER_DATABASES_COMPLETELY_DIFFERENT", "unknown variable"),
    ],
)
def test_a_misspelt_variable_is_told_and_its_value_is_not(loaded: Loader, variable: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(several("orders"), {variable: "S3CR3T"})
    assert caught.value.detail.startswith(f"{variable}: ")
    assert (complaint in caught.value.detail, "S3CR3T" in str(caught.value)) == (True, False)


def test_variables_of_the_pair_beside_databases_are_an_error(loaded: Loader) -> None:
    with pytest.raises(ConfigError, match="db_config: stands beside databases"):
        loaded(several("orders"), {"DBPOWER_DB_CONFIG_PASSWORD": "x"})


def test_a_place_in_a_database_is_told_by_its_name(loaded: Loader) -> None:
    tree = several("orders", "billing")
    tree["databases"][1]["db_config"]["password"] = "${NOWHERE}"
    with pytest.raises(ConfigError, match=r"databases\.billing\.db_config\.password: the environment has no variable"):
        loaded(tree)


@pytest.mark.parametrize("entries", [5, "x", {}, [5], [{"name": 5}], [{"name": "a/b"}], [{}], None])
def test_without_names_there_are_no_variables_of_databases(entries: object) -> None:
    assert [name for name in variables({"databases": entries}) if "DATABASES" in name] == []
