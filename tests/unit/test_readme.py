"""What could go wrong: the README is silent on a key, option, word, exit code, error code or field that the code has,
or speaks of one it does not have; a default is another one; an example does not parse, does not validate, names a file
that does not exist or a link that leads nowhere; a name of the first description cannot be found; the SQL is refused by
a server, or grants less than the agent needs.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click
import orjson
import pytest
from click.testing import CliRunner
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

import agent.errors
import storage.errors
from agent.cli import FOUND, INTERRUPTED, RUNNING, UNUSABLE, cli
from agent.cli.migrate import migrate
from agent.cli.outbox import outbox
from agent.config.complaints import section
from agent.config.environment import variables
from agent.config.layers import load
from agent.config.places import DATABASES
from agent.config.remote import refusal
from agent.config.schema import Config, Database
from agent.dev import backend
from agent.dev.app import build_context, create_app
from agent.dev.store import Store
from agent.record import Record, Window, to_wire
from agent.redact import Level, Redactor
from agent.sources._slow_log_times import BOUNDED, EXACT, INFERRED
from agent.sources._statement_servers import (
    CRASH_RESET,
    EVICTED_REENTERED,
    FIRST_LOOK,
    NEW,
    NORMAL,
    OTHER_SERVER,
    PARTIAL_RESET,
    RESET,
)
from agent.status import Scoreboard
from scripts import replay
from scripts.bench import MEASUREMENTS
from storage.connection import connect_readonly
from storage.errors import CodedError
from storage.outbox import FILE_NAME, Outbox
from tests.fakes.stub_backend import StubBackend
from tests.integration.test_own_rotation import NOT_REPLICATED, TABLE_GRANTS
from tests.servers.agent_process import run_agent, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres
from tests.servers.slow_log_server import SlowLogServer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
# Codes that nobody raises: the families, and TLS options that do not exist yet. The README has its own words for them.
NOT_RAISED = {"DB-00", "OB-00"}
# What a reader makes for himself while following the README.
MADE_BY_READER = {"config.json", "collector.log", "secrets", ".venv"}


def blocks(language: str, part: str = TEXT) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)


def chapter(heading: str) -> str:
    """What stands below that heading, to the next of its rank or a higher one."""
    level = heading.split(maxsplit=1)[0]
    _, _, rest = TEXT.partition(f"\n{heading}\n")
    assert rest, f"there is no {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def table(first_column: str, part: str = TEXT) -> list[list[str]]:
    """The rows of the table whose head begins with that word."""
    found = re.search(rf"^\| {re.escape(first_column)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", part, flags=re.MULTILINE)
    assert found, f"there is no table {first_column!r}"
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in found[1].splitlines()]


# -- what the code has -------------------------------------------------------------------------------------------


def keys(schema: type[BaseModel] = Config, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and default of every key."""
    for name, field in schema.model_fields.items():
        inner = section(schema, (name,)) if name != DATABASES else None  # the list has a chapter of its own
        if inner is not None:
            yield from keys(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", field.default


def as_readme_shows(key: str, default: Any) -> str:
    special = {"data_dir": "`$STATE_DIRECTORY`, else `data`", "db_config.port": "by `db_type`", "db_type": ""}
    if key in special:
        return special[key]
    if default is PydanticUndefined:
        return ""
    return f"`{json.dumps(default.get_secret_value() if isinstance(default, SecretStr) else default)}`"


def test_every_key_stands_in_the_table_with_its_default_and_no_other() -> None:
    shown = {row[0].strip("| `"): row[2] for row in table("key")}
    assert shown == {key: as_readme_shows(key, default) for key, default in keys()}


def test_the_variables_it_names_are_read_by_the_agent() -> None:
    example = json.loads(blocks("json", chapter("### Several databases"))[0])
    known = set(variables(example))
    named = {name.removesuffix("_FILE") for name in re.findall(r"DBPOWER_[A-Z_]+[A-Z]", TEXT)}
    assert named - known == set()
    assert {"DBPOWER_API_KEY", "DBPOWER_DB_CONFIG_PASSWORD", "DBPOWER_DATABASES_ORDERS_DB_CONFIG_PASSWORD"} <= named


def test_every_error_code_stands_in_the_table_with_sentence_and_remedy() -> None:
    classes = {
        found
        for module in (agent.errors, storage.errors)
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, CodedError) and found is not CodedError
    }
    expected = {found.code: [found().sentence, found.remedy] for found in classes}
    assert len(expected) == len(classes)  # no code twice
    shown = {row[0].strip("| `"): row[1:] for row in table("code")}
    assert set(shown) == set(expected)
    for code, (sentence, remedy) in expected.items():
        assert (code, shown[code][0]) == (code, sentence)
        assert code in NOT_RAISED or (code, shown[code][1]) == (code, remedy)


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    assert [int(row[0].strip("| ")) for row in table("exit code")] == [0, FOUND, UNUSABLE, RUNNING, INTERRUPTED]


def test_the_figures_are_those_that_are_measured() -> None:
    assert [row[0].strip("| `") for row in table("measurement")] == list(MEASUREMENTS)


def test_every_word_stands_in_the_table_and_no_other() -> None:
    assert {row[0].strip("| `") for row in table("word")} == set(cli.list_commands(click.Context(cli)))


def test_every_option_is_named_and_no_other() -> None:
    options = options_of(cli, *cli.commands.values(), migrate)
    usage = chapter("## Usage").split("### Run as a service")[0]
    named = set(re.findall(r"(?<![\w/-])(--?[a-z][a-z-]*)(?!\w)", usage.replace("python -m", "python")))
    assert named == options | set(cli.context_settings["help_option_names"])


def options_of(*commands: click.Command) -> set[str]:
    context = click.Context(cli, **cli.context_settings)
    return {
        name
        for command in commands
        for parameter in command.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }


def test_every_word_and_option_of_the_outbox_is_named_and_no_other() -> None:
    part = chapter("## The outbox by hand")
    words = table("word behind `outbox`", part)
    assert {re.findall(r"`([a-z]+)", row[0])[0] for row in words} == set(outbox.commands)
    named = set(re.findall(r"(?<![\w/-])(--[a-z][a-z-]*)", part))
    assert named == options_of(*outbox.commands.values()) - options_of(cli)


def test_every_option_of_a_replay_stands_in_the_table_and_no_other() -> None:
    rows = table("option of `replay.py`")
    named = {name for row in rows for name in re.findall(r"`(--[a-z-]+)", row[0])}
    known = {name for action in replay.parser()._actions for name in action.option_strings}
    assert named == known - {"-h", "--help"}


def test_what_leaves_of_a_text_is_what_it_shows() -> None:
    part = chapter("### What leaves of a text")
    [head] = re.findall(r"^\| `redact` \|.*", part, flags=re.MULTILINE)
    first, second = re.findall(r"`([A-Z][^`]*)`", head)
    rows = {row[0].strip("| `"): [cell.strip("`") for cell in row[1:]] for row in table("`redact`", part)}
    assert set(rows) == set(get_args(Level))
    for level in get_args(Level):
        redacted = [Redactor(level, "mysql")(text, is_whole=True)[0] for text in (first, second)]
        assert rows[level] == ["as it was logged" if redacted[0] == first else redacted[0], redacted[1]]


def test_every_field_of_a_record_is_named() -> None:
    window = Window(NOW, NOW, "new", 1, 1, 1, 1.0, 1.0)
    record = Record("i", "s", "q", 0.0, 0.0, 0, 0, "d", "u", NOW, NOW, "f", "x", window, "exact")
    delivered = chapter("## What is delivered")
    names = [*orjson.loads(to_wire(record)), EXACT, INFERRED, BOUNDED]
    assert [name for name in names if f"`{name}`" not in delivered] == []


def test_every_reason_of_a_window_stands_in_the_table_and_no_other() -> None:
    reasons = {FIRST_LOOK, NORMAL, NEW, RESET, PARTIAL_RESET, EVICTED_REENTERED, CRASH_RESET, OTHER_SERVER}
    rows = table("`window_reason`", chapter("### Reasons of a window"))
    assert {row[0].strip("`") for row in rows} == reasons


def test_every_statistic_of_the_heartbeat_is_named_and_no_other() -> None:
    stats = Scoreboard(0.0).status(now_s=0.0, now_unix=0.0).stats()
    rows = table("field", chapter("### Statistics in the heartbeat"))
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == set(stats)


# -- what it says ------------------------------------------------------------------------------------------------


def test_the_first_screen_is_problem_picture_and_two_commands() -> None:
    screen = "\n".join(TEXT.splitlines()[:30])
    assert "Slow queries are lost" in screen
    assert "OUTBOX" in screen
    assert re.findall(r"^(scripts/\w+) ", screen, flags=re.MULTILINE) == ["scripts/demo", "scripts/test"]


def test_the_place_of_the_diagram_is_marked_once() -> None:
    marks = re.findall(r"<!-- diagram:(\w+) -->", TEXT)
    assert marks == ["begin", "end"]
    assert "<!-- diagram:begin -->" in chapter("### State machine")


@pytest.mark.parametrize(
    "name",
    [
        "Multi-Database Support", "Heartbeat Mechanism", "Remote Control", "Auto-Collection", "Error Handling",
        "Statistics Tracking", "pip install -r requirements.txt", "/api/v1/collectors/register", "collector_agent.py",
        "**start**", "**stop**", "**collect**", "**update_config**", "dbpower-collector.service",
        "/opt/dbpower-collector", "sudo systemctl enable dbpower-collector",
        "sudo journalctl -u dbpower-collector -f", "docker compose up backend",
        "### Agent not connecting to backend", "### No queries being collected",
        "### Agent shows as OFFLINE in backend",
        "### View agent logs", "### Command-line options", "### Configuration Fields", "FLUSH PRIVILEGES",
        "SET GLOBAL log_output = 'TABLE'", "shared_preload_libraries = 'pg_stat_statements'",
        "GRANT pg_read_all_stats TO monitoring", "Part of DBPower AI Cloud project.", "Python 3.11+",
    ],
)  # fmt: skip
def test_what_the_first_description_named_is_found_under_its_name(name: str) -> None:
    assert name in TEXT


def test_every_json_block_parses() -> None:
    assert [type(json.loads(block)) for block in blocks("json")] == [dict] * len(blocks("json"))


def test_the_example_configurations_are_valid_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    examples = blocks("json", chapter("## Installation"))
    path = tmp_path / "config.json"
    found = []
    for example in examples:
        path.write_text(example)
        config, _ = load(path, {}, {})
        found.append((config.watches[0].db_type, config.watches[0].port, config.watches[0].db_config.user))
    assert found == [("mysql", 3306, "monitoring"), ("postgres", 5432, "monitoring")]
    path.write_text(examples[0].replace("backend_url", "backend_uri"))
    with pytest.raises(CodedError, match="backend_uri"):
        load(path, {}, {})


def test_the_example_with_several_databases_is_valid_and_its_keys_are_named(tmp_path: Path) -> None:
    several = chapter("### Several databases")
    (example,) = blocks("json", several)
    path = tmp_path / "config.json"
    path.write_text(example)
    config, _ = load(path, {"ORDERS_PASSWORD": "one", "BILLING_PASSWORD": "two"}, {})
    found = [(each.name, each.db_type, each.port, each.collection_interval) for each in config.watches]
    assert found == [("orders", "mysql", 3306, 300), ("billing", "postgres", 5432, 60)]
    assert [each.db_config.password.get_secret_value() for each in config.watches] == ["one", "two"]
    assert [name for name in Database.model_fields if f"`{name}`" not in several] == []


def test_what_the_heartbeat_tells_of_each_watch_is_named() -> None:
    board = Scoreboard(0.0)
    board.report("default")
    watches = board.status(now_s=0.0, now_unix=0.0).stats()["watches"]
    (row,) = [row for row in table("field", chapter("### Statistics in the heartbeat")) if "`watches`" in row[0]]
    assert isinstance(watches, dict)
    assert set(watches["default"]) == set(re.findall(r"`(\w+)`", row[1])) - {"default"}


@pytest.mark.parametrize("more", [{}, {"database": "postgres", "min_exec_time_ms": 500}])
@pytest.mark.parametrize("db_type", ["mysql", "postgres"])
def test_a_configuration_of_the_first_description_is_still_valid(
    db_type: str, more: dict[str, Any], tmp_path: Path
) -> None:
    config = {"collector_id": 1, "api_key": "collector_1_abc123...", "backend_url": "http://localhost:8000"}
    config |= {"db_type": db_type, "heartbeat_interval": 30, "collection_interval": 300}
    config |= {"db_config": {"host": "localhost", "port": 3306, "user": "root", "password": "admin", **more}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert load(path, {}, {})[0].watches[0].db_type == db_type


def test_the_query_for_gaps_and_parked_records_fits_the_outbox(tmp_path: Path) -> None:
    (command,) = [line for line in shell_lines() if line.startswith("sudo sqlite3 ")]
    Outbox(tmp_path).close()
    connection = connect_readonly(tmp_path / FILE_NAME)
    try:
        answers = [connection.execute(query).fetchall() for query in shlex.split(command)[-1].split(";")]
    finally:
        connection.close()
    assert answers == [[], []]
    assert shlex.split(command)[-2].endswith(f"/{FILE_NAME}")


def test_the_calls_it_shows_are_accepted_by_the_development_backend() -> None:
    calls = [parsed_curl(line) for line in shell_lines() if line.startswith("curl ")]
    store = Store(None)
    try:
        client = create_app(build_context(store)).test_client()
        answers = [client.open(path, method=how, headers=headers, data=data) for how, path, headers, data in calls]
    finally:
        store.close()
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200, 200]
    registered, *_, told = answers
    assert {"id", "api_key"} - set(registered.json or {}) == set()
    commands = [(command["command"], command["params"]) for command in told.json or []]
    assert [name for name, _ in commands] == ["stop", "start", "collect", "update_config"]
    assert {name: params for name, params in commands if params and refusal(params, "safe") is None} == {
        "update_config": {"collection_interval": 60}
    }


def parsed_curl(line: str) -> tuple[str, str, dict[str, str], str | None]:
    """Method, path, headers and body of a call as curl would make it."""
    words = iter(shlex.split(line)[1:])
    method, path, headers, data = "GET", "", {}, None
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(words)
        else:
            path = re.sub(r"^http://[^/]+", "", word)
    return method, path, headers, data


def shell_lines() -> list[str]:
    """Every command of the bash blocks, continued lines joined, comments left out."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    commands: list[str] = []
    for line in text.splitlines():
        open_quote = bool(commands) and commands[-1].count("'") % 2 == 1
        if open_quote:
            commands[-1] += f"\n{line}"
        elif line.strip() and not line.startswith("#"):
            commands.append(line)
    return commands


def test_every_call_of_the_agent_uses_words_and_options_that_exist() -> None:
    modules: dict[str, click.Command] = {"agent": cli, "agent.dev.backend": backend.main}
    inline = re.findall(r"`(python -m agent[^`]*)`", PROSE)
    calls = [line for line in [*shell_lines(), *inline] if line.startswith("python -m agent")]
    assert len(calls) >= 6
    for call in calls:
        _, _, module, *arguments = shlex.split(re.split(r" 2>&1| \|", call)[0])
        result = CliRunner().invoke(modules[module], [*arguments, "--help"])
        assert (call, result.exit_code) == (call, 0)


def test_every_file_that_a_command_names_exists() -> None:
    tops = {path.name for path in ROOT.iterdir()}
    looks_like_ours = re.compile(r"^[\w.-]+(/[\w.-]+)*$")
    named = {
        word
        for line in shell_lines()
        for word in shlex.split(re.split(r" #", line)[0])
        if looks_like_ours.match(word) and (word.split("/")[0] in tops or re.search(r"\.(json|txt|yml|service)$", word))
    }
    assert {"scripts/demo", "scripts/test", "requirements.txt", "scripts/dbpower-collector.service"} <= named
    missing = [name for name in named if not (ROOT / name).exists() and name.split("/")[0] not in MADE_BY_READER]
    assert missing == []


def test_every_link_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", PROSE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(([^)]+)\)", PROSE)
    broken = [
        target
        for target in targets
        if not (target[1:] in anchors if target.startswith("#") else (ROOT / target).exists())
    ]
    assert (len(targets) > 5, broken) == (True, [])


# -- the SQL, on real servers ------------------------------------------------------------------------------------


def run_once(directory: Path, db_type: str, db_config: dict[str, Any]) -> tuple[str, list[str]]:
    """What `python -m agent once` says of that database, and the statements that arrived."""
    with StubBackend() as stub:
        path = write(directory, settings(stub, db_type, {**db_config, "connect_timeout": 10, "read_timeout": 30}))
        ran = run_agent("once", "--config", path, "--log-level", "ERROR")
        return f"{ran.stdout}{ran.stderr}exit {ran.returncode}", [record["sql_text"] for record in stub.records]


def all_is_delivered(said: str) -> bool:
    """Whatever a busy machine has made slow besides may be among it."""
    return re.fullmatch(r"collected (\d+), delivered \1, waiting 0, parked 0\nexit 0", said) is not None


@pytest.fixture
def own_mariadb(mariadb: MariaDBServer) -> Iterator[MariaDBServer]:
    """The shared one with an empty log and without the user; afterwards its settings are what they were."""
    names = ("slow_query_log", "long_query_time", "log_output")
    before = {name: mariadb.execute(f"SELECT @@GLOBAL.{name}")[0][0] for name in names}
    mariadb.execute("DROP USER IF EXISTS 'monitoring'@'%'")
    mariadb.truncate()
    yield mariadb
    mariadb.execute(*(f"SET GLOBAL {name} = {value!r}" for name, value in before.items()))
    mariadb.execute("DROP USER IF EXISTS 'monitoring'@'%'")
    mariadb.truncate()


def administrate(server: MariaDBServer, sql: str) -> None:
    """Runs a block of SQL as an administrator would, by pasting it."""
    connection = server.root()
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            while cursor.nextset():
                pass
    finally:
        connection.close()


def test_the_sql_for_mysql_makes_a_user_that_is_enough(own_mariadb: MariaDBServer, tmp_path: Path) -> None:
    db_config = {"host": own_mariadb.host, "port": own_mariadb.port, "user": "monitoring", "password": "password"}
    own_mariadb.execute("CREATE USER 'monitoring'@'%' IDENTIFIED BY 'password'")
    assert "[MY-01]" in run_once(tmp_path / "before", "mysql", db_config)[0]
    own_mariadb.execute("DROP USER 'monitoring'@'%'")
    logging, grants = blocks("sql", chapter("### MySQL"))
    administrate(own_mariadb, logging)
    administrate(own_mariadb, grants)
    assert own_mariadb.execute("SELECT @@GLOBAL.log_output, @@GLOBAL.long_query_time") == [("TABLE", 0.5)]
    slow = own_mariadb.slow(3)
    said, arrived = run_once(tmp_path, "mysql", db_config)
    assert ([text for text in arrived if text in slow], all_is_delivered(said)) == (slow, True), said


def test_the_sql_for_rotation_is_accepted_and_moves_the_rows_to_the_backup(own_mariadb: MariaDBServer) -> None:
    own_mariadb.slow(3)
    assert own_mariadb.count() == 3
    rotation, grant, _ = blocks("sql", chapter("### The slow log table: engine and rotation"))
    administrate(own_mariadb, rotation)
    assert own_mariadb.count() == 0
    assert own_mariadb.slow(2) == own_mariadb.texts()
    assert own_mariadb.execute("SELECT COUNT(*) FROM mysql.slow_log_backup") == [(3,)]
    own_mariadb.monitor()
    administrate(own_mariadb, grant)
    own_mariadb.execute("DROP TABLE mysql.slow_log_backup")


def test_the_grants_for_the_agents_own_rotation_are_those_that_are_tried() -> None:
    part = chapter("### The slow log table: engine and rotation")
    *_, grants = blocks("sql", part)
    tried = {f"GRANT {', '.join(each)} ON mysql.{table} TO 'monitoring'@'%';" for table, each in TABLE_GRANTS.items()}
    server_wide = {name: f"GRANT {grant} ON *.* TO 'monitoring'@'%';" for name, grant in NOT_REPLICATED.items()}
    assert set(grants.splitlines()) == tried | {server_wide["mysql"]}
    assert f"`{server_wide['mariadb']}`" in part


def test_the_sql_for_postgres_makes_a_user_that_is_enough(postgres18: WatchedPostgres, tmp_path: Path) -> None:
    own = {"host": postgres18.host, "port": postgres18.port, "user": "monitoring", "password": "password"}
    (conf,) = blocks("ini", chapter("### PostgreSQL"))
    for line in conf.splitlines():
        name, value = (part.strip(" '") for part in line.split("="))
        assert postgres18.execute(f"SHOW {name}") == [(value,)]
    extension, grants = blocks("sql", chapter("### PostgreSQL"))
    create_user, grant = grants.strip().splitlines()
    postgres18.execute("DROP ROLE IF EXISTS monitoring")
    postgres18.execute(extension)
    postgres18.reset()
    postgres18.execute(create_user)
    assert "[PG-03]" in run_once(tmp_path / "before", "postgres", own)[0]
    postgres18.execute(grant)
    slow = postgres18.slow_workload("readme", sleep_s=0.6)
    said, arrived = run_once(tmp_path, "postgres", own)
    assert (arrived.count(slow), all_is_delivered(said)) == (1, True), said


def test_the_slow_log_servers_of_the_tests_are_those_of_the_table(clean_slow_log: SlowLogServer) -> None:
    ((version,),) = clean_slow_log.execute("SELECT VERSION()")
    name = {"mariadb": "MariaDB", "mysql": "MySQL"}[clean_slow_log.flavour]
    (tested,) = [row[1] for row in table("server", chapter("### Servers and versions")) if row[0] == name]
    assert re.match(r"\d+\.\d+", version)[0] == tested  # type: ignore[index]


def test_the_postgres_servers_of_the_tests_are_those_of_the_table(postgres: WatchedPostgres) -> None:
    ((version,),) = postgres.execute("SHOW server_version")
    versions = "SELECT version FROM pg_available_extension_versions WHERE name = 'pg_stat_statements'"
    newest = max(int(row[0].removeprefix("1.")) for row in postgres.execute(versions))
    rows = [row[1] for row in table("server", chapter("### Servers and versions")) if row[0] == "PostgreSQL"]
    assert f"{version.split('.')[0]}, extension 1.4 to 1.{newest}" in rows
