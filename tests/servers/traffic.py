"""Slow statements at a steady pace from several sessions, and what the server itself says it ran of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from tests.servers.agent_process import Json
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import WatchedPostgres, shape
from tests.servers.slow_log_server import tag

Execute = Callable[[str], object]

SLOW_S, SLOW_MS = 0.006, 5.0
SHAPES = 40  # more than one envelope holds, so that a look is cut into several
EXECUTIONS_SQL = """
    SELECT query, sum(calls)::bigint FROM pg_stat_statements
    WHERE starts_with(query, 'WITH traffic_') GROUP BY query
"""


class Customer(Protocol):
    """What runs slow statements on one database, and counts them there."""

    @property
    def db_type(self) -> str:
        """As the configuration names it."""

    def db_config(self) -> Json:
        """How an agent reaches this database."""

    def session(self) -> AbstractContextManager[Execute]:
        """A connection of its own."""

    def statement(self, number: int) -> str:
        """The slow statement with that number."""

    def executions(self) -> Counter[str]:
        """What the server has counted: text, as it is collected, to how often it ran."""

    def forget(self) -> None:
        """The server starts to count anew."""


class MariaDBCustomer:
    """Each statement is a row of the slow log with a text of its own."""

    db_type = "mysql"

    def __init__(self, server: MariaDBServer) -> None:
        self._server = server

    def db_config(self) -> Json:
        return self._server.monitor()

    @contextmanager
    def session(self) -> Iterator[Execute]:
        with closing(self._server.root()) as connection, connection.cursor() as cursor:
            cursor.execute(self._server.log_all_sql)
            yield cursor.execute

    def statement(self, number: int) -> str:
        return f"SELECT /* {tag(number)} */ 1"

    def executions(self) -> Counter[str]:
        return Counter(self._server.texts())

    def forget(self) -> None:
        self._server.truncate()


class PostgresCustomer:
    """SHAPES statements in turn, each counted by the server under a text of its own."""

    db_type = "postgres"

    def __init__(self, server: WatchedPostgres) -> None:
        self._server = server

    def db_config(self) -> Json:
        return {**self._server.monitor(), "min_exec_time_ms": SLOW_MS}

    @contextmanager
    def session(self) -> Iterator[Execute]:
        with closing(self._server.admin()) as connection, connection.cursor() as cursor:
            yield cursor.execute

    def statement(self, number: int) -> str:
        return shape(f"traffic_{number % SHAPES}", SLOW_S)

    def executions(self) -> Counter[str]:
        return Counter({text: int(calls) for text, calls in self._server.execute(EXECUTIONS_SQL)})

    def forget(self) -> None:
        self._server.reset()


class Traffic:
    """`with Traffic(customer) as traffic:` runs statements until `stop`, in some sessions at once."""

    def __init__(self, customer: Customer, *, sessions: int = 3, pause_s: float = 0.02) -> None:
        self._customer, self._pause_s = customer, pause_s
        self._stopping = Event()
        self._done = [0] * sessions
        self._errors: list[Exception] = []
        self._threads = [Thread(target=self._run, args=(each,), name=f"traffic {each}") for each in range(sessions)]

    @property
    def done(self) -> int:
        """How many statements the server has answered."""
        return sum(self._done)

    def stop(self) -> None:
        """Ends after the statements that run; raises what went wrong in a session. May be called again."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self, session: int) -> None:
        try:
            with self._customer.session() as execute:
                for number in count(session, len(self._threads)):
                    if self._stopping.wait(self._pause_s):
                        return
                    execute(self._customer.statement(number))
                    self._done[session] += 1
        except Exception as error:  # told by `stop`
            self._errors.append(error)
