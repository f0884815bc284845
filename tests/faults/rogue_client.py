"""A process that looks at a database once and tells what came of it, and how much memory that took at most.

Arguments: the db_type, the port, and perhaps `unbounded`: as if nobody had thought of it.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.source_errors import SourceError
from agent.sources import SourceSettings, find
from agent.sources._mysql_bounds import Allowance
from agent.sources._wire import Wire
from tests.servers.memory import peak_kib

ENOUGH = 10_000  # records


def _lift_bounds() -> None:
    allowance: Any = Allowance
    allowance.take = allowance.packet = allowance.demand_time = lambda *_: None
    wire: Any = Wire
    wire.ahead = lambda *_: 0


def main(db_type: str, port: int, *, unbounded: bool) -> None:
    if unbounded:
        _lift_bounds()
    timeouts = {"connect_timeout": 60, "read_timeout": 60}
    db = DbConfig(host="127.0.0.1", port=port, user="u", password="pa55word", **timeouts)  # type: ignore[arg-type]
    source = find(db_type)(SourceSettings("default", db, port), Clock())
    before, error = peak_kib(), None
    records = 0
    try:
        source.check()
        source.strain()
        for reading in source.read(None):
            records += len(reading.records)
            if records > ENOUGH:
                break
    except SourceError as raised:
        error = str(raised)
    finally:
        with suppress(SourceError):
            source.close()
    sys.stdout.write(json.dumps({"error": error, "grown": 1_024 * (peak_kib() - before), "records": records}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), unbounded=sys.argv[3:] == ["unbounded"])
