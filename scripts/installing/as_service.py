"""Runs a word of the agent as its service has it: its user, its variables, its credentials, its state. Decides nothing.

scripts/install-service puts this file alone beside the program, as `dbpower-agent`: it may use nothing but Python.
What the service has is read from the unit and its drop-ins. systemd hands over the secrets, so none of them is on a
command line: a value of `Environment=` goes by this program's own environment.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SERVICE = "dbpower-collector"
INSIDE = "--inside"  # what systemd starts then: this program again, as the user and with the credentials of the service
UNUSABLE = 2
_TAKEN = (
    *("User", "Group", "SupplementaryGroups", "WorkingDirectory", "UMask", "StateDirectory", "StateDirectoryMode"),
    *("EnvironmentFile", "LoadCredential", "LoadCredentialEncrypted"),
)
_HANDED_OVER = "%d/"


def request(unit: str, program: Path, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What systemd-run is asked for, and the variables that it passes on by their names alone.

    `unit`: the text of the unit and its drop-ins, in the order in which they hold; `program`: this file.
    """
    argv = ["systemd-run", "--quiet", "--wait", "--collect", "--pipe", "--pty"]
    variables: dict[str, str] = {}
    for name, value in _settings(unit):
        if name in _TAKEN:
            argv += ["-p", f"{name}={value.replace('%%', '%')}"]  # what comes by systemd-run is not expanded
        elif name == "Environment":
            variables = variables | _assigned(value) if value else {}  # an empty one takes back what was said before
    files = {name: value for name, value in variables.items() if value.startswith(_HANDED_OVER)}
    plain = {name: value.replace("%%", "%") for name, value in variables.items() if name not in files}
    argv += [f"--setenv={name}" for name in plain]
    python = str(program.parent / ".venv" / "bin" / "python")
    command = [python, "-I", str(program), INSIDE]
    command += [f"{name}={value.removeprefix(_HANDED_OVER)}" for name, value in files.items()]
    return [*argv, "--", *(word.replace("$", "$$") for word in (*command, "--", *words))], plain


def _settings(unit: str) -> Iterator[tuple[str, str]]:
    for line in re.sub(r"\\\n", " ", unit).splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            yield name.strip(), value.strip()


def _assigned(value: str) -> dict[str, str]:
    try:
        pairs = [each.partition("=") for each in shlex.split(value)]
    except ValueError:  # systemd passes over such a line, too
        return {}
    return {name: assigned for name, _, assigned in pairs}


def outside(program: Path, words: Sequence[str]) -> int:
    """Becomes systemd-run; comes back, with an exit code, when it cannot."""
    try:
        shown = subprocess.run(["systemctl", "cat", SERVICE], capture_output=True, text=True, check=False)
        if shown.returncode != 0:
            return _refused(f"systemd shows no {SERVICE}: {shown.stderr.strip()}")
        argv, plain = request(shown.stdout, program, words)
        os.execvpe(argv[0], argv, {**os.environ, **plain})
    except OSError as error:
        return _refused(f"systemd is needed for that: {error}")


def inside(program: Path, words: Sequence[str]) -> None:
    """Becomes the agent. What the service's `EnvironmentFile=` says stands above `Environment=`, as in the service."""
    end = words.index("--")
    for each in words[:end]:
        name, _, key = each.partition("=")
        os.environ.setdefault(name, f"{os.environ.get('CREDENTIALS_DIRECTORY', '')}/{key}")
    python = str(program.parent / ".venv" / "bin" / "python")
    os.execv(python, [python, "-m", "agent", *words[end + 1 :]])


def _refused(sentence: str) -> int:
    print(f"dbpower-agent: {sentence}", file=sys.stderr)
    return UNUSABLE


if __name__ == "__main__":
    itself = Path(os.path.abspath(__file__))
    if sys.argv[1:2] == [INSIDE]:
        inside(itself, sys.argv[2:])
    sys.exit(outside(itself, sys.argv[1:]))
