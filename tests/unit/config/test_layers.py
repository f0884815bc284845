"""Where a configuration comes from: command line over environment over remote.json over file.

What could go wrong: the wrong layer wins; a fault in the file ends in a traceback, or without its place; a secret from
a layer shows in an error; state is kept in another directory than the one that was meant.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import remote
from agent.config.environment import MAX_DEPTH
from agent.config.layers import Layers, load
from agent.config.places import path_of, put
from agent.config.schema import Config
from agent.errors import ConfigError, ConfigMalformed, ConfigMissing
from tests.unit.config.conftest import Loader, Tree, valid

EXAMPLE = Path(__file__).parents[3] / "config.example.json"
MARK = "S3CR3T"


def remember(data_dir: Path, file: Tree, changes: dict[str, object]) -> None:
    """As an accepted update_config does."""
    data_dir.mkdir(exist_ok=True)
    remote.save(data_dir, file, changes)


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_example_is_a_configuration() -> None:
    config, _ = load(EXAMPLE, {"DB_PASSWORD": "x"}, {})
    assert (config.collector_id, config.watches[0].db_type, config.heartbeat_interval) == (1, "mysql", 30)


def test_the_example_has_every_key_of_the_seed() -> None:
    example = json.loads(EXAMPLE.read_text())
    assert list(example) == [
        *("collector_id", "api_key", "backend_url", "db_type", "db_config"),
        *("heartbeat_interval", "collection_interval"),
    ]
    assert set(example["db_config"]) >= {"host", "port", "user", "password"}


def test_a_missing_file_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigMissing, match=r"nothing\.json \(No such file or directory\)"):
        load(tmp_path / "nothing.json", {}, {})


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigMissing, match="directory"):
        load(tmp_path, {}, {})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{\n  "collector_id": 1,\n  "api_key": oops\n}', "line 3, column 14"),
        ('{"collector_id": 1,}', "line 1, column"),
        ('{"heartbeat_interval": NaN}', "line 1, column 24"),
        ("", "line 1, column 1"),
        ('{"a": "\ud800"}', "line 1"),
    ],
)
def test_malformed_json_is_told_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigMalformed, match=place):
        load(path, {}, {})


@pytest.mark.parametrize("text", ["[]", "5", '"x"', "null"])
def test_what_is_no_object_is_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigMalformed, match="one object"):
        load(tmp_path / "config.json", {}, {})


@pytest.mark.parametrize("brackets", ['{"a":', "["])
def test_objects_without_end_are_refused_in_a_sentence(tmp_path: Path, brackets: str) -> None:
    depth = 900
    end = "}" if brackets.startswith("{") else "]"
    text = f'{{"log": {brackets * depth}1{end * depth}}}'
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigMalformed, match=f"more than {MAX_DEPTH} deep"):
        load(tmp_path / "config.json", {}, {})


def test_a_byte_order_mark_is_passed_over(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(tree).encode())
    assert load(tmp_path / "config.json", {}, {})[0].collector_id == 7


# -- ${NAME} ---------------------------------------------------------------------------------------------------------


def test_a_name_in_a_text_is_taken_from_the_environment(tree: Tree, loaded: Loader) -> None:
    tree["db_config"]["password"] = "a-${ONE}-${TWO}"
    config, _ = loaded(tree, {"ONE": "1", "TWO": "${ONE}"})
    assert config.watches[0].db_config.password.get_secret_value() == "a-1-${ONE}"  # filled in once, not again


def test_names_that_the_environment_lacks_are_told_with_everything_else(tree: Tree, loaded: Loader) -> None:
    tree["api_key"], tree["db_config"]["password"], tree["heartbeat_interval"] = "${KEY}", "x${PASSWORD}", -1
    with pytest.raises(ConfigError) as caught:
        loaded(tree)
    assert "api_key: the environment has no variable KEY" in caught.value.detail
    assert "db_config.password: the environment has no variable PASSWORD" in caught.value.detail
    assert "heartbeat_interval: " in caught.value.detail


@pytest.mark.parametrize("text", ["$NAME", "${}", "${1}", "$ {NAME}", "${NA-ME}"])
def test_other_dollars_stay(tree: Tree, loaded: Loader, text: str) -> None:
    tree["db_config"]["password"] = text
    assert loaded(tree, {"NAME": "x"})[0].watches[0].db_config.password.get_secret_value() == text


# -- precedence ------------------------------------------------------------------------------------------------------


def test_each_layer_wins_over_the_one_below(tmp_path: Path, tree: Tree, loaded: Loader) -> None:
    tree["collection_interval"] = 1
    assert loaded(tree)[0].collection_interval == 1
    remember(tmp_path / "data", tree, {"collection_interval": 2})
    assert loaded(tree)[0].collection_interval == 2
    environ = {"DBPOWER_COLLECTION_INTERVAL": "3"}
    assert loaded(tree, environ)[0].collection_interval == 3
    assert loaded(tree, environ, {"collection_interval": 4})[0].collection_interval == 4


def test_the_environment_reaches_every_section(tree: Tree, loaded: Loader) -> None:
    config, _ = loaded(
        tree,
        {
            "DBPOWER_COLLECTOR_ID": "9",
            "DBPOWER_DB_CONFIG_PORT": "3307",
            "DBPOWER_DB_CONFIG_PASSWORD": "other",
            "DBPOWER_OUTBOX_MAX_BYTES": "2097152",
            "DBPOWER_LOG_FORMAT": "json",
            "DBPOWER_DB_CONFIG_START": "60",
        },
    )
    assert (config.collector_id, config.watches[0].db_config.port, config.watches[0].db_config.start) == (9, 3307, 60)
    assert config.watches[0].db_config.password.get_secret_value() == "other"
    assert (config.outbox.max_bytes, config.log.format) == (2_097_152, "json")
    assert config.watches[0].db_config.host == "db.example.com"


def test_a_mounted_secret_is_read_without_its_line_end(tmp_path: Path, tree: Tree, loaded: Loader) -> None:
    (tmp_path / "secret").write_text("top secret \r\n")
    config, _ = loaded(tree, {"DBPOWER_DB_CONFIG_PASSWORD_FILE": str(tmp_path / "secret")})
    assert config.watches[0].db_config.password.get_secret_value() == "top secret "


def test_the_variable_itself_wins_over_its_file(tmp_path: Path, tree: Tree, loaded: Loader) -> None:
    (tmp_path / "secret").write_text("from the file")
    environ = {"DBPOWER_API_KEY": "direct", "DBPOWER_API_KEY_FILE": str(tmp_path / "secret")}
    assert loaded(tree, environ)[0].api_key.get_secret_value() == "direct"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_mounted_secret_that_cannot_be_read_is_told(
    tmp_path: Path, tree: Tree, loaded: Loader, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="api_key: the file named by DBPOWER_API_KEY_FILE cannot be read"):
        loaded(tree, {"DBPOWER_API_KEY_FILE": str(path)})


def test_what_the_file_lacks_may_come_from_above(tree: Tree, loaded: Loader) -> None:
    for name in ("collector_id", "api_key", "db_config"):
        del tree[name]
    environ = {"DBPOWER_DB_CONFIG_HOST": "h", "DBPOWER_DB_CONFIG_USER": "u"}
    config, _ = loaded(tree, environ, {"collector_id": 3, "api_key": "k"})
    assert (config.collector_id, config.watches[0].db_config.host) == (3, "h")


def test_a_bad_value_from_above_is_told_as_one_of_the_file(tree: Tree, loaded: Loader) -> None:
    with pytest.raises(ConfigError, match=r"db_config\.port: "):
        loaded(tree, {"DBPOWER_DB_CONFIG_PORT": "mysql"})


def test_environment_that_is_no_unicode_is_refused_in_a_sentence(tree: Tree, loaded: Loader) -> None:
    with pytest.raises(ConfigError, match=r"db_config\.host: "):
        loaded(tree, {"DBPOWER_DB_CONFIG_HOST": "\udcff"})


# -- data_dir --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        (None, {}, "data"),
        (None, {"STATE_DIRECTORY": "/var/lib/dbpower"}, "/var/lib/dbpower"),
        (None, {"STATE_DIRECTORY": "/var/lib/dbpower:/var/lib/other"}, "/var/lib/dbpower"),
        (None, {"STATE_DIRECTORY": ""}, "data"),
        ("state", {"STATE_DIRECTORY": "/var/lib/dbpower"}, "state"),
        ("../state", {}, "../state"),
        ("/srv/state", {}, "/srv/state"),
        ("state", {"DBPOWER_DATA_DIR": "/srv/other"}, "/srv/other"),
    ],
)
def test_where_state_is_kept(
    tmp_path: Path, loaded: Loader, written: str | None, environ: dict[str, str], expected: str
) -> None:
    tree = valid()
    if written is not None:
        tree["data_dir"] = written
    config, layers = loaded(tree, environ)
    assert layers.data_dir == (tmp_path / expected).resolve()
    assert config.data_dir == layers.data_dir


@pytest.mark.parametrize("value", [5, True, [], {"a": 1}])
def test_a_data_dir_that_is_no_text_is_not_passed_over(tree: Tree, loaded: Loader, value: Any) -> None:
    tree["data_dir"] = value
    with pytest.raises(ConfigError, match="data_dir: "):
        loaded(tree)


# -- changes from the backend ----------------------------------------------------------------------------------------


def test_an_overlay_lies_between_file_and_environment(tree: Tree) -> None:
    layers = Layers(tree, {"heartbeat_interval": "5"}, Path("/data"))
    config = layers.build({"heartbeat_interval": 6, "collection_interval": 7, "db_config.min_exec_time_ms": 8})
    assert (config.heartbeat_interval, config.collection_interval, config.watches[0].db_config.min_exec_time_ms) == (
        5,
        7,
        8,
    )
    assert config.watches[0].db_config.host == "db.example.com"


def test_building_changes_no_layer(tree: Tree) -> None:
    above: Tree = {"db_config": {"port": "1"}}
    layers = Layers(tree, above, Path("/data"))
    layers.build({"db_config.host": "other"})
    assert (layers.file, layers.above) == (valid(), {"db_config": {"port": "1"}})


def test_a_bad_overlay_is_complained_of(tree: Tree) -> None:
    with pytest.raises(ConfigError, match=r"db_config.prot: unknown key; did you mean port\?"):
        Layers(tree, {}, Path("/data")).build({"db_config.prot": 1})


@pytest.mark.parametrize("name", ["host", "port", "user", "database"])
def test_a_password_of_this_host_never_goes_to_an_address_of_the_backend(tree: Tree, name: str) -> None:
    """The one that came with the address lies below the environment's, which would be sent in its place."""
    layers = Layers(tree, {"db_config": {"password": "of this host"}}, Path("/data"))
    changes: dict[str, object] = {f"db_config.{name}": "5", "db_config.password": "theirs"}
    with pytest.raises(ConfigError, match=f"db_config.{name}: was set remotely"):
        layers.build(changes)
    tree["remote_config"] = "any"
    layers.build(changes)


def test_an_address_of_this_host_may_have_a_password_of_this_host(tree: Tree) -> None:
    layers = Layers(tree, {"db_config": {"password": "of this host", "host": "of this host"}}, Path("/data"))
    config = layers.build({"db_config.host": "theirs", "db_config.password": "theirs"})
    assert config.watches[0].db_config.host == "of this host"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"collection_interval": 5}',
        pytest.param("port", id="a port that the schema refuses"),
    ],
)
def test_no_memory_of_changes_keeps_an_agent_from_starting(
    tmp_path: Path, tree: Tree, loaded: Loader, content: str
) -> None:
    (tmp_path / "data").mkdir()
    if content == "port":
        remember(tmp_path / "data", tree, {"db_config.port": 70_000, "db_config.password": "p"})
    else:
        (tmp_path / "data" / "remote.json").write_text(content)
    config, layers = loaded(tree)
    assert (config, bool(layers.unusable)) == (layers.build({}), True)
    assert (tmp_path / "data" / "remote.json").exists()  # whoever only looks moves nothing


def test_a_password_of_the_environment_over_a_remote_address_sets_the_changes_aside(
    tmp_path: Path, tree: Tree, loaded: Loader
) -> None:
    remember(tmp_path / "data", tree, {"db_config.host": "theirs", "db_config.password": MARK})
    config, layers = loaded(tree, {"DBPOWER_DB_CONFIG_PASSWORD": "of this host"})
    assert (config.watches[0].db_config.host, MARK in layers.unusable) == ("db.example.com", False)
    assert "was set remotely" in layers.unusable


def test_what_is_wrong_with_the_file_itself_is_complained_of_all_the_same(
    tmp_path: Path, tree: Tree, loaded: Loader
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "remote.json").write_text("{")
    tree["db_config"]["port"] = "x"
    with pytest.raises(ConfigError, match=r"db_config.port: ") as refused:
        loaded(tree)
    assert "remote.json" not in str(refused.value)


def test_without_a_fault_nothing_is_unusable(tmp_path: Path, tree: Tree, loaded: Loader) -> None:
    remember(tmp_path / "data", tree, {"collection_interval": 15})
    config, layers = loaded(tree)
    assert (config.collection_interval, layers.unusable) == (15, "")


# -- secrets ---------------------------------------------------------------------------------------------------------

_FIELDS = [
    *("api_key", "backend_url", "proxy", "collector_id"),
    *("db_type", "db_config.password", "db_config.port", "db_config"),
]
_MARKED = st.sampled_from([MARK, f"x{MARK}", [MARK], {"deep": {"er": [MARK]}}, f"http://u:{MARK}@h", f"{MARK} \n"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.dictionaries(st.sampled_from(_FIELDS), _MARKED, max_size=4),
    environ=st.dictionaries(
        st.sampled_from([f"DBPOWER_{name.replace('.', '_').upper()}" for name in _FIELDS] + ["DBPOWER_LOG_LEVEL_FILE"]),
        st.sampled_from([MARK, f"http://u:{MARK}@h", "", "5"]),
        max_size=3,
    ),
    options=st.dictionaries(st.sampled_from(["api_key", "collector_id", "backend_url"]), _MARKED, max_size=2),
)
def test_no_secret_shows_wherever_it_stands_and_whatever_is_wrong(
    loaded: Loader, file: Tree, environ: dict[str, str], options: dict[str, object]
) -> None:
    tree = valid()
    for name, value in file.items():
        put(tree, path_of(name), deepcopy(value))
    try:
        config, layers = loaded(tree, environ, options)
    except ConfigError as error:
        shown = f"{error} {error!r} {error.detail} {error.__cause__!r}"
    else:
        shown = f"{config!r} {layers!r}"
    assert MARK not in shown


def test_the_control_of_the_mark_a_value_that_is_no_secret_shows(tree: Tree, loaded: Loader) -> None:
    tree["db_config"]["host"] = MARK
    config: Config
    config, _ = loaded(tree)
    assert MARK in repr(config)


def test_a_directory_with_a_null_in_its_name_is_complained_of(loaded: Loader) -> None:
    for data_dir in ("a\0b", "\0"):
        with pytest.raises(ConfigError, match="data_dir: should be the path of a directory"):
            loaded({**valid(), "data_dir": data_dir})
