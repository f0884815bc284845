"""Builds wheel and sdist, with a bill of materials and checksums beside them: scripts/build

The same source gives wheel and sdist of the same bytes, wherever, whenever and by whom it is built, with the same
setuptools, Python and zlib: what is built is a copy with fixed names, modes and times. The bill of materials names the
versions that are installed here; with other ones it and its line in the checksums are others.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.sbom import bill_of_materials

PACKAGES, FILES = ("agent", "storage"), ("pyproject.toml", "README.md", "LICENSE")
SUMS = "SHA256SUMS"
_FILE_MODE, _DIRECTORY_MODE, _UMASK = 0o644, 0o755, 0o022
# setuptools' own hooks, as a build frontend calls them; a process of its own each, because they change its directory.
_HOOK = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    reader = argparse.ArgumentParser(prog="build.py", description=(__doc__ or "").splitlines()[0])
    reader.add_argument("source", type=Path, help="where pyproject.toml is")
    reader.add_argument("target", type=Path, help="where wheel, sdist, bill of materials and checksums go")
    reader.add_argument("--epoch", type=int, required=True, help="the time of all files, in Unix seconds")
    options = reader.parse_args(words)
    for path in build(options.source, options.target, options.epoch):
        print(path)


def build(source: Path, target: Path, epoch_s: int) -> list[Path]:
    """What was made in `target`. `epoch_s`: Unix seconds, the time of everything in it.

    Raises subprocess.CalledProcessError when setuptools cannot build it; what it said went to standard error.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        room, copy = Path(name), Path(name, "source")
        _copy(source, copy, epoch_s)
        sdist = _built(copy, room, "build_sdist", epoch_s)
        wheel = _built(copy, room, "build_wheel", epoch_s)
        made = [Path(shutil.copy(wheel, target)), target / sdist.name]
        made[1].write_bytes(_repacked(sdist, epoch_s))
    bill = target / f"{sdist.name.removesuffix('.tar.gz')}.cdx.json"
    bill.write_text(json.dumps(bill_of_materials(source / "pyproject.toml", epoch_s), indent=2) + "\n")
    sums = target / SUMS
    sums.write_text("".join(f"{_sha256(path)}  {path.name}\n" for path in (*made, bill)))
    return [*made, bill, sums]


def _copy(source: Path, copy: Path, epoch_s: int) -> None:
    copy.mkdir()
    for package in PACKAGES:
        shutil.copytree(source / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(source / name, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(_DIRECTORY_MODE if path.is_dir() else _FILE_MODE)
        os.utime(path, (epoch_s, epoch_s))


def _built(copy: Path, room: Path, hook: str, epoch_s: int) -> Path:
    made = room / hook
    made.mkdir()
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SETUPTOOLS"))}
    subprocess.run(
        [sys.executable, "-c", _HOOK, hook, str(made)],
        cwd=copy,
        env={**plain, "SOURCE_DATE_EPOCH": str(epoch_s), "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        umask=_UMASK,
        check=True,
    )
    return next(made.iterdir())


def _repacked(sdist: Path, epoch_s: int) -> bytes:
    """The same content without who packed it when; gzip and tar would both tell."""
    packed = io.BytesIO()
    with (
        tarfile.open(sdist) as given,
        gzip.GzipFile("", "wb", mtime=epoch_s, fileobj=packed) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in sorted(_plain(given, epoch_s), key=lambda each: each.name):
            tar.addfile(entry, given.extractfile(entry.name) if entry.isfile() else None)
    return packed.getvalue()


def _plain(given: tarfile.TarFile, epoch_s: int) -> Iterator[tarfile.TarInfo]:
    for entry in given.getmembers():
        plain = tarfile.TarInfo(entry.name)
        plain.type, plain.size, plain.mtime = entry.type, entry.size, epoch_s
        plain.mode = _DIRECTORY_MODE if entry.isdir() else _FILE_MODE
        yield plain


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
