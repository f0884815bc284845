"""scripts/build: the same source gives the same bytes, and what it gives works where nothing else of ours is.

What could go wrong: names, modes or times of the machine that builds get into wheel or sdist, so that nobody can prove
from which source they are; the copy that is built is not what stands in the source; the checksums are of something
else; the wheel needs the checkout beside it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import click
import pytest

from agent import __version__
from scripts.build import FILES, PACKAGES, SUMS, build

ROOT = Path(__file__).parents[2]
EPOCH_S, LATER_S = 1_700_000_000, 1_700_000_060
STEM = f"dbpower_agent-{__version__}"
WHEEL, SDIST, BILL = f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz", f"{STEM}.cdx.json"


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def checkout(place: Path, mode: int = 0o644, mtime_s: int | None = None) -> Path:
    """The source as somebody else has it: other modes, other times, and what Python leaves behind."""
    place.mkdir()
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
        (place / package / "__pycache__").mkdir()
        (place / package / "__pycache__" / f"{place.name}.pyc").touch()
    for name in FILES:
        shutil.copy(ROOT / name, place)
    for path in place.rglob("*"):
        if path.is_file():
            path.chmod(mode)
        if mtime_s is not None:
            os.utime(path, (mtime_s, mtime_s))
    return place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    with umask(0o022):
        assert [path.name for path in build(ROOT, target, EPOCH_S)] == [WHEEL, SDIST, BILL, SUMS]
    return target


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_another_place_time_and_umask_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    source = checkout(tmp_path / "elsewhere", mode=0o600, mtime_s=1_234_567_890)
    with umask(0o077):
        build(source, tmp_path / "dist", EPOCH_S)
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files(tmp_path / "dist").items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files(made).items()
    }


def test_control_another_source_or_time_gives_others(made: Path, tmp_path: Path) -> None:
    source = checkout(tmp_path / "source")
    build(source, tmp_path / "later", LATER_S)
    (source / "agent" / "clock.py").write_text("# changed\n")
    build(source, tmp_path / "changed", EPOCH_S)
    for other in ("later", "changed"):
        assert [name for name in (WHEEL, SDIST) if files(tmp_path / other)[name] == files(made)[name]] == []


def test_other_packages_here_make_another_bill_and_other_checksums_and_the_same_wheel_and_sdist(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.9" if name == "requests" else version(name))
    build(checkout(tmp_path / "source"), tmp_path / "dist", EPOCH_S)
    other, ours = files(tmp_path / "dist"), files(made)
    assert sorted(name for name in ours if other[name] != ours[name]) == sorted([BILL, SUMS])


@pytest.mark.parametrize("name", ["build", "build.py"])
def test_what_is_promised_of_the_bytes_names_all_on_which_they_hang(name: str) -> None:
    said = (ROOT / "scripts" / name).read_text()[:1000].replace("\n", " ")
    assert [word for word in ("setuptools", "Python", "zlib", "versions", "are others") if word not in said] == []


def test_the_checksums_are_those_of_what_was_built(made: Path) -> None:
    check = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=made, capture_output=True, check=False)
    assert check.returncode == 0, check.stdout
    assert len((made / SUMS).read_text().splitlines()) == 3


def test_all_of_it_is_of_one_time_and_of_nobody(made: Path) -> None:
    with tarfile.open(made / SDIST) as tar:
        about = {(each.mtime, each.uid, each.gid, each.uname, each.gname) for each in tar.getmembers()}
        assert about == {(EPOCH_S, 0, 0, "", "")}
        assert {each.mode for each in tar.getmembers()} == {0o644, 0o755}
    with zipfile.ZipFile(made / WHEEL) as opened:
        assert len({each.date_time for each in opened.infolist()}) == 1
        assert {each.external_attr >> 16 & 0o777 for each in opened.infolist()} <= {0o644, 0o664}


def test_the_sdist_holds_what_the_wheel_holds_and_what_it_takes_to_build_that(made: Path, tmp_path: Path) -> None:
    with tarfile.open(made / SDIST) as tar:
        tar.extractall(tmp_path, filter="data")
    build(tmp_path / STEM, tmp_path / "dist", EPOCH_S)
    assert files(tmp_path / "dist")[WHEEL] == files(made)[WHEEL]


def test_the_wheel_alone_gives_a_working_command(made: Path, tmp_path: Path) -> None:
    # Nothing is fetched: what the program needs is that of this environment, by a path; the program itself is not.
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(f"{Path(click.__file__).parents[1]}\n")
    argv = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*argv, "--no-index", str(made / WHEEL)], check=True)

    def say(*words: str) -> tuple[int, str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DBPOWER_"))}
        argv = [str(venv / "bin" / words[0]), *words[1:]]
        done = subprocess.run(argv, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    _, where, _ = say("python", "-c", "import agent, storage; print(agent.__file__, storage.__file__)")
    assert [path.startswith(str(site)) for path in where.split()] == [True, True]
    assert say("dbpower-agent", "--version") == (0, f"dbpower-agent, version {__version__}\n", "")
    code, shown, _ = say("dbpower-agent", "--help")
    assert (code, "Brings the slow queries" in shown) == (0, True)
    (tmp_path / "wrong.json").write_text('{"collector_id": "one"}')
    code, shown, told = say("dbpower-agent", "once", "--dry-run", "--config", "wrong.json")
    assert (code, shown, told[:8], "Traceback" in told) == (2, "", "[CF-01] ", False)
