"""A small shop whose statements are sometimes slow: the load of the demonstration. Knows nothing of the agent."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Any

import psycopg2

_TABLES = """
    CREATE TABLE customers (id int PRIMARY KEY, name text);
    CREATE TABLE orders (id int PRIMARY KEY, customer int, total numeric, placed timestamptz);
    INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 500) n;
    INSERT INTO orders SELECT n, n % 500 + 1, n * 1.1, now() FROM generate_series(1, 5000) n;
"""
# Each is slow by a sleep of its own length, so that the demonstration shows the same on any machine.
_STATEMENTS = (
    "SELECT name, sum(total), pg_sleep(0.11) FROM orders JOIN customers c ON c.id = customer GROUP BY name LIMIT 1",
    "SELECT count(*), pg_sleep(0.08) FROM orders WHERE total > 100 AND customer IN (1, 2, 3)",
    "UPDATE orders SET total = total + 1 FROM (SELECT pg_sleep(0.06)) nap WHERE id = 17",
    "WITH monthly AS (SELECT date_trunc('month', placed), sum(total) FROM orders GROUP BY 1) SELECT pg_sleep(0.15)",
    "SELECT name, pg_sleep(0.05) FROM customers WHERE name LIKE '%99' LIMIT 1",
)


class Workload:
    """Runs the statements in a thread of its own until `stop`; what fails while the server is away is tried again."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)

    def prepare(self) -> None:
        """Makes the tables."""
        with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(_TABLES)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the statement that runs."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        rng = random.Random()  # noqa: S311 no secret
        while not self._stopping.is_set():
            with contextlib.suppress(psycopg2.Error), contextlib.closing(self._connect()) as connection:
                while not self._stopping.is_set():
                    with connection.cursor() as cursor:
                        cursor.execute(rng.choice(_STATEMENTS))
            self._stopping.wait(0.2)
