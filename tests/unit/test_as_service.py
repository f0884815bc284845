"""What `/opt/dbpower-collector/dbpower-agent` asks systemd for, with stand-ins for `systemctl` and `systemd-run`.

What could go wrong: the word runs as root, in another directory, without the variables or the credentials of the
service, or makes its state readable for everybody; what a person added to the unit is not seen; a secret stands on a
command line; a `$` or `%` in a word is read by systemd; an answer or an exit code is lost on the way.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.installing import as_service, credentials
from scripts.installing.places import SERVICE, Places
from tests.servers.agent_process import environment

UNIT = (Path(__file__).parents[2] / "scripts" / f"{SERVICE}.service").read_text()
PROGRAM = Path("/opt/dbpower-collector/dbpower-agent")
GIVEN = {"api_key": "/etc/my%key", "db_config.password": "/etc/pw"}
# It shows the unit; or, for want of one, says so.
SYSTEMCTL = """#!/bin/sh
[ "$*" = "cat dbpower-collector" ] && [ -e "$UNIT" ] && exec cat "$UNIT"
echo "No files found for $*." >&2
exit 1
"""
# It notes what it was asked for, and does what a stand-in can: the variables, `$$` as `$`, the command.
SYSTEMD_RUN = """#!{python} -I
import json, os, sys
end = sys.argv.index("--")
environ = dict(os.environ)
with open(environ["NOTED"], "w") as noted:
    json.dump([sys.argv, {{name: environ[name] for name in environ if name.startswith("DBPOWER_")}}], noted)
command = [word.replace("$$", "$") for word in sys.argv[end + 1 :]]
os.execve(command[0], command, {{**environ, "CREDENTIALS_DIRECTORY": "/run/credentials/run-u1.service"}})
"""
# In the place of the installed Python: the command runs by it, and its agent prints what it was given.
PYTHON = """#!/bin/sh
if [ "$1" = -I ]; then exec {python} "$@"; fi
echo "$*"
echo "api_key: $DBPOWER_API_KEY_FILE"
cat
exit 3
"""


@dataclass
class Machine:
    place: Path

    @property
    def command(self) -> Path:
        return Places(self.place).command

    def say(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.place / 'bin'}:/usr/bin:/bin"
        given = environment(PATH=path, UNIT=str(self.place / "unit"), NOTED=str(self.place / "noted"), **variables)
        argv = [sys.executable, "-I", str(self.command), *words]
        return subprocess.run(
            argv, env=given, input="an answer", capture_output=True, text=True, timeout=60, check=False
        )

    def asked(self) -> tuple[list[str], dict[str, str]]:
        argv, variables = json.loads((self.place / "noted").read_text())
        return argv, variables


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    python = Places(tmp_path).venv / "bin" / "python"
    stand_ins = {
        tmp_path / "bin" / "systemctl": SYSTEMCTL,
        tmp_path / "bin" / "systemd-run": SYSTEMD_RUN.format(python=sys.executable),
        python: PYTHON.format(python=sys.executable),
        made.command: Path(as_service.__file__).read_text(),
    }
    for path, text in stand_ins.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "unit").write_text(f"# /etc/unit\n{UNIT}\n# /etc/drop-in\n{credentials.drop_in(GIVEN)}")
    return made


def properties(argv: list[str]) -> list[str]:
    return [value for option, value in itertools.pairwise(argv) if option == "-p"]


def test_a_word_has_user_place_state_variables_and_credentials_of_the_service() -> None:
    argv, plain = as_service.request(UNIT + credentials.drop_in(GIVEN), PROGRAM, ["doctor", "--canary"])
    assert argv[:6] == ["systemd-run", "--quiet", "--wait", "--collect", "--pipe", "--pty"]
    assert properties(argv) == [
        "User=dbpower",
        "WorkingDirectory=/opt/dbpower-collector",
        "EnvironmentFile=-/opt/dbpower-collector/environment",
        "StateDirectory=dbpower-collector",
        "StateDirectoryMode=0700",
        "UMask=0077",
        "LoadCredential=api_key:/etc/my%key",
        "LoadCredential=db_config.password:/etc/pw",
    ]
    assert argv[argv.index("--") + 1 :] == [
        *("/opt/dbpower-collector/.venv/bin/python", "-I", str(PROGRAM), "--inside"),
        *("DBPOWER_API_KEY_FILE=api_key", "DBPOWER_DB_CONFIG_PASSWORD_FILE=db_config.password"),
        *("--", "doctor", "--canary"),
    ]
    assert plain == {}


def test_what_a_person_added_holds_and_its_values_stand_on_no_command_line() -> None:
    added = (
        "[Service]\n# Environment=X=no\nEnvironment=DBPOWER_API_KEY=hunter2 \\\n  'DBPOWER_PROXY=http://p:50%%'\n"
        "EnvironmentFile=\nEnvironmentFile=/etc/mine\nUser = other\nEnvironment='unfinished\n"
    )
    argv, plain = as_service.request(UNIT + added, PROGRAM, ["status"])
    assert plain == {"DBPOWER_API_KEY": "hunter2", "DBPOWER_PROXY": "http://p:50%"}
    assert [word for word in argv if word.startswith("--setenv")] == [f"--setenv={name}" for name in plain]
    assert properties(argv)[-3:] == ["EnvironmentFile=", "EnvironmentFile=/etc/mine", "User=other"]
    assert "hunter2" not in " ".join(argv)
    _, plain = as_service.request(f"{UNIT}{added}Environment=\n", PROGRAM, ["status"])
    assert plain == {}  # taken back


def test_words_questions_answers_and_exit_code_come_through(machine: Machine) -> None:
    done = machine.say("outbox", "export", "$HOME/100%.csv")
    assert done.stdout.splitlines() == [
        "-m agent outbox export $HOME/100%.csv",
        "api_key: /run/credentials/run-u1.service/api_key",
        "an answer",
    ]
    assert (done.returncode, done.stderr) == (3, "")
    argv, _ = machine.asked()
    assert argv[-1] == "$$HOME/100%.csv"  # systemd would put a variable there


def test_a_value_of_the_unit_goes_by_the_environment(machine: Machine) -> None:
    with (machine.place / "unit").open("a") as unit:
        unit.write("Environment=DBPOWER_PROXY=http://me:hunter2@proxy\n")
    machine.say("doctor")
    argv, variables = machine.asked()
    assert ("--setenv=DBPOWER_PROXY" in argv, "hunter2" in " ".join(argv)) == (True, False)
    assert variables["DBPOWER_PROXY"] == "http://me:hunter2@proxy"


def test_what_the_environment_file_says_stands_above_the_credential_as_in_the_service(machine: Machine) -> None:
    # systemd has read the file before the command begins: the stand-in hands on what it was given.
    assert "api_key: /etc/own" in machine.say("doctor", DBPOWER_API_KEY_FILE="/etc/own").stdout


def test_without_the_service_or_without_systemd_one_sentence_says_so(machine: Machine) -> None:
    (machine.place / "unit").unlink()
    done = machine.say("doctor")
    expected = "dbpower-agent: systemd shows no dbpower-collector: No files found for cat dbpower-collector.\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    (machine.place / "bin" / "systemctl").unlink()
    argv = [sys.executable, "-I", str(machine.command), "doctor"]
    lost = {"PATH": str(machine.place / "bin")}
    done = subprocess.run(argv, env=lost, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.startswith("dbpower-agent: systemd is needed for that: ")) == (2, True)


def test_it_needs_nothing_but_python() -> None:
    script = "import runpy, sys; runpy.run_path(sys.argv[1])"
    argv = [sys.executable, "-I", "-S", "-c", script, as_service.__file__]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
