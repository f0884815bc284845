"""What could go wrong: a package is left out of the wheel, or the tests get into it; the console script leads nowhere;
requirements.txt and pyproject.toml drift apart; Dockerfile, compose file or unit call a file, module, option, variable
or directory that does not exist; a secret is baked in; the container runs as root; systemd does not know a key.

No container engine is asked: what can be known without one is read from the files.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from agent import __version__
from agent.cli import RUNNING, UNUSABLE, cli
from agent.config.complaints import section
from agent.config.environment import PREFIX
from agent.config.layers import load
from agent.config.schema import Config
from agent.dev import backend
from agent.dev.postgres import wheel_bin_dir
from agent.dev.serve import RunningBackend
from agent.pulse import PACE_S, SLACK_S
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres

ROOT = Path(__file__).parents[2]
SHIPPED = ("agent", "storage")
UNIT = ROOT / "scripts" / "dbpower-collector.service"
HOME = "/opt/dbpower-collector"
SECRET_WORDS = re.compile(r"password|api_?key|token|secret", re.IGNORECASE)
MODULES: dict[str, click.Command] = {"agent": cli, "agent.dev.backend": backend.main}

Json = dict[str, Any]


def project() -> Json:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def understood(argv: list[str]) -> bool:
    """Whether `python -m <module> <arguments>` names a module of ours, with words and options that it has."""
    if argv[1:2] != ["-m"] or not re.fullmatch(r"(.*/)?python3?", argv[0]) or argv[2] not in MODULES:
        return False
    return CliRunner().invoke(MODULES[argv[2]], [*argv[3:], "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "line",
    [
        "python -m agent dance",
        "python -m agent --confg config.json",
        "python -m agent once --keep",
        "python -m agent.dev.backend --hosts 0.0.0.0",
        "python -m agent.dev.backends",
        "python collector_agent.py --config config.json",
    ],
)
def test_a_command_line_that_does_not_exist_is_found(line: str) -> None:
    assert not understood(shlex.split(line))


# -- the wheel ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Built from a copy, with the setuptools of the extra `test`: nothing is fetched, the checkout stays clean."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("agent", "storage", "tests", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    built = subprocess.run([*argv, "-w", target, source], capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(target.glob("*.whl"))) as opened:
        yield opened


def test_the_wheel_holds_every_module_of_the_program_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {str(path.relative_to(ROOT)) for name in SHIPPED for path in (ROOT / name).rglob("*.py")}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected
    assert {"agent/config/schema.py", "agent/dev/backend.py", "agent/sinks/http.py", "storage/outbox.py"} <= expected


def test_every_folder_of_the_program_is_a_package() -> None:
    # A folder without __init__.py is importable from the checkout and missing in the wheel.
    folders = {path.parent for name in SHIPPED for path in (ROOT / name).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_the_program_consists_of_python_files_only() -> None:
    # The wheel takes modules; a data file would need package-data.
    files = {path for name in SHIPPED for path in (ROOT / name).rglob("*") if path.is_file()}
    assert {path.suffix for path in files if "__pycache__" not in path.parts} == {".py"}


def test_the_console_script_of_the_wheel_exists(wheel: zipfile.ZipFile) -> None:
    entries = configparser.ConfigParser()
    entries.read_string(wheel.read(f"dbpower_agent-{__version__}.dist-info/entry_points.txt").decode())
    module, name = entries["console_scripts"]["dbpower-agent"].split(":")
    assert getattr(import_module(module), name) is import_module("agent.cli").main


def test_the_wheel_says_its_version_its_python_and_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    info = f"dbpower_agent-{__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert f"Version: {__version__}\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata
    assert "Part of DBPower AI Cloud project." in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_requirements_txt_installs_what_pyproject_asks_for() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == project()["project"]["dependencies"]


# -- the image ---------------------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """Instruction and arguments of each line, comments left out, continued lines joined."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, rest in pairs]


def of(instruction: str) -> list[str]:
    return [rest for word, rest in dockerfile() if word == instruction]


def baked_variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in of("ENV") for pair in shlex.split(line))


def test_the_image_is_built_with_instructions_that_exist() -> None:
    known = {"FROM", "ENV", "WORKDIR", "RUN", "COPY", "USER", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in dockerfile()} <= known
    assert dockerfile()[0][0] == "FROM"


def test_the_image_has_the_python_that_the_program_needs() -> None:
    minor = int(project()["project"]["requires-python"].removeprefix(">=3."))
    versions = [re.match(r"python:3\.(\d+)-slim( AS build)?$", line) for line in of("FROM")]
    assert [int(found[1]) >= minor for found in versions if found] == [True, True]


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    copied = [line.split()[:-1] for line in of("COPY") if not line.startswith("--from=build ")]
    names = {name for group in copied for name in group}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"  # everything is outside unless it is named
    assert {rule[1:] for rule in rules if rule.startswith("!")} == names
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert set(SHIPPED) <= names


def test_the_image_runs_as_dbpower_with_a_fixed_number() -> None:
    created = " ".join(of("RUN"))
    assert re.search(r"useradd --system --uid 10001 --gid dbpower .* dbpower ", created)
    words = [word for word, _ in dockerfile()]
    assert of("USER") == ["10001:10001"]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "RUN" not in words[words.index("USER") :]


def test_no_secret_is_baked_into_the_image() -> None:
    assert [name for name in baked_variables() if SECRET_WORDS.search(name)] == []
    assert of("ARG") == []


def test_the_state_of_the_image_is_a_volume_that_dbpower_owns() -> None:
    state = baked_variables()["DBPOWER_DATA_DIR"]
    assert of("VOLUME") == [state]
    assert f"install --directory --owner=dbpower --group=dbpower --mode=0700 {state} " in " ".join(of("RUN"))


def test_the_image_starts_the_agent_with_a_configuration_that_is_there() -> None:
    (entry,), (arguments,) = (json.loads(line) for line in of("ENTRYPOINT")), (json.loads(line) for line in of("CMD"))
    assert understood([*entry, *arguments])
    path = arguments[arguments.index("--config") + 1]
    assert f"echo '{{}}' > {path}" in " ".join(of("RUN"))


def test_the_image_knows_whether_its_agent_lives() -> None:
    options, _, command = of("HEALTHCHECK")[0].partition(" CMD ")
    shell, option, script = json.loads(command)
    assert (shell, option) == ("sh", "-c")
    word, *argv = shlex.split(script)
    assert (word, argv[-2:], understood(argv)) == ("exec", ["--alive", "$DBPOWER_DATA_DIR"], True)
    assert "DBPOWER_DATA_DIR" in baked_variables()
    # A start may wait for a salvage, and a reload for nobody: one look that fails is not the end.
    assert dict(word.removeprefix("--").split("=") for word in options.split()) == {
        "interval": "60s",
        "timeout": "15s",
        "start-period": "60s",
        "retries": "3",
    }


# -- compose -----------------------------------------------------------------------------------------------------


def compose() -> Json:
    loaded: Json = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def collectors() -> dict[str, Json]:
    return {name: found for name, found in compose()["services"].items() if name.startswith("collector")}


def variables(schema: type[BaseModel] = Config, prefix: str = PREFIX) -> set[str]:
    """Every environment variable that the agent reads, without those that name files."""
    names: set[str] = set()
    for name in schema.model_fields:
        inner = section(schema, (name,))
        names |= variables(inner, f"{prefix}{name.upper()}_") if inner else {f"{prefix}{name.upper()}"}
    return names


def test_compose_has_the_services_that_are_known_by_name() -> None:
    assert set(compose()["services"]) == {"backend", "collector", "collector-postgres", "mariadb", "postgres"}
    # `docker compose up` without a profile gives the first three words of the README's story.
    started = {name for name, found in compose()["services"].items() if "profiles" not in found}
    assert started == {"backend", "collector", "mariadb"}


def test_compose_names_only_what_it_defines() -> None:
    whole = compose()
    for service in whole["services"].values():
        assert set(service.get("secrets", [])) <= set(whole["secrets"])
        assert {entry["source"] for entry in service.get("configs", [])} <= set(whole["configs"])
        assert {entry.split(":")[0] for entry in service.get("volumes", [])} <= set(whole["volumes"])
        mounted = {f"/run/secrets/{name}" for name in service.get("secrets", [])}
        named = {value for name, value in service.get("environment", {}).items() if name.endswith("_FILE")}
        assert named == mounted


def test_every_collector_of_compose_gets_a_volume_for_its_outbox() -> None:
    state = baked_variables()["DBPOWER_DATA_DIR"]
    volumes = [found["volumes"] for found in collectors().values()]
    assert [[entry.split(":")[1] for entry in group] for group in volumes] == [[state], [state]]
    assert len({group[0] for group in volumes}) == 2  # two agents on one outbox would refuse each other


def test_compose_gives_the_agent_more_time_to_stop_than_it_needs() -> None:
    assert {found["stop_grace_period"] for found in collectors().values()} == {"15s"}


def test_the_backend_of_compose_is_the_development_backend_with_options_that_it_has() -> None:
    service = compose()["services"]["backend"]
    assert understood([*service["entrypoint"], *service["command"]])
    port = service["command"][service["command"].index("--port") + 1]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    address = collectors()["collector"]["environment"]["DBPOWER_BACKEND_URL"]
    assert address == f"${{BACKEND_URL:-http://backend:{port}}}"
    store = service["command"][service["command"].index("--store") + 1]
    assert Path(store).parent == Path(service["volumes"][0].split(":")[1])


@pytest.mark.parametrize("name", ["collector", "collector-postgres"])
def test_a_collector_of_compose_is_configured_by_its_environment_alone(name: str, tmp_path: Path) -> None:
    environment = collectors()[name]["environment"]
    assert {variable.removesuffix("_FILE") for variable in environment} <= variables()
    secret = tmp_path / "secret"
    secret.write_text("collector_1_secret\n")
    given = {
        variable: str(secret) if variable.endswith("_FILE") else re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
        for variable, value in environment.items()
    }
    empty = tmp_path / "config.json"
    empty.write_text("{}")
    config, _ = load(empty, {**baked_variables(), **given}, {})
    assert config.watches[0].db_config.host in compose()["services"]
    assert config.api_key.get_secret_value() == "collector_1_secret"
    assert config.data_dir == Path("/var/lib/dbpower-collector")


def test_a_collector_of_compose_starts_when_its_backend_and_its_database_answer() -> None:
    services = compose()["services"]
    for name, found in collectors().items():
        database = found["environment"]["DBPOWER_DB_CONFIG_HOST"]
        assert (name, found["depends_on"]) == (
            name,
            {each: {"condition": "service_healthy"} for each in ("backend", database)},
        )
        assert "healthcheck" not in found  # that of the image is meant
        assert services[database].get("profiles") == found.get("profiles")
    for name in ("backend", "mariadb", "postgres"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"


def test_the_backend_of_compose_answers_the_question_whether_it_lives() -> None:
    (_, python, option, program) = compose()["services"]["backend"]["healthcheck"]["test"]
    assert (python, option) == ("python", "-c")
    with RunningBackend() as running:
        here = program.replace("http://127.0.0.1:8000", running.url)
        assert here != program
        assert subprocess.run([sys.executable, "-c", here], timeout=60, check=False).returncode == 0
    gone = subprocess.run([sys.executable, "-c", here], capture_output=True, timeout=60, check=False)
    assert gone.returncode != 0


def test_no_secret_stands_in_compose() -> None:
    environments = [found.get("environment", {}) for found in compose()["services"].values()]
    baked = {name for given in environments for name in given if SECRET_WORDS.search(name)}
    assert {name for name in baked if not name.endswith("_FILE")} == {"MARIADB_RANDOM_ROOT_PASSWORD"}


def test_the_mariadb_of_compose_logs_to_the_table_and_grants_the_collector_its_right(mariadb: MariaDBServer) -> None:
    service = compose()["services"]["mariadb"]
    for option in service["command"]:
        name, value = option.removeprefix("--").replace("-", "_").split("=")
        (found,) = mariadb.execute(f"SHOW GLOBAL VARIABLES LIKE '{name}'")
        assert (found[0], found[1] != "") == (name, True), f"{name}={value} is no variable of the server"
    mariadb.create_user("monitoring", "password", [])
    mariadb.execute(*statements(compose()["configs"]["mariadb_monitoring"]["content"]))
    granted = [row[0] for row in mariadb.execute("SHOW GRANTS FOR 'monitoring'@'%'")]
    assert "GRANT SELECT ON `mysql`.`slow_log` TO `monitoring`@`%`" in granted


def test_the_postgres_of_compose_makes_the_collectors_role(postgres18: WatchedPostgres, tmp_path: Path) -> None:
    secret, script = tmp_path / "postgres_password", tmp_path / "monitoring.sql"
    secret.write_text("it's secret\n")
    content = compose()["configs"]["postgres_monitoring"]["content"]
    script.write_text(content.replace("/run/secrets/postgres_password", shlex.quote(str(secret))))
    postgres18.execute("DROP ROLE IF EXISTS monitoring")
    assert psql(postgres18, postgres18.superuser, postgres18.password, "-q", "-f", str(script)) == ("", "")
    count = "SELECT count(*) >= 0 FROM pg_stat_statements(false) WHERE pg_has_role('pg_read_all_stats', 'USAGE')"
    assert psql(postgres18, "monitoring", "it's secret", "-Atc", count) == ("t\n", "")


def psql(server: WatchedPostgres, user: str, password: str, *arguments: str) -> tuple[str, str]:
    """What it prints and what it complains of."""
    argv = [str(wheel_bin_dir() / "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-h", server.host, "-p", str(server.port)]
    ran = subprocess.run(
        [*argv, "-U", user, "-d", "postgres", *arguments],
        env={**os.environ, "PGPASSWORD": password, "PGOPTIONS": "-c client_min_messages=warning"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ran.stdout, ran.stderr


def statements(sql: str) -> list[str]:
    return [statement.strip() for statement in sql.split(";") if statement.strip()]


# -- the unit ----------------------------------------------------------------------------------------------------


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(UNIT)
    return parsed


def test_the_unit_starts_the_agent_with_options_that_it_has() -> None:
    argv = shlex.split(unit()["Service"]["ExecStart"])
    assert argv[0] == f"{HOME}/.venv/bin/python"
    assert understood(argv)
    assert argv[argv.index("--config") + 1] == f"{HOME}/config.json"


def test_the_unit_runs_as_dbpower_and_comes_back_by_itself() -> None:
    service = unit()["Service"]
    expected = {"User": "dbpower", "WorkingDirectory": HOME, "Restart": "always", "RestartSec": "10"}
    expected |= {"RestartPreventExitStatus": f"{UNUSABLE} {RUNNING}", "EnvironmentFile": f"-{HOME}/environment"}
    assert {name: service[name] for name in expected} == expected
    assert unit()["Install"]["WantedBy"] == "multi-user.target"


def test_the_unit_waits_for_the_words_that_the_agent_says_to_systemd() -> None:
    service = unit()["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    # A tick may be late by a look of the conductor, and what is slow but gets on must not be ended.
    assert int(service["WatchdogSec"]) >= max(10 * PACE_S, SLACK_S)
    assert "AF_UNIX" in service["RestrictAddressFamilies"].split()


def test_a_reload_of_the_unit_is_a_hangup_and_no_new_process() -> None:
    assert shlex.split(unit()["Service"]["ExecReload"]) == ["/bin/kill", "-HUP", "$MAINPID"]
    assert os.access("/bin/kill", os.X_OK)


def test_no_core_of_the_unit_holds_secrets() -> None:
    assert unit()["Service"]["LimitCORE"] == "0"


def test_the_unit_gives_the_agent_its_state_directory_and_time_to_stop(tmp_path: Path) -> None:
    service = unit()["Service"]
    assert (service["ProtectSystem"], service["StateDirectory"]) == ("strict", "dbpower-collector")
    assert int(service["TimeoutStopSec"]) > 10
    # What systemd makes of StateDirectory= is where the agent puts its outbox.
    example = {"collector_id": 1, "api_key": "k", "backend_url": "http://b", "db_type": "mysql"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**example, "db_config": {"host": "h", "user": "u"}}))
    config, _ = load(path, {"STATE_DIRECTORY": f"/var/lib/{service['StateDirectory']}"}, {})
    assert config.data_dir == Path("/var/lib/dbpower-collector")


def verified(text: str, place: Path) -> str:
    """What systemd says of the unit, installed below `place` instead of /opt."""
    python = place / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.unlink(missing_ok=True)
    python.symlink_to(sys.executable)
    copy = place / UNIT.name
    copy.write_text(text.replace(HOME, str(place)))
    argv = ["systemd-analyze", "verify", "--man=no", str(copy)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    # What it says of the units of this machine is not asked for.
    return "\n".join(line for line in (ran.stdout + ran.stderr).splitlines() if UNIT.name in line)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert "ProtectSystm" in verified(text.replace("ProtectSystem", "ProtectSystm"), tmp_path)  # it would notice
    assert "no-such" in verified(text.replace("/bin/python", "/bin/no-such"), tmp_path)
    assert verified(text, tmp_path) == ""


def exposure(text: str, place: Path) -> int:
    """The exit code of systemd's own judgement: 1 above 2.0."""
    copy = place / UNIT.name
    copy.write_text(text)
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(copy)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).returncode


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_finds_the_unit_well_shut_in(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert exposure(text, tmp_path) == 0
    assert exposure(re.sub(r"^(Private|Protect|Capability).*\n", "", text, flags=re.MULTILINE), tmp_path) == 1


def test_the_sandbox_of_the_unit_keeps_the_ways_that_the_agent_needs() -> None:
    service = unit()["Service"]
    assert set(service["RestrictAddressFamilies"].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert "IPAddressDeny" not in service  # databases and backend are anywhere
    assert "PrivateNetwork" not in service
    assert "~@privileged @resources" in UNIT.read_text()
