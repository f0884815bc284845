"""What the demonstration needs, started and taken down: database, backend, load, and a real agent process."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from agent.dev.postgres import PostgresServer, wheel_bin_dir
from agent.dev.serve import RunningBackend
from agent.dev.workload import Workload
from agent.sinks import QUERIES
from storage.envelope import Tally
from storage.view import OutboxView

MIN_MS = 40
LOOK_EVERY_S = 0.5
STOP_TIMEOUT_S = 12.0

_COUNTED = """
    SELECT s.queryid::text, sum(s.calls)::bigint FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
    WHERE r.rolname = 'shop' GROUP BY s.queryid HAVING sum(s.total_exec_time) / sum(s.calls) >= {minimum}
"""


class Stage:
    """A context manager; whatever happens, nothing is left behind."""

    def __init__(self) -> None:
        self.states: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stack = contextlib.ExitStack()
        self._agent: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Takes everything down, the agent first."""
        self._stack.close()

    def _build(self) -> None:
        self.home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dbpower-demo-")))
        self.postgres = self._stack.enter_context(PostgresServer(wheel_bin_dir()))
        self.backend = self._stack.enter_context(RunningBackend())
        self._sql("CREATE EXTENSION pg_stat_statements", "CREATE ROLE shop LOGIN SUPERUSER PASSWORD 'shop'")
        self._sql("CREATE ROLE monitoring LOGIN PASSWORD 'monitoring'", "GRANT pg_read_all_stats TO monitoring")
        self.workload = Workload(self._connect_as_shop)
        self.workload.prepare()
        self._stack.callback(self.workload.stop)
        self._register()

    # -- the agent ---------------------------------------------------------------------------------------------

    def start_agent(self) -> None:
        """Starts `python -m agent` as on any host; its states come in `states`."""
        self._agent = subprocess.Popen(
            [sys.executable, "-m", "agent", "--config", str(self.config_path)],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; the agent gets its SIGTERM
        )
        self._stack.callback(self.stop_agent)
        threading.Thread(target=self._listen, args=(self._agent.stderr,), daemon=True).start()

    def stop_agent(self) -> None:
        """SIGTERM, as a service manager would; calling it twice is fine."""
        if self._agent is None:
            return
        self._agent.send_signal(signal.SIGTERM)
        try:
            self._agent.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        self._agent = None

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if entry.get("event") == "watch.entered":
                        self.states.put(str(entry["state"]))

    # -- what is known -----------------------------------------------------------------------------------------

    def books(self) -> Tally:
        """The books of the agent's outbox, read beside it."""
        with OutboxView(self.home / "data") as outbox:
            return outbox.tally(QUERIES)

    def command(self, word: str) -> None:
        """Gives the agent a command, as a person would at the backend."""
        self.backend.registry.queue(self.collector_id, word)

    def counted(self) -> Counter[str]:
        """Calls of every slow statement of the shop as PostgreSQL itself has counted them, by queryid."""
        with contextlib.closing(self.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(_COUNTED.format(minimum=MIN_MS))
            return Counter(dict(cursor.fetchall()))

    def arrived(self) -> list[dict[str, Any]]:
        """Every record that the backend has stored."""
        return list(self.backend.store.records())

    # -- how ---------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        wish = {"name": "demo", "type": "postgres", "team_id": 1, "config": {}, "collection_interval_minutes": 1}
        request = urllib.request.Request(  # noqa: S310 our own backend
            f"{self.backend.url}/api/v1/collectors/register",
            data=json.dumps(wish).encode(),
            headers={"Authorization": "Bearer demo", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 our own backend
            collector = json.load(answer)
        self.collector_id = int(collector["id"])
        self.config_path = self.home / "config.json"
        config = {
            "collector_id": self.collector_id,
            "api_key": collector["api_key"],
            "backend_url": self.backend.url,
            "db_type": "postgres",
            "db_config": {
                "host": self.postgres.host,
                "port": self.postgres.port,
                "user": "monitoring",
                "password": "monitoring",
                "database": "postgres",
                "min_exec_time_ms": MIN_MS,
                "max_load": 0,  # a demonstration is in a hurry
            },
            "heartbeat_interval": 1,
            "collection_interval": LOOK_EVERY_S,
            "log": {"level": "DEBUG", "format": "json"},
        }
        self.config_path.write_text(json.dumps(config, indent=2))
        self.config_path.chmod(0o600)

    def _connect_as_shop(self) -> Any:
        return self.postgres.connect(user="shop", password="shop")  # noqa: S106 the demonstration's own

    def _sql(self, *statements: str) -> None:
        with contextlib.closing(self.postgres.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
