"""A connection to PostgreSQL that reads only, whose every wait has a deadline, and that no report shows as a workload.

The deadline of looking up a name is the system's own: that of its resolver. What fails comes out as one of our
errors; the driver is known to this file and the sources only.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psycopg2
from psycopg2 import errorcodes, extensions

from agent.clock import Clock
from agent.source_errors import (
    AnswerSenseless,
    AnswerTooLarge,
    DatabaseAway,
    LoginRefused,
    SetupError,
    SourceError,
    StatementsNotCreated,
    StatementsNotGranted,
    StatementsNotLoaded,
    TextsUndecodable,
)
from agent.sources import READING, SourceSettings
from agent.sources._postgres_tls import mistrust, parameters
from agent.sources._wire import Wire

# In every statement of ours, inside it so that the server keeps it: what carries it is no slow query of the customer.
MARKER = "/* dbpower-agent */"

_OPTIONS = (
    "-c statement_timeout={ms} -c lock_timeout=5000 -c default_transaction_read_only=on"
    " -c DateStyle=ISO -c TimeZone=UTC"
)
_LOGIN_WORDS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
)
_AWAY_CLASSES = ("08", "57P", "53")  # connection, shutdown and crash, no resources
# An honest answer of counters has 130 bytes for each statement, of which a server knows 5,000 or some times as many.
ANSWER_BYTES = 32 * 1_048_576
_SMALL_BYTES = 1_048_576  # what is said to a login or a SET
# A server may have libpq remember things for as long as the connection lasts; so none lasts for ever.
_CONNECTION_BYTES = 256 * 1_048_576
_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}

Row = tuple[Any, ...]


class Session:
    """One connection in the driver's asynchronous mode: its own waiting could not be given a deadline."""

    def __init__(self, settings: SourceSettings, clock: Clock) -> None:
        """Connects. Raises DatabaseAway, LoginRefused, DatabaseUntrusted or another SetupError."""
        db = settings.db
        self._clock = clock
        self._step, self._read_timeout_s = settings.step, db.read_timeout
        self._meter, self._wire = settings.meter, Wire()
        *earlier, last = addresses(db.host, settings.port, os.environ)
        for address in earlier:
            with suppress(DatabaseAway):
                self._connect(settings, address)
                return
        self._connect(settings, last)

    def _connect(self, settings: SourceSettings, address: Mapping[str, Any]) -> None:
        db = settings.db
        self._step("connecting to the database", db.connect_timeout)
        try:
            self._connection: extensions.connection = psycopg2.connect(
                host=db.host,
                port=settings.port,
                user=db.user,
                password=db.password.get_secret_value(),
                dbname=db.database,
                application_name="dbpower-agent",
                client_encoding="UTF8",
                connect_timeout=max(2, round(db.connect_timeout)),
                keepalives=1,
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
                tcp_user_timeout=round(db.read_timeout * 1000),
                # Below our own patience, so that the server says what it was instead of a wait that ends.
                options=_OPTIONS.format(ms=round(db.read_timeout * 900)),
                async_=True,
                **address,
                **parameters(db.tls, os.environ),
            )
            with self._meter.connecting():
                self._finish(db.connect_timeout, _SMALL_BYTES)
            if self._connection.server_version >= 140_000:
                self._stay()
        except (psycopg2.Error, ValueError) as error:
            self.drop()
            raise explain(error) from None
        except SourceError:
            self.drop()
            raise

    @property
    def version(self) -> str:
        """As the server said at the login, `15.14 (Debian ...)`."""
        return str(self._connection.get_parameter_status("server_version"))

    @property
    def is_open(self) -> bool:
        """Whether the connection was not dropped, and should be used any more."""
        return not self._connection.closed and self._wire.total < _CONNECTION_BYTES

    def _stay(self) -> None:
        # The pause between two looks is no idleness that the server should end.
        with self._connection.cursor() as cursor:
            cursor.execute(f"SET {MARKER} idle_session_timeout = 0")
            self._wait(_SMALL_BYTES)

    def rows(
        self,
        sql: str,
        values: Sequence[object] = (),
        *,
        at_most_bytes: int = ANSWER_BYTES,
        types: Sequence[int] | None = None,
    ) -> list[Row]:
        """All rows of the result. Raises one of our errors; then the connection may be unusable.

        `types`: which the columns must have, as the server numbers them; so nobody has to look at each value.
        """
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                self._wait(at_most_bytes)
                if types is not None and [column.type_code for column in cursor.description or ()] != [*types]:
                    raise AnswerSenseless("its columns have other types than those that were asked for")
                found = cursor.fetchall()
        except (psycopg2.Error, ValueError) as error:
            raise explain(error) from None
        except (TypeError, LookupError, ArithmeticError, RecursionError) as error:
            raise AnswerSenseless(f"its values cannot be read ({type(error).__name__})") from None
        self._meter.read(len(found))
        return found

    def columns(self, sql: str) -> list[str]:
        """The names of the columns that the statement gives."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                self._wait(_SMALL_BYTES)
                return [column.name for column in cursor.description or ()]
        except (psycopg2.Error, ValueError) as error:
            raise explain(error) from None

    def drop(self) -> None:
        """Ends the connection at once; calling it twice is fine."""
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    def _wait(self, at_most_bytes: int) -> None:
        self._step(READING, self._read_timeout_s)
        with self._meter.answering():
            self._finish(self._read_timeout_s, at_most_bytes)
        self._meter.received(self._wire.since_last(self._connection.fileno()))

    def _finish(self, timeout_s: float, at_most_bytes: int) -> None:
        deadline_s = self._clock.monotonic() + timeout_s
        poll = select.poll()
        while (state := self._connection.poll()) != extensions.POLL_OK:
            self._connection.notifies.clear()  # nobody has asked for any
            if self._wire.ahead(self._connection.fileno()) > at_most_bytes:
                self.drop()
                raise AnswerTooLarge(f"more than {at_most_bytes:,} bytes")
            left_s = deadline_s - self._clock.monotonic()
            poll.register(self._connection.fileno(), _EVENTS[state])
            ready = left_s > 0 and poll.poll(left_s * 1000)
            poll.unregister(self._connection.fileno())
            if not ready:
                self.drop()
                raise DatabaseAway(f"no answer within {timeout_s:g} s")


def addresses(host: str, port: int, environ: Mapping[str, str]) -> list[dict[str, str]]:
    """What libpq is to be told of each place where `host` is now, in the order of trying; at least one.

    Asked to find them itself, it would wait without end for one that is silent (a dead IPv6, say) and try no other.
    Raises DatabaseAway.
    """
    if host.startswith(("/", "@")) or "," in host or "PGHOSTADDR" in environ:  # sockets, lists: libpq's own ways
        return [{}]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DatabaseAway(f"the host name {host} cannot be resolved ({error})") from None
    return [{"hostaddr": str(at[0])} for *_, at in found]


def explain(error: Exception) -> SourceError:
    """The error of ours for what server or driver reported."""
    detail = " ".join(str(error).split()) or "the connection was closed"
    code = getattr(error, "pgcode", None) or ""
    if not code and isinstance(error, psycopg2.Error):
        return _without_code(detail)
    if code in {errorcodes.UNDEFINED_TABLE, errorcodes.UNDEFINED_FUNCTION}:
        return StatementsNotCreated(detail)
    if code == errorcodes.OBJECT_NOT_IN_PREREQUISITE_STATE:
        return StatementsNotLoaded()
    if code == errorcodes.INSUFFICIENT_PRIVILEGE:
        return StatementsNotGranted(detail)
    if code in {errorcodes.CHARACTER_NOT_IN_REPERTOIRE, errorcodes.UNTRANSLATABLE_CHARACTER}:
        return TextsUndecodable(detail)
    if code.startswith("28"):
        return LoginRefused(detail)
    if code.startswith(_AWAY_CLASSES):
        return DatabaseAway(detail)
    return SetupError(f"{detail} ({code})" if code else detail)


def _without_code(detail: str) -> SourceError:
    """While it connects, libpq passes on no codes, only texts."""
    untrusted = mistrust(detail)
    if untrusted is not None:
        return untrusted
    if 'database "' in detail and detail.endswith("does not exist"):
        return SetupError(f"{detail}; check db_config database")
    return LoginRefused(detail) if any(word in detail for word in _LOGIN_WORDS) else DatabaseAway(detail)
