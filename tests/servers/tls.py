"""Database servers that speak TLS with the certificate that a test wants, exchanged while they run."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
from pathlib import Path

import pymysql

from agent.dev.server_process import wait_until
from tests.servers.authority import Pair
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import WatchedPostgres
from tests.servers.slow_log_server import SlowLogServer

WAIT_S = 20.0
NAMES = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}
PG_SETTINGS = {
    "ssl_ca_file": "ca.pem",
    "ssl_cert_file": "server.pem",
    "ssl_key_file": "server.key",
    "ssl_ciphers": "ALL:@SECLEVEL=0",
    "ssl_min_protocol_version": "TLSv1",
}
SSL_REQUEST = struct.pack(">II", 8, 80_877_103)


class _Files:
    """Certificate, key and the authority for client certificates, where a server finds them and may read them."""

    def __init__(self, directory: Path, ca: Path) -> None:
        self._directory, self._ca = directory, ca

    def put(self, pair: Pair) -> None:
        owner = self._directory.stat()
        for source, name in ((self._ca, "ca.pem"), (pair.cert, "server.pem"), (pair.key, "server.key")):
            path = self._directory / name
            shutil.copyfile(source, path)
            path.chmod(0o600)
            shutil.chown(path, owner.st_uid, owner.st_gid)


class SlowLogTls:
    """Of a MariaDB or MySQL that was not started yet. `client_ca`: MySQL wants that of its own certificate in it."""

    def __init__(self, server: SlowLogServer, pair: Pair, client_ca: Path) -> None:
        self._server, self._files = server, _Files(server.directory, client_ca)
        self._files.put(pair)
        server._options += [f"--ssl-{key}={server.directory}/{name}" for key, name in NAMES.items()]

    def show(self, pair: Pair) -> None:
        """From now on new connections see this certificate."""
        self._files.put(pair)
        if not isinstance(self._server, MySQLServer):
            self._server.execute("FLUSH SSL")
            return
        try:
            self._server.execute("ALTER INSTANCE RELOAD TLS")
        except pymysql.OperationalError:  # it does not reload one that has expired, but starts with it
            self._server.restart()

    def lose(self) -> None:
        """A MySQL offers no TLS any more, until the next `show`: its key cannot be read."""
        key = self._server.directory / NAMES["key"]
        key.write_text("")
        with contextlib.suppress(pymysql.OperationalError):
            self._server.execute("ALTER INSTANCE RELOAD TLS NO ROLLBACK ON ERROR")


class PostgresTls:
    """Of a PostgreSQL that runs."""

    def __init__(self, server: WatchedPostgres, pair: Pair, client_ca: Path) -> None:
        self._server, self._files = server, _Files(server._data, client_ca)
        self._files.put(pair)
        for name, value in PG_SETTINGS.items():
            server.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.switch(on=True)

    def switch(self, *, on: bool) -> None:
        """Offers TLS, or does not. Takes a restart: then it holds for every connection."""
        self._server.execute(f"ALTER SYSTEM SET ssl = {'on' if on else 'off'}")
        self._server.restart()

    def limit(self, version: str) -> None:
        """Speaks nothing newer; empty: everything."""
        self._server.execute(f"ALTER SYSTEM SET ssl_max_protocol_version = '{version}'")
        self._server.restart()

    def show(self, pair: Pair) -> None:
        """Returns when new connections see this certificate."""
        self._files.put(pair)
        self._server.execute("SELECT pg_reload_conf()")
        expected = ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
        assert wait_until(lambda: self._shown() == expected, WAIT_S)

    def demand_certificates(self, user: str) -> None:
        """That user has to show one, besides the password."""
        hba = self._server._data / "pg_hba.conf"
        rule = f"hostssl all {user} all scram-sha-256 clientcert=verify-ca\n"
        hba.write_text(rule + hba.read_text())
        self._server.restart()

    def _shown(self) -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((self._server.host, self._server.port)) as connection:
            connection.sendall(SSL_REQUEST)
            if connection.recv(1) != b"S":
                return None
            with context.wrap_socket(connection) as secure:
                return secure.getpeercert(binary_form=True)
