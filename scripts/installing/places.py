"""Where an installed service has its things. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SERVICE = "dbpower-collector"
ACCOUNT = "dbpower"
HOST = Path("/")


@dataclass(frozen=True, slots=True)
class Places:
    """Of a service below `root`: that of this machine, or a directory that becomes one."""

    root: Path

    @property
    def is_host(self) -> bool:
        """Whether it is this machine, with its accounts and its systemd."""
        return self.root == HOST

    @property
    def home(self) -> Path:
        """The program and its configuration."""
        return self.root / "opt" / SERVICE

    @property
    def venv(self) -> Path:
        """The program."""
        return self.home / ".venv"

    @property
    def command(self) -> Path:
        """What runs a word of the agent as the service has it."""
        return self.home / "dbpower-agent"

    @property
    def config(self) -> Path:
        """What a person fills in."""
        return self.home / "config.json"

    @property
    def environment(self) -> Path:
        """Variables, which a person may put there."""
        return self.home / "environment"

    @property
    def state(self) -> Path:
        """The outbox."""
        return self.root / "var" / "lib" / SERVICE

    @property
    def unit(self) -> Path:
        """What systemd reads."""
        return self.root / "etc" / "systemd" / "system" / f"{SERVICE}.service"

    @property
    def drop_ins(self) -> Path:
        """What is added to the unit here."""
        return self.unit.with_name(f"{self.unit.name}.d")

    @property
    def credentials(self) -> Path:
        """Where secrets come from."""
        return self.drop_ins / "credentials.conf"

    def seen(self, path: Path) -> Path:
        """The path as it is where the service runs."""
        return HOST / path.relative_to(self.root)
