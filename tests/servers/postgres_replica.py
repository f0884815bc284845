"""A physical replica of a PostgreSQL of the tests: the same cluster, counters of its own."""

from __future__ import annotations

from tests.servers.postgres import WatchedPostgres

# What a primary needs beyond the settings of the development server.
PRIMARY = {"wal_level": "replica", "max_wal_senders": "4"}


class Replica(WatchedPostgres):
    """Made by pg_basebackup when it starts the first time; reads until `promote`."""

    def __init__(self, primary: WatchedPostgres) -> None:
        super().__init__(primary.bin_dir)
        self.password = primary.password
        self._primary = primary

    def _init_cluster(self) -> None:
        source = f"host={self._primary.host} port={self._primary.port} user={self.superuser} password={self.password}"
        how = ["-d", source, "-R", "-c", "fast", "--no-sync", "-X", "stream"]
        self._server.run([self.bin_dir / "pg_basebackup", "-D", self._data, *how])
        self.move_to(self.port)

    def promote(self) -> None:
        """Returns when it takes writes."""
        assert self.execute("SELECT pg_promote()") == [(True,)]
        assert self.execute("SELECT pg_is_in_recovery()") == [(False,)]
