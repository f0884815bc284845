"""Does one thing after the other and says each before; in a dry run it only says them. Decides nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FOREIGN = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
_SHOWN_LINES = 20


class StepFailed(Exception):
    """A step could not be done; what it said."""


class Hands:
    """`say` hears each step. `owns`: whether files get their owners; in a directory for a package they do not."""

    def __init__(self, say: Callable[[str], object], *, is_dry: bool, owns: bool) -> None:
        self._say, self._is_dry, self._owns = say, is_dry, owns

    def note(self, sentence: str) -> None:
        """Says what has come of it all; nothing has in a dry run."""
        if not self._is_dry:
            self._say(sentence)

    def _begin(self, step: str) -> None:
        self._say(f"would {step}" if self._is_dry else f"- {step}")

    def run(self, step: str, *argv: str | Path) -> None:
        """A program to its end. Raises StepFailed with what it said."""
        self._begin(step)
        if not self._is_dry:
            self._run(step, argv)

    def _run(self, step: str, argv: tuple[str | Path, ...]) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        environment |= {"PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        try:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        except OSError as error:
            raise StepFailed(f"{step}: {argv[0]}: {error.strerror}") from None
        if done.returncode != 0:
            said = "\n".join(done.stdout.splitlines()[-_SHOWN_LINES:])
            raise StepFailed(f"{step}: {argv[0]} ended with {done.returncode}:\n{said}")

    def asks(self, *argv: str) -> str | None:
        """What a program that changes nothing prints; None when it cannot be run or says no. In a dry run too."""
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout if done.returncode == 0 else None

    def directory(self, step: str, path: Path, mode: int, owner: str = "root", group: str = "root") -> None:
        """Made when it is not there, with its parents."""
        if not path.is_dir():
            self._begin(step)
        if not self._is_dry:
            with _told(step):
                path.mkdir(parents=True, exist_ok=True)
                self._own(path, mode, owner, group)

    def write(self, step: str, path: Path, text: str, mode: int, group: str = "root") -> None:
        """In one go: nobody sees half of it, or sees it before it is his."""
        self._begin(step)
        if self._is_dry:
            return
        with _told(step):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.new")
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            self._own(fresh, mode, "root", group)
            fresh.replace(path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory to work in, until the end; in a dry run too."""
        with _told("make a directory to work in"):
            made = tempfile.TemporaryDirectory(prefix="install-service-")
        with made as name:
            yield Path(name)

    def copy(self, source: Path, target: Path) -> None:
        """What a step needs for itself."""
        if self._is_dry:
            return
        with _told(f"copy {source}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)

    def remove(self, step: str, *paths: Path) -> None:
        """What of these is there, with everything in it."""
        there = [path for path in paths if path.is_symlink() or path.exists()]
        if not there:
            return
        self._begin(step)
        if self._is_dry:
            return
        with _told(step):
            for path in there:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def rewrite(self, path: Path, old: bytes, new: bytes) -> None:
        """Replaces one by the other in a file that is text."""
        if self._is_dry or path.is_symlink() or not path.is_file():
            return
        with _told(f"change {path}"):
            content = path.read_bytes()
            if old in content and b"\0" not in content:
                path.write_bytes(content.replace(old, new))

    def _own(self, path: Path, mode: int, owner: str, group: str) -> None:
        if self._owns:
            shutil.chown(path, owner, group)
        path.chmod(mode)


@contextmanager
def _told(step: str) -> Iterator[None]:
    """Turns what the system refuses into a failed step."""
    try:
        yield
    except (OSError, LookupError) as error:
        raise StepFailed(f"{step}: {error}") from None
