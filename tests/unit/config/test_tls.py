"""The sections `tls` and the key `proxy`.

What could go wrong: a contradiction is taken, and a connection that was meant to be safe is not; a misspelt key is
passed over; a relative path is looked for where the agent was started; a file that does not do shows weeks later; a
complaint shows a key or a password that stands in the wrong place; the environment does not reach a section of one
database.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.config.environment import variables
from agent.config.layers import load
from agent.config.places import path_of, put
from agent.config.schema import Config
from agent.config.tls import DatabaseTls
from agent.errors import ConfigError
from tests.servers.authority import Authorities
from tests.unit.config.conftest import Loader, Tree, several

PEM = "-----BEGIN PRIVATE KEY-----\nS3CR3T\n-----END PRIVATE KEY-----\n"


def complaint(loaded: Loader, tree: Tree, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tree, environ)
    return caught.value.detail


def section(**keys: Any) -> DatabaseTls:
    return DatabaseTls.model_validate(keys)


# -- what is meant -----------------------------------------------------------------------------------------------------


def test_the_backend_is_checked_unless_it_is_said_otherwise(tree: Tree) -> None:
    tls = Config.model_validate(tree).tls
    assert (tls.verify, tls.ca, tls.cert, tls.key) == (True, None, None, None)
    tree["tls"] = {"verify": False}
    assert Config.model_validate(tree).tls.verify is False


@pytest.mark.parametrize(
    ("keys", "mode", "chain", "name"),
    [
        ({}, None, False, False),
        ({"mode": "prefer"}, "prefer", False, False),
        ({"mode": "disable", "verify": False}, "disable", False, False),
        ({"mode": "require"}, "require", False, False),
        ({"cert": "c", "key": "k"}, None, False, False),
        ({"verify": False}, None, False, False),
        ({"ca": "x"}, "require", True, True),
        ({"ca": "x", "verify": "ca"}, "require", True, False),
        ({"ca": "x", "verify": False}, None, False, False),
        ({"verify": True}, "require", True, True),
        ({"verify": "true"}, "require", True, True),  # as the environment says it
        ({"mode": "require", "ca": "x"}, "require", True, True),
    ],
)
def test_what_a_section_of_a_database_means(keys: Tree, mode: str | None, chain: bool, name: bool) -> None:
    tls = section(**keys)
    assert (tls.wanted, tls.checks_chain, tls.checks_name) == (mode, chain, name)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"mode": "disable", "ca": "x"}, "db_config.tls.ca: stands beside mode disable; it needs mode require"),
        ({"mode": "disable", "verify": True}, "db_config.tls.verify: stands beside mode disable"),
        ({"mode": "disable", "cert": "x"}, "db_config.tls.cert: stands beside mode disable"),
        ({"mode": "prefer", "ca": "x"}, "db_config.tls.ca: stands beside mode prefer; it needs mode require"),
        ({"mode": "prefer", "verify": True}, "db_config.tls.verify: stands beside mode prefer"),
        ({"verify": "ca"}, "db_config.tls.verify: needs ca: anybody can have a certificate"),
        ({"key": "x"}, "db_config.tls.key: stands there without cert"),
        ({"mode": "verify-full"}, "db_config.tls.mode: should be 'disable', 'prefer' or 'require'"),
        ({"mode": True}, "db_config.tls.mode: should not be true or false"),
        ({"verify": "full"}, "db_config.tls.verify: should be"),
        ({"ca": ""}, "db_config.tls.ca: should be the path of a file"),
        ({"ca": "a\0b"}, "db_config.tls.ca: should be the path of a file"),
        ({"ca": False}, "db_config.tls.ca: should not be true or false"),
        ({"ca": 5}, "db_config.tls.ca: is not a valid path"),
        ({"verfiy": False}, "db_config.tls.verfiy: unknown key; did you mean verify?"),
        ({"sslmode": "x"}, "db_config.tls.sslmode: unknown key; did you mean mode?"),
    ],
)
def test_what_contradicts_itself_or_means_nothing_is_told_with_its_place(
    loaded: Loader, tree: Tree, keys: Tree, expected: str
) -> None:
    tree["db_config"]["tls"] = keys
    assert complaint(loaded, tree).startswith(expected)


@pytest.mark.parametrize("keys", [{"key": "x"}, {"mode": "require"}, {"verify": "ca"}, {"verify": None}])
def test_what_the_backends_section_does_not_know_is_told(loaded: Loader, tree: Tree, keys: Tree) -> None:
    tree["tls"] = keys
    assert complaint(loaded, tree).startswith(f"tls.{next(iter(keys))}: ")


# -- the files ---------------------------------------------------------------------------------------------------------


def test_files_are_beside_the_configuration_wherever_the_agent_was_started(
    tmp_path: Path, tree: Tree, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "etc"
    (place / "pki").mkdir(parents=True)
    (place / "pki/ca.pem").write_bytes(authorities.ours.ca.read_bytes())
    tree["tls"] = {"ca": "pki/ca.pem"}
    tree["db_config"]["tls"] = {"ca": "pki/../pki/ca.pem"}
    (place / "config.json").write_text(json.dumps(tree))
    monkeypatch.chdir(tmp_path)
    config, layers = load(Path("etc/config.json"), {}, {})
    assert config.tls.ca == config.watches[0].db_config.tls.ca == place / "pki/ca.pem"
    monkeypatch.chdir("/")
    assert layers.build({}).tls.ca == place / "pki/ca.pem"


@pytest.mark.parametrize("place", ["tls", "db_config.tls"])
def test_files_that_do_not_do_are_told_at_the_start(
    loaded: Loader, tree: Tree, tmp_path: Path, authorities: Authorities, place: str
) -> None:
    good, foreign = authorities.good, authorities.foreign
    cases = {
        "ca": ({"ca": "none.pem"}, "the file cannot be read (No such file or directory)"),
        "cert": ({"cert": str(good.cert)}, "the file holds no private key (it should be PEM)"),
        "key": ({"cert": str(good.cert), "key": str(foreign.key)}, "the key belongs to another certificate"),
    }
    for key, (keys, reason) in cases.items():
        put(tree, path_of(place), keys)
        assert complaint(loaded, tree) == f"{place}.{key}: {reason}"
    put(tree, path_of(place), {"ca": str(tmp_path)})
    assert complaint(loaded, tree) == f"{place}.ca: should be a file, and is a directory"


def test_files_of_several_databases_are_told_by_their_names(loaded: Loader) -> None:
    tree = several("orders", "billing")
    tree["databases"][1]["db_config"]["tls"] = {"ca": "none.pem"}
    tree["tls"] = {"ca": "none.pem"}
    told = complaint(loaded, tree).split("; ")
    assert [each.partition(": ")[0] for each in told] == ["tls.ca", "databases.billing.db_config.tls.ca"]


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
def test_a_key_that_stands_where_its_file_should_is_told_and_not_shown(loaded: Loader, tree: Tree, key: str) -> None:
    tree["tls"] = {"cert": "x", key: PEM}
    told = complaint(loaded, tree)
    assert told == f"tls.{key}: should be the path of a file, not what stands in it"


def test_a_variable_for_mounted_secrets_that_was_taken_for_the_name_of_the_file_is_told(
    loaded: Loader, tree: Tree, tmp_path: Path
) -> None:
    (tmp_path / "agent.key").write_text(PEM)
    told = complaint(loaded, tree, DBPOWER_TLS_CERT="x", DBPOWER_TLS_KEY_FILE=str(tmp_path / "agent.key"))
    assert told == "tls.key: should be the path of a file, not what stands in it"


# -- the environment ---------------------------------------------------------------------------------------------------


def test_the_environment_reaches_each_key(loaded: Loader, tree: Tree, authorities: Authorities) -> None:
    pair = authorities.good
    config, _ = loaded(
        tree,
        {
            "DBPOWER_TLS_CA": str(authorities.ours.ca),
            "DBPOWER_TLS_CERT": str(pair.cert),
            "DBPOWER_TLS_KEY": str(pair.key),
            "DBPOWER_TLS_VERIFY": "false",
            "DBPOWER_PROXY": "http://proxy:1",
            "DBPOWER_DB_CONFIG_TLS_MODE": "require",
            "DBPOWER_DB_CONFIG_TLS_CA": str(authorities.theirs.ca),
            "DBPOWER_DB_CONFIG_TLS_VERIFY": "ca",
        },
    )
    assert (config.tls.ca, config.tls.cert, config.tls.key) == (authorities.ours.ca, pair.cert, pair.key)
    tls = config.watches[0].db_config.tls
    assert (config.tls.verify, tls.mode, tls.ca, tls.verify) == (False, "require", authorities.theirs.ca, "ca")


def test_the_environment_reaches_the_section_of_one_database(loaded: Loader, authorities: Authorities) -> None:
    tree = several("orders", "eu.billing")
    tree["databases"][0]["db_config"]["tls"] = {"ca": str(authorities.theirs.ca)}
    environ = {
        "DBPOWER_DATABASES_ORDERS_DB_CONFIG_TLS_VERIFY": "ca",
        "DBPOWER_DATABASES_EU_BILLING_DB_CONFIG_TLS_CA": str(authorities.ours.ca),
    }
    orders, billing = (each.db_config.tls for each in loaded(tree, environ)[0].watches)
    assert (orders.ca, orders.verify) == (authorities.theirs.ca, "ca")
    assert (billing.ca, billing.verify, billing.wanted) == (authorities.ours.ca, None, "require")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DBPOWER_TLS_CERTS", "DBPOWER_TLS_CERT"),
        ("DBPOWER_DB_CONFIG_TLS_MODES", "DBPOWER_DB_CONFIG_TLS_MODE"),
        ("DBPOWER_DATABASES_ORDERS_DB_CONFIG_TLS_VERFIY", "DBPOWER_DATABASES_ORDERS_DB_CONFIG_TLS_VERIFY"),
        ("DBPOWER_PROXXY", "DBPOWER_PROXY"),
    ],
)
def test_a_variable_that_is_nearly_one_of_these_is_told(loaded: Loader, variable: str, meant: str) -> None:
    assert (
        complaint(loaded, several("orders"), **{variable: "x"})
        == f"{variable}: unknown variable; did you mean {meant}?"
    )


def test_no_variable_stands_for_two_keys() -> None:
    assert [name for name, places in variables(several("orders", "billing")).items() if len(places) > 1] == []


# -- the proxy and other addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["http://proxy.example.com:3128", "https://u:p%40ss@proxy", "http://[2001:db8::1]:3128/", ""]
)
def test_a_proxy_has_an_address_or_is_none_at_all(tree: Tree, address: str) -> None:
    tree["proxy"] = address
    found = Config.model_validate(tree).proxy
    assert found is not None
    assert found.get_secret_value() == address


def test_without_a_word_on_it_the_environment_says_the_proxy(tree: Tree) -> None:
    assert Config.model_validate(tree).proxy is None


@pytest.mark.parametrize(
    "address",
    [
        "proxy.example.com:3128",
        "socks5://u:S3CR3T@proxy:1080",
        "http://u:S3CR3T@",
        "http://u:S3/CR3T@proxy:3128",
        "http://u:S3#CR3T@proxy:3128",
        "http://u:S3?CR3T@proxy:3128",
        "http://u:S3CR3T@proxy:99999",
        "http://u:S3 CR3T@proxy",
        "http://[S3CR3T",
        True,
        ["S3CR3T"],
    ],
)
def test_what_is_no_address_of_a_proxy_is_told_and_not_shown(tree: Tree, address: object) -> None:
    tree["proxy"] = address
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(tree)
    assert "CR3T" not in str(caught.value)
    assert [error["loc"] for error in caught.value.errors()] == [("proxy",)]


def test_the_password_of_a_proxy_does_not_show_in_the_configuration(tree: Tree) -> None:
    tree["proxy"] = "http://u:S3CR3T@proxy"
    assert "S3CR3T" not in repr(Config.model_validate(tree))


@pytest.mark.parametrize(("written", "host"), [("[::1]", "::1"), ("::1", "::1"), ("[", "["), ("db", "db")])
def test_a_database_may_be_at_an_address_of_ipv6_with_or_without_brackets(tree: Tree, written: str, host: str) -> None:
    tree["db_config"]["host"] = written
    assert Config.model_validate(tree).watches[0].db_config.host == host
