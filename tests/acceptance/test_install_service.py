"""scripts/install-service itself, below another root: a real environment, a real wheel, and the program that is there.

What could go wrong: the installed program is that of the clone, or does not start; something names the place where it
was made and not the one where it will be; systemd does not understand what is written; the clone is changed by it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.servers.agent_process import environment

ROOT = Path(__file__).parents[2]
HOME = "opt/dbpower-collector"
TIMEOUT_S = 170


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program alone, built from a copy; what it needs is in the environment of the tests."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("agent", "storage"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*argv, target, source], check=True, timeout=TIMEOUT_S)
    return target


def said(*words: object) -> str:
    """What it prints; it must come to a good end."""
    done = subprocess.run(
        [ROOT / "scripts" / "install-service", *map(str, words)],
        env={**environment(), "PIP_NO_DEPS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def installed(root: Path, *words: str) -> str:
    """What the Python of the installation prints; the packages that the program needs are lent to it."""
    python = root / HOME / ".venv" / "bin" / "python"
    lent = environment(PYTHONPATH=sysconfig.get_path("purelib"))
    done = subprocess.run([python, *words], cwd=root, env=lent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verified(root: Path, place: Path) -> str:
    """What systemd says of the unit and what is added to it, as if the program were in its place."""
    units = place / "units"
    shutil.copytree(root / "etc/systemd/system", units)
    unit = units / "dbpower-collector.service"
    unit.write_text(unit.read_text().replace(f"/{HOME}", str(root / HOME)))
    argv = ["systemd-analyze", "verify", "--man=no", str(unit)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return "\n".join(line for line in (ran.stdout + ran.stderr).splitlines() if "dbpower" in line)


def test_it_is_installed_upgraded_and_taken_away_again(wheels: Path, tmp_path: Path) -> None:
    before = subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    root = tmp_path / "root"
    home = root / HOME
    out = said("--root", root, "--wheels", wheels, "--credential", "api_key=/etc/dbpower/api_key")
    assert "no systemd was told" in out
    module = "import agent, storage; print(agent.__file__); print(storage.__file__)"
    site = home / ".venv/lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert installed(root, "-c", module).split() == [str(site / name / "__init__.py") for name in ("agent", "storage")]
    assert "dbpower-agent, version" in installed(root, "-m", "agent", "--version")
    named = [
        path
        for path in (home / ".venv" / "pyvenv.cfg", *(home / ".venv" / "bin").iterdir())
        if not path.is_symlink() and str(root).encode() in path.read_bytes()
    ]
    assert named == []
    assert (home / ".venv/bin/dbpower-agent").read_text().startswith(f"#!/{HOME}/.venv/bin/python\n")

    command = home / "dbpower-agent"
    assert command.read_text().startswith(f"#!/{HOME}/.venv/bin/python -I\n")
    assert "dbpower-agent, version" in installed(root, "-I", str(command), "--inside", "--", "--version")

    if shutil.which("systemd-analyze"):
        assert verified(root, tmp_path) == ""
        drop_in = root / "etc/systemd/system/dbpower-collector.service.d/credentials.conf"
        drop_in.write_text(drop_in.read_text().replace("LoadCredential", "LoadCredentials"))
        assert "LoadCredentials" in verified(root, tmp_path / "control")  # it would notice
        drop_in.write_text(drop_in.read_text().replace("LoadCredentials", "LoadCredential"))

    config, outbox = home / "config.json", root / "var/lib/dbpower-collector/outbox.sqlite3"
    config.write_text('{"mine": 1}')
    outbox.write_text("precious")
    (site / "agent" / "gone.py").touch()  # as if a version before had it, and told pip
    record = next(site.glob("dbpower_agent-*.dist-info")) / "RECORD"
    record.write_text(f"{record.read_text()}agent/gone.py,,\n")
    (home / "agent").mkdir()
    said("--root", root, "--wheels", wheels)
    assert (config.read_text(), outbox.read_text()) == ('{"mine": 1}', "precious")
    assert [path.exists() for path in (site / "agent" / "gone.py", home / "agent")] == [False, False]
    assert "dbpower-agent, version" in installed(root, "-m", "agent", "--version")

    assert "Kept, until --purge" in said("--root", root, "--uninstall")
    assert [path.exists() for path in (home / ".venv", command, config, outbox)] == [False, False, True, True]
    said("--root", root, "--uninstall", "--purge")
    assert [path for path in root.rglob("*dbpower*") if path.exists()] == []
    after = subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert after == before
