"""Compares what was to be delivered with what a development backend has."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import orjson

from agent.errors import ReplayRefused
from agent.replay.cargo import parts
from agent.replay.ledger import PARKED, known
from agent.transport import Transport
from scripts.replaying.freight import Freight
from scripts.replaying.meant import FOUND
from scripts.replaying.recipient import Recipient
from storage.envelope import QUERIES

PAGE = 10_000


def verify(found: Sequence[Freight], to: Recipient, options: argparse.Namespace) -> int:
    """Tells what is missing there and what came twice; gives the exit code."""
    keys = []
    for freight in found:
        of = known(freight.ledger).get
        expected = [part for head in freight.heads if head.topic == QUERIES for part in parts(head, of)]
        keys += [part.key for part in expected if part.state != PARKED]
    with closing(to.make_transport()) as transport:
        missing, doubled = missing_and_doubled(transport, keys)
    if options.json:
        print(json.dumps({"keys": len(keys), "missing": missing, "doubled": doubled}))
    else:
        print(f"{len(keys):,} keys, {len(missing):,} missing at the backend; it has {len(doubled):,} records twice")
        lines = [*(f"missing: {key}" for key in missing), *(f"twice: {name}" for name in doubled)]
        print(*lines, sep="\n", end="\n" if lines else "")
    return FOUND if missing or doubled else 0


def missing_and_doubled(transport: Transport, keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of these keys those that a development backend does not have, and the ids of records that it has twice.

    Raises BackendAway, and ReplayRefused when the backend tells neither.
    """
    try:
        there = {each["key"] for each in orjson.loads(transport.get("/dev/keys").body)}
        has_doubles = orjson.loads(transport.get("/dev/summary").body)["duplicates"] > 0
        doubled = [name for name, times in _ids(transport).items() if times > 1] if has_doubles else []
    except (ValueError, TypeError, KeyError) as error:
        raise ReplayRefused("this backend does not tell which keys it has") from error
    return [key for key in keys if key not in there], doubled


def _ids(transport: Transport) -> Counter[str]:
    found, after = Counter[str](), 0
    while page := orjson.loads(transport.get(f"/dev/queries?after={after}&limit={PAGE}").body):
        found.update(str(entry["record"].get("id")) for entry in page)
        after = page[-1]["number"]
    return found
