"""Installs the service, brings it up to date, takes it away again: which steps, in which order. Hands do them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from scripts.installing import as_service, credentials
from scripts.installing.hands import Hands, StepFailed
from scripts.installing.places import ACCOUNT, SERVICE, Places

SOURCES = ("agent", "storage", "pyproject.toml", "README.md", "LICENSE")
BY_HAND = ("agent", "storage", "requirements.txt")  # of an installation as the README had it before
HIDDEN = ("/home", "/root", "/run/user")  # by ProtectHome=
WHEELS = "dbpower_agent-*.whl"


class Service:
    """The service at `places`, installed from `clone`. `has_systemd`: systemd runs here, and is told."""

    def __init__(self, places: Places, clone: Path, hands: Hands, *, has_systemd: bool) -> None:
        self._at, self._clone, self._hands, self._has_systemd = places, clone, hands, has_systemd
        self._unit = clone / "scripts" / places.unit.name
        self._example = (clone / "config.example.json").read_text(encoding="utf-8")

    # -- install ---------------------------------------------------------------------------------------------------

    def install(self, wheels: Path | None, given: Mapping[str, str]) -> None:
        """Everything to its place; what a person has written or the agent has stored stays as it is.

        `wheels`: where the packages are, for a machine that reaches no index; `given`: key to file of credentials.
        Raises StepFailed; a service that ran runs then, if it can.
        """
        with self._hands.scratch() as scratch:
            self._make_account_and_home()
            found = wheels or self._fetched(scratch)
            was_active = self._is_active()
            if was_active:
                self._systemctl("stop the service", "stop", SERVICE)
            try:
                self._put_program(found)
                self._put_unit(given)
                self._put_config(given)
                if self._has_systemd:
                    self._systemctl("have systemd read its units again", "daemon-reload")
                    self._systemctl("have the service start with the machine", "enable", SERVICE)
            except BaseException as cause:
                if was_active:
                    self._start_again(cause)
                raise
        left = [] if was_active else self._left()
        if not left and self._has_systemd:
            self._systemctl("start the service", "restart", SERVICE)
            self._hands.note(f"It runs: systemctl status {SERVICE}; journalctl -u {SERVICE} -f")
        else:
            self._say_what_is_next(left)

    def _start_again(self, cause: BaseException) -> None:
        """As it is now. When that fails too, both are told: the first is why."""
        try:
            self._systemctl("start the service again, as it is now", "start", SERVICE)
        except StepFailed as error:
            raise StepFailed(f"{str(cause) or type(cause).__name__}\nThen it did not start either: {error}") from cause

    def _make_account_and_home(self) -> None:
        at = self._at
        if at.is_host and self._hands.asks("getent", "passwd", ACCOUNT) is None:
            argv = ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", str(at.seen(at.state)))
            self._hands.run(f"make the system user {ACCOUNT}", *argv, "--shell", "/usr/sbin/nologin", ACCOUNT)
        self._hands.directory(f"make {at.home}", at.home, 0o755)
        self._hands.directory(f"make {at.state}, for the outbox", at.state, 0o700, ACCOUNT, ACCOUNT)
        python = at.venv / "bin" / "python"
        if self._hands.asks(str(python), "-c", "import sys, pip; sys.exit(sys.version_info < (3, 11))") is None:
            self._hands.run(f"make {at.venv}", sys.executable, "-m", "venv", "--clear", at.venv)

    def _fetched(self, scratch: Path) -> Path:
        """The packages, before anything is stopped: without an index nothing has changed."""
        source, wheels = scratch / "source", scratch / "wheels"
        for name in SOURCES:  # not in the clone, where a build would leave its own
            self._hands.copy(self._clone / name, source / name)
        self._pip("fetch the packages and build this version", "wheel", "--wheel-dir", wheels, source)
        return wheels

    def _put_program(self, wheels: Path) -> None:
        ours = sorted(wheels.glob(WHEELS)) or [wheels / WHEELS]
        index = ("install", "--no-index", "--find-links", wheels)
        step = f"put the program into {self._at.venv}"
        self._pip(step, *index, "--upgrade", "--upgrade-strategy", "eager", *ours)
        # Once more, alone: the same number of version may be another program.
        self._pip("put this version in the place of the one before", *index, "--no-deps", "--force-reinstall", *ours)
        if not self._at.is_host:
            self._move_home()
        shebang = f"#!{self._at.seen(self._at.venv) / 'bin' / 'python'} -I\n"
        text = shebang + Path(as_service.__file__).read_text(encoding="utf-8")
        self._hands.write(f"write {self._at.command}", self._at.command, text, 0o755)
        old = [self._at.home / name for name in BY_HAND]
        self._hands.remove(f"remove the program that was copied by hand into {self._at.home}", *old)

    def _move_home(self) -> None:
        """Scripts and settings name the place where the environment will be, not the one where it was made."""
        was, will_be = bytes(self._at.venv), bytes(self._at.seen(self._at.venv))
        for path in (self._at.venv / "pyvenv.cfg", *(self._at.venv / "bin").glob("*")):
            self._hands.rewrite(path, was, will_be)

    def _put_unit(self, given: Mapping[str, str]) -> None:
        at = self._at
        self._hands.write(f"write {at.unit}", at.unit, self._unit.read_text(encoding="utf-8"), 0o644)
        if given:
            text = credentials.drop_in({**self._loaded(), **given})
            self._hands.write(f"write {at.credentials} ({', '.join(sorted(given))})", at.credentials, text, 0o644)

    def _put_config(self, given: Mapping[str, str]) -> None:
        config = self._at.config
        if config.exists():
            self._hands.note(f"{config} stays as it is")
            return
        text = credentials.first_config(self._example, given)
        self._hands.write(f"write {config}, from the example", config, text, 0o640, ACCOUNT)

    def _left(self) -> list[str]:
        at = self._at
        return credentials.lacks(_text_of(at.config), self._example, _text_of(at.environment), self._loaded())

    def _say_what_is_next(self, left: list[str]) -> None:
        self._hands.note("Installed, and not started." if self._has_systemd else "Installed; no systemd was told.")
        for number, sentence in enumerate((*left, f"systemctl start {SERVICE}"), 1):
            self._hands.note(f"  {number}. {sentence}")

    # -- uninstall -------------------------------------------------------------------------------------------------

    def uninstall(self, *, purge: bool) -> None:
        """Takes program and unit away; `purge`: also configuration, account, and what was not delivered."""
        at, hands = self._at, self._hands
        if self._has_systemd and at.unit.exists():
            self._systemctl("stop the service, for good", "disable", "--now", SERVICE)
        hands.remove(f"remove {at.unit} and what was added to it", at.unit, at.drop_ins)
        if self._has_systemd:
            self._systemctl("have systemd read its units again", "daemon-reload")
        hands.remove(f"remove the program from {at.home}", at.venv, at.command, *(at.home / name for name in BY_HAND))
        if not purge:
            kept = [str(path) for path in (at.config, at.environment, at.state) if path.exists()]
            hands.note(f"Uninstalled. Kept, until --purge: {', '.join(kept) or 'nothing'}")
            return
        hands.remove(f"remove {at.home}, with the configuration", at.home)
        hands.remove(f"remove {at.state}, with what was not delivered", at.state)
        if at.is_host and hands.asks("getent", "passwd", ACCOUNT) is not None:
            hands.run(f"remove the system user {ACCOUNT}", "userdel", ACCOUNT)
        hands.note("Uninstalled; nothing was kept.")

    # -- what it stands on -----------------------------------------------------------------------------------------

    def _loaded(self) -> dict[str, str]:
        return credentials.loaded(_text_of(self._at.credentials))

    def _is_active(self) -> bool:
        return self._has_systemd and self._hands.asks("systemctl", "is-active", SERVICE) is not None

    def _systemctl(self, step: str, *words: str) -> None:
        self._hands.run(step, "systemctl", *words)

    def _pip(self, step: str, *words: str | Path) -> None:
        self._hands.run(step, self._at.venv / "bin" / "python", "-m", "pip", *words)


def _text_of(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8-sig", errors="replace")  # as the agent reads config.json
    return ""


def complaints(given: Mapping[str, str], asks: Callable[..., str | None], *, has_systemd: bool) -> list[str]:
    """Why nothing could be installed on this machine with this Python and these credentials."""
    base = Path(sys.base_prefix).resolve()
    if str(base).startswith(HIDDEN) or not all(path.stat().st_mode & 1 for path in (base, *base.parents)):
        return [f"the user {ACCOUNT} cannot run the Python in {base}: install that of the distribution"]
    wrong = [f"{key}: {path} cannot be read" for key, path in given.items() if not Path(path).is_file()]
    if (
        given
        and has_systemd
        and not credentials.is_at_least(asks("systemctl", "--version") or "", credentials.CREDENTIALS_SINCE)
    ):
        wrong.append(f"--credential needs systemd {credentials.CREDENTIALS_SINCE} or newer; use `environment` instead")
    return wrong
