"""The driver's connection to MySQL or MariaDB, held back: it sends nothing of its own, shows the password to nobody who
could be anyone, and takes TLS as it was told. Runs no statement."""

from __future__ import annotations

import ssl
from typing import Any

import pymysql
from pymysql import err
from pymysql.constants import CR

from agent.certificates import FileUnusable, client_context, disagreement, distrust
from agent.config.tls import DatabaseTls
from agent.source_errors import DatabaseUntrusted
from agent.sources._mysql_bounds import Bounded

# Ways to log in that send the password itself, or what is as good as it.
_SHOWS_THE_PASSWORD = frozenset({b"mysql_clear_password", b"dialog", b"mysql_old_password"})
_TLS_DEMANDED = 3159  # ER_SECURE_TRANSPORT_REQUIRED
_NO_TLS = "the server offers no TLS, and db_config tls demands it"


class QuietConnection(Bounded, pymysql.connections.Connection):
    """Sends no statement of its own; the handshake names the character set already.

    The driver's `SET NAMES` would be logged where the global long_query_time is 0. `tls`: without a mode TLS is taken
    when the server offers it. Its files are read here, for this connection.
    """

    def __init__(self, tls: DatabaseTls, **options: Any) -> None:
        """Connects. Raises DatabaseUntrusted, and what the driver raises."""
        self._tls = tls
        # What it says is read by `_create_ssl_ctx` alone; to the driver it says that TLS is demanded.
        demanded = {"demanded": True} if tls.wanted == "require" else None
        super().__init__(ssl=demanded, ssl_disabled=tls.wanted == "disable", **options)

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Does nothing, for the reason above."""

    def _create_ssl_ctx(self, _wishes: object) -> ssl.SSLContext:
        tls = self._tls
        try:
            return client_context(tls.ca, tls.cert, tls.key, checks_chain=tls.checks_chain, checks_name=tls.checks_name)
        except FileUnusable as error:
            raise DatabaseUntrusted(f"db_config tls.{error}") from None

    def _process_auth(self, plugin_name: bytes, *rest: Any) -> Any:
        own: Any = self  # the driver has no public place for this
        if plugin_name in _SHOWS_THE_PASSWORD and not own._secure:  # noqa: SLF001
            raise DatabaseUntrusted("the server asks for the password itself, and the connection has no TLS")
        inherited: Any = super()
        return inherited._process_auth(plugin_name, *rest)  # noqa: SLF001


def mistrust(error: err.MySQLError) -> DatabaseUntrusted | None:
    """What it was about TLS that the driver reports; None when it was something else."""
    cause = error.__context__  # the driver keeps only the text of what it caught
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DatabaseUntrusted(f"the server's certificate: {distrust(cause)}")
    meaning = disagreement(cause.reason or "") if isinstance(cause, ssl.SSLError) else None
    if meaning is not None:
        return DatabaseUntrusted(meaning)
    code = error.args[0] if error.args else None
    if code == CR.CR_SSL_CONNECTION_ERROR:
        return DatabaseUntrusted(_NO_TLS)
    if code == _TLS_DEMANDED:
        return DatabaseUntrusted("the server demands TLS, and db_config tls has mode disable")
    return None
