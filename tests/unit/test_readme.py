"""What could go wrong: the README is silent on a key, option, word, exit code, error code, field, state or reason of a
loss that the code has, or speaks of one it does not have; a default is another one; an example does not parse, does not
validate, names a file that does not exist or a link that leads nowhere; a name of the first description cannot be
found; the SQL is refused by a server, or grants less than the agent needs; it grows into a book that nobody reads.
"""

from __future__ import annotations

import inspect
import itertools
import json
import logging
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
import agent.source_errors
import storage.errors
from agent import journal, machine, preparation
from agent.cli import FOUND, INTERRUPTED, RUNNING, UNUSABLE, cli
from agent.cli.outbox import outbox
from agent.cli.register import JWT
from agent.config.complaints import section
from agent.config.environment import variables
from agent.config.layers import load
from agent.config.places import DATABASES
from agent.config.schema import Config, Database
from agent.dev import backend
from agent.record import Record, Window, to_wire
from agent.redact import Level, Redactor
from agent.sources import BOOKMARK_LOST, mysql_slow_log
from agent.sources._slow_log_times import BOUNDED, EXACT, INFERRED
from agent.sources._statement_gaps import EVICTED
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
from scripts import install_service, replay
from scripts.installing.places import HOST, Places
from storage.connection import connect_readonly
from storage.errors import CodedError
from storage.outbox import FILE_NAME, Outbox
from storage.salvage import DAMAGED, MISSING, ROLLED_BACK
from tests.fakes.stub_backend import StubBackend
from tests.integration.test_own_rotation import NOT_REPLICATED, TABLE_GRANTS
from tests.page import MADE_BY_READER, ROOT, Page, blocks, options_in, table, ticked
from tests.servers.agent_process import run_agent, settings, write
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres
from tests.servers.slow_log_server import SlowLogServer

README = Page("README.md")
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
MOST_LINES, LONGEST = 600, 160  # a manual that is read to its end; tables may be wider
CONTEXT = click.Context(cli, **cli.context_settings)
JOURNAL_FIELDS = {"DBPOWER_EVENT"}
CODE = re.compile(r"\b[A-Z]{2}-\d\d\b")


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
    shown = {ticked(row[0]): row[2] for row in table("key", README.text)}
    assert shown == {key: as_readme_shows(key, default) for key, default in keys()}


def test_the_variables_it_names_are_read_by_the_agent() -> None:
    example = json.loads(blocks("json", README.chapter("### Several databases"))[0])
    known = set(variables(example))
    named = {name.removesuffix("_FILE") for name in re.findall(r"DBPOWER_[A-Z_]+[A-Z]", README.text)}
    assert named - known == {
        JWT,
        *JOURNAL_FIELDS,
    }  # one of them is `register`'s alone, others are fields of the journal
    assert {"DBPOWER_API_KEY", "DBPOWER_DB_CONFIG_PASSWORD", "DBPOWER_DATABASES_ORDERS_DB_CONFIG_PASSWORD"} <= named


def errors() -> dict[str, type[CodedError]]:
    """Every error by its code; those with 00 are names for several, which nobody is told."""
    found = [
        kind
        for module in (agent.errors, agent.source_errors, storage.errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, CodedError) and kind is not CodedError and not kind.code.endswith("-00")
    ]
    by_code = {kind.code: kind for kind in found}
    assert len(by_code) == len(found)  # no code twice
    return by_code


def test_every_error_code_stands_in_the_table_with_sentence_and_remedy() -> None:
    shown = {ticked(row[0]): row[1:] for row in table("code", README.text)}
    assert shown == {code: [kind().sentence, kind.remedy] for code, kind in errors().items()}
    assert len(table("code", README.text)) == len(shown)  # no row twice


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_no_page_speaks_of_a_code_that_there_is_not(name: str) -> None:
    assert set(CODE.findall(Page(name).text)) - set(errors()) == set()


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    shown = [int(ticked(row[0])) for row in table("exit code", README.text)]
    assert shown == [0, FOUND, UNUSABLE, RUNNING, INTERRUPTED]


def words() -> dict[str, click.Command]:
    """Every word of the command line, those that are loaded when they are said too."""
    found = {name: cli.get_command(CONTEXT, name) for name in cli.list_commands(CONTEXT)}
    return {name: command for name, command in found.items() if command is not None}


def options_of(command: click.Command) -> set[str]:
    """What it takes."""
    return {
        name
        for parameter in command.get_params(CONTEXT)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }


def shared_options() -> set[str]:
    """Those that mean the same behind every word that needs the configuration, and those of click."""
    each = [options for options in map(options_of, words().values()) if "--config" in options]
    return set.intersection(*each) | set(cli.context_settings["help_option_names"])


def test_every_word_stands_in_the_table_and_no_other() -> None:
    rows = table("word", README.text)
    assert sorted(ticked(row[0]) for row in rows) == sorted(words())


def test_the_row_of_each_word_names_its_own_options_and_no_other() -> None:
    shown = {ticked(row[0]): options_in(row[1]) for row in table("word", README.text)}
    expected = {name: options_of(command) - shared_options() for name, command in words().items()}
    assert shown == {**expected, "outbox": set()}  # which has a chapter of its own
    assert {"--canary", "--non-interactive", "--jwt-file"} <= set().union(*expected.values())


def test_the_options_of_all_words_stand_in_a_table_and_no_other() -> None:
    rows = table("option", README.text)
    assert set().union(*(options_in(row[0]) for row in rows)) == options_of(cli) | shared_options()


def test_each_word_of_the_outbox_stands_with_its_own_options_and_no_other() -> None:
    part = README.chapter("## The outbox by hand")
    rows = table("word behind `outbox`", part)
    shown = {name: options_in(row[1]) for row in rows for name in re.findall(r"`([a-z]+)", row[0])}
    own = {name: options_of(command) - shared_options() for name, command in outbox.commands.items()}
    assert shown == {name: options - {"--directory"} for name, options in own.items()}
    assert "`--directory`" in part


def test_every_option_of_a_replay_stands_in_the_table_and_no_other() -> None:
    rows = table("option of `replay.py`", README.text)
    named = [name for row in rows for name in re.findall(r"`(--[a-z-]+)", row[0])]
    known = {name for action in replay.parser()._actions for name in action.option_strings}
    assert sorted(named) == sorted(known - {"-h", "--help"})


def test_every_option_of_the_installation_is_named() -> None:
    known = {name for action in install_service.parser()._actions for name in action.option_strings}
    part = README.chapter("### Run as a service (systemd):")
    assert [name for name in known - {"-h"} if name not in part] == []


def test_an_installed_service_is_examined_by_the_command_that_the_installation_puts_there() -> None:
    # Said by hand, a word would see neither the variables nor the credentials of the service, and look at ./data.
    assert f"sudo {Places(HOST).command} doctor" in README.chapter("### Run as a service (systemd):")
    assert "sudo -u dbpower" not in README.text


def test_the_field_of_the_journal_is_one_that_the_agent_writes() -> None:
    told = journal.entry(logging.INFO, "x", "event", {})
    assert set(re.findall(r"DBPOWER_[A-Z]+", told.decode())) >= JOURNAL_FIELDS


def test_what_leaves_of_a_text_is_what_it_shows() -> None:
    part = README.chapter("### What leaves of a text")
    [head] = re.findall(r"^\| `redact` \|.*", part, flags=re.MULTILINE)
    first, second = re.findall(r"`([A-Z][^`]*)`", head)
    rows = {ticked(row[0]): [cell.strip("`") for cell in row[1:]] for row in table("`redact`", part)}
    assert set(rows) == set(get_args(Level))
    for level in get_args(Level):
        redacted = [Redactor(level, "mysql")(text, is_whole=True)[0] for text in (first, second)]
        assert rows[level] == ["as it was logged" if redacted[0] == first else redacted[0], redacted[1]]


def test_every_field_of_a_record_is_named() -> None:
    window = Window(NOW, NOW, "new", 1, 1, 1, 1.0, 1.0)
    record = Record("i", "s", "q", 0.0, 0.0, 0, 0, "d", "u", NOW, NOW, "f", "x", window, "exact")
    delivered = README.chapter("## What is delivered")
    names = [*orjson.loads(to_wire(record)), EXACT, INFERRED, BOUNDED]
    assert [name for name in names if f"`{name}`" not in delivered] == []


def test_every_reason_of_a_window_stands_in_the_table_and_no_other() -> None:
    reasons = {FIRST_LOOK, NORMAL, NEW, RESET, PARTIAL_RESET, EVICTED_REENTERED, CRASH_RESET, OTHER_SERVER}
    rows = table("`window_reason`", README.chapter("### Reasons of a window"))
    assert {row[0].strip("`") for row in rows} == reasons
    assert {row[-1].strip("`") for row in rows} - {""} == gap_reasons_of_postgres()


def gap_reasons_of_postgres() -> set[str]:
    return {RESET, PARTIAL_RESET, EVICTED, CRASH_RESET, OTHER_SERVER}


def test_every_reason_of_a_gap_stands_in_the_table_and_no_other() -> None:
    of_the_slow_log = set(re.findall(r'_gap\("(\w+)"', inspect.getsource(mysql_slow_log)))
    assert of_the_slow_log == {"rotated", "rows_removed"}
    reasons = of_the_slow_log | gap_reasons_of_postgres() | {BOOKMARK_LOST, DAMAGED, ROLLED_BACK, MISSING}
    rows = table("reason of a gap", README.chapter("### Known losses (gaps)"))
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(reasons)


def test_the_four_states_are_named() -> None:
    part = README.chapter("## How it works")
    assert [state for state in machine.STATES if f"`{state}`" not in part] == []


@pytest.mark.parametrize(
    ("provider", "name"), [("rds", "Amazon RDS"), ("aurora", "Amazon Aurora"), ("cloudsql", "Google Cloud SQL")]
)
def test_the_parameters_of_a_cloud_are_those_that_the_agent_prints(provider: preparation.Provider, name: str) -> None:
    parts = re.sub(r"\s+", " ", README.chapter("### Cloud providers")).split(" - **")[1:]
    said = dict(part.split("**", 1) for part in parts)
    text = said[name] + (said["Amazon RDS"] if "the same" in said[name] else "")
    servers = [preparation.Server(db_type, "", "monitoring", "postgres", provider) for db_type in ("mysql", "postgres")]
    steps = "\n".join(step.text for server in servers for step in preparation.steps(server, {"DB-03"}))
    printed = re.findall(r"^[a-z_.]+ = .*$", steps, flags=re.MULTILINE)
    assert len(printed) >= 4
    assert [line for line in printed if f"`{line}`" not in text] == []
    (where,) = set(re.findall(r"-- in (the .*) \(", steps))
    assert where in said[name]


def test_every_statistic_of_the_heartbeat_is_named_and_no_other() -> None:
    stats = Scoreboard(0.0).status(now_s=0.0, now_unix=0.0).stats()
    rows = table("field", README.chapter("### Statistics in the heartbeat"))
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == set(stats)


# -- what it says ------------------------------------------------------------------------------------------------


def test_the_first_screen_is_problem_picture_and_two_commands() -> None:
    screen = "\n".join(README.text.splitlines()[:30])
    assert "Slow queries are lost" in screen
    assert "OUTBOX" in screen
    assert re.findall(r"^(scripts/\w+) ", screen, flags=re.MULTILINE) == ["scripts/demo", "scripts/test"]


def test_the_place_of_the_diagram_is_marked_once() -> None:
    assert re.findall(r"<!-- diagram:(\w+) -->", README.text) == ["begin", "end"]
    assert "<!-- diagram:begin -->" in README.chapter("### State machine")


def test_it_is_short_enough_to_be_read() -> None:
    lines = README.text.splitlines()
    assert len(lines) <= MOST_LINES
    is_table = [line.startswith("|") for line in lines]
    assert [line for line, wide in zip(lines, is_table, strict=True) if not wide and len(line) > LONGEST] == []


def test_every_table_is_one_for_every_reader() -> None:
    # Not all of them see a table that begins in the middle of a paragraph, or end it where it ends.
    lines = ["", *README.text.splitlines(), ""]
    edges = [
        (before, line) for before, line in itertools.pairwise(lines) if before.startswith("|") != line.startswith("|")
    ]
    assert [edge for edge in edges if not any(side == "" or side.startswith("#") for side in edge)] == []


@pytest.mark.parametrize(
    "name",
    [
        "## Features", "## Installation", "### Prerequisites", "### Steps", "### Configuration Fields", "## Usage",
        "### Run the agent:", "### Command-line options:", "### Run as a service (systemd):", "## Commands",
        "## Database Configuration", "### MySQL", "### PostgreSQL", "## Troubleshooting",
        "### Agent not connecting to backend", "### No queries being collected",
        "### Agent shows as OFFLINE in backend", "### View agent logs", "## Development", "## Security", "## License",
        "Multi-Database Support", "Heartbeat Mechanism", "Remote Control", "Auto-Collection", "Error Handling",
        "Statistics Tracking", "Python 3.11+", "Install dependencies", "pip install -r requirements.txt",
        "Register collector with backend", "/api/v1/collectors/register", "Save the API key!",
        "Create configuration file", "config.example.json", "collector_agent.py", "--config config.json",
        "Command-line arguments override configuration file values", "dbpower-collector.service",
        "/opt/dbpower-collector", "sudo systemctl daemon-reload", "sudo systemctl enable dbpower-collector",
        "sudo systemctl start dbpower-collector", "sudo systemctl status dbpower-collector",
        "**start**", "**stop**", "**collect**", "**update_config**",
        "SET GLOBAL slow_query_log = 'ON'", "SET GLOBAL long_query_time = 0.5", "SET GLOBAL log_output = 'TABLE'",
        "GRANT SELECT ON mysql.slow_log TO 'monitoring'@'%'", "FLUSH PRIVILEGES",
        "shared_preload_libraries = 'pg_stat_statements'", "pg_stat_statements.track = all",
        "CREATE EXTENSION IF NOT EXISTS pg_stat_statements", "GRANT pg_read_all_stats TO monitoring",
        "sudo journalctl -u dbpower-collector -f", "2>&1 | tee collector.log", "docker compose up backend",
        "`docker-compose.yml`", "**API Keys**", "**Database Credentials**", "**Network**", "**Permissions**",
        "Part of DBPower AI Cloud project.",
    ],
)  # fmt: skip
def test_what_the_first_description_named_is_found_under_its_name(name: str) -> None:
    assert name in README.text


def test_every_json_block_parses() -> None:
    found = blocks("json", README.text)
    assert [type(json.loads(block)) for block in found] == [dict] * len(found)


def test_the_example_configurations_are_valid_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    examples = blocks("json", README.chapter("## Installation"))
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
    several = README.chapter("### Several databases")
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
    (row,) = [row for row in table("field", README.chapter("### Statistics in the heartbeat")) if "`watches`" in row[0]]
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
    (command,) = [line for line in README.commands() if line.startswith("sudo sqlite3 ")]
    Outbox(tmp_path).close()
    connection = connect_readonly(tmp_path / FILE_NAME)
    try:
        answers = [connection.execute(query).fetchall() for query in shlex.split(command)[-1].split(";")]
    finally:
        connection.close()
    assert answers == [[], []]
    assert shlex.split(command)[-2].endswith(f"/{FILE_NAME}")


@pytest.mark.parametrize("page", [README, Page("CONTRIBUTING.md")], ids=lambda page: page.name)
def test_every_call_of_the_agent_uses_words_and_options_that_exist(page: Page) -> None:
    modules: dict[str, click.Command] = {"agent": cli, "agent.dev.backend": backend.main}
    inline = re.findall(r"`(python -m agent[^`]*)`", page.prose)
    calls = [line for line in [*page.commands(), *inline] if line.startswith("python -m agent")]
    assert calls
    for call in calls:
        _, _, module, *arguments = shlex.split(re.split(r" 2>&1| \|", call)[0], comments=True)
        result = CliRunner().invoke(modules[module], [*arguments, "--help"])
        assert (call, result.exit_code) == (call, 0)


def test_every_file_that_a_command_names_exists() -> None:
    named = README.named_files()
    assert {"scripts/demo", "scripts/test", "requirements.txt", "scripts/dbpower-collector.service"} <= named
    missing = [name for name in named if not (ROOT / name).exists() and name.split("/")[0] not in MADE_BY_READER]
    assert missing == []


@pytest.mark.parametrize("page", [README, Page("CONTRIBUTING.md"), Page("SECURITY.md")], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Page) -> None:
    def leads(target: str) -> bool:
        file, _, anchor = target.partition("#")
        if not (ROOT / file).exists():
            return target.startswith("https://")
        return not anchor or anchor in Page(file or page.name).anchors()

    assert [target for target in page.links() if not leads(target)] == []
    assert page is not README or len(page.links()) > 20


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
    logging, grants = blocks("sql", README.chapter("### MySQL"))
    administrate(own_mariadb, logging)
    administrate(own_mariadb, grants)
    assert own_mariadb.execute("SELECT @@GLOBAL.log_output, @@GLOBAL.long_query_time") == [("TABLE", 0.5)]
    slow = own_mariadb.slow(3)
    said, arrived = run_once(tmp_path, "mysql", db_config)
    assert ([text for text in arrived if text in slow], all_is_delivered(said)) == (slow, True), said


def test_the_sql_for_rotation_is_accepted_and_moves_the_rows_to_the_backup(own_mariadb: MariaDBServer) -> None:
    own_mariadb.slow(3)
    assert own_mariadb.count() == 3
    rotation, grant, _ = blocks("sql", README.chapter("### The slow log table: engine and rotation"))
    administrate(own_mariadb, rotation)
    assert own_mariadb.count() == 0
    assert own_mariadb.slow(2) == own_mariadb.texts()
    assert own_mariadb.execute("SELECT COUNT(*) FROM mysql.slow_log_backup") == [(3,)]
    own_mariadb.monitor()
    administrate(own_mariadb, grant)
    own_mariadb.execute("DROP TABLE mysql.slow_log_backup")


def test_the_grants_for_the_agents_own_rotation_are_those_that_are_tried() -> None:
    part = README.chapter("### The slow log table: engine and rotation")
    *_, grants = blocks("sql", part)
    tried = {f"GRANT {', '.join(each)} ON mysql.{table} TO 'monitoring'@'%';" for table, each in TABLE_GRANTS.items()}
    server_wide = {name: f"GRANT {grant} ON *.* TO 'monitoring'@'%';" for name, grant in NOT_REPLICATED.items()}
    assert set(grants.splitlines()) == tried | {server_wide["mysql"]}
    assert f"`{server_wide['mariadb']}`" in part


def test_the_sql_for_postgres_makes_a_user_that_is_enough(postgres18: WatchedPostgres, tmp_path: Path) -> None:
    own = {"host": postgres18.host, "port": postgres18.port, "user": "monitoring", "password": "password"}
    (conf,) = blocks("ini", README.chapter("### PostgreSQL"))
    for line in conf.splitlines():
        name, value = (part.strip(" '") for part in line.split("="))
        assert postgres18.execute(f"SHOW {name}") == [(value,)]
    (sql,) = blocks("sql", README.chapter("### PostgreSQL"))
    extension, create_user, grant = sql.strip().splitlines()
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
    (tested,) = [row[1] for row in table("server", README.chapter("### Servers and versions")) if row[0] == name]
    assert re.match(r"\d+\.\d+", version)[0] == tested  # type: ignore[index]


def test_the_postgres_servers_of_the_tests_are_those_of_the_table(postgres: WatchedPostgres) -> None:
    ((version,),) = postgres.execute("SHOW server_version")
    versions = "SELECT version FROM pg_available_extension_versions WHERE name = 'pg_stat_statements'"
    newest = max(int(row[0].removeprefix("1.")) for row in postgres.execute(versions))
    rows = [row[1] for row in table("server", README.chapter("### Servers and versions")) if row[0] == "PostgreSQL"]
    tested = [each for row in rows for each in row.split("; ")]
    assert f"{version.split('.')[0]}, extension 1.4 to 1.{newest}" in tested
