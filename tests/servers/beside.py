"""Server programs of another suite of this machine's distribution, unpacked beside the system and never installed.

Where the archive is, and whom to believe, is taken from the machine's own configuration of apt: the entry of its suite
with the suite replaced. apt itself loads and proves everything: the index by its signature, each package by its
checksum. The C library of another suite comes along, and each program is started through its loader.

One folder for each program, in $TEST_SERVERS_CACHE (default: /var/cache/dbpower-test-servers for root, else that name
in the user's cache directory). A load that was cut off goes on where it was; what is whole needs no network.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.dev.server_process import DevServerError

NAME = "dbpower-test-servers"
PATIENCE_S = 600
TRUST_ONLY = (  # whatever the machine's configuration allows elsewhere
    *("Acquire::AllowInsecureRepositories=false", "Acquire::AllowWeakRepositories=false"),
    *("Acquire::AllowDowngradeToInsecureRepositories=false", "APT::Get::AllowUnauthenticated=false"),
)
ONLY_PACKAGES = ("Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false")
HABITS = (
    "APT::Install-Recommends=false",
    "APT::Get::Assume-Yes=true",
    "Acquire::Retries=3",
    "Acquire::http::Timeout=30",
)
LAUNCHER = """#!/bin/sh
exec {loader} --library-path {libraries} --argv0 "$0" {program} "$@"
"""


def cache() -> Path:
    """Where the programs are kept."""
    if chosen := os.environ.get("TEST_SERVERS_CACHE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:  # the servers run as nobody then, who cannot enter root's home
        return Path("/var/cache") / NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / NAME


@dataclass(frozen=True, slots=True)
class Program:
    """A package of a suite. `bin`: the folder below `root` where a launcher takes the place of each of `programs`."""

    suite: str
    package: str
    bin: str
    programs: tuple[str, ...]

    @property
    def root(self) -> Path:
        """Its files, laid out as on a system."""
        return cache() / f"{self.package}-{self.suite}"

    @property
    def is_there(self) -> bool:
        """Whether it was got; `root` appears only when it is whole."""
        return self.root.is_dir()

    @property
    def bin_dir(self) -> Path:
        """The folder of its programs."""
        return self.root / self.bin


MYSQL = Program("unstable", "mysql-server-core", "usr/sbin", ("mysqld",))
POSTGRES15 = Program("bookworm", "postgresql-15", "usr/lib/postgresql/15/bin", ("initdb", "postgres"))
POSTGRES17 = Program("trixie", "postgresql-17", "usr/lib/postgresql/17/bin", ("initdb", "postgres"))


def get(wanted: Program) -> None:
    """Gets it when it is not there. Raises DevServerError with the reason why it cannot be had."""
    if wanted.is_there:
        return
    work = wanted.root.with_name(f"{wanted.root.name}.unfinished")
    try:
        work.mkdir(parents=True, exist_ok=True)
        work.parent.chmod(0o755)
        with _alone(work.parent):
            if wanted.is_there:
                return
            new = _unpacked(_loaded(wanted, work), work)
            for name in wanted.programs:
                _put_launcher(new, wanted.bin, name, wanted.root)
            new.rename(wanted.root)
            shutil.rmtree(work)
    except OSError as error:
        raise DevServerError(str(error)) from None


def _loaded(wanted: Program, work: Path) -> list[Path]:
    """The packages that it needs, with their C library, as if nothing were installed."""
    source = work / "the.sources" if (entry := _source(wanted.suite)).startswith("Types:") else work / "the.list"
    source.write_text(entry)
    for folder in ("lists/partial", "archives/partial", "cache"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    places = (
        *(f"Dir::Etc::SourceList={source}", "Dir::Etc::SourceParts=-", f"Dir::State::Lists={work}/lists"),
        *(f"Dir::State::status={work}/status", f"Dir::Cache={work}/cache", f"Dir::Cache::archives={work}/archives"),
        *(
            f"Dir::State={work}",
            f"Dir::Log={work}",
            "APT::Sandbox::User=root",
            "Binary::apt::APT::Keep-Downloaded-Packages=true",
        ),
    )
    options = [f"-o{each}" for each in (*places, *TRUST_ONLY, *ONLY_PACKAGES, *HABITS)]
    _run(["apt-get", *options, "update", "--error-on=any"])
    _run(["apt-get", *options, "install", "--download-only", wanted.package])
    return sorted((work / "archives").glob("*.deb"))


def _source(suite: str) -> str:
    """The entry of the machine's own suite in apt's configuration, with another suite in its place."""
    system = platform.freedesktop_os_release()
    own = system.get("VERSION_CODENAME", "")
    if system.get("ID") != "debian":
        raise DevServerError(f"this system is {system.get('ID')}, and the package comes from Debian's archive")
    targets = _run(["apt-get", "indextargets", "--format", "$(RELEASE) $(SOURCESENTRY)", "Created-By: Packages"])
    files = [line.partition(" ")[2].rpartition(":")[0] for line in targets.splitlines() if line.split()[0] == own]
    for file in files:
        entry = _entry_of(Path(file).read_text(encoding="utf-8"), own, suite)
        if entry is not None:
            return entry
    raise DevServerError(f"apt's configuration has no entry of the suite {own}")


def _entry_of(text: str, own: str, suite: str) -> str | None:
    """The first entry of that file (in either of apt's formats) that has the suite `own`, for `suite`."""
    for stanza in re.split(r"\n\s*\n", text):
        suites = re.search(r"(?im)^Suites:(.*)$", stanza)
        if suites and own in suites[1].split():
            kept = re.sub(r"(?im)^(#.*|(Types|Suites|Components|Trusted|Enabled):.*)\n?", "", stanza + "\n")
            return f"Types: deb\nSuites: {suite}\nComponents: main\n{kept}"
    for line in text.splitlines():
        found = re.fullmatch(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+.*", line.strip())
        if found and found[3] == own:
            options = " ".join(each for each in (found[1] or "").split() if not each.startswith("trusted"))
            return f"deb {f'[{options}] ' if options else ''}{found[2]} {suite} main\n"
    return None


def _unpacked(packages: list[Path], work: Path) -> Path:
    new = work / "root"
    if new.exists():  # a start of it that was cut off
        shutil.rmtree(new)
    new.mkdir(mode=0o755)
    for package in packages:
        _run(["dpkg-deb", "--extract", package, new])
    return new


def _put_launcher(new: Path, folder: str, name: str, root: Path) -> None:
    """Moves a program aside and puts a script in its place, which starts it with its own loader and libraries."""
    libraries = [path.parent.relative_to(new) for path in sorted(new.glob("**/lib/*-linux-gnu*/libc.so.6"))]
    if not libraries:
        raise DevServerError("there is no C library in what was unpacked")
    [loader] = list((new / libraries[0]).glob("ld-linux*.so.*"))
    program = new / folder / name
    moved = program.rename(program.with_name(f"{name}.program")).relative_to(new)
    paths = ":".join(str(root / top / libraries[0].name) for top in ("lib", "usr/lib"))
    words = {"loader": root / loader.relative_to(new), "libraries": paths, "program": root / moved}
    program.write_text(LAUNCHER.format(**{word: shlex.quote(str(value)) for word, value in words.items()}))
    program.chmod(0o755)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _run(argv: list[str | Path]) -> str:
    """What it prints. Raises DevServerError with the first thing that it complains of."""
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevServerError(f"{argv[0]}: {error}") from None
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if line.strip()]
        raise DevServerError(f"{argv[0]}: {complaints[0] if complaints else f'exit code {done.returncode}'}")
    return done.stdout
